//! What an attempt has written so far.

use std::io;
use std::os::fd::OwnedFd;

use partita_types::ByteSize;

use crate::payload::{INLINE_MAX, memory_file, seal};
use crate::wire::socket::write_all_at;

/// The bytes of one output, ready to be handed over.
#[derive(Debug)]
pub(crate) enum Written {
    Inline(Vec<u8>),
    /// A sealed memory file.
    File(OwnedFd),
}

/// One output that is being written.
#[derive(Debug)]
enum Sink {
    Buffer(Vec<u8>),
    File { file: OwnedFd, length: u64 },
}

/// All outputs of an attempt, under one limit.
#[derive(Debug)]
pub(crate) struct Outputs {
    sinks: Vec<Sink>,
    written: u64,
    limit: u64,
}

/// Why bytes were not taken.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// There is no output of that number.
    Unknown,
    /// The attempt would write so many bytes in all.
    Limit { wanted: u64, limit: u64 },
    /// No room for a memory file.
    Storage(io::Error),
}

impl Outputs {
    pub(crate) fn new(count: u32, limit: ByteSize) -> Self {
        Self { sinks: (0..count).map(|_| Sink::Buffer(Vec::new())).collect(), written: 0, limit: limit.0 }
    }

    /// Appends to an output. It moves to a memory file when it gets long.
    pub(crate) fn write(&mut self, output: u32, bytes: &[u8]) -> Result<(), WriteError> {
        let sink = self.sinks.get_mut(output as usize).ok_or(WriteError::Unknown)?;
        let wanted = self.written.saturating_add(bytes.len() as u64);
        if wanted > self.limit {
            return Err(WriteError::Limit { wanted, limit: self.limit });
        }
        sink.append(bytes).map_err(WriteError::Storage)?;
        self.written = wanted;
        Ok(())
    }

    /// Seals what was written.
    pub(crate) fn finish(self) -> io::Result<Vec<Written>> {
        let finish = |sink| match sink {
            Sink::Buffer(bytes) => Ok(Written::Inline(bytes)),
            Sink::File { file, .. } => seal(&file).map(|()| Written::File(file)),
        };
        self.sinks.into_iter().map(finish).collect()
    }
}

impl Sink {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Buffer(buffer) if buffer.len() + bytes.len() < INLINE_MAX => {
                buffer.extend_from_slice(bytes);
                Ok(())
            }
            Self::Buffer(buffer) => {
                let file = memory_file("partition")?;
                write_all_at(&file, buffer, 0)?;
                write_all_at(&file, bytes, buffer.len() as u64)?;
                *self = Self::File { file, length: (buffer.len() + bytes.len()) as u64 };
                Ok(())
            }
            Self::File { file, length } => {
                write_all_at(file, bytes, *length)?;
                *length += bytes.len() as u64;
                Ok(())
            }
        }
    }
}
