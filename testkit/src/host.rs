//! A model of a host: it takes frames, runs them when it is told to, and stores what they write.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use partita_core::{HostCommand, HostHello, HostMessage};
use partita_types::{
    ArrayHeader, ArrayIndex, AttemptId, ByteSize, Cause, ContentHash, CpuTime, DatasetName, DatasetPlan, FailedAttempt,
    Failure, Features, Frame, FrameId, FunctionInfo, HeldFrame, HostCapacity, HostName, Incarnation, InputGroup,
    Isolation, JobId, MilliCpu, MoveId, OutputInfo, PartitionId, Report, StoredPartition, SucceededBatch, TenantId,
    Usage,
};

use crate::reference::Digest;

/// A model of a host.
#[derive(Debug, Clone)]
pub struct HostModel {
    /// Its name.
    pub name: HostName,
    /// Which start of it this is.
    pub incarnation: Incarnation,
    /// What it offers.
    pub capacity: HostCapacity,
    /// What it achieved.
    pub isolation: Isolation,
    /// What it stores.
    pub store: BTreeMap<PartitionId, OutputInfo>,
    /// What it was given and has not ended, in the order in which it came.
    pub frames: VecDeque<Frame>,
    /// What it was told of arrays.
    pub headers: BTreeMap<(JobId, ArrayIndex), ArrayHeader>,
    /// Of which arrays it was told in this session.
    pub told: BTreeSet<(JobId, ArrayIndex)>,
    /// Ends that were never acknowledged, for the next hello.
    pub unheard: Report,
    /// Attempts that it was told to stop.
    pub cancelled: BTreeSet<AttemptId>,
    /// How it answers when it inspects a module.
    pub functions: Result<Vec<FunctionInfo>, String>,
    /// How it answers when it lists a dataset: the number of splits. Others do not exist.
    pub datasets: BTreeMap<DatasetName, u32>,
    /// What it has beyond its size.
    pub features: Features,
    /// Whether it answers questions.
    pub answers: bool,
    /// Whether it stops attempts as soon as it is told to, rather than when [`HostModel::stop_told`] is called.
    pub obeys: bool,
    /// What it was told to stop and has not yet.
    pub told_to_stop: Vec<AttemptId>,
    /// How large every output is that it writes.
    pub output_size: ByteSize,
    /// How long every task takes.
    pub task_time: CpuTime,
    /// How many of its frames, from the front, have begun.
    pub running: usize,
    /// Frames that it was asked to give back.
    pub asked_back: Vec<FrameId>,
    /// Whether it carries out orders to copy as soon as it gets them, rather than when [`crate::Cluster::copy_told`] is called.
    pub copies: bool,
    /// Orders to copy that it has not carried out: the name of the source, and what to copy.
    pub told_to_copy: Vec<(MoveId, HostName, Vec<StoredPartition>)>,
    /// What each tenant may use of its CPU, as it was told last.
    pub rates: BTreeMap<TenantId, Option<MilliCpu>>,
}

/// One task of a frame, about to end.
#[derive(Debug, Clone)]
pub struct Run {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its frame.
    pub frame: FrameId,
    /// What it reads, and at which host that is said to be.
    pub inputs: Vec<(StoredPartition, HostName)>,
    /// What it writes if it succeeds.
    pub outputs: Vec<OutputInfo>,
}

impl HostModel {
    /// A host with so many cores and a GiB of memory for each.
    ///
    /// # Panics
    /// If the name is none.
    #[must_use]
    pub fn new(name: &str, cores: u32) -> Self {
        let function =
            |name: &str, inputs, outputs| FunctionInfo { name: name.to_owned(), doc: String::new(), inputs, outputs };
        Self {
            name: HostName::new(name).unwrap(),
            incarnation: Incarnation(1),
            capacity: HostCapacity {
                cores,
                memory: ByteSize::gib(u64::from(cores).max(1)),
                partitions: ByteSize::gib(16),
            },
            isolation: Isolation::Full,
            store: BTreeMap::new(),
            frames: VecDeque::new(),
            headers: BTreeMap::new(),
            told: BTreeSet::new(),
            unheard: Report::default(),
            cancelled: BTreeSet::new(),
            functions: Ok(vec![function("work", None, None), function("pair", Some(2), Some(1))]),
            datasets: BTreeMap::new(),
            features: Features::default(),
            answers: true,
            obeys: true,
            told_to_stop: Vec::new(),
            output_size: ByteSize(100),
            task_time: CpuTime::from_micros(1_000),
            running: cores as usize,
            asked_back: Vec::new(),
            copies: true,
            told_to_copy: Vec::new(),
            rates: BTreeMap::new(),
        }
    }

    /// Begins a session: tells what is stored, what it goes on with, and what nobody has heard.
    pub fn hello(&mut self) -> HostHello {
        self.told.clear();
        self.told_to_copy.clear();
        let mut held: Vec<HeldFrame> = self.frames.iter().map(|frame| self.held(frame)).collect();
        held.retain(|frame| !frame.indexes.is_empty());
        let mut ended = self.unheard.clone();
        (ended.finished_frames, ended.started) = (Vec::new(), Vec::new());
        HostHello {
            name: self.name.clone(),
            incarnation: self.incarnation,
            capacity: self.capacity,
            isolation: self.isolation,
            address: format!("{}:7", self.name),
            features: self.features.clone(),
            inventory: self.store.iter().map(|(id, info)| StoredPartition { id: *id, info: *info }).collect(),
            held,
            ended,
        }
    }

    /// What is left of a frame, apart from what was cancelled.
    #[must_use]
    pub fn held(&self, frame: &Frame) -> HeldFrame {
        let open = (0..frame.indexes.len()).filter(|at| !self.cancelled.contains(&frame.attempt(*at).unwrap()));
        let (indexes, attempts) = open.map(|at| (frame.indexes[at], frame.attempts[at])).unzip();
        HeldFrame { id: frame.id, job: frame.job, array: frame.array, indexes, attempts }
    }

    /// With labels and resources, such as `zone=a` and `gpu=2`.
    ///
    /// # Panics
    /// If one is none.
    #[must_use]
    pub fn having(mut self, labels: &[&str], resources: &[&str]) -> Self {
        labels.iter().for_each(|label| self.features.add_label(label.parse().unwrap()).unwrap());
        resources.iter().for_each(|resource| self.features.add_resource(resource.parse().unwrap()).unwrap());
        self
    }

    /// Starts anew with nothing.
    pub fn restart(&mut self) {
        self.incarnation.0 += 1;
        self.store.clear();
        self.frames.clear();
        self.headers.clear();
        self.cancelled.clear();
        self.told_to_stop.clear();
        self.told_to_copy.clear();
        self.unheard = Report::default();
    }

    /// Does what it is told; returns what it says to that.
    ///
    /// # Panics
    /// If it is told nonsense.
    pub fn on_command(&mut self, command: HostCommand) -> Vec<HostMessage> {
        match command {
            HostCommand::Welcome { tenants } | HostCommand::Tenants(tenants) => {
                self.rates.extend(tenants.iter().map(|tenant| (tenant.id, tenant.cpu)));
                Vec::new()
            }
            HostCommand::Assign { arrays, frames } => {
                for header in arrays {
                    self.told.insert((header.job, header.array));
                    self.headers.insert((header.job, header.array), header);
                }
                let mut messages = Vec::new();
                for frame in frames {
                    self.check_frame(&frame);
                    if frame.reuse.is_empty() {
                        self.frames.push_back(frame);
                    } else {
                        messages.push(HostMessage::Report(self.copy(&frame)));
                    }
                }
                messages
            }
            HostCommand::Cancel(attempts) => {
                self.told_to_stop.extend(attempts);
                if self.obeys { vec![HostMessage::Report(self.stop_told())] } else { Vec::new() }
            }
            HostCommand::Retract(frames) => {
                self.asked_back.extend(&frames);
                let answers = if self.answers { frames } else { Vec::new() };
                answers.into_iter().map(|frame| self.retract(frame)).collect()
            }
            HostCommand::Drop(partitions) => {
                for partition in partitions {
                    self.store.remove(&partition);
                }
                Vec::new()
            }
            HostCommand::InspectModule { request, .. } if self.answers => {
                vec![HostMessage::ModuleInspected { request, result: self.functions.clone() }]
            }
            HostCommand::PlanDataset { request, dataset, split, limit, .. } if self.answers => {
                let splits = self.datasets.get(&dataset).copied();
                let plan = |splits: u32| DatasetPlan {
                    dataset: dataset.clone(),
                    split,
                    limit,
                    splits,
                    files: u64::from(splits),
                    bytes: ByteSize(u64::from(splits) * split.0),
                    manifest: ContentHash([9; 32]),
                };
                let result = splits.map(plan).ok_or_else(|| format!("directory of {dataset} does not exist"));
                vec![HostMessage::DatasetPlanned { request, result }]
            }
            HostCommand::InspectModule { .. } | HostCommand::PlanDataset { .. } => Vec::new(),
            HostCommand::Copy { order, source, partitions } => {
                self.told_to_copy.push((order, source.name, partitions));
                Vec::new()
            }
        }
    }

    /// Stops what it was told to stop; returns what it reports of that.
    pub fn stop_told(&mut self) -> Report {
        self.cancelled.extend(std::mem::take(&mut self.told_to_stop));
        Report { finished_frames: self.forget_cancelled(), ..Report::default() }
    }

    /// Gives a frame back, if it has not begun.
    fn retract(&mut self, frame: FrameId) -> HostMessage {
        let place = self.frames.iter().position(|other| other.id == frame).filter(|place| *place >= self.running);
        if let Some(place) = place {
            self.frames.remove(place);
        }
        HostMessage::Retracted { frame, given: place.is_some() }
    }

    /// Keeps outputs under further names, as far as it has them.
    fn copy(&mut self, frame: &Frame) -> Report {
        assert_eq!(frame.reuse.len(), frame.indexes.len(), "{frame:?}");
        let mut report = Report::default();
        for (mut run, from) in self.runs(frame).into_iter().zip(&frame.reuse) {
            let width = (0_u32..).take(run.outputs.len());
            let there: Option<Vec<OutputInfo>> =
                width.map(|output| self.store.get(&PartitionId { attempt: *from, output }).copied()).collect();
            match there {
                Some(outputs) => {
                    assert_eq!(outputs, run.outputs, "a task that did something else");
                    run.outputs = outputs;
                    let mut copied = self.succeed(&[run]);
                    copied.succeeded[0].usage[0] = Usage::default();
                    copied.succeeded[0].reused = 1;
                    report.succeeded.append(&mut copied.succeeded);
                }
                None => report.failed.append(&mut self.fail(&run, Cause::Input, Vec::new()).failed),
            }
        }
        report
    }

    fn check_frame(&self, frame: &Frame) {
        let key = (frame.job, frame.array);
        assert!(self.told.contains(&key), "the header comes before the frame, in every session");
        let header = &self.headers[&key];
        let groups = |wanted: &InputGroup| header.inputs.iter().filter(|group| *group == wanted).count();
        let tasks = frame.indexes.len();
        assert!(tasks > 0 && frame.attempts.len() == tasks, "{frame:?}");
        assert!(frame.arguments.is_empty() || frame.arguments.len() == tasks, "{frame:?}");
        assert_eq!(frame.input_counts.len(), tasks * groups(&InputGroup::Partitions), "{frame:?}");
        assert_eq!(frame.literals.len(), tasks * groups(&InputGroup::PerTaskLiteral), "{frame:?}");
        assert_eq!(frame.input_counts.iter().sum::<u32>() as usize, frame.inputs.len(), "{frame:?}");
    }

    /// Drops frames of which every attempt was cancelled; returns them.
    fn forget_cancelled(&mut self) -> Vec<FrameId> {
        let mut ended = Vec::new();
        let cancelled = &self.cancelled;
        self.frames.retain(|frame| {
            let live = (0..frame.indexes.len()).any(|at| !cancelled.contains(&frame.attempt(at).unwrap()));
            if !live {
                ended.push(frame.id);
            }
            live
        });
        ended
    }

    /// What each task of a frame is going to do. Cancelled ones are left out.
    #[must_use]
    pub fn runs(&self, frame: &Frame) -> Vec<Run> {
        let header = &self.headers[&(frame.job, frame.array)];
        let mut runs = runs_of(header, frame, |_| self.output_size);
        runs.retain(|run| !self.cancelled.contains(&run.attempt));
        runs
    }

    /// Ends the given runs of a frame with success and stores their outputs.
    ///
    /// # Panics
    /// If there are none.
    pub fn succeed(&mut self, runs: &[Run]) -> Report {
        let first = runs.first().expect("runs to end").attempt.task;
        let mut batch = SucceededBatch {
            job: first.job,
            array: first.array,
            indexes: Vec::new(),
            attempts: Vec::new(),
            outputs: Vec::new(),
            usage: Vec::new(),
            moved_partitions: 0,
            moved_bytes: ByteSize::ZERO,
            reused: 0,
        };
        for run in runs {
            batch.indexes.push(run.attempt.task.index);
            batch.attempts.push(run.attempt.number);
            batch.usage.push(Usage { cpu: self.task_time, peak_memory: ByteSize::mib(1) });
            for (output, info) in (0_u32..).zip(&run.outputs) {
                self.store.insert(PartitionId { attempt: run.attempt, output }, *info);
                batch.outputs.push(*info);
            }
        }
        Report { succeeded: vec![batch], ..Report::default() }
    }

    /// Ends a run with failure.
    #[must_use]
    pub fn fail(&self, run: &Run, cause: Cause, missing_inputs: Vec<PartitionId>) -> Report {
        let failure = Failure::new(cause, "told to fail");
        let failed = FailedAttempt { attempt: run.attempt, failure, usage: Usage::default(), missing_inputs };
        Report { failed: vec![failed], ..Report::default() }
    }
}

/// What each task of a frame does: it reads its inputs, and writes the digest of everything that it was given.
///
/// # Panics
/// If the columns of the frame do not fit together.
#[must_use]
pub fn runs_of(header: &ArrayHeader, frame: &Frame, size: impl Fn(&ContentHash) -> ByteSize) -> Vec<Run> {
    let (mut counts, mut inputs, mut literals) =
        (frame.input_counts.iter(), frame.inputs.iter(), frame.literals.iter());
    let mut runs = Vec::new();
    for (position, index) in frame.indexes.iter().enumerate() {
        let mut digest = Digest::default();
        digest.bytes(header.function.as_bytes());
        digest.bytes(frame.arguments.get(position).unwrap_or(&header.common_arguments));
        let mut read = Vec::new();
        for group in &header.inputs {
            match group {
                InputGroup::Partitions => {
                    let count = *counts.next().unwrap();
                    digest.number(u64::from(count));
                    for input in inputs.by_ref().take(count as usize) {
                        digest.bytes(&input.partition.info.hash.0);
                        read.push((input.partition, frame.sources[input.source as usize].name.clone()));
                    }
                }
                InputGroup::Dataset(_) => digest.number(u64::from(*index)),
                InputGroup::Literal(bytes) => digest.bytes(bytes),
                InputGroup::PerTaskLiteral => digest.bytes(literals.next().unwrap()),
            }
        }
        let attempt = frame.attempt(position).unwrap();
        let info = |output| {
            let hash = digest.output(output);
            OutputInfo { size: size(&hash), hash }
        };
        runs.push(Run { attempt, frame: frame.id, inputs: read, outputs: (0..header.outputs).map(info).collect() });
    }
    runs
}
