//! What a host decides, apart from its I/O: which frame the next free lane takes, and what is left of a frame after a
//! cancellation or a lost executor.
//!
//! Deterministic and without I/O, so that the daemon and the simulation use the same code: time comes in as an argument,
//! and what a frame needs to run is an opaque `P`.
//! A frame is admitted, gets prepared outside, waits in its tenant's queue, runs on a lane, and is finished or comes
//! back with a rest. While it runs it holds a core lease, or it is paused; [`leases`] decides that between tenants.
//! Within a tenant frames keep the order in which the scheduler sent them, because that order is the scheduler's decision.

mod bucket;
pub mod copying;
pub mod leases;
pub mod ledger;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use partita_types::{AttemptId, ByteSize, CpuTime, FrameId, HeldFrame, TenantId, Timestamp};

use leases::{Leases, Start, Terms, Turn, Verdict};

/// Frames that a host keeps at once, running ones included. A scheduler sends a few per core.
pub const MAX_FRAMES: usize = 4096;
/// Executors that a tenant may lose in a row before it has to wait.
const RESPAWN_BURST: u32 = 32;
/// Time after which a tenant may lose one more.
const RESPAWN_REFILL: Duration = Duration::from_millis(100);

/// One admission of a frame to this host. Unlike a frame's own id it never repeats within a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkId(u64);

/// A frame as the queue sees it.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Its name between scheduler and host.
    pub frame: FrameId,
    /// Whose.
    pub tenant: TenantId,
    /// Memory limit of one task; a frame runs one at a time.
    pub memory: ByteSize,
    /// In the order in which to run them.
    pub attempts: Vec<AttemptId>,
}

/// Why a frame was not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// It would never fit.
    #[error("the task may use {memory} of memory, and the host has {capacity} for guests")]
    TooLarge {
        /// What one task may use.
        memory: ByteSize,
        /// What the host has.
        capacity: ByteSize,
    },
    /// There is no room for any frame.
    #[error("the host has {MAX_FRAMES} frames already")]
    Full,
}

/// What became of a frame whose preparation ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Prepared {
    /// It waits for a lane.
    Queued,
    /// No attempt is left of it.
    Finished(FrameId),
    /// It was cancelled meanwhile.
    Gone,
}

/// A frame for a lane.
#[derive(Debug)]
pub struct Job<P> {
    /// Which.
    pub work: WorkId,
    /// Whose.
    pub tenant: TenantId,
    /// Memory reserved for it.
    pub memory: ByteSize,
    /// Which positions of the frame are left to run, in order.
    pub positions: Vec<usize>,
    /// What it needs to run.
    pub payload: P,
}

/// The answer to a lane that asks for work.
#[derive(Debug)]
pub enum Taken<P> {
    /// Run this.
    Job(Job<P>),
    /// Nothing to run before this time, or before something changes.
    Nothing {
        /// The time, if time alone changes it.
        until: Option<Timestamp>,
    },
}

/// What became of a frame that a lane gave back.
#[derive(Debug, PartialEq, Eq)]
pub enum Returned {
    /// Nothing is left of it. Without an id nobody wants to hear of it any more.
    Finished {
        /// Which frame.
        frame: Option<FrameId>,
        /// Attempts that were cancelled before they started.
        cancelled: Vec<AttemptId>,
    },
    /// It waits for a lane again.
    Again {
        /// Attempts that were cancelled before they started.
        cancelled: Vec<AttemptId>,
    },
}

/// What a cancellation has to do outside.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cancelled {
    /// Attempts that will not start.
    pub attempts: Vec<AttemptId>,
    /// Frames of which nothing is left.
    pub finished: Vec<FrameId>,
    /// Preparations that nobody waits for.
    pub abandoned: Vec<WorkId>,
    /// Positions to stop on their lanes.
    pub running: Vec<(WorkId, Vec<usize>)>,
}

/// The answer to a scheduler that wants a frame back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retracted {
    /// It is gone from here.
    Given {
        /// Its preparation, if that was under way.
        abandoned: Option<WorkId>,
    },
    /// It runs, has run, or is not here.
    Kept,
}

#[derive(Debug)]
enum Stage<P> {
    Preparing,
    Ready(P),
    Running,
}

#[derive(Debug)]
struct Work<P> {
    frame: FrameId,
    tenant: TenantId,
    memory: ByteSize,
    attempts: Vec<AttemptId>,
    /// Positions that have not ended, ascending. While it runs: those it was taken with.
    open: Vec<usize>,
    /// Positions cancelled while it runs.
    cancelled: BTreeSet<usize>,
    stage: Stage<P>,
    /// The session that sent it is over: its end is of no interest.
    orphaned: bool,
}

#[derive(Debug)]
struct Share {
    ready: VecDeque<WorkId>,
    /// Executors that it may still lose before it waits.
    respawns: u32,
    refilled: Timestamp,
    not_before: Timestamp,
}

impl Share {
    fn new() -> Self {
        Self {
            ready: VecDeque::new(),
            respawns: RESPAWN_BURST,
            refilled: Timestamp::default(),
            not_before: Timestamp::default(),
        }
    }

    /// Preparations end in any order; the queue keeps the order of admission.
    fn put(&mut self, id: WorkId) {
        let place = self.ready.partition_point(|other| *other < id);
        self.ready.insert(place, id);
    }

    /// Counts a lost executor; once too many were lost, the tenant waits.
    fn lost_executor(&mut self, now: Timestamp) {
        let refills = now.since(self.refilled).as_micros() / RESPAWN_REFILL.as_micros();
        if refills > 0 {
            let refills = u32::try_from(refills).unwrap_or(u32::MAX);
            self.respawns = self.respawns.saturating_add(refills).min(RESPAWN_BURST);
            self.refilled = now;
        }
        self.respawns = self.respawns.saturating_sub(1);
        if self.respawns == 0 {
            self.not_before = now.after(RESPAWN_REFILL);
        }
    }
}

/// The frames of a host.
#[derive(Debug)]
pub struct Logic<P> {
    capacity: ByteSize,
    /// Sum of the memory of frames that have started, paused ones included.
    reserved: ByteSize,
    shares: BTreeMap<TenantId, Share>,
    works: BTreeMap<WorkId, Work<P>>,
    next: u64,
    leases: Leases,
}

impl<P> Logic<P> {
    /// An empty host with so many cores and this much memory for guests.
    pub fn new(cores: u32, capacity: ByteSize) -> Self {
        let leases = Leases::new(usize::try_from(cores).unwrap_or(usize::MAX));
        Self { capacity, reserved: ByteSize::ZERO, shares: BTreeMap::new(), works: BTreeMap::new(), next: 0, leases }
    }

    /// Sets what a tenant gets. What runs is judged by it from the next [`arbitrate`](Self::arbitrate) on; what it used
    /// before does not count towards a new limit.
    pub fn set_tenant(
        &mut self,
        tenant: TenantId,
        terms: Terms,
        now: Timestamp,
        cpu: &mut dyn FnMut(WorkId) -> Option<CpuTime>,
    ) {
        self.leases.charge(now, cpu);
        self.leases.set_tenant(tenant, terms);
    }

    /// Decides which of the frames that have started may run, and which are paused. To be asked whenever something happened,
    /// before [`take`](Self::take), and again at the time that it says. `cpu` is the CPU time of the executor of a frame since
    /// it took the frame.
    pub fn arbitrate(&mut self, now: Timestamp, cpu: &mut dyn FnMut(WorkId) -> Option<CpuTime>) -> Verdict {
        let Self { capacity, reserved, shares, works, leases, .. } = self;
        leases.arbitrate(now, cpu, &|tenant| startable(shares, works, (*reserved, *capacity), tenant, now))
    }

    /// Memory that running frames may use.
    pub fn reserved(&self) -> ByteSize {
        self.reserved
    }

    /// Whether some frame waits for a lane, and leases beyond the first so many are free.
    pub fn has_work_for_more_than(&self, lanes: usize) -> bool {
        self.leases.free() > lanes && self.leases.anybody_waits()
    }

    /// Most frames that have started at once, paused ones included; so many lanes are needed at most.
    pub fn places(&self) -> usize {
        self.leases.places()
    }

    /// Frames that have started, paused ones included.
    pub fn running(&self) -> usize {
        self.leases.started()
    }

    /// Frames that are paused.
    pub fn paused(&self) -> usize {
        self.leases.paused()
    }

    /// Whether a frame is paused.
    pub fn is_paused(&self, id: WorkId) -> bool {
        self.leases.is_paused(id)
    }

    fn share(&mut self, tenant: TenantId) -> &mut Share {
        self.shares.entry(tenant).or_insert_with(Share::new)
    }

    /// Puts a frame into its tenant's queue.
    fn queue(&mut self, tenant: TenantId, id: WorkId) {
        let share = self.share(tenant);
        share.put(id);
        let waiting = share.ready.len();
        self.leases.set_waiting(tenant, waiting);
    }

    /// Takes a frame out of its tenant's queue.
    fn unqueue(&mut self, tenant: TenantId, id: WorkId) {
        let share = self.share(tenant);
        if share.ready.front() == Some(&id) {
            share.ready.pop_front();
        } else {
            share.ready.retain(|other| *other != id);
        }
        let waiting = share.ready.len();
        self.leases.set_waiting(tenant, waiting);
    }

    /// Takes a frame in; it waits for its preparation.
    ///
    /// # Errors
    /// If it can never run here, or too many frames are here.
    pub fn admit(&mut self, offer: Offer) -> Result<WorkId, AdmitError> {
        if offer.memory > self.capacity {
            return Err(AdmitError::TooLarge { memory: offer.memory, capacity: self.capacity });
        }
        if self.works.len() >= MAX_FRAMES {
            return Err(AdmitError::Full);
        }
        let id = WorkId(self.next);
        self.next += 1;
        let open = (0..offer.attempts.len()).collect();
        let work = Work {
            frame: offer.frame,
            tenant: offer.tenant,
            memory: offer.memory,
            attempts: offer.attempts,
            open,
            cancelled: BTreeSet::new(),
            stage: Stage::Preparing,
            orphaned: false,
        };
        self.works.insert(id, work);
        Ok(id)
    }

    /// A preparation ended; the positions in `failed` cannot run and were reported.
    pub fn prepared(&mut self, id: WorkId, payload: P, failed: &[usize]) -> Prepared {
        let Some(work) = self.works.get_mut(&id) else { return Prepared::Gone };
        work.open.retain(|position| !failed.contains(position));
        if work.open.is_empty() {
            let frame = work.frame;
            self.works.remove(&id);
            return Prepared::Finished(frame);
        }
        work.stage = Stage::Ready(payload);
        let tenant = work.tenant;
        self.queue(tenant, id);
        Prepared::Queued
    }

    /// Whether a frame waits for its preparation.
    pub fn is_preparing(&self, id: WorkId) -> bool {
        self.works.get(&id).is_some_and(|work| matches!(work.stage, Stage::Preparing))
    }

    /// Removes a frame that cannot be prepared. Answers its attempts that are left.
    pub fn give_up(&mut self, id: WorkId) -> Option<(FrameId, Vec<AttemptId>)> {
        let work = self.works.get(&id).filter(|work| matches!(work.stage, Stage::Preparing))?;
        let left = work.open.iter().filter_map(|position| work.attempts.get(*position).copied()).collect();
        let frame = work.frame;
        self.works.remove(&id);
        Some((frame, left))
    }

    /// The frame that a free lane runs now, if a lease is free.
    ///
    /// The first frame of the tenant that is furthest behind goes first. If its memory is not free yet, nothing else
    /// overtakes it: a large frame would otherwise wait for ever behind small ones.
    pub fn take(&mut self, now: Timestamp) -> Taken<P> {
        self.leases.welcome_back();
        if self.leases.free() == 0 {
            return Taken::Nothing { until: None };
        }
        let Self { capacity, reserved, shares, works, leases, .. } = self;
        let turn = leases.next_turn(now, &|tenant| startable(shares, works, (*reserved, *capacity), tenant, now));
        let Some((tenant, Turn::Start)) = turn else {
            let waits = self.shares.values().filter(|share| !share.ready.is_empty() && share.not_before > now);
            return Taken::Nothing { until: waits.map(|share| share.not_before).min() };
        };
        self.start(tenant, now).map_or(Taken::Nothing { until: None }, Taken::Job)
    }

    fn start(&mut self, tenant: TenantId, now: Timestamp) -> Option<Job<P>> {
        let id = *self.shares.get(&tenant)?.ready.front()?;
        let work = self.works.get_mut(&id)?;
        let payload = match std::mem::replace(&mut work.stage, Stage::Running) {
            Stage::Ready(payload) => payload,
            other @ (Stage::Preparing | Stage::Running) => {
                work.stage = other;
                return None;
            }
        };
        let job = Job { work: id, tenant, memory: work.memory, positions: work.open.clone(), payload };
        self.reserved = self.reserved.saturating_add(job.memory);
        self.unqueue(tenant, id);
        self.leases.start(id, tenant, now);
        Some(job)
    }

    /// A lane ran the first `ended` of the positions that it took, for `cpu` together. Those after it did not start:
    /// the executor was lost, which `lost` says.
    pub fn give_back(
        &mut self,
        id: WorkId,
        payload: P,
        ended: usize,
        cpu: CpuTime,
        lost: Option<Timestamp>,
    ) -> Returned {
        let Some(work) = self.works.get_mut(&id) else {
            return Returned::Finished { frame: None, cancelled: Vec::new() };
        };
        let (tenant, memory) = (work.tenant, work.memory);
        work.open.drain(..ended.min(work.open.len()));
        let (stopped, open) = std::mem::take(&mut work.open).into_iter().partition(|p| work.cancelled.contains(p));
        work.open = open;
        let stopped: Vec<usize> = stopped;
        let cancelled = stopped.into_iter().filter_map(|position| work.attempts.get(position).copied()).collect();
        let again = !work.open.is_empty() && !work.orphaned;
        let frame = (!work.orphaned).then_some(work.frame);
        if again {
            work.stage = Stage::Ready(payload);
        } else {
            self.works.remove(&id);
        }
        self.reserved = self.reserved.saturating_sub(memory);
        if let Some(now) = lost {
            self.share(tenant).lost_executor(now);
        }
        if again {
            self.queue(tenant, id);
        }
        // Behind the queue, so that a tenant with more to run was never idle.
        self.leases.end(id, cpu);
        if again { Returned::Again { cancelled } } else { Returned::Finished { frame, cancelled } }
    }

    /// Cancels attempts wherever they are. Work is linear in the attempts named and the attempts present.
    pub fn cancel(&mut self, attempts: &[AttemptId]) -> Cancelled {
        let wanted: HashSet<AttemptId> = attempts.iter().copied().collect();
        let mut result = Cancelled::default();
        let mut ended = Vec::new();
        for (id, work) in &mut self.works {
            let hit = |position: &usize| work.attempts.get(*position).is_some_and(|attempt| wanted.contains(attempt));
            let hits: Vec<usize> = work.open.iter().copied().filter(hit).collect();
            if hits.is_empty() {
                continue;
            }
            if matches!(work.stage, Stage::Running) {
                work.cancelled.extend(hits.iter().copied());
                result.running.push((*id, hits));
                continue;
            }
            result.attempts.extend(hits.iter().filter_map(|position| work.attempts.get(*position).copied()));
            work.open.retain(|position| !hits.contains(position));
            if work.open.is_empty() {
                result.finished.push(work.frame);
                ended.push(*id);
            }
        }
        for id in ended {
            self.forget(id, &mut result.abandoned);
        }
        result
    }

    /// The frames that are here, each with its attempts that have not ended. `ended` says how many of the positions of a
    /// running frame have ended since it was taken.
    pub fn held(&self, ended: impl Fn(WorkId) -> usize) -> Vec<HeldFrame> {
        let held = |(id, work): (&WorkId, &Work<P>)| {
            let skip = if matches!(work.stage, Stage::Running) { ended(*id) } else { 0 };
            let open = work.open.iter().skip(skip);
            let attempts: Vec<AttemptId> = open.filter_map(|place| work.attempts.get(*place).copied()).collect();
            let task = attempts.first().filter(|_| !work.orphaned)?.task;
            let (indexes, attempts) = attempts.iter().map(|attempt| (attempt.task.index, attempt.number)).unzip();
            Some(HeldFrame { id: work.frame, job: task.job, array: task.array, indexes, attempts })
        };
        self.works.iter().filter_map(held).collect()
    }

    /// Gives a frame back that has not begun; answers what is to be given up for that. A frame that began, lost some of its
    /// tasks, or is not here is kept.
    pub fn retract(&mut self, frame: FrameId) -> Retracted {
        let untouched = |work: &Work<P>| {
            let begun = matches!(work.stage, Stage::Running) || work.open.len() < work.attempts.len();
            work.frame == frame && !begun && !work.orphaned
        };
        let Some(id) = self.works.iter().find(|(_, work)| untouched(work)).map(|(id, _)| *id) else {
            return Retracted::Kept;
        };
        let mut abandoned = Vec::new();
        self.forget(id, &mut abandoned);
        Retracted::Given { abandoned: abandoned.pop() }
    }

    /// Positions of a running frame that were cancelled since it was taken.
    pub fn cancelled_while_running(&self, id: WorkId) -> Vec<usize> {
        self.works.get(&id).map(|work| work.cancelled.iter().copied().collect()).unwrap_or_default()
    }

    /// Forgets every frame: nobody waits for them any more. Answers the preparations to give up and the running
    /// frames to kill; those keep their memory until they are given back.
    pub fn clear(&mut self) -> (Vec<WorkId>, Vec<WorkId>) {
        let (mut abandoned, mut running, mut ended) = (Vec::new(), Vec::new(), Vec::new());
        for (id, work) in &mut self.works {
            if matches!(work.stage, Stage::Running) {
                work.orphaned = true;
                running.push(*id);
            } else {
                ended.push(*id);
            }
        }
        for id in ended {
            self.forget(id, &mut abandoned);
        }
        (abandoned, running)
    }

    fn forget(&mut self, id: WorkId, abandoned: &mut Vec<WorkId>) {
        let Some(work) = self.works.remove(&id) else { return };
        match work.stage {
            Stage::Preparing => abandoned.push(id),
            Stage::Ready(_) => self.unqueue(work.tenant, id),
            Stage::Running => {}
        }
    }
}

/// Whether the next frame of a tenant can start; `memory` is what is reserved, and what there is.
fn startable<P>(
    shares: &BTreeMap<TenantId, Share>,
    works: &BTreeMap<WorkId, Work<P>>,
    memory: (ByteSize, ByteSize),
    tenant: TenantId,
    now: Timestamp,
) -> Start {
    let share = shares.get(&tenant).filter(|share| share.not_before <= now);
    let Some(work) = share.and_then(|share| works.get(share.ready.front()?)) else { return Start::No };
    let (reserved, capacity) = memory;
    if reserved.saturating_add(work.memory) <= capacity { Start::Ready } else { Start::Blocked }
}

#[cfg(test)]
mod tests;
