//! A small file that says up to which batch everything was flushed, so that a loss at the end of the journal is told
//! from a batch that was never acknowledged.
//!
//! It is written after each flush and not synced itself: after a power cut it may be behind, never ahead.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::{JournalError, Position};

const LENGTH: usize = 16;

/// The open file.
#[derive(Debug)]
pub(crate) struct Marker {
    path: PathBuf,
    file: File,
}

/// What the file said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marked {
    /// Everything up to here was flushed.
    Through(Position),
    /// The file is torn; nothing is known.
    Unreadable,
}

impl Marker {
    /// Opens or creates the file at `path` and reads it.
    pub(crate) fn open(path: &Path) -> Result<(Self, Marked), JournalError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|source| JournalError::io("open", path, source))?;
        let marker = Self { path: path.to_owned(), file };
        let marked = marker.read()?;
        Ok((marker, marked))
    }

    fn read(&self) -> Result<Marked, JournalError> {
        let failed = |source| JournalError::io("read", &self.path, source);
        if self.file.metadata().map_err(failed)?.len() == 0 {
            return Ok(Marked::Through(Position::START));
        }
        let mut bytes = [0; LENGTH];
        match self.file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(Marked::Unreadable),
            Err(error) => return Err(failed(error)),
        }
        Ok(decode(&bytes).map_or(Marked::Unreadable, Marked::Through))
    }

    /// Notes that everything up to `position` is on disk.
    pub(crate) fn write(&mut self, position: Position) -> Result<(), JournalError> {
        self.file.write_all_at(&encode(position), 0).map_err(|source| JournalError::io("write", &self.path, source))
    }
}

/// A number with a checksum.
pub(crate) fn encode(position: Position) -> [u8; LENGTH] {
    let number = position.0.to_be_bytes();
    let sum = blake3::hash(&number);
    std::array::from_fn(|index| if index < 8 { number[index] } else { sum.as_bytes()[index] })
}

/// The number, if these are the bytes of one.
pub(crate) fn decode(bytes: &[u8]) -> Option<Position> {
    let position = Position(u64::from_be_bytes(*bytes.first_chunk()?));
    (encode(position)[..] == *bytes).then_some(position)
}
