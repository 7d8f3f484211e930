//! Where a reader of numbered events stands. No I/O: the watch stream asks it what to request and what to hand on.
//!
//! A job's events are numbered 0, 1, 2 and so on. A connection may break between any two of them, and a cluster may send
//! again what was seen already; the reader still gets each event once and misses none.

/// The position of a reader in a numbered sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    next: u64,
}

/// What to do with an event that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next one: hand it on.
    New,
    /// It was handed on before: drop it.
    Repeated,
    /// Events before it are missing: drop it and ask again from [`Cursor::next`].
    Gap,
}

impl Cursor {
    /// A reader that has everything before `next`.
    #[must_use]
    pub const fn new(next: u64) -> Self {
        Self { next }
    }

    /// The number of the first event not seen: where to resume.
    #[must_use]
    pub const fn next(self) -> u64 {
        self.next
    }

    /// Judges an event that arrived, and moves on if it is the next one.
    pub fn accept(&mut self, sequence: u64) -> Verdict {
        match sequence.cmp(&self.next) {
            std::cmp::Ordering::Less => Verdict::Repeated,
            std::cmp::Ordering::Greater => Verdict::Gap,
            std::cmp::Ordering::Equal => {
                self.next = self.next.saturating_add(1);
                Verdict::New
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cluster with a log of `length` events that sends batches from wherever it is asked.
    struct Log {
        length: u64,
    }

    impl Log {
        /// What arrives before the connection breaks: `count` events from `from - overlap` on.
        fn send(&self, from: u64, overlap: u64, count: u64) -> impl Iterator<Item = u64> + use<> {
            let start = from.saturating_sub(overlap);
            start..self.length.min(start + count)
        }
    }

    fn read(mut breaks: impl FnMut() -> (u64, u64), from: u64, length: u64) -> Vec<u64> {
        let log = Log { length };
        let mut cursor = Cursor::new(from);
        let mut seen = Vec::new();
        for _ in 0..10_000 {
            if cursor.next() == length {
                return seen;
            }
            let (overlap, count) = breaks();
            for event in log.send(cursor.next(), overlap, count) {
                match cursor.accept(event) {
                    Verdict::New => seen.push(event),
                    Verdict::Repeated => {}
                    Verdict::Gap => panic!("a log without gaps gave one at {event}"),
                }
            }
        }
        panic!("no progress");
    }

    #[test]
    fn every_event_is_seen_once_however_the_connection_breaks() {
        for seed in 0..200_u64 {
            let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            let mut random = move |below: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % below
            };
            let from = random(20);
            let seen = read(|| (random(5), random(9)), from, 50);
            assert_eq!(seen, (from..50).collect::<Vec<_>>(), "seed {seed}");
        }
    }

    #[test]
    fn a_gap_moves_nothing_so_that_the_missing_events_are_asked_for() {
        let mut cursor = Cursor::new(3);
        assert_eq!(cursor.accept(5), Verdict::Gap);
        assert_eq!(cursor.next(), 3);
        assert_eq!(cursor.accept(3), Verdict::New);
        assert_eq!(cursor.accept(3), Verdict::Repeated);
        assert_eq!(cursor.next(), 4);
    }
}
