//! Which records of the journal are still needed.
//!
//! The journal grows with everything that happens. What only tells of jobs that were released can go: of such a job a
//! number remains, and what it used. The rest stays as it was, record by record, so that a replay finds the same state and
//! the same events under the same numbers.

use std::collections::BTreeSet;

use partita_types::{ByteSize, CpuTime, HostName, JobId, TenantId, Timestamp};

use crate::Core;
use crate::record::Record;

/// A tenant, at the point in time that a compaction is made for.
#[derive(Debug)]
struct Kept {
    /// The number of the next job. Records of that and later ones are kept.
    next: u32,
    live: BTreeSet<u32>,
    /// What jobs used that are forgotten.
    cpu: CpuTime,
    peak_memory: ByteSize,
    /// Forgotten jobs that were passed, and not told of yet.
    forgotten: u32,
}

/// Picks the records that are still needed out of all that led to a state. From [`Core::compaction`].
#[derive(Debug)]
pub struct Compaction {
    tenants: Vec<Kept>,
    hosts: Vec<HostName>,
    draining: Vec<(HostName, Timestamp)>,
    at: Timestamp,
    /// Lives of the scheduler before this one.
    lives: u32,
    unrunnable: Vec<Record>,
}

impl Core {
    /// Decides what is still needed of all records so far. Costs as much as a look at each job.
    #[must_use]
    pub fn compaction(&self) -> Compaction {
        let tenants = self.tenants.iter().map(|tenant| {
            let used = tenant.jobs().fold(0_u64, |sum, job| sum.saturating_add(job.totals.cpu.micros));
            Kept {
                next: tenant.next_job().number,
                live: tenant.jobs().map(|job| job.id.number).collect(),
                cpu: CpuTime::from_micros(tenant.usage.cpu.micros.saturating_sub(used)),
                peak_memory: tenant.usage.peak_memory,
                forgotten: 0,
            }
        });
        Compaction {
            tenants: tenants.collect(),
            hosts: self.known_hosts.names(),
            draining: self.known_hosts.draining().map(|(name, since)| (name.clone(), since)).collect(),
            at: self.now,
            lives: self.lives.before(),
            unrunnable: self.unrunnable.records().collect(),
        }
    }

    /// The effect of [`Record::JobsForgotten`].
    pub(crate) fn skip_jobs(&mut self, tenant: TenantId, count: u32) -> bool {
        let Some(tenant) = self.tenants.get_mut(tenant.0 as usize) else { return false };
        tenant.skip_jobs(count);
        true
    }

    /// The effect of [`Record::TenantUsed`].
    pub(crate) fn add_use(&mut self, tenant: TenantId, cpu: CpuTime, peak_memory: ByteSize) -> bool {
        let Some(tenant) = self.tenants.get_mut(tenant.0 as usize) else { return false };
        tenant.usage.cpu = tenant.usage.cpu.saturating_add(cpu);
        tenant.usage.peak_memory = tenant.usage.peak_memory.max(peak_memory);
        true
    }
}

impl Compaction {
    fn is_forgotten(&self, job: JobId) -> bool {
        let tenant = self.tenants.get(job.tenant.0 as usize);
        tenant.is_some_and(|tenant| job.number < tenant.next && !tenant.live.contains(&job.number))
    }

    /// Takes the next record, in the order of the journal, and appends what is to be kept.
    pub fn pass(&mut self, record: Record, kept: &mut Vec<Record>) {
        let job = match &record {
            Record::JobSubmitted { job, .. } => {
                let (job, forgotten) = (*job, self.is_forgotten(*job));
                match self.tenants.get_mut(job.tenant.0 as usize) {
                    Some(tenant) if forgotten => tenant.forgotten += 1,
                    _ => {
                        self.tell_forgotten(job.tenant, kept);
                        kept.push(record);
                    }
                }
                return;
            }
            Record::JobsForgotten { tenant, count } => {
                if let Some(tenant) = self.tenants.get_mut(tenant.0 as usize) {
                    tenant.forgotten += count;
                }
                return;
            }
            Record::Lost { tasks } => {
                let tasks: Vec<_> = tasks.iter().filter(|task| !self.is_forgotten(task.job)).copied().collect();
                if !tasks.is_empty() {
                    kept.push(Record::Lost { tasks });
                }
                return;
            }
            // Told anew at the end.
            Record::TenantUsed { .. }
            | Record::HostJoined { .. }
            | Record::HostLost { .. }
            | Record::HostDraining { .. }
            | Record::LifeBegan { .. }
            | Record::Unrunnable { .. } => return,
            Record::TenantAdded { .. } | Record::ModuleAdded { .. } | Record::ModuleQuarantined { .. } => {
                kept.push(record);
                return;
            }
            Record::JobExtended { job, .. }
            | Record::JobClosed { job, .. }
            | Record::JobCancelled { job, .. }
            | Record::JobExpired { job, .. }
            | Record::JobReleased { job } => *job,
            Record::Succeeded { batch, .. } => batch.job,
            Record::AttemptFailed { attempt, .. } | Record::Speculated { attempt, .. } => attempt.task.job,
            Record::Uploaded { partition, .. } => partition.attempt.task.job,
        };
        if !self.is_forgotten(job) {
            kept.push(record);
        }
    }

    fn tell_forgotten(&mut self, id: TenantId, kept: &mut Vec<Record>) {
        let Some(tenant) = self.tenants.get_mut(id.0 as usize) else { return };
        let count = std::mem::take(&mut tenant.forgotten);
        if count > 0 {
            kept.push(Record::JobsForgotten { tenant: id, count });
        }
    }

    /// Appends what follows behind the last record.
    pub fn finish(mut self, kept: &mut Vec<Record>) {
        for position in 0..self.tenants.len() {
            let tenant = TenantId(u32::try_from(position).unwrap_or(u32::MAX));
            self.tell_forgotten(tenant, kept);
            let Kept { cpu, peak_memory, .. } = self.tenants[position];
            if (cpu, peak_memory) != (CpuTime::default(), ByteSize::ZERO) {
                kept.push(Record::TenantUsed { tenant, cpu, peak_memory });
            }
        }
        let at = self.at;
        kept.extend(self.hosts.into_iter().map(|name| Record::HostJoined { name, at }));
        let draining = self.draining.into_iter();
        kept.extend(draining.map(|(name, at)| Record::HostDraining { name, on: true, at }));
        kept.append(&mut self.unrunnable);
        if self.lives > 0 {
            kept.push(Record::LifeBegan { number: self.lives, at });
        }
    }
}
