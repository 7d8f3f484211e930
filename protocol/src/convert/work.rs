//! Frames and reports: what a host runs and what became of it.

use partita_types::{
    ArrayHeader, AttemptId, AttemptNumber, ByteSize, ContentHash, CpuTime, DatasetName, DatasetPlan, FailedAttempt,
    Frame, FrameId, HeldFrame, HostId, HostName, InputGroup, InputPartition, ModuleId, OutputInfo, Report, Source,
    SucceededBatch, TaskId, Timestamp, Usage,
};

use super::job::complete_limits;
use super::partition::hashes;
use super::{DecodeError, array, attempt_number, column, job_id, require};
use crate::host as wire;

impl From<ArrayHeader> for wire::ArrayHeader {
    fn from(header: ArrayHeader) -> Self {
        Self {
            tenant: header.job.tenant.0,
            job: header.job.number,
            array: header.array.0,
            module: header.module.0.to_vec().into(),
            function: header.function,
            outputs: header.outputs,
            limits: Some(partita_types::LimitRequest::from(header.limits).into()),
            common_arguments: header.common_arguments.into(),
            submitted_at_us: header.submitted_at.micros,
            inputs: header.inputs.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::ArrayHeader> for ArrayHeader {
    type Error = DecodeError;

    fn try_from(header: wire::ArrayHeader) -> Result<Self, DecodeError> {
        Ok(Self {
            job: job_id(header.tenant, header.job),
            array: array(header.array),
            module: ModuleId::from_slice(&header.module)?,
            function: header.function,
            outputs: header.outputs,
            limits: complete_limits(header.limits)?,
            common_arguments: header.common_arguments.into(),
            submitted_at: Timestamp::from_micros(header.submitted_at_us),
            inputs: header.inputs.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}

impl From<InputGroup> for wire::InputGroup {
    fn from(group: InputGroup) -> Self {
        use wire::input_group::Group;
        let group = match group {
            InputGroup::Partitions => Group::Partitions(wire::Partitions {}),
            InputGroup::Dataset(plan) => Group::Dataset(plan.into()),
            InputGroup::Literal(bytes) => Group::Literal(bytes.into()),
            InputGroup::PerTaskLiteral => Group::PerTaskLiteral(wire::PerTaskLiteral {}),
        };
        Self { group: Some(group) }
    }
}

impl TryFrom<wire::InputGroup> for InputGroup {
    type Error = DecodeError;

    fn try_from(group: wire::InputGroup) -> Result<Self, DecodeError> {
        use wire::input_group::Group;
        Ok(match require("an input group", "kind", group.group)? {
            Group::Partitions(_) => Self::Partitions,
            Group::Dataset(plan) => Self::Dataset(plan.try_into()?),
            Group::Literal(bytes) => Self::Literal(bytes.into()),
            Group::PerTaskLiteral(_) => Self::PerTaskLiteral,
        })
    }
}

impl From<DatasetPlan> for wire::DatasetPlan {
    fn from(plan: DatasetPlan) -> Self {
        Self {
            name: plan.dataset.into(),
            split_bytes: plan.split.0,
            limit_bytes: plan.limit.map(|limit| limit.0),
            manifest: plan.manifest.0.to_vec().into(),
            splits: plan.splits,
            files: plan.files,
            bytes: plan.bytes.0,
        }
    }
}

impl TryFrom<wire::DatasetPlan> for DatasetPlan {
    type Error = DecodeError;

    fn try_from(plan: wire::DatasetPlan) -> Result<Self, DecodeError> {
        Ok(Self {
            dataset: DatasetName::new(&plan.name)?,
            split: ByteSize(plan.split_bytes),
            limit: plan.limit_bytes.map(ByteSize),
            splits: plan.splits,
            files: plan.files,
            bytes: ByteSize(plan.bytes),
            manifest: ContentHash::from_slice(&plan.manifest)?,
        })
    }
}

impl From<Frame> for wire::Frame {
    fn from(frame: Frame) -> Self {
        let partitions: Vec<_> = frame.inputs.iter().map(|input| input.partition).collect();
        Self {
            frame: frame.id.0,
            tenant: frame.job.tenant.0,
            job: frame.job.number,
            array: frame.array.0,
            indexes: frame.indexes,
            attempts: numbers(&frame.attempts),
            arguments: frame.arguments.into_iter().map(Into::into).collect(),
            literals: frame.literals.into_iter().map(Into::into).collect(),
            input_counts: frame.input_counts,
            input_sources: frame.inputs.iter().map(|input| input.source).collect(),
            inputs: Some(wire::PartitionList::from_stored(&partitions)),
            sources: frame.sources.into_iter().map(Into::into).collect(),
            memory_bytes: frame.memory.map(|size| size.0),
            reuse: (!frame.reuse.is_empty()).then(|| wire::AttemptList::from_attempts(&frame.reuse)),
        }
    }
}

impl TryFrom<wire::Frame> for Frame {
    type Error = DecodeError;

    fn try_from(frame: wire::Frame) -> Result<Self, DecodeError> {
        const MESSAGE: &str = "a frame";
        let attempts = attempt_column(MESSAGE, &frame.attempts, frame.indexes.len())?;
        if !frame.arguments.is_empty() {
            column(MESSAGE, "arguments", frame.arguments.len(), attempts.len())?;
        }
        let partitions = frame.inputs.unwrap_or_default().stored()?;
        column(MESSAGE, "input sources", frame.input_sources.len(), partitions.len())?;
        let counted: u64 = frame.input_counts.iter().map(|count| u64::from(*count)).sum();
        column(MESSAGE, "counted inputs", usize::try_from(counted).unwrap_or(usize::MAX), partitions.len())?;
        if let Some(&source) = frame.input_sources.iter().find(|&&source| source as usize >= frame.sources.len()) {
            return Err(DecodeError::Range { message: MESSAGE, field: "input source", value: u64::from(source) });
        }
        let inputs = partitions.into_iter().zip(frame.input_sources);
        let reuse = frame.reuse.unwrap_or_default().attempts()?;
        if !reuse.is_empty() {
            column(MESSAGE, "reused attempts", reuse.len(), attempts.len())?;
        }
        Ok(Self {
            id: FrameId(frame.frame),
            job: job_id(frame.tenant, frame.job),
            array: array(frame.array),
            indexes: frame.indexes,
            attempts,
            arguments: frame.arguments.into_iter().map(Into::into).collect(),
            literals: frame.literals.into_iter().map(Into::into).collect(),
            input_counts: frame.input_counts,
            inputs: inputs.map(|(partition, source)| InputPartition { partition, source }).collect(),
            sources: frame.sources.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            memory: frame.memory_bytes.map(ByteSize),
            reuse,
        })
    }
}

fn numbers(attempts: &[AttemptNumber]) -> Vec<u32> {
    attempts.iter().map(|number| number.0.get()).collect()
}

fn attempt_column(message: &'static str, values: &[u32], expected: usize) -> Result<Vec<AttemptNumber>, DecodeError> {
    column(message, "attempts", values.len(), expected)?;
    values.iter().map(|&value| attempt_number(message, value)).collect()
}

impl From<Source> for wire::Source {
    fn from(source: Source) -> Self {
        Self { host: source.host.0, address: source.address, name: source.name.into(), ticket: source.ticket.into() }
    }
}

impl TryFrom<wire::Source> for Source {
    type Error = DecodeError;

    fn try_from(source: wire::Source) -> Result<Self, DecodeError> {
        Ok(Self {
            host: HostId(source.host),
            name: HostName::new(&source.name)?,
            address: source.address,
            ticket: source.ticket.into(),
        })
    }
}

impl From<HeldFrame> for wire::HeldFrame {
    fn from(held: HeldFrame) -> Self {
        Self {
            frame: held.id.0,
            tenant: held.job.tenant.0,
            job: held.job.number,
            array: held.array.0,
            indexes: held.indexes,
            attempts: numbers(&held.attempts),
        }
    }
}

impl TryFrom<wire::HeldFrame> for HeldFrame {
    type Error = DecodeError;

    fn try_from(held: wire::HeldFrame) -> Result<Self, DecodeError> {
        let attempts = attempt_column("a held frame", &held.attempts, held.indexes.len())?;
        Ok(Self {
            id: FrameId(held.frame),
            job: job_id(held.tenant, held.job),
            array: array(held.array),
            indexes: held.indexes,
            attempts,
        })
    }
}

impl wire::FrameReport {
    /// A report with its number.
    #[must_use]
    pub fn numbered(number: u64, report: Report) -> Self {
        Self {
            number,
            succeeded: report.succeeded.into_iter().map(Into::into).collect(),
            failed: report.failed.into_iter().map(Into::into).collect(),
            finished_frames: report.finished_frames.into_iter().map(|frame| frame.0).collect(),
            started: Some(wire::AttemptList::from_attempts(&report.started)),
        }
    }
}

impl TryFrom<wire::FrameReport> for Report {
    type Error = DecodeError;

    fn try_from(report: wire::FrameReport) -> Result<Self, DecodeError> {
        Ok(Self {
            succeeded: report.succeeded.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            failed: report.failed.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            finished_frames: report.finished_frames.into_iter().map(FrameId).collect(),
            started: report.started.unwrap_or_default().attempts()?,
        })
    }
}

impl From<SucceededBatch> for wire::Succeeded {
    fn from(batch: SucceededBatch) -> Self {
        let hashes: Vec<u8> = batch.outputs.iter().flat_map(|output| output.hash.0).collect();
        Self {
            tenant: batch.job.tenant.0,
            job: batch.job.number,
            array: batch.array.0,
            indexes: batch.indexes,
            attempts: numbers(&batch.attempts),
            sizes: batch.outputs.iter().map(|output| output.size.0).collect(),
            hashes: hashes.into(),
            cpu_us: batch.usage.iter().map(|usage| usage.cpu.micros).collect(),
            peak_memory_bytes: batch.usage.iter().map(|usage| usage.peak_memory.0).collect(),
            moved_partitions: batch.moved_partitions,
            moved_bytes: batch.moved_bytes.0,
            reused: batch.reused,
        }
    }
}

impl TryFrom<wire::Succeeded> for SucceededBatch {
    type Error = DecodeError;

    fn try_from(batch: wire::Succeeded) -> Result<Self, DecodeError> {
        const MESSAGE: &str = "a batch of succeeded attempts";
        let attempts = attempt_column(MESSAGE, &batch.attempts, batch.indexes.len())?;
        column(MESSAGE, "CPU times", batch.cpu_us.len(), attempts.len())?;
        column(MESSAGE, "peak memories", batch.peak_memory_bytes.len(), attempts.len())?;
        let hashes = hashes(MESSAGE, &batch.hashes)?;
        column(MESSAGE, "hashes", hashes.len(), batch.sizes.len())?;
        let whole = batch.sizes.len().checked_rem(attempts.len()).unwrap_or(batch.sizes.len());
        column(MESSAGE, "sizes beyond a whole number per task", whole, 0)?;
        let usage = batch.cpu_us.iter().zip(&batch.peak_memory_bytes);
        Ok(Self {
            job: job_id(batch.tenant, batch.job),
            array: array(batch.array),
            indexes: batch.indexes,
            attempts,
            outputs: batch.sizes.iter().zip(hashes).map(|(&s, hash)| OutputInfo { size: ByteSize(s), hash }).collect(),
            usage: usage.map(|(&cpu, &peak)| used(cpu, peak)).collect(),
            moved_partitions: batch.moved_partitions,
            moved_bytes: ByteSize(batch.moved_bytes),
            reused: batch.reused,
        })
    }
}

const fn used(cpu_us: u64, peak_memory: u64) -> Usage {
    Usage { cpu: CpuTime::from_micros(cpu_us), peak_memory: ByteSize(peak_memory) }
}

impl From<FailedAttempt> for wire::FailedAttempt {
    fn from(failed: FailedAttempt) -> Self {
        let task = failed.attempt.task;
        Self {
            tenant: task.job.tenant.0,
            job: task.job.number,
            array: task.array.0,
            index: task.index,
            attempt: failed.attempt.number.0.get(),
            failure: Some(failed.failure.into()),
            cpu_us: failed.usage.cpu.micros,
            peak_memory_bytes: failed.usage.peak_memory.0,
            missing_inputs: Some(wire::PartitionList::from_ids(failed.missing_inputs)),
        }
    }
}

impl TryFrom<wire::FailedAttempt> for FailedAttempt {
    type Error = DecodeError;

    fn try_from(failed: wire::FailedAttempt) -> Result<Self, DecodeError> {
        const MESSAGE: &str = "a failed attempt";
        let task = TaskId { job: job_id(failed.tenant, failed.job), array: array(failed.array), index: failed.index };
        Ok(Self {
            attempt: AttemptId { task, number: attempt_number(MESSAGE, failed.attempt)? },
            failure: require(MESSAGE, "failure", failed.failure)?.try_into()?,
            usage: used(failed.cpu_us, failed.peak_memory_bytes),
            missing_inputs: failed.missing_inputs.unwrap_or_default().ids()?,
        })
    }
}
