//! What earlier attempts of a task taught about it: that it needs more memory, or that it kills executors.
//!
//! Few tasks have such a past, so it stands beside the tasks and not in them. A task that has one makes a frame of its
//! own, so that it neither takes others with it nor makes them wait for memory that only it needs.

use partita_types::{AttemptId, ByteSize, Cause, HostId, HostName, ModuleId, TaskId, Timestamp};

use crate::Core;
use crate::array::Array;
use crate::claims::Need;
use crate::host::Host;
use crate::preemption::could_run;
use crate::record::Record;

/// So many executors may an array's task kill, each at another host. After that it is not tried again, and its module is
/// quarantined. With fewer hosts that could run it, it is so many attempts.
const EXECUTORS_KILLED_MAX: usize = 3;
/// Ready tasks looked at for lots. Those with a past pass over each other only within this window.
const LOTS_LOOKED_AT: usize = 256;

/// The past of one task.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Bytes of memory for its next attempt, if the array's are not enough.
    memory: Option<u64>,
    /// Where an attempt of it killed its executor, once for each attempt.
    crashed: Vec<HostName>,
}

/// Ready tasks that can go into a frame together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lot {
    /// The first of them.
    pub(crate) start: u32,
    /// Bytes of memory that one attempt may use.
    pub(crate) memory: u64,
    /// Whether it is that task alone.
    pub(crate) alone: bool,
}

/// A module that a tenant's jobs may not use for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quarantine {
    /// What it did, for people.
    pub(crate) reason: String,
    pub(crate) since: Timestamp,
}

impl Array {
    /// Bytes of memory that the next attempt of a task may use.
    pub(crate) fn memory_of(&self, index: u32) -> u64 {
        self.past(index).and_then(|past| past.memory).unwrap_or(self.kind.limits.memory.0)
    }

    /// Whether a task has a past, and runs alone for that.
    pub(crate) fn has_history(&self, index: u32) -> bool {
        self.past(index).is_some()
    }

    /// Where attempts of a task killed their executors.
    pub(crate) fn crashed_at(&self, index: u32) -> &[HostName] {
        self.past(index).map_or(&[], |past| &past.crashed)
    }

    /// What the first ready tasks can be handed out as, in their order.
    pub(crate) fn lots(&self) -> impl Iterator<Item = Lot> + '_ {
        let base = self.kind.limits.memory.0;
        let mut usual = false;
        let looked_at = if self.has_pasts() { LOTS_LOOKED_AT } else { 1 };
        self.ready.positions_from(0).take(looked_at).filter_map(move |start| {
            if self.has_history(start) {
                return Some(Lot { start, memory: self.memory_of(start), alone: true });
            }
            (!std::mem::replace(&mut usual, true)).then_some(Lot { start, memory: base, alone: false })
        })
    }
}

impl Core {
    /// How much memory the next attempt gets, after one that ran out of it: twice as much, within what array and policy
    /// allow and the largest host has that may run it. `None` if that is no more than it had.
    pub(crate) fn raised_memory(&self, attempt: AttemptId, cause: Cause) -> Option<ByteSize> {
        if cause != Cause::Memory {
            return None;
        }
        let task = attempt.task;
        let array = self.find_job(task.job)?.find_array(task.array)?;
        let had = array.memory_of(task.index);
        let tenant = self.tenants.get(task.job.tenant.0 as usize)?;
        let policy = tenant.policy.as_ref()?;
        let whatever = Need::of(tenant, array, 0);
        let hosts = self.hosts.iter().filter(|host| could_run(tenant, &whatever, host));
        let largest = hosts.map(|host| host.capacity.memory.0).max()?;
        let allowed = array.kind.options.memory_max.unwrap_or(array.kind.limits.memory);
        let most = allowed.min(policy.task_maxima.memory).min(policy.quota.concurrent_memory);
        let next = had.saturating_mul(2).min(most.0).min(largest);
        (next > had).then_some(ByteSize(next))
    }

    /// The effect of a failed attempt on the past of its task.
    pub(crate) fn remember(&mut self, task: TaskId, cause: Cause, host: Option<&HostName>, memory: Option<ByteSize>) {
        let crashed = host.filter(|_| cause == Cause::Crash);
        if crashed.is_none() && memory.is_none() {
            return;
        }
        self.change_job(task.job, |job| {
            let past = job.array_mut(task.array.0).past_mut(task.index);
            past.memory = memory.map(|memory| memory.0).or(past.memory);
            past.crashed.extend(crashed.cloned());
        });
    }

    /// Where a task has killed executors, this attempt at `host` included, if that is often enough to stop it.
    pub(crate) fn kills_executors(&self, task: TaskId, host: HostId) -> Option<Vec<HostName>> {
        let tenant = self.tenants.get(task.job.tenant.0 as usize)?;
        let array = self.find_job(task.job)?.find_array(task.array)?;
        let mut killed = array.crashed_at(task.index).to_vec();
        killed.push(self.hosts.get(host.0 as usize)?.name.clone());
        let need = Need::of(tenant, array, array.memory_of(task.index));
        let could_run = |host: &&Host| host.capacity.cores > 0 && could_run(tenant, &need, host);
        let fitting = self.hosts.iter().filter(could_run).count();
        let mut hosts = killed.clone();
        hosts.sort_unstable();
        hosts.dedup();
        let everywhere = hosts.len() >= EXECUTORS_KILLED_MAX;
        let again_and_again = killed.len() >= EXECUTORS_KILLED_MAX && fitting < EXECUTORS_KILLED_MAX;
        (everywhere || again_and_again).then_some(killed)
    }

    /// Quarantines the module of a task that killed executors at these hosts; returns what to tell people.
    pub(crate) fn quarantine_module(
        &mut self,
        task: TaskId,
        killed: &[HostName],
        actions: &mut Vec<crate::Action>,
    ) -> String {
        let hosts: Vec<&str> = killed.iter().map(HostName::as_str).collect();
        let did = format!("its attempts killed {} executors, at hosts {}", killed.len(), hosts.join(", "));
        let array = self.find_job(task.job).and_then(|job| job.find_array(task.array));
        let Some((module, function)) = array.and_then(|array| array.module().zip(Some(array.function().to_owned())))
        else {
            return did;
        };
        let reason = format!("function {function:?} killed executors at hosts {}, in task {task}", hosts.join(", "));
        let record = Record::ModuleQuarantined { tenant: task.job.tenant, module, reason, at: self.now };
        self.commit(record, actions);
        format!("{did}; its module {module} is quarantined until it is pushed again")
    }

    /// The effect of [`Record::ModuleQuarantined`].
    pub(crate) fn take_quarantine(
        &mut self,
        tenant: partita_types::TenantId,
        module: ModuleId,
        reason: &str,
        since: Timestamp,
    ) -> bool {
        let Some(tenant) = self.tenants.get_mut(tenant.0 as usize) else { return false };
        if tenant.module(module).is_none() {
            return false;
        }
        tenant.quarantined.insert(module, Quarantine { reason: reason.to_owned(), since });
        true
    }
}
