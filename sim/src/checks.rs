//! What must hold all the time. One function per invariant; its name is the claim, and its number that of the list of
//! invariants in the documentation. Those about the inside of the core are in the core's own `invariants`; here are those
//! that need to know what was before, or what is outside.

mod conduct;
mod durability;
mod ends;
mod features;
mod leases;
mod limits;
mod moving;
mod placing;
mod quarantine;
mod rates;
mod reuse;
mod watching;

pub(crate) use leases::LeaseWatch;
pub(crate) use moving::drained_hosts_have_nothing_that_counts;

use std::collections::{BTreeMap, BTreeSet};

use partita_core::{Action, Event, HostCommand, JobEvent, Record, Reply, TaskEnd};
use partita_types::{AttemptId, AttemptNumber, FrameId, HostId, HostName, Incarnation, JobId, TaskId, TenantId};

use crate::ledger::Ledger;
use crate::world::World;
use crate::{Checked, ensure};

/// How many events there are between two looks at who could take turns.
const TURNS_EVERY: u64 = 8;

/// What was, as far as the checks need it.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// The journal as the core wrote it, on disk or not.
    pub(crate) ledger: Ledger,
    /// How tasks ended, as published.
    ends: BTreeMap<TaskId, TaskEnd>,
    /// How jobs ended, as published.
    ended: BTreeSet<JobId>,
    /// In this life of the scheduler: the latest attempt of each task that was handed out.
    handed: BTreeMap<TaskId, AttemptNumber>,
    /// Attempts that were handed out and of whose end nothing was heard.
    open: BTreeMap<AttemptId, HostId>,
    /// Attempts that were said to be second ones.
    second: BTreeSet<AttemptId>,
    /// The attempts that went to hosts together, because hosts give them back together.
    frames: BTreeMap<(HostId, FrameId), Vec<AttemptId>>,
    /// Attempts of tasks that ended otherwise during this event: their hosts must be told.
    to_stop: BTreeMap<AttemptId, HostId>,
    /// Frames that others got while a tenant had nothing.
    passed_over: BTreeMap<TenantId, u32>,
    /// Since when a tenant has nothing, though a host could let it take turns.
    without_turn: BTreeMap<TenantId, u64>,
    /// Which start of each host attached last.
    incarnations: BTreeMap<HostName, Incarnation>,
    /// What clients were told.
    told: Told,
    /// Jobs whose release somebody asked for, in whatever life of the scheduler.
    asked_release: BTreeSet<JobId>,
    /// When each job ended, as published last.
    ended_at: BTreeMap<JobId, u64>,
    /// Use of each tenant above its limits, when last looked at.
    above: BTreeMap<TenantId, features::Above>,
    /// How the scheduler behaves.
    pub(crate) conduct: conduct::Conduct,
    /// Every attempt that was ever sent to a host, in whatever life of the scheduler.
    sent: BTreeSet<AttemptId>,
    /// What hosts were told in this life of the scheduler.
    rates: rates::Told,
    /// What tasks have computed that ask for copies.
    computed: reuse::Computed,
    /// Replies to what the simulation itself asked.
    pub(crate) answers: BTreeMap<u64, Reply>,
    events: u64,
}

/// What clients were told, and may rely on.
#[derive(Debug, Default)]
struct Told {
    accepted: BTreeSet<JobId>,
    extended: BTreeMap<JobId, u32>,
    cancelled: BTreeSet<JobId>,
    closed: BTreeSet<JobId>,
    released: BTreeSet<JobId>,
}

impl History {
    /// Which start of a host attached last, as far as this life of the scheduler knows.
    pub(crate) fn incarnation(&self, host: &HostName) -> Option<Incarnation> {
        self.incarnations.get(host).copied()
    }

    /// Tasks that were handed to a host and of whose end nothing was heard.
    pub(crate) fn tasks_at(&self, host: HostId) -> impl Iterator<Item = TaskId> + '_ {
        self.open.iter().filter(move |(_, at)| **at == host).map(|(attempt, _)| attempt.task)
    }

    pub(crate) fn attached(&mut self, host: HostName, incarnation: Incarnation) {
        self.incarnations.insert(host, incarnation);
    }
}

impl World {
    /// Looks at an action as the core asks for it.
    pub(crate) fn watch_action(&mut self, action: &Action) -> Checked {
        match action {
            Action::Persist(record) => {
                self.history.note_winners(record);
                self.history.ledger.add(record)?;
                self.history.conduct.every_change_was_asked_for(record)?;
                self.note_computed(record);
                self.who_is_late_had_its_time(record)?;
                self.watch_record(record)
            }
            Action::Command { host, command: HostCommand::Assign { arrays, frames } } => {
                self.hosts_are_told_the_limits(arrays)?;
                frames.iter().try_for_each(|frame| self.check_frame(*host, frame))
            }
            Action::Publish { job, event } => self.watch_event(*job, event),
            Action::Unpublish(job) => {
                self.history.forget_job(*job);
                Ok(())
            }
            Action::Command { command: HostCommand::Cancel(attempts), .. } => {
                self.history.to_stop.retain(|attempt, _| !attempts.contains(attempt));
                Ok(())
            }
            Action::Command { host, command: HostCommand::Drop(partitions) } => {
                self.no_copy_is_dropped_that_counts(*host, partitions)
            }
            Action::Command { host, command: HostCommand::Copy { partitions, .. } } => {
                self.copies_go_to_hosts_that_take_part(*host, partitions)
            }
            Action::Command { host, command: HostCommand::Welcome { tenants } | HostCommand::Tenants(tenants) } => {
                self.history.rates.note(*host, tenants);
                Ok(())
            }
            Action::Command { .. } | Action::Reply { .. } | Action::Disconnect { .. } => Ok(()),
        }
    }

    /// I38: whatever still runs of a task that has ended is stopped, in the same breath.
    pub(crate) fn attempts_of_ended_tasks_are_stopped(&mut self) -> Checked {
        let to_stop = std::mem::take(&mut self.history.to_stop);
        let Some(core) = self.scheduler.core() else { return Ok(()) };
        for (attempt, host) in to_stop {
            let attached = core.hosts().get(host.0 as usize).is_some_and(|host| host.state == "attached");
            ensure(!attached, "attempts_of_ended_tasks_are_stopped", || {
                format!("the task of {attempt} ended, and host {} was not told", host.0)
            })?;
        }
        Ok(())
    }

    fn watch_event(&mut self, job: JobId, event: &JobEvent) -> Checked {
        self.history.final_states_are_final(job, event)?;
        if let JobEvent::Ended(_) = event {
            self.history.ended_at.insert(job, self.now);
        }
        match event {
            JobEvent::AttemptFailed { attempt, .. } => drop(self.history.open.remove(attempt)),
            JobEvent::TasksEnded { array, tasks, .. } => {
                for index in tasks.iter().flat_map(|(first, count)| *first..first + count) {
                    let task = TaskId { job, array: *array, index };
                    let left: Vec<_> = self.history.open_of(task).collect();
                    self.history.open.retain(|attempt, _| attempt.task != task);
                    self.history.to_stop.extend(left);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Everything that must hold between two events.
    pub(crate) fn check_after_event(&mut self) -> Checked {
        self.history.events += 1;
        self.limits_that_were_lowered_are_approached()?;
        self.parts_of_a_limit_are_no_more_than_it()?;
        self.higher_priority_goes_first()?;
        if self.history.events.is_multiple_of(TURNS_EVERY) {
            self.nobody_waits_behind_long_tasks()?;
        }
        if self.history.events.is_multiple_of(self.plan.check_every.max(1)) {
            self.check_everything()?;
        }
        Ok(())
    }

    pub(crate) fn check_everything(&self) -> Checked {
        let Some(core) = self.scheduler.core() else { return Ok(()) };
        core.check_invariants()?;
        self.running_guests_fit_into_their_host()?;
        self.too_many_guarantees_are_told()?;
        self.counters_add_up()
    }

    /// I44: every task that was submitted is in exactly one state, and none is forgotten.
    fn counters_add_up(&self) -> Checked {
        let Some(core) = self.scheduler.core() else { return Ok(()) };
        for client in &self.clients {
            let Some(view) = client.job.and_then(|job| core.job(job)) else { continue };
            for (array, known) in (0_u32..).zip(&view.arrays) {
                let counts = known.counts;
                let ended = counts.succeeded + counts.failed + counts.cancelled + counts.aborted;
                let sum = counts.waiting + counts.ready + counts.assigned + ended;
                let tasks = client.reference.tasks(array);
                ensure(sum == tasks, "counters_add_up", || {
                    format!("array {array} of job {}: {counts:?}, {tasks} tasks were submitted", view.id)
                })?;
            }
        }
        Ok(())
    }

    /// I3: what an earlier start of a host says changes nothing but a counter.
    pub(crate) fn apply_old_news(&mut self, event: Event) -> Checked {
        // Whatever comes makes the core look around once more; a second look finds nothing that the first has not seen.
        self.apply(Event::Ticked)?;
        self.apply(Event::Ticked)?;
        let before = self.state_but_for_the_counter();
        self.apply(event)?;
        let after = self.state_but_for_the_counter();
        ensure(before == after, "old_news_changes_only_a_counter", || {
            let differs = before.iter().zip(&after).find(|(before, after)| before != after);
            format!("{differs:?}")
        })
    }

    /// The core as text, line by line, without its counter of stale messages.
    fn state_but_for_the_counter(&self) -> Vec<String> {
        let text = self.scheduler.core().map(|core| format!("{core:#?}")).unwrap_or_default();
        text.lines().filter(|line| !line.starts_with("    stale: ")).map(str::to_owned).collect()
    }

    /// I42: what a host says of attempts that it was not given has no effect on any task.
    pub(crate) fn apply_lie(&mut self, event: Event) -> Checked {
        let before = self.history.ledger.clone();
        self.apply(event)?;
        let now = &self.history.ledger;
        ensure(before == *now, "a_host_speaks_only_for_its_own", || "a forged report was written down".to_owned())
    }
}

impl History {
    /// A host has given a frame back: none of its attempts is there any more. Returns those that were; what was given up with
    /// the host meanwhile does not move by this.
    pub(crate) fn given_back(&mut self, host: HostId, frame: FrameId) -> Vec<AttemptId> {
        let mut attempts = self.frames.remove(&(host, frame)).unwrap_or_default();
        attempts.retain(|attempt| self.open.get(attempt) == Some(&host));
        for attempt in &attempts {
            self.open.remove(attempt);
        }
        attempts
    }

    /// What succeeded does not run any more; what else runs of its task has to be stopped.
    fn note_winners(&mut self, record: &Record) {
        if let Record::Speculated { attempt, .. } = record {
            self.second.insert(*attempt);
        }
        let Record::Succeeded { batch, .. } = record else { return };
        for (index, number) in batch.indexes.iter().zip(&batch.attempts) {
            let task = TaskId { job: batch.job, array: batch.array, index: *index };
            self.open.remove(&AttemptId { task, number: *number });
        }
    }

    /// The attempts of a task that are at hosts.
    fn open_of(&self, task: TaskId) -> impl Iterator<Item = (AttemptId, HostId)> + '_ {
        let first = AttemptId { task, number: AttemptNumber::FIRST };
        let of_task = self.open.range(first..).take_while(move |(attempt, _)| attempt.task == task);
        of_task.map(|(attempt, host)| (*attempt, *host))
    }

    fn forget_job(&mut self, job: JobId) {
        let of_job = |task: &TaskId| task.job == job;
        self.ends.retain(|task, _| !of_job(task));
        self.open.retain(|attempt, _| !of_job(&attempt.task));
        self.second.retain(|attempt| !of_job(&attempt.task));
        self.frames.retain(|_, attempts| !attempts.iter().any(|attempt| of_job(&attempt.task)));
        self.handed.retain(|task, _| !of_job(task));
        self.ended.remove(&job);
    }

    /// I1: a task that ended does not end again; only a success is ever taken back, when its outputs are lost.
    fn final_states_are_final(&mut self, job: JobId, event: &JobEvent) -> Checked {
        let name = "final_states_are_final";
        match event {
            JobEvent::TasksEnded { array, end, tasks } => {
                for index in tasks.iter().flat_map(|(first, count)| *first..first + count) {
                    let task = TaskId { job, array: *array, index };
                    let before = self.ends.insert(task, *end);
                    ensure(before.is_none(), name, || format!("task {task}: {before:?}, then {end:?}"))?;
                }
            }
            JobEvent::TasksLost { array, tasks } => {
                for index in tasks.iter().flat_map(|(first, count)| *first..first + count) {
                    let task = TaskId { job, array: *array, index };
                    let before = self.ends.remove(&task);
                    ensure(before == Some(TaskEnd::Succeeded), name, || format!("task {task}: {before:?}, then lost"))?;
                }
            }
            JobEvent::Ended(end) => {
                let first = self.ended.insert(job);
                ensure(first, name, || format!("job {job} ended twice, then {end:?}"))?;
            }
            _ => {}
        }
        Ok(())
    }
}
