//! Second attempts for stragglers: tasks that run for much longer than others of their function, most often because
//! something is wrong with their host.
//!
//! The idea is the backup task of MapReduce (Dean and Ghemawat, OSDI 2004); the rule follows LATE (Zaharia et al.,
//! "Improving MapReduce Performance in Heterogeneous Environments", OSDI 2008) and Spark's `spark.speculation`: a task gets
//! a second attempt if
//!
//! - its array allows it and is deterministic, so that either result is the right one;
//! - [`FINISHED_MIN`] tasks of its function have ended, so that it is known what is usual;
//! - it was seen running for [`TIMES_LONGER`] times as long as these took on average, and for [`RUN_MIN`] at least;
//! - nothing of any tenant is ready and waits, and of all cores no more than one in [`CORES_PER_SECOND`] has a second attempt
//!   (LATE's `SpeculativeCap`);
//! - another host has a core that does nothing, and the frame is within the tenant's quota and share like any other.
//!
//! It gets one such attempt for each that it is handed out for in the usual way. Who runs for long is told by hosts, which
//! look at what their executors do a few times a second; short tasks never come up here. Whether such an attempt straggles
//! is looked at when a timer says so, so nothing goes through all tasks.

use std::time::Duration;

use partita_types::{AttemptId, AttemptNumber, HostId, Timestamp};

use crate::Core;
use crate::action::Action;
use crate::array::Array;
use crate::invariants::{Checked, ensure};
use crate::lives::is_worn_out;
use crate::overcommit::Places;
use crate::pairs::Pair;
use crate::placement::{Assignments, send};
use crate::plan::{Plan, cheapest};
use crate::record::Record;
use crate::retraction::frames_of;
use crate::task::State;
use crate::timers::Timer;

/// So many tasks of a function must have ended before it is known what is usual.
const FINISHED_MIN: u64 = 5;
/// A straggler takes so many times longer than usual. The usual time is CPU time, which waiting is no part of.
const TIMES_LONGER: u32 = 3;
/// What runs for less than this is not worth another start.
const RUN_MIN: Duration = Duration::from_secs(1);
/// Of so many cores one may have a second attempt; always one, however few there are.
const CORES_PER_SECOND: u32 = 10;
/// When to look again at a straggler for which there was no room, or of whose function nothing is known yet.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What there is of second attempts.
#[derive(Debug, Default)]
pub(crate) struct Stragglers {
    /// Frames with second attempts, those among them that are being stopped included.
    pub(crate) copies: u32,
}

impl Array {
    /// Whether its tasks may have second attempts.
    fn speculates(&self) -> bool {
        self.kind.options.speculate && self.kind.options.deterministic
    }
}

impl Core {
    /// An attempt was seen running for a while.
    pub(crate) fn watch_for_straggling(&mut self, attempt: AttemptId) {
        if let Some(at) = self.straggles_at(attempt, self.now) {
            self.timers.set(at, Timer::Straggles(attempt, self.now));
        }
    }

    /// When an attempt that was seen running at some time has to be looked at next; `None` if it has ended or may not have a
    /// companion.
    fn straggles_at(&self, attempt: AttemptId, since: Timestamp) -> Option<Timestamp> {
        let AttemptId { task, number } = attempt;
        let tenant = self.tenants.get(task.job.tenant.0 as usize)?;
        let job = tenant.job(task.job.number)?;
        let frame = self.frames.get(job.slot_of(task.array, task.index, number)?)?;
        let array = job.array(task.array.0);
        let alone = job.pairs.get(task.array.0, task.index).is_none();
        let latest = job.task(task.array.0, task.index).attempt;
        if !alone || !array.speculates() || frame.preempted || is_worn_out(self.lives.after(latest)) {
            return None;
        }
        Some(match tenant.run_times.get(array.kind.learned).known_from(FINISHED_MIN) {
            Some(usual) => since.after(usual.saturating_mul(TIMES_LONGER).max(RUN_MIN)),
            None => self.now.after(LOOK_AGAIN),
        })
    }

    /// It is time to look at an attempt that runs for long.
    pub(crate) fn look_at_straggler(&mut self, attempt: AttemptId, since: Timestamp, actions: &mut Vec<Action>) {
        let Some(at) = self.straggles_at(attempt, since) else { return };
        let again = if at > self.now { at } else { self.now.after(LOOK_AGAIN) };
        match self.plan_second(attempt).filter(|_| at <= self.now) {
            Some(plan) => self.speculate(attempt, plan, actions),
            None => self.timers.set(again, Timer::Straggles(attempt, since)),
        }
    }

    /// A second attempt of the task of a straggler, if it delays nobody.
    fn plan_second(&self, AttemptId { task, number }: AttemptId) -> Option<Plan> {
        let attached = self.hosts.iter().filter(|host| host.takes_part());
        let cores = attached.map(|host| host.capacity.cores).fold(0, u32::saturating_add);
        let somebody_waits = self.tenants.iter().any(|tenant| !tenant.runnable.is_empty());
        let allowed = (cores / CORES_PER_SECOND).max(1);
        if somebody_waits || self.known_hosts.are_awaited() || self.stragglers.copies >= allowed {
            return None;
        }
        let tenant = self.tenants.get(task.job.tenant.0 as usize)?;
        let job = tenant.job(task.job.number)?;
        let (position, array) = (task.array.0, job.array(task.array.0));
        // What it reads may have been lost since it was handed out.
        if job.task(position, task.index).unmet > 0 || array.closed_gates > 0 || job.is_blocked(position) {
            return None;
        }
        let first = self.frames.get(job.slot_of(task.array, task.index, number)?)?.host;
        let memory = array.memory_of(task.index);
        let standing = self.standing(tenant);
        let key = (job.id.number, position);
        let mut hosts = self.candidates(tenant, array, key, memory, &standing, Places::Usual).ok()?;
        hosts.retain(|id| *id != first && self.is_idle(*id) && !self.has_crashed_at(array, task.index, *id));
        if hosts.is_empty() {
            return None;
        }
        let mut bytes = job.own_bytes(position, task.index);
        for (host, more) in job.common_bytes(position) {
            let sum = bytes.entry(host).or_default();
            *sum = sum.saturating_add(more);
        }
        let host = cheapest(&hosts, &bytes, |id| u64::from(frames_of(&self.hosts[id.0 as usize])));
        let long = tenant.run_times.get(array.kind.learned).is_long();
        let indexes = vec![task.index];
        Some(Plan { job: job.id, array: position, host, indexes, memory, long, reuse: Vec::new(), speculative: true })
    }

    /// Whether a core of a host does nothing, so that a frame begins there at once.
    fn is_idle(&self, host: HostId) -> bool {
        let host = &self.hosts[host.0 as usize];
        frames_of(host) < host.capacity.cores
    }

    fn has_crashed_at(&self, array: &Array, index: u32, host: HostId) -> bool {
        array.crashed_at(index).contains(&self.hosts[host.0 as usize].name)
    }

    fn speculate(&mut self, AttemptId { task, .. }: AttemptId, plan: Plan, actions: &mut Vec<Action>) {
        let mut assignments = Assignments::new();
        let host = self.hosts[plan.host.0 as usize].name.clone();
        if !self.hand_out(plan, &mut assignments) {
            return;
        }
        let number = self.find_job(task.job).map(|job| job.task(task.array.0, task.index).attempt);
        if let Some(number) = number.and_then(AttemptNumber::from_wire) {
            let attempt = AttemptId { task, number };
            self.commit(Record::Speculated { attempt, host, at: self.now }, actions);
        }
        self.divide_rates(actions);
        send(assignments, actions);
    }

    /// The effect of [`Record::Speculated`]. What runs where is not in the journal; that it ran is.
    pub(crate) fn take_speculation(&mut self, attempt: AttemptId) -> bool {
        self.change_job(attempt.task.job, |job| job.totals.speculative += 1).is_some()
    }

    /// I2: at most two attempts of a task run, at different hosts, and none but one of a task that may have no second.
    pub(crate) fn at_most_two_attempts_of_a_task_run(&self) -> Checked {
        let name = "at_most_two_attempts_of_a_task_run";
        for job in self.tenants.iter().flat_map(|tenant| tenant.jobs()) {
            for ((array, index), Pair { first, second }) in job.pairs.iter() {
                let task = job.task(array, index);
                let told = || format!("task {}: {task:?}, {first} and {second:?}", job.task_id(array, index));
                ensure(task.state == State::Assigned && first < task.attempt, name, told)?;
                let hosts: Vec<_> = job
                    .attempts_at_hosts(array, index)
                    .filter_map(|(slot, _)| self.frames.get(slot))
                    .map(|frame| frame.host)
                    .collect();
                let apart = hosts.len() == 1 + usize::from(second.is_some()) && hosts.first() != hosts.get(1);
                ensure(apart && (second.is_none() || job.array(array).speculates()), name, told)?;
            }
        }
        let copies = self.frames.iter().filter(|(_, frame)| frame.speculative).count();
        ensure(copies == self.stragglers.copies as usize, name, || {
            format!("{} second attempts, counted {copies}", self.stragglers.copies)
        })
    }
}
