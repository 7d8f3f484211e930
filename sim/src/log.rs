//! What happened, as text and as one number: runs of the same plan have the same number.

use std::collections::VecDeque;

/// Lines that a failure shows.
const KEPT: usize = 80;

/// Characters of each that are shown.
const WIDTH: usize = 400;

/// The log of a run. Formatting everything takes most of the time of a run, so it is done on demand only.
#[derive(Debug, Default)]
pub(crate) struct Log {
    traced: bool,
    hash: u64,
    lines: VecDeque<String>,
}

impl Log {
    pub(crate) fn new(traced: bool) -> Self {
        Self { traced, hash: 0xcbf2_9ce4_8422_2325, lines: VecDeque::new() }
    }

    /// Notes a line, if anybody wants to know.
    pub(crate) fn note(&mut self, now: u64, line: impl FnOnce() -> String) {
        if !self.traced {
            return;
        }
        let line = format!("{:>11.6} {}", (now % 1_000_000_000) as f64 / 1e6, line());
        // FNV-1a: the same on every machine and in every release of the compiler.
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.lines.push_back(line.chars().take(WIDTH).collect());
        if self.lines.len() > KEPT {
            self.lines.pop_front();
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn take_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines).into()
    }
}
