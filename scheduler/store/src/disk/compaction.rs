//! A new generation of the journal, with the records that are still needed.
//!
//! It is written beside the current one, in a directory of its own, while the current one goes on. At the end what came
//! meanwhile is copied, and a small file that names the current generation is replaced in one step. Until then the old
//! one is complete, and afterwards the new one: a kill at any moment leaves one of them, and the next start removes the
//! other. The room of the old one is given back as a whole, which the engine by itself does not do.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use partita_core::Record;

use super::{Generation, Reader, append, engine, last_position};
use crate::codec::decode_batch;
use crate::marker;
use crate::{JournalError, Position};

/// Records in one batch of a new generation, about.
const TOGETHER: usize = 4_096;
/// How often what came meanwhile is copied before the journal has to stop for the rest.
const ROUNDS: usize = 3;
/// The file that names the current generation; without it, that is the first.
const CURRENT: &str = "generation";

/// A compaction that can run on a thread of its own. From [`crate::Journal::begin_compaction`].
#[derive(Debug)]
pub struct DiskCompaction {
    pub(super) directory: PathBuf,
    pub(super) cluster: String,
    /// The new generation.
    pub(super) number: u64,
    pub(super) from: Reader,
    /// The last batch that the picker knows of.
    pub(super) through: Position,
}

/// A new generation that is complete up to a batch of the current one.
#[derive(Debug)]
pub struct Compacted {
    pub(super) generation: Generation,
    pub(super) number: u64,
    pub(super) copied: Position,
    pub(super) last: Position,
    /// Bytes of what was kept.
    pub(super) kept: u64,
    /// Bytes of what came meanwhile.
    pub(super) added: u64,
}

/// The old generation; its room is given back by [`Retired::remove`].
#[derive(Debug, Default)]
pub struct Retired(pub(super) Option<(Generation, PathBuf, u64)>);

impl DiskCompaction {
    /// Writes the new generation with what `picker` keeps, and with what comes meanwhile.
    ///
    /// # Errors
    /// If a batch cannot be read, which changes nothing, or the new generation cannot be written.
    pub fn run(self, mut picker: partita_core::Compaction) -> Result<Compacted, JournalError> {
        remove(&self.directory, self.number)?;
        let generation = Generation::open(&self.directory, self.number, &self.cluster, &mut Vec::new())?.0;
        let mut compacted = Compacted {
            generation,
            number: self.number,
            copied: self.through,
            last: Position::START,
            kept: 0,
            added: 0,
        };
        let mut kept = Vec::new();
        let mut position = Position::START;
        while position < self.through {
            position = position.next();
            for record in self.records(position)? {
                picker.pass(record, &mut kept);
            }
            if kept.len() >= TOGETHER {
                compacted.kept += compacted.append(&self.directory, &kept)?;
                kept.clear();
            }
        }
        picker.finish(&mut kept);
        if !kept.is_empty() {
            compacted.kept += compacted.append(&self.directory, &kept)?;
        }
        for _ in 0..ROUNDS {
            // The last batch may be just being written.
            let last = last_position(&self.directory, &self.from.batches)?.0.saturating_sub(1);
            compacted.catch_up(&self.from, Position(last))?;
        }
        compacted.generation.set_base(&self.directory, compacted.kept)?;
        Ok(compacted)
    }

    fn records(&self, position: Position) -> Result<Vec<Record>, JournalError> {
        records(&self.from, position)
    }
}

fn records(from: &Reader, position: Position) -> Result<Vec<Record>, JournalError> {
    from.read(position)?
        .and_then(|bytes| decode_batch(position, &bytes))
        .map_err(|damage| from.damaged(position, damage))
}

impl Compacted {
    fn append(&mut self, directory: &Path, records: &[Record]) -> Result<u64, JournalError> {
        let position = self.last.next();
        let bytes = append(directory, &self.generation.batches, position, records)?;
        self.last = position;
        Ok(bytes)
    }

    /// Copies the batches of the current generation that are missing, up to `last`.
    pub(super) fn catch_up(&mut self, from: &Reader, last: Position) -> Result<(), JournalError> {
        while self.copied < last {
            let position = self.copied.next();
            let records = records(from, position)?;
            self.added += self.append(&from.directory, &records)?;
            self.copied = position;
        }
        let flushed = self.generation.database.flush();
        flushed.map(drop).map_err(|error| engine("flush", &from.directory, error))
    }
}

impl Retired {
    /// Closes the old generation and deletes it. What is left of it after an error goes at the next start.
    ///
    /// # Errors
    /// If its files cannot be deleted.
    pub fn remove(self) -> Result<(), JournalError> {
        let Some((generation, directory, number)) = self.0 else { return Ok(()) };
        drop(generation);
        remove(&directory, number)
    }
}

/// The directory of a generation.
pub(super) fn engine_path(directory: &Path, number: u64) -> PathBuf {
    if number == 1 { directory.join("journal") } else { directory.join(format!("journal.{number}")) }
}

/// The marker of a generation.
pub(super) fn marker_path(directory: &Path, number: u64) -> PathBuf {
    if number == 1 { directory.join("acknowledged") } else { directory.join(format!("acknowledged.{number}")) }
}

/// The current generation.
pub(super) fn current(directory: &Path) -> Result<u64, JournalError> {
    let path = directory.join(CURRENT);
    match fs::read(&path) {
        Ok(bytes) => {
            marker::decode(&bytes).map(|number| number.0).ok_or(JournalError::Generation { path, length: bytes.len() })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(1),
        Err(source) => Err(JournalError::io("read", &path, source)),
    }
}

/// Makes a generation the current one, in one step.
pub(super) fn set_current(directory: &Path, number: u64) -> Result<(), JournalError> {
    let (path, fresh) = (directory.join(CURRENT), directory.join("generation.new"));
    let written = File::create(&fresh).and_then(|mut file| {
        file.write_all(&marker::encode(Position(number)))?;
        file.sync_all()
    });
    written.map_err(|source| JournalError::io("write", &fresh, source))?;
    fs::rename(&fresh, &path).map_err(|source| JournalError::io("replace", &path, source))?;
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|source| JournalError::io("sync", directory, source))
}

/// Deletes everything of generations other than `current`: a kill came before they were switched, or removed.
pub(super) fn sweep(directory: &Path, current: u64) -> Result<(), JournalError> {
    let entries = fs::read_dir(directory).map_err(|source| JournalError::io("read", directory, source))?;
    for entry in entries {
        let name = entry.map_err(|source| JournalError::io("read", directory, source))?.file_name();
        let number = match name.to_str() {
            Some("journal" | "acknowledged") => Some(1),
            Some(name) => name.strip_prefix("journal.").and_then(|number| number.parse().ok()),
            None => None,
        };
        if let Some(number) = number.filter(|number| *number != current) {
            remove(directory, number)?;
        }
    }
    Ok(())
}

fn remove(directory: &Path, number: u64) -> Result<(), JournalError> {
    let gone = |result: std::io::Result<()>, path: &Path| match result {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(JournalError::io("remove", path, source)),
        Ok(()) | Err(_) => Ok(()),
    };
    let (engine, marker) = (engine_path(directory, number), marker_path(directory, number));
    gone(fs::remove_dir_all(&engine), &engine)?;
    gone(fs::remove_file(&marker), &marker)
}
