//! What a policy grants a tenant, in the form in which the scheduler enforces it.

use std::time::Duration;

use partita_types::{ByteSize, DatasetGrant, Isolation, MilliCpu, TaskLimits, TenantName};

use crate::share::Share;

/// Everything that a policy says about one tenant, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantPolicy {
    /// Whom it is about.
    pub name: TenantName,
    /// Hard limits and weight.
    pub quota: Quota,
    /// What an attempt may use if the job says nothing.
    pub task_defaults: TaskLimits,
    /// The most that a job may ask for one attempt.
    pub task_maxima: TaskLimits,
    /// Data that tasks may read.
    pub datasets: Vec<DatasetGrant>,
    /// Longest life of a token.
    pub token_lifetime: Duration,
    /// Hosts that confine executors less are not used for this tenant.
    pub minimum_isolation: Isolation,
    /// What it has for certain, and how it shares the rest. Boxed, because policies travel in events.
    pub share: Box<Share>,
    /// How long a task may wait while no attached host could run it, before it fails.
    pub unrunnable_after: Duration,
    /// How long results are kept after their job ended; for ever, if this is not set.
    pub retention: Option<Duration>,
}

impl TenantPolicy {
    /// The most CPU time per time that its tasks have on all hosts together: by its quota, and by what it is guaranteed with
    /// what it may borrow beyond that.
    #[must_use]
    pub fn cpu_limit(&self) -> MilliCpu {
        let borrowed = self.share.borrow.cpu.map_or(u64::MAX, |cpu| cpu.0);
        self.quota.cpu.min(MilliCpu(self.share.guaranteed.cpu.0.saturating_add(borrowed)))
    }
}

/// Hard limits of a tenant, across all hosts. Use never exceeds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Share of the cluster in relation to the other tenants' weights; at least 1.
    pub weight: u32,
    /// Tasks that have not ended, of all jobs together.
    pub queued_tasks: u64,
    /// Jobs that have not ended.
    pub running_jobs: u32,
    /// Frames handed to hosts; each runs one task at a time, so this bounds concurrent tasks.
    pub concurrent_tasks: u32,
    /// Sum of the memory limits of concurrent tasks.
    pub concurrent_memory: ByteSize,
    /// Partitions kept on all hosts.
    pub stored: ByteSize,
    /// Modules kept.
    pub modules: u32,
    /// Size of one module.
    pub module_size: ByteSize,
    /// CPU time per time, of all hosts together. A frame keeps a core busy at most, so frames are counted against it as whole
    /// cores, and hosts hold back what the last of them would use beyond it.
    pub cpu: MilliCpu,
}

impl Quota {
    /// Frames that the tenant may have at hosts, by both limits on them: a part of a core is had by one frame, too.
    #[must_use]
    pub fn frames(&self) -> u32 {
        self.concurrent_tasks.min(u32::try_from(self.cpu.0.div_ceil(1000)).unwrap_or(u32::MAX))
    }
}
