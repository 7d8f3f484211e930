//! Small files of the data directory that hold one object of JSON in each line, and that this program also appends to
//! beside a running scheduler.
//!
//! Whoever appends or shortens holds the file's lock meanwhile, so that no line is lost between the two.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why such a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LinesError {
    /// The system refused.
    #[error("cannot {operation} {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A line that means nothing: what it was meant for is not known, so it cannot be left out.
    #[error("{path} means nothing in line {line}; correct or remove that line")]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line; 1 is the first.
        line: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl LinesError {
    fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { operation, path, source }
    }
}

/// Opens the file at `path`, which is made if it does not exist, and locks it. The lock ends with the file.
fn lock(path: &Path) -> io::Result<File> {
    loop {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        file.lock()?;
        // While this waited for the lock, another file may have taken the name.
        let (locked, named) = (file.metadata()?, fs::metadata(path));
        if named.is_ok_and(|named| (named.dev(), named.ino()) == (locked.dev(), locked.ino())) {
            return Ok(file);
        }
    }
}

fn encoded<T: Serialize>(lines: &[T]) -> io::Result<String> {
    let mut text = String::new();
    for line in lines {
        text.push_str(&serde_json::to_string(line)?);
        text.push('\n');
    }
    Ok(text)
}

/// Appends a line. Durable when this returns. Blocks.
pub(crate) fn append<T: Serialize>(path: &Path, line: &T) -> Result<(), LinesError> {
    let write = || {
        let mut file = lock(path)?;
        file.write_all(encoded(&[line])?.as_bytes())?;
        file.sync_all()
    };
    write().map_err(LinesError::io("write", path))
}

/// Every line of the file, which need not exist. Blocks.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, LinesError> {
    match fs::read_to_string(path) {
        Ok(text) => parse(path, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(LinesError::io("read", path)(error)),
    }
}

fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<Vec<T>, LinesError> {
    let parse = |(index, line)| {
        serde_json::from_str(line).map_err(|source| LinesError::Line { path: path.to_owned(), line: index + 1, source })
    };
    text.lines().enumerate().map(parse).collect()
}

/// Drops the lines for which `useful` is false, in one step. Blocks.
pub(crate) fn retain<T>(path: &Path, useful: impl Fn(&T) -> bool) -> Result<(), LinesError>
where
    T: Serialize + DeserializeOwned,
{
    if !path.exists() {
        return Ok(());
    }
    let mut locked = lock(path).map_err(LinesError::io("lock", path))?;
    let mut text = String::new();
    locked.read_to_string(&mut text).map_err(LinesError::io("read", path))?;
    let lines: Vec<T> = parse(path, &text)?;
    let kept: Vec<&T> = lines.iter().filter(|line| useful(line)).collect();
    if kept.len() == lines.len() {
        return Ok(());
    }
    let fresh = path.with_extension("new");
    let write = || {
        let mut file = File::create(&fresh)?;
        file.write_all(encoded(&kept)?.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().map_err(LinesError::io("shorten", path))
}

/// The text of the file, which need not exist. Blocks.
pub(crate) fn peek(path: &Path) -> Result<String, LinesError> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        text => text.map_err(LinesError::io("read", path)),
    }
}

/// Drops the first `bytes` of the file, which are whole lines; those that came behind them stay. Blocks.
pub(crate) fn drop_first(path: &Path, bytes: usize) -> Result<(), LinesError> {
    let shorten = || {
        let mut file = lock(path)?;
        let mut rest = Vec::new();
        file.seek(io::SeekFrom::Start(bytes as u64))?;
        file.read_to_end(&mut rest)?;
        file.set_len(0)?;
        file.write_all(&rest)?;
        file.sync_all()
    };
    shorten().map_err(LinesError::io("shorten", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_appended_while_others_are_dropped_are_not_lost() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lines");
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4_u32)
                .map(|writer| {
                    let path = &path;
                    scope.spawn(move || (0..50).for_each(|line| append(path, &(writer, line)).unwrap()))
                })
                .collect();
            while writers.iter().any(|writer| !writer.is_finished()) {
                // The lines of writer 0 are of no use.
                retain(&path, |(writer, _): &(u32, u32)| *writer != 0).unwrap();
            }
        });
        retain(&path, |(writer, _): &(u32, u32)| *writer != 0).unwrap();
        let lines: Vec<(u32, u32)> = read(&path).unwrap();
        assert_eq!(lines.len(), 150);
    }

    #[test]
    fn what_came_behind_stays_when_the_first_lines_are_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lines");
        (1..=2).for_each(|line| append(&path, &line).unwrap());
        let seen = peek(&path).unwrap();
        append(&path, &3).unwrap();
        drop_first(&path, seen.len()).unwrap();
        append(&path, &4).unwrap();
        assert_eq!(read::<u32>(&path).unwrap(), [3, 4]);
        assert_eq!(read::<u32>(&directory.path().join("none")).unwrap(), [0; 0]);
    }
}
