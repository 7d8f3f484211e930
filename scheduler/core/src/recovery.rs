//! Outputs that are gone and still needed: the tasks that wrote them run again, and what those read, as far as that is
//! gone, too. Nothing else is rebuilt.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use partita_types::{ArrayIndex, AttemptId, AttemptNumber, Cause, Failure, HostId, JobId, PartitionId, TaskId, Usage};

use crate::Core;
use crate::action::{Action, JobEvent};
use crate::array::Input;
use crate::failure::ATTEMPTS_MAX;
use crate::job::Job;
use crate::lives::is_worn_out;
use crate::ranges::runs;
use crate::record::Record;
use crate::task::{Place, State};

impl Core {
    /// A host does not have partitions that it is said to have.
    pub(crate) fn on_partitions_lost(&mut self, host: HostId, lost: &[PartitionId], actions: &mut Vec<Action>) {
        let mut gone = Vec::new();
        for partition in lost {
            let attempt = partition.attempt;
            if self.is_at(attempt, host) {
                self.forget_outputs(attempt.task, host, actions);
                gone.push(attempt.task);
            } else if self.copies.get(attempt.task, host).is_some_and(|copy| copy.attempt == attempt.number)
                && let Some(copy) = self.remove_copy(attempt.task, host)
            {
                let partitions: Vec<PartitionId> = copy.partitions(attempt.task).collect();
                self.send_drops(host, &partitions, actions);
            }
        }
        self.rebuild_needed(gone, Some(host), actions);
    }

    /// Inputs of `reader` that it could not have from anywhere. Returns the tasks that wrote them, if they are lost by that:
    /// not if a detached host has them, which may come back, and not if nothing could make them again. A reader's trouble
    /// may lie on the way; what is the only copy is given up only when its own host says that it has it no more. Nor if the
    /// reader's frame may have been told of an earlier place.
    pub(crate) fn take_missing(
        &mut self,
        reader: TaskId,
        frame: u64,
        missing: &[PartitionId],
        actions: &mut Vec<Action>,
    ) -> Vec<TaskId> {
        let mut gone = Vec::new();
        for PartitionId { attempt, .. } in missing {
            let source = attempt.task;
            if self.copies.may_look_elsewhere(source, frame) {
                continue;
            }
            let is_input = source.job == reader.job
                && self.find_job(reader.job).is_some_and(|job| {
                    job.find_array(reader.array).is_some_and(|array| array.sources.contains(&source.array.0))
                });
            let replaceable = self
                .find_job(source.job)
                .and_then(|job| job.find_array(source.array))
                .is_some_and(|array| !array.is_upload());
            let Some(Place::At(host)) = self.place_of(source).filter(|_| is_input && replaceable) else { continue };
            if self.is_at(*attempt, host) && self.hosts[host.0 as usize].is_attached() {
                self.forget_outputs(source, host, actions);
                gone.push(source);
            }
        }
        gone
    }

    /// Whether a host has the outputs of an attempt, and they are the ones that count.
    pub(crate) fn is_at(&self, attempt: AttemptId, host: HostId) -> bool {
        let task =
            self.find_job(attempt.task.job).and_then(|job| job.find_task(attempt.task.array, attempt.task.index));
        task.is_some_and(|task| task.attempt == attempt.number.0.get() && task.place() == Place::At(host))
    }

    /// One output of a task is lost at a host: the others there go with it. Another copy of all of them takes over, or they will
    /// be written again together.
    fn forget_outputs(&mut self, task: TaskId, host: HostId, actions: &mut Vec<Action>) {
        let partitions: Vec<PartitionId> = match self.find_job(task.job) {
            Some(job) => job.partitions_of(task.array.0, task.index).collect(),
            None => return,
        };
        if !self.promote_copy(task) {
            self.place_outputs(task.job, task.array.0, task.index, Place::Nowhere);
        }
        self.send_drops(host, &partitions, actions);
    }

    /// Hosts had their time after the restart.
    pub(crate) fn give_up_unknown(&mut self, actions: &mut Vec<Action>) {
        let gone = self.unlocate_unknown();
        self.rebuild_needed(gone, None, actions);
    }

    /// Rebuilds those of `gone` that unfinished tasks read. `with` is the host that had them, if it is known.
    pub(crate) fn rebuild_needed(&mut self, gone: Vec<TaskId>, with: Option<HostId>, actions: &mut Vec<Action>) {
        let needed = |task: &TaskId| {
            self.find_job(task.job)
                .is_some_and(|job| job.is_gone(task.array.0, task.index) && job.is_needed(task.array.0, task.index))
        };
        let needed: Vec<TaskId> = gone.into_iter().filter(needed).collect();
        self.rebuild(needed, with, actions);
    }

    /// Runs tasks again whose outputs are gone.
    pub(crate) fn rebuild(&mut self, wanted: Vec<TaskId>, with: Option<HostId>, actions: &mut Vec<Action>) {
        if wanted.is_empty() {
            return;
        }
        let mut by_job: BTreeMap<JobId, Vec<(u32, u32)>> = BTreeMap::new();
        for task in wanted {
            by_job.entry(task.job).or_default().push((task.array.0, task.index));
        }
        for (id, wanted) in by_job {
            let Some(job) = self.find_job(id) else { continue };
            let lost = job.with_lost_sources(wanted);
            let hopeless = |(array, index): &&(u32, u32)| job.is_hopeless(*array, *index);
            let why =
                |(array, index): &(u32, u32)| (job.task_id(*array, *index), self.why_lost(job, *array, *index, with));
            let hopeless: Vec<(TaskId, String)> = lost.iter().filter(hopeless).map(why).collect();
            let tasks = lost.iter().map(|(array, index)| job.task_id(*array, *index)).collect();
            self.commit(Record::Lost { tasks }, actions);
            for (task, why) in hopeless {
                self.fail_hopeless(task, why, actions);
            }
        }
    }

    /// What is lost, and cannot be computed again.
    fn fail_hopeless(&mut self, task: TaskId, why: String, actions: &mut Vec<Action>) {
        let Some(job) = self.find_job(task.job) else { return };
        let slot = job.find_task(task.array, task.index).filter(|slot| !slot.state.is_final());
        let Some(number) = slot.and_then(|slot| AttemptNumber::from_wire(slot.attempt)) else { return };
        let attempt = AttemptId { task, number };
        let failure = Failure::new(Cause::DataLost, why);
        let (usage, at) = (Usage::default(), self.now);
        self.commit(
            Record::AttemptFailed { attempt, failure, usage, last: true, at, host: None, memory: None, other: false },
            actions,
        );
    }

    /// The chain of causes of a loss: what is lost with which host, why nothing can make it again, and who needs it.
    fn why_lost(&self, job: &Job, array: u32, index: u32, with: Option<HostId>) -> String {
        let owner = job.array(array);
        let name = owner.name();
        let partition = job.partitions_of(array, index).next().map(|id| id.to_string()).unwrap_or_default();
        let host = with.and_then(|id| self.hosts.get(id.0 as usize));
        let how = match host {
            Some(host) => format!("is lost with host {}", host.name),
            None => "is at no host any more".to_owned(),
        };
        let why = match job.dead_source(array, index) {
            _ if owner.is_upload() => "was uploaded by the client, who alone has it: submit the job again".to_owned(),
            Some(source) => format!("cannot be made again, because task {source}, which its task reads, failed"),
            None => format!("cannot be made again, because its task ran {ATTEMPTS_MAX} times"),
        };
        let needed = match job.readers_of(array, index).as_slice() {
            [] => "a client asked for it".to_owned(),
            [one] => format!("task {one} needs it"),
            [first, rest @ ..] => format!("task {first} and {} more need it", rest.len()),
        };
        format!("partition {partition} of array {name:?} {how}; it {why}; {needed}")
    }

    /// The effect of [`Record::Lost`].
    pub(crate) fn take_losses(&mut self, tasks: &[TaskId], actions: &mut Vec<Action>) -> bool {
        let mut by_job: BTreeMap<JobId, BTreeMap<u32, Vec<u32>>> = BTreeMap::new();
        for task in tasks {
            let succeeded = self.place_of(*task).is_some();
            if succeeded {
                self.place_outputs(task.job, task.array.0, task.index, Place::Nowhere);
                by_job.entry(task.job).or_default().entry(task.array.0).or_default().push(task.index);
            }
        }
        for (id, arrays) in &mut by_job {
            for indexes in arrays.values_mut() {
                indexes.sort_unstable();
                indexes.dedup();
            }
            self.change_job(*id, |job| {
                let each = || arrays.iter().flat_map(|(array, indexes)| indexes.iter().map(|index| (*array, *index)));
                each().for_each(|(array, index)| job.lose(array, index));
                each().for_each(|(array, index)| job.settle(array, index));
            });
            for (array, indexes) in arrays {
                let event = JobEvent::TasksLost { array: ArrayIndex(*array), tasks: runs(indexes) };
                actions.push(Action::Publish { job: *id, event });
            }
        }
        !by_job.is_empty()
    }
}

impl Job {
    /// Whether a task succeeded and its outputs are nowhere.
    pub(crate) fn is_gone(&self, array: u32, index: u32) -> bool {
        let task = self.task(array, index);
        task.state == State::Succeeded && task.place() == Place::Nowhere
    }

    /// Whether a task cannot run again: its bytes came from a client, something that it reads ended without outputs, or it
    /// ran too often.
    fn is_hopeless(&self, array: u32, index: u32) -> bool {
        let worn_out = is_worn_out(self.task(array, index).latest());
        self.array(array).is_upload() || worn_out || self.dead_source(array, index).is_some()
    }

    /// A task that ended without outputs, and that the given one reads.
    fn dead_source(&self, array: u32, index: u32) -> Option<String> {
        let dead = |array: u32, index: u32| {
            let state = self.task(array, index).state;
            state.is_final() && state != State::Succeeded
        };
        let name =
            |array: u32, index: u32| format!("{} of array {:?}", self.task_id(array, index), self.array(array).name());
        let gates = self.array(array).inputs.iter().filter_map(Input::gate);
        for source in gates.filter(|source| self.array(*source).tasks.counts().any_dead()) {
            if let Some(index) = (0..self.array(source).len()).find(|index| dead(source, *index)) {
                return Some(name(source, index));
            }
        }
        let mut found = None;
        self.each_own_read(array, index, &mut |read| {
            if found.is_none() && dead(read.array, read.index) {
                found = Some(name(read.array, read.index));
            }
        });
        found
    }

    /// The unfinished tasks that read a task, by name.
    fn readers_of(&self, array: u32, index: u32) -> Vec<String> {
        let unfinished = |array: u32, index: u32| !self.task(array, index).state.is_final();
        let mut readers = BTreeSet::new();
        for consumer in self.gated_consumers(array) {
            let tasks = (0..self.array(consumer).len()).filter(|index| unfinished(consumer, *index));
            readers.extend(tasks.map(|index| (consumer, index)));
        }
        let _ = self.each_reader(array, index, &mut |array, index| {
            if unfinished(array, index) {
                readers.insert((array, index));
            }
            ControlFlow::Continue(())
        });
        let name = |(array, index): (u32, u32)| {
            format!("{} of array {:?}", self.task_id(array, index), self.array(array).name())
        };
        readers.into_iter().map(name).collect()
    }

    /// Those of `wanted` whose outputs are gone, with everything they need that is gone, too; in the order of arrays.
    fn with_lost_sources(&self, wanted: Vec<(u32, u32)>) -> BTreeSet<(u32, u32)> {
        let mut lost = BTreeSet::new();
        let mut whole = BTreeSet::new();
        let mut open = wanted;
        while let Some((array, index)) = open.pop() {
            if !self.is_gone(array, index) || !lost.insert((array, index)) {
                continue;
            }
            self.each_own_read(array, index, &mut |read| open.push((read.array, read.index)));
            for source in self.array(array).inputs.iter().filter_map(Input::gate) {
                if whole.insert(source) {
                    open.extend((0..self.array(source).len()).map(|index| (source, index)));
                }
            }
        }
        lost
    }
}
