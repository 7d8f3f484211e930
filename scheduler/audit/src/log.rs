//! Appending. One writer owns the directory; the scheduler's data directory is locked, so there is no other.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use partita_types::Timestamp;

use crate::chain::{self, Fault, Hash};
use crate::reader::{self, Chain};
use crate::{Draft, Entry, Principal};

/// A file that is larger is followed by another one. Whoever reads a page passes over at most so many bytes before it.
const FILE_MAX: u64 = 16 << 20;

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The system refused.
    #[error("cannot {operation} {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A line is not what was written.
    #[error("{path} is damaged at line {line}: {fault}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line in it; 1 is the first.
        line: u64,
        /// What is wrong with it.
        fault: Fault,
    },
    /// An entry that cannot be written down; a fault of this program.
    #[error("cannot write down an entry of the audit log")]
    Encode(#[from] serde_json::Error),
}

impl AuditError {
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { operation, path, source }
    }
}

/// What was mended when the log was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// The file.
    pub path: PathBuf,
    /// Bytes behind its last whole line, which a crash left there.
    pub bytes: u64,
}

/// The log, for the one who writes it.
#[derive(Debug)]
pub struct AuditLog {
    directory: PathBuf,
    path: PathBuf,
    file: File,
    size: u64,
    sequence: u64,
    hash: Hash,
    /// Refusals that were not written down since the last line.
    suppressed: u64,
    unsynced: bool,
}

impl AuditLog {
    /// Opens the log in `directory`, which is made if it does not exist, behind its last line.
    ///
    /// The last file is checked. What a crash left behind its last whole line is removed, and a line says so.
    ///
    /// # Errors
    /// If the directory cannot be used, or a line of the last file is not what was written: nothing is changed then.
    pub fn open(directory: &Path, now: Timestamp) -> Result<(Self, Option<Repair>), AuditError> {
        fs::create_dir_all(directory).map_err(AuditError::io("create", directory))?;
        let files = reader::files(directory)?;
        let Some((first, path)) = files.last() else {
            return Ok((Self::begin(directory, Chain::START, false)?, None));
        };
        let start = reader::before(&files, *first)?;
        let (chain, whole, torn) = reader::follow(path, start)?;
        let file = OpenOptions::new().append(true).open(path).map_err(AuditError::io("open", path))?;
        let mut log = Self {
            directory: directory.to_owned(),
            path: path.clone(),
            file,
            size: whole,
            sequence: chain.sequence,
            hash: chain.hash,
            suppressed: 0,
            unsynced: false,
        };
        if torn == 0 {
            return Ok((log, None));
        }
        log.file.set_len(whole).map_err(AuditError::io("shorten", path))?;
        let repair = Repair { path: path.clone(), bytes: torn };
        log.append(Draft {
            at: now,
            principal: Principal::Scheduler,
            address: String::new(),
            action: "Audit/Repair".to_owned(),
            object: format!("{torn} bytes behind the last whole line, left by a crash, were removed"),
            outcome: "ok".to_owned(),
            policy: String::new(),
        })?;
        Ok((log, Some(repair)))
    }

    /// Begins a file behind `chain`.
    fn begin(directory: &Path, chain: Chain, unsynced: bool) -> Result<Self, AuditError> {
        let path = reader::path(directory, chain.sequence + 1);
        let file = OpenOptions::new().append(true).create_new(true).open(&path);
        let file = file.map_err(AuditError::io("create", &path))?;
        // The name is on disk before anything in the file is.
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(AuditError::io("sync", directory))?;
        let Chain { sequence, hash } = chain;
        Ok(Self { directory: directory.to_owned(), path, file, size: 0, sequence, hash, suppressed: 0, unsynced })
    }

    /// Notes something. It survives the end of this process when this returns, and a power cut after [`Self::sync`].
    ///
    /// # Errors
    /// If it cannot be written. What a failed write left is removed, or by the next [`AuditLog::open`].
    pub fn append(&mut self, draft: Draft) -> Result<u64, AuditError> {
        if self.size >= FILE_MAX {
            self.sync()?;
            let suppressed = self.suppressed;
            *self = Self::begin(&self.directory, Chain { sequence: self.sequence, hash: self.hash }, false)?;
            self.suppressed = suppressed;
        }
        let entry = Entry::new(self.sequence + 1, self.suppressed, draft);
        let (hash, mut line) = chain::encode(self.hash, &entry)?;
        line.push('\n');
        if let Err(source) = (&self.file).write_all(line.as_bytes()) {
            // Part of it may be there; if it cannot be removed either, the next start does it.
            let _ = self.file.set_len(self.size);
            return Err(AuditError::io("write", &self.path)(source));
        }
        self.size += line.len() as u64;
        (self.sequence, self.hash, self.suppressed, self.unsynced) = (entry.sequence, hash, 0, true);
        Ok(entry.sequence)
    }

    /// Counts refusals that are not written down; the next line tells how many.
    pub fn suppress(&mut self, refusals: u64) {
        self.suppressed = self.suppressed.saturating_add(refusals);
    }

    /// Refusals that no line tells of yet.
    #[must_use]
    pub fn suppressed(&self) -> u64 {
        self.suppressed
    }

    /// Whether something was appended since the last [`AuditLog::sync`].
    #[must_use]
    pub fn is_unsynced(&self) -> bool {
        self.unsynced
    }

    /// Makes everything appended durable. Does nothing if it is.
    ///
    /// # Errors
    /// If that cannot be done.
    pub fn sync(&mut self) -> Result<(), AuditError> {
        if self.unsynced {
            self.file.sync_data().map_err(AuditError::io("sync", &self.path))?;
            self.unsynced = false;
        }
        Ok(())
    }

    /// The last line.
    #[must_use]
    pub fn last(&self) -> Chain {
        Chain { sequence: self.sequence, hash: self.hash }
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

#[cfg(test)]
mod tests;
