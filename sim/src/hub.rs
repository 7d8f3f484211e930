//! The events of jobs as clients see them: numbered from 0, shown once their records are on disk. A model of the
//! service's own, without the parts that wait.

use std::collections::{BTreeMap, BTreeSet};

use partita_core::JobEvent;
use partita_types::JobId;

#[derive(Debug, Default)]
struct Events {
    all: Vec<JobEvent>,
    visible: usize,
}

/// The events of all jobs.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    jobs: BTreeMap<JobId, Events>,
    hidden: BTreeSet<JobId>,
}

impl Hub {
    pub(crate) fn publish(&mut self, job: JobId, event: JobEvent) {
        self.jobs.entry(job).or_default().all.push(event);
        self.hidden.insert(job);
    }

    pub(crate) fn forget(&mut self, job: JobId) {
        self.jobs.remove(&job);
        self.hidden.remove(&job);
    }

    /// Everything published so far is on disk.
    pub(crate) fn reveal(&mut self) {
        for job in std::mem::take(&mut self.hidden) {
            if let Some(events) = self.jobs.get_mut(&job) {
                events.visible = events.all.len();
            }
        }
    }

    /// What may be shown of a job.
    pub(crate) fn visible(&self, job: JobId) -> &[JobEvent] {
        self.jobs.get(&job).map_or(&[], |events| &events.all[..events.visible])
    }

    /// The jobs that there are events of.
    pub(crate) fn jobs(&self) -> impl Iterator<Item = JobId> + '_ {
        self.jobs.keys().copied()
    }
}
