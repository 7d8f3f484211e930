//! The modules of tenants: taken piece by piece, checked, kept under their hash.

use std::time::Duration;

use partita_core::{Reply, Request};
use partita_protocol::client::modules_server::Modules;
use partita_protocol::client::push_module_request::Part;
use partita_protocol::client::{
    ListModulesRequest, ListModulesResponse, Module, PushModuleHeader, PushModuleRequest, ShowModuleRequest,
};
use partita_types::{ByteSize, ModuleId, ModuleInfo, TenantId, Timestamp};
use tokio::sync::Semaphore;
use tonic::{Request as Call, Response, Status, Streaming};
use tracing::info;

use crate::audit::Object;
use crate::auth::caller;
use crate::driver::Handle;
use crate::module_files::{ModuleFiles, Receiving};
use crate::scope;
use crate::space::Space;
use crate::status::{not_found, unexpected};
use crate::wire;

/// Pushes at once; each holds a temporary file.
const PUSHES: usize = 16;
/// How long a client may be silent within a push.
const SILENCE: Duration = Duration::from_secs(30);
/// Longest push from header to the last piece.
const PUSH: Duration = Duration::from_secs(600);
/// Longest examination by a host: it compiles the module.
const EXAMINATION: Duration = Duration::from_secs(300);
/// Longest name of a module.
const NAME: usize = 128;
/// Shortest beginning of an id that is looked up.
const PREFIX: usize = 4;

/// The service of modules.
#[derive(Debug)]
pub(crate) struct ModuleService {
    handle: Handle,
    files: ModuleFiles,
    pushes: Semaphore,
    space: Space,
}

/// A checked header.
struct Header {
    name: String,
    size: u64,
    id: ModuleId,
}

impl Header {
    /// Checks everything that can be checked before a byte of the module is taken.
    fn new(header: PushModuleHeader, limit: ByteSize) -> Result<Self, Status> {
        let PushModuleHeader { name, size, id } = header;
        if name.is_empty() || name.len() > NAME || name.chars().any(char::is_control) {
            return Err(Status::invalid_argument(format!(
                "the module's name must have 1 to {NAME} bytes of printable text"
            )));
        }
        let id = ModuleId::from_slice(&id).map_err(|error| Status::invalid_argument(error.to_string()))?;
        if size == 0 {
            return Err(Status::invalid_argument(format!("module {name:?} is empty")));
        }
        if size > limit.0 {
            return Err(Status::resource_exhausted(format!(
                "module {name:?} has {}, and the policy allows {limit}",
                ByteSize(size)
            )));
        }
        Ok(Self { name, size, id })
    }
}

impl ModuleService {
    pub(crate) fn new(handle: Handle, files: ModuleFiles, space: Space) -> Self {
        Self { handle, files, pushes: Semaphore::new(PUSHES), space }
    }

    /// The largest module that the tenant may push.
    async fn limit(&self, tenant: TenantId) -> Result<ByteSize, Status> {
        let limit = move |core: &partita_core::Core| {
            core.tenants().into_iter().find(|view| view.id == tenant).map(|view| view.policy.quota.module_size)
        };
        self.handle.query(limit).await?.ok_or_else(|| Status::internal("a tenant without a policy"))
    }

    async fn receive(&self, header: &Header, pieces: &mut Streaming<PushModuleRequest>) -> Result<Receiving, Status> {
        let mut receiving = self.files.receive(header.size).await?;
        while let Some(message) = next(pieces).await? {
            match message.part {
                Some(Part::Chunk(chunk)) => receiving.write(&chunk).await?,
                Some(Part::Header(_)) | None => {
                    return Err(Status::invalid_argument("a push has one header, and then only pieces"));
                }
            }
        }
        Ok(receiving)
    }

    /// Hands a stored module to the core, and removes it again if the core does not take it.
    async fn add(&self, tenant: TenantId, header: Header) -> Result<Module, Status> {
        let Header { name, size, id } = header;
        let add = Request::AddModule { tenant, module: id, name, size: ByteSize(size) };
        match self.handle.request(add, EXAMINATION).await {
            Ok(Reply::ModuleAdded) => {}
            Ok(other) => return Err(unexpected(&other)),
            Err(error) => return Err(error.into()),
        }
        let module =
            self.handle.query(move |core| core.module(tenant, id).map(|module| shown(core, tenant, module))).await?;
        module.ok_or_else(|| not_found(format_args!("module {id}")))
    }
}

async fn next(pieces: &mut Streaming<PushModuleRequest>) -> Result<Option<PushModuleRequest>, Status> {
    tokio::time::timeout(SILENCE, pieces.message())
        .await
        .map_err(|_| Status::deadline_exceeded(format!("the push was silent for {} s", SILENCE.as_secs())))?
}

#[tonic::async_trait]
impl Modules for ModuleService {
    async fn push(&self, call: Call<Streaming<PushModuleRequest>>) -> Result<Response<Module>, Status> {
        let (caller, object) = (caller(&call)?, Object::of(&call));
        let _push = self.pushes.try_acquire().map_err(|_| {
            Status::unavailable(format!("{PUSHES} modules are being pushed already; try again in a moment"))
        })?;
        let tenant = scope::tenant_id(&self.handle, &caller.0.tenant).await?;
        let limit = self.limit(tenant).await?;
        let mut pieces = call.into_inner();
        let Some(Part::Header(header)) = next(&mut pieces).await?.and_then(|message| message.part) else {
            return Err(Status::invalid_argument("a push begins with its header"));
        };
        let header = Header::new(header, limit)?;
        self.space.check("module", ByteSize(header.size))?;
        let (id, name) = (header.id, header.name.clone());
        object.is(format_args!("module {id} ({name:?})"));
        let received = tokio::time::timeout(PUSH, self.receive(&header, &mut pieces)).await;
        let received = received.map_err(|_| Status::deadline_exceeded("the push took too long"))??;
        // Held until the core has decided, so that another push of the same bytes cannot have its file removed.
        let held = received.keep(id, tenant).await?;
        let added = self.add(tenant, header).await;
        let wanted =
            self.handle.query(move |core| core.tenants().iter().any(|view| core.module(view.id, id).is_some()));
        held.release(wanted.await.unwrap_or(true)).await;
        let module = added?;
        info!(tenant = %caller.0.tenant, subject = %caller.0.sub, module = %id, name, "module pushed");
        Ok(Response::new(module))
    }

    async fn list(&self, call: Call<ListModulesRequest>) -> Result<Response<ListModulesResponse>, Status> {
        let tenant = scope::tenant_id(&self.handle, &caller(&call)?.0.tenant).await?;
        let modules = self
            .handle
            .query(move |core| core.modules(tenant).into_iter().map(|module| shown(core, tenant, module)).collect());
        Ok(Response::new(ListModulesResponse { modules: modules.await? }))
    }

    async fn show(&self, call: Call<ShowModuleRequest>) -> Result<Response<Module>, Status> {
        let tenant = scope::tenant_id(&self.handle, &caller(&call)?.0.tenant).await?;
        let reference = call.into_inner().reference;
        let module = self
            .handle
            .query(move |core| find(&core.modules(tenant), &reference).map(|module| shown(core, tenant, module)));
        Ok(Response::new(module.await??))
    }
}

/// A module as clients see it.
fn shown(core: &partita_core::Core, tenant: TenantId, (info, at): (&ModuleInfo, Timestamp)) -> Module {
    wire::module(info, at, core.quarantine(tenant, info.id).map(|(reason, _)| reason))
}

/// The module meant by `reference`: an id, a name (then the latest), or the beginning of an id.
fn find<'a>(modules: &[(&'a ModuleInfo, Timestamp)], reference: &str) -> Result<(&'a ModuleInfo, Timestamp), Status> {
    let missing = || not_found(format_args!("module {:?}", reference.chars().take(80).collect::<String>()));
    let named = modules.iter().rev().find(|(info, _)| info.name == reference || info.id.to_string() == reference);
    if let Some(module) = named {
        return Ok(*module);
    }
    if reference.len() < PREFIX {
        return Err(missing());
    }
    let mut found = modules.iter().filter(|(info, _)| info.id.to_string().starts_with(reference));
    match (found.next(), found.next()) {
        (Some(module), None) => Ok(*module),
        (Some(_), Some(_)) => Err(Status::failed_precondition(format!(
            "{reference} is the beginning of several module ids; give more digits"
        ))),
        (None, _) => Err(missing()),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn info(id: u8, name: &str) -> ModuleInfo {
        ModuleInfo { id: ModuleId([id; 32]), name: name.to_owned(), size: ByteSize(1), functions: Vec::new() }
    }

    #[test]
    fn a_reference_is_an_id_a_name_or_the_beginning_of_one_id() {
        let first = info(0x11, "count");
        let second = info(0x12, "count");
        let third = ModuleInfo { id: ModuleId([[0x11; 16], [0x22; 16]].concat().try_into().unwrap()), ..info(0, "z") };
        let all = [(&first, Timestamp::default()), (&second, Timestamp::default()), (&third, Timestamp::default())];
        let id = |reference: &str| find(&all, reference).map(|(info, _)| info.id.0);
        assert_eq!(id("count").unwrap(), second.id.0, "the latest of that name");
        assert_eq!(id(&first.id.to_string()).unwrap(), first.id.0);
        assert_eq!(id("1212").unwrap(), second.id.0);
        assert_eq!(id("1111").unwrap_err().code(), Code::FailedPrecondition);
        assert_eq!(id("12").unwrap_err().code(), Code::NotFound);
        assert_eq!(id("").unwrap_err().code(), Code::NotFound);
    }

    #[test]
    fn a_header_is_checked_before_anything_is_taken() {
        let header =
            |name: &str, size, id: &[u8]| PushModuleHeader { name: name.to_owned(), size, id: id.to_vec().into() };
        let check = |header| Header::new(header, ByteSize(100)).map(|_| ()).map_err(|status| status.code());
        assert_eq!(check(header("a", 100, &[0; 32])), Ok(()));
        assert_eq!(check(header("a", 101, &[0; 32])), Err(Code::ResourceExhausted));
        assert_eq!(check(header("a", 0, &[0; 32])), Err(Code::InvalidArgument));
        assert_eq!(check(header("a", 1, &[0; 31])), Err(Code::InvalidArgument));
        assert_eq!(check(header("", 1, &[0; 32])), Err(Code::InvalidArgument));
        assert_eq!(check(header("a\nb", 1, &[0; 32])), Err(Code::InvalidArgument));
    }
}
