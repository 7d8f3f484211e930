//! What people may look at: copies of parts of the state, made on request.

use partita_types::{
    ArrayIndex, ByteSize, CpuTime, Failure, Features, HostCapacity, HostId, HostName, Isolation, JobId, TaskId,
    TenantId, TenantName, Timestamp,
};

use crate::action::JobEnd;

/// How much a state holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contents {
    /// Tenants.
    pub tenants: usize,
    /// Their modules.
    pub modules: usize,
    /// Their jobs that were not released.
    pub jobs: usize,
    /// The tasks of those that have not ended.
    pub unfinished_tasks: u64,
}

/// A job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobView {
    /// Which.
    pub id: JobId,
    /// Whose.
    pub tenant: TenantName,
    /// Its name.
    pub name: String,
    /// Whether arrays may be added.
    pub open: bool,
    /// How it ended, if it did.
    pub end: Option<JobEnd>,
    /// When it was accepted.
    pub submitted: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Its arrays; left out of lists of jobs.
    pub arrays: Vec<ArrayView>,
    /// The tasks of all arrays together.
    pub counts: TaskCounts,
    /// Sums.
    pub totals: JobTotals,
    /// The first task that failed for good, its attempts, and why the last one failed.
    pub failure: Option<(TaskId, u32, Failure)>,
}

/// An array of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrayView {
    /// Its name.
    pub name: String,
    /// The function; empty for uploads.
    pub function: String,
    /// How many outputs each task has.
    pub outputs: u32,
    /// How many tasks are in which state.
    pub counts: TaskCounts,
}

/// How many tasks are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TaskCounts {
    /// Dependencies missing.
    pub waiting: u32,
    /// Could run.
    pub ready: u32,
    /// Handed to a host.
    pub assigned: u32,
    /// Done.
    pub succeeded: u32,
    /// Failed for good.
    pub failed: u32,
    /// Cancelled with the job.
    pub cancelled: u32,
    /// Given up because a dependency failed.
    pub aborted: u32,
}

impl TaskCounts {
    /// Adds the tasks of another array.
    pub(crate) fn add(&mut self, other: &Self) {
        let Self { waiting, ready, assigned, succeeded, failed, cancelled, aborted } = other;
        self.waiting = self.waiting.saturating_add(*waiting);
        self.ready = self.ready.saturating_add(*ready);
        self.assigned = self.assigned.saturating_add(*assigned);
        self.succeeded = self.succeeded.saturating_add(*succeeded);
        self.failed = self.failed.saturating_add(*failed);
        self.cancelled = self.cancelled.saturating_add(*cancelled);
        self.aborted = self.aborted.saturating_add(*aborted);
    }
}

/// Sums over the tasks of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JobTotals {
    /// Attempts that ended.
    pub attempts: u64,
    /// CPU time of executors.
    pub cpu: CpuTime,
    /// Most memory that one attempt had.
    pub peak_memory: ByteSize,
    /// Outputs written.
    pub partitions: u64,
    /// Their bytes.
    pub partition_bytes: ByteSize,
    /// Partitions moved between hosts.
    pub moved_partitions: u64,
    /// Their bytes.
    pub moved_bytes: ByteSize,
    /// Files of the datasets read.
    pub dataset_files: u64,
    /// Bytes of the datasets read.
    pub dataset_bytes: ByteSize,
    /// Tasks that did not run, but got the outputs of an earlier one.
    pub reused: u64,
    /// Second attempts of tasks that ran for very long, begun while the first one ran.
    pub speculative: u64,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostView {
    /// Its number.
    pub id: HostId,
    /// Its name.
    pub name: HostName,
    /// `attached`, `detached` (its session ended, it may come back) or `lost`.
    pub state: &'static str,
    /// Where other hosts reach it.
    pub address: String,
    /// What it offers.
    pub capacity: HostCapacity,
    /// How it confines executors.
    pub isolation: Isolation,
    /// Tasks it was handed and has not reported.
    pub assigned_tasks: u32,
    /// Partitions it has.
    pub stored_partitions: u64,
    /// Their bytes.
    pub stored: ByteSize,
    /// Since when it is attached.
    pub attached: Timestamp,
    /// What it has beyond its size.
    pub features: Features,
    /// Whether it is being emptied, and how far that is.
    pub drain: Option<DrainView>,
}

/// How far the emptying of a host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainView {
    /// Since when.
    pub since: Timestamp,
    /// Whether nothing is left: no task runs there, and nothing would be lost with it.
    pub done: bool,
    /// Tasks that it still has.
    pub tasks: u32,
    /// Partitions that only it has.
    pub partitions: u64,
    /// Their bytes.
    pub bytes: ByteSize,
    /// Why what is left does not move, if it does not.
    pub stuck: Option<String>,
}

/// What is left of an array at a host that is being emptied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftView {
    /// Whose.
    pub tenant: TenantName,
    /// Of which job.
    pub job: JobId,
    /// The name of the array.
    pub array: String,
    /// Tasks whose outputs are there.
    pub tasks: u32,
    /// Their bytes.
    pub bytes: ByteSize,
}

/// What a tenant uses, and its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantView {
    /// Its number.
    pub id: TenantId,
    /// Its name.
    pub name: TenantName,
    /// Its policy.
    pub policy: partita_policy::TenantPolicy,
    /// Jobs that have not ended.
    pub running_jobs: u32,
    /// Tasks that have not ended.
    pub queued_tasks: u64,
    /// Frames handed to hosts.
    pub concurrent_tasks: u32,
    /// Memory reserved for them.
    pub concurrent_memory: ByteSize,
    /// Partitions kept.
    pub stored: ByteSize,
    /// CPU time used since the state began.
    pub cpu: CpuTime,
    /// Most memory that one attempt had.
    pub peak_memory: ByteSize,
}

/// Why tasks are in the state they are in, from the code that decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The array.
    pub array: ArrayIndex,
    /// The first task.
    pub first: u32,
    /// How many tasks from there on.
    pub count: u32,
    /// The state.
    pub state: &'static str,
    /// The reason, for people.
    pub reason: String,
}
