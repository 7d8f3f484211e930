//! The vocabulary of Partita: ids, units, and the task and resource model.
//!
//! Every other crate speaks in these types. There is no I/O here, no async and no protobuf;
//! the conversions from and to the wire live in `partita-protocol`.

mod features;
mod function;
mod id;
mod job;
mod log;
mod outcome;
mod resources;
mod session;
mod unit;

pub use features::{FeatureError, Features, Label, MAX_FEATURES, MAX_RESOURCE, Resource};
pub use function::{FunctionInfo, ModuleInfo};
pub use id::{
    ArrayIndex, AttemptId, AttemptNumber, CohortName, ContentHash, DatasetName, FrameId, HostId, HostName, Incarnation,
    JobId, LabelName, LabelValue, ModuleId, MoveId, NameError, ParseIdError, PartitionId, ResourceName, TaskId,
    TenantId, TenantName,
};
pub use job::{
    Arguments, ArrayOptions, ArraySource, ArraySpec, Edge, JobSpec, MAX_ARRAYS_PER_JOB, MAX_OUTPUTS_PER_TASK,
    MAX_TASKS_PER_ARRAY, OutputRef, SpecError, TaskCount, check_arrays,
};
pub use log::{AttemptLog, LogLevel, LogLine};
pub use outcome::{Cause, Failure, OutputInfo, Usage};
pub use resources::{HostCapacity, Isolation, LimitRequest, TaskLimits};
pub use session::{
    ArrayHeader, DatasetGrant, DatasetPlan, FailedAttempt, Frame, HeldFrame, HostTenant, InputGroup, InputPartition,
    Report, Source, StoredPartition, SucceededBatch, Welcome,
};
pub use unit::{ByteSize, CpuTime, MilliCpu, ParseUnitError, Timestamp, format_duration, parse_duration};
