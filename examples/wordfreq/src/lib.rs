//! Which identifiers are used most? `map` counts those of a piece of source code and deals them out by hash, `reduce`
//! adds up what one output of every `map` has, `top` merges the most frequent ones of all.
//!
//! What an identifier is stands in [`tokens`]. The parts of a shuffle have no word in common, so the most frequent words
//! of each, together with the totals, are enough to merge exactly. The counting itself is [`Counter`], a plain type that
//! knows nothing of Partita.

pub mod counter;
pub mod tokens;

use std::cmp::Reverse;

use partita::prelude::*;
use serde::{Deserialize, Serialize};

pub use crate::counter::Counter;

partita::module!(map, reduce, top);

/// Words with their counts, on their way through the shuffle: in columns, which is compact and quick to decode.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// The words, one behind the other.
    words: String,
    /// The length of each word in bytes.
    lengths: Vec<u32>,
    /// The count of each word.
    counts: Vec<u64>,
}

impl Counts {
    fn push(&mut self, word: &[u8], count: u64) -> Result<()> {
        self.words.push_str(std::str::from_utf8(word)?);
        self.lengths.push(u32::try_from(word.len())?);
        self.counts.push(count);
        Ok(())
    }

    /// Adds all of these to `counter`.
    fn add_to(&self, counter: &mut Counter) -> Result<()> {
        partita::ensure!(self.lengths.len() == self.counts.len(), "a part has words without counts");
        let mut rest = self.words.as_bytes();
        for (length, count) in self.lengths.iter().zip(&self.counts) {
            let (word, behind) =
                rest.split_at_checked(*length as usize).context("a part has a word without its text")?;
            counter.add(word, *count);
            rest = behind;
        }
        Ok(())
    }
}

/// The most frequent identifiers and the totals over all of them. What `reduce` returns, and what `top` takes and returns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Top {
    /// How many different identifiers there are.
    pub distinct: u64,
    /// How many identifiers there are.
    pub tokens: u64,
    /// What these make in bytes.
    pub identifier_bytes: u64,
    /// The length that `words` was cut to.
    pub limit: u64,
    /// The most frequent identifiers with their counts; those of equal count in the order of their bytes.
    pub words: Vec<(String, u64)>,
}

impl Top {
    fn empty(limit: u64) -> Self {
        Self { distinct: 0, tokens: 0, identifier_bytes: 0, limit, words: Vec::new() }
    }

    /// The first `limit` words of all that `counter` has.
    fn of(counter: &Counter, limit: u64) -> Result<Self> {
        let mut top = Self::empty(limit);
        let mut all: Vec<(&[u8], u64)> = counter.iter().collect();
        top.distinct = counter.distinct();
        for (word, count) in &all {
            top.tokens += count;
            top.identifier_bytes += count * word.len() as u64;
        }
        all.sort_unstable_by_key(|(word, count)| (Reverse(*count), *word));
        all.truncate(usize::try_from(limit)?);
        for (word, count) in all {
            top.words.push((String::from_utf8(word.to_vec())?, count));
        }
        Ok(top)
    }

    /// Merges `other`, which has no word in common with this one.
    fn merge(&mut self, other: Self) -> Result<()> {
        partita::ensure!(
            other.limit >= self.limit,
            "the top {} cannot be found in lists that were cut to {}: give `reduce` the same `n`",
            self.limit,
            other.limit
        );
        self.distinct += other.distinct;
        self.tokens += other.tokens;
        self.identifier_bytes += other.identifier_bytes;
        self.words.extend(other.words);
        self.words.sort_unstable_by(|a, b| (Reverse(a.1), &a.0).cmp(&(Reverse(b.1), &b.0)));
        self.words.truncate(usize::try_from(self.limit)?);
        Ok(())
    }
}

/// Arguments of [`map`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Shorter identifiers are not counted.
    #[serde(default)]
    pub min_length: usize,
}

/// Counts the identifiers in a piece of source code; each output gets those that belong to it by hash.
#[partita::task]
pub fn map(text: Bytes, Args(filter): Args<Filter>, outputs: Outputs) -> Result<Partitioned<Postcard<Counts>>> {
    let mut counter = Counter::default();
    counter.count(&text, filter.min_length);
    let mut parts = Partitioned::<Postcard<Counts>>::new(outputs);
    for (word, count) in counter.iter() {
        parts.for_key(word).push(word, count)?;
    }
    Ok(parts)
}

/// Arguments of [`reduce`] and [`top`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Length {
    /// How many of the most frequent identifiers are wanted.
    #[serde(default = "twenty")]
    pub n: u64,
}

fn twenty() -> u64 {
    20
}

/// Adds up counts and keeps the most frequent identifiers, with the totals over all.
#[partita::task]
pub fn reduce(parts: Many<Postcard<Counts>>, Args(length): Args<Length>) -> Result<Json<Top>> {
    let mut counter = Counter::default();
    for part in parts {
        part?.add_to(&mut counter)?;
    }
    Ok(Json(Top::of(&counter, length.n)?))
}

/// Merges the most frequent identifiers of parts that have none in common.
#[partita::task]
pub fn top(parts: Many<Json<Top>>, Args(length): Args<Length>) -> Result<Json<Top>> {
    let mut merged = Top::empty(length.n);
    for part in parts {
        merged.merge(part?.0)?;
    }
    Ok(Json(merged))
}

#[cfg(test)]
mod tests;
