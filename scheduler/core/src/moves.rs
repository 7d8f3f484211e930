//! Moving outputs from one host to another, and keeping copies of them: always copy, verify, switch, delete.
//!
//! The target is told to fetch some outputs from the source. It answers with the hashes of what arrived; only what is equal
//! to what the task wrote counts, and only then the place of the outputs is the target. What the source has goes last, when
//! no task that was told of it can be reading it any more. So a host that dies at any point costs a rebuild at worst, as any
//! loss does, and mostly nothing: a target that dies leaves everything as it was, and a source that dies after the switch
//! takes nothing along. (HDFS moves blocks the same way: the replica at the source is only excess once the name node
//! has heard of the new one.)
//!
//! Orders are bounded for each host, and their bytes for each pair of hosts. Who moves what is decided in `drain.rs`; a
//! look at all that comes every [`LOOK`] while there is something to do, and costs a bounded number of steps.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use partita_types::{
    ArrayIndex, AttemptId, AttemptNumber, HostId, JobId, MoveId, OutputInfo, PartitionId, StoredPartition, TaskId,
    TenantId, Timestamp,
};

use crate::Core;
use crate::action::{Action, HostCommand};
use crate::copies::Copy;
use crate::job::Job;
use crate::planted::Bug;
use crate::results::stored;
use crate::task::{Place, State};

/// How often is looked while something moves or waits for that.
const LOOK: Duration = Duration::from_millis(250);
/// How often is looked otherwise.
const CALM: Duration = Duration::from_secs(5);
/// Orders under way from one host, and to one host: enough to hide the round trip to the scheduler.
const ORDERS_PER_HOST: usize = 4;
/// Bytes under way from one host to another: about an eighth of a second at the speed that placement reckons with. A larger
/// single output goes alone.
const LINK_BYTES: u64 = 64 << 20;
/// Most tasks and partitions of one order, so that it fits into a message.
const TASKS_MAX: usize = 256;
const PARTITIONS_MAX: usize = 4_096;
/// Tasks looked at for one order.
const LOOKED_AT: u32 = 16_384;
/// Copies that wait for their readers; beyond that nothing more is moved.
const LEAVING_MAX: usize = 16_384;
/// Of those, looked at with one look.
const LEFT_AT_ONCE: usize = 2_048;
/// For how long nothing more goes to a host that could not take or fetch what it should.
const REST: Duration = Duration::from_secs(5);

/// Outputs on their way.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) from: HostId,
    pub(crate) to: HostId,
    job: JobId,
    array: u32,
    /// The tasks, ascending, with the attempts that wrote the outputs.
    tasks: Vec<(u32, AttemptNumber)>,
    bytes: u64,
}

impl Flight {
    fn attempts(&self) -> impl Iterator<Item = AttemptId> {
        let (job, array) = (self.job, ArrayIndex(self.array));
        self.tasks
            .iter()
            .map(move |(index, number)| AttemptId { task: TaskId { job, array, index: *index }, number: *number })
    }
}

/// Where a walk over the outputs at a host goes on: an array, and a task of it.
pub(crate) type Cursor = ((JobId, u32), u32);

/// Outputs of one array that could go to a host together.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) to: HostId,
    job: JobId,
    array: u32,
    tasks: Vec<(u32, AttemptNumber)>,
    bytes: u64,
}

/// Everything under way.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    flights: BTreeMap<MoveId, Flight>,
    /// The tasks in them.
    moving: BTreeSet<TaskId>,
    last: u64,
    /// Something happened that may let more move.
    due: bool,
    next_look: Option<Timestamp>,
    /// Hosts that get nothing for a while.
    resting: BTreeMap<HostId, Timestamp>,
    /// Where the look at copies that go continues.
    leaving_from: Option<(TaskId, HostId)>,
    /// While a host attaches: the copies that it had.
    pub(crate) returning: BTreeMap<TaskId, Copy>,
}

impl Moves {
    /// When something is to be looked at.
    pub(crate) fn next_look(&self) -> Option<Timestamp> {
        self.next_look
    }

    /// Has everything looked at with this event.
    pub(crate) fn wake(&mut self) {
        self.due = true;
    }

    pub(crate) fn flights(&self) -> impl Iterator<Item = &Flight> {
        self.flights.values()
    }

    fn count(&self, which: impl Fn(&Flight) -> bool) -> usize {
        self.flights.values().filter(|flight| which(flight)).count()
    }

    /// Bytes that may be added on the way between two hosts.
    fn free_link(&self, from: HostId, to: HostId) -> u64 {
        let link = self.flights.values().filter(|flight| (flight.from, flight.to) == (from, to));
        LINK_BYTES.saturating_sub(link.map(|flight| flight.bytes).fold(0, u64::saturating_add))
    }
}

impl Core {
    /// Does what is due about outputs that move. Comes after everything else of an event.
    pub(crate) fn move_data(&mut self, actions: &mut Vec<Action>) {
        let due = self.moves.due || self.moves.next_look.is_some_and(|at| at <= self.now);
        if due && self.timers.recovering_until().is_none() {
            let now = self.now;
            self.moves.resting.retain(|_, until| *until > now);
            self.drop_what_left(actions);
            self.drain_hosts(actions);
            self.moves.due = false;
        }
        if due || self.moves.next_look.is_none() {
            self.moves.next_look = self.look_after().map(|wait| self.now.after(wait));
        }
    }

    fn look_after(&self) -> Option<Duration> {
        let restless = self.moves.due || self.copies.is_restless() || self.drains_go_on();
        if restless { Some(LOOK) } else { (self.hosts.len() > 1).then_some(CALM) }
    }

    /// Whether one more order may go out from a host.
    pub(crate) fn may_send_more(&self, from: HostId) -> bool {
        self.moves.count(|flight| flight.from == from) < ORDERS_PER_HOST && self.copies.leaving_count() < LEAVING_MAX
    }

    /// The host with most room that may take outputs of a tenant from another one now, and how much fits there.
    fn target(&self, tenant: TenantId, from: HostId) -> Option<(HostId, u64)> {
        let wanted = self.tenants.get(tenant.0 as usize)?.policy.as_ref()?.minimum_isolation;
        let open = |host: &&crate::host::Host| {
            host.takes_part()
                && host.id != from
                && host.isolation >= wanted
                && !self.moves.resting.contains_key(&host.id)
                && self.moves.count(|flight| flight.to == host.id) < ORDERS_PER_HOST
                && self.moves.free_link(from, host.id) > 0
        };
        let hosts = self.hosts.iter().filter(open);
        let roomiest = hosts.max_by_key(|host| (host.free_storage(), std::cmp::Reverse(host.id)))?;
        Some((roomiest.id, roomiest.free_storage()))
    }

    /// Outputs at a host, from a cursor on, that can go elsewhere together. The cursor is `None` when it came to the end.
    pub(crate) fn gather(&self, from: HostId, cursor: &mut Option<Cursor>) -> Option<Batch> {
        let mut budget = LOOKED_AT;
        let first = (JobId { tenant: TenantId(0), number: 0 }, 0);
        let (mut key, mut index) = cursor.take().unwrap_or((first, 0));
        while let Some(((id, array), _)) = self.hosts[from.0 as usize].stored.range(key..).next() {
            if (*id, *array) != key {
                (key, index) = ((*id, *array), 0);
            }
            if let (Some(job), Some((to, room))) = (self.find_job(key.0), self.target(key.0.tenant, from)) {
                let mut batch = Batch { to, job: key.0, array: key.1, tasks: Vec::new(), bytes: 0 };
                let end = self.fill(&mut batch, job, from, room, &mut budget, index);
                let full = !batch.tasks.is_empty();
                if full || budget == 0 {
                    *cursor = Some((key, end));
                    return full.then_some(batch);
                }
            }
            (key, index) = ((key.0, key.1 + 1), 0);
        }
        None
    }

    /// Adds tasks of the batch's array from `index` on; returns where to go on.
    fn fill(&self, batch: &mut Batch, job: &Job, from: HostId, room: u64, budget: &mut u32, index: u32) -> u32 {
        let array = job.array(batch.array);
        let most = TASKS_MAX.min(PARTITIONS_MAX / (array.kind.outputs.max(1) as usize)).max(1);
        let link = self.moves.free_link(from, batch.to);
        for index in index..array.len() {
            if *budget == 0 || batch.tasks.len() >= most {
                return index;
            }
            *budget -= 1;
            let task = job.task_id(batch.array, index);
            let slot = job.task(batch.array, index);
            let known_there = self.moves.moving.contains(&task) || self.copies.get(task, batch.to).is_some();
            let bytes = array.bytes_of(index);
            if slot.place() != Place::At(from) || known_there || batch.bytes.saturating_add(bytes) > room {
                continue;
            }
            if !batch.tasks.is_empty() && batch.bytes.saturating_add(bytes) > link {
                return index;
            }
            batch.tasks.extend(AttemptNumber::from_wire(slot.attempt).map(|number| (index, number)));
            batch.bytes = batch.bytes.saturating_add(bytes);
        }
        array.len()
    }

    /// Has a host copy outputs.
    pub(crate) fn start_copy(&mut self, from: HostId, batch: Batch, actions: &mut Vec<Action>) {
        let Batch { to, job, array, tasks, bytes } = batch;
        let Some(owner) = self.find_job(job) else { return };
        let of_task = |index: u32| {
            let outputs = 0..owner.array(array).kind.outputs;
            outputs.filter_map(move |output| stored(owner, ArrayIndex(array), index, output))
        };
        let partitions: Vec<StoredPartition> = tasks.iter().flat_map(|(index, _)| of_task(*index)).collect();
        let source = self.source(from);
        // Orders of an earlier process of the scheduler must not be taken for new ones.
        self.moves.last = self.now.micros.max(self.moves.last.saturating_add(1));
        let order = MoveId(self.moves.last);
        let flight = Flight { from, to, job, array, tasks, bytes };
        self.moves.moving.extend(flight.attempts().map(|attempt| attempt.task));
        self.hosts[to.0 as usize].coming_bytes += bytes;
        self.moves.flights.insert(order, flight);
        if self.has(Bug::LastCopyDroppedInMove) {
            let ids: Vec<PartitionId> = partitions.iter().map(|partition| partition.id).collect();
            self.send_drops(from, &ids, actions);
        }
        actions.push(Action::Command { host: to, command: HostCommand::Copy { order, source, partitions } });
    }

    fn end_flight(&mut self, order: MoveId) -> Option<Flight> {
        let flight = self.moves.flights.remove(&order)?;
        for attempt in flight.attempts() {
            self.moves.moving.remove(&attempt.task);
        }
        self.hosts[flight.to.0 as usize].coming_bytes -= flight.bytes;
        self.moves.due = true;
        Some(flight)
    }

    /// The session of a host began or ended: it answers no order of before.
    pub(crate) fn forget_flights_to(&mut self, host: HostId) {
        for order in self.orders_where(|flight| flight.to == host) {
            self.end_flight(order);
        }
    }

    /// Takes orders back. What came of them is deleted.
    pub(crate) fn cancel_flights(&mut self, which: impl Fn(&Flight) -> bool, actions: &mut Vec<Action>) {
        for order in self.orders_where(which) {
            let Some(flight) = self.end_flight(order) else { continue };
            let Some(job) = self.find_job(flight.job) else { continue };
            let outputs = job.array(flight.array).kind.outputs;
            let ids =
                flight.attempts().flat_map(|attempt| (0..outputs).map(move |output| PartitionId { attempt, output }));
            let ids: Vec<PartitionId> = ids.collect();
            self.send_drops(flight.to, &ids, actions);
        }
    }

    fn orders_where(&self, which: impl Fn(&Flight) -> bool) -> Vec<MoveId> {
        self.moves.flights.iter().filter(|(_, flight)| which(flight)).map(|(order, _)| *order).collect()
    }

    /// A host says what it has of what it was to copy.
    pub(crate) fn on_copied(
        &mut self,
        host: HostId,
        order: MoveId,
        copies: &[StoredPartition],
        problem: Option<String>,
        actions: &mut Vec<Action>,
    ) {
        let mut arrived: BTreeMap<AttemptId, Vec<&StoredPartition>> = BTreeMap::new();
        copies.iter().for_each(|copy| arrived.entry(copy.id.attempt).or_default().push(copy));
        let expected = self.moves.flights.get(&order).is_some_and(|flight| flight.to == host);
        let flight = if expected { self.end_flight(order) } else { None };
        let mut complete = true;
        match &flight {
            Some(flight) => {
                for attempt in flight.attempts() {
                    let found = arrived.get(&attempt).map_or(&[][..], Vec::as_slice);
                    let wanted = self.is_wanted(attempt);
                    let true_copy = wanted && self.is_true_copy(attempt, found);
                    complete &= true_copy || !wanted;
                    if true_copy && self.take_copy(flight, attempt.task) {
                        arrived.remove(&attempt);
                    }
                }
            }
            None => self.stale += 1,
        }
        let strays = arrived.into_iter().filter(|(attempt, _)| !self.counts_at(*attempt, host));
        let strays: Vec<PartitionId> = strays.flat_map(|(_, copies)| copies.into_iter().map(|copy| copy.id)).collect();
        self.send_drops(host, &strays, actions);
        if flight.is_some() && !complete {
            self.moves.resting.insert(host, self.now.after(REST));
            self.note_problem(flight.map(|flight| flight.from), host, problem);
        }
    }

    /// Whether what an attempt wrote still counts.
    fn is_wanted(&self, attempt: AttemptId) -> bool {
        let Some(job) = self.find_job(attempt.task.job) else { return false };
        let slot = job.find_task(attempt.task.array, attempt.task.index);
        let current = slot.is_some_and(|slot| slot.state == State::Succeeded && slot.attempt == attempt.number.0.get());
        current && job.wants_outputs_of(attempt.task.array.0)
    }

    /// Whether what arrived is all that an attempt wrote.
    fn is_true_copy(&self, attempt: AttemptId, arrived: &[&StoredPartition]) -> bool {
        let Some(array) = self.find_job(attempt.task.job).and_then(|job| job.find_array(attempt.task.array)) else {
            return false;
        };
        let mut infos: Vec<(u32, OutputInfo)> = arrived.iter().map(|copy| (copy.id.output, copy.info)).collect();
        infos.sort_unstable_by_key(|(output, _)| *output);
        let written = (0_u32..).zip(array.outputs_of(attempt.task.index).iter().copied());
        written.eq(infos)
    }

    /// Makes a verified copy count. Returns whether it is of use.
    fn take_copy(&mut self, flight: &Flight, task: TaskId) -> bool {
        match self.place_of(task) {
            Some(Place::At(place)) if place == flight.to => true,
            Some(Place::At(place)) if place == flight.from => {
                let left = self.copy_of(task, true);
                self.switch_place(task, flight.to);
                left.into_iter().for_each(|copy| self.add_copy(task, flight.from, copy));
                true
            }
            // Its place was lost meanwhile, and nobody needs it enough to make it again: here it is.
            Some(Place::Nowhere) if !self.is_consumed(task) => {
                self.switch_place(task, flight.to);
                true
            }
            Some(Place::At(_) | Place::Unknown | Place::Nowhere) | None => false,
        }
    }

    /// Whether outputs were given up because everything that reads them has ended.
    fn is_consumed(&self, task: TaskId) -> bool {
        self.find_job(task.job)
            .is_some_and(|job| job.may_go_early(task.array.0) && !job.is_needed(task.array.0, task.index))
    }

    /// Whether outputs of an attempt belong at a host, or are on their way to it.
    pub(crate) fn counts_at(&self, attempt: AttemptId, host: HostId) -> bool {
        let coming = || self.moves.flights().any(|flight| flight.to == host && flight.attempts().any(|a| a == attempt));
        self.holders(attempt).contains(&host) || self.moves.moving.contains(&attempt.task) && coming()
    }

    /// Deletes copies that go, once no task that is out may read them. Looks at a bounded number.
    fn drop_what_left(&mut self, actions: &mut Vec<Action>) {
        if !self.copies.is_restless() {
            return;
        }
        let oldest = self.oldest_readers();
        self.copies.retain_moved(|task, youngest| {
            oldest.get(&(task.job, task.array.0)).is_some_and(|oldest| *oldest <= youngest)
        });
        let from = self.moves.leaving_from.take();
        let mut some: Vec<(TaskId, HostId)> = self.copies.leaving(from).take(LEFT_AT_ONCE + 1).collect();
        self.moves.leaving_from = if some.len() > LEFT_AT_ONCE { some.pop() } else { None };
        let mut drops: BTreeMap<HostId, Vec<PartitionId>> = BTreeMap::new();
        for (task, host) in some {
            let place = self.place_of(task);
            let safe =
                matches!(place, Some(Place::At(other)) if other != host && self.hosts[other.0 as usize].is_attached());
            if !safe || self.copies.may_be_read(task) {
                continue;
            }
            if let Some(copy) = self.remove_copy(task, host) {
                drops.entry(host).or_default().extend(copy.partitions(task));
            }
        }
        for (host, partitions) in drops {
            self.send_drops(host, &partitions, actions);
        }
    }

    /// The oldest frame at any host that reads from each array.
    fn oldest_readers(&self) -> BTreeMap<(JobId, u32), u64> {
        let mut oldest: BTreeMap<(JobId, u32), u64> = BTreeMap::new();
        for (_, frame) in self.frames.iter() {
            let array = self.find_job(frame.job).and_then(|job| job.find_array(frame.array));
            for source in array.into_iter().flat_map(|array| &array.sources) {
                let known = oldest.entry((frame.job, *source)).or_insert(u64::MAX);
                *known = (*known).min(frame.number());
            }
        }
        oldest
    }

    /// What must fit together, for `invariants.rs`.
    pub(crate) fn check_moves(&self) -> Result<(), String> {
        let tasks: BTreeSet<TaskId> =
            self.moves.flights().flat_map(|flight| flight.attempts().map(|attempt| attempt.task)).collect();
        if tasks != self.moves.moving {
            return Err(format!("{} tasks move, and {} are said to", tasks.len(), self.moves.moving.len()));
        }
        for host in &self.hosts {
            let to = || self.moves.flights().filter(|flight| flight.to == host.id);
            let from = self.moves.count(|flight| flight.from == host.id);
            let coming: u64 = to().map(|flight| flight.bytes).sum();
            let bounded = to().count() <= ORDERS_PER_HOST && from <= ORDERS_PER_HOST;
            let there = to().next().is_none() || host.takes_part();
            if coming != host.coming_bytes || !bounded || !there {
                return Err(format!("host {}: {} orders to it, {from} from it", host.name, to().count()));
            }
        }
        Ok(())
    }
}
