//! Examines a module that a tenant pushes: fetch, compile, ask it for its functions.
//!
//! `describe` runs in a confined executor of its own with the sandbox's limits, and nothing of the module runs in
//! this process.

use std::sync::Arc;

use partita_types::{ByteSize, FunctionInfo, ModuleId, TenantId};

use crate::error;
use crate::host::Host;
use crate::modules::blocking;

/// Memory that `describe` may use.
const MEMORY: ByteSize = ByteSize::mib(256);

/// The functions of a module, or why it is refused.
pub(crate) async fn inspect(host: &Arc<Host>, tenant: TenantId, module: ModuleId) -> Result<Vec<FunctionInfo>, String> {
    let artefact = host.modules.get(tenant, module).await.map_err(|fault| fault.reason())?;
    let host = Arc::clone(host);
    let described = blocking(move || {
        let mut executor = host.executors.fork(&artefact, MEMORY).map_err(|fault| error::chain(&fault))?;
        executor.describe().map_err(|failure| format!("describe ended with {}: {}", failure.cause, failure.message))
    });
    described.await.unwrap_or_else(|| Err("the host stops".to_owned()))
}
