//! Jobs, functions and failures.

use std::time::Duration;

use partita_types::{
    Arguments, ArrayOptions, ArraySource, ArraySpec, ByteSize, Cause, CpuTime, DatasetName, Edge, Failure,
    FunctionInfo, JobSpec, LimitRequest, ModuleId, OutputRef, TaskCount, TaskLimits,
};

use super::{DecodeError, array, column, count, features_from_wire, features_to_wire, millis, require};
use crate::job as wire;

impl From<JobSpec> for wire::JobSpec {
    fn from(job: JobSpec) -> Self {
        let deadline_ms = job.deadline.map(millis);
        Self { name: job.name, arrays: job.arrays.into_iter().map(Into::into).collect(), open: job.open, deadline_ms }
    }
}

impl TryFrom<wire::JobSpec> for JobSpec {
    type Error = DecodeError;

    fn try_from(job: wire::JobSpec) -> Result<Self, DecodeError> {
        let arrays = job.arrays.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        let deadline = job.deadline_ms.map(Duration::from_millis);
        Ok(Self { name: job.name, arrays, open: job.open, deadline })
    }
}

impl From<ArraySpec> for wire::ArraySpec {
    fn from(array: ArraySpec) -> Self {
        let source = match array.source {
            ArraySource::Function { module, function } => {
                wire::array_spec::Source::Function(wire::Function { module: module.0.to_vec().into(), name: function })
            }
            ArraySource::Upload => wire::array_spec::Source::Upload(wire::Upload {}),
        };
        let arguments = match array.arguments {
            Arguments::Common(bytes) => wire::array_spec::Arguments::CommonArguments(bytes.into()),
            Arguments::PerTask(list) => wire::array_spec::Arguments::ArgumentsPerTask(byte_values(list)),
        };
        Self {
            name: array.name,
            tasks: match array.tasks {
                TaskCount::Fixed(tasks) => tasks,
                TaskCount::FromInputs => 0,
            },
            inputs: array.inputs.into_iter().map(Into::into).collect(),
            outputs: array.outputs,
            options: Some(array.options.into()),
            source: Some(source),
            arguments: Some(arguments),
        }
    }
}

impl TryFrom<wire::ArraySpec> for ArraySpec {
    type Error = DecodeError;

    fn try_from(array: wire::ArraySpec) -> Result<Self, DecodeError> {
        let source = match require("an array", "function or upload", array.source)? {
            wire::array_spec::Source::Function(function) => {
                ArraySource::Function { module: ModuleId::from_slice(&function.module)?, function: function.name }
            }
            wire::array_spec::Source::Upload(_) => ArraySource::Upload,
        };
        let arguments = match array.arguments {
            None => Arguments::Common(Vec::new()),
            Some(wire::array_spec::Arguments::CommonArguments(bytes)) => Arguments::Common(bytes.into()),
            Some(wire::array_spec::Arguments::ArgumentsPerTask(list)) => {
                Arguments::PerTask(list.values.into_iter().map(Into::into).collect())
            }
        };
        Ok(Self {
            name: array.name,
            source,
            tasks: if array.tasks == 0 { TaskCount::FromInputs } else { TaskCount::Fixed(array.tasks) },
            arguments,
            inputs: array.inputs.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            outputs: array.outputs,
            options: array.options.unwrap_or_default().try_into()?,
        })
    }
}

fn byte_values(values: Vec<Vec<u8>>) -> wire::ByteValues {
    wire::ByteValues { values: values.into_iter().map(Into::into).collect() }
}

impl From<Edge> for wire::Edge {
    fn from(edge: Edge) -> Self {
        use wire::edge::Pattern;
        let pattern = match edge {
            Edge::Each { array, output } => Pattern::Each(wire::OneOutput { array: array.0, output }),
            Edge::All { array, output } => Pattern::All(wire::OneOutput { array: array.0, output }),
            Edge::Slice { array } => Pattern::Slice(wire::Slice { array: array.0 }),
            Edge::Fold { array, arity } => Pattern::Fold(wire::Fold { array: array.0, arity }),
            Edge::List { tasks } => Pattern::List(list_columns(&tasks)),
            Edge::Dataset { dataset, split, limit } => Pattern::Dataset(wire::Dataset {
                name: dataset.into(),
                split_bytes: split.0,
                limit_bytes: limit.map(|limit| limit.0),
            }),
            Edge::Literal { values } => Pattern::Literal(byte_values(values)),
        };
        Self { pattern: Some(pattern) }
    }
}

impl TryFrom<wire::Edge> for Edge {
    type Error = DecodeError;

    fn try_from(edge: wire::Edge) -> Result<Self, DecodeError> {
        use wire::edge::Pattern;
        Ok(match require("an edge", "pattern", edge.pattern)? {
            Pattern::Each(each) => Self::Each { array: array(each.array), output: each.output },
            Pattern::All(all) => Self::All { array: array(all.array), output: all.output },
            Pattern::Slice(slice) => Self::Slice { array: array(slice.array) },
            Pattern::Fold(fold) => Self::Fold { array: array(fold.array), arity: fold.arity },
            Pattern::List(list) => Self::List { tasks: list_rows(&list)? },
            Pattern::Dataset(dataset) => Self::Dataset {
                dataset: DatasetName::new(&dataset.name)?,
                split: ByteSize(dataset.split_bytes),
                limit: dataset.limit_bytes.map(ByteSize),
            },
            Pattern::Literal(literal) => Self::Literal { values: literal.values.into_iter().map(Into::into).collect() },
        })
    }
}

fn list_columns(tasks: &[Vec<OutputRef>]) -> wire::List {
    let all = || tasks.iter().flatten();
    wire::List {
        per_task: tasks.iter().map(|sources| count(sources.len())).collect(),
        arrays: all().map(|source| source.array.0).collect(),
        indexes: all().map(|source| source.index).collect(),
        outputs: all().map(|source| source.output).collect(),
    }
}

fn list_rows(list: &wire::List) -> Result<Vec<Vec<OutputRef>>, DecodeError> {
    const MESSAGE: &str = "a list edge";
    let length = list.arrays.len();
    column(MESSAGE, "indexes", list.indexes.len(), length)?;
    column(MESSAGE, "outputs", list.outputs.len(), length)?;
    let total: u64 = list.per_task.iter().map(|count| u64::from(*count)).sum();
    column(MESSAGE, "sources by task", usize::try_from(total).unwrap_or(usize::MAX), length)?;
    let mut sources = list
        .arrays
        .iter()
        .zip(&list.indexes)
        .zip(&list.outputs)
        .map(|((&a, &index), &output)| OutputRef { array: array(a), index, output });
    Ok(list.per_task.iter().map(|&count| sources.by_ref().take(count as usize).collect()).collect())
}

impl From<ArrayOptions> for wire::ArrayOptions {
    fn from(options: ArrayOptions) -> Self {
        let (labels, resources) = features_to_wire(&options.needs);
        Self {
            priority: options.priority,
            retries: Some(options.retries),
            backoff_ms: Some(millis(options.backoff)),
            limits: Some(options.limits.into()),
            nondeterministic: !options.deterministic,
            keep: options.keep,
            memory_max_bytes: options.memory_max.map(|size| size.0),
            labels,
            resources,
            memoise: options.memoise,
            speculate: Some(options.speculate),
        }
    }
}

impl TryFrom<wire::ArrayOptions> for ArrayOptions {
    type Error = DecodeError;

    fn try_from(options: wire::ArrayOptions) -> Result<Self, DecodeError> {
        let default = Self::default();
        Ok(Self {
            priority: options.priority,
            retries: options.retries.unwrap_or(default.retries),
            backoff: options.backoff_ms.map_or(default.backoff, Duration::from_millis),
            limits: options.limits.unwrap_or_default().into(),
            deterministic: !options.nondeterministic,
            keep: options.keep,
            memory_max: options.memory_max_bytes.map(ByteSize),
            needs: features_from_wire(options.labels, options.resources)?,
            memoise: options.memoise,
            speculate: options.speculate.unwrap_or(default.speculate),
        })
    }
}

impl From<LimitRequest> for wire::TaskLimits {
    fn from(limits: LimitRequest) -> Self {
        Self {
            memory_bytes: limits.memory.map(|size| size.0),
            cpu_time_us: limits.cpu_time.map(|time| time.micros),
            wall_time_ms: limits.wall_time.map(millis),
            output_bytes: limits.output.map(|size| size.0),
            log_bytes: limits.log.map(|size| size.0),
        }
    }
}

impl From<wire::TaskLimits> for LimitRequest {
    fn from(limits: wire::TaskLimits) -> Self {
        Self {
            memory: limits.memory_bytes.map(ByteSize),
            cpu_time: limits.cpu_time_us.map(CpuTime::from_micros),
            wall_time: limits.wall_time_ms.map(Duration::from_millis),
            output: limits.output_bytes.map(ByteSize),
            log: limits.log_bytes.map(ByteSize),
        }
    }
}

/// Limits that must all be there, as between scheduler and host.
pub(super) fn complete_limits(limits: Option<wire::TaskLimits>) -> Result<TaskLimits, DecodeError> {
    const MESSAGE: &str = "limits of an array";
    let limits = LimitRequest::from(require(MESSAGE, "values", limits)?);
    Ok(TaskLimits {
        memory: require(MESSAGE, "memory", limits.memory)?,
        cpu_time: require(MESSAGE, "CPU time", limits.cpu_time)?,
        wall_time: require(MESSAGE, "wall time", limits.wall_time)?,
        output: require(MESSAGE, "output", limits.output)?,
        log: require(MESSAGE, "log", limits.log)?,
    })
}

impl From<FunctionInfo> for wire::FunctionInfo {
    fn from(function: FunctionInfo) -> Self {
        Self { name: function.name, doc: function.doc, inputs: function.inputs, outputs: function.outputs }
    }
}

impl From<wire::FunctionInfo> for FunctionInfo {
    fn from(function: wire::FunctionInfo) -> Self {
        Self { name: function.name, doc: function.doc, inputs: function.inputs, outputs: function.outputs }
    }
}

impl From<Failure> for wire::Failure {
    fn from(failure: Failure) -> Self {
        Self {
            cause: failure.cause as u32,
            message: failure.message,
            backtrace: failure.backtrace,
            log_tail: failure.log_tail,
        }
    }
}

impl TryFrom<wire::Failure> for Failure {
    type Error = DecodeError;

    fn try_from(failure: wire::Failure) -> Result<Self, DecodeError> {
        let cause = Cause::ALL.get(failure.cause as usize).copied().ok_or(DecodeError::Range {
            message: "a failure",
            field: "cause",
            value: u64::from(failure.cause),
        })?;
        Ok(Self { cause, message: failure.message, backtrace: failure.backtrace, log_tail: failure.log_tail })
    }
}
