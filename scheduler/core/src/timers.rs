//! What happens at a point in time: retries, lost hosts, frames that do not stop, deadlines, the end of waiting after a
//! restart.

use std::collections::BTreeSet;
use std::time::Duration;

use partita_types::{AttemptId, FrameId, JobId, TenantId, Timestamp};

use crate::Core;
use crate::action::Action;
use crate::host::Presence;
use crate::planted::Bug;
use crate::task::State;

/// How long a silent or detached host is waited for before its work is given to others.
pub const HOST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long after a restart hosts are waited for, before partitions that none of them has shown are rebuilt.
pub const RECOVERY_TIME: Duration = Duration::from_secs(10);
/// How long a cancelled frame may keep its reservation, if its host does not say that it stopped.
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(5);

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// The task of this attempt may be tried again.
    Wake(AttemptId),
    /// This frame was cancelled long ago.
    Reap(FrameId),
    /// A tenant below its guarantee may find something to reclaim.
    LookAgain,
    /// This job is stopped, unless it has ended.
    Deadline(JobId),
    /// This attempt, which was seen running then, may have become a straggler.
    Straggles(AttemptId, Timestamp),
    /// The limit of CPU of a tenant may be divided anew.
    Divide(TenantId),
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Recovery {
    #[default]
    None,
    /// Records were replayed; the clock starts with the first event.
    Expected,
    Until(Timestamp),
}

/// Everything that is due some day. Entries that have become pointless are found out when they are due.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeSet<(Timestamp, Timer)>,
    recovery: Recovery,
}

impl Timers {
    pub(crate) fn set(&mut self, at: Timestamp, timer: Timer) {
        self.due.insert((at, timer));
    }

    pub(crate) fn expect_recovery(&mut self) {
        self.recovery = Recovery::Expected;
    }

    /// Starts the clock, if records were replayed. Returns whether it did.
    pub(crate) fn begin_recovery(&mut self, now: Timestamp) -> bool {
        let begins = self.recovery == Recovery::Expected;
        if begins {
            self.recovery = Recovery::Until(now.after(RECOVERY_TIME));
        }
        begins
    }

    /// Until when hosts are waited for after a restart.
    pub(crate) fn recovering_until(&self) -> Option<Timestamp> {
        match self.recovery {
            Recovery::Until(until) => Some(until),
            Recovery::None | Recovery::Expected => None,
        }
    }

    fn end_recovery(&mut self, now: Timestamp) -> bool {
        let ends = self.recovering_until().is_some_and(|until| until <= now);
        if ends {
            self.recovery = Recovery::None;
        }
        ends
    }

    fn pop(&mut self, now: Timestamp) -> Option<Timer> {
        let (at, timer) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.due.pop_first();
        Some(timer)
    }

    /// When the task of an attempt may be tried again.
    pub(crate) fn wakes_at(&self, attempt: AttemptId) -> Option<Timestamp> {
        self.due.iter().find(|(_, timer)| *timer == Timer::Wake(attempt)).map(|(at, _)| *at)
    }
}

impl Core {
    /// When [`crate::Event::Ticked`] is wanted next, if ever.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let hosts = self.hosts.iter().filter_map(|host| match host.presence {
            Presence::Attached => Some(host.heard.after(HOST_TIMEOUT)),
            Presence::Detached { until } => Some(until),
            Presence::Lost => None,
        });
        let timer = self.timers.due.first().map(|(at, _)| *at);
        let others = [
            self.timers.recovering_until(),
            self.unrunnable.next(),
            self.next_release(),
            self.known_hosts.awaited_until(),
            self.moves.next_look(),
        ];
        hosts.chain(timer).chain(others.into_iter().flatten()).min()
    }

    pub(crate) fn on_ticked(&mut self, actions: &mut Vec<Action>) {
        let now = self.now;
        for position in 0..self.hosts.len() {
            let host = &self.hosts[position];
            let id = host.id;
            match host.presence {
                Presence::Attached if host.heard.after(HOST_TIMEOUT) <= now => {
                    actions.push(Action::Disconnect { host: id, reason: "it was not heard of for 5 s" });
                    self.detach(id, now);
                    self.declare_lost(id, actions);
                    self.ask_again(id, actions);
                }
                Presence::Detached { until } if until <= now => self.declare_lost(id, actions),
                Presence::Attached | Presence::Detached { .. } | Presence::Lost => {}
            }
        }
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::Wake(attempt) => self.wake(attempt),
                Timer::Deadline(job) => self.expire(job, actions),
                Timer::Reap(frame) => {
                    if let Some(slot) = self.frames.slot_of(frame) {
                        self.reap(slot, actions);
                    }
                }
                // The frames that are handed out after every event are all there is to do.
                Timer::LookAgain => {}
                Timer::Straggles(attempt, since) => self.look_at_straggler(attempt, since, actions),
                Timer::Divide(tenant) => self.divide_again(tenant),
            }
        }
        if self.known_hosts.stop_waiting(now) {
            self.divide_all_rates();
        }
        if self.timers.end_recovery(now) {
            self.give_up_unknown(actions);
            self.give_up_absent(actions);
        }
        self.look_for_unrunnable(actions);
        self.release_old_jobs(actions);
    }

    fn wake(&mut self, attempt: AttemptId) {
        let task = attempt.task;
        if self.has(Bug::LostWakeUp) && task.index % 4 == 3 {
            return;
        }
        self.change_job(task.job, |job| {
            let waits = job
                .find_task(task.array, task.index)
                .is_some_and(|slot| slot.state == State::Delayed && slot.attempt == attempt.number.0.get());
            if waits {
                job.settle(task.array.0, task.index);
            }
        });
    }
}
