//! What must hold whenever work is handed out.

use partita_core::{RECOVERY_TIME, TaskEnd};
use partita_types::{ArrayIndex, AttemptId, Frame, FrameId, HostId, JobId, TaskId, TenantId};

use super::History;
use crate::world::World;
use crate::{Checked, ensure};

/// Frames that others may get while a tenant that could run something has nothing.
const PATIENCE: u32 = 60;

/// How long a tenant may have nothing though it could take turns: frames of tasks that were short until now are waited for.
const TURN_WITHIN: u64 = 2_500_000;
/// More memory than a task takes that runs anywhere, and more than is kept for another one that does not.
const SPARE: u64 = 456 << 20;
/// What a task gets at most that runs out of memory again and again.
const RAISED: u64 = 256 << 20;

impl World {
    /// Everything about one frame.
    pub(super) fn check_frame(&mut self, host: HostId, frame: &Frame) -> Checked {
        self.work_goes_to_attached_hosts_only(host)?;
        self.work_goes_where_its_needs_are_met(host, frame)?;
        self.copies_stay_within_the_tenant(frame)?;
        self.attempts_get_no_more_memory_than_allowed(host, frame)?;
        self.what_is_kept_is_not_run_again(host, frame)?;
        self.note_handed(host, frame);
        for place in 0..frame.indexes.len() {
            let Some(attempt) = frame.attempt(place) else { continue };
            self.history.nothing_that_succeeded_runs_again(attempt.task)?;
            self.history.nothing_starts_after_a_cancel(attempt.task)?;
            self.history.attempt_numbers_only_grow(attempt)?;
            self.history.a_task_runs_on_one_host_at_a_time(attempt, host)?;
        }
        let attempts = (0..frame.indexes.len()).filter_map(|place| frame.attempt(place));
        self.history.frames.insert((host, frame.id), attempts.collect());
        self.history.what_is_read_has_succeeded(frame)?;
        frames_read_their_own_job_only(frame)?;
        self.nobody_starves(frame.job.tenant)
    }

    /// I10: no work for a host without a session, nor for one that is drained.
    fn work_goes_to_attached_hosts_only(&self, host: HostId) -> Checked {
        let Some(core) = self.scheduler.core() else { return Ok(()) };
        let views = core.hosts();
        let view = views.get(host.0 as usize);
        let state = view.map(|view| (view.state, view.drain.is_some()));
        ensure(state == Some(("attached", false)), "work_goes_to_attached_hosts_only", || {
            format!("host {}: state and drain {state:?}", host.0)
        })
    }

    /// Whether something of a job is ready that every host has all for.
    fn runs_anywhere(&self, job: JobId) -> bool {
        let Some((client, view)) = self.client_of(job).zip(self.scheduler.core().and_then(|core| core.job(job))) else {
            return false;
        };
        (0_u32..)
            .map(ArrayIndex)
            .zip(&view.arrays)
            .any(|(array, known)| known.counts.ready > 0 && client.host_of(array).is_empty())
    }

    /// I18: while one tenant gets frames, no other that could run something goes without for ever.
    fn nobody_starves(&mut self, served: TenantId) -> Checked {
        let Some(core) = self.scheduler.core() else { return Ok(()) };
        // What is ready may wait for inputs at a host that is away, and for all hosts after a restart.
        let recovers = self.now < self.scheduler.started + RECOVERY_TIME.as_micros() as u64;
        let away = |state| core.hosts().iter().any(|host| host.state == state);
        // Guarantees go first: on what is left of a cluster there may be nothing else.
        let guarantees = self.policies.iter().any(|tenant| tenant.guaranteed > 0);
        let drains = core.hosts().iter().any(|host| host.drain.is_some());
        if recovers
            || drains
            || away("detached")
            || guarantees && (away("lost") || core.hosts().len() < self.hosts.len())
        {
            self.history.passed_over.clear();
            return Ok(());
        }
        let waiting: Vec<TenantId> = core
            .tenants()
            .into_iter()
            .filter(|tenant| tenant.id != served && tenant.concurrent_tasks == 0)
            .map(|tenant| tenant.id)
            .filter(|tenant| core.jobs(*tenant).iter().any(|job| job.counts.ready > 0 && self.runs_anywhere(job.id)))
            .collect();
        self.history.passed_over.retain(|tenant, _| waiting.contains(tenant));
        for tenant in waiting {
            let frames = self.history.passed_over.entry(tenant).or_default();
            *frames += 1;
            let frames = *frames;
            ensure(frames <= PATIENCE, "nobody_starves", || {
                let ready = core.jobs(tenant).into_iter().filter(|job| job.counts.ready > 0);
                let why: Vec<_> = ready.map(|job| core.explain(job.id, None, None)).collect();
                format!("tenant {tenant} has ready tasks and nothing at a host, others got {frames} frames: {why:?}")
            })?;
        }
        Ok(())
    }
}

impl World {
    /// I18: whoever has nothing gets something soon, however long the tasks of others are, as long as no guarantee is in the
    /// way, and a host has memory and less than twice its usual frames.
    pub(super) fn nobody_waits_behind_long_tasks(&mut self) -> Checked {
        let Some(core) = self.scheduler.core() else { return Ok(()) };
        let hosts = core.hosts();
        let whole = |view: &partita_core::HostView| view.state == "attached" && view.drain.is_none();
        let recovers = self.now < self.scheduler.started + RECOVERY_TIME.as_micros() as u64;
        let guarantees = self.policies.iter().any(|tenant| tenant.guaranteed > 0);
        if recovers || guarantees || hosts.len() < self.hosts.len() || !hosts.iter().all(whole) {
            self.history.without_turn.clear();
            return Ok(());
        }
        let takes_more = |view: &partita_core::HostView| {
            let attempts = self.history.frames_at(view.id);
            let memory: u64 = attempts.iter().map(|attempt| self.most_memory_of(attempt.task)).sum();
            let few = attempts.len() as u64 <= u64::from(view.capacity.cores) + 2;
            few && view.capacity.cores > 0 && memory + SPARE <= view.capacity.memory.0
        };
        let room = hosts.iter().any(takes_more);
        let waiting: Vec<TenantId> = core
            .tenants()
            .into_iter()
            .filter(|tenant| room && tenant.concurrent_tasks == 0)
            .map(|tenant| tenant.id)
            .filter(|tenant| core.jobs(*tenant).iter().any(|job| job.counts.ready > 0 && self.runs_anywhere(job.id)))
            .collect();
        self.history.without_turn.retain(|tenant, _| waiting.contains(tenant));
        for tenant in waiting {
            let since = *self.history.without_turn.entry(tenant).or_insert(self.now);
            ensure(self.now <= since + TURN_WITHIN, "nobody_waits_behind_long_tasks", || {
                let ready = core.jobs(tenant).into_iter().filter(|job| job.counts.ready > 0);
                let why: Vec<_> = ready.map(|job| core.explain(job.id, None, None)).collect();
                format!("tenant {tenant} has nothing at any host since {since}: {why:?}")
            })?;
        }
        Ok(())
    }

    /// What a task may have of memory at most, after it ran out of what it asked for.
    fn most_memory_of(&self, task: TaskId) -> u64 {
        let client = self.client_of(task.job);
        client.map_or(0, |client| client.needs(task).map_or(client.array(task.array).1, |_| RAISED))
    }
}

impl History {
    /// An attempt of each frame that a host has, of which something has not ended.
    fn frames_at(&self, host: HostId) -> Vec<AttemptId> {
        let own = self.frames.range((host, FrameId(0))..).take_while(|((at, _), _)| *at == host);
        let open = |attempt: &&AttemptId| self.open.get(*attempt) == Some(&host);
        own.filter_map(|(_, attempts)| attempts.iter().find(open).copied()).collect()
    }

    /// I33: what finished, as far as the journal knows, is not run again.
    fn nothing_that_succeeded_runs_again(&self, task: TaskId) -> Checked {
        let entry = self.ledger.tasks.get(&task).copied().unwrap_or_default();
        let ended = entry.succeeded || entry.failed;
        ensure(!ended, "nothing_that_ended_runs_again", || format!("task {task}: {entry:?}"))
    }

    /// I38: after its job was cancelled, no attempt starts.
    fn nothing_starts_after_a_cancel(&self, task: TaskId) -> Checked {
        let ledger = &self.ledger;
        let stopped =
            [&ledger.cancelled, &ledger.expired, &ledger.released].iter().any(|jobs| jobs.contains(&task.job));
        ensure(!stopped, "nothing_starts_after_a_cancel", || format!("task {task}"))
    }

    /// I2: every attempt has a larger number than those before.
    fn attempt_numbers_only_grow(&mut self, attempt: AttemptId) -> Checked {
        let recorded = self.ledger.tasks.get(&attempt.task).map_or(0, |entry| entry.attempt);
        let handed = self.handed.insert(attempt.task, attempt.number).map_or(0, |number| number.0.get());
        let grows = attempt.number.0.get() > recorded.max(handed);
        ensure(grows, "attempt_numbers_only_grow", || format!("{attempt} after {handed}, recorded {recorded}"))
    }

    /// I2: a number that became visible outside is never given again, not even by a scheduler that forgot giving it.
    pub(crate) fn no_attempt_is_named_twice(&mut self, frame: &Frame) -> Checked {
        for attempt in (0..frame.indexes.len()).filter_map(|place| frame.attempt(place)) {
            let new = self.sent.insert(attempt);
            ensure(new, "no_attempt_is_named_twice", || format!("attempt {attempt} was handed out before"))?;
        }
        Ok(())
    }

    /// I2, I9: a task is at one host, until that attempt has ended; with a second attempt it is at two, and never at more.
    fn a_task_runs_on_one_host_at_a_time(&mut self, attempt: AttemptId, host: HostId) -> Checked {
        let open: Vec<(AttemptId, HostId)> = self.open_of(attempt.task).collect();
        self.open.insert(attempt, host);
        let beside = match open.as_slice() {
            [] => true,
            [(_, other)] => self.second.contains(&attempt) && *other != host,
            _ => false,
        };
        ensure(beside, "a_task_runs_on_one_host_at_a_time", || {
            format!("{attempt} goes to host {}, beside {open:?}", host.0)
        })
    }

    /// I5: a task reads only from tasks that succeeded; so nothing runs that depends on a failed one.
    fn what_is_read_has_succeeded(&self, frame: &Frame) -> Checked {
        for input in &frame.inputs {
            let source = input.partition.id.attempt.task;
            let end = self.ends.get(&source);
            ensure(end == Some(&TaskEnd::Succeeded), "what_is_read_has_succeeded", || {
                format!("a task of array {} of job {} reads task {source}: {end:?}", frame.array, frame.job)
            })?;
        }
        Ok(())
    }
}

/// I6, I29: nothing crosses the border between tenants, nor that between jobs.
fn frames_read_their_own_job_only(frame: &Frame) -> Checked {
    let foreign = frame.inputs.iter().find(|input| input.partition.id.attempt.task.job != frame.job);
    ensure(foreign.is_none(), "frames_read_their_own_job_only", || format!("job {}: {foreign:?}", frame.job))
}
