//! What a host went on with while it had no session, and what became of it: taken over where it is current, ended where
//! it is not.
//!
//! A host presents three things: ends that were never acknowledged, what it stores, and the frames that it holds. They are
//! reconciled by attempt number, in that order. After a restart the journal may lack attempts that were handed out, and
//! ends that were not flushed; then, and only then, a host is believed about attempts that the state does not know.

use std::collections::{BTreeMap, BTreeSet};

use partita_types::{
    AttemptId, AttemptNumber, ByteSize, Cause, FailedAttempt, Failure, HeldFrame, HostId, PartitionId, StoredPartition,
    SucceededBatch, TaskId, Usage,
};

use crate::Core;
use crate::action::{Action, HostCommand};
use crate::claims::Need;
use crate::frame::LiveFrame;
use crate::record::Record;
use crate::share::Amount;
use crate::task::{Place, State};
use crate::timers::{STOP_GRACE, Timer};

/// What all the outputs of one attempt in an inventory are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// Outputs of a succeeded task.
    Copy,
    /// Outputs of a succeeded task that others have, too, and that this host is known to have had.
    Further,
    /// Outputs of an attempt that ended while nobody listened.
    Finished,
    /// Nothing that anybody wants.
    Unwanted,
}

/// What is known of an attempt that ended well, apart from its outputs.
#[derive(Debug, Clone, Copy, Default)]
struct Spent {
    usage: Usage,
    /// Of all attempts of its batch; on the first of them.
    moved_partitions: u64,
    moved_bytes: ByteSize,
}

impl Core {
    /// Notes failures that a host could not report. Returns the tasks that may have to run again for them.
    pub(crate) fn take_unheard_failures(
        &mut self,
        host: HostId,
        failures: Vec<FailedAttempt>,
        actions: &mut Vec<Action>,
    ) -> Vec<TaskId> {
        let mut gone = Vec::new();
        for mut failed in failures {
            let AttemptId { task, number } = failed.attempt;
            failed.failure = self.cause_of_stop(failed.attempt, failed.failure);
            let frame = self.frame_number(failed.attempt);
            if self.is_unwritten(failed.attempt) || self.close_attempt(host, task, number) {
                gone.extend(self.take_failed(host, frame, failed, actions));
            }
        }
        gone
    }

    /// Takes what is wanted of what a host stores and has ended; returns the rest of what it stores.
    pub(crate) fn adopt(
        &mut self,
        host: HostId,
        mut inventory: Vec<StoredPartition>,
        ended: &[SucceededBatch],
        actions: &mut Vec<Action>,
    ) -> Vec<PartitionId> {
        inventory.sort_unstable_by_key(|stored| stored.id);
        let mut spent = spent_by(ended);
        let mut shown: BTreeMap<AttemptId, &[StoredPartition]> = inventory
            .chunk_by(|a, b| a.id.attempt == b.id.attempt)
            .map(|outputs| (outputs[0].id.attempt, outputs))
            .collect();
        for batch in ended.iter().filter(|batch| batch.outputs.is_empty()) {
            for attempt in attempts_of(batch) {
                shown.entry(attempt).or_default();
            }
        }
        let mut unwanted = Vec::new();
        let mut finished: Option<SucceededBatch> = None;
        for (attempt, outputs) in shown {
            let joins = |batch: &SucceededBatch| {
                let same_array = batch.job == attempt.task.job && batch.array == attempt.task.array;
                same_array && batch.indexes.last() != Some(&attempt.task.index)
            };
            if finished.as_ref().is_some_and(|batch| !joins(batch)) {
                self.commit_finished(host, &mut finished, actions);
            }
            match self.judge(host, attempt, outputs) {
                Claim::Copy => {
                    let task = attempt.task;
                    self.place_outputs(task.job, task.array.0, task.index, Place::At(host));
                }
                Claim::Further => {
                    if let Some(copy) = self.moves.returning.remove(&attempt.task) {
                        self.add_copy(attempt.task, host, copy);
                    }
                }
                Claim::Finished => {
                    if !self.is_unwritten(attempt) {
                        self.close_attempt(host, attempt.task, attempt.number);
                    }
                    add(&mut finished, attempt, outputs, spent.remove(&attempt).unwrap_or_default());
                }
                Claim::Unwanted => unwanted.extend(outputs.iter().map(|stored| stored.id)),
            }
        }
        self.commit_finished(host, &mut finished, actions);
        // Reports that had arrived before.
        self.stale += spent.len() as u64;
        unwanted
    }

    fn commit_finished(&mut self, host: HostId, finished: &mut Option<SucceededBatch>, actions: &mut Vec<Action>) {
        if let Some(batch) = finished.take() {
            self.commit_from(Record::Succeeded { batch, at: self.now }, host, actions);
        }
    }

    /// Whether an attempt is newer than everything the journal has of its task, and can be because of a restart.
    fn is_unwritten(&self, attempt: AttemptId) -> bool {
        let AttemptId { task, number } = attempt;
        let array = self.find_job(task.job).and_then(|job| job.find_array(task.array));
        let Some(array) = array.filter(|array| !array.is_upload() && self.timers.recovering_until().is_some()) else {
            return false;
        };
        let open = |state| matches!(state, State::Waiting | State::Ready | State::Delayed);
        let unknown = array.tasks.get(task.index as usize);
        let unknown = unknown.is_some_and(|task| open(task.state) && number.0.get() > task.attempt);
        unknown && self.is_of_earlier_life(number)
    }

    /// What the partitions of one attempt are worth.
    fn judge(&self, host: HostId, attempt: AttemptId, outputs: &[StoredPartition]) -> Claim {
        let Some(job) = self.find_job(attempt.task.job) else { return Claim::Unwanted };
        let Some(array) = job.find_array(attempt.task.array) else { return Claim::Unwanted };
        let Some(task) = array.tasks.get(attempt.task.index as usize) else { return Claim::Unwanted };
        let complete = outputs.len() == array.kind.outputs as usize
            && (0_u32..).zip(outputs).all(|(output, stored)| stored.id.output == output);
        if !complete {
            return Claim::Unwanted;
        }
        let current = attempt.number.0.get() == task.attempt;
        match task.state {
            State::Succeeded => {
                let known = array.outputs_of(attempt.task.index);
                let equal = outputs.iter().map(|stored| stored.info).eq(known.iter().copied());
                let elsewhere = match task.place() {
                    Place::At(other) => self.hosts[other.0 as usize].is_attached(),
                    Place::Unknown | Place::Nowhere => false,
                };
                // What was given up stays given up: a replay does not know that somebody showed it again.
                let position = attempt.task.array.0;
                let consumed = job.may_go_early(position) && !job.is_needed(position, attempt.task.index);
                let wanted = job.wants_outputs_of(position) && !consumed;
                let had = self.moves.returning.get(&attempt.task);
                let further = had.is_some_and(|copy| copy.attempt == attempt.number && !copy.leaving);
                match current && equal && wanted {
                    true if !elsewhere => Claim::Copy,
                    true if further => Claim::Further,
                    _ => Claim::Unwanted,
                }
            }
            State::Assigned => {
                let slot = job.slot_of(attempt.task.array, attempt.task.index, attempt.number);
                let here = slot.and_then(|slot| self.frames.get(slot)).is_some_and(|frame| frame.host == host);
                if here { Claim::Finished } else { Claim::Unwanted }
            }
            // Even if what it read is not known to be there: it was, and the record of that is lost, or yet to come.
            State::Ready | State::Waiting | State::Delayed if self.is_unwritten(attempt) => Claim::Finished,
            State::Ready | State::Waiting | State::Delayed => Claim::Unwanted,
            State::Failed | State::Cancelled | State::Aborted => Claim::Unwanted,
        }
    }

    /// Brings the frames of a host in line with those that it holds: takes over what is current, has it stop the rest, and
    /// gives out again what it does not have.
    pub(crate) fn reconcile(&mut self, host: HostId, held: Vec<HeldFrame>, actions: &mut Vec<Action>) {
        let mut named = BTreeSet::new();
        let mut stop = Vec::new();
        for frame in held {
            let of_host = |slot: &u32| {
                self.frames
                    .get(*slot)
                    .is_some_and(|known| known.host == host && known.job == frame.job && known.array == frame.array)
            };
            let slot = match self.frames.slot_of(frame.id).filter(of_host) {
                Some(slot) if named.insert(slot) => self.compare(slot, &frame, &mut stop, actions),
                Some(_) => None,
                None => self.readmit(host, &frame, &mut stop),
            };
            named.extend(slot);
        }
        let unnamed: Vec<u32> = self.hosts[host.0 as usize].frames.difference(&named).copied().collect();
        let failure = self.not_there(host);
        for slot in unnamed {
            self.take_back(slot, &failure, actions);
        }
        if !stop.is_empty() {
            actions.push(Action::Command { host, command: HostCommand::Cancel(stop) });
        }
    }

    fn not_there(&self, host: HostId) -> Failure {
        let name = &self.hosts[host.0 as usize].name;
        Failure::new(Cause::HostLost, format!("host {name} did not have it any more when it attached again"))
    }

    /// A frame that both sides know.
    fn compare(
        &mut self,
        slot: u32,
        held: &HeldFrame,
        stop: &mut Vec<AttemptId>,
        actions: &mut Vec<Action>,
    ) -> Option<u32> {
        let frame = self.frames.get(slot)?;
        let (host, job) = (frame.host, self.find_job(held.job));
        let open = |index: u32| job.and_then(|job| job.attempt_in(held.array, index, slot));
        let mut at_host: BTreeMap<u32, AttemptNumber> = attempts(held).collect();
        let mut missing = Vec::new();
        for index in &frame.indexes {
            let Some(number) = open(*index) else { continue };
            if at_host.get(index) == Some(&number) {
                at_host.remove(index);
            } else {
                missing.push(attempt(held, *index, number));
            }
        }
        // What is left there has ended for us, so the host was told before to stop it, or would have been.
        at_host.retain(|index, _| frame.indexes.binary_search(index).is_ok());
        stop.extend(at_host.iter().map(|(index, number)| attempt(held, *index, *number)));
        let stopping = u32::try_from(at_host.len()).unwrap_or(u32::MAX);
        if let Some(frame) = self.frames.get_mut(slot) {
            frame.stopping = stopping;
        }
        let failure = self.not_there(host);
        for AttemptId { task, number } in missing {
            if self.close_attempt(host, task, number) {
                self.record_failure(AttemptId { task, number }, host, failure.clone(), Usage::default(), actions);
            }
        }
        // The host may not have heard that it shall stop these in favour of a guarantee.
        if self.frames.get(slot).is_some_and(|frame| frame.preempted) {
            self.open_attempts(slot, stop);
        }
        self.release_or_reap(slot)
    }

    /// A frame without open attempts ends, at the latest when what is to stop has had its time.
    fn release_or_reap(&mut self, slot: u32) -> Option<u32> {
        let frame = self.frames.get(slot)?;
        let (id, open, stopping) = (frame.id, frame.open, frame.stopping);
        if open == 0 && stopping == 0 {
            self.release_frame(slot);
            return None;
        }
        if open == 0 {
            self.timers.set(self.now.after(STOP_GRACE), Timer::Reap(id));
        }
        Some(slot)
    }

    /// A frame that the state does not have: handed out before a restart, or taken back when its host was given up.
    fn readmit(&mut self, host: HostId, held: &HeldFrame, stop: &mut Vec<AttemptId>) -> Option<u32> {
        let all: BTreeMap<u32, AttemptNumber> = attempts(held).collect();
        let is_current = |(index, number): &(u32, AttemptNumber)| self.is_unwritten(attempt(held, *index, *number));
        let (mut current, mut rest): (Vec<_>, Vec<_>) =
            all.iter().map(|(index, number)| (*index, *number)).partition(is_current);
        let memory = self.room_for(host, held);
        let slot = memory.and_then(|_| self.frames.readmit(held.id, self.now));
        if slot.is_none() {
            rest.append(&mut current);
        }
        stop.extend(rest.iter().map(|(index, number)| attempt(held, *index, *number)));
        let (slot, memory) = (slot?, memory?);
        self.change_job(held.job, |job| job.readmit(held.array.0, &current, slot));
        let long = self.find_job(held.job).is_some_and(|job| {
            let learned = job.array(held.array.0).kind.learned;
            self.tenants[held.job.tenant.0 as usize].run_times.get(learned).is_long()
        });
        let frame = LiveFrame {
            id: held.id,
            job: held.job,
            array: held.array,
            host,
            indexes: all.into_keys().collect::<Vec<_>>().into(),
            open: u32::try_from(current.len()).unwrap_or(u32::MAX),
            stopping: u32::try_from(rest.len()).unwrap_or(u32::MAX),
            memory,
            long,
            preempted: false,
            needs: self.find_job(held.job).and_then(|job| job.array(held.array.0).kind.needs.clone()),
            started: false,
            speculative: false,
            expected: 0,
            beyond: !self.hosts[host.0 as usize].has_usual_slot(),
        };
        self.reserve(slot, frame);
        self.release_or_reap(slot)
    }

    /// The memory that a held frame reserves, if host and quota have room for it: limits are never exceeded, not even for
    /// what runs already.
    fn room_for(&self, host: HostId, held: &HeldFrame) -> Option<u64> {
        let array = self.find_job(held.job)?.find_array(held.array)?;
        let memory = held.indexes.iter().map(|index| array.memory_of(*index)).max()?;
        let tenant = self.tenants.get(held.job.tenant.0 as usize)?;
        let policy = tenant.policy.as_ref()?;
        let host = &self.hosts[host.0 as usize];
        let need = Need::of(tenant, array, memory);
        // What runs there beyond the usual places goes on there.
        let at_host = host.free_beyond(false) > 0 && host.has_all_of(&need);
        let quota = &policy.quota;
        let in_quota = tenant.usage.frames < quota.frames()
            && tenant.usage.memory.saturating_add(memory) <= quota.concurrent_memory.0;
        // What it keeps stored does not stop what runs.
        let then = tenant.used().plus(need.amount());
        let in_share = Amount { stored: 0, ..then }.excess(tenant.entitlement.most).is_none();
        (at_host && in_quota && in_share && host.isolation >= policy.minimum_isolation).then_some(memory)
    }
}

fn attempt(held: &HeldFrame, index: u32, number: AttemptNumber) -> AttemptId {
    AttemptId { task: TaskId { job: held.job, array: held.array, index }, number }
}

fn attempts(held: &HeldFrame) -> impl Iterator<Item = (u32, AttemptNumber)> {
    held.indexes.iter().copied().zip(held.attempts.iter().copied())
}

fn attempts_of(batch: &SucceededBatch) -> impl Iterator<Item = AttemptId> {
    batch.indexes.iter().zip(&batch.attempts).map(|(index, number)| {
        let task = TaskId { job: batch.job, array: batch.array, index: *index };
        AttemptId { task, number: *number }
    })
}

fn spent_by(ended: &[SucceededBatch]) -> BTreeMap<AttemptId, Spent> {
    let mut spent = BTreeMap::new();
    for batch in ended {
        let mut moved = (batch.moved_partitions, batch.moved_bytes);
        for (attempt, usage) in attempts_of(batch).zip(&batch.usage) {
            let (moved_partitions, moved_bytes) = std::mem::take(&mut moved);
            spent.insert(attempt, Spent { usage: *usage, moved_partitions, moved_bytes });
        }
    }
    spent
}

/// Adds a finished attempt to the batch of its array.
fn add(finished: &mut Option<SucceededBatch>, attempt: AttemptId, outputs: &[StoredPartition], spent: Spent) {
    let batch = finished.get_or_insert_with(|| SucceededBatch {
        job: attempt.task.job,
        array: attempt.task.array,
        indexes: Vec::new(),
        attempts: Vec::new(),
        outputs: Vec::new(),
        usage: Vec::new(),
        moved_partitions: 0,
        moved_bytes: ByteSize::ZERO,
        reused: 0,
    });
    batch.indexes.push(attempt.task.index);
    batch.attempts.push(attempt.number);
    batch.outputs.extend(outputs.iter().map(|stored| stored.info));
    batch.usage.push(spent.usage);
    batch.moved_partitions = batch.moved_partitions.saturating_add(spent.moved_partitions);
    batch.moved_bytes = batch.moved_bytes.saturating_add(spent.moved_bytes);
}
