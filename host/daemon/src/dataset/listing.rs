//! The files of a dataset: a walk that comes to the same list on every host with the same files.

use std::ffi::OsString;
use std::fs::{self, FileType};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use partita_types::{ByteSize, ContentHash};

use super::DatasetError;

/// Most files and directories that a walk looks at.
const MAX_ENTRIES: usize = 4_000_000;
/// Deepest directory below the location.
const MAX_DEPTH: usize = 64;

/// One file of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    /// Path below the root of the listing.
    pub(super) path: PathBuf,
    pub(super) size: u64,
}

/// The files of a dataset in the order in which they are read.
#[derive(Debug)]
pub(super) struct Listing {
    /// The directory that paths start from.
    pub(super) root: PathBuf,
    pub(super) files: Vec<File>,
    pub(super) bytes: ByteSize,
    /// BLAKE3 over `path NUL size LF` of each file.
    pub(super) manifest: ContentHash,
}

impl Listing {
    /// Walks `location`, a directory or a file. Files are sorted by the bytes of their paths; with a `limit` those
    /// after the file that reaches it are left out.
    pub(super) fn read(location: &str, include: &[String], limit: Option<ByteSize>) -> Result<Self, DatasetError> {
        let path = Path::new(location);
        let metadata = fs::metadata(path).map_err(|source| read_error(path, source))?;
        let (root, mut files) = if metadata.is_dir() {
            (path.to_owned(), walk(path, include)?)
        } else {
            let name = path.file_name().map(PathBuf::from).unwrap_or_default();
            let root = path.parent().map(Path::to_owned).unwrap_or_default();
            (root, vec![File { path: name, size: metadata.len() }])
        };
        files.sort_by(|a, b| a.path.as_os_str().as_bytes().cmp(b.path.as_os_str().as_bytes()));
        cap(&mut files, limit);
        let mut hasher = blake3::Hasher::new();
        let mut bytes = 0_u64;
        for file in &files {
            hasher.update(file.path.as_os_str().as_bytes());
            hasher.update(format!("\0{}\n", file.size).as_bytes());
            bytes = bytes.saturating_add(file.size);
        }
        let manifest = ContentHash(*hasher.finalize().as_bytes());
        Ok(Self { root, files, bytes: ByteSize(bytes), manifest })
    }
}

fn cap(files: &mut Vec<File>, limit: Option<ByteSize>) {
    let Some(limit) = limit else { return };
    let mut bytes = 0_u64;
    let mut kept = 0;
    for file in files.iter() {
        if bytes >= limit.0 {
            break;
        }
        bytes = bytes.saturating_add(file.size);
        kept += 1;
    }
    files.truncate(kept);
}

fn read_error(path: &Path, source: std::io::Error) -> DatasetError {
    DatasetError::Read { path: path.display().to_string(), source }
}

/// All files below `root` whose names match, in no particular order.
fn walk(root: &Path, include: &[String]) -> Result<Vec<File>, DatasetError> {
    let location = || root.display().to_string();
    let mut files = Vec::new();
    let mut seen = 0_usize;
    let mut pending: Vec<(PathBuf, usize)> = vec![(PathBuf::new(), 0)];
    while let Some((directory, depth)) = pending.pop() {
        if depth > MAX_DEPTH {
            return Err(DatasetError::TooDeep { location: location(), limit: MAX_DEPTH });
        }
        for (name, kind) in entries(&root.join(&directory))? {
            seen += 1;
            if seen > MAX_ENTRIES {
                return Err(DatasetError::TooManyFiles { location: location(), limit: MAX_ENTRIES });
            }
            let path = directory.join(&name);
            if kind.is_dir() {
                pending.push((path, depth + 1));
            } else if kind.is_file() && included(name.as_bytes(), include) {
                let full = root.join(&path);
                let metadata = fs::symlink_metadata(&full).map_err(|source| read_error(&full, source))?;
                files.push(File { path, size: metadata.len() });
            }
        }
    }
    Ok(files)
}

/// Names and types in a directory; the type is that of a symbolic link itself.
fn entries(directory: &Path) -> Result<Vec<(OsString, FileType)>, DatasetError> {
    let list =
        || fs::read_dir(directory)?.map(|entry| entry.and_then(|e| Ok((e.file_name(), e.file_type()?)))).collect();
    let list: std::io::Result<Vec<_>> = list();
    list.map_err(|source| read_error(directory, source))
}

fn included(name: &[u8], include: &[String]) -> bool {
    include.is_empty() || include.iter().any(|pattern| matches(pattern.as_bytes(), name))
}

/// Whether `name` matches `pattern`, in which `*` stands for any bytes and `?` for one. Takes at most
/// pattern times name steps, whatever the pattern: only the last `*` is ever tried again.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, n));
                p += 1;
            }
            Some(b'?') => (p, n) = (p + 1, n + 1),
            Some(byte) if *byte == name[n] => (p, n) = (p + 1, n + 1),
            _ => match retry {
                Some((after, from)) => {
                    (p, n) = (after, from + 1);
                    retry = Some((after, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name) in [("*.rs", "lib.rs"), ("*.rs", ".rs"), ("a?c*", "abc"), ("*", ""), ("a*b*c", "aXbbXc")] {
            assert!(matches(pattern.as_bytes(), name.as_bytes()), "{pattern} does not match {name}");
        }
        for (pattern, name) in [("*.rs", "lib.rsx"), ("?", ""), ("a?c", "ac"), ("", "a"), ("a*b", "ab1"), ("A", "a")] {
            assert!(!matches(pattern.as_bytes(), name.as_bytes()), "{pattern} matches {name}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_exponential_time() {
        let pattern = "*a".repeat(200);
        assert!(!matches(pattern.as_bytes(), &[b'b'; 2_000]));
    }
}
