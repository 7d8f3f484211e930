//! Copies of outputs beside the one that tasks know as their place: spare ones, and those that are about to be deleted.
//!
//! A task has one place, in its 16 bytes. What else there is stands here, only for tasks that have more. Whatever is told to
//! a host to be deleted leaves this table, or the place, in the same breath: so what is recorded is what nobody was told to
//! delete, and a copy may go only if another is recorded. That is how pending deletions are counted (Dask's active memory
//! manager counts them, too: `ReduceReplicas` never proposes to drop what another proposal already leaves alone).

use std::collections::{BTreeMap, BTreeSet};

use partita_types::{AttemptId, AttemptNumber, HostId, PartitionId, TaskId, Timestamp};

use crate::Core;
use crate::action::Action;
use crate::host::Host;
use crate::task::{Place, State};

/// Another copy of all outputs of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) attempt: AttemptNumber,
    pub(crate) outputs: u32,
    pub(crate) bytes: u64,
    /// Whether it goes as soon as no task can be reading it any more.
    pub(crate) leaving: bool,
}

impl Copy {
    /// Their names.
    pub(crate) fn partitions(&self, task: TaskId) -> impl Iterator<Item = PartitionId> + use<> {
        let attempt = AttemptId { task, number: self.attempt };
        (0..self.outputs).map(move |output| PartitionId { attempt, output })
    }
}

/// All further copies.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    by_task: BTreeMap<(TaskId, HostId), Copy>,
    by_host: BTreeMap<HostId, BTreeSet<TaskId>>,
    /// Those that go.
    leaving: BTreeSet<(TaskId, HostId)>,
    /// Outputs that were placed anew, with the youngest frame that may have been told of the place before.
    moved: BTreeMap<TaskId, u64>,
    /// Frames up to this one were handed out by an earlier process of the scheduler: what they were told is not known.
    foreign: u64,
}

impl Copies {
    pub(crate) fn get(&self, task: TaskId, host: HostId) -> Option<&Copy> {
        self.by_task.get(&(task, host))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (TaskId, HostId, &Copy)> {
        self.by_task.iter().map(|((task, host), copy)| (*task, *host, copy))
    }

    /// The copies from a task on, in order.
    pub(crate) fn from(&self, task: TaskId) -> impl Iterator<Item = (TaskId, HostId, &Copy)> {
        self.by_task.range((task, HostId(0))..).map(|((task, host), copy)| (*task, *host, copy))
    }

    /// The copies of one task.
    pub(crate) fn of(&self, task: TaskId) -> impl Iterator<Item = (HostId, &Copy)> {
        self.from(task).take_while(move |(other, ..)| *other == task).map(|(_, host, copy)| (host, copy))
    }

    /// The tasks that a host has a copy of.
    pub(crate) fn at(&self, host: HostId) -> impl Iterator<Item = TaskId> + '_ {
        self.by_host.get(&host).into_iter().flatten().copied()
    }

    /// Copies that go, in order, from one on.
    pub(crate) fn leaving(&self, from: Option<(TaskId, HostId)>) -> impl Iterator<Item = (TaskId, HostId)> + '_ {
        use std::ops::Bound::{Included, Unbounded};
        self.leaving.range((from.map_or(Unbounded, Included), Unbounded)).copied()
    }

    /// How many go.
    pub(crate) fn leaving_count(&self) -> usize {
        self.leaving.len()
    }

    /// Whether there is anything to look after.
    pub(crate) fn is_restless(&self) -> bool {
        !self.leaving.is_empty() || !self.moved.is_empty()
    }

    /// Outputs are at another place from now on; frames up to `youngest` may read them at an earlier one.
    fn note_moved(&mut self, task: TaskId, youngest: u64) {
        self.moved.insert(task, youngest);
    }

    /// Whether a frame may have been told of an earlier place of these outputs.
    pub(crate) fn may_look_elsewhere(&self, task: TaskId, frame: u64) -> bool {
        frame <= self.foreign || self.moved.get(&task).is_some_and(|youngest| frame <= *youngest)
    }

    /// Frames that were handed out before now are of an earlier process.
    pub(crate) fn begin(&mut self, now: Timestamp) {
        self.foreign = now.micros;
    }

    /// Whether any frame may.
    pub(crate) fn may_be_read(&self, task: TaskId) -> bool {
        self.moved.contains_key(&task)
    }

    /// Keeps only what still matters.
    pub(crate) fn retain_moved(&mut self, matters: impl Fn(TaskId, u64) -> bool) {
        self.moved.retain(|task, youngest| matters(*task, *youngest));
    }
}

impl Core {
    /// Notes a further copy of a task's outputs.
    pub(crate) fn add_copy(&mut self, task: TaskId, host: HostId, copy: Copy) {
        self.remove_copy(task, host);
        let there = &mut self.hosts[host.0 as usize];
        there.extra_partitions += u64::from(copy.outputs);
        there.extra_bytes = there.extra_bytes.saturating_add(copy.bytes);
        self.copies.by_task.insert((task, host), copy);
        self.copies.by_host.entry(host).or_default().insert(task);
        if copy.leaving {
            self.copies.leaving.insert((task, host));
        }
    }

    /// Forgets a further copy.
    pub(crate) fn remove_copy(&mut self, task: TaskId, host: HostId) -> Option<Copy> {
        let copy = self.copies.by_task.remove(&(task, host))?;
        self.copies.leaving.remove(&(task, host));
        if let Some(tasks) = self.copies.by_host.get_mut(&host) {
            tasks.remove(&task);
            if tasks.is_empty() {
                self.copies.by_host.remove(&host);
            }
        }
        let there = &mut self.hosts[host.0 as usize];
        there.extra_partitions -= u64::from(copy.outputs);
        there.extra_bytes = there.extra_bytes.saturating_sub(copy.bytes);
        Some(copy)
    }

    /// Lets a copy go, once nobody can be reading it any more.
    pub(crate) fn let_go(&mut self, task: TaskId, host: HostId) {
        if let Some(copy) = self.copies.by_task.get_mut(&(task, host)) {
            copy.leaving = true;
            self.copies.leaving.insert((task, host));
        }
    }

    /// What a copy of a task's outputs would be, if it has any.
    pub(crate) fn copy_of(&self, task: TaskId, leaving: bool) -> Option<Copy> {
        let array = self.find_job(task.job)?.find_array(task.array)?;
        let attempt = AttemptNumber::from_wire(array.tasks.get(task.index as usize)?.attempt)?;
        Some(Copy { attempt, outputs: array.kind.outputs, bytes: array.bytes_of(task.index), leaving })
    }

    /// Moves the place of a task's outputs to a host that has them. Frames that are out may still look at the old one.
    pub(crate) fn switch_place(&mut self, task: TaskId, to: HostId) {
        self.remove_copy(task, to);
        self.copies.note_moved(task, self.frames.created());
        self.place_outputs(task.job, task.array.0, task.index, Place::At(to));
    }

    /// The place of a task's outputs is gone: another copy takes over, if there is one; at best at a host that is there.
    pub(crate) fn promote_copy(&mut self, task: TaskId) -> bool {
        if self.copies.by_task.is_empty() {
            return false;
        }
        let rank = |host: HostId| {
            let host = &self.hosts[host.0 as usize];
            (!host.takes_part(), !host.is_attached(), host.id)
        };
        let best = self.copies.of(task).map(|(host, _)| host).min_by_key(|host| rank(*host));
        let Some(host) = best else { return false };
        self.switch_place(task, host);
        true
    }

    /// A host can be talked to no more: outputs that others have, too, are at those.
    pub(crate) fn prefer_other_copies(&mut self, host: HostId) {
        let there = |host: HostId| self.hosts[host.0 as usize].is_attached();
        let others: Vec<(TaskId, HostId)> = self
            .copies
            .iter()
            .filter(|(task, other, _)| *other != host && there(*other) && self.place_of(*task) == Some(Place::At(host)))
            .map(|(task, other, _)| (task, other))
            .collect();
        for (task, other) in others {
            // It may have two.
            if self.place_of(task) == Some(Place::At(host)) {
                let copy = self.copy_of(task, false);
                self.switch_place(task, other);
                if let Some(copy) = copy {
                    self.add_copy(task, host, copy);
                }
            }
        }
    }

    /// Forgets what else a host has, and returns it.
    pub(crate) fn forget_copies_at(&mut self, host: HostId) -> BTreeMap<TaskId, Copy> {
        let tasks: Vec<TaskId> = self.copies.at(host).collect();
        tasks.into_iter().filter_map(|task| Some((task, self.remove_copy(task, host)?))).collect()
    }

    /// Takes all further copies of a task's outputs off the list, to be deleted: nobody wants these any more.
    pub(crate) fn take_copies_of(&mut self, task: TaskId, drops: &mut BTreeMap<HostId, Vec<PartitionId>>) {
        let hosts: Vec<HostId> = self.copies.of(task).map(|(host, _)| host).collect();
        for host in hosts {
            if let Some(copy) = self.remove_copy(task, host) {
                drops.entry(host).or_default().extend(copy.partitions(task));
            }
        }
    }

    /// Has all further copies of an array's outputs deleted: nobody wants these any more.
    pub(crate) fn drop_copies_of(&mut self, job: partita_types::JobId, array: u32, actions: &mut Vec<Action>) {
        if self.copies.by_task.is_empty() {
            return;
        }
        let first = TaskId { job, array: partita_types::ArrayIndex(array), index: 0 };
        let of_array = |task: &TaskId| (task.job, task.array.0) == (job, array);
        let found: Vec<(TaskId, HostId)> = self
            .copies
            .from(first)
            .take_while(|(task, ..)| of_array(task))
            .map(|(task, host, _)| (task, host))
            .collect();
        let mut drops: BTreeMap<HostId, Vec<PartitionId>> = BTreeMap::new();
        for (task, host) in found {
            if let Some(copy) = self.remove_copy(task, host) {
                drops.entry(host).or_default().extend(copy.partitions(task));
            }
        }
        for (host, partitions) in drops {
            self.send_drops(host, &partitions, actions);
        }
    }

    /// The hosts that are known to have all outputs of an attempt, and were not told to delete them.
    #[must_use]
    pub fn holders(&self, attempt: AttemptId) -> Vec<HostId> {
        let slot =
            self.find_job(attempt.task.job).and_then(|job| job.find_task(attempt.task.array, attempt.task.index));
        let Some(slot) = slot.filter(|slot| slot.attempt == attempt.number.0.get() && slot.state == State::Succeeded)
        else {
            return Vec::new();
        };
        let place = if let Place::At(host) = slot.place() { Some(host) } else { None };
        let further = self.copies.of(attempt.task).filter(|(_, copy)| copy.attempt == attempt.number);
        place.into_iter().chain(further.map(|(host, _)| host)).collect()
    }

    /// The parts of this table that must fit together, for `invariants.rs`.
    pub(crate) fn check_copies(&self) -> Result<(), String> {
        let mut extra: BTreeMap<HostId, (u64, u64)> = BTreeMap::new();
        for (task, host, copy) in self.copies.iter() {
            let place = self.place_of(task);
            let attempt = self.find_job(task.job).and_then(|job| job.find_task(task.array, task.index));
            let current = attempt.is_some_and(|slot| slot.attempt == copy.attempt.0.get());
            let elsewhere = matches!(place, Some(Place::At(other)) if other != host);
            if !current || !elsewhere {
                return Err(format!("task {task} is at {place:?}, and there is {copy:?} at host {}", host.0));
            }
            if copy.leaving != self.copies.leaving.contains(&(task, host)) {
                return Err(format!("task {task}: {copy:?} at host {}", host.0));
            }
            let sums = extra.entry(host).or_default();
            *sums = (sums.0 + u64::from(copy.outputs), sums.1.saturating_add(copy.bytes));
        }
        let right = |host: &Host| {
            extra.get(&host.id).copied().unwrap_or_default() == (host.extra_partitions, host.extra_bytes)
                && self.copies.at(host.id).all(|task| self.copies.get(task, host.id).is_some())
        };
        match self.hosts.iter().find(|host| !right(host)) {
            Some(host) => Err(format!("host {} has other copies than it is said to have", host.name)),
            None => Ok(()),
        }
    }
}
