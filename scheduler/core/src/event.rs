//! Everything the core can learn.

use std::ops::Range;

use partita_policy::TenantPolicy;
use partita_types::{
    ArrayIndex, ArraySpec, ByteSize, DatasetPlan, Features, FrameId, FunctionInfo, HeldFrame, HostCapacity, HostId,
    HostName, Incarnation, Isolation, JobId, JobSpec, ModuleId, MoveId, OutputInfo, PartitionId, Report,
    StoredPartition, TaskId, TenantId,
};

/// Names a question of the shell, so that the answer finds its way back. Never reused within a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Sixteen bytes that a client chose for one submission. Repeating them repeats the answer, not the submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct IdempotencyKey(pub [u8; 16]);

/// One thing that happened outside.
#[derive(Debug, Clone)]
pub enum Event {
    /// A policy was read or read again. The first one for a name makes the tenant.
    TenantDefined(TenantPolicy),
    /// A tenant's request; each is answered by exactly one [`crate::Action::Reply`].
    Requested {
        /// For the answer.
        request: RequestId,
        /// What is wanted.
        what: Request,
    },
    /// The client behind a request went away; a request not answered yet is forgotten.
    Abandoned(RequestId),
    /// A host opened its session.
    HostAttached(HostHello),
    /// A host's session ended, for whatever reason. The host may come back within the host timeout.
    HostDetached {
        /// Which.
        host: HostId,
        /// Of which start; a newer session is not affected.
        incarnation: Incarnation,
    },
    /// Something from a host within a session.
    FromHost {
        /// Who.
        host: HostId,
        /// Of which start; what an older one says is only counted.
        incarnation: Incarnation,
        /// What it says.
        message: HostMessage,
    },
    /// Time passed; what is due at or before `now` happens.
    Ticked,
}

/// What a client wants. The tenant was taken from its token, never from the request.
#[derive(Debug, Clone)]
pub enum Request {
    /// Run a job.
    Submit {
        /// Whose.
        tenant: TenantId,
        /// Against repetition.
        key: IdempotencyKey,
        /// What; checked by [`JobSpec::check`].
        spec: JobSpec,
    },
    /// Add arrays to an open job.
    Extend {
        /// Which.
        job: JobId,
        /// Against repetition.
        key: IdempotencyKey,
        /// What to add.
        arrays: Vec<ArraySpec>,
    },
    /// No more arrays will be added.
    Close(JobId),
    /// Stop everything of a job.
    Cancel(JobId),
    /// Give up the results of a job that has ended.
    Release(JobId),
    /// Take a module whose bytes the shell already has on disk.
    AddModule {
        /// Whose.
        tenant: TenantId,
        /// Which.
        module: ModuleId,
        /// What it is called.
        name: String,
        /// How large it is.
        size: ByteSize,
    },
    /// Say where outputs are. Answered when the first of them is available, after it was rebuilt if necessary.
    Locate {
        /// Of which job.
        job: JobId,
        /// Of which array.
        array: ArrayIndex,
        /// Of which tasks.
        tasks: Range<u32>,
        /// Which output of them.
        output: u32,
    },
    /// Choose where an upload goes.
    Upload {
        /// A task of an upload array.
        task: TaskId,
        /// How large.
        size: ByteSize,
    },
    /// Give a host no more work and move what only it has to others, or take that back.
    Drain {
        /// Which host.
        host: HostName,
        /// Whether to; else it takes part again.
        on: bool,
    },
}

/// What a host says of itself when it opens a session.
#[derive(Debug, Clone)]
pub struct HostHello {
    /// From its certificate.
    pub name: HostName,
    /// Of its process.
    pub incarnation: Incarnation,
    /// What it offers.
    pub capacity: HostCapacity,
    /// What it achieved.
    pub isolation: Isolation,
    /// Where other hosts reach it.
    pub address: String,
    /// Everything it stores, apart from what attempts in `held` wrote.
    pub inventory: Vec<StoredPartition>,
    /// What it was given and goes on with.
    pub held: Vec<HeldFrame>,
    /// Ends that were never acknowledged. Those of attempts in `held` are not among them.
    pub ended: Report,
    /// What it has beyond its size.
    pub features: Features,
}

/// What a host says within a session.
#[derive(Debug, Clone)]
pub enum HostMessage {
    /// It is alive.
    Heartbeat,
    /// Attempts ended.
    Report(Report),
    /// It examined a module.
    ModuleInspected {
        /// Which examination.
        request: RequestId,
        /// The functions, or why the module is refused.
        result: Result<Vec<FunctionInfo>, String>,
    },
    /// It listed a dataset.
    DatasetPlanned {
        /// Which listing.
        request: RequestId,
        /// The plan, or why there is none.
        result: Result<DatasetPlan, String>,
    },
    /// An upload arrived whole, or did not.
    UploadStored {
        /// Which.
        partition: PartitionId,
        /// Size and hash, or what went wrong.
        result: Result<OutputInfo, String>,
    },
    /// Copies that it does not have (any more).
    Lost(Vec<PartitionId>),
    /// It was asked to give a frame back.
    Retracted {
        /// Which.
        frame: FrameId,
        /// Whether it did: the frame has not begun there and never will.
        given: bool,
    },
    /// It was asked to copy partitions from another host.
    Copied {
        /// Which order.
        order: MoveId,
        /// What it has now, with the hashes of what arrived. The rest did not come.
        copies: Vec<StoredPartition>,
        /// Why something did not come, if that is so.
        problem: Option<String>,
    },
}
