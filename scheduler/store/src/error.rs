//! What can go wrong with a journal, in words for whoever operates the scheduler.

use std::io;
use std::path::{Path, PathBuf};

use crate::Position;

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Two schedulers cannot share a state.
    #[error("state {path} is in use by another process; stop that scheduler, or give this one another data directory")]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// No room.
    #[error("the disk of {path} is full; free some space and start again, nothing that was acknowledged is lost")]
    DiskFull {
        /// The directory.
        path: PathBuf,
    },
    /// Written by a later version of this program.
    #[error("state {path} has format version {found}, and this program knows versions up to {known}; use a newer one")]
    NewerFormat {
        /// The directory.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The newest version that this program reads.
        known: u32,
    },
    /// The state of another cluster.
    #[error("state {path} belongs to cluster {found:?}, not to {expected:?}; check the data directory")]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// Whose state it is.
        found: String,
        /// The configured cluster.
        expected: String,
    },
    /// A batch is not what was written.
    #[error(
        "state {path} is damaged at batch {position}: {damage}; nothing was changed, restore the directory from a \
         backup or examine it before starting again"
    )]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// The batch.
        position: Position,
        /// What is wrong with it.
        damage: Damage,
    },
    /// The file that names the current generation of the journal.
    #[error(
        "{path} does not say which generation of the journal is the current one ({length} bytes); nothing was changed, \
         restore it from a backup"
    )]
    Generation {
        /// The file.
        path: PathBuf,
        /// How long it is.
        length: usize,
    },
    /// The store engine failed.
    #[error("cannot {operation} state {path}: {reason}")]
    Engine {
        /// What was tried.
        operation: &'static str,
        /// The directory.
        path: PathBuf,
        /// What the engine says.
        reason: String,
    },
    /// The operating system refused.
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
    /// A record that cannot be written down; a fault of this program.
    #[error("cannot encode a batch of {records} records: {source}")]
    Encode {
        /// How many records.
        records: usize,
        /// Why not.
        source: postcard::Error,
    },
}

impl JournalError {
    /// An error of the operating system, told apart by what an operator can do about it.
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::DiskFull { path: path.to_owned() }
            }
            _ => Self::Io { operation, path: path.to_owned(), source },
        }
    }
}

/// What is wrong with a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// There is too little to hold even the header.
    #[error("it has {0} bytes, less than its header")]
    Short(usize),
    /// The bytes are not those that were written.
    #[error("its checksum is wrong")]
    Checksum,
    /// The bytes are those that were written, but not records.
    #[error("its checksum is right, but its records cannot be decoded ({0})")]
    Undecodable(String),
    /// Written by a later version of this program.
    #[error("it has format version {0}")]
    Version(u8),
    /// A piece of it is not there.
    #[error("{found} of its {expected} parts are there")]
    Parts {
        /// How many there are.
        found: u32,
        /// How many there should be.
        expected: u32,
    },
    /// It is not there, though later ones are, or it was acknowledged.
    #[error("it is missing, and so is everything up to batch {0}")]
    Missing(Position),
    /// An entry whose key is not that of a batch.
    #[error("behind it is an entry with a key of {0} bytes")]
    Key(usize),
}
