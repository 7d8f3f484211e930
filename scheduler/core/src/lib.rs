//! The scheduler's decisions, as a deterministic state machine without I/O: events in, actions out.
//!
//! There is no clock here, no randomness, no async and no hash map. One thread owns the [`Core`] and calls
//! [`Core::apply`]; the service around it does what the actions say, in their order, and decides nothing.

mod action;
mod event;
mod record;
mod view;

pub use action::{Action, HostCommand, JobEnd, JobEvent, Refusal, Reply, TaskEnd};
pub use event::{Event, HostHello, HostMessage, IdempotencyKey, Request, RequestId};
pub use record::Record;
pub use view::{ArrayView, Explanation, HostView, JobTotals, JobView, TaskCounts, TenantView};

use partita_types::{ArrayIndex, HostId, JobId, ModuleId, ModuleInfo, TenantId, TenantName, Timestamp};

/// The state of the cluster.
pub struct Core {}

impl Core {
    /// A cluster without tenants, jobs and hosts.
    #[must_use]
    pub fn new() -> Self {
        Self {}
    }

    /// Replays one record of the journal, in the order in which they were written, before any event. Appends the
    /// [`Action::Publish`]s that it gave rise to, so that watchers find the same events after a restart.
    pub fn restore(&mut self, _record: &Record, _actions: &mut Vec<Action>) {}

    /// Applies one event seen at `now` and appends what must happen next to `actions`.
    /// Total: any event is accepted in any state; a stale one changes nothing but a counter.
    pub fn apply(&mut self, _now: Timestamp, _event: Event, _actions: &mut Vec<Action>) {}

    /// When [`Event::Ticked`] is wanted next, if ever.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        None
    }

    /// The number of a tenant.
    #[must_use]
    pub fn tenant(&self, _name: &TenantName) -> Option<TenantId> {
        None
    }

    /// Whether the tenant of a request has this job, and the job.
    #[must_use]
    pub fn job(&self, _id: JobId) -> Option<JobView> {
        None
    }

    /// All jobs of a tenant, latest first. Array details are left out.
    #[must_use]
    pub fn jobs(&self, _tenant: TenantId) -> Vec<JobView> {
        Vec::new()
    }

    /// A module of a tenant.
    #[must_use]
    pub fn module(&self, _tenant: TenantId, _id: ModuleId) -> Option<(&ModuleInfo, Timestamp)> {
        None
    }

    /// All modules of a tenant in the order of their pushes.
    #[must_use]
    pub fn modules(&self, _tenant: TenantId) -> Vec<(&ModuleInfo, Timestamp)> {
        Vec::new()
    }

    /// All hosts ever attached, by number.
    #[must_use]
    pub fn hosts(&self) -> Vec<HostView> {
        Vec::new()
    }

    /// The number of the host with this name, if it was ever attached.
    #[must_use]
    pub fn host(&self, _name: &partita_types::HostName) -> Option<HostId> {
        None
    }

    /// All tenants by number.
    #[must_use]
    pub fn tenants(&self) -> Vec<TenantView> {
        Vec::new()
    }

    /// Why tasks of a job that have not ended are where they are: of one array or task, or of all.
    #[must_use]
    pub fn explain(&self, _job: JobId, _array: Option<ArrayIndex>, _index: Option<u32>) -> Vec<Explanation> {
        Vec::new()
    }
}

impl Default for Core {
    fn default() -> Self {
        Self::new()
    }
}
