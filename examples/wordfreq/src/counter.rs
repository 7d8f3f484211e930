//! Counts words: a hash table that keeps the bytes of all words in one place and allocates nothing per word.

use crate::tokens::each_identifier;

/// How often each of a set of words was seen.
///
/// Open addressing with linear probing. A slot has the upper half of the hash and the number of an entry, so that most
/// probes are decided without a look at the entry; an entry has the first eight bytes of its word, so that short words
/// are compared without a look at the text.
#[derive(Debug, Clone, Default)]
pub struct Counter {
    slots: Vec<Slot>,
    entries: Vec<Entry>,
    /// The words, one behind the other.
    text: Vec<u8>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    tag: u32,
    /// Number of the entry plus one; 0 if the slot is free.
    entry: u32,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The first eight bytes, with zeros behind a shorter word.
    head: u64,
    hash: u64,
    start: usize,
    length: usize,
    count: u64,
}

/// Slots of a table with its first word.
const SMALLEST: usize = 1 << 12;

/// A word with what comparing it needs.
struct Key<'a> {
    word: &'a [u8],
    head: u64,
    hash: u64,
}

impl<'a> Key<'a> {
    /// The word at `begin..end` of `text`.
    fn new(text: &'a [u8], begin: usize, end: usize) -> Self {
        // A multiplication for every eight bytes, as in the hash of the compiler's own tables (`FxHash`).
        const FACTOR: u64 = 0xf135_7aea_2e62_a9c5;
        let mut hash = (end - begin) as u64;
        let mut mix = |bytes: u64| hash = (hash.rotate_left(5) ^ bytes).wrapping_mul(FACTOR);
        let head = load(text, begin, end);
        mix(head);
        let mut next = begin + 8;
        while next < end {
            mix(load(text, next, end));
            next += 8;
        }
        Self { word: &text[begin..end], head, hash: hash ^ (hash >> 29) }
    }

    fn tag(&self) -> u32 {
        tag(self.hash)
    }
}

/// Up to eight bytes from `begin` on, but none from `end` on: zeros stand for these. One load, unless the text ends here.
fn load(text: &[u8], begin: usize, end: usize) -> u64 {
    let length = (end - begin).min(8);
    if let Some(bytes) = text[begin..].first_chunk::<8>() {
        let beyond = 64 - 8 * length;
        return if length == 0 { 0 } else { u64::from_le_bytes(*bytes) << beyond >> beyond };
    }
    let mut bytes = [0; 8];
    bytes[..length].copy_from_slice(&text[begin..begin + length]);
    u64::from_le_bytes(bytes)
}

#[allow(clippy::cast_possible_truncation, reason = "the upper half of the hash is what the tag is")]
fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

impl Counter {
    /// Counts all identifiers in `text` of at least `min_length` bytes.
    pub fn count(&mut self, text: &[u8], min_length: usize) {
        each_identifier(text, |begin, end| {
            if end - begin >= min_length {
                self.add_key(&Key::new(text, begin, end), 1);
            }
        });
    }

    /// Adds `count` to the count of `word`.
    pub fn add(&mut self, word: &[u8], count: u64) {
        self.add_key(&Key::new(word, 0, word.len()), count);
    }

    fn add_key(&mut self, key: &Key<'_>, count: u64) {
        if self.entries.len() * 2 >= self.slots.len() {
            self.grow();
        }
        let mask = self.slots.len() - 1;
        let mut place = home(key.hash, mask);
        loop {
            let slot = self.slots[place];
            if slot.entry == 0 {
                break;
            }
            if slot.tag == key.tag() {
                let number = slot.entry as usize - 1;
                if self.holds(&self.entries[number], key) {
                    self.entries[number].count += count;
                    return;
                }
            }
            place = (place + 1) & mask;
        }
        self.insert(place, key, count);
    }

    fn holds(&self, entry: &Entry, key: &Key<'_>) -> bool {
        entry.head == key.head
            && entry.length == key.word.len()
            && (entry.length <= 8 || self.text[entry.start..entry.start + entry.length] == *key.word)
    }

    /// # Panics
    /// After 2³² − 1 different words, which need more memory than a guest has.
    fn insert(&mut self, place: usize, key: &Key<'_>, count: u64) {
        let start = self.text.len();
        self.text.extend_from_slice(key.word);
        self.entries.push(Entry { head: key.head, hash: key.hash, start, length: key.word.len(), count });
        let Ok(entry) = u32::try_from(self.entries.len()) else {
            panic!("more than {} different words", u32::MAX);
        };
        self.slots[place] = Slot { tag: key.tag(), entry };
    }

    /// Doubles the slots.
    fn grow(&mut self) {
        let size = (self.slots.len() * 2).max(SMALLEST);
        let mask = size - 1;
        let mut slots = vec![Slot::default(); size];
        for (entry, number) in self.entries.iter().zip(1_u32..) {
            let mut place = home(entry.hash, mask);
            while slots[place].entry != 0 {
                place = (place + 1) & mask;
            }
            slots[place] = Slot { tag: tag(entry.hash), entry: number };
        }
        self.slots = slots;
    }

    /// How many different words there are.
    #[must_use]
    pub fn distinct(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Every word with its count, in the order in which they were first seen.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.entries.iter().map(|entry| (&self.text[entry.start..entry.start + entry.length], entry.count))
    }
}

/// Where the search for a hash begins.
#[allow(clippy::cast_possible_truncation, reason = "only the lower bits are wanted")]
fn home(hash: u64, mask: usize) -> usize {
    hash as usize & mask
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn counts(counter: &Counter) -> BTreeMap<String, u64> {
        counter.iter().map(|(word, count)| (String::from_utf8(word.to_vec()).unwrap(), count)).collect()
    }

    #[test]
    fn the_same_counts_as_a_map_through_many_doublings() {
        let mut random = partita::Random::seeded(11);
        let mut counter = Counter::default();
        let mut expected: BTreeMap<String, u64> = BTreeMap::new();
        for _ in 0..60_000 {
            let number = random.next_u64() % 20_000;
            let word = "x".repeat(usize::try_from(number % 23).unwrap()) + &format!("{number:x}");
            counter.add(word.as_bytes(), number % 3 + 1);
            *expected.entry(word).or_default() += number % 3 + 1;
        }
        assert_eq!(counter.distinct(), expected.len() as u64);
        assert_eq!(counts(&counter), expected);
    }

    #[test]
    fn words_that_differ_in_length_or_behind_the_eighth_byte_are_apart() {
        let mut counter = Counter::default();
        for word in ["abcdefgh", "abcdefghi", "abcdefghj", "abcdefg", "a", "a\0"] {
            counter.add(word.as_bytes(), 1);
        }
        assert_eq!(counter.distinct(), 6);
    }

    #[test]
    fn short_words_can_be_left_out() {
        let mut counter = Counter::default();
        counter.count(b"let x = self.len; self", 3);
        assert_eq!(counts(&counter), BTreeMap::from([("let".into(), 1), ("self".into(), 2), ("len".into(), 1)]));
    }
}
