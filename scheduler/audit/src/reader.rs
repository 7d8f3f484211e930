//! Reading and checking the files, also while somebody appends.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::AuditError;
use crate::chain::{self, Fault, Hash};

/// A line is never longer: an entry's texts are bounded.
const LINE_MAX: u64 = 64 << 10;

/// A place in the chain: behind the line with this number and hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    /// The number of the last line; 0 before the first.
    pub sequence: u64,
    /// Its hash.
    pub hash: Hash,
}

impl Chain {
    /// Before the first line.
    pub const START: Self = Self { sequence: 0, hash: Hash::START };

    fn next(self, line: &str) -> Result<Self, Fault> {
        let (hash, body, entry) = chain::decode(line)?;
        if self.hash.then(body) != hash {
            return Err(Fault::Hash);
        }
        let (found, expected) = (entry.sequence, self.sequence + 1);
        if found == expected { Ok(Self { sequence: found, hash }) } else { Err(Fault::Sequence { found, expected }) }
    }
}

/// What [`verify`] found: every line is what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// The first line that is there. Older files may have been put away.
    pub first: u64,
    /// The last line.
    pub last: Chain,
    /// Bytes behind it: a line that is being written, or that a crash left.
    pub torn: u64,
}

/// Lines of a log, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The lines, as they stand in the files: [`crate::Line::parse`] reads them.
    pub lines: Vec<String>,
    /// Whether there are more behind them.
    pub more: bool,
}

pub(crate) fn path(directory: &Path, first: u64) -> PathBuf {
    directory.join(format!("audit-{first:020}.log"))
}

/// The files with the numbers of their first lines, in order.
pub(crate) fn files(directory: &Path) -> Result<Vec<(u64, PathBuf)>, AuditError> {
    let failed = AuditError::io("read", directory);
    let first = |path: &Path| path.file_name()?.to_str()?.strip_prefix("audit-")?.strip_suffix(".log")?.parse().ok();
    let entries = fs::read_dir(directory).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(failed)?;
    let mut files: Vec<(u64, PathBuf)> =
        entries.into_iter().filter_map(|entry| Some((first(&entry.path())?, entry.path()))).collect();
    files.sort();
    Ok(files)
}

/// The place before the file whose first line has number `first`: behind the last line of the file before it.
///
/// Without that file the chain begins there, and only what its own lines say can be checked.
pub(crate) fn before(files: &[(u64, PathBuf)], first: u64) -> Result<Option<Chain>, AuditError> {
    if first == 1 {
        return Ok(Some(Chain::START));
    }
    let Some((_, path)) = files.iter().rev().find(|(number, _)| *number < first) else { return Ok(None) };
    let mut last = None;
    lines(path, 0, |line| {
        last = Some(line.to_owned());
        Ok(true)
    })?;
    let decoded = last.as_deref().and_then(|line| chain::decode(line).ok());
    Ok(decoded.map(|(hash, _, entry)| Chain { sequence: entry.sequence, hash }))
}

/// Calls `take` with every whole line behind the first `skip` until it returns false; returns the bytes of whole lines,
/// and those behind them. Of lines that are passed over only the length is checked.
fn lines(path: &Path, skip: u64, mut take: impl FnMut(&str) -> Result<bool, Fault>) -> Result<(u64, u64), AuditError> {
    let file = File::open(path).map_err(AuditError::io("open", path))?;
    let mut reader = BufReader::new(file);
    let (mut line, mut number, mut whole) = (Vec::new(), 0, 0);
    loop {
        line.clear();
        let read = std::io::Read::take(&mut reader, LINE_MAX).read_until(b'\n', &mut line);
        let read = read.map_err(AuditError::io("read", path))? as u64;
        number += 1;
        if line.last() != Some(&b'\n') {
            // A longer line cannot be the beginning of one that was being written.
            return if read < LINE_MAX { Ok((whole, read)) } else { Err(damaged(path, number, Fault::Form)) };
        }
        whole += read;
        if number <= skip {
            continue;
        }
        line.pop();
        let text = std::str::from_utf8(&line).map_err(|_| damaged(path, number, Fault::Form))?;
        if !take(text).map_err(|fault| damaged(path, number, fault))? {
            return Ok((whole, 0));
        }
    }
}

fn damaged(path: &Path, line: u64, fault: Fault) -> AuditError {
    AuditError::Damaged { path: path.to_owned(), line, fault }
}

/// Checks a file that begins behind `start`. Returns its end, and the bytes of its whole lines and behind them.
pub(crate) fn follow(path: &Path, start: Option<Chain>) -> Result<(Chain, u64, u64), AuditError> {
    let mut chain = start;
    let (whole, torn) = lines(path, 0, |line| {
        chain = Some(match chain {
            Some(chain) => chain.next(line)?,
            // The first line of a log whose older files were put away is taken as it is.
            None => chain::decode(line).map(|(hash, _, entry)| Chain { sequence: entry.sequence, hash })?,
        });
        Ok(true)
    })?;
    Ok((chain.unwrap_or(Chain::START), whole, torn))
}

/// Checks every line of one file, which may be an excerpt: then its first line is taken as it is.
///
/// # Errors
/// At the first line that is not what was written, with its place.
pub fn verify_file(path: &Path) -> Result<Verified, AuditError> {
    let mut first = None;
    lines(path, 0, |line| {
        first = Some(chain::decode(line)?.2.sequence);
        Ok(false)
    })?;
    let first = first.unwrap_or(1);
    let (last, _, torn) = follow(path, (first == 1).then_some(Chain::START))?;
    Ok(Verified { first, last, torn })
}

/// Checks every line that is there.
///
/// # Errors
/// At the first line that is not what was written, with its place.
pub fn verify(directory: &Path) -> Result<Verified, AuditError> {
    let files = files(directory)?;
    let Some((first, _)) = files.first() else { return Ok(Verified { first: 1, last: Chain::START, torn: 0 }) };
    let mut chain = (*first == 1).then_some(Chain::START);
    let mut torn = 0;
    for (number, path) in &files {
        if torn > 0 || chain.is_some_and(|chain| chain.sequence + 1 != *number) {
            let expected = chain.map_or(0, |chain| chain.sequence + 1);
            return Err(damaged(path, 1, Fault::Sequence { found: *number, expected }));
        }
        let (end, _, rest) = follow(path, chain)?;
        (chain, torn) = (Some(end), rest);
    }
    Ok(Verified { first: *first, last: chain.unwrap_or(Chain::START), torn })
}

/// The lines behind number `after`, at most `limit`. Checks only that they are lines with the right numbers; see
/// [`verify`].
///
/// # Errors
/// If a file cannot be read, or a line does not have the number of its place.
pub fn read(directory: &Path, after: u64, limit: usize) -> Result<Page, AuditError> {
    let files = files(directory)?;
    let begin = files.iter().rposition(|(first, _)| *first <= after.saturating_add(1)).unwrap_or(0);
    let mut page = Page::default();
    for (first, path) in files.iter().skip(begin) {
        // A file's lines are numbered without gaps from its name on.
        let skip = after.saturating_add(1).saturating_sub(*first);
        let mut expected = first.saturating_add(skip);
        lines(path, skip, |line| {
            page.more = page.lines.len() >= limit;
            if page.more {
                return Ok(false);
            }
            let found = chain::decode(line)?.2.sequence;
            if found != expected {
                return Err(Fault::Sequence { found, expected });
            }
            expected += 1;
            page.lines.push(line.to_owned());
            Ok(true)
        })?;
        if page.more {
            break;
        }
    }
    Ok(page)
}
