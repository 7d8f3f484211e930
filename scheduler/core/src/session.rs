//! How hosts come, go, and come back.
//!
//! Whatever ran at a host before it attaches was killed there; what it finished is in its inventory. So attaching adopts
//! the inventory as far as it is still wanted, and gives everything else out again.

use partita_types::{
    AttemptId, Cause, Failure, HostId, Incarnation, JobId, PartitionId, StoredPartition, SucceededBatch, Timestamp,
    Usage,
};

use crate::Core;
use crate::action::{Action, HostCommand};
use crate::event::HostHello;
use crate::host::{Host, Presence};
use crate::record::Record;
use crate::task::{Place, State};
use crate::tenant::Tenant;
use crate::timers::HOST_TIMEOUT;

/// What all the outputs of one attempt in an inventory are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// Outputs of a succeeded task.
    Copy,
    /// Outputs of an attempt that ended while nobody listened.
    Finished,
    /// Of a task that might become ready by what was adopted before.
    Perhaps,
    /// Nothing that anybody wants.
    Unwanted,
}

impl Core {
    pub(crate) fn on_host_attached(&mut self, hello: HostHello, actions: &mut Vec<Action>) {
        let id = match self.host_names.get(&hello.name) {
            Some(id) if hello.incarnation < self.hosts[id.0 as usize].incarnation => {
                self.stale += 1;
                return;
            }
            Some(id) => *id,
            None => self.add_host(&hello),
        };
        if self.hosts[id.0 as usize].is_attached() {
            actions.push(Action::Disconnect { host: id, reason: "a newer session of it was opened" });
        }
        self.open_session(id, &hello);
        let tenants = self.tenants.iter().filter_map(Tenant::for_hosts).collect();
        actions.push(Action::Command { host: id, command: HostCommand::Welcome { tenants } });
        let gone = self.unlocate_host(id);
        let drops = self.adopt(id, hello.inventory, actions);
        self.send_drops(id, &drops, actions);
        self.take_back_all(id, "it had not ended when its host attached again", actions);
        self.rebuild_needed(gone, Some(id), actions);
        self.ask_again(id, actions);
    }

    fn add_host(&mut self, hello: &HostHello) -> HostId {
        let id = HostId(u32::try_from(self.hosts.len()).unwrap_or(u32::MAX));
        self.hosts.push(Host::new(id, hello, self.now));
        self.host_names.insert(hello.name.clone(), id);
        id
    }

    fn open_session(&mut self, id: HostId, hello: &HostHello) {
        if self.hosts[id.0 as usize].is_detached() {
            self.set_outputs_away(id, false);
        }
        let now = self.now;
        let host = &mut self.hosts[id.0 as usize];
        host.presence = Presence::Attached;
        host.incarnation = hello.incarnation;
        host.capacity = hello.capacity;
        host.isolation = hello.isolation;
        host.address.clone_from(&hello.address);
        (host.attached, host.heard) = (now, now);
        host.sent.clear();
        self.uploads.forget_host(id);
    }

    /// Takes what is wanted of an inventory; returns the rest.
    fn adopt(
        &mut self,
        host: HostId,
        mut inventory: Vec<StoredPartition>,
        actions: &mut Vec<Action>,
    ) -> Vec<PartitionId> {
        inventory.sort_unstable_by_key(|stored| stored.id);
        let mut unwanted = Vec::new();
        let mut finished: Option<SucceededBatch> = None;
        for outputs in inventory.chunk_by(|a, b| a.id.attempt == b.id.attempt) {
            let attempt = outputs[0].id.attempt;
            let joins = |batch: &SucceededBatch| {
                let same_array = batch.job == attempt.task.job && batch.array == attempt.task.array;
                same_array && batch.indexes.last() != Some(&attempt.task.index)
            };
            if finished.as_ref().is_some_and(|batch| !joins(batch)) {
                self.commit_finished(host, &mut finished, actions);
            }
            let mut claim = self.judge(host, attempt, outputs);
            if claim == Claim::Perhaps {
                self.commit_finished(host, &mut finished, actions);
                claim = self.judge(host, attempt, outputs);
            }
            match claim {
                Claim::Copy => {
                    let task = attempt.task;
                    self.place_outputs(task.job, task.array.0, task.index, Place::At(host));
                }
                Claim::Finished => {
                    if self.is_assigned(attempt) {
                        self.close_attempt(host, attempt.task, attempt.number);
                    }
                    add(&mut finished, attempt, outputs);
                }
                Claim::Perhaps | Claim::Unwanted => unwanted.extend(outputs.iter().map(|stored| stored.id)),
            }
        }
        self.commit_finished(host, &mut finished, actions);
        unwanted
    }

    fn commit_finished(&mut self, host: HostId, finished: &mut Option<SucceededBatch>, actions: &mut Vec<Action>) {
        if let Some(batch) = finished.take() {
            self.commit_from(Record::Succeeded { batch, at: self.now }, host, actions);
        }
    }

    /// Whether an attempt is in a frame. After a restart it can be that nobody knows of it.
    fn is_assigned(&self, attempt: AttemptId) -> bool {
        let task =
            self.find_job(attempt.task.job).and_then(|job| job.find_task(attempt.task.array, attempt.task.index));
        task.is_some_and(|task| task.state == State::Assigned)
    }

    /// What the partitions of one attempt are worth.
    fn judge(&self, host: HostId, attempt: AttemptId, outputs: &[StoredPartition]) -> Claim {
        let Some(job) = self.find_job(attempt.task.job) else { return Claim::Unwanted };
        let Some(array) = job.find_array(attempt.task.array) else { return Claim::Unwanted };
        let Some(task) = array.tasks.get(attempt.task.index as usize) else { return Claim::Unwanted };
        let complete = outputs.len() == array.spec.outputs as usize
            && (0_u32..).zip(outputs).all(|(output, stored)| stored.id.output == output);
        if !complete {
            return Claim::Unwanted;
        }
        let number = attempt.number.0.get();
        let unwritten = number > task.attempt && self.timers.recovering_until().is_some();
        match task.state {
            State::Succeeded => {
                let known = array.outputs_of(attempt.task.index);
                let equal = outputs.iter().map(|stored| stored.info).eq(known.iter().copied());
                let elsewhere = match task.place() {
                    Place::At(other) => self.hosts[other.0 as usize].is_attached(),
                    Place::Unknown | Place::Nowhere => false,
                };
                let wanted = job.wants_outputs_of(attempt.task.array.0);
                if task.attempt == number && equal && !elsewhere && wanted { Claim::Copy } else { Claim::Unwanted }
            }
            State::Assigned => {
                let here = task.frame().and_then(|slot| self.frames.get(slot)).is_some_and(|frame| frame.host == host);
                if here && task.attempt == number { Claim::Finished } else { Claim::Unwanted }
            }
            // Soon after a restart: it can be that the attempt was never written down. At other times a host that shows
            // outputs of what it was not given is not believed.
            State::Ready if unwritten => Claim::Finished,
            State::Waiting if unwritten && !array.is_upload() => Claim::Perhaps,
            State::Ready | State::Waiting | State::Delayed => Claim::Unwanted,
            State::Failed | State::Cancelled | State::Aborted => Claim::Unwanted,
        }
    }

    /// Gives everything out again that a host had.
    fn take_back_all(&mut self, id: HostId, why: &str, actions: &mut Vec<Action>) {
        let failure = Failure::new(Cause::HostLost, format!("host {}: {why}", self.hosts[id.0 as usize].name));
        let slots: Vec<u32> = self.hosts[id.0 as usize].frames.iter().copied().collect();
        for slot in slots {
            self.take_back(slot, &failure, actions);
        }
    }

    pub(crate) fn on_host_detached(&mut self, id: HostId, incarnation: Incarnation, actions: &mut Vec<Action>) {
        let current = self.hosts.get(id.0 as usize).is_some_and(|host| host.incarnation == incarnation);
        if !current || !self.hosts[id.0 as usize].is_attached() {
            self.stale += 1;
            return;
        }
        self.detach(id, self.now.after(HOST_TIMEOUT));
        self.ask_again(id, actions);
    }

    /// Notes that a host has no session; it may come back until then.
    pub(crate) fn detach(&mut self, id: HostId, until: Timestamp) {
        self.hosts[id.0 as usize].presence = Presence::Detached { until };
        self.set_outputs_away(id, true);
        self.uploads.forget_host(id);
    }

    /// Gives a detached host up.
    pub(crate) fn declare_lost(&mut self, id: HostId, actions: &mut Vec<Action>) {
        self.set_outputs_away(id, false);
        self.hosts[id.0 as usize].presence = Presence::Lost;
        let gone = self.unlocate_host(id);
        self.take_back_all(id, "it was lost", actions);
        self.rebuild_needed(gone, Some(id), actions);
    }
}

/// Adds a finished attempt to the batch of its array. What it used is not known any more.
fn add(finished: &mut Option<SucceededBatch>, attempt: AttemptId, outputs: &[StoredPartition]) {
    let batch = finished.get_or_insert_with(|| empty_batch(attempt.task.job, attempt));
    batch.indexes.push(attempt.task.index);
    batch.attempts.push(attempt.number);
    batch.outputs.extend(outputs.iter().map(|stored| stored.info));
    batch.usage.push(Usage::default());
}

fn empty_batch(job: JobId, attempt: AttemptId) -> SucceededBatch {
    SucceededBatch {
        job,
        array: attempt.task.array,
        indexes: Vec::new(),
        attempts: Vec::new(),
        outputs: Vec::new(),
        usage: Vec::new(),
        moved_partitions: 0,
        moved_bytes: partita_types::ByteSize::ZERO,
    }
}
