//! Everything the core can ask for, and what it answers.

use partita_types::{
    ArrayHeader, ArrayIndex, AttemptId, ByteSize, DatasetName, Failure, Frame, FrameId, HostId, HostTenant, JobId,
    ModuleId, MoveId, PartitionId, Source, SpecError, StoredPartition, TenantId, TenantName,
};

use crate::event::RequestId;
use crate::record::Record;

/// One thing to do. The driver does them in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Append to the journal. If [`Record::durable_before_visible`], nothing behind it may happen before it is on disk.
    Persist(Record),
    /// Answer a request.
    Reply {
        /// Which.
        request: RequestId,
        /// How.
        reply: Reply,
    },
    /// Tell a host.
    Command {
        /// Whom.
        host: HostId,
        /// What.
        command: HostCommand,
    },
    /// Append to the events of a job, which clients watch. They are numbered in this order from 0.
    Publish {
        /// Which job.
        job: JobId,
        /// What happened.
        event: JobEvent,
    },
    /// Forget the events of a job that was released.
    Unpublish(JobId),
    /// Close the session of a host, which was replaced or declared lost.
    Disconnect {
        /// Which.
        host: HostId,
        /// Why, for its log.
        reason: &'static str,
    },
}

/// What a host shall do.
#[derive(Debug, Clone, PartialEq)]
pub enum HostCommand {
    /// Answers a hello. The driver adds the host's ticket key.
    Welcome {
        /// All tenants.
        tenants: Vec<HostTenant>,
    },
    /// Run frames. Sources have no tickets yet; the driver makes them.
    Assign {
        /// Headers that the host has not been sent in this session.
        arrays: Vec<ArrayHeader>,
        /// What to run.
        frames: Vec<Frame>,
    },
    /// Stop these attempts, started or not.
    Cancel(Vec<AttemptId>),
    /// Delete these partitions.
    Drop(Vec<PartitionId>),
    /// Give these frames back, unless they have begun. Each is answered.
    Retract(Vec<FrameId>),
    /// Compile and describe a module.
    InspectModule {
        /// For the answer.
        request: RequestId,
        /// Whose.
        tenant: TenantId,
        /// Which.
        module: ModuleId,
    },
    /// List and split a dataset.
    PlanDataset {
        /// For the answer.
        request: RequestId,
        /// Whose.
        tenant: TenantId,
        /// Which.
        dataset: DatasetName,
        /// The size of a piece.
        split: ByteSize,
        /// Read no more than about this.
        limit: Option<ByteSize>,
    },
    /// Keep copies of partitions that another host has, and say which came. The source has no ticket yet.
    Copy {
        /// For the answer.
        order: MoveId,
        /// Where they are.
        source: Source,
        /// What to copy; all of one job.
        partitions: Vec<StoredPartition>,
    },
    /// What is new of some tenants. It has been welcomed before.
    Tenants(Vec<HostTenant>),
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// Done; nothing to tell.
    Done,
    /// Accepted.
    Accepted {
        /// The job.
        job: JobId,
        /// The position of the first new array.
        first: ArrayIndex,
        /// How many tasks each new array has.
        tasks: Vec<u32>,
    },
    /// A module was taken; see [`crate::Core::module`].
    ModuleAdded,
    /// Where the first of the wanted outputs are. At least one; ask again for the rest.
    Located(Vec<(HostId, StoredPartition)>),
    /// Where the upload goes.
    UploadTo {
        /// The host that will fetch it.
        host: HostId,
        /// What it will be.
        partition: PartitionId,
    },
    /// No.
    Refused(Refusal),
}

/// Why a request was refused. Texts name the object, the limit and the value.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// There is no such thing, or it is another tenant's.
    #[error("{what} does not exist")]
    NotFound {
        /// The object, as the client named it.
        what: String,
    },
    /// The job as such is wrong.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A quota of the tenant.
    #[error("tenant {tenant} has a quota of {limit} for {what}, and this would make {value}")]
    Quota {
        /// Whose.
        tenant: TenantName,
        /// Of what.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
        /// How much it would be.
        value: u64,
    },
    /// The array asks for more than one attempt may have.
    #[error("array {array:?} asks for {value} of {what} per task, and the policy of tenant {tenant} allows {limit}")]
    TaskLimit {
        /// Whose policy.
        tenant: TenantName,
        /// Which array.
        array: String,
        /// Of what.
        what: &'static str,
        /// How much is asked for, with its unit.
        value: String,
        /// How much is allowed, with its unit.
        limit: String,
    },
    /// The function does not exist in the module.
    #[error("array {array:?} calls function {function:?}, which module {module} does not have; it has: {functions}")]
    UnknownFunction {
        /// Which array.
        array: String,
        /// What it calls.
        function: String,
        /// The module.
        module: ModuleId,
        /// What there is.
        functions: String,
    },
    /// The function takes other inputs or outputs.
    #[error("array {array:?} gives function {function:?} {given} {what}, and it takes {taken}")]
    Signature {
        /// Which array.
        array: String,
        /// What it calls.
        function: String,
        /// Input edges or outputs.
        what: &'static str,
        /// How many the array gives.
        given: u32,
        /// How many the function takes.
        taken: u32,
    },
    /// The dataset cannot be read.
    #[error("dataset {dataset} of array {array:?}: {reason}")]
    Dataset {
        /// Which.
        dataset: DatasetName,
        /// Who wants it.
        array: String,
        /// What the host said, or that there is none.
        reason: String,
    },
    /// A host examined the module and found it wrong.
    #[error("module {module} is refused: {reason}")]
    Module {
        /// Which.
        module: ModuleId,
        /// What is wrong with it.
        reason: String,
    },
    /// The module killed executors.
    #[error("module {module} of array {array:?} is quarantined: {reason}; push it again when that is understood")]
    Quarantined {
        /// Which array calls it.
        array: String,
        /// Which module.
        module: ModuleId,
        /// What it did.
        reason: String,
    },
    /// The object is in a state in which this cannot be done.
    #[error("{what} {state}")]
    State {
        /// The object.
        what: String,
        /// What it is, and what to do.
        state: &'static str,
    },
    /// Nobody could do it now.
    #[error("no host is attached that could {what}; start one, or wait until it is back")]
    NoHost {
        /// What.
        what: &'static str,
    },
    /// It was begun and went wrong.
    #[error("{what} failed: {reason}")]
    Failed {
        /// What was tried.
        what: String,
        /// Why it went wrong.
        reason: String,
    },
}

/// What clients who watch a job see. Everything here follows from journal records, so that a restart numbers alike.
#[derive(Debug, Clone, PartialEq)]
pub enum JobEvent {
    /// The job has more arrays.
    ArraysAdded {
        /// The position of the first.
        first: ArrayIndex,
        /// Name, function (empty for uploads), tasks and outputs of each.
        arrays: Vec<(String, String, u32, u32)>,
    },
    /// Tasks came to an end.
    TasksEnded {
        /// Of which array.
        array: ArrayIndex,
        /// Which end.
        end: TaskEnd,
        /// Which tasks, as ranges of first and count.
        tasks: Vec<(u32, u32)>,
    },
    /// Finished tasks whose outputs were lost, and which run again.
    TasksLost {
        /// Of which array.
        array: ArrayIndex,
        /// Which tasks, as ranges of first and count.
        tasks: Vec<(u32, u32)>,
    },
    /// An attempt failed; whether the task did is told by `TasksEnded`.
    AttemptFailed {
        /// Which.
        attempt: AttemptId,
        /// Why.
        failure: Failure,
    },
    /// The job ended.
    Ended(JobEnd),
}

/// How a task ended for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaskEnd {
    /// Its outputs are there.
    Succeeded,
    /// Its last attempt failed.
    Failed,
    /// Its job was cancelled.
    Cancelled,
    /// A task that it depends on failed.
    Aborted,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum JobEnd {
    /// Every task succeeded.
    Succeeded,
    /// A task failed.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// It was stopped at its deadline.
    Expired,
}
