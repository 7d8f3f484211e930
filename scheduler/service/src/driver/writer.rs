//! The thread that owns the journal: records first, then everything else, in order.
//!
//! All rounds that wait are written as one batch. The batch is flushed at once if an answer depends on it, and soon
//! otherwise: sooner if somebody watches, because watchers see only what is on disk.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use partita_core::{Action, Record};
use partita_store::{Journal, JournalError};

use super::compacting::Compactions;
use super::{Effects, Failed, Failure, Step};
use crate::metrics::Metrics;

/// Longest time until a record that nobody waits for is on disk.
const FLUSH_WITHIN: Duration = Duration::from_millis(20);
/// Longest time until watchers see what happened, as far as the writer has time.
const FLUSH_FOR_WATCHERS: Duration = Duration::from_millis(2);
/// For the sake of watchers a flush may begin this many times its own length after the one before: so single events are
/// seen at once, and under load flushes take a bounded part of the time.
const FLUSH_REST: u32 = 3;
/// Steps taken together; bounds the delay of the first one.
const TOGETHER: usize = 16_384;

pub(super) struct Writer {
    journal: Box<dyn Journal>,
    effects: Effects,
    rounds: Receiver<Vec<Step>>,
    metrics: Metrics,
    records: Vec<Record>,
    /// Since when something appended is not flushed.
    unflushed: Option<Instant>,
    flushed: Instant,
    /// How long to wait from then on if there are watchers.
    rest: Duration,
    compactions: Compactions,
    failure: Failure,
}

#[expect(clippy::disallowed_methods, reason = "measures when to flush and how long it takes; decides nothing else")]
pub(super) fn clock() -> Instant {
    Instant::now()
}

impl Writer {
    pub(super) fn new(
        journal: Box<dyn Journal>,
        effects: Effects,
        rounds: Receiver<Vec<Step>>,
        metrics: Metrics,
        compaction_due: Arc<AtomicBool>,
        failure: Failure,
    ) -> Self {
        let compactions = Compactions::new(compaction_due);
        let (records, flushed, rest) = (Vec::new(), clock(), Duration::ZERO);
        Self { journal, effects, rounds, metrics, records, unflushed: None, flushed, rest, compactions, failure }
    }

    /// Runs until the core thread is gone. On an error nothing that was not written is acknowledged: all who wait
    /// learn that the scheduler stopped.
    pub(super) fn run(&mut self) -> Result<(), Failed> {
        let failure = self.failure.clone();
        let stopped = |error: JournalError| {
            let failed = Failed::journal(&error);
            failure.set(failed.clone());
            failed
        };
        loop {
            match self.next() {
                Ok(first) => {
                    // Dropped behind the report of an error, so that whoever waits for an answer in them finds it.
                    let mut steps = self.together(first);
                    self.work(&mut steps).map_err(&stopped)?;
                }
                Err(RecvTimeoutError::Timeout) => self.flush().map_err(&stopped)?,
                Err(RecvTimeoutError::Disconnected) => {
                    self.flush().map_err(&stopped)?;
                    self.compactions.end(&mut *self.journal).map_err(&stopped)?;
                    self.effects.end();
                    return Ok(());
                }
            }
        }
    }

    /// When the next flush is due.
    fn due(&self) -> Option<Instant> {
        let relaxed = self.unflushed? + FLUSH_WITHIN;
        let watched = self.effects.watchers_wait().then(|| self.flushed + self.rest);
        Some(watched.map_or(relaxed, |watched| watched.min(relaxed)))
    }

    fn next(&self) -> Result<Vec<Step>, RecvTimeoutError> {
        match self.due() {
            None => self.rounds.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => match due.saturating_duration_since(clock()) {
                Duration::ZERO => Err(RecvTimeoutError::Timeout),
                wait => self.rounds.recv_timeout(wait),
            },
        }
    }

    fn together(&self, first: Vec<Step>) -> Vec<Step> {
        let mut steps = first;
        // What follows a compaction's decision must not be appended before it begins.
        while steps.len() < TOGETHER && !matches!(steps.last(), Some(Step::Compact(_))) {
            match self.rounds.try_recv() {
                Ok(more) => steps.extend(more),
                Err(_) => break,
            }
        }
        steps
    }

    fn work(&mut self, steps: &mut Vec<Step>) -> Result<(), JournalError> {
        let mut durable = false;
        let records = &mut self.records;
        // Order among records is kept, and so is the order of everything else; records come first.
        for step in steps.extract_if(.., |step| matches!(step, Step::Act(Action::Persist(_)))) {
            if let Step::Act(Action::Persist(record)) = step {
                durable |= record.durable_before_visible();
                records.push(record);
            }
        }
        if !records.is_empty() {
            let begin = clock();
            self.journal.append(records)?;
            self.metrics.append_seconds.observe(begin.elapsed().as_secs_f64());
            self.metrics.batch_records.observe(f64::from(u32::try_from(records.len()).unwrap_or(u32::MAX)));
            records.clear();
            self.unflushed.get_or_insert(begin);
        }
        if durable {
            self.sync()?;
        }
        for step in steps.drain(..) {
            match step {
                Step::Compact(picker) => self.compactions.begin(&mut *self.journal, picker),
                step => self.effects.perform(step),
            }
        }
        self.compactions.look(&mut *self.journal)?;
        if self.unflushed.is_none() {
            self.effects.all_on_disk();
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), JournalError> {
        let begin = clock();
        self.journal.flush()?;
        self.flushed = clock();
        let took = self.flushed.saturating_duration_since(begin);
        self.rest = took.saturating_mul(FLUSH_REST).min(FLUSH_FOR_WATCHERS);
        self.metrics.flush_seconds.observe(took.as_secs_f64());
        self.unflushed = None;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), JournalError> {
        if self.unflushed.is_some() {
            self.sync()?;
        }
        self.effects.all_on_disk();
        Ok(())
    }
}
