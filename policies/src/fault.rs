//! What can be wrong with a policy, and where.

use std::fmt;
use std::io;

use partita_types::NameError;

/// Most faults that are reported of one file: a file that is no policy at all need not be described in full.
const FAULTS_MAX: usize = 100;

/// Everything that is wrong with a set of policies; never empty.
#[derive(Debug)]
pub struct PolicyErrors(pub(crate) Vec<PolicyFault>);

impl PolicyErrors {
    /// The faults, in the order of the files and of the lines in them.
    #[must_use]
    pub fn faults(&self) -> &[PolicyFault] {
        &self.0
    }
}

impl fmt::Display for PolicyErrors {
    /// One fault on each line, after a line that counts them if there are several.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0.as_slice() {
            return write!(f, "{only}");
        }
        write!(f, "{} faults in the policies", self.0.len())?;
        for fault in &self.0 {
            write!(f, "\n  {fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for PolicyErrors {}

/// One fault.
#[derive(Debug, thiserror::Error)]
pub enum PolicyFault {
    /// The directory or a file cannot be read.
    #[error("cannot read {path}: {error}")]
    Unreadable {
        /// The directory or file.
        path: String,
        /// What the system says. Part of the text rather than a source, because faults are listed, not chained.
        error: io::Error,
    },
    /// More files than anybody writes by hand.
    #[error("{path} holds more than {limit} policy files")]
    TooManyFiles {
        /// The directory.
        path: String,
        /// How many there may be.
        limit: usize,
    },
    /// Something in a file.
    #[error("{file}:{line}:{column}: {problem}")]
    At {
        /// The file's name.
        file: String,
        /// Counts from 1.
        line: usize,
        /// Counts characters from 1.
        column: usize,
        /// What is wrong there.
        problem: Problem,
    },
}

/// What is wrong at one place of a file. `key` is always the whole path, such as `tenant.acme.quota.stored`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not TOML.
    #[error("{message}")]
    Syntax {
        /// What the parser says.
        message: String,
    },
    /// The same key twice in one table.
    #[error("duplicate key {key:?}")]
    DuplicateKey {
        /// The key as written.
        key: String,
    },
    /// A key that means nothing.
    #[error("unknown key {key:?} {}; {}known keys: {}", inside(section), did_you_mean(*suggestion), known.join(", "))]
    UnknownKey {
        /// The key, shortened.
        key: String,
        /// The table it is in; empty at the top of the file.
        section: String,
        /// The known key that is probably meant.
        suggestion: Option<&'static str>,
        /// All keys that the table may have.
        known: Vec<&'static str>,
    },
    /// A key without which the table means nothing.
    #[error("[{section}] lacks the key {key:?}")]
    MissingKey {
        /// The key.
        key: &'static str,
        /// The table.
        section: String,
    },
    /// A value of another type.
    #[error("{key}: expected {expected}, found {found}")]
    Type {
        /// The key.
        key: String,
        /// What is needed.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// Text or a number of another form, or in another unit.
    #[error("{key}: {text:?} is not {expected}")]
    Form {
        /// The key.
        key: String,
        /// The value, shortened.
        text: String,
        /// What is needed.
        expected: &'static str,
    },
    /// Below what makes sense.
    #[error("{key}: {value} is too small, the least is {least}")]
    TooSmall {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// The smallest that is accepted.
        least: String,
    },
    /// Above what makes sense.
    #[error("{key}: {value} is too large, the most is {most}")]
    TooLarge {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// The largest that is accepted.
        most: String,
    },
    /// Two values that contradict each other.
    #[error("{key}: {value} is more than {other}, which is {limit}")]
    Above {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// The key that limits it.
        other: String,
        /// The value of that.
        limit: String,
    },
    /// A value that says nothing without another one.
    #[error("{key} means nothing without {other}: tell how many cores are meant")]
    Alone {
        /// The key.
        key: String,
        /// The key that it needs.
        other: String,
    },
    /// A tenant that could never run anything.
    #[error(
        "{key}: {value} and no guarantee leave the tenant less than the least that it can be held to, so it \
         could never run anything; allow at least 0.01, or guarantee a core"
    )]
    Never {
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
    /// A tenant or dataset with a name that cannot be used.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A tenant of two files.
    #[error("tenant {tenant} is defined in {file}:{line}:{column}, too")]
    DuplicateTenant {
        /// The tenant.
        tenant: String,
        /// The other file.
        file: String,
        /// The line there.
        line: usize,
        /// The column there.
        column: usize,
    },
    /// Two datasets of a tenant with one name.
    #[error("{key}: the tenant has another dataset with the name {name:?}")]
    DuplicateDataset {
        /// The key.
        key: String,
        /// The name.
        name: String,
    },
    /// A path that is not absolute and plain.
    #[error("{key}: {location:?} {problem}")]
    Location {
        /// The key.
        key: String,
        /// The path, shortened.
        location: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A pattern that would never match, or whose meaning is not clear.
    #[error("{key}: {pattern:?} {problem}")]
    Pattern {
        /// The key.
        key: String,
        /// The pattern, shortened.
        pattern: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// So much is wrong that the rest is left out.
    #[error("more than {limit} faults; the others are not shown")]
    Further {
        /// How many are shown.
        limit: usize,
    },
    /// A list with too many entries.
    #[error("{key}: {count} entries are too many, the most is {most}")]
    TooMany {
        /// The key.
        key: String,
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
}

fn inside(section: &str) -> String {
    if section.is_empty() { "at the top".to_owned() } else { format!("in [{section}]") }
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map(|key| format!("did you mean {key:?}? ")).unwrap_or_default()
}

/// The faults of one file while it is read.
pub(crate) struct Faults<'a> {
    file: &'a str,
    text: &'a str,
    found: Vec<(usize, Problem)>,
}

impl<'a> Faults<'a> {
    pub(crate) fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, text, found: Vec::new() }
    }

    /// Notes a fault at the byte `at` of the file, unless there are too many already.
    pub(crate) fn add(&mut self, at: usize, problem: Problem) {
        match self.found.len() {
            0..FAULTS_MAX => self.found.push((at, problem)),
            FAULTS_MAX => self.found.push((self.text.len(), Problem::Further { limit: FAULTS_MAX })),
            _ => {}
        }
    }

    /// Line and column of the byte `at`, both from 1; columns count characters.
    pub(crate) fn position(&self, at: usize) -> (usize, usize) {
        position(self.text, at)
    }

    /// The faults in the order of the file. On a line that is not TOML only that is reported, because what could
    /// still be read of it means nothing.
    pub(crate) fn finish(mut self) -> Vec<PolicyFault> {
        self.found.sort_by_key(|(at, _)| *at);
        let broken: Vec<usize> = self
            .found
            .iter()
            .filter(|(_, problem)| matches!(problem, Problem::Syntax { .. }))
            .map(|(at, _)| position(self.text, *at).0)
            .collect();
        let mut faults = Vec::new();
        for (at, problem) in self.found {
            let (line, column) = position(self.text, at);
            if matches!(problem, Problem::Syntax { .. }) || !broken.contains(&line) {
                faults.push(PolicyFault::At { file: self.file.to_owned(), line, column, problem });
            }
        }
        faults
    }
}

fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// At most 60 characters of what somebody wrote.
pub(crate) fn shorten(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let text = "a = 1\nö = 2\n";
        assert_eq!(position(text, 0), (1, 1));
        assert_eq!(position(text, 4), (1, 5));
        assert_eq!(position(text, 6), (2, 1));
        assert_eq!(position(text, 8), (2, 2), "a character of two bytes is one column");
        assert_eq!(position(text, 999), (3, 1), "beyond the end is the end");
    }
}
