//! What a scheduler and a host tell each other about work, in columns: a frame or report holds many tasks, and a task
//! costs it a few numbers instead of an allocation.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    ArrayIndex, AttemptId, AttemptNumber, ByteSize, ContentHash, DatasetName, Failure, FrameId, HostId, HostName,
    JobId, MilliCpu, ModuleId, OutputInfo, PartitionId, TaskId, TaskLimits, TenantId, TenantName, Timestamp, Usage,
};

/// A partition and what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPartition {
    /// Which.
    pub id: PartitionId,
    /// Size and hash.
    pub info: OutputInfo,
}

/// How a dataset was split. The manifest hash fixes the list of files and their sizes: a host that finds another list
/// refuses to read, instead of reading something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetPlan {
    /// The dataset, by its name in the tenant's policy.
    pub dataset: DatasetName,
    /// The piece size asked for.
    pub split: ByteSize,
    /// The limit asked for.
    pub limit: Option<ByteSize>,
    /// How many pieces there are; at least one.
    pub splits: u32,
    /// How many files.
    pub files: u64,
    /// How many bytes.
    pub bytes: ByteSize,
    /// BLAKE3 of the list of files and sizes.
    pub manifest: ContentHash,
}

/// What all tasks of an array have in common, as a host needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrayHeader {
    /// The job.
    pub job: JobId,
    /// The array.
    pub array: ArrayIndex,
    /// The module to instantiate.
    pub module: ModuleId,
    /// The function to call in it.
    pub function: String,
    /// How many outputs each task writes.
    pub outputs: u32,
    /// What one attempt may use.
    pub limits: TaskLimits,
    /// The argument of every task, unless frames carry their own.
    pub common_arguments: Vec<u8>,
    /// Where the guest's clock stands.
    pub submitted_at: Timestamp,
    /// What each edge gives.
    pub inputs: Vec<InputGroup>,
}

/// What the edge at one position gives to the tasks of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputGroup {
    /// Partitions listed in the frame, task by task.
    Partitions,
    /// Task i reads split i.
    Dataset(DatasetPlan),
    /// The same bytes for all.
    Literal(Vec<u8>),
    /// Bytes listed in the frame, one value per task.
    PerTaskLiteral,
}

/// Tasks of one array that an executor runs one after the other. It occupies one core lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its name between scheduler and host.
    pub id: FrameId,
    /// The job.
    pub job: JobId,
    /// The array; its [`ArrayHeader`] was sent before or with the frame.
    pub array: ArrayIndex,
    /// The tasks, in the order in which to run them.
    pub indexes: Vec<u32>,
    /// The attempt of each task.
    pub attempts: Vec<AttemptNumber>,
    /// The argument of each task; empty if the header has the one for all.
    pub arguments: Vec<Vec<u8>>,
    /// For each task a value for each group of [`InputGroup::PerTaskLiteral`], task by task.
    pub literals: Vec<Vec<u8>>,
    /// For each task the number of partitions for each group of [`InputGroup::Partitions`], task by task.
    pub input_counts: Vec<u32>,
    /// The partitions in that order, with repetitions.
    pub inputs: Vec<InputPartition>,
    /// Where they are.
    pub sources: Vec<Source>,
    /// Memory of one attempt, if it is not what the header says: an earlier attempt ran out of that.
    pub memory: Option<ByteSize>,
    /// If not empty: for each task the attempt whose outputs the host has, and keeps for this task, too, instead of running
    /// it.
    pub reuse: Vec<AttemptId>,
}

impl Frame {
    /// The id of the attempt at `position`, if there is one.
    #[must_use]
    pub fn attempt(&self, position: usize) -> Option<AttemptId> {
        let task = TaskId { job: self.job, array: self.array, index: *self.indexes.get(position)? };
        Some(AttemptId { task, number: *self.attempts.get(position)? })
    }
}

/// A partition to read, and from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputPartition {
    /// The partition.
    pub partition: StoredPartition,
    /// Position in the frame's `sources`.
    pub source: u32,
}

/// A host that has partitions of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The host; may be the one that runs the frame.
    pub host: HostId,
    /// Its name, which its certificate must carry.
    pub name: HostName,
    /// `address:port` of its partition service.
    pub address: String,
    /// The right to fetch the frame's partitions from it. Empty for the host itself.
    pub ticket: Vec<u8>,
}

/// A frame that a host has, as it tells when it opens a session: the attempts of it that have not ended there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldFrame {
    /// Its name.
    pub id: FrameId,
    /// The job.
    pub job: JobId,
    /// The array.
    pub array: ArrayIndex,
    /// The tasks.
    pub indexes: Vec<u32>,
    /// The attempt of each task.
    pub attempts: Vec<AttemptNumber>,
}

/// Attempts that ended on a host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Those that succeeded, one entry per array.
    pub succeeded: Vec<SucceededBatch>,
    /// Those that failed.
    pub failed: Vec<FailedAttempt>,
    /// Frames of which nothing is left to run.
    pub finished_frames: Vec<FrameId>,
    /// Attempts seen to run for a while, for people who watch.
    pub started: Vec<AttemptId>,
}

/// Attempts of one array that succeeded, in columns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SucceededBatch {
    /// The job.
    pub job: JobId,
    /// The array.
    pub array: ArrayIndex,
    /// The tasks.
    pub indexes: Vec<u32>,
    /// The attempt of each.
    pub attempts: Vec<AttemptNumber>,
    /// The outputs, as many for each task as the array has, task by task.
    pub outputs: Vec<OutputInfo>,
    /// What each used.
    pub usage: Vec<Usage>,
    /// Partitions fetched from other hosts for them.
    pub moved_partitions: u64,
    /// The bytes of those.
    pub moved_bytes: ByteSize,
    /// How many of them did not run, but got the outputs of an earlier task.
    pub reused: u32,
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedAttempt {
    /// Which.
    pub attempt: AttemptId,
    /// Why.
    pub failure: Failure,
    /// What it used until then.
    pub usage: Usage,
    /// Inputs that could not be had from anywhere they were said to be.
    pub missing_inputs: Vec<PartitionId>,
}

/// What a host must know of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostTenant {
    /// Its number in ids.
    pub id: TenantId,
    /// Its name.
    pub name: TenantName,
    /// Its weight among the tenants of a host.
    pub weight: u32,
    /// The data it may read.
    pub datasets: Vec<DatasetGrant>,
    /// The most CPU time per time that its executors on this host get, all together; without one, whatever is free.
    pub cpu: Option<MilliCpu>,
    /// What it is guaranteed in the whole cluster. As long as it has no more than that on a host, nobody takes turns with it.
    pub guaranteed: MilliCpu,
}

/// External data that a tenant may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetGrant {
    /// The name by which jobs refer to it.
    pub name: DatasetName,
    /// Absolute path of the directory or file on the hosts.
    pub location: String,
    /// Which files of a directory: patterns such as `*.rs`, matched against file names. Empty: all.
    pub include: Vec<String>,
}

/// What a scheduler answers to a host that attaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The host's number.
    pub host: HostId,
    /// How often to send a heartbeat.
    pub heartbeat: Duration,
    /// Key of the tickets for this host.
    pub ticket_key: [u8; 32],
    /// All tenants. In a welcome that is not the first of its session: those that changed.
    pub tenants: Vec<HostTenant>,
}
