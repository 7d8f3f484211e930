//! Compactions of the journal, beside the writer thread.
//!
//! The writer says when one is worth it, the core thread decides what is still needed, a thread of its own writes it, and
//! the writer switches over between two batches. One that fails changes nothing, and is tried again later.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use partita_core::Compaction;
use partita_store::{Compacted, Journal, JournalError};
use tracing::{info, warn};

use super::writer::clock;
use crate::chain;

/// How long after a failure another one is begun.
const AGAIN: Duration = Duration::from_secs(60);

/// The compactions of one journal.
pub(super) struct Compactions {
    /// Asks the core thread for a decision.
    due: Arc<AtomicBool>,
    running: Option<(Instant, JoinHandle<Result<Compacted, JournalError>>)>,
    retiring: Option<JoinHandle<()>>,
    not_before: Option<Instant>,
}

impl Compactions {
    pub(super) fn new(due: Arc<AtomicBool>) -> Self {
        Self { due, running: None, retiring: None, not_before: None }
    }

    /// Takes over what has been written, or asks for a new compaction. Called between batches.
    pub(super) fn look(&mut self, journal: &mut dyn Journal) -> Result<(), JournalError> {
        if self.running.as_ref().is_some_and(|(_, thread)| thread.is_finished()) {
            return self.complete(journal);
        }
        let may = self.not_before.is_none_or(|at| at <= clock());
        if self.running.is_none() && may && journal.wants_compaction() {
            self.due.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Begins one. Everything that `picker` knows of has been appended, and nothing else.
    pub(super) fn begin(&mut self, journal: &mut dyn Journal, picker: Compaction) {
        if self.running.is_some() {
            return;
        }
        let Some(compaction) = journal.begin_compaction() else { return };
        let thread = std::thread::Builder::new().name("partita-compact".to_owned());
        match thread.spawn(move || compaction.run(picker)) {
            Ok(thread) => self.running = Some((clock(), thread)),
            Err(error) => self.failed(&error),
        }
    }

    fn complete(&mut self, journal: &mut dyn Journal) -> Result<(), JournalError> {
        let Some((begun, thread)) = self.running.take() else { return Ok(()) };
        let compacted = match thread.join() {
            Ok(Ok(compacted)) => compacted,
            Ok(Err(error)) => {
                self.failed(&error);
                return Ok(());
            }
            Err(_) => {
                self.failed(&super::Failed::new("its thread panicked"));
                return Ok(());
            }
        };
        let retired = journal.adopt(compacted)?;
        info!(milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX), "journal compacted");
        self.wait_for_retiring();
        let remove = move || {
            if let Err(error) = retired.remove() {
                warn!(error = %chain(&error), "the old journal is still there; the next start removes it");
            }
        };
        self.retiring = std::thread::Builder::new().name("partita-retire".to_owned()).spawn(remove).ok();
        Ok(())
    }

    fn failed(&mut self, error: &dyn std::error::Error) {
        warn!(error = %chain(error), "the journal could not be compacted; it goes on as it is");
        self.not_before = Some(clock() + AGAIN);
    }

    fn wait_for_retiring(&mut self) {
        if let Some(thread) = self.retiring.take() {
            // A panic there leaves files, which the next start removes.
            let _ = thread.join();
        }
    }

    /// Ends what runs, at the end of the writer.
    pub(super) fn end(&mut self, journal: &mut dyn Journal) -> Result<(), JournalError> {
        let completed = self.complete(journal);
        self.wait_for_retiring();
        completed
    }
}
