//! Orders to copy partitions from another host: what of that is kept when it arrives.
//!
//! Fetching takes a while, and meanwhile the scheduler may change its mind. Two rules make what it knows right all the same:
//! a partition that it had dropped since is not kept, and nothing is kept for a session that is over. So what a host answers to an
//! order is what it has, in the order in which the scheduler spoke.

use std::collections::{BTreeMap, BTreeSet};

use partita_types::{MoveId, OutputInfo, PartitionId, StoredPartition};

/// Orders that are being carried out.
#[derive(Debug, Default)]
pub struct Copying {
    orders: BTreeMap<MoveId, Vec<StoredPartition>>,
}

impl Copying {
    /// An order came.
    pub fn begin(&mut self, order: MoveId, partitions: &[StoredPartition]) {
        self.orders.insert(order, partitions.to_vec());
    }

    /// The scheduler had partitions dropped: a copy of them that is under way is not kept.
    pub fn dropped(&mut self, ids: &[PartitionId]) {
        if !self.orders.is_empty() {
            // Both are up to ten thousands.
            let ids: BTreeSet<PartitionId> = ids.iter().copied().collect();
            for partitions in self.orders.values_mut() {
                partitions.retain(|partition| !ids.contains(&partition.id));
            }
        }
    }

    /// The session ended: nothing that was ordered in it is kept.
    pub fn forget_all(&mut self) {
        self.orders.clear();
    }

    /// Everything that could be fetched for an order has arrived. Returns what is to be kept of that: what was ordered, is still
    /// wanted, and is what it should be. `None` if nobody waits for an answer any more.
    pub fn finish(
        &mut self,
        order: MoveId,
        arrived: impl Fn(PartitionId) -> Option<OutputInfo>,
    ) -> Option<Vec<StoredPartition>> {
        let mut partitions = self.orders.remove(&order)?;
        partitions.retain(|partition| arrived(partition.id) == Some(partition.info));
        Some(partitions)
    }
}

#[cfg(test)]
mod tests {
    use partita_types::{
        ArrayIndex, AttemptId, AttemptNumber, ByteSize, ContentHash, JobId, StoredPartition, TaskId, TenantId,
    };

    use super::*;

    fn partition(index: u32) -> StoredPartition {
        let task = TaskId { job: JobId { tenant: TenantId(1), number: 1 }, array: ArrayIndex(0), index };
        let id = PartitionId { attempt: AttemptId { task, number: AttemptNumber::FIRST }, output: 0 };
        StoredPartition { id, info: OutputInfo { size: ByteSize(8), hash: ContentHash([7; 32]) } }
    }

    #[test]
    fn what_arrives_as_it_should_be_is_kept_and_the_rest_is_not() {
        let mut copying = Copying::default();
        copying.begin(MoveId(1), &[partition(0), partition(1), partition(2)]);
        let arrived = |id: PartitionId| match id.attempt.task.index {
            0 => Some(partition(0).info),
            1 => Some(OutputInfo { hash: ContentHash([8; 32]), ..partition(1).info }),
            _ => None,
        };
        assert_eq!(copying.finish(MoveId(1), arrived), Some(vec![partition(0)]));
        assert_eq!(copying.finish(MoveId(1), arrived), None, "it was answered");
    }

    #[test]
    fn what_was_dropped_while_it_was_under_way_is_not_kept() {
        let mut copying = Copying::default();
        copying.begin(MoveId(1), &[partition(0), partition(1)]);
        copying.dropped(&[partition(0).id]);
        copying.begin(MoveId(2), &[partition(0)]);
        let all = |id: PartitionId| Some(partition(id.attempt.task.index).info);
        assert_eq!(copying.finish(MoveId(1), all), Some(vec![partition(1)]));
        assert_eq!(copying.finish(MoveId(2), all), Some(vec![partition(0)]), "it was ordered again after that");
    }

    #[test]
    fn nothing_is_kept_for_a_session_that_is_over() {
        let mut copying = Copying::default();
        copying.begin(MoveId(1), &[partition(0)]);
        copying.forget_all();
        assert_eq!(copying.finish(MoveId(1), |_| Some(partition(0).info)), None);
    }
}
