//! What a cluster says about jobs, modules, hosts and tenants, in types of this crate.
//!
//! Everything here is made from messages and checked while it is made. The serialised forms are what tools print as JSON.

mod cluster;

use std::fmt;
use std::ops::Range;

use partita_protocol::client as wire;
use partita_types::{
    ArrayIndex, ByteSize, Cause, CpuTime, FunctionInfo, MAX_ARRAYS_PER_JOB, MAX_TASKS_PER_ARRAY, ModuleId, ModuleInfo,
    Timestamp,
};
use serde::Serialize;

pub use cluster::{HostStatus, Principal, TenantUsage};

/// What is wrong with an answer. The caller knows what was asked and adds it.
pub(crate) type Fault = String;

/// How a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// Tasks are left, or the job is open.
    Running,
    /// All tasks succeeded.
    Succeeded,
    /// A task failed for good.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// It was stopped at its deadline.
    Expired,
}

impl JobState {
    /// Whether the job will not change any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Running)
    }

    pub(crate) fn from_wire(number: i32) -> Result<Self, Fault> {
        match wire::JobState::try_from(number) {
            Ok(wire::JobState::Running) => Ok(Self::Running),
            Ok(wire::JobState::Succeeded) => Ok(Self::Succeeded),
            Ok(wire::JobState::Failed) => Ok(Self::Failed),
            Ok(wire::JobState::Cancelled) => Ok(Self::Cancelled),
            Ok(wire::JobState::Expired) => Ok(Self::Expired),
            Ok(wire::JobState::Unspecified) | Err(_) => Err(format!("{number} is not a state of a job")),
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        })
    }
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskEnd {
    /// Its outputs are there.
    Succeeded,
    /// For good, after its retries.
    Failed,
    /// With its job.
    Cancelled,
    /// It did not run, because a task that it reads from failed.
    Aborted,
}

impl TaskEnd {
    pub(crate) fn from_wire(number: i32) -> Result<Self, Fault> {
        match wire::TaskEnd::try_from(number) {
            Ok(wire::TaskEnd::Succeeded) => Ok(Self::Succeeded),
            Ok(wire::TaskEnd::Failed) => Ok(Self::Failed),
            Ok(wire::TaskEnd::Cancelled) => Ok(Self::Cancelled),
            Ok(wire::TaskEnd::Aborted) => Ok(Self::Aborted),
            Ok(wire::TaskEnd::Unspecified) | Err(_) => Err(format!("{number} is not an end of a task")),
        }
    }
}

impl fmt::Display for TaskEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Aborted => "aborted",
        })
    }
}

/// A job as the cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobStatus {
    /// Its number among the tenant's jobs.
    pub number: u32,
    /// What it is called.
    pub name: String,
    /// Whose it is.
    pub tenant: String,
    /// How it stands.
    pub state: JobState,
    /// Whether arrays may still be added.
    pub open: bool,
    /// Its arrays, in order; left out of lists of jobs.
    pub arrays: Vec<ArrayStatus>,
    /// The tasks of all arrays together.
    pub counts: TaskCounts,
    /// When the cluster took it, microseconds since 1970.
    #[serde(rename = "submitted_at_us", serialize_with = "timestamp")]
    pub submitted_at: Timestamp,
    /// When it ended.
    #[serde(rename = "ended_at_us", serialize_with = "optional_timestamp")]
    pub ended_at: Option<Timestamp>,
    /// What it used and made.
    pub totals: Totals,
    /// The first task that failed for good.
    pub failure: Option<TaskFailure>,
}

/// One array of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ArrayStatus {
    /// What it is called.
    pub name: String,
    /// What its tasks call; empty for uploaded data.
    pub function: String,
    /// How many tasks it has.
    pub tasks: u32,
    /// How many outputs each has.
    pub outputs: u32,
    /// How many tasks are in which state.
    pub counts: TaskCounts,
}

/// Tasks by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct TaskCounts {
    /// An input is missing.
    pub waiting: u32,
    /// Could run.
    pub ready: u32,
    /// With a host.
    pub assigned: u32,
    /// Ended well.
    pub succeeded: u32,
    /// Failed for good.
    pub failed: u32,
    /// Cancelled.
    pub cancelled: u32,
    /// Will not run, because another task failed.
    pub aborted: u32,
}

impl TaskCounts {
    /// All tasks.
    #[must_use]
    pub fn total(&self) -> u64 {
        let Self { waiting, ready, assigned, succeeded, failed, cancelled, aborted } = *self;
        [waiting, ready, assigned, succeeded, failed, cancelled, aborted].into_iter().map(u64::from).sum()
    }
}

/// What a job used and made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Totals {
    /// Attempts that ended.
    pub attempts: u64,
    /// CPU time of all attempts.
    #[serde(rename = "cpu_seconds", serialize_with = "seconds")]
    pub cpu: CpuTime,
    /// Most memory of one attempt.
    #[serde(rename = "peak_memory_bytes")]
    pub peak_memory: ByteSize,
    /// Outputs written.
    pub partitions: u64,
    /// Their size.
    pub partition_bytes: ByteSize,
    /// Outputs that moved between hosts.
    pub moved_partitions: u64,
    /// Their size.
    pub moved_bytes: ByteSize,
    /// Files of datasets.
    pub dataset_files: u64,
    /// Their size.
    pub dataset_bytes: ByteSize,
    /// Tasks that did not run, but got the outputs of an earlier one.
    pub reused: u64,
    /// Second attempts of tasks that ran for very long, begun while the first one ran.
    pub speculative: u64,
}

fn timestamp<S: serde::Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(at.micros)
}

fn optional_timestamp<S: serde::Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(|at| at.micros).serialize(serializer)
}

fn seconds<S: serde::Serializer>(cpu: &CpuTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(std::time::Duration::from_micros(cpu.micros).as_secs_f64())
}

/// A failed attempt of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaskFailure {
    /// The array.
    pub array: ArrayIndex,
    /// The task.
    pub index: u32,
    /// How many attempts it had so far.
    pub attempts: u32,
    /// Why the last one failed; `None` if the cluster named a cause that this version does not know.
    pub cause: Option<Cause>,
    /// One line for people.
    pub message: String,
    /// Wasm frames, innermost first.
    pub backtrace: Vec<String>,
    /// The last lines of its log.
    pub log_tail: Vec<String>,
}

impl fmt::Display for TaskFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            // The function's own words need no "failed" in front of them.
            Some(Cause::Failed | Cause::Retry) | None => f.write_str(&self.message)?,
            Some(cause) => write!(f, "{cause}: {}", self.message)?,
        }
        if self.attempts > 1 { write!(f, " ({} attempts)", self.attempts) } else { Ok(()) }
    }
}

impl std::error::Error for TaskFailure {}

/// Something that happened in a job. Events are numbered 0, 1, 2 and so on, without gaps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Its number.
    pub sequence: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: JobEvent,
}

/// What happened in a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum JobEvent {
    /// Arrays came, at the submission or later.
    ArraysAdded {
        /// The new ones, in order.
        arrays: Vec<ArrayStatus>,
    },
    /// Tasks of an array ended.
    TasksEnded {
        /// The array.
        array: ArrayIndex,
        /// How.
        end: TaskEnd,
        /// Which tasks.
        tasks: Vec<Range<u32>>,
    },
    /// An attempt failed. Unless the task ends too, there will be another.
    AttemptFailed(TaskFailure),
    /// Tasks that had succeeded run again, because their outputs were lost.
    TasksLost {
        /// The array.
        array: ArrayIndex,
        /// Which tasks.
        tasks: Vec<Range<u32>>,
    },
    /// The job ended; nothing follows.
    JobEnded {
        /// How.
        state: JobState,
    },
}

/// A module of the tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModuleStatus {
    /// What it is and what it can run.
    #[serde(flatten, serialize_with = "module_info")]
    pub info: ModuleInfo,
    /// When it was pushed, microseconds since 1970.
    #[serde(rename = "pushed_at_us", serialize_with = "timestamp")]
    pub pushed_at: Timestamp,
    /// Why no new job may use it, until it is pushed again.
    pub quarantine: Option<String>,
}

/// Writes the id as people see it, which the derived form would write as a list of numbers.
fn module_info<S: serde::Serializer>(info: &ModuleInfo, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Shown<'a> {
        id: String,
        name: &'a str,
        size: ByteSize,
        functions: &'a [FunctionInfo],
    }
    Shown { id: info.id.to_string(), name: &info.name, size: info.size, functions: &info.functions }
        .serialize(serializer)
}

/// Why tasks are where they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The array.
    pub array: ArrayIndex,
    /// The first task of which this is said.
    pub first: u32,
    /// For how many tasks.
    pub count: u32,
    /// The state they are in.
    pub state: String,
    /// Why.
    pub reason: String,
}

impl TryFrom<wire::Job> for JobStatus {
    type Error = Fault;

    fn try_from(job: wire::Job) -> Result<Self, Fault> {
        Ok(Self {
            number: job.number,
            state: JobState::from_wire(job.state)?,
            name: job.name,
            tenant: job.tenant,
            open: job.open,
            arrays: arrays(job.arrays)?,
            counts: job.counts.unwrap_or_default().into(),
            submitted_at: Timestamp::from_micros(job.submitted_at_us),
            ended_at: (job.ended_at_us > 0).then(|| Timestamp::from_micros(job.ended_at_us)),
            totals: job.totals.unwrap_or_default().into(),
            failure: job.failure.map(TaskFailure::from),
        })
    }
}

fn arrays(list: Vec<wire::Array>) -> Result<Vec<ArrayStatus>, Fault> {
    if list.len() > MAX_ARRAYS_PER_JOB {
        return Err(format!("{} arrays in one job", list.len()));
    }
    list.into_iter().map(ArrayStatus::try_from).collect()
}

impl TryFrom<wire::Array> for ArrayStatus {
    type Error = Fault;

    fn try_from(array: wire::Array) -> Result<Self, Fault> {
        if array.tasks > MAX_TASKS_PER_ARRAY {
            return Err(format!("array {:?} has {} tasks", array.name, array.tasks));
        }
        let counts = array.counts.unwrap_or_default();
        Ok(Self {
            name: array.name,
            function: array.function,
            tasks: array.tasks,
            outputs: array.outputs,
            counts: counts.into(),
        })
    }
}

impl From<wire::TaskCounts> for TaskCounts {
    fn from(counts: wire::TaskCounts) -> Self {
        let wire::TaskCounts { waiting, ready, assigned, succeeded, failed, cancelled, aborted } = counts;
        Self { waiting, ready, assigned, succeeded, failed, cancelled, aborted }
    }
}

impl From<wire::JobTotals> for Totals {
    fn from(totals: wire::JobTotals) -> Self {
        Self {
            attempts: totals.attempts,
            cpu: CpuTime::from_micros(totals.cpu_us),
            peak_memory: ByteSize(totals.peak_memory_bytes),
            partitions: totals.partitions,
            partition_bytes: ByteSize(totals.partition_bytes),
            moved_partitions: totals.moved_partitions,
            moved_bytes: ByteSize(totals.moved_bytes),
            dataset_files: totals.dataset_files,
            dataset_bytes: ByteSize(totals.dataset_bytes),
            reused: totals.reused,
            speculative: totals.speculative,
        }
    }
}

impl From<wire::TaskFailure> for TaskFailure {
    fn from(failed: wire::TaskFailure) -> Self {
        let failure = failed.failure.unwrap_or_default();
        let cause = usize::try_from(failure.cause).ok().and_then(|cause| Cause::ALL.get(cause)).copied();
        Self {
            array: ArrayIndex(failed.array),
            index: failed.index,
            attempts: failed.attempts,
            cause,
            message: failure.message,
            backtrace: failure.backtrace,
            log_tail: failure.log_tail,
        }
    }
}

impl TryFrom<wire::JobEvent> for Event {
    type Error = Fault;

    fn try_from(event: wire::JobEvent) -> Result<Self, Fault> {
        use wire::job_event::Event as Wire;
        let what = match event.event.ok_or_else(|| format!("event {} is of an unknown kind", event.sequence))? {
            Wire::ArraysAdded(added) => JobEvent::ArraysAdded { arrays: arrays(added.arrays)? },
            Wire::TasksEnded(ended) => JobEvent::TasksEnded {
                array: ArrayIndex(ended.array),
                end: TaskEnd::from_wire(ended.end)?,
                tasks: ranges(&ended)?,
            },
            Wire::AttemptFailed(failed) => JobEvent::AttemptFailed(failed.into()),
            Wire::TasksLost(lost) => JobEvent::TasksLost { array: ArrayIndex(lost.array), tasks: ranges(&lost)? },
            Wire::JobEnded(ended) => JobEvent::JobEnded { state: JobState::from_wire(ended.state)? },
        };
        Ok(Self { sequence: event.sequence, what })
    }
}

fn ranges(tasks: &wire::TasksEnded) -> Result<Vec<Range<u32>>, Fault> {
    if tasks.first.len() != tasks.count.len() {
        return Err(format!("{} ranges of tasks with {} lengths", tasks.first.len(), tasks.count.len()));
    }
    let range = |(first, count): (&u32, &u32)| {
        let end = first.checked_add(*count).filter(|end| *end <= MAX_TASKS_PER_ARRAY);
        end.map(|end| *first..end).ok_or_else(|| format!("tasks {first} and {count} more"))
    };
    tasks.first.iter().zip(&tasks.count).map(range).collect()
}

impl TryFrom<wire::Module> for ModuleStatus {
    type Error = Fault;

    fn try_from(module: wire::Module) -> Result<Self, Fault> {
        Ok(Self {
            info: ModuleInfo {
                id: ModuleId::from_slice(&module.id).map_err(|error| error.to_string())?,
                name: module.name,
                size: ByteSize(module.size),
                functions: module.functions.into_iter().map(Into::into).collect(),
            },
            pushed_at: Timestamp::from_micros(module.pushed_at_us),
            quarantine: Some(module.quarantine).filter(|reason| !reason.is_empty()),
        })
    }
}

impl From<wire::Explanation> for Explanation {
    fn from(explanation: wire::Explanation) -> Self {
        Self {
            array: ArrayIndex(explanation.array),
            first: explanation.first,
            count: explanation.count,
            state: explanation.state,
            reason: explanation.reason,
        }
    }
}

#[cfg(test)]
mod tests;
