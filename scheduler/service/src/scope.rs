//! Which tenant a call is about. Everything that names an object of a tenant goes through here.

use std::time::Duration;

use partita_core::{Core, JobView, Reply, Request};
use partita_types::{JobId, TenantId, TenantName};
use tonic::Status;

use crate::auth::Caller;
use crate::driver::Handle;
use crate::status::{not_found, unexpected};

/// Longest wait for a decision of the core that needs nobody else.
pub(crate) const DECISION: Duration = Duration::from_secs(30);

/// The tenant named in a request, or the caller's own. `what` is the object asked for: a tenant that the caller may
/// not look at reads like an object that does not exist.
pub(crate) fn tenant(caller: &Caller, named: &str, what: &str) -> Result<TenantName, Status> {
    let own = &caller.0.tenant;
    if named.is_empty() || named == own.as_str() {
        return Ok(own.clone());
    }
    match TenantName::new(named) {
        Ok(tenant) if caller.sees_all_tenants() => Ok(tenant),
        Ok(_) | Err(_) => Err(not_found(what)),
    }
}

/// Of a tenant that no policy defines. Only its own members and operators come to see this.
pub(crate) fn undefined(tenant: &TenantName) -> Status {
    Status::failed_precondition(format!(
        "tenant {tenant} is not defined by any policy of this cluster; ask its administrator to add it"
    ))
}

/// The number of a tenant.
pub(crate) async fn tenant_id(handle: &Handle, tenant: &TenantName) -> Result<TenantId, Status> {
    let name = tenant.clone();
    handle.query(move |core| core.tenant(&name)).await?.ok_or_else(|| undefined(tenant))
}

/// The id of a job of a tenant, whether it exists or not.
pub(crate) async fn job_id(handle: &Handle, caller: &Caller, named: &str, number: u32) -> Result<JobId, Status> {
    let tenant = tenant(caller, named, &format!("job {number}"))?;
    Ok(JobId { tenant: tenant_id(handle, &tenant).await?, number })
}

/// A job that must exist, and something else from the same state.
pub(crate) async fn with_job<T: Send + 'static>(
    handle: &Handle,
    job: JobId,
    look: impl FnOnce(&Core, JobView) -> T + Send + 'static,
) -> Result<T, Status> {
    let found = handle.query(move |core| core.job(job).map(|view| look(core, view))).await?;
    found.ok_or_else(|| not_found(format_args!("job {job}")))
}

/// Asks the core for something that is answered with [`Reply::Done`].
pub(crate) async fn done(handle: &Handle, request: Request) -> Result<(), Status> {
    match handle.request(request, DECISION).await? {
        Reply::Done => Ok(()),
        other => Err(unexpected(&other)),
    }
}
