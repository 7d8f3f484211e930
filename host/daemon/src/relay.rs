//! Results and uploads: bytes between a client and this host, passed on by the scheduler.

use std::sync::Arc;
use std::time::Duration;

use partita_protocol::host::{PartitionList, RelayChunk, RelayPiece, RelayRequest, SendOutputs, StoreUpload};
use partita_sandbox::Payload;
use partita_types::{ByteSize, PartitionId, StoredPartition};

use crate::error;
use crate::host::Host;
use crate::payload::PayloadBuilder;
use crate::pieces::{Piece, Pieces};

/// Longest wait for the next part of an upload.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(60);

/// Sends outputs that a client asked for. What is not here is said to be missing.
pub(crate) async fn send(host: &Arc<Host>, order: SendOutputs) -> Result<(), String> {
    let ids = order.partitions.unwrap_or_default().ids().map_err(|fault| fault.to_string())?;
    let relay = order.relay;
    let chunk = move |pieces: Vec<Piece>| RelayChunk { relay, pieces: pieces.into_iter().map(wire).collect() };
    let mut chunks = Pieces::new(host.store.get_many(ids)).map(chunk).peekable();
    // The first chunk names the relay, even if there is nothing to send.
    let first = chunks.peek().is_none().then(|| RelayChunk { relay, pieces: Vec::new() });
    let stream = tokio_stream::iter(first.into_iter().chain(chunks));
    let sent = host.uplink.bulk().send_result(stream).await;
    sent.map(|_| ()).map_err(|status| error::status(&status))
}

fn wire(piece: Piece) -> RelayPiece {
    RelayPiece { position: piece.position, data: piece.data, end: piece.end, missing: piece.missing }
}

/// Fetches what a client uploads and keeps it. The list in the order has the partition and its announced size.
pub(crate) async fn store(host: &Arc<Host>, order: &StoreUpload) -> Result<StoredPartition, String> {
    let (id, size) = announced(order.partition.as_ref())?;
    host.store.has_room(size).map_err(|full| full.to_string())?;
    let mut builder = PayloadBuilder::new(size.0).map_err(|fault| format!("no memory for the upload: {fault}"))?;
    let request = RelayRequest { relay: order.relay };
    let answer = host.uplink.bulk().receive_upload(request).await;
    let mut chunks = answer.map_err(|status| error::status(&status))?.into_inner();
    loop {
        let next = tokio::time::timeout(CHUNK_TIMEOUT, chunks.message()).await;
        let next = next.map_err(|_| format!("nothing came for {} s", CHUNK_TIMEOUT.as_secs()))?;
        let Some(chunk) = next.map_err(|status| error::status(&status))? else { break };
        for piece in &chunk.pieces {
            builder.write(&piece.data).map_err(|fault| format!("the upload has {fault}"))?;
        }
    }
    let (payload, info) = builder.finish().map_err(|fault| format!("the upload has {fault}"))?;
    let payload: Payload = payload;
    host.store.insert_one(id, payload, info).map_err(|full| full.to_string())?;
    Ok(StoredPartition { id, info })
}

fn announced(list: Option<&PartitionList>) -> Result<(PartitionId, ByteSize), String> {
    let list = list.ok_or("the order has no partition")?;
    let ids = list.ids().map_err(|fault| fault.to_string())?;
    match (ids.as_slice(), list.sizes.as_slice()) {
        ([id], [size]) => Ok((*id, ByteSize(*size))),
        _ => Err(format!("the order has {} partitions and {} sizes, not one of each", ids.len(), list.sizes.len())),
    }
}
