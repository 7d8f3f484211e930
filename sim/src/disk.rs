//! The journal's disk of the simulation: batches in the real encoding, of which a crash keeps some, and perhaps half of one.

use partita_core::{Record, Violation};
use partita_store::{Position, decode_batch, encode_batch};
use partita_testkit::Random;

/// Whatever is on the disk can be read, up to where a crash tore it.
const WHOLE: &str = "a_torn_tail_is_cut_and_nothing_else";

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
    /// What a compaction has written beside the journal, and how many batches of that are in it.
    compacting: Option<(Vec<Vec<Record>>, usize)>,
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

    /// Everything that was written, flushed or not.
    pub(crate) fn records(&self) -> Result<Vec<Record>, Violation> {
        decoded(1, self.synced.iter().chain(&self.pending))
    }

    /// Whether a compaction is under way.
    pub(crate) fn is_compacting(&self) -> bool {
        self.compacting.is_some()
    }

    /// Batches that are to take the place of all that were written so far.
    pub(crate) fn begin_compaction(&mut self, batches: Vec<Vec<Record>>) {
        self.compacting = Some((batches, self.synced.len() + self.pending.len()));
    }

    /// The compacted journal, with what came meanwhile, is flushed and takes the place of the old one.
    pub(crate) fn end_compaction(&mut self) -> Result<(), Violation> {
        let Some((mut batches, from)) = self.compacting.take() else { return Ok(()) };
        for (position, bytes) in (1..).zip(self.synced.iter().chain(&self.pending)).skip(from) {
            batches.push(decoded(position, [bytes])?);
        }
        self.replace(batches.iter().map(Vec::as_slice))
    }

    /// Puts a journal of these batches in the place of the old one.
    pub(crate) fn replace<'r>(&mut self, batches: impl Iterator<Item = &'r [Record]>) -> Result<(), Violation> {
        let encode = |(position, records): (Position, &[Record])| encode_batch(position, records);
        let all: Result<Vec<Vec<u8>>, _> = (1..).map(Position).zip(batches).map(encode).collect();
        self.synced = all.map_err(|error| Violation { invariant: WHOLE, detail: error.to_string() })?;
        self.pending.clear();
        Ok(())
    }

    /// Power is lost: of what was not safe a beginning is left, and perhaps a piece of the next batch.
    pub(crate) fn crash(&mut self, random: &mut Random) {
        self.compacting = None;
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
        let violation = |detail| Violation { invariant: WHOLE, detail };
        let records = decoded(1, &self.synced)?;
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

/// The records of batches, of which the first has this position.
fn decoded<'b>(first: u64, batches: impl IntoIterator<Item = &'b Vec<u8>>) -> Result<Vec<Record>, Violation> {
    let mut records = Vec::new();
    for (position, bytes) in (first..).map(Position).zip(batches) {
        let violation = |damage| Violation { invariant: WHOLE, detail: format!("batch {position}: {damage}") };
        records.extend(decode_batch(position, bytes).map_err(violation)?);
    }
    Ok(records)
}
