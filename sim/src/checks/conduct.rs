//! What must hold for how the scheduler behaves from one event to the next: whom it serves first, what it takes back, what
//! it lets returning hosts go on with, and on whose word it changes anything.

use std::collections::{BTreeMap, BTreeSet};

use partita_core::{HostCommand, IdempotencyKey, Record, Request};
use partita_types::{ArrayIndex, AttemptId, Cause, Frame, HeldFrame, HostId, HostName, JobId, TaskId, TenantId};

use crate::world::World;
use crate::{Checked, ensure};

/// For how long a task that was taken back is left where it went then.
const EPOCH: u64 = 30_000_000;

/// What was, as far as these checks need it.
#[derive(Debug, Default)]
pub(crate) struct Conduct {
    /// Whom each attempt was handed to, and when, in this life of the scheduler.
    handed_to: BTreeMap<AttemptId, (HostId, u64)>,
    /// When each task was given back by a host, in this life of the scheduler.
    given_back: BTreeMap<TaskId, u64>,
    /// What was handed out during this event.
    during_event: Vec<Handed>,
    /// Arrays with a task that failed in a way that changes where it may run, or how much memory it needs.
    with_past: BTreeSet<(JobId, ArrayIndex)>,
    /// What clients asked for, in whatever life of the scheduler.
    asked: Asked,
}

/// A frame that was handed out.
#[derive(Debug)]
struct Handed {
    job: JobId,
    array: ArrayIndex,
    priority: i32,
    memory: u64,
}

#[derive(Debug, Default)]
struct Asked {
    keys: BTreeSet<(TenantId, IdempotencyKey)>,
    cancel: BTreeSet<JobId>,
    close: BTreeSet<JobId>,
    /// Whether to drain which host, and when that was last asked for.
    drain: BTreeMap<(HostName, bool), u64>,
}

impl Conduct {
    /// The scheduler starts again: what clients asked for stays so.
    pub(super) fn after_restart(self) -> Self {
        Self { asked: self.asked, with_past: self.with_past, ..Self::default() }
    }

    /// A client asks for something.
    pub(crate) fn asks(&mut self, what: &Request) {
        match what {
            Request::Submit { tenant, key, .. } => drop(self.asked.keys.insert((*tenant, *key))),
            Request::Extend { job, key, .. } => drop(self.asked.keys.insert((job.tenant, *key))),
            Request::Cancel(job) => drop(self.asked.cancel.insert(*job)),
            Request::Close(job) => drop(self.asked.close.insert(*job)),
            Request::Release(_) | Request::AddModule { .. } | Request::Locate { .. } | Request::Upload { .. } => {}
            // Clients do not; see `asks_to_drain`.
            Request::Drain { .. } => {}
        }
    }

    /// Somebody who runs the cluster drains a host, or takes that back.
    pub(crate) fn asks_to_drain(&mut self, host: &HostName, on: bool, now: u64) {
        self.asked.drain.insert((host.clone(), on), now);
    }

    /// Whether a host was drained lately: then everything that waited there is asked back, wherever it was before.
    fn was_drained(&self, host: &HostName, now: u64) -> bool {
        let asked = |on| self.asked.drain.get(&(host.clone(), on));
        asked(true).is_some_and(|began| asked(false).is_none_or(|ended| ended < began || now < ended + EPOCH))
    }

    /// I41: no job begins, grows, closes or is cancelled without a client of its tenant having asked for it.
    pub(super) fn every_change_was_asked_for(&mut self, record: &Record) -> Checked {
        let right = match record {
            Record::JobSubmitted { job, key, .. } | Record::JobExtended { job, key, .. } => {
                self.asked.keys.contains(&(job.tenant, *key))
            }
            Record::JobCancelled { job, .. } => self.asked.cancel.contains(job),
            Record::JobClosed { job, .. } => self.asked.close.contains(job),
            Record::AttemptFailed { attempt, failure, .. } => {
                if matches!(failure.cause, Cause::Crash | Cause::Memory) {
                    self.with_past.insert((attempt.task.job, attempt.task.array));
                }
                true
            }
            Record::HostDraining { name, on, .. } => self.asked.drain.contains_key(&(name.clone(), *on)),
            _ => true,
        };
        ensure(right, "every_change_was_asked_for", || format!("{record:?}"))
    }
}

impl World {
    /// Notes what is handed out.
    pub(super) fn note_handed(&mut self, host: HostId, frame: &Frame) {
        for attempt in (0..frame.indexes.len()).filter_map(|place| frame.attempt(place)) {
            self.history.conduct.handed_to.insert(attempt, (host, self.now));
        }
        let plan = self.client_of(frame.job).map(|client| client.array(frame.array));
        // What is not run but copied has its own order: it takes nobody's room.
        if let Some((priority, memory)) = plan.filter(|_| frame.reuse.is_empty()) {
            let memory = frame.memory.map_or(memory, |memory| memory.0);
            let handed = Handed { job: frame.job, array: frame.array, priority, memory };
            self.history.conduct.during_event.push(handed);
        }
    }

    /// I13: whatever is handed out, nothing of the same tenant with a higher priority stays behind that would have fitted in
    /// the same place. Where there is little room for partitions, what gives up bytes when it has read them may go before
    /// what waits for that; see `budget.rs` of the core.
    pub(super) fn higher_priority_goes_first(&mut self) -> Checked {
        let handed = std::mem::take(&mut self.history.conduct.during_event);
        let little = self.plan.hosts.iter().any(|host| host.partitions.is_some());
        let Some(core) = self.scheduler.core() else { return Ok(()) };
        for Handed { job, array, priority, memory } in handed {
            if little && self.may_give_up_bytes(job, array) {
                continue;
            }
            for client in self.clients.iter().filter(|client| client.tenant == job.tenant) {
                let Some(view) = client.job.and_then(|job| core.job(job)) else { continue };
                for (array, known) in (0_u32..).map(ArrayIndex).zip(&view.arrays) {
                    let behind = known.counts.ready > 0 && client.runs_anywhere_with(array, priority, memory);
                    let plain = !self.history.conduct.with_past.contains(&(view.id, array));
                    ensure(!behind || !plain, "higher_priority_goes_first", || {
                        let why = core.explain(view.id, Some(array), None);
                        let why = why.into_iter().find(|told| told.state == "ready").map(|told| told.reason);
                        format!("array {array} of job {} waits, priority {priority} was handed out: {why:?}", view.id)
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Whether bytes go when tasks of an array have read them. Those that an open job reads stay.
    fn may_give_up_bytes(&self, job: JobId, array: ArrayIndex) -> bool {
        let open = self.scheduler.core().and_then(|core| core.job(job)).is_some_and(|view| view.open);
        !open && self.client_of(job).is_some_and(|client| client.gives_up(array))
    }

    /// When an attempt was handed out, if this life of the scheduler did that.
    pub(super) fn handed_at(&self, attempt: AttemptId) -> Option<u64> {
        self.history.conduct.handed_to.get(&attempt).map(|(_, at)| *at)
    }

    /// I11: a task that moved from one host to another stays there for a while. Of a task with two attempts both may move.
    /// From a host that is drained everything is taken back.
    pub(crate) fn a_task_is_not_moved_to_and_fro(&mut self, from: &HostName, attempts: &[AttemptId]) -> Checked {
        let conduct = &mut self.history.conduct;
        let drained = conduct.was_drained(from, self.now);
        for attempt in attempts {
            let handed = conduct.handed_to.get(attempt).map_or(0, |(_, at)| *at);
            let before = conduct.given_back.insert(attempt.task, self.now);
            let moved = before.filter(|at| !drained && *at <= handed && self.now < at + EPOCH);
            ensure(moved.is_none(), "a_task_is_not_moved_to_and_fro", || {
                format!("{attempt} was taken back at {}, and its task before at {moved:?}", self.now)
            })?;
        }
        Ok(())
    }

    /// I34: of what a returning host holds it goes on with what this life of the scheduler gave it, or what an earlier one
    /// did and nobody was given since. The rest it is told to stop.
    pub(crate) fn a_host_goes_on_only_with_its_own(
        &self,
        host: HostId,
        held: &[HeldFrame],
        stopped: &BTreeSet<AttemptId>,
    ) -> Checked {
        let conduct = &self.history.conduct;
        for frame in held {
            for (index, number) in frame.indexes.iter().zip(&frame.attempts) {
                let task = TaskId { job: frame.job, array: frame.array, index: *index };
                let attempt = AttemptId { task, number: *number };
                let own = match conduct.handed_to.get(&attempt) {
                    Some((to, _)) => *to == host,
                    None => !self.history.handed.contains_key(&task),
                };
                let wanted = !self.history.ends.contains_key(&task);
                ensure(stopped.contains(&attempt) || own && wanted, "a_host_goes_on_only_with_its_own", || {
                    format!("host {host} goes on with {attempt}: wanted {wanted}, its own {own}")
                })?;
            }
        }
        Ok(())
    }

    /// The attempts that a host is told to stop by what waits from this place on.
    pub(crate) fn stopped_since(&self, place: usize, host: HostId) -> BTreeSet<AttemptId> {
        let commands = self.scheduler.commands_since(place);
        let stops = commands.filter_map(|(to, command)| match command {
            HostCommand::Cancel(attempts) if to == host => Some(attempts),
            _ => None,
        });
        stops.flatten().copied().collect()
    }

    /// I27: the guests that run on a host fit into its memory together, whoever sent them.
    pub(super) fn running_guests_fit_into_their_host(&self) -> Checked {
        for (host, plan) in self.hosts.iter().zip(&self.plan.hosts) {
            let memory: u64 = host.lanes.iter().flatten().map(|lane| lane.memory().0).sum();
            ensure(memory <= plan.memory << 20, "running_guests_fit_into_their_host", || {
                format!("{}: {memory} bytes of {} MiB", host.name, plan.memory)
            })?;
        }
        Ok(())
    }

    /// I43: no attempt gets more memory than its policy allows for one task, nor than its host has.
    pub(super) fn attempts_get_no_more_memory_than_allowed(&self, host: HostId, frame: &Frame) -> Checked {
        let Some((position, client)) = self.scheduler.position_of(host).zip(self.client_of(frame.job)) else {
            return Ok(());
        };
        let memory = frame.memory.map_or(client.array(frame.array).1, |memory| memory.0);
        let policy = self.policies[client.tenant.0 as usize].policy(client.tenant.0 as usize);
        let most = policy.task_maxima.memory.0.min(self.plan.hosts[position].memory << 20);
        ensure(memory <= most, "attempts_get_no_more_memory_than_allowed", || {
            format!("{memory} bytes at host {host} for array {} of job {}", frame.array, frame.job)
        })
    }

    /// I17: if more is guaranteed than there is, the core says by how much.
    pub(super) fn too_many_guarantees_are_told(&self) -> Checked {
        let Some(core) = self.scheduler.core() else { return Ok(()) };
        let known = core.tenants();
        let guaranteed: u64 = known.iter().map(|tenant| tenant.policy.share.guaranteed.cpu.0).sum();
        let attached = core.hosts().into_iter().filter(|host| host.state == "attached" && host.drain.is_none());
        let cores: u64 = attached.map(|host| u64::from(host.capacity.cores) * 1_000).sum();
        let (told, beyond) = (core.oversubscription().cpu.0, guaranteed.saturating_sub(cores));
        ensure(told == beyond, "too_many_guarantees_are_told", || {
            format!("{guaranteed} thousandths of cores are guaranteed, there are {cores}, and {told} is told")
        })
    }
}
