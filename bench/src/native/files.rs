//! The files of a dataset, listed independently of the hosts but by the same rule.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// One file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct File {
    /// Below the directory of the listing.
    pub(crate) path: PathBuf,
    /// In bytes.
    pub(crate) size: u64,
}

/// The files below `directory` whose names end in `suffix`, sorted by the bytes of their paths. With a limit those
/// behind the file that reaches it are left out.
pub(crate) fn list(directory: &Path, suffix: &str, limit: Option<u64>) -> anyhow::Result<Vec<File>> {
    let mut files = Vec::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(below) = pending.pop() {
        let full = directory.join(&below);
        for entry in fs::read_dir(&full).with_context(|| format!("cannot list {}", full.display()))? {
            let entry = entry.with_context(|| format!("cannot list {}", full.display()))?;
            let path = below.join(entry.file_name());
            let kind = entry.file_type().with_context(|| format!("cannot examine {}", path.display()))?;
            if kind.is_dir() {
                pending.push(path);
            } else if kind.is_file() && entry.file_name().as_bytes().ends_with(suffix.as_bytes()) {
                let size = entry.metadata().with_context(|| format!("cannot examine {}", path.display()))?.len();
                files.push(File { path, size });
            }
        }
    }
    files.sort_unstable_by(|a, b| a.path.as_os_str().as_bytes().cmp(b.path.as_os_str().as_bytes()));
    if let Some(limit) = limit {
        let mut before = 0;
        files.retain(|file| {
            let kept = before < limit;
            before += file.size;
            kept
        });
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_keeps_the_file_that_reaches_it() {
        let directory = tempfile::tempdir().unwrap();
        for (name, size) in [("b/x.rs", 5), ("a.rs", 4), ("b.rs", 3), ("c.txt", 9)] {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![b'x'; size]).unwrap();
        }
        let names = |limit| {
            let files = list(directory.path(), ".rs", limit).unwrap();
            files.into_iter().map(|file| file.path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(None), ["a.rs", "b.rs", "b/x.rs"]);
        assert_eq!(names(Some(4)), ["a.rs"]);
        assert_eq!(names(Some(5)), ["a.rs", "b.rs"]);
    }
}
