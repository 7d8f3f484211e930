//! What must hold for what the scheduler can do besides running graphs: placement by labels and resources, memoisation,
//! retention, compaction, and policies that change.

use partita_core::{Record, Refusal, Reply};
use partita_types::{Cause, Frame, HostId, JobId, TaskId, TenantId};

use super::History;
use crate::world::World;
use crate::{Checked, ensure};

/// How much later than promised the results of a job may go: the scheduler may have been away.
const LATE: u64 = 1_000_000;

/// Frames and bytes of memory of a tenant beyond its quota.
pub(super) type Above = (u32, u64);

impl World {
    /// Looks at a record as it is written.
    pub(super) fn watch_record(&self, record: &Record) -> Checked {
        match record {
            Record::JobReleased { job } => self.results_are_kept_as_promised(*job),
            Record::AttemptFailed { attempt, failure, .. } if failure.cause == Cause::Unrunnable => {
                self.an_unrunnable_task_fits_no_host(attempt.task)
            }
            _ => Ok(()),
        }
    }

    /// I10: the host of a frame has what its tasks need.
    pub(super) fn work_goes_where_its_needs_are_met(&self, id: HostId, frame: &Frame) -> Checked {
        let Some(position) = self.scheduler.position_of(id) else { return Ok(()) };
        let Some(needed) = self.client_of(frame.job).map(|client| client.host_of(frame.array)) else { return Ok(()) };
        let has = &self.plan.hosts[position].features;
        ensure(has.suits(needed), "work_goes_where_its_needs_are_met", || {
            format!("array {} of job {} at host {id}: {needed:?}, {has:?}", frame.array, frame.job)
        })
    }

    /// I29: who gets a copy asked for it, and what it is a copy of is the same tenant's, was offered, and is there.
    pub(super) fn copies_stay_within_the_tenant(&self, frame: &Frame) -> Checked {
        let memoises = |task: TaskId| self.client_of(task.job).is_some_and(|client| client.memoises(task.array));
        for (place, from) in frame.reuse.iter().enumerate() {
            let Some(to) = frame.attempt(place) else { continue };
            let right = from.task.job.tenant == frame.job.tenant && memoises(from.task) && memoises(to.task);
            ensure(right, "copies_stay_within_the_tenant", || format!("{to} of {from}"))?;
            let there = self.history.ledger.tasks.get(&from.task).is_some_and(|entry| entry.succeeded);
            ensure(there, "a_copy_is_of_what_succeeded", || format!("{to} of {from}"))?;
        }
        Ok(())
    }

    /// Results go when somebody asks for that, or when they were kept as long as the policy says, and not before.
    fn results_are_kept_as_promised(&self, job: JobId) -> Checked {
        let asked = self.history.asked_release.contains(&job);
        let ended = self.history.ended_at.get(&job);
        let retention = self.policies[job.tenant.0 as usize].retention;
        let over = ended.zip(retention).is_some_and(|(at, retention)| self.now >= at + retention * 1_000);
        ensure(asked || over, "results_are_kept_as_promised", || format!("job {job} ended at {ended:?}"))
    }

    /// In the end nothing is kept for longer than the policy says.
    pub(super) fn results_do_not_outlive_their_time(&self) -> Checked {
        let Some(core) = self.scheduler.core() else { return Ok(()) };
        for tenant in core.tenants() {
            let Some(retention) = self.policies[tenant.id.0 as usize].retention else { continue };
            let over = |at: partita_types::Timestamp| at.micros + retention * 1_000 + LATE < self.now;
            let old = core.jobs(tenant.id).into_iter().find(|job| job.ended.is_some_and(over));
            ensure(old.is_none(), "results_do_not_outlive_their_time", || format!("{old:?}"))?;
        }
        Ok(())
    }

    /// A task fails as unrunnable only if no host that is there could run it.
    fn an_unrunnable_task_fits_no_host(&self, task: TaskId) -> Checked {
        let Some((client, core)) = self.client_of(task.job).zip(self.scheduler.core()) else { return Ok(()) };
        let needed = client.host_of(task.array);
        let fits = |view: &partita_core::HostView| {
            let position = self.hosts.iter().position(|host| host.name == view.name);
            view.state == "attached" && position.is_some_and(|at| self.plan.hosts[at].features.suits(needed))
        };
        let host = core.hosts().into_iter().find(fits);
        let fine = host.is_none() || needed.is_empty();
        ensure(fine, "an_unrunnable_task_fits_no_host", || format!("task {task} needs {needed:?}: {host:?}"))
    }

    /// Whether a task failed because nothing could run it, which can happen to those that need something of their hosts, or
    /// for which a limit was lowered.
    pub(super) fn was_unrunnable(&self, view: &partita_core::JobView) -> bool {
        let Some((task, _, failure)) = &view.failure else { return false };
        let needs = self.client_of(task.job).is_some_and(|client| !client.host_of(task.array).is_empty());
        (needs || self.may_have_lost_its_right(task.job.tenant)) && failure.cause == Cause::Unrunnable
    }

    /// Whether limits of a tenant changed meanwhile, so that what was admitted may be too large for them.
    pub(super) fn may_have_lost_its_right(&self, tenant: TenantId) -> bool {
        self.plan.changes.iter().any(|change| change.tenant == tenant.0 as usize)
    }

    /// I16: who is above a limit that was lowered comes down to it, and never goes up.
    pub(super) fn limits_that_were_lowered_are_approached(&mut self) -> Checked {
        if self.plan.changes.is_empty() {
            return Ok(());
        }
        let Some(core) = self.scheduler.core() else { return Ok(()) };
        for tenant in core.tenants() {
            let quota = tenant.policy.quota;
            let frames = tenant.concurrent_tasks.saturating_sub(quota.frames());
            let memory = tenant.concurrent_memory.0.saturating_sub(quota.concurrent_memory.0);
            let before = self.history.above.insert(tenant.id, (frames, memory));
            let Some(before) = before else { continue };
            let falls = frames <= before.0 && memory <= before.1;
            ensure(falls, "limits_that_were_lowered_are_approached", || {
                format!("tenant {}: {frames} frames and {memory} bytes above, before {before:?}", tenant.name)
            })?;
        }
        Ok(())
    }

    /// I31: whoever starts from a compacted journal finds the same state, and the same events.
    pub(crate) fn a_compaction_keeps_the_state(&self, before: &[Record], kept: &[Record]) -> Checked {
        let (full, mut events) = self.restored(before);
        let (core, left) = self.restored(kept);
        let (was, is) = (what_counts(&full), what_counts(&core));
        ensure(was == is, "a_compaction_keeps_the_state", || {
            let differs = was.iter().zip(&is).find(|(was, is)| was != is);
            format!("{} of {} records: {differs:?}", kept.len(), before.len())
        })?;
        events.retain(|(job, _)| full.job(*job).is_some());
        ensure(events == left, "a_compaction_keeps_the_events", || format!("{} of {}", left.len(), events.len()))
    }

    /// Whether an answer about a job says that it is gone, or was overtaken by that, because its time is over.
    pub(super) fn is_over_time(&self, job: JobId, reply: Option<&Reply>) -> bool {
        let gone = matches!(reply, Some(Reply::Located(_) | Reply::Refused(Refusal::NotFound { .. })));
        gone && self.history.ledger.released.contains(&job)
    }
}

impl History {
    /// A client asks for the release of a job.
    pub(crate) fn asks_for_release(&mut self, job: JobId) {
        self.asked_release.insert(job);
    }

    /// Limits may be lower than what is in use now, and shares are other ones.
    pub(crate) fn policies_changed(&mut self) {
        self.above.clear();
        self.passed_over.clear();
    }
}

/// A core as text, line by line, without what released jobs may leave behind: timers, where run times are kept, and
/// which of their outputs others could have had.
fn what_counts(core: &partita_core::Core) -> Vec<String> {
    let mut lines = Vec::new();
    let mut left_out: Option<usize> = None;
    for line in format!("{core:#?}").lines() {
        let indent = line.len() - line.trim_start().len();
        if let Some(outer) = left_out {
            if indent <= outer {
                left_out = None;
            }
            continue;
        }
        let name = line.trim_start();
        if ["run_times: ", "known: ", "due: "].iter().any(|field| name.starts_with(field)) {
            left_out = Some(indent).filter(|_| !line.ends_with(','));
        } else if !["learned: ", "stale: "].iter().any(|field| name.starts_with(field)) {
            lines.push(line.to_owned());
        }
    }
    lines
}
