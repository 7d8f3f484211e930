//! The journal, read in the simplest possible way: what it says of each task and job. The core must never contradict it.

mod quarantine;

use std::collections::{BTreeMap, BTreeSet};

use partita_core::Record;
use partita_types::{JobId, TaskId, TenantId};

use crate::guest::RETRIES;
use crate::ledger::quarantine::Quarantines;
use crate::{Checked, ensure};

/// A task in the journal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TaskEntry {
    /// Its outputs are said to exist.
    pub(crate) succeeded: bool,
    /// It failed for good.
    pub(crate) failed: bool,
    /// The latest attempt that it tells of.
    pub(crate) attempt: u32,
    /// Failures that were its own fault.
    pub(crate) blamed: u32,
}

/// What the journal says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    pub(crate) tasks: BTreeMap<TaskId, TaskEntry>,
    /// Every job with the position of its client, which is in the key of the submission.
    pub(crate) jobs: BTreeMap<JobId, usize>,
    pub(crate) closed: BTreeSet<JobId>,
    pub(crate) cancelled: BTreeSet<JobId>,
    /// Stopped at their deadlines.
    pub(crate) expired: BTreeSet<JobId>,
    pub(crate) released: BTreeSet<JobId>,
    pub(crate) quarantines: Quarantines,
    /// The number of the last job of each tenant.
    last: BTreeMap<TenantId, u32>,
}

impl Ledger {
    pub(crate) fn of(records: &[Record]) -> Result<Self, partita_core::Violation> {
        let mut ledger = Self::default();
        for record in records {
            ledger.add(record)?;
        }
        Ok(ledger)
    }

    /// Takes in the next record.
    ///
    /// I33: a task succeeds once, and again only after its outputs were lost. I36: a lost host never ends a task.
    /// I37: no more failures are charged to a task than it has retries.
    pub(crate) fn add(&mut self, record: &Record) -> Checked {
        self.quarantines.add(record)?;
        match record {
            Record::JobSubmitted { job, key, .. } => {
                let [a, b, c, d, ..] = key.0;
                self.jobs.insert(*job, u32::from_le_bytes([a, b, c, d]) as usize);
                self.last.insert(job.tenant, job.number);
            }
            Record::JobClosed { job, .. } => drop(self.closed.insert(*job)),
            Record::JobCancelled { job, .. } => drop(self.cancelled.insert(*job)),
            Record::JobExpired { job, .. } => drop(self.expired.insert(*job)),
            Record::JobReleased { job } => {
                self.released.insert(*job);
                self.tasks.retain(|task, _| task.job != *job);
            }
            Record::Succeeded { batch, .. } => {
                for (index, number) in batch.indexes.iter().zip(&batch.attempts) {
                    let task = TaskId { job: batch.job, array: batch.array, index: *index };
                    let entry = self.tasks.entry(task).or_default();
                    let again = std::mem::replace(&mut entry.succeeded, true);
                    entry.attempt = entry.attempt.max(number.0.get());
                    ensure(!again, "a_task_succeeds_once_until_it_is_lost", || format!("task {task}"))?;
                }
            }
            Record::AttemptFailed { attempt, failure, last, .. } => {
                let entry = self.tasks.entry(attempt.task).or_default();
                entry.attempt = entry.attempt.max(attempt.number.0.get());
                entry.failed |= *last;
                entry.blamed += u32::from(failure.cause.blames_task());
                let blamed = entry.blamed;
                ensure(blamed <= RETRIES + 1, "failures_stay_within_the_retries", || format!("{attempt}: {blamed}"))?;
                let excused = !*last || failure.cause != partita_types::Cause::HostLost;
                ensure(excused, "a_lost_host_never_counts_against_a_task", || format!("{attempt}"))?;
            }
            Record::JobsForgotten { tenant, count } => {
                let last = self.last.entry(*tenant).or_default();
                let gone = (*last + 1..=*last + count).map(|number| JobId { tenant: *tenant, number });
                self.released.extend(gone);
                *last += count;
            }
            Record::Lost { tasks } => {
                for task in tasks {
                    self.tasks.entry(*task).or_default().succeeded = false;
                }
            }
            Record::Uploaded { partition, .. } => {
                let entry = self.tasks.entry(partition.attempt.task).or_default();
                let again = std::mem::replace(&mut entry.succeeded, true);
                entry.attempt = entry.attempt.max(partition.attempt.number.0.get());
                ensure(!again, "an_upload_is_taken_once", || format!("{partition}"))?;
            }
            _ => {}
        }
        Ok(())
    }
}
