//! A table from words to counts: open addressing over indexes into one buffer, so that a word costs no allocation.

/// Words with their counts.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// Positions in `entries` plus one; 0 is free. Its length is a power of two, at most half of it is taken.
    slots: Vec<u32>,
    entries: Vec<Entry>,
    /// The bytes of all words, one after the other.
    text: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    count: u64,
    begin: usize,
    end: usize,
}

impl Table {
    /// Adds to the count of a word.
    pub(crate) fn add(&mut self, word: &[u8], count: u64) {
        if self.entries.len() * 2 >= self.slots.len() {
            self.grow();
        }
        let hash = hash(word);
        let slot = self.find(hash, word);
        match self.slots[slot] {
            0 => {
                let begin = self.text.len();
                self.text.extend_from_slice(word);
                self.entries.push(Entry { hash, count, begin, end: self.text.len() });
                self.slots[slot] = position(self.entries.len());
            }
            entry => self.entries[entry as usize - 1].count += count,
        }
    }

    /// Adds everything of another table.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (word, count) in other.iter() {
            self.add(word, count);
        }
    }

    /// How many different words there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Every word with its count, in the order of first sight.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.entries.iter().map(|entry| (&self.text[entry.begin..entry.end], entry.count))
    }

    /// The slot of a word, or the free one where it belongs.
    fn find(&self, hash: u64, word: &[u8]) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = truncate(hash) & mask;
        loop {
            let Some(entry) = (self.slots[slot] as usize).checked_sub(1).map(|at| &self.entries[at]) else {
                return slot;
            };
            if entry.hash == hash && &self.text[entry.begin..entry.end] == word {
                return slot;
            }
            slot = (slot + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let length = (self.slots.len() * 2).max(1 << 12);
        self.slots.clear();
        self.slots.resize(length, 0);
        for (at, entry) in self.entries.iter().enumerate() {
            let mut slot = truncate(entry.hash) & (length - 1);
            while self.slots[slot] != 0 {
                slot = (slot + 1) & (length - 1);
            }
            self.slots[slot] = position(at + 1);
        }
    }
}

/// Four thousand million different words do not fit into memory.
#[expect(clippy::cast_possible_truncation, reason = "more entries than that would not fit into memory")]
fn position(count: usize) -> u32 {
    count as u32
}

#[expect(clippy::cast_possible_truncation, reason = "the low bits are wanted")]
fn truncate(hash: u64) -> usize {
    hash as usize
}

/// Eight bytes at a time: rotate, xor, multiply; the upper half is folded into the lower, which picks the slot.
fn hash(word: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = word.len() as u64;
    let mut parts = word.chunks_exact(8);
    for part in &mut parts {
        let value = part.iter().rev().fold(0, |value, byte| (value << 8) | u64::from(*byte));
        hash = (hash.rotate_left(23) ^ value).wrapping_mul(FACTOR);
    }
    let rest = parts.remainder().iter().fold(0, |value, byte| (value << 8) | u64::from(*byte));
    hash = (hash.rotate_left(23) ^ rest).wrapping_mul(FACTOR);
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn counts_equal_those_of_a_map() {
        let mut table = Table::default();
        let mut map = BTreeMap::new();
        for number in 0..50_000_u64 {
            let word = format!("word_{}", number * number % 9_973);
            table.add(word.as_bytes(), number);
            *map.entry(word).or_insert(0) += number;
        }
        let counted: BTreeMap<String, u64> =
            table.iter().map(|(word, count)| (String::from_utf8_lossy(word).into_owned(), count)).collect();
        assert_eq!(table.len(), map.len());
        assert_eq!(counted, map);
    }

    #[test]
    fn merging_adds_counts() {
        let (mut a, mut b) = (Table::default(), Table::default());
        a.add(b"x", 2);
        b.add(b"x", 3);
        b.add(b"y", 1);
        a.merge(&b);
        assert_eq!(a.iter().collect::<Vec<_>>(), [(b"x".as_slice(), 5), (b"y".as_slice(), 1)]);
    }
}
