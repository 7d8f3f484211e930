//! What must hold in the end, when everything has healed: every job has ended in time, with the right results, and
//! nothing is left behind.

use partita_core::{JobEnd, JobView, Reply, Request};
use partita_types::{ArrayIndex, HostId, JobId, TaskId};

use crate::guest::{LONG, LONGEST_HEALED};
use crate::world::{Step, World};
use crate::{Checked, ensure};

/// What every run may take to heal: hosts come back, the scheduler waits for them, retries wait.
const HEALING: u64 = 90_000_000;
/// How long policies wait for what could not run, at most: their default, and a look.
const UNRUNNABLE_AFTER: u64 = 610_000_000;
/// How much longer a task may take whose tenant has a limit of CPU: hosts are told their parts of it a few times a second.
const HELD_BACK: u64 = 300_000;
/// How long after the last end everything has come to rest.
const REST: u64 = 30_000_000;

impl World {
    /// Heals everything and demands that all ends well.
    pub(crate) fn end_well(&mut self) -> Checked {
        self.heal()?;
        self.every_job_ends_in_time()?;
        // What went wrong last is noticed, too.
        let rest = self.now + REST;
        self.run_until(rest, |_| false)?;
        self.check_everything()?;
        self.watchers_saw_everything()?;
        self.results_do_not_outlive_their_time()?;
        self.jobs_end_as_they_should()?;
        self.results_are_right()?;
        self.hosts_have_what_the_core_believes()?;
        self.nothing_is_left_behind()
    }

    fn heal(&mut self) -> Checked {
        // What stands still goes on by itself: what was put off meanwhile would else be overtaken by what is sent later.
        let frozen = self.hosts.iter().map(|host| host.frozen_until);
        let still = frozen.chain([self.scheduler.stalled_until]).max().unwrap_or(0);
        self.run_until(still, |_| false)?;
        self.healed = true;
        (self.scheduler.disk.full, self.scheduler.disk.flush) = (false, 300);
        self.scheduler.dies_at = None;
        self.plan_step(0, Step::StartScheduler);
        for position in 0..self.hosts.len() {
            let host = &mut self.hosts[position];
            (host.cut_to_scheduler, host.cut_from_scheduler) = (0, 0);
            let process = host.process;
            self.plan_step(0, Step::StartHost { host: position });
            self.plan_step(0, Step::Dial { host: position, process });
            self.plan_step(1, Step::Drained { host: position, stops: false, until: self.now });
        }
        Ok(())
    }

    /// Liveness: every job that is admitted and can run ends within a time that follows from its work.
    ///
    /// Once all is well, the unfinished tasks can at worst run one after the other on one lane, with a round trip each.
    fn every_job_ends_in_time(&mut self) -> Checked {
        let limited = self.policies.iter().any(|tenant| tenant.cpu.is_some() || tenant.borrow.is_some());
        let held_back = if limited { HELD_BACK } else { 0 };
        let work = |client: &crate::client::Client| {
            let tenant = client.tenant.0 as usize;
            // With half a core a task takes twice as long.
            let rate =
                self.policies.get(tenant).map_or(1_000, |plan| plan.policy(tenant).cpu_limit().0.clamp(1, 1_000));
            let arrays = (0..client.arrays() as u32).map(|array| {
                let longer = if client.is_long(ArrayIndex(array)) { LONG } else { 0 };
                u64::from(client.reference.tasks(array)) * (LONGEST_HEALED + 50_000 + held_back + longer)
            });
            arrays.sum::<u64>() * 1_000 / rate
        };
        // What needs more than a lowered limit allows is waited for, as what fits no host is.
        let patience = if self.plan.changes.is_empty() { 0 } else { UNRUNNABLE_AFTER };
        let bound = self.now + HEALING + patience + self.clients.iter().map(work).sum::<u64>();
        self.run_until(bound, Self::is_over)?;
        let Some(core) = self.scheduler.core() else {
            return ensure(false, "every_job_ends_in_time", || "the scheduler does not run".to_owned());
        };
        for (position, client) in self.clients.iter().enumerate() {
            let view = client.job.and_then(|job| core.job(job));
            let gone = client.released || client.job.is_some_and(|job| self.history.ledger.released.contains(&job));
            let ended = client.is_done() && (gone || view.as_ref().is_some_and(|view| view.end.is_some()));
            ensure(ended, "every_job_ends_in_time", || {
                let why = client.job.map(|job| core.explain(job, None, None));
                format!("client {position}, done {}: {view:?}\n{why:?}", client.is_done())
            })?;
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        let Some(core) = self.scheduler.core() else { return false };
        let ended = |job: JobId| core.job(job).is_none_or(|view| view.end.is_some());
        self.clients.iter().all(|client| client.is_done() && client.job.is_some_and(ended))
    }

    /// I45: and in the end everybody has seen everything.
    fn watchers_saw_everything(&self) -> Checked {
        for (position, client) in self.clients.iter().enumerate() {
            let released = |job: &JobId| client.released || self.history.ledger.released.contains(job);
            let Some(job) = client.job.filter(|job| !released(job)) else { continue };
            self.check_watcher(position)?;
            let (seen, shown) = (client.seen.len(), self.scheduler.hub.visible(job).len());
            ensure(seen == shown, "watchers_saw_everything", || format!("job {job}: {seen} of {shown} events"))?;
        }
        Ok(())
    }

    fn views(&self) -> Vec<(usize, JobView)> {
        let Some(core) = self.scheduler.core() else { return Vec::new() };
        let view = |(position, client): (usize, &crate::client::Client)| {
            let job = client.job.filter(|_| !client.released)?;
            Some((position, core.job(job)?))
        };
        self.clients.iter().enumerate().filter_map(view).collect()
    }

    /// A job fails only if something in it fails whatever happens, and is cancelled only if its client wanted that.
    fn jobs_end_as_they_should(&self) -> Checked {
        for (position, view) in self.views() {
            let client = &self.clients[position];
            let right = match view.end {
                Some(JobEnd::Cancelled) => client.cancels,
                Some(JobEnd::Expired) => client.expires,
                Some(JobEnd::Failed) => {
                    let task = view.failure.as_ref().map(|(task, ..)| *task);
                    let quarantined = task.is_some_and(|task| self.history.ledger.quarantines.stopped(task));
                    client.poisoned || client.lost_upload(&view) || quarantined || self.was_unrunnable(&view)
                }
                Some(JobEnd::Succeeded) => !client.poisoned || client.arrays() > view.arrays.len(),
                None => false,
            };
            ensure(right, "jobs_end_as_they_should", || format!("client {position}: {view:?}"))?;
        }
        Ok(())
    }

    /// I25, I33: each result that can be had is what a naive executor says, and those that should be there are.
    fn results_are_right(&mut self) -> Checked {
        for (position, view) in self.views() {
            if view.end != Some(JobEnd::Succeeded) {
                continue;
            }
            for array in 0..view.arrays.len() as u32 {
                for index in 0..self.clients[position].reference.tasks(array) {
                    for output in 0..self.clients[position].reference.width(array) {
                        let task = TaskId { job: view.id, array: ArrayIndex(array), index };
                        self.result_is_right(position, task, output)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn result_is_right(&mut self, position: usize, task: TaskId, output: u32) -> Checked {
        let TaskId { job, array, index } = task;
        let reply = self.ask(Request::Locate { job, array, tasks: index..index + 1, output })?;
        if self.is_over_time(job, reply.as_ref()) {
            return Ok(());
        }
        match reply {
            Some(Reply::Located(found)) => {
                let client = &self.clients[position];
                let (host, stored) = found[0];
                let right = client.reference.output(array.0, index, output);
                ensure(stored.info.hash == right, "results_are_right", || format!("{}", stored.id))?;
                let host = self.scheduler.position_of(host);
                let there = host.and_then(|host| self.hosts[host].store.get(&stored.id));
                ensure(there == Some(&stored.info), "results_are_where_they_are_said_to_be", || format!("{stored:?}"))
            }
            Some(Reply::Refused(refusal)) => {
                let text = refusal.to_string();
                let consumed = text.contains("consumed") && !self.clients[position].keeps(array.0 as usize);
                // What was uploaded and lost with its host cannot be computed again, nor what was computed from it.
                let hopeless = ["uploaded, and lost", "was aborted", "failed"].iter().any(|why| text.contains(why));
                // What was lost may need more memory now than its tenant may still use.
                let lowered = text.contains("failed") && self.may_have_lost_its_right(job.tenant);
                let fine = consumed || lowered || hopeless && self.clients[position].uploads();
                ensure(fine, "results_can_be_had", || format!("output {output} of {task}: {text}"))
            }
            other => ensure(false, "results_can_be_had", || format!("output {output} of {task}: {other:?}")),
        }
    }

    /// I22, I26: when all is at rest, hosts store exactly what the core believes them to store.
    fn hosts_have_what_the_core_believes(&mut self) -> Checked {
        let rest = self.now + REST;
        self.run_until(rest, |_| false)?;
        let Some(core) = self.scheduler.core() else { return Ok(()) };
        for view in core.hosts() {
            let Some(host) = self.hosts.iter().find(|host| host.name == view.name) else { continue };
            let (real, believed) = (host.store.len() as u64, view.stored_partitions);
            ensure(real == believed, "hosts_have_what_the_core_believes", || {
                format!("host {} has {real} partitions, the core believes {believed}: {:?}", view.name, host.store)
            })?;
        }
        Ok(())
    }

    /// I15: after the last release every counter is zero, and every partition gone.
    fn nothing_is_left_behind(&mut self) -> Checked {
        let name = "nothing_is_left_behind";
        for position in 0..self.clients.len() {
            let Some(job) = self.clients[position].job.filter(|_| !self.clients[position].released) else { continue };
            let reply = self.ask(Request::Release(job))?;
            let gone = reply == Some(Reply::Done) || self.is_over_time(job, reply.as_ref());
            ensure(gone, name, || format!("job {job}: {reply:?}"))?;
        }
        let rest = self.now + REST;
        self.run_until(rest, |_| false)?;
        let Some(core) = self.scheduler.core() else { return Ok(()) };
        for usage in core.tenants() {
            let used = (usage.running_jobs, usage.queued_tasks, usage.concurrent_tasks, usage.concurrent_memory.0);
            let nothing = (used, usage.stored.0) == ((0, 0, 0, 0), 0);
            ensure(nothing, name, || format!("tenant {} uses {used:?} and {}", usage.name, usage.stored))?;
        }
        for (number, host) in core.hosts().iter().enumerate() {
            let nothing = (host.assigned_tasks, host.stored_partitions) == (0, 0);
            ensure(nothing, name, || format!("host {}: {host:?}", HostId(number as u32)))?;
        }
        for host in &self.hosts {
            ensure(host.store.is_empty(), name, || format!("{} keeps {:?}", host.name, host.store))?;
        }
        Ok(())
    }
}
