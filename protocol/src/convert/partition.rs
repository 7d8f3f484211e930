//! Lists of partitions and attempts, in columns.

use partita_types::{AttemptId, ByteSize, ContentHash, OutputInfo, PartitionId, StoredPartition, TaskId};

use super::{DecodeError, array, attempt_number, column, job_id};
use crate::host::{AttemptList, PartitionList};

const HASH_LENGTH: usize = 32;

/// Hashes as they stand in a column: 32 bytes each.
pub(super) fn hashes(message: &'static str, column: &[u8]) -> Result<Vec<ContentHash>, DecodeError> {
    if !column.len().is_multiple_of(HASH_LENGTH) {
        return Err(DecodeError::Columns {
            message,
            field: "hashes",
            found: column.len(),
            expected: column.len().next_multiple_of(HASH_LENGTH),
        });
    }
    column.chunks_exact(HASH_LENGTH).map(|bytes| Ok(ContentHash::from_slice(bytes)?)).collect()
}

impl PartitionList {
    /// Partitions with sizes and hashes.
    #[must_use]
    pub fn from_stored(partitions: &[StoredPartition]) -> Self {
        let mut list = Self::from_ids(partitions.iter().map(|partition| partition.id));
        list.sizes = partitions.iter().map(|partition| partition.info.size.0).collect();
        let hashes: Vec<u8> = partitions.iter().flat_map(|partition| partition.info.hash.0).collect();
        list.hashes = hashes.into();
        list
    }

    /// Partitions by id only.
    #[must_use]
    pub fn from_ids(ids: impl IntoIterator<Item = PartitionId>) -> Self {
        let mut list = Self::default();
        for id in ids {
            let task = id.attempt.task;
            list.tenants.push(task.job.tenant.0);
            list.jobs.push(task.job.number);
            list.arrays.push(task.array.0);
            list.indexes.push(task.index);
            list.attempts.push(id.attempt.number.0.get());
            list.outputs.push(id.output);
        }
        list
    }

    /// The ids.
    ///
    /// # Errors
    /// If the columns have different lengths or an attempt number is 0.
    pub fn ids(&self) -> Result<Vec<PartitionId>, DecodeError> {
        const MESSAGE: &str = "a list of partitions";
        let length = self.indexes.len();
        column(MESSAGE, "tenants", self.tenants.len(), length)?;
        column(MESSAGE, "jobs", self.jobs.len(), length)?;
        column(MESSAGE, "arrays", self.arrays.len(), length)?;
        column(MESSAGE, "attempts", self.attempts.len(), length)?;
        column(MESSAGE, "outputs", self.outputs.len(), length)?;
        (0..length)
            .map(|i| {
                let task = TaskId {
                    job: job_id(self.tenants[i], self.jobs[i]),
                    array: array(self.arrays[i]),
                    index: self.indexes[i],
                };
                let attempt = AttemptId { task, number: attempt_number(MESSAGE, self.attempts[i])? };
                Ok(PartitionId { attempt, output: self.outputs[i] })
            })
            .collect()
    }

    /// The partitions with sizes and hashes.
    ///
    /// # Errors
    /// As for [`PartitionList::ids`], or if sizes or hashes are missing.
    pub fn stored(&self) -> Result<Vec<StoredPartition>, DecodeError> {
        const MESSAGE: &str = "a list of stored partitions";
        let ids = self.ids()?;
        let hashes = hashes(MESSAGE, &self.hashes)?;
        column(MESSAGE, "sizes", self.sizes.len(), ids.len())?;
        column(MESSAGE, "hashes", hashes.len(), ids.len())?;
        let infos = self.sizes.iter().zip(hashes).map(|(size, hash)| OutputInfo { size: ByteSize(*size), hash });
        Ok(ids.into_iter().zip(infos).map(|(id, info)| StoredPartition { id, info }).collect())
    }
}

impl AttemptList {
    /// Attempts in columns.
    #[must_use]
    pub fn from_attempts(attempts: &[AttemptId]) -> Self {
        let mut list = Self::default();
        for attempt in attempts {
            list.tenants.push(attempt.task.job.tenant.0);
            list.jobs.push(attempt.task.job.number);
            list.arrays.push(attempt.task.array.0);
            list.indexes.push(attempt.task.index);
            list.attempts.push(attempt.number.0.get());
        }
        list
    }

    /// The attempts.
    ///
    /// # Errors
    /// If the columns have different lengths or an attempt number is 0.
    pub fn attempts(&self) -> Result<Vec<AttemptId>, DecodeError> {
        const MESSAGE: &str = "a list of attempts";
        let length = self.indexes.len();
        column(MESSAGE, "tenants", self.tenants.len(), length)?;
        column(MESSAGE, "jobs", self.jobs.len(), length)?;
        column(MESSAGE, "arrays", self.arrays.len(), length)?;
        column(MESSAGE, "attempts", self.attempts.len(), length)?;
        (0..length)
            .map(|i| {
                let task = TaskId {
                    job: job_id(self.tenants[i], self.jobs[i]),
                    array: array(self.arrays[i]),
                    index: self.indexes[i],
                };
                Ok(AttemptId { task, number: attempt_number(MESSAGE, self.attempts[i])? })
            })
            .collect()
    }
}
