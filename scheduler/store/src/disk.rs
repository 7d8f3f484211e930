//! The journal on disk, in sled. The only file that names it.
//!
//! A batch is one value, keyed by its position. A batch larger than [`PART`] is cut into parts that are written in one
//! atomic step: sled keeps large pages in files of their own, which it does not sync, and parts of that size stay out
//! of those. Beside sled's directory lies the [`Marker`] of what was flushed, and a lock file. A compaction makes a new
//! generation of both; see `compaction.rs`.

mod compaction;

use std::fs::{self, File, TryLockError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use partita_core::Record;

use crate::codec::{FORMAT_VERSION, decode_batch, encode_batch};
use crate::error::{Damage, JournalError};
use crate::marker::{Marked, Marker};
use crate::{Journal, Position, Replayed};

pub use compaction::{Compacted, DiskCompaction, Retired};

/// Largest part. A leaf of sled has up to 16 entries, and stays in the log while it is below a quarter of a segment.
const PART: usize = 24 << 10;
/// sled frees its lock when the last of its threads is done, a moment after a journal of this process was dropped. Who
/// has our own lock knows that nobody else uses the directory, and waits for it: this often, and this long each time.
const ENGINE_LOCK_WAITS: u32 = 500;
const ENGINE_LOCK_PAUSE: Duration = Duration::from_millis(10);
/// Size of a segment of sled's log.
const SEGMENT: usize = 2 << 20;
/// Memory for sled's cache; the journal is read once, so there is little to gain from more.
const CACHE: u64 = 32 << 20;
/// The version of the directory's layout. The version of batches is counted separately.
const LAYOUT_VERSION: u32 = 1;

/// A journal smaller than this is not worth a compaction.
const COMPACT_FROM: u64 = 64 << 20;

/// Something unusual that was found and mended when the journal was opened or replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repair {
    /// The engine did not open before its snapshot files were removed. It rebuilt them from its log.
    SnapshotsRemoved {
        /// Which files.
        files: Vec<PathBuf>,
        /// Why it did not open.
        reason: String,
    },
    /// The last batch was torn, and had never been acknowledged.
    TornTailDropped {
        /// The batch.
        position: Position,
        /// What is wrong with it.
        damage: Damage,
    },
    /// Which batches had been acknowledged is not known; a loss at the end cannot be noticed this time.
    MarkerUnreadable {
        /// The file.
        path: PathBuf,
    },
}

impl std::fmt::Display for Repair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::SnapshotsRemoved { files, reason } => {
                write!(f, "removed snapshot files {files:?} and rebuilt them from the log, because of: {reason}")
            }
            Self::TornTailDropped { position, damage } => {
                write!(f, "dropped batch {position} at the end, which was never acknowledged: {damage}")
            }
            Self::MarkerUnreadable { path } => {
                write!(f, "{} is torn, so it is not known which batches were acknowledged", path.display())
            }
        }
    }
}

/// One life of the files of a journal, from one compaction to the next.
#[derive(Debug)]
struct Generation {
    database: sled::Db,
    batches: sled::Tree,
    marker: Marker,
}

impl Generation {
    /// Opens or creates a generation, and says what was acknowledged of it.
    fn open(
        directory: &Path,
        number: u64,
        cluster: &str,
        repairs: &mut Vec<Repair>,
    ) -> Result<(Self, Marked), JournalError> {
        let database = open_engine(&compaction::engine_path(directory, number), repairs)?;
        check_meta(directory, &database, cluster)?;
        let batches = database.open_tree("batches").map_err(|error| engine("open", directory, error))?;
        let (marker, marked) = Marker::open(&compaction::marker_path(directory, number))?;
        Ok((Self { database, batches, marker }, marked))
    }

    /// Bytes that the last compaction kept.
    fn base(&self, directory: &Path) -> Result<u64, JournalError> {
        let meta = self.database.open_tree("meta").and_then(|meta| meta.get("base"));
        let bytes = meta.map_err(|error| engine("read", directory, error))?;
        Ok(bytes.and_then(|bytes| bytes.as_ref().try_into().ok()).map_or(0, u64::from_be_bytes))
    }

    fn set_base(&self, directory: &Path, bytes: u64) -> Result<(), JournalError> {
        let set = || {
            self.database.open_tree("meta")?.insert("base", &bytes.to_be_bytes())?;
            self.database.flush()
        };
        set().map(drop).map_err(|error| engine("write", directory, error))
    }
}

/// Reads batches, beside whoever appends.
#[derive(Debug, Clone)]
struct Reader {
    directory: PathBuf,
    batches: sled::Tree,
}

impl Reader {
    fn damaged(&self, position: Position, damage: Damage) -> JournalError {
        if let Damage::Version(found) = damage {
            let (found, known) = (u32::from(found), u32::from(FORMAT_VERSION));
            return JournalError::NewerFormat { path: self.directory.clone(), found, known };
        }
        JournalError::Damaged { path: self.directory.clone(), position, damage }
    }

    fn read(&self, position: Position) -> Result<Result<Vec<u8>, Damage>, JournalError> {
        let mut entries = self.batches.scan_prefix(position.0.to_be_bytes());
        let mut read = || match entries.next() {
            Some(entry) => entry.map(Some).map_err(|error| engine("read", &self.directory, error)),
            None => Ok(None),
        };
        let Some((_, first)) = read()? else { return Ok(Err(Damage::Missing(position))) };
        let Some((expected, piece)) = first.split_first_chunk::<4>() else {
            return Ok(Err(Damage::Short(first.len())));
        };
        let expected = u32::from_be_bytes(*expected);
        let mut bytes = piece.to_vec();
        let mut found = 1;
        while let Some((_, piece)) = read()? {
            bytes.extend_from_slice(&piece);
            found += 1;
        }
        Ok(if found == expected { Ok(bytes) } else { Err(Damage::Parts { found, expected }) })
    }
}

/// The journal in a directory of its own, locked against other processes while it is open.
#[derive(Debug)]
pub struct DiskJournal {
    cluster: String,
    number: u64,
    generation: Generation,
    reader: Reader,
    /// What had been flushed when the journal was opened; `None` if that is not known.
    acknowledged: Option<Position>,
    last: Position,
    repairs: Vec<Repair>,
    /// Bytes that the last compaction kept, and that were appended or replayed since.
    base: u64,
    added: u64,
    compact_from: u64,
    _lock: File,
}

impl DiskJournal {
    /// Opens the journal of `cluster` in `directory`, and creates both on the first start.
    ///
    /// # Errors
    /// If another process has it, it is another cluster's or of a newer version, or the engine cannot read it even
    /// without its snapshot files.
    pub fn open(directory: &Path, cluster: &str) -> Result<Self, JournalError> {
        fs::create_dir_all(directory).map_err(|source| JournalError::io("create", directory, source))?;
        let lock = lock(directory)?;
        let mut repairs = Vec::new();
        let number = compaction::current(directory)?;
        compaction::sweep(directory, number)?;
        let (generation, marked) = Generation::open(directory, number, cluster, &mut repairs)?;
        let acknowledged = match marked {
            Marked::Through(position) => Some(position),
            Marked::Unreadable => {
                repairs.push(Repair::MarkerUnreadable { path: compaction::marker_path(directory, number) });
                None
            }
        };
        let reader = Reader { directory: directory.to_owned(), batches: generation.batches.clone() };
        Ok(Self {
            cluster: cluster.to_owned(),
            number,
            last: last_position(directory, &generation.batches)?,
            base: generation.base(directory)?,
            generation,
            reader,
            acknowledged,
            repairs,
            added: 0,
            compact_from: COMPACT_FROM,
            _lock: lock,
        })
    }

    /// Wants a compaction when so many bytes were appended, and as many as the last one kept.
    #[must_use]
    pub fn compacting_from(mut self, bytes: u64) -> Self {
        self.compact_from = bytes;
        self
    }

    /// What was mended so far. Somebody should be told.
    #[must_use]
    pub fn repairs(&self) -> &[Repair] {
        &self.repairs
    }

    /// The last batch.
    #[must_use]
    pub fn last(&self) -> Position {
        self.last
    }

    /// How many times the journal was compacted.
    #[must_use]
    pub fn compactions(&self) -> u64 {
        self.number - 1
    }

    /// Removes the last batch, if it cannot have been acknowledged.
    fn drop_torn_tail(&mut self, position: Position, damage: Damage) -> Result<(), JournalError> {
        let unacknowledged = self.acknowledged.is_some_and(|through| through < position);
        if position != self.last || !unacknowledged || matches!(damage, Damage::Version(_)) {
            return Err(self.reader.damaged(position, damage));
        }
        let batches = &self.generation.batches;
        for key in batches.scan_prefix(position.0.to_be_bytes()).keys() {
            let key = key.map_err(|error| engine("read", &self.reader.directory, error))?;
            batches.remove(key).map_err(|error| engine("repair", &self.reader.directory, error))?;
        }
        self.last = Position(position.0 - 1);
        self.repairs.push(Repair::TornTailDropped { position, damage });
        Ok(())
    }
}

/// Writes a batch; returns how large it is.
fn append(directory: &Path, batches: &sled::Tree, position: Position, records: &[Record]) -> Result<u64, JournalError> {
    let bytes = encode_batch(position, records)?;
    let parts = bytes.len().div_ceil(PART);
    let mut batch = sled::Batch::default();
    for (index, piece) in bytes.chunks(PART).enumerate() {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        if index == 0 {
            let count = u32::try_from(parts).unwrap_or(u32::MAX);
            batch.insert(&key(position, index), [&count.to_be_bytes(), piece].concat());
        } else {
            batch.insert(&key(position, index), piece);
        }
    }
    batches.apply_batch(batch).map_err(|error| engine("append to", directory, error))?;
    Ok(bytes.len() as u64)
}

impl Journal for DiskJournal {
    fn append(&mut self, records: &[Record]) -> Result<Position, JournalError> {
        let position = self.last.next();
        self.added += append(&self.reader.directory, &self.generation.batches, position, records)?;
        self.last = position;
        Ok(position)
    }

    fn flush(&mut self) -> Result<(), JournalError> {
        self.generation.database.flush().map_err(|error| engine("flush", &self.reader.directory, error))?;
        self.generation.marker.write(self.last)
    }

    fn replay(&mut self, sink: &mut dyn FnMut(Record)) -> Result<Replayed, JournalError> {
        let mut replayed = Replayed::default();
        let mut position = Position::START;
        while position < self.last {
            position = position.next();
            let bytes = self.reader.read(position)?;
            match bytes.and_then(|bytes| Ok((decode_batch(position, &bytes)?, bytes.len()))) {
                Ok((records, length)) => {
                    replayed.batches += 1;
                    replayed.bytes += length as u64;
                    replayed.records += records.len() as u64;
                    records.into_iter().for_each(&mut *sink);
                }
                Err(damage) => self.drop_torn_tail(position, damage)?,
            }
        }
        match self.acknowledged {
            Some(through) if through > self.last => {
                Err(self.reader.damaged(self.last.next(), Damage::Missing(through)))
            }
            _ => {
                self.added = replayed.bytes.saturating_sub(self.base);
                Ok(replayed)
            }
        }
    }

    fn wants_compaction(&self) -> bool {
        self.added >= self.compact_from.max(self.base)
    }

    fn begin_compaction(&mut self) -> Option<DiskCompaction> {
        Some(DiskCompaction {
            directory: self.reader.directory.clone(),
            cluster: self.cluster.clone(),
            number: self.number + 1,
            from: self.reader.clone(),
            through: self.last,
        })
    }

    fn adopt(&mut self, mut compacted: Compacted) -> Result<Retired, JournalError> {
        let directory = self.reader.directory.clone();
        compacted.catch_up(&self.reader, self.last)?;
        let Compacted { mut generation, number, last, kept, added, .. } = compacted;
        generation.marker.write(last)?;
        compaction::set_current(&directory, number)?;
        self.reader.batches = generation.batches.clone();
        let old = std::mem::replace(&mut self.generation, generation);
        let retired = Retired(Some((old, directory, self.number)));
        (self.number, self.last, self.base, self.added) = (number, last, kept, added);
        self.acknowledged = Some(last);
        Ok(retired)
    }
}

fn key(position: Position, part: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&position.0.to_be_bytes());
    key[8..].copy_from_slice(&part.to_be_bytes());
    key
}

fn lock(directory: &Path) -> Result<File, JournalError> {
    let path = directory.join("lock");
    let file = File::create(&path).map_err(|source| JournalError::io("create", &path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(JournalError::Locked { path: directory.to_owned() }),
        Err(TryLockError::Error(source)) => Err(JournalError::io("lock", &path, source)),
    }
}

/// Opens sled. Its snapshot file is only a shortcut into its log, and is known to keep it from opening after a crash:
/// then it is removed, and nothing else.
fn open_engine(path: &Path, repairs: &mut Vec<Repair>) -> Result<sled::Db, JournalError> {
    let error = match try_open(path) {
        Ok(database) => return Ok(database),
        Err(error) => error,
    };
    let files = snapshots(path);
    if files.is_empty() || matches!(error, JournalError::DiskFull { .. } | JournalError::Locked { .. }) {
        return Err(error);
    }
    for file in &files {
        fs::remove_file(file).map_err(|source| JournalError::io("remove", file, source))?;
    }
    repairs.push(Repair::SnapshotsRemoved { files, reason: error.to_string() });
    try_open(path)
}

fn try_open(path: &Path) -> Result<sled::Db, JournalError> {
    let config = sled::Config::new()
        .path(path)
        .segment_size(SEGMENT)
        .cache_capacity(CACHE)
        .mode(sled::Mode::HighThroughput)
        .flush_every_ms(None);
    // sled asserts what it believes of its files; damage can therefore show as a panic.
    let mut waits = ENGINE_LOCK_WAITS;
    let opened = loop {
        match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(Err(sled::Error::Io(error))) if is_locked(&error) && waits > 0 => {
                waits -= 1;
                std::thread::sleep(ENGINE_LOCK_PAUSE);
            }
            opened => break opened,
        }
    };
    match opened {
        Ok(Err(sled::Error::Io(error))) if is_locked(&error) => Err(JournalError::Locked { path: path.to_owned() }),
        Ok(result) => result.map_err(|error| engine("open", path, error)),
        Err(_) => Err(JournalError::Engine {
            operation: "open",
            path: path.to_owned(),
            reason: "the store engine gave up while reading its files".to_owned(),
        }),
    }
}

/// Whether sled refuses because of its own lock, of which it tells only in words.
fn is_locked(error: &std::io::Error) -> bool {
    error.to_string().starts_with("could not acquire lock")
}

fn snapshots(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"snap.")))
        .collect();
    files.sort();
    files
}

fn check_meta(directory: &Path, database: &sled::Db, cluster: &str) -> Result<(), JournalError> {
    let failed = |error| engine("read", directory, error);
    let meta = database.open_tree("meta").map_err(failed)?;
    let Some(format) = meta.get("format").map_err(failed)? else {
        let mut batch = sled::Batch::default();
        batch.insert("format", &LAYOUT_VERSION.to_be_bytes());
        batch.insert("cluster", cluster.as_bytes());
        meta.apply_batch(batch).map_err(|error| engine("initialise", directory, error))?;
        database.flush().map_err(|error| engine("initialise", directory, error))?;
        return Ok(());
    };
    let path = || directory.to_owned();
    let found = format.as_ref().try_into().map_or(u32::MAX, u32::from_be_bytes);
    if found > LAYOUT_VERSION {
        return Err(JournalError::NewerFormat { path: path(), found, known: LAYOUT_VERSION });
    }
    let owner = meta.get("cluster").map_err(failed)?.unwrap_or_default();
    if owner == cluster.as_bytes() {
        return Ok(());
    }
    let found = String::from_utf8_lossy(&owner).into_owned();
    Err(JournalError::OtherCluster { path: path(), found, expected: cluster.to_owned() })
}

fn last_position(directory: &Path, batches: &sled::Tree) -> Result<Position, JournalError> {
    let Some((key, _)) = batches.last().map_err(|error| engine("read", directory, error))? else {
        return Ok(Position::START);
    };
    let number: Option<&[u8; 8]> = if key.len() == 12 { key.first_chunk() } else { None };
    match number {
        Some(number) => Ok(Position(u64::from_be_bytes(*number))),
        None => Err(JournalError::Damaged {
            path: directory.to_owned(),
            position: Position::START,
            damage: Damage::Key(key.len()),
        }),
    }
}

fn engine(operation: &'static str, path: &Path, error: sled::Error) -> JournalError {
    match error {
        sled::Error::Io(source) => JournalError::io(operation, path, source),
        other => JournalError::Engine { operation, path: path.to_owned(), reason: other.to_string() },
    }
}
