//! Bytes of a partition that arrive piece by piece and whose length is known beforehand.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use partita_sandbox::{INLINE_MAX, PartitionFile, PartitionWriter, Payload};
use partita_types::{ByteSize, ContentHash, OutputInfo};

/// Collects exactly as many bytes as were announced, in memory below [`INLINE_MAX`] and in a memory file from there on.
/// A memory file takes memory only as it is written, so an announcement alone costs nothing.
#[derive(Debug)]
pub(crate) struct PayloadBuilder {
    place: Place,
    left: u64,
    written: u64,
    hasher: blake3::Hasher,
}

#[derive(Debug)]
enum Place {
    Inline(Vec<u8>),
    File(PartitionWriter),
}

impl PayloadBuilder {
    /// Starts with the announced size.
    pub(crate) fn new(size: u64) -> io::Result<Self> {
        let inline = usize::try_from(size).ok().filter(|size| *size < INLINE_MAX);
        let place = match inline {
            Some(size) => Place::Inline(Vec::with_capacity(size)),
            None => Place::File(PartitionFile::create(ByteSize(size))?),
        };
        Ok(Self { place, left: size, written: 0, hasher: blake3::Hasher::new() })
    }

    /// Appends.
    ///
    /// # Errors
    /// If there is more than was announced, or no memory.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() as u64;
        if length > self.left {
            let text = format!("more than the announced {} bytes", self.written + self.left);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        match &mut self.place {
            Place::Inline(buffer) => buffer.extend_from_slice(bytes),
            Place::File(writer) => writer.write_all(bytes)?,
        }
        self.hasher.update(bytes);
        self.left -= length;
        self.written += length;
        Ok(())
    }

    /// The bytes, with size and hash.
    ///
    /// # Errors
    /// If there are fewer than were announced.
    pub(crate) fn finish(self) -> io::Result<(Payload, OutputInfo)> {
        if self.left > 0 {
            let text = format!("{} of the announced {} bytes", self.written, self.written + self.left);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        let hash = ContentHash(*self.hasher.finalize().as_bytes());
        let payload = match self.place {
            Place::Inline(buffer) => Payload::Inline(Bytes::from(buffer)),
            Place::File(writer) => Payload::File(Arc::new(writer.finish()?)),
        };
        Ok((payload, OutputInfo { size: ByteSize(self.written), hash }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_kept_inline_or_in_a_file_by_their_size() {
        for (size, inline) in [(0, true), (INLINE_MAX - 1, true), (INLINE_MAX, false)] {
            let content = vec![7; size];
            let mut builder = PayloadBuilder::new(size as u64).unwrap();
            content.chunks(1000).for_each(|chunk| builder.write(chunk).unwrap());
            let (payload, info) = builder.finish().unwrap();
            assert_eq!(matches!(payload, Payload::Inline(_)), inline, "{size}");
            assert_eq!(payload.bytes().unwrap(), content);
            assert_eq!(info.hash.0, *blake3::hash(&content).as_bytes());
        }
    }

    #[test]
    fn more_or_fewer_bytes_than_announced_are_refused() {
        let mut builder = PayloadBuilder::new(3).unwrap();
        assert_eq!(builder.write(b"four").unwrap_err().to_string(), "more than the announced 3 bytes");
        builder.write(b"ab").unwrap();
        assert_eq!(builder.finish().unwrap_err().to_string(), "2 of the announced 3 bytes");
    }
}
