//! Datasets: external files that tasks read in pieces.
//!
//! Every host lists and cuts a dataset by itself and must come to the same pieces, so nothing here depends on
//! anything but names, sizes and bytes of the files. A manifest hash over names and sizes is fixed when a job is
//! submitted; a host whose listing has another one refuses to read instead of reading something else. Symbolic links
//! are never followed, neither in the walk nor when a file is opened: they could lead out of what was granted.

mod cut;
mod listing;
mod read;

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

use partita_sandbox::Payload;
use partita_types::{ByteSize, ContentHash, DatasetGrant, DatasetName, DatasetPlan, MAX_TASKS_PER_ARRAY};

use cut::{Part, cut};
use listing::Listing;

use crate::sync::lock;

/// Listings kept; a job uses one for all its splits.
const CACHED_LISTINGS: usize = 8;

/// Why a dataset cannot be listed or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatasetError {
    #[error("cannot read {path}")]
    Read {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("{location} has more than {limit} files or directories")]
    TooManyFiles { location: String, limit: usize },
    #[error("{location} has directories more than {limit} levels deep")]
    TooDeep { location: String, limit: usize },
    #[error("pieces of {split} make {splits} splits, more than the limit of {MAX_TASKS_PER_ARRAY}")]
    TooManySplits { split: ByteSize, splits: usize },
    #[error("the dataset {dataset} changed since the job was submitted; submit the job again")]
    Changed { dataset: DatasetName },
    #[error("{path} changed since the job was submitted; submit the job again")]
    FileChanged { path: String },
    #[error("{path} has a line of more than {limit} at offset {offset}")]
    LongLine { path: String, offset: u64, limit: ByteSize },
    #[error("the dataset {dataset} has {splits} splits, and split {index} was asked for")]
    NoSuchSplit { dataset: DatasetName, splits: usize, index: u32 },
    #[error("cannot keep a split of {size} in memory")]
    Memory {
        size: ByteSize,
        #[source]
        source: io::Error,
    },
}

/// What is asked of a dataset: the parts of a plan that decide its pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    location: String,
    include: Vec<String>,
    split: ByteSize,
    limit: Option<ByteSize>,
}

/// A listing with its pieces.
#[derive(Debug)]
struct Planned {
    listing: Listing,
    splits: Vec<Vec<Part>>,
}

type Slot = Arc<Mutex<Option<Arc<Planned>>>>;

/// Lists and reads datasets, keeping the last listings. Everything here blocks: call it on a blocking thread.
#[derive(Debug, Default)]
pub(crate) struct Datasets {
    /// Oldest first. Each listing has its own lock, so that one is made once and others are not held up.
    cached: Mutex<VecDeque<(Key, Slot)>>,
}

impl Datasets {
    /// Lists and cuts a dataset for a submission, from what is on disk now.
    pub(crate) fn plan(
        &self,
        grant: &DatasetGrant,
        split: ByteSize,
        limit: Option<ByteSize>,
    ) -> Result<DatasetPlan, DatasetError> {
        let planned = self.planned(&key(grant, split, limit), |_| false)?;
        Ok(DatasetPlan {
            dataset: grant.name.clone(),
            split,
            limit,
            splits: u32::try_from(planned.splits.len()).unwrap_or(u32::MAX),
            files: planned.listing.files.len() as u64,
            bytes: planned.listing.bytes,
            manifest: planned.listing.manifest,
        })
    }

    /// The bytes of split `index` of the dataset as it was planned.
    pub(crate) fn read(&self, grant: &DatasetGrant, plan: &DatasetPlan, index: u32) -> Result<Payload, DatasetError> {
        let planned = self.agreed(grant, plan)?;
        let splits = planned.splits.len();
        let missing = || DatasetError::NoSuchSplit { dataset: grant.name.clone(), splits, index };
        let position = usize::try_from(index).map_err(|_| missing())?;
        let parts = planned.splits.get(position).ok_or_else(missing)?;
        read::read(&planned.listing, plan.split, parts)
    }

    fn agreed(&self, grant: &DatasetGrant, plan: &DatasetPlan) -> Result<Arc<Planned>, DatasetError> {
        let good = |manifest: ContentHash| manifest == plan.manifest;
        let planned = self.planned(&key(grant, plan.split, plan.limit), good)?;
        if good(planned.listing.manifest) {
            Ok(planned)
        } else {
            Err(DatasetError::Changed { dataset: grant.name.clone() })
        }
    }

    /// The cached listing if `good` says so, else a fresh one.
    fn planned(&self, key: &Key, good: impl Fn(ContentHash) -> bool) -> Result<Arc<Planned>, DatasetError> {
        let slot = self.slot(key);
        let mut cached = lock(&slot);
        if let Some(planned) = cached.as_ref().filter(|planned| good(planned.listing.manifest)) {
            return Ok(Arc::clone(planned));
        }
        let listing = Listing::read(&key.location, &key.include, key.limit)?;
        let splits = cut(&listing.files, key.split)?;
        let planned = Arc::new(Planned { listing, splits });
        *cached = Some(Arc::clone(&planned));
        Ok(planned)
    }

    fn slot(&self, key: &Key) -> Slot {
        let mut cached = lock(&self.cached);
        if let Some((_, slot)) = cached.iter().find(|(other, _)| other == key) {
            return Arc::clone(slot);
        }
        if cached.len() >= CACHED_LISTINGS {
            cached.pop_front();
        }
        let slot = Slot::default();
        cached.push_back((key.clone(), Arc::clone(&slot)));
        slot
    }
}

fn key(grant: &DatasetGrant, split: ByteSize, limit: Option<ByteSize>) -> Key {
    Key { location: grant.location.clone(), include: grant.include.clone(), split, limit }
}

#[cfg(test)]
mod tests;
