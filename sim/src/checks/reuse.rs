//! What must hold for memoisation: what was computed and is kept is not computed again.

use std::collections::BTreeMap;

use partita_core::Record;
use partita_types::{AttemptId, ContentHash, Frame, HostId, PartitionId, TaskId, TenantId};

use crate::plan::EdgePlan;
use crate::world::World;
use crate::{Checked, ensure};

/// What a task computes: outputs here are digests of all that went into them.
type Key = (TenantId, u32, ContentHash);

/// The latest attempt that computed something, as the records of this life of the scheduler say. A failure makes the core
/// forget what the task would have computed, since a copy may be what failed.
#[derive(Debug, Default)]
pub(super) struct Computed(BTreeMap<Key, AttemptId>);

impl World {
    /// What a task computes, if it asks for copies of that. Those that read datasets get none, and neither do those that
    /// read so much that the core does not compare it.
    fn key_of(&self, task: TaskId) -> Option<Key> {
        let client = self.client_of(task.job)?;
        let plan = client.planned(task.array).filter(|plan| plan.memoise && plan.inputs.len() < 2)?;
        let compared = !plan.inputs.iter().any(|edge| matches!(edge, EdgePlan::Dataset(_)));
        let array = task.array.0;
        let hash = || client.reference.output(array, task.index, 0);
        compared.then(|| (task.job.tenant, client.reference.width(array), hash()))
    }

    pub(super) fn note_computed(&mut self, record: &Record) {
        match record {
            Record::Succeeded { batch, .. } => {
                let mut ended: Vec<_> = batch.indexes.iter().zip(&batch.attempts).collect();
                ended.sort_unstable();
                for (index, number) in ended {
                    let task = TaskId { job: batch.job, array: batch.array, index: *index };
                    if let Some(key) = self.key_of(task) {
                        self.history.computed.0.insert(key, AttemptId { task, number: *number });
                    }
                }
            }
            Record::AttemptFailed { attempt, .. } => {
                if let Some(key) = self.key_of(attempt.task) {
                    self.history.computed.0.remove(&key);
                }
            }
            _ => {}
        }
    }

    /// No task is run at the host that keeps the outputs of one that did the same: there was room for a copy, which needs
    /// less than running it.
    pub(super) fn what_is_kept_is_not_run_again(&self, host: HostId, frame: &Frame) -> Checked {
        let Some(position) = self.scheduler.position_of(host).filter(|_| frame.reuse.is_empty()) else {
            return Ok(());
        };
        for attempt in (0..frame.indexes.len()).filter_map(|place| frame.attempt(place)) {
            let known = self.key_of(attempt.task).and_then(|key| self.history.computed.0.get(&key));
            let Some(known) = known.filter(|_| !self.history.second.contains(&attempt)) else { continue };
            let kept = self.is_kept(*known) && self.hosts_with(*known) == [position];
            ensure(!kept, "what_is_kept_is_not_run_again", || {
                format!("{attempt} runs at host {host}, which has what {known} wrote")
            })?;
        }
        Ok(())
    }

    /// Whether the outputs of a task are results, and its job was not released.
    fn is_kept(&self, attempt: AttemptId) -> bool {
        let task = attempt.task;
        let there = self.history.ledger.tasks.get(&task).is_some_and(|entry| entry.succeeded);
        let released = self.history.ledger.released.contains(&task.job);
        there && !released && self.client_of(task.job).is_some_and(|client| client.keeps(task.array.0 as usize))
    }

    /// The hosts that have all that an attempt wrote, by position.
    fn hosts_with(&self, attempt: AttemptId) -> Vec<usize> {
        let width = self.client_of(attempt.task.job).map_or(0, |client| client.reference.width(attempt.task.array.0));
        let has_all = |position: &usize| {
            (0..width).all(|output| self.hosts[*position].store.contains_key(&PartitionId { attempt, output }))
        };
        (0..self.hosts.len()).filter(has_all).collect()
    }
}
