//! What people may look at.

use partita_types::{HostId, HostName, JobId, ModuleId, ModuleInfo, TenantId, TenantName, Timestamp};

use crate::Core;
use crate::host::Host;
use crate::tenant::Tenant;
use crate::view::{Contents, HostView, JobView, TenantView};

impl Core {
    /// The number of a tenant.
    #[must_use]
    pub fn tenant(&self, name: &TenantName) -> Option<TenantId> {
        self.tenant_names.get(name).copied()
    }

    /// A job, if there is one of this id.
    #[must_use]
    pub fn job(&self, id: JobId) -> Option<JobView> {
        let tenant = self.tenants.get(id.tenant.0 as usize)?;
        Some(tenant.job(id.number)?.view(tenant.name.clone(), true))
    }

    /// All jobs of a tenant, latest first. Array details are left out.
    #[must_use]
    pub fn jobs(&self, tenant: TenantId) -> Vec<JobView> {
        let Some(tenant) = self.tenants.get(tenant.0 as usize) else { return Vec::new() };
        tenant.jobs().rev().map(|job| job.view(tenant.name.clone(), false)).collect()
    }

    /// A module of a tenant.
    #[must_use]
    pub fn module(&self, tenant: TenantId, id: ModuleId) -> Option<(&ModuleInfo, Timestamp)> {
        self.tenants.get(tenant.0 as usize)?.module(id).map(|(info, at)| (info, *at))
    }

    /// All modules of a tenant in the order of their pushes.
    #[must_use]
    pub fn modules(&self, tenant: TenantId) -> Vec<(&ModuleInfo, Timestamp)> {
        let Some(tenant) = self.tenants.get(tenant.0 as usize) else { return Vec::new() };
        tenant.modules.iter().map(|(info, at)| (info, *at)).collect()
    }

    /// Why no new job of a tenant may use a module, and since when, if that is so.
    #[must_use]
    pub fn quarantine(&self, tenant: TenantId, id: ModuleId) -> Option<(&str, Timestamp)> {
        let quarantine = self.tenants.get(tenant.0 as usize)?.quarantined.get(&id)?;
        Some((&quarantine.reason, quarantine.since))
    }

    /// All hosts ever attached, by number.
    #[must_use]
    pub fn hosts(&self) -> Vec<HostView> {
        self.hosts.iter().map(Host::view).collect()
    }

    /// The number of the host with this name, if it was ever attached.
    #[must_use]
    pub fn host(&self, name: &HostName) -> Option<HostId> {
        self.host_names.get(name).copied()
    }

    /// All tenants by number. One whose policy was not read since a restart is left out.
    #[must_use]
    pub fn tenants(&self) -> Vec<TenantView> {
        self.tenants.iter().filter_map(Tenant::view).collect()
    }

    /// How much there is.
    #[must_use]
    pub fn contents(&self) -> Contents {
        Contents {
            tenants: self.tenants.len(),
            modules: self.tenants.iter().map(|tenant| tenant.modules.len()).sum(),
            jobs: self.tenants.iter().map(|tenant| tenant.jobs().count()).sum(),
            unfinished_tasks: self.tenants.iter().map(|tenant| tenant.usage.queued_tasks).sum(),
        }
    }

    /// How many messages, reports and records came too late or did not fit. They changed nothing else.
    #[must_use]
    pub const fn stale(&self) -> u64 {
        self.stale
    }
}
