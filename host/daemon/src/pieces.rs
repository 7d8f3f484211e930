//! Partitions on the wire: cut into pieces that share chunks, and put together again.
//!
//! Hosts send them to each other and to the scheduler in the same form. A chunk has up to 256 KiB: many small
//! partitions, or a part of a large one, whose bytes are slices of its mapping and not copies.

use std::vec;

use bytes::Bytes;
use partita_sandbox::Payload;
use partita_types::{ContentHash, OutputInfo, PartitionId, StoredPartition};

use crate::payload::PayloadBuilder;

/// Bytes of a chunk. Measured best for gRPC over TLS.
const CHUNK: usize = 256 << 10;
/// Pieces of a chunk; empty partitions have no bytes to count.
const MAX_PIECES: usize = 4096;

/// A part of the partition at `position` of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) position: u32,
    pub(crate) data: Bytes,
    /// The last one of this partition.
    pub(crate) end: bool,
    /// There is no such partition.
    pub(crate) missing: bool,
}

/// Cuts partitions into chunks of pieces, one chunk at a time.
#[derive(Debug)]
pub(crate) struct Pieces {
    payloads: vec::IntoIter<Option<Payload>>,
    position: u32,
    /// What is left of the partition before `position`.
    rest: Option<Bytes>,
}

impl Pieces {
    /// Of partitions in the order of a list; `None` where there is none.
    pub(crate) fn new(payloads: Vec<Option<Payload>>) -> Self {
        Self { payloads: payloads.into_iter(), position: 0, rest: None }
    }

    /// The next piece of at most `room` bytes.
    fn piece(&mut self, room: usize) -> Option<Piece> {
        let mut rest = match self.rest.take() {
            Some(rest) => rest,
            None => {
                let payload = self.payloads.next()?;
                self.position += 1;
                // A partition that cannot be mapped cannot be had here: the same to who asks.
                match payload.and_then(|payload| payload.bytes().ok()) {
                    Some(bytes) => bytes,
                    None => return Some(self.at(Bytes::new(), true, true)),
                }
            }
        };
        let data = rest.split_to(rest.len().min(room));
        let end = rest.is_empty();
        if !end {
            self.rest = Some(rest);
        }
        Some(self.at(data, end, false))
    }

    fn at(&self, data: Bytes, end: bool, missing: bool) -> Piece {
        Piece { position: self.position - 1, data, end, missing }
    }
}

impl Iterator for Pieces {
    type Item = Vec<Piece>;

    fn next(&mut self) -> Option<Vec<Piece>> {
        let mut chunk = Vec::new();
        let mut room = CHUNK;
        while room > 0 && chunk.len() < MAX_PIECES {
            let Some(piece) = self.piece(room) else { break };
            room -= piece.data.len();
            chunk.push(piece);
        }
        (!chunk.is_empty()).then_some(chunk)
    }
}

/// What arrived is not what was announced.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PieceError {
    #[error("piece {position} came where piece {expected} of {count} was expected")]
    Order { position: u32, expected: usize, count: usize },
    #[error("partition {id} is not what was announced")]
    Content {
        id: PartitionId,
        #[source]
        source: std::io::Error,
    },
    #[error("partition {id} has hash {found}, not {expected}")]
    Hash { id: PartitionId, found: ContentHash, expected: ContentHash },
}

/// Puts partitions together. Sizes and hashes are known beforehand and checked.
#[derive(Debug)]
pub(crate) struct Assembler<'a> {
    wanted: &'a [StoredPartition],
    /// One for each partition that is complete.
    done: Vec<Option<Payload>>,
    open: Option<PayloadBuilder>,
}

impl<'a> Assembler<'a> {
    /// For these partitions, in this order.
    pub(crate) fn new(wanted: &'a [StoredPartition]) -> Self {
        Self { wanted, done: Vec::with_capacity(wanted.len()), open: None }
    }

    /// Takes the next piece.
    pub(crate) fn accept(&mut self, piece: &Piece) -> Result<(), PieceError> {
        let expected = self.done.len();
        let wanted = self.wanted.get(expected).filter(|_| usize::try_from(piece.position) == Ok(expected));
        let Some(wanted) = wanted else {
            return Err(PieceError::Order { position: piece.position, expected, count: self.wanted.len() });
        };
        if piece.missing {
            self.open = None;
            self.done.push(None);
            return Ok(());
        }
        let content = |source| PieceError::Content { id: wanted.id, source };
        let mut builder = match self.open.take() {
            Some(builder) => builder,
            None => PayloadBuilder::new(wanted.info.size.0).map_err(content)?,
        };
        builder.write(&piece.data).map_err(content)?;
        if !piece.end {
            self.open = Some(builder);
            return Ok(());
        }
        let (payload, OutputInfo { hash, .. }) = builder.finish().map_err(content)?;
        if hash != wanted.info.hash {
            return Err(PieceError::Hash { id: wanted.id, found: hash, expected: wanted.info.hash });
        }
        self.done.push(Some(payload));
        Ok(())
    }

    /// The partitions that are complete; fewer than wanted if the stream ended early.
    pub(crate) fn finish(self) -> Vec<Option<Payload>> {
        self.done
    }
}

#[cfg(test)]
mod tests {
    use partita_types::{ArrayIndex, AttemptId, AttemptNumber, ByteSize, JobId, TaskId, TenantId};

    use super::*;

    fn stored(index: u32, content: &[u8]) -> StoredPartition {
        let task = TaskId { job: JobId { tenant: TenantId(1), number: 1 }, array: ArrayIndex(0), index };
        let id = PartitionId { attempt: AttemptId { task, number: AttemptNumber::FIRST }, output: 0 };
        let hash = ContentHash(*blake3::hash(content).as_bytes());
        StoredPartition { id, info: OutputInfo { size: ByteSize(content.len() as u64), hash } }
    }

    fn payload(content: &[u8]) -> Payload {
        Payload::new(Bytes::copy_from_slice(content)).unwrap()
    }

    #[test]
    fn partitions_arrive_as_they_left_and_small_ones_share_chunks() {
        let contents: Vec<Vec<u8>> = [0, 10, 70_000, 600_000, 1, 0].iter().map(|size| vec![9_u8; *size]).collect();
        let wanted: Vec<_> = contents.iter().zip(0..).map(|(content, index)| stored(index, content)).collect();
        let mut payloads: Vec<_> = contents.iter().map(|content| Some(payload(content))).collect();
        payloads[1] = None;
        let chunks: Vec<_> = Pieces::new(payloads).collect();
        assert_eq!(chunks.len(), 3, "670 KiB in chunks of 256 KiB");
        let mut assembler = Assembler::new(&wanted);
        chunks.iter().flatten().for_each(|piece| assembler.accept(piece).unwrap());
        let sizes: Vec<_> = assembler.finish().into_iter().map(|p| p.map(|p| p.bytes().unwrap().len())).collect();
        assert_eq!(sizes, [Some(0), None, Some(70_000), Some(600_000), Some(1), Some(0)]);
    }

    #[test]
    fn a_chunk_of_empty_partitions_has_a_bound() {
        let chunks: Vec<_> = Pieces::new(vec![Some(payload(b"")); 10_000]).map(|chunk| chunk.len()).collect();
        assert_eq!(chunks, [4096, 4096, 1808]);
    }

    fn first_error(wanted: &[StoredPartition], pieces: &[Piece]) -> String {
        let mut assembler = Assembler::new(wanted);
        pieces.iter().find_map(|piece| assembler.accept(piece).err()).unwrap().to_string()
    }

    #[test]
    fn other_bytes_than_announced_are_refused() {
        let wanted = [stored(0, b"good")];
        let piece =
            |data: &'static [u8], end| Piece { position: 0, data: Bytes::from_static(data), end, missing: false };
        assert!(first_error(&wanted, &[piece(b"evil", true)]).contains("has hash"));
        assert!(first_error(&wanted, &[piece(b"good and more", true)]).contains("not what was announced"));
        assert!(first_error(&wanted, &[piece(b"go", true)]).contains("not what was announced"));
    }

    #[test]
    fn pieces_that_nobody_asked_for_are_refused() {
        let wanted = [stored(0, b"a")];
        let piece = |position| Piece { position, data: Bytes::from_static(b"a"), end: true, missing: false };
        assert_eq!(first_error(&wanted, &[piece(1)]), "piece 1 came where piece 0 of 1 was expected");
        assert_eq!(first_error(&wanted, &[piece(0), piece(1)]), "piece 1 came where piece 1 of 1 was expected");
    }
}
