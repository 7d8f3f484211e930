//! The job that runs in every round, and what must come out of it: a shuffle that counts identifiers in source code made up
//! from a seed, and the same count without Partita.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::random::Random;
use crate::example_job;

/// Files that differ.
const TEXTS: u64 = 8;
/// Names under which each of them is found: much to read, of which little is on disk.
const COPIES: u64 = 12;
/// Lines of a file. With words as long as these, every partition of the shuffle is large enough for a memory file.
const LINES: u64 = 40_000;
/// Words with the greatest counts, in the result.
const TOP: usize = 20;

/// The job's input, and its result.
pub(super) struct Work {
    expected: Value,
}

impl Work {
    /// Writes the source code into a directory and counts it.
    pub(super) fn prepare(directory: &Path, random: &mut Random) -> Self {
        let mut counts = BTreeMap::new();
        for text in 0..TEXTS {
            let content = write_text(random);
            count(&content, COPIES, &mut counts);
            let first = directory.join(format!("{text}-0.rs"));
            fs::write(&first, content).expect("the source code can be written");
            for copy in 1..COPIES {
                let link = directory.join(format!("{text}-{copy}.rs"));
                fs::hard_link(&first, link).expect("a file can have several names");
            }
        }
        Self { expected: result(&counts) }
    }

    /// The text of the job file. The result is in the last task of array `top`.
    pub(super) fn job() -> String {
        let job = example_job("wordfreq").replace("split = \"8MiB\"", "split = \"4MiB\"");
        // An executor that is killed counts against its task.
        job.replace("[[array]]", "[[array]]\nretries = 9")
    }

    /// Compares the result of the job with the count.
    ///
    /// # Panics
    /// If it differs.
    pub(super) fn check(&self, result: &str) {
        let values = serde_json::Deserializer::from_str(result).into_iter::<Value>();
        let last = values.last().expect("the result is not empty").expect("the result is JSON");
        assert_eq!(last, self.expected, "the native count differs");
    }
}

fn write_text(random: &mut Random) -> String {
    let mut text = String::new();
    for _ in 0..LINES {
        // Some words are frequent, and many are rare.
        let size = random.below(17);
        let spread = 1 + random.below(1 << size);
        let word = random.below(spread);
        // Writing into a string does not fail.
        let _ = writeln!(
            text,
            "let number_{word}_of_the_names_that_are_counted = {}u32 + 0x{word:x}; // {word}",
            random.below(1_000)
        );
    }
    text
}

/// Adds the identifiers of a text, as often as it is there.
fn count(text: &str, times: u64, counts: &mut BTreeMap<String, u64>) {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_part(c)).filter(|word| !word.is_empty());
    for word in words.filter(|word| !word.starts_with(|c: char| c.is_ascii_digit())) {
        *counts.entry(word.to_owned()).or_insert(0) += times;
    }
}

/// The counts as the job writes them.
fn result(counts: &BTreeMap<String, u64>) -> Value {
    let mut words: Vec<(&String, &u64)> = counts.iter().collect();
    words.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
    words.truncate(TOP);
    let bytes: u64 = counts.iter().map(|(word, times)| word.len() as u64 * times).sum();
    serde_json::json!({
        "distinct": counts.len(),
        "tokens": counts.values().sum::<u64>(),
        "identifier_bytes": bytes,
        "limit": TOP,
        "words": words,
    })
}
