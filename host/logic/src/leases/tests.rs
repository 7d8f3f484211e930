//! Shares, limits and waits on a host whose executors use all the time that they get, and whose clocks are late like the
//! kernel's.

use partita_types::{ArrayIndex, AttemptId, AttemptNumber, ByteSize, FrameId, JobId, TaskId};

use super::*;
use crate::{Logic, Offer, Taken};

const A: TenantId = TenantId(1);
const B: TenantId = TenantId(2);
const C: TenantId = TenantId(3);
const SECOND: u64 = 1_000_000;
/// A tick of the kernel, in microseconds.
const TICK: u64 = 4_000;
/// Smallest step of the time here.
const STEP: u64 = 250;
/// A task that does not end.
const ENDLESS: u64 = u64::MAX;

#[derive(Debug)]
struct Running {
    work: WorkId,
    tenant: TenantId,
    left: u64,
    used: u64,
    stopped: bool,
}

/// A host of which only leases matter.
struct Host {
    logic: Logic<u64>,
    running: Vec<Running>,
    now: u64,
    look: Option<u64>,
    frames: u64,
    used: BTreeMap<TenantId, u64>,
    /// When each frame was sent, and how long after that those ended that did.
    sent: BTreeMap<WorkId, u64>,
    waits: Vec<u64>,
    clocks_read: u64,
    signals: u64,
}

impl Host {
    fn new(cores: u32) -> Self {
        Self {
            logic: Logic::new(cores, ByteSize::gib(64)),
            running: Vec::new(),
            now: 1,
            look: None,
            frames: 0,
            used: BTreeMap::new(),
            sent: BTreeMap::new(),
            waits: Vec::new(),
            clocks_read: 0,
            signals: 0,
        }
    }

    fn at(&self) -> Timestamp {
        Timestamp::from_micros(self.now)
    }

    fn tenant(&mut self, tenant: TenantId, weight: u32, limit: Option<u64>) {
        self.terms(tenant, Terms { weight, limit: limit.map(MilliCpu), guaranteed: MilliCpu(0) });
    }

    fn terms(&mut self, tenant: TenantId, terms: Terms) {
        let (now, running) = (self.at(), &self.running);
        let mut cpu = |work| clock(running, work);
        self.logic.set_tenant(tenant, terms, now, &mut cpu);
        self.settle();
    }

    /// Sends a frame that takes so much CPU time.
    fn send(&mut self, tenant: TenantId, cpu: u64) -> WorkId {
        self.frames += 1;
        let task = TaskId { job: JobId { tenant, number: 1 }, array: ArrayIndex(0), index: 0 };
        let attempts = vec![AttemptId { task, number: AttemptNumber::FIRST }];
        let offer = Offer { frame: FrameId(self.frames), tenant, memory: ByteSize::mib(1), attempts };
        let work = self.logic.admit(offer).unwrap();
        self.logic.prepared(work, cpu, &[]);
        self.sent.insert(work, self.now);
        self.settle();
        work
    }

    fn settle(&mut self) {
        loop {
            let now = self.at();
            let (running, read) = (&self.running, &mut self.clocks_read);
            let verdict = self.logic.arbitrate(now, &mut |work| {
                *read += 1;
                clock(running, work)
            });
            for (works, stopped) in [(&verdict.pause, true), (&verdict.resume, false)] {
                for work in works {
                    let running = self.running.iter_mut().find(|running| running.work == *work).unwrap();
                    assert_ne!(running.stopped, stopped, "a signal for nothing");
                    running.stopped = stopped;
                    self.signals += 1;
                }
            }
            self.look = verdict.next.map(|next| next.micros);
            assert!(self.look.is_none_or(|look| look > self.now), "it asks to be asked at once");
            let Taken::Job(job) = self.logic.take(now) else { break };
            let (work, tenant, left) = (job.work, job.tenant, job.payload);
            self.running.push(Running { work, tenant, left, used: 0, stopped: false });
        }
        let runs = self.running.iter().filter(|running| !running.stopped).count();
        assert!(runs <= self.logic.leases.total, "{runs} executors run");
        assert_eq!(self.running.len() - runs, self.logic.paused());
    }

    fn run_for(&mut self, micros: u64) {
        for _ in 0..micros / STEP {
            self.now += STEP;
            let mut ended = Vec::new();
            for running in self.running.iter_mut().filter(|running| !running.stopped) {
                running.used += STEP;
                *self.used.entry(running.tenant).or_default() += STEP;
                if running.used >= running.left {
                    ended.push((running.work, running.used));
                }
            }
            for (work, used) in &ended {
                self.running.retain(|running| running.work != *work);
                self.logic.give_back(*work, 0, 1, CpuTime::from_micros(*used), None);
            }
            self.waits.extend(ended.iter().map(|(work, _)| self.now - self.sent[work]));
            if !ended.is_empty() || self.look.is_some_and(|look| look <= self.now) {
                self.settle();
            }
        }
    }

    fn used(&self, tenant: TenantId) -> u64 {
        self.used.get(&tenant).copied().unwrap_or_default()
    }

    /// What each tenant gets in the next second.
    fn second(&mut self) -> BTreeMap<TenantId, u64> {
        let before = self.used.clone();
        self.run_for(SECOND);
        self.used.iter().map(|(tenant, used)| (*tenant, used - before.get(tenant).unwrap_or(&0))).collect()
    }
}

/// What the kernel says: late while the process runs, exact once it is stopped.
fn clock(running: &[Running], work: WorkId) -> Option<CpuTime> {
    let running = running.iter().find(|running| running.work == work)?;
    let shown = if running.stopped { running.used } else { running.used / TICK * TICK };
    Some(CpuTime::from_micros(shown))
}

/// `part` is `share` of `whole`, up to five in a hundred of it.
#[track_caller]
fn is_share(part: u64, share: (u64, u64), whole: u64) {
    let wanted = whole * share.0 / share.1;
    assert!(part.abs_diff(wanted) * 20 <= wanted, "{part} of {whole} is not {}/{}", share.0, share.1);
}

#[test]
fn shares_of_each_second_are_by_weight_on_one_core() {
    let mut host = Host::new(1);
    for (tenant, weight) in [(A, 1), (B, 2), (C, 4)] {
        host.tenant(tenant, weight, None);
        host.send(tenant, ENDLESS);
        // What does not start is no reason to stop looking.
        host.send(tenant, ENDLESS);
    }
    for _ in 0..20 {
        let used = host.second();
        is_share(used[&A], (1, 7), SECOND);
        is_share(used[&B], (2, 7), SECOND);
        is_share(used[&C], (4, 7), SECOND);
    }
    assert!(host.signals < 2 * 21 * 200, "{} signals in 20 s", host.signals);
}

#[test]
fn shares_of_each_second_are_by_weight_on_several_cores() {
    let mut host = Host::new(2);
    for (tenant, weight) in [(A, 1), (B, 2), (C, 4)] {
        host.tenant(tenant, weight, None);
        host.send(tenant, ENDLESS);
        host.send(tenant, ENDLESS);
    }
    for _ in 0..20 {
        let used = host.second();
        is_share(used[&A], (1, 7), 2 * SECOND);
        is_share(used[&B], (2, 7), 2 * SECOND);
        is_share(used[&C], (4, 7), 2 * SECOND);
    }
}

#[test]
fn what_a_tenant_cannot_use_goes_to_the_others() {
    let mut host = Host::new(2);
    // One frame uses one core at most, whatever its weight.
    host.tenant(A, 100, None);
    host.send(A, ENDLESS);
    for _ in 0..2 {
        host.send(B, ENDLESS);
        host.send(C, ENDLESS);
    }
    host.second();
    let used = host.second();
    is_share(used[&A], (1, 1), SECOND);
    is_share(used[&B], (1, 2), SECOND);
    is_share(used[&C], (1, 2), SECOND);
}

#[test]
fn who_could_not_use_its_share_does_not_take_everything_later() {
    let mut host = Host::new(2);
    host.tenant(A, 100, None);
    host.send(A, ENDLESS);
    host.send(B, ENDLESS);
    host.send(B, ENDLESS);
    host.run_for(60 * SECOND);
    host.send(A, ENDLESS);
    host.run_for(10 * SECOND);
    let before = host.used(B);
    host.run_for(10 * SECOND);
    is_share(host.used(B) - before, (1, 101), 20 * SECOND);
}

#[test]
fn a_limit_of_half_a_core_holds_in_each_second_and_is_reached() {
    let mut host = Host::new(2);
    host.tenant(A, 1, Some(500));
    host.send(A, ENDLESS);
    host.send(A, ENDLESS);
    host.second();
    for _ in 0..10 {
        is_share(host.second()[&A], (1, 2), SECOND);
    }
    host.send(B, ENDLESS);
    host.send(B, ENDLESS);
    host.second();
    for _ in 0..10 {
        let used = host.second();
        is_share(used[&A], (1, 2), SECOND);
        is_share(used[&B], (3, 2), SECOND);
    }
}

#[test]
fn a_limit_holds_for_short_frames_too() {
    let mut host = Host::new(2);
    host.tenant(A, 1, Some(300));
    for _ in 0..1_000 {
        host.send(A, 1_000);
    }
    host.second();
    is_share(host.second()[&A], (3, 10), SECOND);
}

#[test]
fn a_changed_limit_counts_from_now_on() {
    let mut host = Host::new(2);
    host.send(A, ENDLESS);
    host.send(A, ENDLESS);
    host.second();
    host.tenant(A, 1, Some(1_000));
    let used = host.second();
    is_share(used[&A], (1, 1), SECOND);
    host.tenant(A, 1, Some(250));
    host.run_for(100_000);
    is_share(host.second()[&A], (1, 4), SECOND);
    host.tenant(A, 1, None);
    is_share(host.second()[&A], (2, 1), SECOND);
    assert_eq!(host.logic.paused(), 0);
}

#[test]
fn a_short_task_waits_a_slice_at_most_beside_endless_ones() {
    let mut host = Host::new(2);
    for _ in 0..4 {
        host.send(A, ENDLESS);
        host.send(C, ENDLESS);
    }
    host.second();
    for _ in 0..200 {
        host.send(B, 1_000);
        host.run_for(17_250);
    }
    assert_eq!(host.waits.len(), 200);
    let longest = host.waits.iter().max().copied().unwrap();
    assert!(longest <= SLICE_MICROS + 1_000 + 2 * STEP, "{longest} µs for a task of a millisecond");
}

#[test]
fn what_a_tenant_did_not_use_is_not_made_up_for() {
    let mut host = Host::new(1);
    host.send(A, ENDLESS);
    host.run_for(10 * SECOND);
    host.send(B, ENDLESS);
    is_share(host.second()[&B], (1, 2), SECOND);
    // Nor what its own limit held back.
    host.tenant(C, 1, Some(100));
    host.send(C, ENDLESS);
    host.run_for(10 * SECOND);
    host.tenant(C, 1, None);
    is_share(host.second()[&C], (1, 3), SECOND);
}

#[test]
fn a_single_tenant_is_left_alone() {
    let mut host = Host::new(2);
    for _ in 0..6 {
        host.send(A, 100_000);
    }
    host.second();
    assert_eq!((host.clocks_read, host.signals, host.look), (0, 0, None));
    assert_eq!(host.used(A), 600_000);
}

#[test]
fn a_core_is_lent_and_taken_back_at_once() {
    let mut host = Host::new(1);
    host.send(A, ENDLESS);
    host.run_for(SECOND / 10);
    let short = host.send(B, 3_000);
    assert!(!host.logic.is_paused(short), "the slice of the other one was over long ago");
    assert_eq!(host.logic.paused(), 1);
    host.run_for(3_000);
    assert_eq!((host.logic.running(), host.logic.paused(), host.look), (1, 0, None));
}

#[test]
fn frames_of_one_tenant_are_not_sliced_and_keep_their_order() {
    let mut host = Host::new(1);
    let first = host.send(A, SECOND);
    let second = host.send(A, SECOND);
    host.send(B, ENDLESS);
    host.run_for(SECOND);
    assert!(host.running.iter().any(|running| running.work == first));
    assert!(host.running.iter().all(|running| running.work != second), "the first one has not ended");
    host.run_for(SECOND + SECOND / 10);
    assert!(host.running.iter().any(|running| running.work == second));
}

#[test]
fn tenants_with_many_frames_leave_places_for_those_that_have_none() {
    let mut host = Host::new(2);
    let crowd: Vec<TenantId> = (10..30).map(TenantId).collect();
    for tenant in &crowd {
        for _ in 0..2 {
            host.send(*tenant, ENDLESS);
        }
    }
    host.second();
    assert_eq!(host.logic.places(), 16);
    assert_eq!(host.running.len(), 16);
    let tenants: BTreeSet<TenantId> = host.running.iter().map(|running| running.tenant).collect();
    assert!(tenants.len() >= 12, "only {} tenants have a place", tenants.len());
}

#[test]
fn paused_frames_keep_their_memory() {
    let mut host = Host::new(1);
    host.send(A, ENDLESS);
    host.send(B, ENDLESS);
    host.second();
    assert_eq!((host.logic.paused(), host.logic.reserved()), (1, ByteSize::mib(2)));
}

#[test]
fn a_paused_frame_can_end() {
    let mut host = Host::new(1);
    host.send(A, ENDLESS);
    host.send(B, ENDLESS);
    host.second();
    let paused = host.running.iter().position(|running| running.stopped).unwrap();
    let killed = host.running.remove(paused);
    host.logic.give_back(killed.work, 0, 1, CpuTime::from_micros(killed.used), None);
    host.settle();
    assert_eq!((host.logic.running(), host.logic.paused(), host.look), (1, 0, None));
}

#[test]
fn nobody_takes_turns_with_what_is_guaranteed() {
    let mut host = Host::new(2);
    host.terms(A, Terms { weight: 1, limit: None, guaranteed: MilliCpu(1_000) });
    host.tenant(B, 100, None);
    for tenant in [A, B] {
        host.send(tenant, ENDLESS);
        host.send(tenant, ENDLESS);
    }
    host.second();
    let used = host.second();
    is_share(used[&A], (1, 1), SECOND);
    is_share(used[&B], (1, 1), SECOND);
}

#[test]
fn what_is_guaranteed_is_taken_back_from_whoever_has_more() {
    let mut host = Host::new(2);
    host.terms(A, Terms { weight: 1, limit: None, guaranteed: MilliCpu(2_000) });
    host.tenant(B, 100, None);
    host.send(B, ENDLESS);
    host.send(B, ENDLESS);
    host.second();
    host.send(A, ENDLESS);
    is_share(host.second()[&A], (1, 1), SECOND);
    host.send(A, ENDLESS);
    let used = host.second();
    is_share(used[&A], (2, 1), SECOND);
    assert!(used[&B] <= SLICE_MICROS, "{used:?}");
}

#[test]
fn what_a_guarantee_of_another_held_up_is_not_made_up_for() {
    let mut host = Host::new(1);
    let guaranteed = Terms { weight: 1, limit: None, guaranteed: MilliCpu(1_000) };
    host.terms(A, guaranteed);
    host.send(A, ENDLESS);
    host.send(B, ENDLESS);
    host.run_for(10 * SECOND);
    assert_eq!(host.used(B), 0);
    host.terms(A, Terms { guaranteed: MilliCpu(0), ..guaranteed });
    host.second();
    is_share(host.second()[&A], (1, 2), SECOND);
}
