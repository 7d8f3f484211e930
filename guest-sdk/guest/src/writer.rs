//! Outputs as streams, for what should not be in memory at once.

use std::io::{self, Write};
use std::ops::{Index, IndexMut};
use std::rc::Rc;
use std::slice;

use crate::host::Sink;
use crate::host::memory::Memory;
use crate::partition::partition_of;

/// Collected before the host is called.
const BUFFER: usize = 64 << 10;
/// What all buffers of one task may take together.
const ALL_BUFFERS: usize = 4 << 20;
/// Below this a buffer does not pay.
const SMALLEST_BUFFER: usize = 1 << 10;

/// Output 0, written piece by piece.
///
/// It is buffered, and complete as soon as it is dropped.
///
/// ```
/// # extern crate partita_guest as partita;
/// use std::io::Write as _;
/// use partita::prelude::*;
///
/// /// Writes the numbers below a limit, one per line.
/// #[partita::task]
/// fn numbers(limit: Args<u32>, mut out: Writer) -> Result<()> {
///     for number in 0..*limit {
///         writeln!(out, "{number}")?;
///     }
///     Ok(())
/// }
///
/// let (out, written) = Writer::in_memory();
/// numbers(Args(3), out).unwrap();
/// assert_eq!(written.bytes(0), b"0\n1\n2\n");
/// ```
pub struct Writer {
    sink: Sink,
    buffer: Vec<u8>,
    capacity: usize,
}

impl Writer {
    pub(crate) fn new(sink: Sink) -> Self {
        Self::with_capacity(sink, BUFFER)
    }

    fn with_capacity(sink: Sink, capacity: usize) -> Self {
        Self { sink, buffer: Vec::new(), capacity }
    }

    /// A writer for tests, and what is written to it.
    #[must_use]
    pub fn in_memory() -> (Self, Written) {
        let memory = Memory::new(Vec::new(), 1);
        (Self::new(Sink::new(memory.clone(), 0)), Written(memory))
    }

    fn send(&mut self) {
        if !self.buffer.is_empty() {
            self.sink.write(&self.buffer);
            self.buffer.clear();
        }
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > self.capacity {
            self.send();
        }
        if bytes.len() >= self.capacity {
            self.sink.write(bytes);
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send();
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.send();
    }
}

/// All outputs of a task, each written piece by piece: the streaming form of a shuffle.
///
/// ```
/// # extern crate partita_guest as partita;
/// use std::io::Write as _;
/// use partita::prelude::*;
///
/// /// Sends every line to the output that its first word belongs to.
/// #[partita::task]
/// fn scatter(text: Text, mut outputs: Writers) -> Result<()> {
///     for line in text.lines() {
///         let key = line.split(' ').next().unwrap_or_default();
///         writeln!(outputs.for_key(key.as_bytes()), "{line}")?;
///     }
///     Ok(())
/// }
///
/// let (outputs, written) = Writers::in_memory(2);
/// scatter(Text::from("a 1\nb 2\na 3"), outputs).unwrap();
/// let home = partita::partition_of(b"a", 2) as usize;
/// assert!(written.text(home).contains("a 1\na 3\n") || written.text(home) == "a 1\nb 2\na 3\n");
/// ```
pub struct Writers(Vec<Writer>);

impl Writers {
    pub(crate) fn new(sinks: Vec<Sink>) -> Self {
        let capacity = (ALL_BUFFERS / sinks.len().max(1)).clamp(SMALLEST_BUFFER, BUFFER);
        Self(sinks.into_iter().map(|sink| Writer::with_capacity(sink, capacity)).collect())
    }

    /// Writers for tests, and what is written to them.
    #[must_use]
    pub fn in_memory(outputs: usize) -> (Self, Written) {
        let memory = Memory::new(Vec::new(), outputs);
        (Self::new(memory.sinks()), Written(memory))
    }

    /// How many outputs there are; never 0 in a job.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no output, which no job has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The output that `key` belongs to, by [`partition_of`].
    ///
    /// # Panics
    /// If there is no output.
    pub fn for_key(&mut self, key: &[u8]) -> &mut Writer {
        let count = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        &mut self.0[partition_of(key, count) as usize]
    }

    /// All of them in order.
    pub fn iter_mut(&mut self) -> slice::IterMut<'_, Writer> {
        self.0.iter_mut()
    }
}

impl Index<usize> for Writers {
    type Output = Writer;

    fn index(&self, output: usize) -> &Writer {
        &self.0[output]
    }
}

impl IndexMut<usize> for Writers {
    fn index_mut(&mut self, output: usize) -> &mut Writer {
        &mut self.0[output]
    }
}

impl<'a> IntoIterator for &'a mut Writers {
    type Item = &'a mut Writer;
    type IntoIter = slice::IterMut<'a, Writer>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

/// What was written to [`Writer::in_memory`] or [`Writers::in_memory`]. Complete as soon as the writers are dropped.
pub struct Written(Rc<Memory>);

impl Written {
    /// The bytes of every output.
    #[must_use]
    pub fn all(&self) -> Vec<Vec<u8>> {
        self.0.outputs()
    }

    /// The bytes of one output; empty if there is no such output.
    #[must_use]
    pub fn bytes(&self, output: usize) -> Vec<u8> {
        self.0.outputs().into_iter().nth(output).unwrap_or_default()
    }

    /// One output as text, with the replacement character where it is none.
    #[must_use]
    pub fn text(&self, output: usize) -> String {
        String::from_utf8_lossy(&self.bytes(output)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_of_any_size_come_out_in_order() {
        let (mut out, written) = Writer::in_memory();
        let mut expected = Vec::new();
        for length in [1, BUFFER - 1, 1, BUFFER, 3, BUFFER + 1, (1 << 20) + 7, 0, 5] {
            let piece = vec![u8::try_from(length % 251).unwrap(); length];
            out.write_all(&piece).unwrap();
            expected.extend_from_slice(&piece);
        }
        drop(out);
        assert_eq!(written.bytes(0), expected);
    }

    #[test]
    fn small_writes_are_collected_until_flush() {
        let (mut out, written) = Writer::in_memory();
        out.write_all(b"held back").unwrap();
        assert_eq!(written.bytes(0), b"");
        out.flush().unwrap();
        assert_eq!(written.bytes(0), b"held back");
    }

    #[test]
    fn many_outputs_share_the_room_for_buffers() {
        let (writers, _) = Writers::in_memory(4096);
        assert!(writers.0.iter().map(|writer| writer.capacity).sum::<usize>() <= ALL_BUFFERS);
        let (writers, _) = Writers::in_memory(2);
        assert_eq!(writers.0[0].capacity, BUFFER);
    }
}
