//! Where outputs are, kept the same way round for tasks, arrays, hosts and tenants.

use partita_types::{ArrayIndex, AttemptId, AttemptNumber, HostId, JobId, PartitionId, TaskId};

use crate::Core;
use crate::few::Few;
use crate::job::Job;
use crate::task::{Place, State};

/// How many bytes each host has, by host; none has 0. Mostly it is one host.
#[derive(Debug, Default)]
pub(crate) struct Located(Few<(HostId, u64)>);

impl Located {
    pub(crate) fn all(&self) -> &[(HostId, u64)] {
        &self.0
    }

    fn add(&mut self, host: HostId, bytes: u64) {
        if bytes == 0 {
            return;
        }
        match self.0.binary_search_by_key(&host, |(host, _)| *host) {
            Ok(at) => self.0[at].1 = self.0[at].1.saturating_add(bytes),
            Err(at) => self.0.insert(at, (host, bytes)),
        }
    }

    /// Hosts with nothing left are forgotten.
    fn subtract(&mut self, host: HostId, bytes: u64) {
        let Ok(at) = self.0.binary_search_by_key(&host, |(host, _)| *host) else { return };
        self.0[at].1 = self.0[at].1.saturating_sub(bytes);
        if self.0[at].1 == 0 {
            self.0.remove(at);
        }
    }
}

impl Job {
    /// Changes the number of tasks of an array whose outputs cannot be reached for the moment.
    fn shift_away(&mut self, array: u32, more: u32, fewer: u32) {
        let owner = self.array_mut(array);
        let before = owner.away;
        owner.away = owner.away + more - fewer;
        if (before == 0) != (owner.away == 0) {
            for position in 0..self.array(array).consumers.len() {
                let consumer = self.array(array).consumers[position];
                self.mark_dirty(consumer.array);
            }
        }
    }

    /// All outputs of the current attempt of a task.
    pub(crate) fn partitions_of(&self, array: u32, index: u32) -> impl Iterator<Item = PartitionId> + use<> {
        let task = self.task_id(array, index);
        let attempt =
            AttemptNumber::from_wire(self.task(array, index).attempt).map(|number| AttemptId { task, number });
        let outputs = self.array(array).kind.outputs;
        attempt.into_iter().flat_map(move |attempt| (0..outputs).map(move |output| PartitionId { attempt, output }))
    }
}

impl Core {
    /// Notes that all outputs of a succeeded task are at `place` from now on, and nowhere else.
    pub(crate) fn place_outputs(&mut self, id: JobId, array: u32, index: u32, place: Place) {
        let Some(tenant) = self.tenants.get_mut(id.tenant.0 as usize) else { return };
        let usage = &mut tenant.usage;
        let mut stored = usage.stored;
        let Some(job) = tenant.job_mut(id.number) else { return };
        let before = job.task(array, index).place();
        if before == place {
            return;
        }
        let owner = job.array_mut(array);
        let (bytes, outputs) = (owner.bytes_of(index), u64::from(owner.kind.outputs));
        let mut away = (0, 0);
        match before {
            Place::At(host) => {
                let host = &mut self.hosts[host.0 as usize];
                let key = (id, array);
                if let Some(count) = host.stored.get_mut(&key) {
                    *count -= 1;
                    if *count == 0 {
                        host.stored.remove(&key);
                    }
                }
                host.stored_partitions -= outputs;
                host.stored_bytes = host.stored_bytes.saturating_sub(bytes);
                away.1 = u32::from(host.is_detached());
                owner.located_mut().subtract(host.id, bytes);
            }
            Place::Unknown => away.1 = 1,
            Place::Nowhere => stored = stored.saturating_add(bytes),
        }
        match place {
            Place::At(host) => {
                let host = &mut self.hosts[host.0 as usize];
                *host.stored.entry((id, array)).or_default() += 1;
                host.stored_partitions += outputs;
                host.stored_bytes = host.stored_bytes.saturating_add(bytes);
                away.0 = u32::from(host.is_detached());
                owner.located_mut().add(host.id, bytes);
            }
            Place::Unknown => away.0 = 1,
            Place::Nowhere => stored = stored.saturating_sub(bytes),
        }
        job.task_mut(array, index).set_place(place);
        job.shift_away(array, away.0, away.1);
        tenant.usage.stored = stored;
        tenant.refresh(id.number);
    }

    /// Forgets every output at a host; returns the tasks that wrote those that are nowhere else.
    pub(crate) fn unlocate_host(&mut self, host: HostId) -> Vec<TaskId> {
        let keys: Vec<_> = self.hosts[host.0 as usize].stored.keys().copied().collect();
        let mut gone = Vec::new();
        for (id, array) in keys {
            let Some(job) = self.find_job(id) else { continue };
            let tasks = (0_u32..).zip(&job.array(array).tasks);
            let there: Vec<u32> =
                tasks.filter(|(_, task)| task.place() == Place::At(host)).map(|(index, _)| index).collect();
            for index in there {
                let task = TaskId { job: id, array: ArrayIndex(array), index };
                if !self.promote_copy(task) {
                    self.place_outputs(id, array, index, Place::Nowhere);
                    gone.push(task);
                }
            }
        }
        gone
    }

    /// Everything at a host is out of reach from now on, or in reach again.
    pub(crate) fn set_outputs_away(&mut self, host: HostId, away: bool) {
        let stored = self.hosts[host.0 as usize].stored.clone();
        for ((id, array), count) in stored {
            let (more, fewer) = if away { (count, 0) } else { (0, count) };
            self.change_job(id, |job| job.shift_away(array, more, fewer));
        }
    }

    /// Forgets outputs that no host has shown since the restart; returns the tasks that wrote them.
    pub(crate) fn unlocate_unknown(&mut self) -> Vec<TaskId> {
        let mut gone = Vec::new();
        for job in self.tenants.iter().flat_map(|tenant| tenant.jobs()) {
            for (position, array) in (0_u32..).zip(&job.arrays).filter(|(_, array)| array.away > 0) {
                let unknown = (0_u32..).zip(&array.tasks).filter(|(_, task)| task.place() == Place::Unknown);
                gone.extend(unknown.map(|(index, _)| job.task_id(position, index)));
            }
        }
        for task in &gone {
            self.place_outputs(task.job, task.array.0, task.index, Place::Nowhere);
        }
        gone
    }

    /// The task, if it has succeeded, in the form of its place.
    pub(crate) fn place_of(&self, task: TaskId) -> Option<Place> {
        let slot = self.find_job(task.job)?.find_task(task.array, task.index)?;
        (slot.state == State::Succeeded).then(|| slot.place())
    }
}
