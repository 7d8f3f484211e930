//! What a policy grants a tenant, in the form in which the scheduler enforces it.

use std::time::Duration;

use partita_types::{ByteSize, DatasetGrant, Isolation, TaskLimits, TenantName};

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
}
