//! The scheduler's journal: an append-only sequence of batches of [`Record`]s, on disk before anybody hears of them.
//!
//! The scheduler's journal thread appends here and replays from here at the start. The store engine is named in
//! [`DiskJournal`]'s file only. Nothing here interprets a record, and nothing that cannot be explained is skipped: a
//! journal that is damaged stops the start with a report that names the batch.

mod codec;
mod disk;
mod error;
mod marker;
mod memory;

use partita_core::Record;

pub use codec::{FORMAT_VERSION, decode_batch, encode_batch};
pub use disk::{Compacted, DiskCompaction, DiskJournal, Repair, Retired};
pub use error::{Damage, JournalError};
pub use memory::{Fault, MemoryDisk, MemoryJournal};

/// The place of a batch in the journal: 1, 2, 3 and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position(pub u64);

impl Position {
    /// Before the first batch.
    pub const START: Self = Self(0);

    /// The place behind this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What a replay found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Replayed {
    /// Batches.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Their encoded size.
    pub bytes: u64,
}

/// A journal with one owner.
pub trait Journal: Send {
    /// Appends a batch. It is not durable before [`Journal::flush`], and survives a crash whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written; the journal must not be used any further then.
    fn append(&mut self, records: &[Record]) -> Result<Position, JournalError>;

    /// Makes everything appended so far durable.
    ///
    /// # Errors
    /// If that cannot be done; nothing appended since the last flush may be acknowledged then.
    fn flush(&mut self) -> Result<(), JournalError>;

    /// Passes every record to `sink`, in the order in which they were appended.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] at the first batch that is not what was written. `sink` has then seen all before it.
    fn replay(&mut self, sink: &mut dyn FnMut(Record)) -> Result<Replayed, JournalError>;

    /// Whether so much was appended that a compaction is worth it.
    fn wants_compaction(&self) -> bool {
        false
    }

    /// Begins a compaction of everything appended so far. It can run on another thread, while this journal goes on.
    /// `None` from journals that are never compacted.
    fn begin_compaction(&mut self) -> Option<DiskCompaction> {
        None
    }

    /// Switches over to what a compaction wrote, with everything that was appended meanwhile; flushes all of it.
    ///
    /// # Errors
    /// If it cannot be completed; the journal must not be used any further then, and is whole when it is opened again.
    fn adopt(&mut self, compacted: Compacted) -> Result<Retired, JournalError> {
        drop(compacted);
        Ok(Retired::default())
    }
}
