//! A journal in memory, with faults on demand, for the tests of whatever stands on a journal.
//!
//! It uses the real encoding. What was not flushed is lost when the journal is dropped and opened again, as in a crash.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use partita_core::Record;

use crate::{Journal, JournalError, Position, Replayed, decode_batch, encode_batch};

/// What the next write runs into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The next append finds the disk full.
    FullOnAppend,
    /// The next flush finds the disk full.
    FullOnFlush,
}

#[derive(Debug, Default)]
struct Contents {
    flushed: Vec<Vec<u8>>,
    pending: Vec<Vec<u8>>,
    flushes: u64,
    fault: Option<Fault>,
}

/// What outlives a [`MemoryJournal`].
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<Contents>>);

impl MemoryDisk {
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the journal; what an earlier one did not flush is gone.
    #[must_use]
    pub fn open(&self) -> MemoryJournal {
        self.contents().pending.clear();
        MemoryJournal(self.clone())
    }

    /// Makes the next operation of that kind fail, and all after it.
    pub fn break_with(&self, fault: Fault) {
        self.contents().fault = Some(fault);
    }

    /// How often something was flushed.
    #[must_use]
    pub fn flushes(&self) -> u64 {
        self.contents().flushes
    }

    fn full() -> JournalError {
        JournalError::DiskFull { path: PathBuf::from("memory") }
    }
}

/// See [`MemoryDisk::open`].
#[derive(Debug)]
pub struct MemoryJournal(MemoryDisk);

impl Journal for MemoryJournal {
    fn append(&mut self, records: &[Record]) -> Result<Position, JournalError> {
        let mut contents = self.0.contents();
        if contents.fault == Some(Fault::FullOnAppend) {
            return Err(MemoryDisk::full());
        }
        let position = Position((contents.flushed.len() + contents.pending.len()) as u64 + 1);
        let bytes = encode_batch(position, records)?;
        contents.pending.push(bytes);
        Ok(position)
    }

    fn flush(&mut self) -> Result<(), JournalError> {
        let mut contents = self.0.contents();
        if contents.fault == Some(Fault::FullOnFlush) {
            return Err(MemoryDisk::full());
        }
        let pending = std::mem::take(&mut contents.pending);
        contents.flushed.extend(pending);
        contents.flushes += 1;
        Ok(())
    }

    fn replay(&mut self, sink: &mut dyn FnMut(Record)) -> Result<Replayed, JournalError> {
        let batches = self.0.contents().flushed.clone();
        let mut replayed = Replayed::default();
        let mut position = Position::START;
        for bytes in batches {
            position = position.next();
            let records = decode_batch(position, &bytes).map_err(|damage| JournalError::Damaged {
                path: PathBuf::from("memory"),
                position,
                damage,
            })?;
            replayed.batches += 1;
            replayed.bytes += bytes.len() as u64;
            replayed.records += records.len() as u64;
            records.into_iter().for_each(&mut *sink);
        }
        Ok(replayed)
    }
}
