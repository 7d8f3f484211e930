//! What does not wait for ever: tasks that could not run as hosts and limits are, jobs with a deadline, results that were kept long enough.

use std::collections::BTreeMap;
use std::time::Duration;

use partita_policy::TenantPolicy;
use partita_types::{
    ArrayIndex, AttemptId, AttemptNumber, Cause, Failure, JobId, TaskId, Timestamp, Usage, format_duration,
};

use crate::Core;
use crate::action::{Action, JobEnd};
use crate::array::Array;
use crate::explain::explain_hold;
use crate::host::Host;
use crate::plan::{ARRAYS_LOOKED_AT, Hold};
use crate::record::Record;
use crate::share::{Amount, Withheld};
use crate::tenant::Tenant;

/// How often arrays that could not run are looked for, while anything waits.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Most jobs of a tenant whose results are given up at once; the rest follows right after.
const RELEASED_AT_ONCE: usize = 64;

/// Ready tasks of an array: all of the usual kind, or one that has a past.
type Waiting = (JobId, u32, Option<u32>);

/// Which ready tasks could never run as hosts and limits are.
#[derive(Debug, Default)]
pub(crate) struct Unrunnable {
    /// When to look again; `None` while nothing waits.
    next: Option<Timestamp>,
    /// Since when this is known, by what waits. Changed by records only, so that a restart finds it again.
    since: BTreeMap<Waiting, Timestamp>,
}

impl Unrunnable {
    /// When to look again.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.next
    }

    /// Sees to it that somebody looks, if anything waits.
    pub(crate) fn watch(&mut self, now: Timestamp, anything_waits: bool) {
        if anything_waits {
            self.next.get_or_insert(now.after(LOOK_EVERY));
        }
    }

    /// The effect of [`Record::Unrunnable`].
    pub(crate) fn take(&mut self, what: Waiting, since: Option<Timestamp>) -> bool {
        match since {
            Some(since) => self.since.insert(what, since).is_none(),
            None => self.since.remove(&what).is_some(),
        }
    }

    /// What a journal has to tell of it.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record> + '_ {
        self.since.iter().map(|(what, since)| record(*what, Some(*since)))
    }
}

fn record((job, array, task): Waiting, since: Option<Timestamp>) -> Record {
    Record::Unrunnable { job, array: ArrayIndex(array), task, since }
}

impl Core {
    /// Why tasks of an array that need so much memory could never run as hosts and limits are, if that is so. An empty cluster
    /// says nothing about tasks.
    fn unrunnable(&self, tenant: &Tenant, policy: &TenantPolicy, array: &Array, needed: u64) -> Option<Hold> {
        // A limit may have been lowered, or the need raised, since the task was admitted.
        let limit = policy.quota.concurrent_memory.0;
        if needed > limit {
            return Some(Hold::ConcurrentMemory { needed, used: tenant.usage.memory, limit });
        }
        let memory = Amount { memory: needed, ..Amount::default() };
        if let Some(excess) = memory.excess(tenant.entitlement.most) {
            return Some(Hold::Share(Withheld::Borrowing(excess)));
        }
        match self.fitting_host(policy, array.kind.needs.as_deref(), needed) {
            Ok(()) | Err(Hold::NoHost) => None,
            Err(hold) => Some(hold),
        }
    }

    /// Fails tasks that could not run for longer than the policy allows. One look takes a bounded number of
    /// arrays of each tenant.
    pub(crate) fn look_for_unrunnable(&mut self, actions: &mut Vec<Action>) {
        if self.unrunnable.next.is_none_or(|next| next > self.now) {
            return;
        }
        self.unrunnable.next = None;
        // An empty cluster, or one that is not whole again, neither starts a clock nor stops one.
        if self.timers.recovering_until().is_some() || !self.hosts.iter().any(Host::is_attached) {
            return;
        }
        let mut gone = self.unrunnable.since.clone();
        let mut changes = Vec::new();
        let mut due = Vec::new();
        for (what, start, hold, allowed) in self.tenants.iter().flat_map(|tenant| self.unrunnable_of(tenant)) {
            let since = gone.remove(&what);
            if since.is_none() {
                changes.push(record(what, Some(self.now)));
            }
            if self.now.since(since.unwrap_or(self.now)) >= allowed {
                due.push((TaskId { job: what.0, array: ArrayIndex(what.1), index: start }, hold, allowed));
            }
        }
        changes.extend(gone.into_keys().map(|what| record(what, None)));
        changes.into_iter().for_each(|change| self.commit(change, actions));
        for (task, hold, allowed) in due {
            self.fail_unrunnable(task, &hold, allowed, actions);
        }
    }

    fn unrunnable_of<'a>(
        &'a self,
        tenant: &'a Tenant,
    ) -> impl Iterator<Item = (Waiting, u32, Hold, Duration)> + use<'a> {
        let runnable = tenant.runnable.iter().filter_map(|runnable| {
            let job = tenant.job(runnable.job)?;
            Some((job.id, runnable.array, job.array(runnable.array), tenant.policy.as_ref()?))
        });
        let lots = runnable.flat_map(|(id, position, array, policy)| {
            array.lots().map(move |lot| ((id, position, lot.alone.then_some(lot.start)), lot, array, policy))
        });
        lots.take(ARRAYS_LOOKED_AT).filter_map(|(what, lot, array, policy)| {
            Some((what, lot.start, self.unrunnable(tenant, policy, array, lot.memory)?, policy.unrunnable_after))
        })
    }

    fn fail_unrunnable(&mut self, task: TaskId, hold: &Hold, allowed: Duration, actions: &mut Vec<Action>) {
        let Some(tenant) = self.tenants.get(task.job.tenant.0 as usize) else { return };
        let slot = tenant.job(task.job.number).and_then(|job| job.find_task(task.array, task.index));
        // Its job may have failed with another task of the same look.
        let Some(slot) = slot.filter(|slot| !slot.state.is_final()) else { return };
        let number = AttemptNumber::from_wire(slot.attempt).unwrap_or(AttemptNumber::FIRST);
        let why = format!("it could not run for {}: {}", format_duration(allowed), explain_hold(hold, tenant));
        let failure = Failure::new(Cause::Unrunnable, why);
        let (attempt, usage, at) = (AttemptId { task, number }, Usage::default(), self.now);
        self.commit(
            Record::AttemptFailed { attempt, failure, usage, last: true, at, host: None, memory: None, other: false },
            actions,
        );
    }

    /// For how long ready tasks of an array that need so much memory are still waited for, if no host could run them.
    pub(crate) fn unrunnable_for(
        &self,
        tenant: &Tenant,
        job: JobId,
        array: u32,
        task: Option<u32>,
    ) -> Option<Duration> {
        let since = *self.unrunnable.since.get(&(job, array, task))?;
        let ends = since.after(tenant.policy.as_ref()?.unrunnable_after);
        Some(ends.since(self.now))
    }

    /// A job's deadline has come.
    pub(crate) fn expire(&mut self, job: JobId, actions: &mut Vec<Action>) {
        if self.find_job(job).is_some_and(|job| job.end.is_none()) {
            self.commit(Record::JobExpired { job, at: self.now }, actions);
        }
    }

    /// When the results of the next job are given up.
    pub(crate) fn next_release(&self) -> Option<Timestamp> {
        self.tenants.iter().filter_map(next_release).min()
    }

    /// Gives up the results of jobs that ended longer ago than their tenant's policy keeps them.
    pub(crate) fn release_old_jobs(&mut self, actions: &mut Vec<Action>) {
        for position in 0..self.tenants.len() {
            for _ in 0..RELEASED_AT_ONCE {
                let tenant = &self.tenants[position];
                let due = next_release(tenant).is_some_and(|at| at <= self.now);
                let Some((_, number)) = tenant.ended.first().filter(|_| due) else { break };
                let job = JobId { tenant: tenant.id, number: *number };
                self.commit(Record::JobReleased { job }, actions);
            }
        }
    }

    /// Remembers when a job ended, for as long as it is there.
    pub(crate) fn note_end(&mut self, job: JobId, at: Timestamp) {
        if let Some(tenant) = self.tenants.get_mut(job.tenant.0 as usize) {
            tenant.ended.insert((at, job.number));
        }
    }

    /// The effect of [`Record::JobExpired`].
    pub(crate) fn take_expiry(&mut self, job: JobId, at: Timestamp, actions: &mut Vec<Action>) -> bool {
        self.stop_job(job, JobEnd::Expired, at, actions)
    }
}

fn next_release(tenant: &Tenant) -> Option<Timestamp> {
    let retention = tenant.policy.as_ref()?.retention?;
    tenant.ended.first().map(|(at, _)| at.after(retention))
}
