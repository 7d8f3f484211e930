//! Giving up what nobody needs: outputs that were consumed, and jobs that were released.

use std::collections::{BTreeMap, BTreeSet};

use partita_types::{ArrayIndex, HostId, JobId, PartitionId};

use crate::action::{Action, HostCommand, Refusal, Reply};
use crate::array::{Consumer, Input};
use crate::job::Job;
use crate::record::Record;
use crate::task::{Place, State};
use crate::{Core, no_such_job};

/// Most partitions in one command, so that it fits into a message.
const DROPS_PER_COMMAND: usize = 10_000;
/// Readers that look at each other when they succeed.
const FEW_READERS: usize = 64;

impl Core {
    pub(crate) fn on_release(&mut self, id: JobId, actions: &mut Vec<Action>) -> Result<Reply, Refusal> {
        let job = self.find_job(id).ok_or_else(|| no_such_job(id))?;
        if job.end.is_none() {
            let what = format!("job {id}");
            return Err(Refusal::State { what, state: "has not ended; cancel it first, or wait for it" });
        }
        self.commit(Record::JobReleased { job: id }, actions);
        Ok(Reply::Done)
    }

    /// Lets go of the outputs of an array, if neither a task nor a client may ask for them again.
    pub(crate) fn drop_unwanted(&mut self, id: JobId, array: u32, actions: &mut Vec<Action>) {
        let unwanted = self.find_job(id).is_some_and(|job| !job.wants_outputs_of(array));
        if unwanted {
            self.drop_outputs(id, array, actions);
        }
    }

    /// As [`Core::drop_unwanted`] for all arrays of a job, after it was closed or ended.
    pub(crate) fn drop_unwanted_everywhere(&mut self, id: JobId, actions: &mut Vec<Action>) {
        let arrays = self.find_job(id).map_or(0, |job| job.arrays.len());
        for array in (0_u32..).take(arrays) {
            self.drop_unwanted(id, array, actions);
        }
    }

    /// Lets go of what tasks that have just succeeded were the last to read, apart from what nobody could make again as it
    /// was. Outputs that are read by whole arrays together go with [`Core::drop_unwanted`].
    pub(crate) fn drop_consumed(&mut self, id: JobId, array: u32, ended: &[u32], actions: &mut Vec<Action>) {
        let Some(job) = self.find_job(id) else { return };
        let owner = job.array(array);
        if !owner.inputs.iter().any(|input| input.is_per_task()) {
            return;
        }
        let sources: Vec<u32> = owner.sources.iter().copied().filter(|source| job.may_go_early(*source)).collect();
        let mut consumed: BTreeSet<(u32, u32)> = BTreeSet::new();
        for index in ended.iter().filter(|_| !sources.is_empty()) {
            job.each_own_read(array, *index, &mut |read| {
                if sources.contains(&read.array) {
                    consumed.insert((read.array, read.index));
                }
            });
        }
        consumed.retain(|(array, index)| {
            job.task(*array, *index).place() != Place::Nowhere
                && job.has_few_readers(*array, *index)
                && !job.is_needed(*array, *index)
        });
        let mut drops: BTreeMap<HostId, Vec<PartitionId>> = BTreeMap::new();
        for (array, index) in &consumed {
            if let Place::At(host) = job.task(*array, *index).place() {
                drops.entry(host).or_default().extend(job.partitions_of(*array, *index));
            }
        }
        for (array, index) in consumed {
            let task = partita_types::TaskId { job: id, array: ArrayIndex(array), index };
            self.take_copies_of(task, &mut drops);
            self.place_outputs(id, array, index, Place::Nowhere);
        }
        for (host, partitions) in drops {
            self.send_drops(host, &partitions, actions);
        }
    }

    fn drop_outputs(&mut self, id: JobId, array: u32, actions: &mut Vec<Action>) {
        let Some(job) = self.find_job(id) else { return };
        let owner = job.array(array);
        if owner.tasks.in_state(State::Succeeded) == 0 {
            return;
        }
        self.drop_copies_of(id, array, actions);
        let Some(owner) = self.find_job(id).map(|job| job.array(array)) else { return };
        let somewhere = |place: Place| place != Place::Nowhere;
        let indexes: Vec<u32> =
            (0_u32..).zip(&owner.tasks).filter(|(_, task)| somewhere(task.place())).map(|(index, _)| index).collect();
        let mut drops: BTreeMap<HostId, Vec<PartitionId>> = BTreeMap::new();
        for index in &indexes {
            let Some(job) = self.find_job(id) else { return };
            if let Place::At(host) = job.task(array, *index).place() {
                drops.entry(host).or_default().extend(job.partitions_of(array, *index));
            }
        }
        for index in indexes {
            self.place_outputs(id, array, index, Place::Nowhere);
        }
        for (host, partitions) in drops {
            self.send_drops(host, &partitions, actions);
        }
    }

    /// Tells a host to delete partitions, if it can be told. Others learn it when they attach.
    pub(crate) fn send_drops(&self, host: HostId, partitions: &[PartitionId], actions: &mut Vec<Action>) {
        if self.hosts[host.0 as usize].is_attached() {
            for some in partitions.chunks(DROPS_PER_COMMAND) {
                actions.push(Action::Command { host, command: HostCommand::Drop(some.to_vec()) });
            }
        }
    }

    /// The effect of [`Record::JobReleased`].
    pub(crate) fn release_job(&mut self, id: JobId, actions: &mut Vec<Action>) -> bool {
        let mut stopped = Vec::new();
        let Some(()) = self.change_job(id, |job| {
            for (array, index) in job.unfinished_tasks() {
                job.finish(array, index, State::Cancelled, &mut stopped);
            }
        }) else {
            return false;
        };
        self.stop_attempts(stopped, actions);
        let arrays = self.find_job(id).map_or(0, |job| job.arrays.len());
        for array in (0_u32..).take(arrays) {
            self.drop_outputs(id, array, actions);
        }
        for host in &mut self.hosts {
            let first = (id, ArrayIndex(0));
            let sent: Vec<_> = host.sent.range(first..).take_while(|(job, _)| *job == id).copied().collect();
            sent.iter().for_each(|key| {
                host.sent.remove(key);
            });
        }
        let tenant = &mut self.tenants[id.tenant.0 as usize];
        if let Some(job) = tenant.remove_job(id.number)
            && job.end.is_none()
        {
            tenant.usage.running_jobs -= 1;
        }
        actions.push(Action::Unpublish(id));
        true
    }
}

impl Job {
    /// Whether so few tasks read an output by edges of their own that each of them, when it succeeds, may look at the
    /// others. An output that more of them read goes when their whole array is done.
    fn has_few_readers(&self, array: u32, index: u32) -> bool {
        let consumers = &self.array(array).consumers;
        let readers = |consumer: &Consumer| match &self.array(consumer.array).inputs[consumer.input as usize] {
            Input::List(lists) => lists.readers(array, index).len(),
            Input::Each { .. }
            | Input::Fold { .. }
            | Input::All { .. }
            | Input::Slice { .. }
            | Input::Dataset(_)
            | Input::Literal(_)
            | Input::PerTaskLiteral(_) => 1,
        };
        consumers.len() <= FEW_READERS && consumers.iter().map(readers).sum::<usize>() <= FEW_READERS
    }

    /// Whether outputs of an array go as soon as their readers have ended, before the whole arrays that read it have.
    pub(crate) fn may_go_early(&self, array: u32) -> bool {
        let owner = self.array(array);
        let again = owner.kind.options.deterministic && !owner.is_upload();
        again && !self.open && !owner.is_result(array)
    }
}
