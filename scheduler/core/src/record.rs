//! What the journal keeps. Replaying all records through [`crate::Core::restore`] rebuilds the state, except for what
//! hosts know better: where partitions are and what is running.
//!
//! These types are version 1 of the journal format: variants and fields are only ever added at the end, and a stored
//! fixture in `scheduler/store` must go on decoding.

use partita_types::{
    ArrayIndex, ArraySpec, AttemptId, ByteSize, CpuTime, DatasetPlan, Failure, HostName, JobId, JobSpec, ModuleId,
    ModuleInfo, PartitionId, SucceededBatch, TaskId, TenantId, TenantName, Timestamp, Usage,
};
use serde::{Deserialize, Serialize};

use crate::event::IdempotencyKey;

/// One change of state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Record {
    /// A tenant got its number.
    TenantAdded {
        /// The number.
        id: TenantId,
        /// The name.
        name: TenantName,
    },
    /// A module was accepted.
    ModuleAdded {
        /// Whose.
        tenant: TenantId,
        /// What.
        info: ModuleInfo,
        /// When.
        at: Timestamp,
    },
    /// A job was accepted.
    JobSubmitted {
        /// Which.
        job: JobId,
        /// The key of the submission.
        key: IdempotencyKey,
        /// What, with limits filled in from the policy.
        spec: JobSpec,
        /// The plans of its dataset edges, in the order of arrays and edges.
        plans: Vec<DatasetPlan>,
        /// When.
        at: Timestamp,
    },
    /// Arrays were added.
    JobExtended {
        /// To which job.
        job: JobId,
        /// The key of the request.
        key: IdempotencyKey,
        /// What, with limits filled in from the policy.
        arrays: Vec<ArraySpec>,
        /// The plans of their dataset edges.
        plans: Vec<DatasetPlan>,
    },
    /// No more arrays will be added.
    JobClosed {
        /// Which job.
        job: JobId,
        /// When.
        at: Timestamp,
    },
    /// A job was cancelled.
    JobCancelled {
        /// Which job.
        job: JobId,
        /// When.
        at: Timestamp,
    },
    /// A job was given up, with its results.
    JobReleased {
        /// Which job.
        job: JobId,
    },
    /// Attempts succeeded.
    Succeeded {
        /// Which, and what they wrote.
        batch: SucceededBatch,
        /// When.
        at: Timestamp,
    },
    /// An attempt failed.
    AttemptFailed {
        /// Which.
        attempt: AttemptId,
        /// Why.
        failure: Failure,
        /// What it used.
        usage: Usage,
        /// Whether the task failed with it.
        last: bool,
        /// When.
        at: Timestamp,
        /// Where it ran, if it did.
        host: Option<HostName>,
        /// Memory of the next attempt, if this one ran out of its own and there is more to be had.
        memory: Option<ByteSize>,
        /// Whether another attempt of the task went on, so that this one decides nothing.
        other: bool,
    },
    /// The outputs of succeeded tasks are gone and wanted: they run again.
    Lost {
        /// Which.
        tasks: Vec<TaskId>,
    },
    /// An upload is complete.
    Uploaded {
        /// What.
        partition: PartitionId,
        /// Its size and hash.
        info: partita_types::OutputInfo,
        /// When.
        at: Timestamp,
    },
    /// A module killed executors. No new job may use it until it is pushed again, which is a [`Record::ModuleAdded`].
    ModuleQuarantined {
        /// Whose.
        tenant: TenantId,
        /// Which.
        module: ModuleId,
        /// What it did.
        reason: String,
        /// When.
        at: Timestamp,
    },
    /// A job was stopped at its deadline.
    JobExpired {
        /// Which job.
        job: JobId,
        /// When.
        at: Timestamp,
    },
    /// A host attached for the first time, or after it had been lost. A restarted scheduler waits for it.
    HostJoined {
        /// Which.
        name: HostName,
        /// When.
        at: Timestamp,
    },
    /// A host was given up. A restarted scheduler does not wait for it.
    HostLost {
        /// Which.
        name: HostName,
        /// When.
        at: Timestamp,
    },
    /// So many jobs were submitted and released here; a compaction left nothing else of them.
    JobsForgotten {
        /// Whose.
        tenant: TenantId,
        /// How many.
        count: u32,
    },
    /// What the forgotten jobs of a tenant used.
    TenantUsed {
        /// Whose.
        tenant: TenantId,
        /// CPU time of them together.
        cpu: CpuTime,
        /// Most memory that one attempt had.
        peak_memory: ByteSize,
    },
    /// The scheduler started again, so many times by now. Its attempts have numbers above all that were given before.
    LifeBegan {
        /// How many times.
        number: u32,
        /// When.
        at: Timestamp,
    },
    /// No attached host could run some ready tasks, or one can again: the clock after which they fail goes on across restarts.
    Unrunnable {
        /// Of which job.
        job: JobId,
        /// Of which array.
        array: ArrayIndex,
        /// Which task, if not all of the array's usual ones.
        task: Option<u32>,
        /// Since when; not any more, if not given.
        since: Option<Timestamp>,
    },
    /// A task was given a second attempt, because the first one runs for very long.
    Speculated {
        /// The second attempt.
        attempt: AttemptId,
        /// Where it runs.
        host: HostName,
        /// When it was handed out.
        at: Timestamp,
    },
    /// A host is to be emptied and gets no more work, or takes part again.
    HostDraining {
        /// Which.
        name: HostName,
        /// Whether it is to be emptied.
        on: bool,
        /// When.
        at: Timestamp,
    },
}

impl Record {
    /// Whether the answer to a client or the work of a new host depends on it. The others are written soon, without holding anything up: if they
    /// are lost in a crash, the hosts still have what they tell of.
    #[must_use]
    pub const fn durable_before_visible(&self) -> bool {
        match self {
            Self::TenantAdded { .. }
            | Self::ModuleAdded { .. }
            | Self::JobSubmitted { .. }
            | Self::JobExtended { .. }
            | Self::JobClosed { .. }
            | Self::JobCancelled { .. }
            | Self::JobExpired { .. }
            | Self::JobReleased { .. }
            | Self::Uploaded { .. }
            | Self::HostJoined { .. }
            | Self::HostDraining { .. }
            | Self::LifeBegan { .. } => true,
            Self::Succeeded { .. }
            | Self::AttemptFailed { .. }
            | Self::Lost { .. }
            | Self::ModuleQuarantined { .. }
            | Self::HostLost { .. }
            | Self::JobsForgotten { .. }
            | Self::TenantUsed { .. }
            | Self::Unrunnable { .. }
            | Self::Speculated { .. } => false,
        }
    }
}
