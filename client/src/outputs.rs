//! The bytes of outputs: streamed, with no more in memory than the connection holds, or collected within a bound.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use partita_protocol::client as wire;
use partita_types::{ArrayIndex, ByteSize};
use tonic::Streaming;

use crate::error::Error;
use crate::transport::{Transport, jobs};

const OPERATION: &str = "read the result";
/// Most bytes that the convenience calls collect in memory for one output.
pub(crate) const COLLECTED_MAX: ByteSize = ByteSize::gib(1);
/// Outputs requested ahead where the order of tasks is kept; each waits in its own flow-controlled stream.
const AHEAD: usize = 4;

/// Which outputs to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputSelection {
    /// The array.
    pub array: ArrayIndex,
    /// Which of its tasks; `None` for all.
    pub tasks: Option<Range<u32>>,
    /// Which output of each.
    pub output: u32,
}

impl OutputSelection {
    /// Output 0 of all tasks of an array.
    #[must_use]
    pub const fn all(array: ArrayIndex) -> Self {
        Self { array, tasks: None, output: 0 }
    }

    /// Output 0 of one task.
    #[must_use]
    pub const fn task(array: ArrayIndex, index: u32) -> Self {
        Self { array, tasks: Some(index..index.saturating_add(1)), output: 0 }
    }

    /// Another output of the same tasks.
    #[must_use]
    pub const fn output(mut self, output: u32) -> Self {
        self.output = output;
        self
    }
}

/// A piece of an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Of which task.
    pub index: u32,
    /// The next bytes of its output; may be empty.
    pub data: Bytes,
    /// Whether it is the last piece of that output.
    pub end: bool,
}

/// Outputs as they arrive: the pieces of one output in order, different outputs in any order.
///
/// Reading slowly slows the cluster down; nothing piles up here. A broken connection ends the stream with an error.
#[derive(Debug)]
pub struct Outputs {
    transport: Transport,
    stream: Streaming<wire::ResultChunk>,
    ready: std::vec::IntoIter<wire::ResultPiece>,
}

impl Outputs {
    /// Asks for outputs. Answered when the first of them is available.
    pub(crate) async fn open(
        transport: &Transport,
        job: u32,
        tenant: &str,
        selection: &OutputSelection,
    ) -> Result<Self, Error> {
        let (first, count) = match &selection.tasks {
            None => (0, 0),
            Some(tasks) => (tasks.start, tasks.end.saturating_sub(tasks.start)),
        };
        let request = wire::ResultRequest {
            job,
            array: selection.array.0,
            first,
            count,
            output: selection.output,
            tenant: tenant.to_owned(),
        };
        // Outputs that were lost are computed again before the answer begins, so there is no deadline for the request.
        let stream =
            transport
                .call_without_deadline(OPERATION, request, |channel, request| async move {
                    jobs(channel).result(request).await
                })
                .await?;
        Ok(Self { transport: transport.clone(), stream, ready: Vec::new().into_iter() })
    }

    /// The next piece, or `None` after the last.
    ///
    /// # Errors
    /// If the cluster refuses or the connection breaks.
    /// # Cancel safety
    /// Dropping the future loses no piece.
    pub async fn next(&mut self) -> Result<Option<Piece>, Error> {
        loop {
            if let Some(piece) = self.ready.next() {
                return Ok(Some(Piece { index: piece.index, data: piece.data, end: piece.end }));
            }
            match self.stream.message().await {
                Ok(Some(chunk)) => self.ready = chunk.pieces.into_iter(),
                Ok(None) => return Ok(None),
                Err(status) => return Err(self.transport.error(OPERATION, &status)),
            }
        }
    }

    /// The same as a [`Stream`], which ends after the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Piece, Error>> + Send {
        stream::unfold(Some(self), |outputs| async {
            let mut outputs = outputs?;
            match outputs.next().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(outputs))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// Collects one output of at most [`COLLECTED_MAX`].
    pub(crate) async fn collect_one(mut self, index: u32, output: u32) -> Result<Bytes, Error> {
        let mut collected = Collector::new(output, COLLECTED_MAX);
        while let Some(piece) = self.next().await? {
            if let Some((_, bytes)) = collected.take(piece)? {
                return Ok(bytes);
            }
        }
        Err(Error::malformed(OPERATION, format!("the answer ended before output {output} of task {index} did")))
    }

    /// Collects outputs whole as they get complete.
    pub(crate) fn complete(self, output: u32) -> impl Stream<Item = Result<(u32, Bytes), Error>> + Send {
        let state = Some((self, Collector::new(output, COLLECTED_MAX)));
        stream::unfold(state, |state| async {
            let (mut outputs, mut collector) = state?;
            loop {
                let next = match outputs.next().await {
                    Ok(Some(piece)) => collector.take(piece),
                    Ok(None) => return None,
                    Err(error) => Err(error),
                };
                match next {
                    Ok(None) => {}
                    Ok(Some(whole)) => return Some((Ok(whole), Some((outputs, collector)))),
                    Err(error) => return Some((Err(error), None)),
                }
            }
        })
    }
}

/// The outputs of tasks one after the other in their order, as pieces. A few are requested ahead.
pub(crate) fn in_order(
    transport: Transport,
    job: u32,
    tenant: String,
    array: ArrayIndex,
    tasks: Range<u32>,
    output: u32,
) -> impl Stream<Item = Result<Piece, Error>> + Send {
    let source = Arc::new(Source { transport, job, tenant, array, output });
    stream::iter(tasks)
        .map(move |index| {
            let source = Arc::clone(&source);
            async move { source.open(index).await.map(|outputs| one_output(source, index, outputs)) }
        })
        .buffered(AHEAD)
        .try_flatten()
}

/// Where outputs come from that are requested one by one.
struct Source {
    transport: Transport,
    job: u32,
    tenant: String,
    array: ArrayIndex,
    output: u32,
}

impl Source {
    async fn open(&self, index: u32) -> Result<Outputs, Error> {
        let selection = OutputSelection::task(self.array, index).output(self.output);
        Outputs::open(&self.transport, self.job, &self.tenant, &selection).await
    }
}

/// The pieces of one output. A stream that waited too long for its turn may have been given up by the cluster, so it is
/// requested again as long as nothing of it was handed on; after that nobody could tell whether the rest fits.
fn one_output(source: Arc<Source>, index: u32, outputs: Outputs) -> impl Stream<Item = Result<Piece, Error>> + Send {
    stream::try_unfold((source, outputs, true), move |(source, mut outputs, mut untouched)| async move {
        loop {
            match outputs.next().await {
                Ok(Some(piece)) => return Ok(Some((piece, (source, outputs, false)))),
                Ok(None) => return Ok(None),
                Err(error) if untouched && error.retryable() => {
                    untouched = false;
                    outputs = source.open(index).await?;
                }
                Err(error) => return Err(error),
            }
        }
    })
}

/// Puts outputs together from pieces that may be mixed, within a bound on all bytes held.
struct Collector {
    output: u32,
    limit: ByteSize,
    held: u64,
    parts: BTreeMap<u32, BytesMut>,
}

impl Collector {
    fn new(output: u32, limit: ByteSize) -> Self {
        Self { output, limit, held: 0, parts: BTreeMap::new() }
    }

    /// Takes in a piece; gives the output that it completes.
    fn take(&mut self, piece: Piece) -> Result<Option<(u32, Bytes)>, Error> {
        self.held = self.held.saturating_add(piece.data.len() as u64);
        if self.held > self.limit.0 {
            return Err(Error::TooLarge { index: piece.index, output: self.output, limit: self.limit });
        }
        if piece.end && !self.parts.contains_key(&piece.index) {
            self.held = self.held.saturating_sub(piece.data.len() as u64);
            return Ok(Some((piece.index, piece.data)));
        }
        self.parts.entry(piece.index).or_default().extend_from_slice(&piece.data);
        if !piece.end {
            return Ok(None);
        }
        let whole = self.parts.remove(&piece.index).unwrap_or_default().freeze();
        self.held = self.held.saturating_sub(whole.len() as u64);
        Ok(Some((piece.index, whole)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(index: u32, data: &'static str, end: bool) -> Piece {
        Piece { index, data: Bytes::from_static(data.as_bytes()), end }
    }

    #[test]
    fn mixed_pieces_become_whole_outputs() {
        let mut collector = Collector::new(0, ByteSize(100));
        assert_eq!(collector.take(piece(1, "ab", false)).unwrap(), None);
        assert_eq!(collector.take(piece(2, "x", false)).unwrap(), None);
        assert_eq!(collector.take(piece(3, "whole", true)).unwrap(), Some((3, Bytes::from("whole"))));
        assert_eq!(collector.take(piece(1, "cd", true)).unwrap(), Some((1, Bytes::from("abcd"))));
        assert_eq!(collector.take(piece(2, "", true)).unwrap(), Some((2, Bytes::from("x"))));
        assert_eq!(collector.held, 0);
    }

    #[test]
    fn what_is_held_is_bounded_over_all_outputs() {
        let mut collector = Collector::new(5, ByteSize(3));
        assert!(collector.take(piece(1, "ab", false)).is_ok());
        let error = collector.take(piece(2, "cd", false)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "output 5 of task 2 is larger than 3 B, the most that is collected in memory: stream it"
        );
    }
}
