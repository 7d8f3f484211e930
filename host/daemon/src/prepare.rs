//! Makes frames ready to run: the module compiled, the inputs of every task at hand.
//!
//! A frame whose module is ready and whose inputs are all here is made ready at once, on the session's task. Any other
//! gets a task of its own, so that fetching and compiling for the next frames goes on while lanes run the current ones.
//! Lanes never wait for an input.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use partita_host_logic::{AdmitError, Offer, Prepared, WorkId};
use partita_sandbox::{Artefact, Batch, BatchAttempt, Payload};
use partita_types::{
    ArrayHeader, AttemptId, ByteSize, Cause, Failure, Frame, InputGroup, PartitionId, StoredPartition, TaskId,
    TaskLimits, Usage,
};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;

use crate::error;
use crate::fetch::Fetched;
use crate::host::Host;
use crate::lanes::Runnable;
use crate::modules::blocking;
use crate::report::Moved;
use crate::store::CopyError;

/// Separates the seeds of tasks from other uses of the hash.
const SEED_CONTEXT: &str = "partita 2026-11 seed of a task's random numbers";

/// An array as frames of it need it: what all tasks share, shared.
#[derive(Debug)]
pub(crate) struct ArrayContext {
    header: ArrayHeader,
    common_arguments: Bytes,
    /// For each group the literal that all tasks read, if it is one.
    literals: Vec<Option<Payload>>,
    partition_groups: usize,
    literal_groups: usize,
}

impl ArrayContext {
    /// Prepares what all frames share.
    ///
    /// # Errors
    /// If a large literal finds no memory.
    pub(crate) fn new(mut header: ArrayHeader) -> std::io::Result<Self> {
        let common_arguments = Bytes::from(std::mem::take(&mut header.common_arguments));
        let mut literals = Vec::with_capacity(header.inputs.len());
        for group in &mut header.inputs {
            literals.push(match group {
                InputGroup::Literal(value) => Some(Payload::new(Bytes::from(std::mem::take(value)))?),
                InputGroup::Partitions | InputGroup::Dataset(_) | InputGroup::PerTaskLiteral => None,
            });
        }
        let count = |wanted: fn(&InputGroup) -> bool| header.inputs.iter().filter(|group| wanted(group)).count();
        let partition_groups = count(|group| matches!(group, InputGroup::Partitions));
        let literal_groups = count(|group| matches!(group, InputGroup::PerTaskLiteral));
        Ok(Self { common_arguments, literals, partition_groups, literal_groups, header })
    }

    /// What one attempt of a frame may use.
    fn limits(&self, frame: &Frame) -> TaskLimits {
        let limits = self.header.limits;
        TaskLimits { memory: frame.memory.unwrap_or(limits.memory), ..limits }
    }

    /// What is wrong with the shape of a frame, if anything is.
    fn misfit(&self, frame: &Frame) -> Option<String> {
        let tasks = frame.indexes.len();
        let check = |what: &str, found: usize, expected: usize| {
            (found != expected).then(|| format!("the frame has {found} {what} for {tasks} tasks, expected {expected}"))
        };
        check("literals", frame.literals.len(), tasks * self.literal_groups)
            .or_else(|| check("input counts", frame.input_counts.len(), tasks * self.partition_groups))
            .or_else(|| check("attempts", frame.attempts.len(), tasks))
    }
}

/// A frame on its way.
struct Preparation {
    host: Arc<Host>,
    work: WorkId,
    frame: Frame,
    array: Arc<ArrayContext>,
}

/// Inputs of a frame that were found.
#[derive(Default)]
struct Inputs {
    /// One for each of the frame's partitions.
    partitions: Vec<Option<Payload>>,
    /// One for each task and group of a dataset.
    splits: HashMap<(usize, usize), Result<Payload, String>>,
    moved: Moved,
    /// Why partitions are missing.
    problem: Option<String>,
    memory: Option<OwnedSemaphorePermit>,
}

/// Takes a frame in: it is queued, or on its way to be, or every attempt of it is reported as failed.
pub(crate) fn accept(host: &Arc<Host>, frame: Frame, array: Option<Arc<ArrayContext>>) {
    host.counters.frames.one();
    let attempts: Vec<AttemptId> = (0..frame.indexes.len()).filter_map(|place| frame.attempt(place)).collect();
    let refuse = |cause: Cause, reason: String| {
        for attempt in &attempts {
            host.fail(*attempt, Failure::new(cause, reason.clone()), Usage::default(), Vec::new());
        }
        host.collector.finished(frame.id);
    };
    let Some(array) = array else {
        return refuse(Cause::HostLost, "the host was not told of the array".to_owned());
    };
    if let Some(misfit) = array.misfit(&frame) {
        return refuse(Cause::HostLost, misfit);
    }
    if !frame.reuse.is_empty() {
        return keep_copies(host, &frame, &attempts, array.header.outputs);
    }
    let offer = Offer {
        frame: frame.id,
        tenant: frame.job.tenant,
        memory: array.limits(&frame).memory,
        attempts: attempts.clone(),
    };
    match host.engine.admit(offer) {
        Ok(work) => Preparation { host: Arc::clone(host), work, frame, array }.begin(),
        Err(fault @ AdmitError::TooLarge { .. }) => refuse(Cause::Memory, fault.to_string()),
        Err(fault @ AdmitError::Full) => refuse(Cause::Preempted, fault.to_string()),
    }
}

/// Keeps outputs that are here for the tasks of a frame, too, instead of running them.
fn keep_copies(host: &Host, frame: &Frame, attempts: &[AttemptId], outputs: u32) {
    for (from, to) in frame.reuse.iter().zip(attempts) {
        match host.store.copy(*from, *to, outputs) {
            Ok(infos) => host.collector.reused(*to, &infos),
            Err(fault) => {
                let cause = match fault {
                    CopyError::Missing { .. } => Cause::Input,
                    CopyError::Full(_) => Cause::Storage,
                };
                host.fail(*to, Failure::new(cause, fault.to_string()), Usage::default(), Vec::new());
            }
        }
    }
    host.collector.finished(frame.id);
}

impl Preparation {
    fn begin(self) {
        let Some(ready) = self.host.modules.ready(self.array.header.module) else { return self.spawn() };
        let artefact = match ready {
            Ok(artefact) => artefact,
            Err(fault) => return self.give_up(&fault.failure()),
        };
        let partitions = self.at_hand();
        if partitions.iter().all(Option::is_some) && !self.reads_datasets() {
            let inputs = Inputs { partitions, ..Inputs::default() };
            self.finish(artefact, inputs);
        } else {
            self.spawn();
        }
    }

    fn reads_datasets(&self) -> bool {
        self.array.header.inputs.iter().any(|group| matches!(group, InputGroup::Dataset(_)))
    }

    fn spawn(self) {
        let (host, work) = (Arc::clone(&self.host), self.work);
        let task = host.tasks.spawn(self.gather());
        host.engine.preparing(work, task.abort_handle());
    }

    /// Partitions that need not be fetched, in the order of the frame.
    fn at_hand(&self) -> Vec<Option<Payload>> {
        if self.frame.inputs.is_empty() {
            return Vec::new();
        }
        let ids = || self.frame.inputs.iter().map(|input| input.partition.id);
        let mut found = self.host.store.get_many(ids());
        if found.iter().any(Option::is_none) {
            let copies = self.host.fetcher.copies(ids());
            found.iter_mut().zip(copies).for_each(|(place, copy)| *place = place.take().or(copy));
        }
        found
    }

    async fn gather(self) {
        let module = self.array.header.module;
        let artefact = match self.host.modules.get(self.frame.job.tenant, module).await {
            Ok(artefact) => artefact,
            Err(fault) => return self.give_up(&fault.failure()),
        };
        let mut inputs = Inputs { partitions: self.at_hand(), ..Inputs::default() };
        let missing = self.missing(&inputs.partitions);
        inputs.memory = self.host.reserve_inputs(self.size(&missing)).await;
        if !missing.is_empty() {
            self.fetch(missing, &mut inputs).await;
        }
        if self.reads_datasets() {
            inputs.splits = self.read_splits().await;
        }
        self.finish(artefact, inputs);
    }

    /// What has to be fetched, by source, each partition once.
    fn missing(&self, found: &[Option<Payload>]) -> HashMap<u32, Vec<StoredPartition>> {
        let mut seen: HashSet<PartitionId> = HashSet::new();
        let mut missing: HashMap<u32, Vec<StoredPartition>> = HashMap::new();
        for (input, _) in self.frame.inputs.iter().zip(found).filter(|(_, found)| found.is_none()) {
            if seen.insert(input.partition.id) {
                missing.entry(input.source).or_default().push(input.partition);
            }
        }
        missing
    }

    /// How much memory the inputs take that are not here yet.
    fn size(&self, missing: &HashMap<u32, Vec<StoredPartition>>) -> ByteSize {
        let fetched = missing.values().flatten().fold(ByteSize::ZERO, |sum, p| sum.saturating_add(p.info.size));
        let read = self.array.header.inputs.iter().fold(ByteSize::ZERO, |sum, group| match group {
            InputGroup::Dataset(plan) => sum.saturating_add(plan.split.saturating_mul(self.frame.indexes.len() as u64)),
            InputGroup::Partitions | InputGroup::Literal(_) | InputGroup::PerTaskLiteral => sum,
        });
        fetched.saturating_add(read)
    }

    async fn fetch(&self, missing: HashMap<u32, Vec<StoredPartition>>, inputs: &mut Inputs) {
        let mut fetches = JoinSet::new();
        for (source, wanted) in missing {
            let source = usize::try_from(source).ok().and_then(|place| self.frame.sources.get(place)).cloned();
            let Some(source) = source else { continue };
            if source.name == self.host.config.name || source.address.is_empty() {
                inputs.problem = Some("this host does not have it (any more)".to_owned());
                continue;
            }
            let host = Arc::clone(&self.host);
            fetches.spawn(async move { host.fetcher.fetch(&source, &wanted).await });
        }
        let mut payloads = HashMap::new();
        while let Some(fetched) = fetches.join_next().await {
            let Ok(Fetched { payloads: some, moved, moved_bytes, problem }) = fetched else { continue };
            payloads.extend(some);
            inputs.moved.partitions += moved;
            inputs.moved.bytes = inputs.moved.bytes.saturating_add(moved_bytes);
            inputs.problem = inputs.problem.take().or(problem);
        }
        for (place, input) in inputs.partitions.iter_mut().zip(&self.frame.inputs) {
            if place.is_none() {
                *place = payloads.get(&input.partition.id).cloned();
            }
        }
    }

    /// Reads every split that the frame needs, one after the other on a blocking thread.
    async fn read_splits(&self) -> HashMap<(usize, usize), Result<Payload, String>> {
        let tenant = self.frame.job.tenant;
        let mut wanted = Vec::new();
        for (group, input) in self.array.header.inputs.iter().enumerate() {
            if let InputGroup::Dataset(plan) = input {
                wanted.push((group, self.host.grant(tenant, &plan.dataset), plan.clone()));
            }
        }
        let (datasets, indexes) = (Arc::clone(&self.host.datasets), self.frame.indexes.clone());
        let read = blocking(move || {
            let mut splits = HashMap::new();
            for (group, grant, plan) in wanted {
                for (place, index) in indexes.iter().enumerate() {
                    let split = match &grant {
                        Some(grant) => datasets.read(grant, &plan, *index).map_err(|fault| error::chain(&fault)),
                        None => Err(format!("the dataset {} is not granted to the tenant", plan.dataset)),
                    };
                    splits.insert((place, group), split);
                }
            }
            splits
        });
        read.await.unwrap_or_default()
    }

    /// Every attempt that is left fails in the same way.
    fn give_up(self, failure: &Failure) {
        let Some((frame, attempts)) = self.host.engine.give_up(self.work) else { return };
        for attempt in attempts {
            self.host.fail(attempt, failure.clone(), Usage::default(), Vec::new());
        }
        self.host.collector.finished(frame);
    }

    /// Puts the batch together and queues it; tasks without their inputs fail.
    fn finish(mut self, artefact: Artefact, inputs: Inputs) {
        let mut partitions = inputs.partitions.into_iter();
        let mut splits = inputs.splits;
        let (mut attempts, mut ids, mut positions, mut failed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut taken = 0;
        for place in 0..self.frame.indexes.len() {
            let Some(id) = self.frame.attempt(place) else { continue };
            match self.task(place, &mut taken, &mut partitions, &mut splits) {
                Ok(groups) => {
                    let arguments = self.frame.arguments.get_mut(place).map(|value| Bytes::from(std::mem::take(value)));
                    attempts.push(BatchAttempt { seed: seed(id.task), arguments, inputs: groups });
                    ids.push(id);
                    positions.push(place);
                }
                Err(lack) => {
                    let failure = Failure::new(Cause::Input, lack.message(inputs.problem.as_deref()));
                    self.host.fail(id, failure, Usage::default(), lack.missing);
                    failed.push(place);
                }
            }
        }
        let header = &self.array.header;
        let batch = Batch {
            function: header.function.clone(),
            limits: self.array.limits(&self.frame),
            outputs: header.outputs,
            submitted_at: header.submitted_at,
            common_arguments: self.array.common_arguments.clone(),
            attempts,
        };
        let module = header.module;
        let runnable = Runnable::new(module, artefact, batch, ids, positions, inputs.moved, inputs.memory);
        if let Prepared::Finished(frame) = self.host.engine.prepared(self.work, Box::new(runnable), &failed) {
            self.host.collector.finished(frame);
        }
    }

    /// The inputs of the task at `place`, one list per group. Always moves `partitions` on to the next task.
    fn task(
        &mut self,
        place: usize,
        taken: &mut usize,
        partitions: &mut impl Iterator<Item = Option<Payload>>,
        splits: &mut HashMap<(usize, usize), Result<Payload, String>>,
    ) -> Result<Vec<Vec<Payload>>, Lack> {
        let mut groups = Vec::with_capacity(self.array.header.inputs.len());
        let mut lack = Lack::default();
        let mut counts = place * self.array.partition_groups;
        let mut values = place * self.array.literal_groups;
        for (group, input) in self.array.header.inputs.iter().enumerate() {
            groups.push(match input {
                InputGroup::Partitions => {
                    let count = self.frame.input_counts.get(counts).copied().unwrap_or(0);
                    counts += 1;
                    self.partitions(count, taken, partitions, &mut lack)
                }
                InputGroup::Dataset(_) => match splits.remove(&(place, group)) {
                    Some(Ok(split)) => vec![split],
                    Some(Err(problem)) => lack.because(problem),
                    None => lack.because("the host stops".to_owned()),
                },
                InputGroup::Literal(_) => self.array.literals.get(group).cloned().flatten().into_iter().collect(),
                InputGroup::PerTaskLiteral => {
                    let value = self.frame.literals.get_mut(values).map(std::mem::take).unwrap_or_default();
                    values += 1;
                    match Payload::new(Bytes::from(value)) {
                        Ok(payload) => vec![payload],
                        Err(fault) => lack.because(format!("no memory for a literal: {fault}")),
                    }
                }
            });
        }
        if lack.is_empty() { Ok(groups) } else { Err(lack) }
    }

    fn partitions(
        &self,
        count: u32,
        taken: &mut usize,
        partitions: &mut impl Iterator<Item = Option<Payload>>,
        lack: &mut Lack,
    ) -> Vec<Payload> {
        let mut list = Vec::new();
        for _ in 0..count {
            let input = self.frame.inputs.get(*taken);
            *taken += 1;
            match (partitions.next().flatten(), input) {
                (Some(payload), _) => list.push(payload),
                (None, Some(input)) => lack.missing.push(input.partition.id),
                (None, None) => {}
            }
        }
        list
    }
}

/// Why a task has not got its inputs.
#[derive(Debug, Default)]
struct Lack {
    missing: Vec<PartitionId>,
    problem: Option<String>,
}

impl Lack {
    fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.problem.is_none()
    }

    fn because(&mut self, problem: String) -> Vec<Payload> {
        self.problem.get_or_insert(problem);
        Vec::new()
    }

    /// What to tell, where `fetching` is what went wrong between hosts.
    fn message(&self, fetching: Option<&str>) -> String {
        let reason = self.problem.as_deref().or(fetching).unwrap_or("its host does not have it (any more)");
        match self.missing.as_slice() {
            [] => reason.to_owned(),
            [one] => format!("partition {one} could not be fetched: {reason}"),
            [first, rest @ ..] => format!("partition {first} and {} more could not be fetched: {reason}", rest.len()),
        }
    }
}

/// The seed of a task's random numbers: the same in every attempt.
fn seed(task: TaskId) -> [u8; 32] {
    static KEY: LazyLock<[u8; 32]> = LazyLock::new(|| blake3::derive_key(SEED_CONTEXT, &[]));
    let mut name = [0; 16];
    let numbers = [task.job.tenant.0, task.job.number, task.array.0, task.index];
    name.chunks_exact_mut(4).zip(numbers).for_each(|(place, number)| place.copy_from_slice(&number.to_le_bytes()));
    *blake3::keyed_hash(&KEY, &name).as_bytes()
}
