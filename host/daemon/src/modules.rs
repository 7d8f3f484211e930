//! Modules made ready to run: fetched from the scheduler, compiled in a process of their own, kept.
//!
//! A module is fetched and compiled once, however many frames wait for it. A module that was refused stays refused
//! without being compiled again; a failure that says nothing about the module (a lost connection) is tried again by
//! the next frame that needs it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use partita_protocol::host::ModuleRequest;
use partita_sandbox::{Artefact, ArtefactCache, CompileError, Compiler};
use partita_types::{ByteSize, Cause, Failure, ModuleId, TenantId};
use sha2::{Digest, Sha256};
use tokio::sync::{OnceCell, Semaphore};

use crate::error;
use crate::metrics::Counters;
use crate::sync::lock;
use crate::uplink::Uplink;

/// Largest module that is fetched; the compiler has the same limit.
const MAX_MODULE: ByteSize = ByteSize::mib(64);
/// Modules kept ready, refused ones included. Each ready one has a descriptor.
const MAX_READY: usize = 256;
/// Longest wait for the next chunk of a module.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);
/// Compilations at once: they must not starve the tasks that run.
const COMPILATIONS: usize = 2;

/// Why a module cannot run here.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ModuleError {
    #[error("module {module} is refused: {reason}")]
    Refused { module: ModuleId, reason: String },
    #[error("module {module} could not be fetched from the scheduler: {reason}")]
    Fetch { module: ModuleId, reason: String },
    #[error("module {module} could not be compiled: {reason}")]
    Compile { module: ModuleId, reason: String },
}

impl ModuleError {
    /// How an attempt fails that needs the module.
    pub(crate) fn failure(&self) -> Failure {
        let cause = match self {
            Self::Refused { .. } => Cause::Module,
            // Says nothing about the task.
            Self::Fetch { .. } | Self::Compile { .. } => Cause::Input,
        };
        Failure::new(cause, self.to_string())
    }

    /// What is wrong, for somebody who knows which module it is about.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Refused { reason, .. } => reason.clone(),
            Self::Fetch { reason, .. } => format!("it could not be fetched from the scheduler: {reason}"),
            Self::Compile { reason, .. } => format!("it could not be compiled: {reason}"),
        }
    }
}

type Verdict = Result<Artefact, ModuleError>;
type Slot = Arc<OnceCell<Verdict>>;

/// The modules of this host.
#[derive(Debug)]
pub(crate) struct Modules {
    uplink: Uplink,
    compiler: Compiler,
    cache: Arc<ArtefactCache>,
    counters: Arc<Counters>,
    /// Oldest first.
    slots: Mutex<VecDeque<(ModuleId, Slot)>>,
    compilations: Semaphore,
}

impl Modules {
    /// Nothing is ready yet; `cache` has what earlier starts compiled.
    pub(crate) fn new(uplink: Uplink, compiler: Compiler, cache: ArtefactCache, counters: Arc<Counters>) -> Self {
        let (cache, slots, compilations) = (Arc::new(cache), Mutex::default(), Semaphore::new(COMPILATIONS));
        Self { uplink, compiler, cache, counters, slots, compilations }
    }

    /// The module, if nothing has to be done for it any more.
    pub(crate) fn ready(&self, module: ModuleId) -> Option<Verdict> {
        let slots = lock(&self.slots);
        slots.iter().find(|(id, _)| *id == module).and_then(|(_, slot)| slot.get().cloned())
    }

    /// Makes a module ready for a tenant that the scheduler lets use it.
    pub(crate) async fn get(&self, tenant: TenantId, module: ModuleId) -> Verdict {
        let slot = self.slot(module);
        // Only what is known for good fills the cell; a passing failure leaves it empty for the next one.
        slot.get_or_try_init(|| self.make(tenant, module)).await.cloned().and_then(|verdict| verdict)
    }

    fn slot(&self, module: ModuleId) -> Slot {
        let mut slots = lock(&self.slots);
        if let Some((_, slot)) = slots.iter().find(|(id, _)| *id == module) {
            return Arc::clone(slot);
        }
        if slots.len() >= MAX_READY {
            slots.pop_front();
        }
        let slot = Slot::default();
        slots.push_back((module, Arc::clone(&slot)));
        slot
    }

    async fn make(&self, tenant: TenantId, module: ModuleId) -> Result<Verdict, ModuleError> {
        let cache = Arc::clone(&self.cache);
        let cached = blocking(move || cache.get(module)).await;
        if let Some(artefact) = cached.flatten() {
            return Ok(Ok(artefact));
        }
        let component = self.fetch(tenant, module).await?;
        self.compile(module, component).await
    }

    async fn fetch(&self, tenant: TenantId, module: ModuleId) -> Result<Vec<u8>, ModuleError> {
        let failed = |reason: String| ModuleError::Fetch { module, reason };
        let request = ModuleRequest { module: module.0.to_vec().into(), tenant: tenant.0 };
        let mut client = self.uplink.bulk();
        let answer = tokio::time::timeout(CHUNK_TIMEOUT, client.module(request)).await;
        let answer = answer.map_err(|_| failed(timed_out()))?;
        let mut chunks = answer.map_err(|status| failed(error::status(&status)))?.into_inner();
        let mut component = Vec::new();
        loop {
            let next = tokio::time::timeout(CHUNK_TIMEOUT, chunks.message()).await.map_err(|_| failed(timed_out()))?;
            let Some(chunk) = next.map_err(|status| failed(error::status(&status)))? else { break };
            if component.len() as u64 + chunk.data.len() as u64 > MAX_MODULE.0 {
                return Err(failed(format!("it is larger than {MAX_MODULE}")));
            }
            component.extend_from_slice(&chunk.data);
        }
        let found = ModuleId(Sha256::digest(&component).into());
        if found == module { Ok(component) } else { Err(failed(format!("the bytes that came are {found}"))) }
    }

    async fn compile(&self, module: ModuleId, component: Vec<u8>) -> Result<Verdict, ModuleError> {
        let unavailable = |reason: String| ModuleError::Compile { module, reason };
        let permit = self.compilations.acquire().await.map_err(|_| unavailable("the host stops".to_owned()))?;
        let (compiler, cache) = (self.compiler.clone(), Arc::clone(&self.cache));
        let done = blocking(move || {
            let code = compiler.compile(&component)?;
            cache.insert(module, &code).map_err(CompileError::Unavailable)
        });
        let done = done.await;
        drop(permit);
        match done {
            Some(Ok(artefact)) => {
                self.counters.modules_compiled.one();
                Ok(Ok(artefact))
            }
            Some(Err(fault)) if fault.worth_retrying() => Err(unavailable(error::chain(&fault))),
            Some(Err(fault)) => Ok(Err(ModuleError::Refused { module, reason: error::chain(&fault) })),
            None => Err(unavailable("the host stops".to_owned())),
        }
    }
}

fn timed_out() -> String {
    format!("nothing came for {} s", CHUNK_TIMEOUT.as_secs())
}

/// Runs `work` on a blocking thread; `None` if the runtime stops.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}
