//! A tenant: its policy, its jobs, what it uses, and which of its arrays could run.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use partita_policy::TenantPolicy;
use partita_types::{ArrayIndex, ByteSize, CpuTime, JobId, ModuleId, ModuleInfo, TenantId, TenantName, Timestamp};

use crate::event::IdempotencyKey;
use crate::history::Quarantine;
use crate::job::Job;
use crate::kinds::Kinds;
use crate::learned::RunTimes;
use crate::preemption::Starving;
use crate::rates::Rates;
use crate::reuse::Known;
use crate::share::{Amount, Entitlement};
use crate::view::TenantView;

/// How many positions the list of arrays to look at has room for when it is not used.
const DIRTY_KEPT: usize = 64;

/// An array with ready tasks, in the order in which a tenant's arrays run: priority, then depth (finish what is started, so
/// that partitions are freed soon), then age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Runnable {
    priority: Reverse<i32>,
    depth: Reverse<u32>,
    pub(crate) job: u32,
    pub(crate) array: u32,
}

impl Runnable {
    pub(crate) const fn key(&self) -> (u32, u32) {
        (self.job, self.array)
    }
}

/// What a tenant uses at the moment, and has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct TenantUse {
    pub(crate) running_jobs: u32,
    pub(crate) queued_tasks: u64,
    pub(crate) frames: u32,
    pub(crate) memory: u64,
    pub(crate) stored: u64,
    pub(crate) cpu: CpuTime,
    pub(crate) peak_memory: ByteSize,
    /// CPU of its frames, in thirds of a core.
    pub(crate) cpu_thirds: u64,
    /// Bytes that its frames are expected to write.
    pub(crate) expected: u64,
}

/// What an accepted submission is answered with, again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) job: JobId,
    pub(crate) first: ArrayIndex,
    pub(crate) arrays: u32,
}

/// A tenant.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) id: TenantId,
    pub(crate) name: TenantName,
    /// Missing after a restart until the shell has read it again; nothing is run or accepted meanwhile.
    pub(crate) policy: Option<TenantPolicy>,
    /// By number, from 1; released ones are empty.
    jobs: Vec<Option<Box<Job>>>,
    /// In the order of their pushes.
    pub(crate) modules: Vec<(ModuleInfo, Timestamp)>,
    pub(crate) keys: BTreeMap<IdempotencyKey, Accepted>,
    pub(crate) runnable: BTreeSet<Runnable>,
    pub(crate) usage: TenantUse,
    /// Frames ever handed out; breaks ties between equal shares.
    pub(crate) served: u64,
    /// How many frames had been handed out to anybody when it got its last one.
    pub(crate) last_served: u64,
    pub(crate) run_times: RunTimes,
    /// What its arrays share.
    pub(crate) kinds: Kinds,
    /// Modules that no new job may use.
    pub(crate) quarantined: BTreeMap<ModuleId, Quarantine>,
    pub(crate) entitlement: Entitlement,
    /// Since when it has less than its guarantee, and nothing could be done.
    pub(crate) starving: Option<Starving>,
    /// Jobs that have ended and are kept, by when they ended.
    pub(crate) ended: BTreeSet<(Timestamp, u32)>,
    /// Tasks whose outputs others may take.
    pub(crate) known: Known,
    /// Whether it still uses more than a policy allows that was lowered meanwhile. Frames that run are not stopped for that.
    pub(crate) above_limits: bool,
    /// How hosts keep its limit of CPU, if counting frames does not.
    pub(crate) rates: Option<Box<Rates>>,
}

impl Tenant {
    pub(crate) fn new(id: TenantId, name: TenantName) -> Self {
        Self {
            id,
            name,
            policy: None,
            jobs: Vec::new(),
            modules: Vec::new(),
            keys: BTreeMap::new(),
            runnable: BTreeSet::new(),
            usage: TenantUse::default(),
            served: 0,
            last_served: 0,
            run_times: RunTimes::default(),
            kinds: Kinds::default(),
            quarantined: BTreeMap::new(),
            entitlement: Entitlement::default(),
            starving: None,
            ended: BTreeSet::new(),
            known: Known::default(),
            above_limits: false,
            rates: None,
        }
    }

    pub(crate) fn job(&self, number: u32) -> Option<&Job> {
        self.jobs.get(number.checked_sub(1)? as usize)?.as_deref()
    }

    pub(crate) fn job_mut(&mut self, number: u32) -> Option<&mut Job> {
        self.jobs.get_mut(number.checked_sub(1)? as usize)?.as_deref_mut()
    }

    /// All jobs by number.
    pub(crate) fn jobs(&self) -> impl DoubleEndedIterator<Item = &Job> {
        self.jobs.iter().filter_map(Option::as_deref)
    }

    /// The id of the next job.
    pub(crate) fn next_job(&self) -> JobId {
        let number = u32::try_from(self.jobs.len() + 1).unwrap_or(u32::MAX);
        JobId { tenant: self.id, number }
    }

    /// Leaves out the numbers of jobs that were released.
    pub(crate) fn skip_jobs(&mut self, count: u32) {
        self.jobs.extend((0..count).map(|_| None));
    }

    pub(crate) fn add_job(&mut self, job: Job) {
        self.jobs.push(Some(Box::new(job)));
    }

    /// Forgets a job and the keys of its submissions. What is returned has no arrays any more.
    pub(crate) fn remove_job(&mut self, number: u32) -> Option<Box<Job>> {
        let mut job = self.jobs.get_mut(number.checked_sub(1)? as usize)?.take()?;
        if let Some(at) = job.ended {
            self.ended.remove(&(at, number));
        }
        for key in &job.keys {
            self.keys.remove(key);
        }
        for array in std::mem::take(&mut job.arrays) {
            self.kinds.give_back(array.into_kind());
        }
        Some(job)
    }

    pub(crate) fn module(&self, id: ModuleId) -> Option<&(ModuleInfo, Timestamp)> {
        self.modules.iter().find(|(info, _)| info.id == id)
    }

    /// Brings the set of runnable arrays up to date with what changed in a job.
    pub(crate) fn refresh(&mut self, number: u32) {
        let Some(job) = self.jobs.get_mut(number.saturating_sub(1) as usize).and_then(Option::as_deref_mut) else {
            return;
        };
        while let Some(position) = job.dirty.pop() {
            let runs = !job.array(position).ready.is_empty() && !job.is_blocked(position);
            let array = job.array_mut(position);
            array.dirty = false;
            if runs == array.listed {
                continue;
            }
            array.listed = runs;
            let runnable = Runnable {
                priority: Reverse(array.kind.options.priority),
                depth: Reverse(array.depth),
                job: number,
                array: position,
            };
            if runs {
                self.runnable.insert(runnable);
            } else {
                self.runnable.remove(&runnable);
            }
        }
        job.dirty.shrink_to(DIRTY_KEPT);
    }

    /// Whether what it runs is within its policy.
    pub(crate) fn is_within_limits(&self) -> bool {
        let within = |policy: &TenantPolicy| {
            self.usage.frames <= policy.quota.frames() && self.usage.memory <= policy.quota.concurrent_memory.0
        };
        // Stored bytes are bounded when frames start, not while these write.
        let running = Amount { stored: 0, ..self.used() };
        self.policy.as_ref().is_none_or(within) && running.excess(self.entitlement.most).is_none()
    }

    pub(crate) fn view(&self) -> Option<TenantView> {
        Some(TenantView {
            id: self.id,
            name: self.name.clone(),
            policy: self.policy.clone()?,
            running_jobs: self.usage.running_jobs,
            queued_tasks: self.usage.queued_tasks,
            concurrent_tasks: self.usage.frames,
            concurrent_memory: ByteSize(self.usage.memory),
            stored: ByteSize(self.usage.stored),
            cpu: self.usage.cpu,
            peak_memory: self.usage.peak_memory,
        })
    }
}
