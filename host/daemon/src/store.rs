//! The partitions of this host, in memory, within a budget.
//!
//! Small partitions are inline, large ones sealed memory files; both are shared with whoever reads them, so a partition
//! that is dropped while it is being sent stays readable there. One lock guards the map; it is held for a lookup or an
//! insertion, never while bytes are copied.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard};

use partita_sandbox::{Output, Payload};
use partita_types::{AttemptId, ByteSize, OutputInfo, PartitionId, StoredPartition, TenantId};

use crate::sync::lock;

/// What an entry itself costs, so that empty partitions do not fill the memory for free.
const ENTRY_OVERHEAD: u64 = 192;

/// There is no room for the outputs of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreFull {
    #[error("the host keeps {used} of partitions within a budget of {budget}, and {wanted} more do not fit")]
    Bytes { used: ByteSize, budget: ByteSize, wanted: ByteSize },
    #[error("the host keeps {used} large partitions, each with a descriptor, and may keep {budget}")]
    Files { used: usize, budget: usize },
}

/// Why the outputs of an attempt cannot be kept for another one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CopyError {
    #[error("the outputs of attempt {from} are not here (any more)")]
    Missing { from: AttemptId },
    #[error(transparent)]
    Full(#[from] StoreFull),
}

/// What is stored, in all or of one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stored {
    pub(crate) partitions: u64,
    pub(crate) bytes: ByteSize,
}

/// Partitions that are not stored any more. Dropping it frees them, which takes a while.
#[derive(Debug)]
#[must_use]
pub(crate) struct Removed {
    _entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    payload: Payload,
    info: OutputInfo,
}

#[derive(Debug, Default)]
struct Contents {
    entries: HashMap<PartitionId, Entry>,
    bytes: u64,
    files: usize,
    tenants: BTreeMap<TenantId, Stored>,
}

/// The partition store.
#[derive(Debug)]
pub(crate) struct Store {
    contents: Mutex<Contents>,
    budget: ByteSize,
    file_budget: usize,
}

impl Store {
    /// An empty store for so many bytes and so many large partitions.
    pub(crate) fn new(budget: ByteSize, file_budget: usize) -> Self {
        Self { contents: Mutex::default(), budget, file_budget }
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        lock(&self.contents)
    }

    /// Keeps all outputs of an attempt, or none.
    pub(crate) fn insert(&self, attempt: AttemptId, outputs: Vec<Output>) -> Result<(), StoreFull> {
        let mut contents = self.contents();
        let sizes = outputs.iter().map(|output| output.payload.size().0);
        self.check(&contents, sizes.sum(), outputs.len(), outputs.iter().filter(|o| is_file(&o.payload)).count())?;
        for (number, Output { payload, info }) in outputs.into_iter().enumerate() {
            let id = PartitionId { attempt, output: u32::try_from(number).unwrap_or(u32::MAX) };
            contents.insert(id, Entry { payload, info });
        }
        Ok(())
    }

    /// Keeps one partition.
    pub(crate) fn insert_one(&self, id: PartitionId, payload: Payload, info: OutputInfo) -> Result<(), StoreFull> {
        let mut contents = self.contents();
        self.check(&contents, payload.size().0, 1, usize::from(is_file(&payload)))?;
        contents.insert(id, Entry { payload, info });
        Ok(())
    }

    /// Keeps all outputs of an attempt for another one of the same tenant, too. They share their bytes, but each counts.
    pub(crate) fn copy(&self, from: AttemptId, to: AttemptId, outputs: u32) -> Result<Vec<OutputInfo>, CopyError> {
        let mut contents = self.contents();
        let entry = |output| contents.entries.get(&PartitionId { attempt: from, output });
        let same_tenant = from.task.job.tenant == to.task.job.tenant;
        let found: Option<Vec<(Payload, OutputInfo)>> = (0..outputs)
            .map(|output| entry(output).filter(|_| same_tenant).map(|entry| (entry.payload.clone(), entry.info)))
            .collect();
        let found = found.ok_or(CopyError::Missing { from })?;
        let bytes = found.iter().map(|(payload, _)| payload.size().0).sum();
        // Files are shared, so a copy takes no further descriptor.
        self.check(&contents, bytes, found.len(), 0)?;
        let mut infos = Vec::with_capacity(found.len());
        for (output, (payload, info)) in (0..).zip(found) {
            contents.insert(PartitionId { attempt: to, output }, Entry { payload, info });
            infos.push(info);
        }
        Ok(infos)
    }

    /// Whether a partition of this size would fit now.
    pub(crate) fn has_room(&self, size: ByteSize) -> Result<(), StoreFull> {
        self.check(&self.contents(), size.0, 1, 1)
    }

    fn check(&self, contents: &Contents, bytes: u64, count: usize, files: usize) -> Result<(), StoreFull> {
        let overhead = |entries: usize| (entries as u64).saturating_mul(ENTRY_OVERHEAD);
        let used = contents.bytes.saturating_add(overhead(contents.entries.len()));
        let wanted = bytes.saturating_add(overhead(count));
        if used.saturating_add(wanted) > self.budget.0 {
            let (used, wanted) = (ByteSize(used), ByteSize(wanted));
            return Err(StoreFull::Bytes { used, budget: self.budget, wanted });
        }
        if contents.files.saturating_add(files) > self.file_budget && files > 0 {
            return Err(StoreFull::Files { used: contents.files, budget: self.file_budget });
        }
        Ok(())
    }

    /// The bytes of a partition, if it is here.
    #[cfg(test)]
    pub(crate) fn get(&self, id: PartitionId) -> Option<Payload> {
        self.contents().entries.get(&id).map(|entry| entry.payload.clone())
    }

    /// The bytes of many partitions, in that order.
    pub(crate) fn get_many(&self, ids: impl IntoIterator<Item = PartitionId>) -> Vec<Option<Payload>> {
        let contents = self.contents();
        ids.into_iter().map(|id| contents.entries.get(&id).map(|entry| entry.payload.clone())).collect()
    }

    /// Deletes partitions; those that are not here are nobody's loss. Freeing memory files takes a while, so the caller says
    /// where that is done, by dropping what is returned.
    pub(crate) fn take_many(&self, ids: &[PartitionId]) -> Removed {
        let mut contents = self.contents();
        Removed { _entries: ids.iter().filter_map(|id| contents.remove(*id)).collect() }
    }

    /// Everything that is here, in order.
    pub(crate) fn inventory(&self) -> Vec<StoredPartition> {
        let contents = self.contents();
        let entries = contents.entries.iter().map(|(id, entry)| StoredPartition { id: *id, info: entry.info });
        let mut list: Vec<StoredPartition> = entries.collect();
        drop(contents);
        list.sort_unstable_by_key(|partition| partition.id);
        list
    }

    /// How much is here.
    pub(crate) fn stored(&self) -> Stored {
        let contents = self.contents();
        Stored { partitions: contents.entries.len() as u64, bytes: ByteSize(contents.bytes) }
    }

    /// How much of each tenant is here.
    pub(crate) fn tenants(&self) -> BTreeMap<TenantId, Stored> {
        self.contents().tenants.clone()
    }
}

fn is_file(payload: &Payload) -> bool {
    matches!(payload, Payload::File(_))
}

impl Contents {
    fn insert(&mut self, id: PartitionId, entry: Entry) {
        self.remove(id);
        let size = entry.payload.size();
        self.bytes = self.bytes.saturating_add(size.0);
        self.files += usize::from(is_file(&entry.payload));
        let tenant = self.tenants.entry(id.attempt.task.job.tenant).or_default();
        tenant.partitions += 1;
        tenant.bytes = tenant.bytes.saturating_add(size);
        self.entries.insert(id, entry);
    }

    fn remove(&mut self, id: PartitionId) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        let size = entry.payload.size();
        self.bytes = self.bytes.saturating_sub(size.0);
        self.files -= usize::from(is_file(&entry.payload));
        let of = id.attempt.task.job.tenant;
        if let Some(tenant) = self.tenants.get_mut(&of) {
            tenant.partitions = tenant.partitions.saturating_sub(1);
            tenant.bytes = tenant.bytes.saturating_sub(size);
            if tenant.partitions == 0 {
                self.tenants.remove(&of);
            }
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use partita_sandbox::INLINE_MAX;
    use partita_types::{ArrayIndex, AttemptNumber, ContentHash, JobId, TaskId};
    use proptest::prelude::*;

    use super::*;

    fn attempt(tenant: u32, index: u32) -> AttemptId {
        let task = TaskId { job: JobId { tenant: TenantId(tenant), number: 1 }, array: ArrayIndex(0), index };
        AttemptId { task, number: AttemptNumber::FIRST }
    }

    fn output(size: usize) -> Output {
        let bytes = Bytes::from(vec![1; size]);
        let hash = ContentHash(*blake3::hash(&bytes).as_bytes());
        let info = OutputInfo { size: ByteSize(size as u64), hash };
        Output { payload: Payload::new(bytes).unwrap(), info }
    }

    fn id(attempt: AttemptId, output: u32) -> PartitionId {
        PartitionId { attempt, output }
    }

    #[test]
    fn a_copy_lives_on_when_the_original_is_dropped_and_counts_like_one() {
        let store = Store::new(ByteSize::mib(1), 8);
        store.insert(attempt(0, 1), vec![output(10), output(20)]).unwrap();
        let infos = store.copy(attempt(0, 1), attempt(0, 2), 2).unwrap();
        assert_eq!(infos, [output(10).info, output(20).info]);
        assert_eq!(store.stored(), Stored { partitions: 4, bytes: ByteSize(60) });
        drop(store.take_many(&[id(attempt(0, 1), 0), id(attempt(0, 1), 1)]));
        assert_eq!(store.get(id(attempt(0, 2), 1)).unwrap().size(), ByteSize(20));
        drop(store.take_many(&[id(attempt(0, 2), 0), id(attempt(0, 2), 1)]));
        assert_eq!(store.stored(), Stored::default());
    }

    #[test]
    fn a_copy_is_whole_within_the_tenant_and_within_the_budget_or_not_made() {
        let store = Store::new(ByteSize(2_500), 8);
        store.insert(attempt(0, 1), vec![output(1_000)]).unwrap();
        let missing = Err(CopyError::Missing { from: attempt(0, 1) });
        assert_eq!(store.copy(attempt(0, 1), attempt(0, 2), 2), missing);
        assert_eq!(store.copy(attempt(0, 1), attempt(1, 2), 1), missing, "of another tenant");
        store.insert(attempt(0, 3), vec![output(500)]).unwrap();
        assert!(matches!(store.copy(attempt(0, 1), attempt(0, 2), 1), Err(CopyError::Full(_))));
        assert_eq!(store.stored().partitions, 2);
    }

    #[test]
    fn outputs_are_found_under_their_numbers() {
        let store = Store::new(ByteSize::mib(1), 10);
        store.insert(attempt(1, 0), vec![output(10), output(INLINE_MAX)]).unwrap();
        let found = store.get_many([id(attempt(1, 0), 1), id(attempt(1, 0), 2), id(attempt(1, 0), 0)]);
        let sizes: Vec<_> = found.into_iter().map(|payload| payload.map(|p| p.size().0)).collect();
        assert_eq!(sizes, [Some(INLINE_MAX as u64), None, Some(10)]);
    }

    #[test]
    fn what_does_not_fit_is_refused_whole_and_the_text_has_the_numbers() {
        let store = Store::new(ByteSize::kib(64), 10);
        store.insert(attempt(1, 0), vec![output(40 << 10)]).unwrap();
        let error = store.insert(attempt(1, 1), vec![output(1), output(40 << 10)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the host keeps 40.1 KiB of partitions within a budget of 64 KiB, and 40.3 KiB more do not fit"
        );
        assert_eq!(store.stored(), Stored { partitions: 1, bytes: ByteSize::kib(40) });
    }

    #[test]
    fn empty_partitions_are_not_free() {
        let store = Store::new(ByteSize::kib(64), 10);
        let refused = (0..1000).find(|index| store.insert(attempt(1, *index), vec![output(0)]).is_err());
        assert_eq!(refused, Some(341));
    }

    #[test]
    fn descriptors_are_bounded_too() {
        let store = Store::new(ByteSize::mib(10), 1);
        store.insert(attempt(1, 0), vec![output(INLINE_MAX)]).unwrap();
        let error = store.insert(attempt(1, 1), vec![output(INLINE_MAX)]).unwrap_err();
        assert_eq!(error, StoreFull::Files { used: 1, budget: 1 });
        store.insert(attempt(1, 2), vec![output(1)]).unwrap();
    }

    #[test]
    fn a_dropped_partition_stays_readable_for_who_has_it() {
        let store = Store::new(ByteSize::mib(1), 10);
        let partition = id(attempt(1, 0), 0);
        store.insert(attempt(1, 0), vec![output(INLINE_MAX)]).unwrap();
        let held = store.get(partition).unwrap();
        drop(store.take_many(&[partition, partition]));
        assert!(store.get(partition).is_none());
        assert_eq!(held.bytes().unwrap().len(), INLINE_MAX);
        assert_eq!((store.stored(), store.tenants().len()), (Stored::default(), 0));
    }

    #[test]
    fn a_repeated_upload_replaces_and_is_counted_once() {
        let store = Store::new(ByteSize::mib(1), 10);
        for size in [10, 20] {
            let Output { payload, info } = output(size);
            store.insert_one(id(attempt(1, 0), 0), payload, info).unwrap();
        }
        assert_eq!(store.stored(), Stored { partitions: 1, bytes: ByteSize(20) });
    }

    proptest! {
        #[test]
        fn use_is_always_the_sum_of_what_is_there(
            steps in proptest::collection::vec((1_u32..4, 0_u32..20, 0_usize..2000, any::<bool>()), 0..100)
        ) {
            let store = Store::new(ByteSize::kib(16), 10);
            for (tenant, index, size, insert) in steps {
                let attempt = attempt(tenant, index);
                if insert {
                    let _ = store.insert(attempt, vec![output(size)]);
                } else {
                    drop(store.take_many(&[id(attempt, 0)]));
                }
                let inventory = store.inventory();
                let bytes: u64 = inventory.iter().map(|partition| partition.info.size.0).sum();
                let of_tenants: u64 = store.tenants().values().map(|tenant| tenant.bytes.0).sum();
                prop_assert_eq!(store.stored().bytes.0, bytes);
                prop_assert_eq!(of_tenants, bytes);
                prop_assert!(bytes <= ByteSize::kib(16).0);
            }
        }
    }
}
