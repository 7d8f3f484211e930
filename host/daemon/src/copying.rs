//! Keeping copies of partitions of other hosts because the scheduler wants them here: fetched, verified, stored, told.
//!
//! What of that is kept is decided by [`partita_host_logic::copying`], under one lock with what is dropped, so that the
//! order in which the scheduler speaks is the order in which it happens.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use partita_host_logic::copying::Copying;
use partita_protocol::DecodeError;
use partita_protocol::host::{Copied, CopyPartitions, PartitionList};
use partita_sandbox::Payload;
use partita_types::{ByteSize, MoveId, OutputInfo, PartitionId, Source, StoredPartition};

use crate::host::Host;
use crate::store::Removed;
use crate::sync::lock;

/// Orders to copy, beside what is stored.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    copying: Mutex<Copying>,
}

/// An order that was understood.
#[derive(Debug)]
pub(crate) struct CopyOrder {
    order: MoveId,
    source: Source,
    partitions: Vec<StoredPartition>,
}

impl TryFrom<CopyPartitions> for CopyOrder {
    type Error = DecodeError;

    fn try_from(order: CopyPartitions) -> Result<Self, DecodeError> {
        let source = order.source.ok_or(DecodeError::Missing { message: "an order to copy", field: "source" })?;
        let partitions = order.partitions.unwrap_or_default().stored()?;
        Ok(Self { order: MoveId(order.order), source: source.try_into()?, partitions })
    }
}

/// An order came. What follows in the session comes after it.
pub(crate) fn begin(host: &Host, order: &CopyOrder) {
    lock(&host.copies.copying).begin(order.order, &order.partitions);
}

/// Deletes partitions, and does not keep copies of them that are under way. What is returned takes a while to be freed.
pub(crate) fn drop_partitions(host: &Host, ids: &[PartitionId]) -> Removed {
    let mut copying = lock(&host.copies.copying);
    copying.dropped(ids);
    host.store.take_many(ids)
}

/// The session ended: what it ordered is not kept.
pub(crate) fn forget_all(host: &Host) {
    lock(&host.copies.copying).forget_all();
}

/// Carries an order out. `None` if nobody waits for an answer any more.
pub(crate) async fn carry_out(host: &Arc<Host>, order: CopyOrder) -> Option<Copied> {
    let CopyOrder { order, source, partitions } = order;
    let size = partitions.iter().fold(ByteSize::ZERO, |sum, partition| sum.saturating_add(partition.info.size));
    let fetched = match host.reserve_inputs(size).await {
        Some(_memory) => host.fetcher.fetch(&source, &partitions).await,
        None => return None,
    };
    let (kept, full) = keep(host, order, &partitions, &fetched.payloads)?;
    // They count as stored from now on; whatever else the fetch has kept of them would count twice.
    let ids: Vec<PartitionId> = kept.iter().map(|partition| partition.id).collect();
    host.fetcher.forget(&ids);
    let short = || format!("host {} has {} of {} partitions", source.name, kept.len(), partitions.len());
    let problem = full.or(fetched.problem).or_else(|| (kept.len() < partitions.len()).then(short));
    let partitions = Some(PartitionList::from_stored(&kept));
    Some(Copied { order: order.0, partitions, problem: problem.unwrap_or_default() })
}

/// Stores what arrived and is still wanted. Returns that, and why the rest was not stored, if it could not be.
fn keep(
    host: &Host,
    order: MoveId,
    wanted: &[StoredPartition],
    payloads: &HashMap<PartitionId, Payload>,
) -> Option<(Vec<StoredPartition>, Option<String>)> {
    // Every payload was checked against the size and hash of the order when it came.
    let came = wanted.iter().filter(|partition| payloads.contains_key(&partition.id));
    let known: HashMap<PartitionId, OutputInfo> = came.map(|partition| (partition.id, partition.info)).collect();
    let mut copying = lock(&host.copies.copying);
    let mut kept = copying.finish(order, |id| known.get(&id).copied())?;
    let mut full = None;
    kept.retain(|partition| {
        let Some(payload) = payloads.get(&partition.id) else { return false };
        match host.store.insert_one(partition.id, payload.clone(), partition.info) {
            Ok(()) => true,
            Err(fault) => {
                full = Some(fault.to_string());
                false
            }
        }
    });
    Some((kept, full))
}
