//! Attempts that failed: another try, or the end of the task, of all that depend on it, and of the job.

use std::collections::BTreeMap;
use std::time::Duration;

use partita_types::{ArrayIndex, AttemptId, AttemptNumber, Cause, Failure, HostId, JobId, Timestamp, Usage};

use crate::action::{Action, HostCommand, JobEnd, JobEvent, Refusal, Reply, TaskEnd};
use crate::lives::is_worn_out;
use crate::planted::Bug;
use crate::record::Record;
use crate::report::publish_end;
use crate::task::{State, Task};
use crate::timers::{STOP_GRACE, Timer};
use crate::transition::Stopped;
use crate::{Core, no_such_job};

/// Longest wait before another attempt.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// First wait after a failure that was nobody's fault.
const EXCUSED_BACKOFF: Duration = Duration::from_millis(100);
/// How often a task is handed out at most in one life of the scheduler, whatever becomes of it. No sound task comes near this: it ends what nothing
/// else would, such as a task that takes its host down with it each time.
pub(crate) const ATTEMPTS_MAX: u32 = 1_000;
/// How many failures without blame a task may have before it is given up: something is wrong that does not pass.
const EXCUSED_MAX: u8 = 10;

/// Whom a failure is charged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Charge {
    /// The task: uses up a retry.
    Blamed,
    /// Nobody, but it must not go on for ever.
    Excused,
    /// Nobody, however often.
    Free,
    /// Nobody, however often, but not again at once: there is something that goes first.
    Yielded,
}

impl Charge {
    fn of(cause: Cause) -> Self {
        match cause {
            Cause::HostLost => Self::Free,
            Cause::Preempted => Self::Yielded,
            Cause::Cancelled | Cause::Storage | Cause::Input => Self::Excused,
            other if other.blames_task() => Self::Blamed,
            _ => Self::Excused,
        }
    }
}

impl Core {
    /// Writes down how an attempt failed. It must have been taken out of its frame.
    pub(crate) fn record_failure(
        &mut self,
        attempt: AttemptId,
        host: HostId,
        mut failure: Failure,
        usage: Usage,
        actions: &mut Vec<Action>,
    ) {
        let Some(job) = self.find_job(attempt.task.job) else { return };
        let Some(task) = job.find_task(attempt.task.array, attempt.task.index) else { return };
        let retries = job.array(attempt.task.array.0).kind.options.retries;
        let other = job.attempts_at_hosts(attempt.task.array.0, attempt.task.index).next().is_some();
        let mut last = !other && is_last(task, failure.cause, retries);
        let memory = if other { None } else { self.raised_memory(attempt, failure.cause) };
        if let Some(memory) = memory {
            last = is_worn_out(task.attempt);
            failure.message.push_str(&format!("; the next attempt may use {memory}"));
        }
        let killed = Some(host).filter(|_| failure.cause == Cause::Crash);
        if let Some(killed) = killed.and_then(|host| self.kills_executors(attempt.task, host)) {
            let why = self.quarantine_module(attempt.task, &killed, actions);
            failure.message.push_str(&format!("; {why}"));
            last = true;
        }
        let host = self.hosts.get(host.0 as usize).map(|host| host.name.clone());
        let (other, at) = (other && !last, self.now);
        self.commit(Record::AttemptFailed { attempt, failure, usage, last, at, host, memory, other }, actions);
    }

    /// The effect of [`Record::AttemptFailed`].
    pub(crate) fn take_failure(&mut self, record: &Record, actions: &mut Vec<Action>) -> bool {
        let Record::AttemptFailed { attempt, failure, usage, last, at, host, memory, other } = record else {
            return false;
        };
        let (attempt, usage, last, at) = (*attempt, *usage, *last, *at);
        let (id, array, index) = (attempt.task.job, attempt.task.array, attempt.task.index);
        let Some(job) = self.find_job(id) else { return false };
        let Some(task) = job.find_task(array, index).filter(|task| !task.state.is_final()) else { return false };
        let mut task = *task;
        task.attempt = task.attempt.max(attempt.number.0.get());
        match Charge::of(failure.cause) {
            // With more memory it is not the same again; and what the other attempt comes to decides.
            _ if memory.is_some() || *other => {}
            Charge::Blamed => task.blamed = task.blamed.saturating_add(1),
            Charge::Excused => task.excused = task.excused.saturating_add(1),
            Charge::Free | Charge::Yielded => {}
        }
        let wait = match memory {
            Some(_) => Duration::ZERO,
            None => backoff(&task, failure.cause, job.array(array.0).kind.options.backoff, attempt),
        };
        self.remember(attempt.task, failure.cause, host.as_ref(), *memory);
        self.charge(id, usage);
        let event = JobEvent::AttemptFailed { attempt, failure: failure.clone() };
        actions.push(Action::Publish { job: id, event });
        self.change_job(id, |job| {
            let slot = job.task_mut(array.0, index);
            (slot.attempt, slot.blamed, slot.excused) = (task.attempt, task.blamed, task.excused);
            job.totals.attempts += u64::from(host.is_some());
            match (last, wait.is_zero()) {
                // In a replay the task may still wait after an earlier failure, though later attempts were made.
                _ if *other && task.state == State::Delayed => job.settle(array.0, index),
                _ if *other => {}
                (true, _) => {}
                (false, true) => job.settle(array.0, index),
                (false, false) => job.delay(array.0, index),
            }
        });
        if last {
            self.fail_task(attempt, failure, at, actions);
        } else if let Some(number) = AttemptNumber::from_wire(task.attempt).filter(|_| !*other && !wait.is_zero()) {
            self.timers.set(at.after(wait), Timer::Wake(AttemptId { task: attempt.task, number }));
        }
        true
    }

    /// Ends a task with failure, what depends on it, and the job with all its rest.
    fn fail_task(&mut self, attempt: AttemptId, failure: &Failure, at: Timestamp, actions: &mut Vec<Action>) {
        let (id, array, index) = (attempt.task.job, attempt.task.array.0, attempt.task.index);
        let changed = self.change_job(id, |job| {
            let mut stopped = Vec::new();
            job.finish(array, index, State::Failed, &mut stopped);
            let aborted = job.unfinished_dependents(array, index);
            let mut end = |job: &mut crate::job::Job, tasks: &[(u32, u32)], state| {
                tasks.iter().for_each(|(array, index)| job.finish(*array, *index, state, &mut stopped));
            };
            end(job, &aborted, State::Aborted);
            // A job that had ended only rebuilds outputs that somebody asked for. The rest of that may go on.
            let rest = if job.end.is_none() { job.unfinished_tasks() } else { Vec::new() };
            end(job, &rest, State::Cancelled);
            if job.failure.is_none() && job.end.is_none() {
                job.failure = Some(Box::new((attempt.task, attempt.number.0.get(), failure.clone())));
            }
            (aborted, rest, stopped, job.end.is_none())
        });
        let Some((aborted, cancelled, stopped, ends)) = changed else { return };
        publish_end(id, array, TaskEnd::Failed, &[index], actions);
        publish_ends(id, TaskEnd::Aborted, &aborted, actions);
        publish_ends(id, TaskEnd::Cancelled, &cancelled, actions);
        if ends {
            self.end_job(id, JobEnd::Failed, at, actions);
        }
        self.stop_attempts(stopped, actions);
        self.drop_unwanted_everywhere(id, actions);
    }

    pub(crate) fn on_cancel(&mut self, id: JobId, actions: &mut Vec<Action>) -> Result<Reply, Refusal> {
        let job = self.find_job(id).ok_or_else(|| no_such_job(id))?;
        match job.end {
            None => self.commit(Record::JobCancelled { job: id, at: self.now }, actions),
            Some(JobEnd::Cancelled) => {}
            Some(JobEnd::Succeeded | JobEnd::Failed | JobEnd::Expired) => {
                return Err(Refusal::State { what: format!("job {id}"), state: "has ended already" });
            }
        }
        Ok(Reply::Done)
    }

    /// The effect of [`Record::JobCancelled`] and [`Record::JobExpired`].
    pub(crate) fn stop_job(&mut self, id: JobId, end: JobEnd, at: Timestamp, actions: &mut Vec<Action>) -> bool {
        if self.find_job(id).is_none_or(|job| job.end.is_some()) {
            return false;
        }
        let Some((tasks, stopped)) = self.change_job(id, |job| {
            let tasks = job.unfinished_tasks();
            let mut stopped = Vec::new();
            tasks.iter().for_each(|(array, index)| job.finish(*array, *index, State::Cancelled, &mut stopped));
            (tasks, stopped)
        }) else {
            return false;
        };
        publish_ends(id, TaskEnd::Cancelled, &tasks, actions);
        self.end_job(id, end, at, actions);
        self.stop_attempts(stopped, actions);
        self.drop_unwanted_everywhere(id, actions);
        true
    }

    /// Tells hosts to stop attempts whose tasks have ended otherwise. Their frames keep what they reserved until the hosts
    /// say that they stopped, or for [`STOP_GRACE`].
    pub(crate) fn stop_attempts(&mut self, stopped: Vec<Stopped>, actions: &mut Vec<Action>) {
        let mut commands: BTreeMap<HostId, Vec<AttemptId>> = BTreeMap::new();
        for Stopped { slot, attempt } in stopped {
            let Some(frame) = self.frames.get_mut(slot) else { continue };
            frame.open -= 1;
            frame.stopping += 1;
            self.hosts[frame.host.0 as usize].assigned_tasks -= 1;
            commands.entry(frame.host).or_default().push(attempt);
            if frame.open == 0 {
                self.timers.set(self.now.after(STOP_GRACE), Timer::Reap(frame.id));
            }
        }
        for (host, attempts) in commands {
            if self.hosts[host.0 as usize].is_attached() && !self.has(Bug::CancelForgetsAttempts) {
                actions.push(Action::Command { host, command: HostCommand::Cancel(attempts) });
            }
        }
    }
}

fn publish_ends(id: JobId, end: TaskEnd, tasks: &[(u32, u32)], actions: &mut Vec<Action>) {
    let mut by_array: BTreeMap<ArrayIndex, Vec<u32>> = BTreeMap::new();
    for (array, index) in tasks {
        by_array.entry(ArrayIndex(*array)).or_default().push(*index);
    }
    for (array, indexes) in by_array {
        publish_end(id, array.0, end, &indexes, actions);
    }
}

/// Whether a task ends with this failure.
fn is_last(task: &Task, cause: Cause, retries: u32) -> bool {
    if is_worn_out(task.attempt) {
        return true;
    }
    match Charge::of(cause) {
        Charge::Blamed => !cause.worth_retrying() || u32::from(task.blamed) >= retries,
        Charge::Excused => task.excused >= EXCUSED_MAX,
        Charge::Free | Charge::Yielded => false,
    }
}

/// How long a task waits after a failure that was counted in it: doubling, capped, and spread by up to an eighth, so that
/// tasks that failed together do not come back together. The spread follows from the ids, so replay finds it again.
fn backoff(task: &Task, cause: Cause, first: Duration, attempt: AttemptId) -> Duration {
    let (first, times) = match Charge::of(cause) {
        Charge::Blamed => (first, task.blamed),
        Charge::Excused => (EXCUSED_BACKOFF, task.excused),
        Charge::Yielded => (EXCUSED_BACKOFF, 1),
        Charge::Free => return Duration::ZERO,
    };
    let doubled = first.saturating_mul(1 << u32::from(times.saturating_sub(1)).min(20)).min(BACKOFF_MAX);
    let spread = attempt.task.index.wrapping_mul(0x9e37_79b9).wrapping_add(attempt.number.0.get()) % 128;
    doubled.saturating_add(doubled * spread / 1024)
}

#[cfg(test)]
mod tests {
    use partita_types::{TaskId, TenantId};

    use super::*;

    fn attempt(index: u32) -> AttemptId {
        let job = JobId { tenant: TenantId(0), number: 1 };
        AttemptId { task: TaskId { job, array: ArrayIndex(0), index }, number: AttemptNumber::FIRST }
    }

    #[test]
    fn waits_double_up_to_half_a_minute() {
        let mut task = Task::new(0);
        let mut waits = Vec::new();
        for blamed in [1, 2, 3, 30] {
            task.blamed = blamed;
            waits.push(backoff(&task, Cause::Trap, Duration::from_millis(100), attempt(0)).as_millis());
        }
        assert_eq!(waits, [100, 200, 400, 30_029]);
    }

    #[test]
    fn tasks_that_failed_together_do_not_come_back_together() {
        let mut task = Task::new(0);
        task.blamed = 1;
        let wait = |index| backoff(&task, Cause::Trap, Duration::from_secs(1), attempt(index));
        assert_ne!(wait(1), wait(2));
        assert!((0..1000).all(|index| wait(index) < Duration::from_millis(1_125)));
    }

    #[test]
    fn only_its_own_failures_use_up_retries() {
        let mut task = Task::new(0);
        task.blamed = 2;
        assert!(is_last(&task, Cause::Trap, 2));
        assert!(!is_last(&task, Cause::Trap, 3));
        assert!(is_last(&task, Cause::Failed, 3));
        assert!(!is_last(&task, Cause::HostLost, 0));
        assert!(!is_last(&task, Cause::Preempted, 0));
        assert!(!is_last(&task, Cause::Storage, 0));
        task.excused = EXCUSED_MAX;
        assert!(is_last(&task, Cause::Storage, 9));
    }
}
