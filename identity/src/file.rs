//! Reading and writing the small files that hold keys and certificates.
//!
//! A file appears whole or not at all, and a key is never readable by others, not even for a moment.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::random;

/// Largest file that is read: chains and key sets are a few KiB.
const FILE_MAX: u64 = 1 << 20;

/// A file with a key or a certificate could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct FileError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl FileError {
    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What kind of fault it was; `NotFound` tells a first start from a broken one.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

/// Who may read a file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Access {
    /// Everybody: certificates and public keys.
    Public,
    /// The owner only: private keys.
    Private,
}

impl Access {
    const fn mode(self) -> u32 {
        match self {
            Self::Public => 0o644,
            Self::Private => 0o600,
        }
    }
}

/// Reads a whole small file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let error = |source| FileError { action: "read", path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes)).map_err(error)?;
    if read as u64 > FILE_MAX {
        return Err(error(io::Error::new(io::ErrorKind::FileTooLarge, "the file is larger than 1 MiB")));
    }
    Ok(bytes)
}

/// Writes a file so that it is on disk, whole, when this returns; creates the directory for the owner alone.
pub(crate) fn write(path: &Path, bytes: &[u8], access: Access) -> Result<(), FileError> {
    write_steps(path, bytes, access).map_err(|source| FileError { action: "write", path: path.to_owned(), source })
}

fn write_steps(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let partial = path.with_extension(format!("partial-{}", hex::encode(random::<8>())));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(access.mode())
        .open(&partial)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&partial, path));
    if written.is_err() {
        // The first error is the one to report; a left-over with a random name does no harm.
        let _ = fs::remove_file(&partial);
    }
    written?;
    File::open(directory)?.sync_all()
}

/// One PEM block with lines of 64 characters.
pub(crate) fn pem_block(label: &str, der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_private_file_is_readable_by_its_owner_only_and_replaced_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub/secret.key");
        write(&path, b"one", Access::Private).unwrap();
        write(&path, b"two", Access::Private).unwrap();
        assert_eq!(read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "a partial file was left behind");
    }

    #[test]
    fn errors_name_the_file_and_what_was_tried() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("absent.pem");
        let error = read(&path).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot read {}", path.display()));
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_that_is_too_large_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("large.pem");
        fs::write(&path, vec![b'x'; 1 << 21]).unwrap();
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn pem_lines_have_64_characters_at_most() {
        let text = pem_block("CERTIFICATE", &[7; 100]);
        assert!(text.starts_with("-----BEGIN CERTIFICATE-----\n"));
        assert!(text.lines().all(|line| line.len() <= 64));
    }
}
