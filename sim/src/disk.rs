//! The journal's disk of the simulation: batches in the real encoding, of which a crash keeps some, and perhaps half of one.

use partita_core::{Record, Violation};
use partita_store::{Position, decode_batch, encode_batch};
use partita_testkit::Random;

/// The disk has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// A disk with one journal.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    synced: Vec<Vec<u8>>,
    pending: Vec<Vec<u8>>,
    /// What a crash left of the batch after the last whole one.
    torn: Option<Vec<u8>>,
    pub(crate) full: bool,
    /// How long a flush takes, in microseconds.
    pub(crate) flush: u64,
}

impl Disk {
    /// Appends a batch, which is not safe before [`Disk::sync`].
    pub(crate) fn append(&mut self, records: &[Record]) -> Result<(), Full> {
        if self.full {
            return Err(Full);
        }
        let position = Position((self.synced.len() + self.pending.len()) as u64 + 1);
        let bytes = encode_batch(position, records).map_err(|_| Full)?;
        self.pending.push(bytes);
        Ok(())
    }

    /// Makes everything appended so far safe.
    pub(crate) fn sync(&mut self) {
        self.synced.append(&mut self.pending);
    }

    /// Whether something is not safe yet.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Power is lost: of what was not safe a beginning is left, and perhaps a piece of the next batch.
    pub(crate) fn crash(&mut self, random: &mut Random) {
        let kept = random.below(self.pending.len() as u64 + 1) as usize;
        let mut pending = std::mem::take(&mut self.pending).into_iter();
        self.synced.extend(pending.by_ref().take(kept));
        self.torn = pending.next().filter(|_| random.chance(50)).map(|mut batch| {
            batch.truncate(random.below(batch.len() as u64) as usize);
            batch
        });
    }

    /// All records that are readable, in order. What was torn is cut off.
    ///
    /// I32: a torn tail is found by its checksum and cut at the last whole batch; nothing else is ever cut.
    pub(crate) fn replay(&mut self) -> Result<Vec<Record>, Violation> {
        let violation = |detail| Violation { invariant: "a_torn_tail_is_cut_and_nothing_else", detail };
        let mut records = Vec::new();
        for (position, bytes) in (1..).map(Position).zip(&self.synced) {
            let batch = decode_batch(position, bytes);
            records.extend(batch.map_err(|damage| violation(format!("batch {position}: {damage}")))?);
        }
        let next = Position(self.synced.len() as u64 + 1);
        if let Some(torn) = self.torn.take()
            && decode_batch(next, &torn).is_ok()
        {
            return Err(violation(format!("{} bytes of batch {next} pass for a whole one", torn.len())));
        }
        Ok(records)
    }

    /// Flips a bit of a batch in the middle, and reads: it must be refused, and named. The disk is as before afterwards.
    pub(crate) fn corruption_is_refused(&self, random: &mut Random) -> Result<(), Violation> {
        if self.synced.is_empty() {
            return Ok(());
        }
        let number = random.below(self.synced.len() as u64);
        let mut bytes = self.synced[number as usize].clone();
        let bit = random.below(bytes.len() as u64 * 8);
        bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
        if decode_batch(Position(number + 1), &bytes).is_ok() {
            let detail = format!("bit {bit} of batch {} was flipped unnoticed", number + 1);
            return Err(Violation { invariant: "a_corrupted_record_is_never_interpreted", detail });
        }
        Ok(())
    }
}
