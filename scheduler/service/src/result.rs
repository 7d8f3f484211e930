//! The bytes of outputs, from the hosts that have them through the scheduler to a client.
//!
//! The core says where outputs are, as they become available. Up to [`HOSTS_AT_ONCE`] hosts send beside each other,
//! each through a relay with a short queue, so a slow client slows the hosts down and nothing piles up here. Every
//! output is checked against its size and hash; nothing is believed of a host.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use futures_util::{Stream, TryStreamExt};
use partita_core::{Core, Reply, Request};
use partita_protocol::client::{ResultChunk, ResultPiece};
use partita_protocol::host::scheduler_message::Message;
use partita_protocol::host::{PartitionList, RelayPiece, SchedulerMessage, SendOutputs};
use partita_types::{ArrayIndex, HostId, HostName, JobId, PartitionId, StoredPartition, Timestamp};
use tokio::sync::mpsc;
use tonic::Status;
use tracing::warn;

use crate::driver::Handle;
use crate::metrics::Metrics;
use crate::relay::{IDLE, OPEN_WITHIN, Relays};
use crate::status::unexpected;

/// Hosts that send to one client at the same time.
const HOSTS_AT_ONCE: usize = 4;
/// Outputs asked for at once of one host; bounds the message and the hashes in progress.
const OUTPUTS_AT_ONCE: usize = 1_024;
/// Longest wait for a task that has not finished; clients ask again.
const AVAILABLE: Duration = Duration::from_secs(24 * 3_600);
/// How often outputs may turn out to be lost within one call.
const LOSSES: u32 = 8;
/// While nothing comes, how often it is looked whether the host's session is still the one in which it was asked.
const LOOK: Duration = Duration::from_millis(250);
/// Chunks between the relays and the client's stream.
const QUEUE: usize = 4;

/// Which output of which array.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) job: JobId,
    pub(crate) array: ArrayIndex,
    pub(crate) output: u32,
}

/// One call for results.
pub(crate) struct Outputs {
    handle: Handle,
    relays: Relays,
    metrics: Metrics,
    wanted: Wanted,
}

/// What one host shall send.
struct Load {
    host: HostId,
    name: HostName,
    partitions: Vec<StoredPartition>,
}

type Sink = mpsc::Sender<Result<ResultChunk, Status>>;

fn gone() -> Status {
    Status::cancelled("the client is gone")
}

impl Outputs {
    pub(crate) fn new(handle: Handle, relays: Relays, metrics: Metrics, wanted: Wanted) -> Self {
        Self { handle, relays, metrics, wanted }
    }

    /// The outputs of `tasks`. Dropping the stream ends everything that was begun for it.
    pub(crate) fn stream(self, tasks: Range<u32>) -> impl Stream<Item = Result<ResultChunk, Status>> + Send {
        let (sink, chunks) = mpsc::channel(QUEUE);
        let work = async move {
            if let Err(status) = self.send_all(tasks, &sink).await {
                // The client may be gone, which is then the reason.
                let _ = sink.send(Err(status)).await;
            }
        };
        // The work is driven by reading the stream, so it ends with it.
        let chunks = stream::unfold(chunks, |mut chunks| async move { Some((chunks.recv().await?, chunks)) });
        let work = stream::once(work).filter_map(|()| async { None });
        stream::select(work, chunks)
    }

    async fn send_all(&self, tasks: Range<u32>, sink: &Sink) -> Result<(), Status> {
        let mut ranges = vec![tasks];
        let mut losses = 0;
        while let Some(range) = ranges.pop() {
            if range.is_empty() {
                continue;
            }
            let located = self.locate(range.clone()).await?;
            let next = located.last().map_or(range.start, |(_, last)| last.id.attempt.task.index + 1);
            ranges.push(next..range.end);
            let lost = self.send_located(located, sink).await?;
            if !lost.is_empty() {
                losses += 1;
                if losses > LOSSES {
                    return Err(Status::unavailable("outputs are lost again and again; try later"));
                }
                ranges.extend(lost.into_iter().map(|index| index..index + 1));
            }
        }
        Ok(())
    }

    /// Where the outputs of the first tasks of `range` are; at least one, in order and without gaps.
    async fn locate(&self, range: Range<u32>) -> Result<Vec<(HostId, StoredPartition)>, Status> {
        let Wanted { job, array, output } = self.wanted;
        let request = Request::Locate { job, array, tasks: range.clone(), output };
        let mut located = match self.handle.request(request, AVAILABLE).await? {
            Reply::Located(located) => located,
            other => return Err(unexpected(&other)),
        };
        let in_order = range.zip(&located).take_while(|(index, (_, found))| found.id.attempt.task.index == *index);
        let length = in_order.count();
        located.truncate(length);
        if located.is_empty() { Err(Status::internal("the scheduler located other outputs")) } else { Ok(located) }
    }

    /// Sends what was located. Returns the tasks whose outputs the hosts do not have after all.
    async fn send_located(&self, located: Vec<(HostId, StoredPartition)>, sink: &Sink) -> Result<Vec<u32>, Status> {
        let names: BTreeMap<HostId, HostName> =
            self.handle.query(|core| core.hosts().into_iter().map(|host| (host.id, host.name)).collect()).await?;
        let mut by_host: BTreeMap<HostId, Vec<StoredPartition>> = BTreeMap::new();
        for (host, partition) in located {
            by_host.entry(host).or_default().push(partition);
        }
        let loads: Vec<Load> = by_host
            .into_iter()
            .filter_map(|(host, partitions)| Some((host, names.get(&host)?.clone(), partitions)))
            .flat_map(|(host, name, partitions)| {
                let loads = partitions.chunks(OUTPUTS_AT_ONCE).map(|part| Load {
                    host,
                    name: name.clone(),
                    partitions: part.to_vec(),
                });
                loads.collect::<Vec<_>>()
            })
            .collect();
        let sent = stream::iter(loads).map(|load| self.send_load(load, sink)).buffer_unordered(HOSTS_AT_ONCE);
        let lost: Vec<Vec<u32>> = sent.try_collect().await?;
        Ok(lost.concat())
    }

    /// Since when the session of a host lasts that is open now.
    async fn session_of(&self, host: HostId) -> Result<Option<Timestamp>, Status> {
        let attached = move |core: &Core| {
            let view = core.hosts().into_iter().find(|view| view.id == host && view.state == "attached")?;
            Some(view.attached)
        };
        Ok(self.handle.query(attached).await?)
    }

    /// Has one host send its part.
    async fn send_load(&self, load: Load, sink: &Sink) -> Result<Vec<u32>, Status> {
        let (relay, mut pieces) = self.relays.download(load.name.clone());
        let partitions = Some(PartitionList::from_stored(&load.partitions));
        let message = Message::SendOutputs(SendOutputs { relay: relay.number, partitions });
        let mut delivery = Delivery::new(&load.partitions);
        let session = self.session_of(load.host).await?;
        let mut broken = false;
        if self.handle.tell(load.host, SchedulerMessage { message: Some(message) }).await? {
            let (mut limit, mut waited) = (OPEN_WITHIN, Duration::ZERO);
            while waited < limit {
                let chunk = match tokio::time::timeout(LOOK, pieces.recv()).await {
                    Ok(Some(chunk)) => chunk,
                    Ok(None) => break,
                    Err(_) if self.session_of(load.host).await? == session => {
                        waited += LOOK;
                        continue;
                    }
                    Err(_) => {
                        broken = true;
                        break;
                    }
                };
                (limit, waited) = (IDLE, Duration::ZERO);
                let chunk = delivery.take(chunk).inspect_err(|status| {
                    warn!(host = %load.name, error = status.message(), "a host sent something else than its outputs");
                })?;
                let bytes = chunk.pieces.iter().map(|piece| piece.data.len() as u64).sum();
                self.metrics.relayed_bytes.inc_by(bytes);
                if !chunk.pieces.is_empty() {
                    sink.send(Ok(chunk)).await.map_err(|_| gone())?;
                }
            }
        }
        let missing = delivery.end()?;
        // Of a host whose session broke meanwhile it is not known what it still has.
        if !missing.is_empty() && !broken {
            warn!(host = %load.name, job = self.wanted.job.number, outputs = missing.len(), "a host lacks outputs");
            self.handle.lost(load.host, missing.clone()).await?;
        }
        Ok(missing.into_iter().map(|partition| partition.attempt.task.index).collect())
    }
}

/// What has arrived of one load.
struct Delivery<'a> {
    wanted: &'a [StoredPartition],
    states: Vec<State>,
}

enum State {
    Expected,
    Begun { received: u64, hash: Box<blake3::Hasher> },
    Complete,
    Missing,
}

impl<'a> Delivery<'a> {
    fn new(wanted: &'a [StoredPartition]) -> Self {
        Self { wanted, states: wanted.iter().map(|_| State::Expected).collect() }
    }

    /// Checks pieces of a host and turns them into pieces for the client.
    fn take(&mut self, pieces: Vec<RelayPiece>) -> Result<ResultChunk, Status> {
        let mut chunk = ResultChunk::default();
        for piece in pieces {
            let position = usize::try_from(piece.position).unwrap_or(usize::MAX);
            let (Some(wanted), Some(state)) = (self.wanted.get(position), self.states.get_mut(position)) else {
                return Err(Status::internal("a host sent an output that was not asked for"));
            };
            if piece.missing {
                if !matches!(state, State::Expected) {
                    return Err(Status::unavailable("an output was lost on its way; ask again"));
                }
                *state = State::Missing;
                continue;
            }
            *state = received(std::mem::replace(state, State::Missing), wanted, &piece)?;
            let index = wanted.id.attempt.task.index;
            chunk.pieces.push(ResultPiece { index, data: piece.data, end: piece.end });
        }
        Ok(chunk)
    }

    /// The host sends no more: the partitions that it does not have, unless one stopped in the middle.
    fn end(self) -> Result<Vec<PartitionId>, Status> {
        if self.states.iter().any(|state| matches!(state, State::Begun { .. })) {
            return Err(Status::unavailable("a host was lost while it sent an output; ask again"));
        }
        let missing = self.wanted.iter().zip(&self.states).filter(|(_, state)| !matches!(state, State::Complete));
        Ok(missing.map(|(partition, _)| partition.id).collect())
    }
}

/// The state of an output after a piece of it.
fn received(state: State, wanted: &StoredPartition, piece: &RelayPiece) -> Result<State, Status> {
    let (received, mut hash) = match state {
        State::Expected => (0, Box::default()),
        State::Begun { received, hash } => (received, hash),
        State::Complete | State::Missing => return Err(Status::internal("a host sent an output twice")),
    };
    let received = received + piece.data.len() as u64;
    hash.update(&piece.data);
    let info = wanted.info;
    if received > info.size.0 || (piece.end && (received < info.size.0 || *hash.finalize().as_bytes() != info.hash.0)) {
        return Err(Status::data_loss(format!(
            "output {} of task {} arrived with another content than it had; ask again",
            wanted.id.output, wanted.id.attempt.task
        )));
    }
    Ok(if piece.end { State::Complete } else { State::Begun { received, hash } })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use partita_types::{AttemptId, AttemptNumber, ByteSize, ContentHash, OutputInfo, TaskId, TenantId};
    use tonic::Code;

    use super::*;

    fn stored(index: u32, bytes: &[u8]) -> StoredPartition {
        let job = JobId { tenant: TenantId(1), number: 1 };
        let task = TaskId { job, array: ArrayIndex(0), index };
        let attempt = AttemptId { task, number: AttemptNumber::FIRST };
        let info =
            OutputInfo { size: ByteSize(bytes.len() as u64), hash: ContentHash(*blake3::hash(bytes).as_bytes()) };
        StoredPartition { id: PartitionId { attempt, output: 0 }, info }
    }

    fn piece(position: u32, data: &'static [u8], end: bool) -> RelayPiece {
        RelayPiece { position, data: Bytes::from_static(data), end, missing: false }
    }

    #[test]
    fn outputs_arrive_whole_or_are_refused() {
        let wanted = [stored(4, b"hello"), stored(5, b"")];
        let mut delivery = Delivery::new(&wanted);
        let chunk = delivery.take(vec![piece(0, b"he", false), piece(1, b"", true), piece(0, b"llo", true)]).unwrap();
        assert_eq!(chunk.pieces.iter().map(|piece| piece.index).collect::<Vec<_>>(), [4, 5, 4]);
        assert_eq!(delivery.end().unwrap(), []);
        for bad in [
            vec![piece(0, b"hellx", true)],
            vec![piece(0, b"hell", true)],
            vec![piece(0, b"hello!", false)],
            vec![piece(2, b"", true)],
            vec![piece(1, b"", true), piece(1, b"", true)],
        ] {
            assert!(Delivery::new(&wanted).take(bad.clone()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_did_not_come_is_missing_and_what_came_in_part_is_an_error() {
        let wanted = [stored(4, b"hello"), stored(5, b"world")];
        let missing = RelayPiece { position: 0, missing: true, ..Default::default() };
        let mut delivery = Delivery::new(&wanted);
        delivery.take(vec![missing]).unwrap();
        assert_eq!(delivery.end().unwrap(), [wanted[0].id, wanted[1].id]);
        let mut delivery = Delivery::new(&wanted);
        delivery.take(vec![piece(0, b"hel", false)]).unwrap();
        assert_eq!(delivery.end().unwrap_err().code(), Code::Unavailable);
    }
}
