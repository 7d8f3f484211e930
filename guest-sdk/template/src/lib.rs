//! Task functions: plain functions that Partita runs on a cluster, and that `cargo test` runs here.
//!
//! This example counts the words of many texts. Replace it by what you need.

use std::collections::BTreeMap;

use partita::prelude::*;
use serde::Deserialize;

// Lists the task functions that jobs can use.
partita::module!(count, merge);

/// Words with how often they were seen.
type Counts = BTreeMap<String, u64>;

/// What a job can tell `count`.
#[derive(Deserialize)]
struct Options {
    /// Shorter words are left out.
    #[serde(default)]
    min_length: usize,
}

/// Counts the words in a text.
#[partita::task]
fn count(text: Text, Args(options): Args<Options>) -> Json<Counts> {
    let mut counts = Counts::new();
    for word in text.split_whitespace() {
        if word.chars().count() >= options.min_length {
            *counts.entry(word.to_lowercase()).or_default() += 1;
        }
    }
    partita::info!("{} different words", counts.len());
    Json(counts)
}

/// Adds counts up.
#[partita::task]
fn merge(parts: Many<Json<Counts>>) -> Result<Json<Counts>> {
    let mut sum = Counts::new();
    for part in parts {
        for (word, count) in part?.0 {
            *sum.entry(word).or_default() += count;
        }
    }
    Ok(Json(sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_counted_whatever_their_case() {
        let counts = count(Text::from("The cat and the hat"), Args(Options { min_length: 0 }));
        assert_eq!(counts["the"], 2);
        assert_eq!(counts.len(), 4);
    }

    #[test]
    fn merging_adds_counts_up() {
        let part = |word: &str| Json(Counts::from([(word.to_owned(), 1)]));
        let sum = merge(Many::from(vec![part("a"), part("b"), part("a")])).unwrap();
        assert_eq!(sum.0, Counts::from([("a".to_owned(), 2), ("b".to_owned(), 1)]));
    }

    /// The same through bytes, as on the cluster.
    #[test]
    fn a_job_can_leave_the_options_out() {
        let texts = vec![vec![b"a rose is a rose".to_vec()]];
        let outputs = partita::testing::run(&MODULE, "count", "", texts, 1).unwrap();
        assert_eq!(outputs, [br#"{"a":2,"is":1,"rose":2}"#]);
    }
}
