//! One line: a hash in hexadecimal, a space, and an [`Entry`] as JSON.

use std::fmt;

use crate::Entry;

/// Length of a hash in text.
const HEX: usize = 64;

/// The hash of a line and, through the one before it, of all before it. BLAKE3, 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hash([u8; 32]);

impl Hash {
    /// Before the first line.
    pub const START: Self = Self([0; 32]);

    /// The hash of a line whose text behind its own hash is `body`.
    #[must_use]
    pub fn then(self, body: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0).update(body.as_bytes());
        Self(*hasher.finalize().as_bytes())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        blake3::Hash::from_bytes(self.0).to_hex().fmt(f)
    }
}

impl std::str::FromStr for Hash {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        blake3::Hash::from_hex(text).map(|hash| Self(*hash.as_bytes())).map_err(|_| Fault::Form)
    }
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It does not look like a line.
    #[error("it is not a hash and an entry")]
    Form,
    /// It is not the line that was written behind the one before it.
    #[error("its hash is wrong: it was changed, or a line before it was changed, removed or put in")]
    Hash,
    /// Its number does not follow.
    #[error("it has number {found} where {expected} must stand")]
    Sequence {
        /// Its number.
        found: u64,
        /// The number that follows.
        expected: u64,
    },
}

/// A line in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its hash.
    pub hash: Hash,
    /// What it says.
    pub entry: Entry,
}

impl Line {
    /// Reads a line. Whether its hash is right depends on the line before it.
    ///
    /// # Errors
    /// If it does not look like a line.
    pub fn parse(line: &str) -> Result<Self, Fault> {
        let (hash, _, entry) = decode(line)?;
        Ok(Self { hash, entry })
    }
}

/// Writes a line, without its end.
pub(crate) fn encode(previous: Hash, entry: &Entry) -> Result<(Hash, String), serde_json::Error> {
    let body = serde_json::to_string(entry)?;
    let hash = previous.then(&body);
    Ok((hash, format!("{hash} {body}")))
}

/// The hash and the body of a line.
pub(crate) fn split(line: &str) -> Result<(Hash, &str), Fault> {
    let (hash, rest) = line.split_at_checked(HEX).ok_or(Fault::Form)?;
    let body = rest.strip_prefix(' ').ok_or(Fault::Form)?;
    Ok((hash.parse()?, body))
}

/// Reads a line without checking its hash.
pub(crate) fn decode(line: &str) -> Result<(Hash, &str, Entry), Fault> {
    let (hash, body) = split(line)?;
    let entry = serde_json::from_str(body).map_err(|_| Fault::Form)?;
    Ok((hash, body, entry))
}
