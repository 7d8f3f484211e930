//! What was counted, by Partita and natively, and whether it is the same.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::children;
use crate::cluster::JobFigures;

/// The result of the job.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    /// How many words there are.
    pub(crate) tokens: u64,
    /// How many different ones.
    pub(crate) distinct: u64,
    /// What all words make in bytes.
    pub(crate) word_bytes: u64,
    /// The most frequent words with their counts.
    pub(crate) words: Vec<(String, u64)>,
}

impl Counted {
    /// Reads what the job wrote.
    pub(super) fn read(file: &Path) -> anyhow::Result<Self> {
        Self::parse(&last_json(file)?, "words").context("the result of the job is not what was expected")
    }

    fn parse(value: &Value, words: &str) -> anyhow::Result<Self> {
        let list = value.get(words).and_then(Value::as_array).with_context(|| format!("{words} is missing"))?;
        let word = |entry: &Value| Some((entry.get(0)?.as_str()?.to_owned(), entry.get(1)?.as_u64()?));
        let words = list.iter().map(word).collect::<Option<_>>().context("a word has no count")?;
        Ok(Self {
            tokens: number(value, "tokens")?,
            distinct: number(value, "distinct")?,
            word_bytes: number(value, "identifier_bytes")?,
            words,
        })
    }
}

/// The native count.
#[derive(Debug)]
pub(crate) struct Native {
    counted: Counted,
    files: u64,
    bytes: u64,
    /// How long it took, listing and reading included.
    pub(crate) seconds: f64,
    /// With so many threads.
    pub(crate) threads: u64,
}

impl Native {
    /// Counts.
    pub(super) fn count(program: &Path, sources: &Path, limit: Option<u64>, top: usize) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.arg(sources).args(["--suffix", ".rs", "--top", &top.to_string()]);
        if let Some(limit) = limit {
            command.args(["--limit", &limit.to_string()]);
        }
        let output = children::output(&mut command)?;
        let value: Value = serde_json::from_str(output.trim()).context("cannot read the native count")?;
        let seconds = value.get("seconds").and_then(Value::as_f64).context("the native count has no time")?;
        Ok(Self {
            counted: Counted::parse(&value, "top").context("the native count is not what was expected")?,
            files: number(&value, "files")?,
            bytes: number(&value, "bytes")?,
            threads: number(&value, "threads")?,
            seconds,
        })
    }

    /// Compares every number.
    pub(super) fn check(&self, counted: &Counted, job: &JobFigures) -> anyhow::Result<()> {
        let mut differences = Vec::new();
        let mut same = |what: &str, partita: u64, native: u64| {
            if partita != native {
                differences.push(format!("{what}: {partita}, and natively {native}"));
            }
        };
        same("files", job.files, self.files);
        same("bytes", job.bytes_read, self.bytes);
        same("words", counted.tokens, self.counted.tokens);
        same("different words", counted.distinct, self.counted.distinct);
        same("bytes of words", counted.word_bytes, self.counted.word_bytes);
        for (place, (own, other)) in counted.words.iter().zip(&self.counted.words).enumerate() {
            if own != other {
                differences.push(format!("place {}: {own:?}, and natively {other:?}", place + 1));
            }
        }
        ensure!(counted.words.len() == self.counted.words.len(), "the lists differ in length");
        if !differences.is_empty() {
            bail!("the native count differs:\n  {}", differences.join("\n  "));
        }
        Ok(())
    }
}

fn number(value: &Value, key: &str) -> anyhow::Result<u64> {
    value.get(key).and_then(Value::as_u64).with_context(|| format!("{key} is missing"))
}

/// The last of the values of JSON in a file, one behind the other.
pub(super) fn last_json(file: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let values = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    let last = values.last().with_context(|| format!("{} is empty", file.display()))?;
    last.with_context(|| format!("{} is not JSON", file.display()))
}

/// The number of bytes of a size such as `64MiB`.
pub(super) fn bytes(text: &str) -> anyhow::Result<u64> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("B", 0), ("", 0)];
    let parsed = units.iter().find_map(|(unit, shift)| {
        let number = text.strip_suffix(unit)?.trim().parse::<u64>().ok()?;
        number.checked_mul(1 << shift)
    });
    parsed.with_context(|| format!("{text:?} is not a size such as 64MiB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(words: &[(&str, u64)]) -> Counted {
        let words = words.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect();
        Counted { tokens: 3, distinct: 2, word_bytes: 9, words }
    }

    fn job() -> JobFigures {
        JobFigures { files: 1, bytes_read: 10, ..JobFigures::default() }
    }

    #[test]
    fn every_number_is_compared() {
        let native = Native { counted: counted(&[("a", 2)]), files: 1, bytes: 10, seconds: 1.0, threads: 2 };
        assert!(native.check(&counted(&[("a", 2)]), &job()).is_ok());
        let error = native.check(&counted(&[("a", 3)]), &job()).unwrap_err().to_string();
        assert!(error.contains("place 1: (\"a\", 3), and natively (\"a\", 2)"), "{error}");
        let other = JobFigures { files: 2, ..job() };
        assert!(native.check(&counted(&[("a", 2)]), &other).unwrap_err().to_string().contains("files: 2"));
        assert!(native.check(&counted(&[]), &job()).is_err());
    }

    #[test]
    fn sizes_are_read_as_partita_reads_them() {
        assert_eq!(bytes("64MiB").unwrap(), 64 << 20);
        assert_eq!(bytes("4096").unwrap(), 4096);
        assert!(bytes("64 megs").is_err());
    }
}
