//! Tasks that kill executors, and what becomes of their modules, as the journal tells it.

use std::collections::{BTreeMap, BTreeSet};

use partita_core::Record;
use partita_types::{ArraySource, ArraySpec, Cause, HostName, TaskId, TenantId};

use crate::guest::RETRIES;
use crate::{Checked, ensure};

/// So many executors a task may kill.
const MOST: usize = 3;

/// Who killed executors, and which tenants may not use their module for that. Each tenant has one module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Quarantines {
    /// Where each task killed its executor.
    killed: BTreeMap<TaskId, Vec<HostName>>,
    /// Tasks that were stopped for it.
    stopped: BTreeSet<TaskId>,
    now: BTreeSet<TenantId>,
    ever: BTreeSet<TenantId>,
}

impl Quarantines {
    /// Whether a task failed because it killed executors.
    pub(crate) fn stopped(&self, task: TaskId) -> bool {
        self.stopped.contains(&task)
    }

    /// Whether the module of a tenant was ever quarantined.
    pub(crate) fn ever(&self, tenant: TenantId) -> bool {
        self.ever.contains(&tenant)
    }

    /// Takes in the next record.
    pub(super) fn add(&mut self, record: &Record) -> Checked {
        match record {
            Record::AttemptFailed { attempt, failure, last, host: Some(host), .. } if failure.cause == Cause::Crash => {
                self.note_crash(attempt.task, host, *last)
            }
            Record::ModuleQuarantined { tenant, .. } => {
                self.now.insert(*tenant);
                self.ever.insert(*tenant);
                Ok(())
            }
            Record::ModuleAdded { tenant, .. } => {
                self.now.remove(tenant);
                Ok(())
            }
            Record::JobSubmitted { job, spec, .. } => self.no_job_takes_a_quarantined_module(job.tenant, &spec.arrays),
            Record::JobExtended { job, arrays, .. } => self.no_job_takes_a_quarantined_module(job.tenant, arrays),
            Record::JobReleased { job } => {
                self.killed.retain(|task, _| task.job != *job);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A task is stopped for killing executors after three of them, and not later than when those were at three hosts.
    fn note_crash(&mut self, task: TaskId, host: &HostName, last: bool) -> Checked {
        let killed = self.killed.entry(task).or_default();
        killed.push(host.clone());
        let hosts: BTreeSet<&HostName> = killed.iter().collect();
        let detail = || format!("task {task} killed executors at {killed:?}");
        ensure(last || hosts.len() < MOST, "who_kills_executors_is_stopped", detail)?;
        let out_of_retries = killed.len() > RETRIES as usize;
        ensure(!last || killed.len() >= MOST || out_of_retries, "a_quarantine_is_justified", detail)?;
        if last {
            self.stopped.insert(task);
        }
        Ok(())
    }

    fn no_job_takes_a_quarantined_module(&self, tenant: TenantId, arrays: &[ArraySpec]) -> Checked {
        let calls = arrays.iter().any(|array| matches!(array.source, ArraySource::Function { .. }));
        let taken = calls && self.now.contains(&tenant);
        ensure(!taken, "no_job_takes_a_quarantined_module", || format!("tenant {tenant}"))
    }
}
