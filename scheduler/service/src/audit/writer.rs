//! The thread that owns the audit log: notes in, lines out, synced now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use partita_audit::{AuditError, AuditLog, Chain, Draft, Principal};
use partita_types::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::chain;
use crate::driver::Failed;

/// How often the log is synced, if anything was written.
const SYNC: Duration = Duration::from_millis(50);
/// Notes taken from the queue at once.
const ROUND: usize = 256;
/// Refusals that are written down at once, and how much time gives room for one more. The rest is counted.
pub(super) const REFUSALS: u32 = 200;
const REFILL: Duration = Duration::from_millis(50);

/// What waits for the log.
#[derive(Debug)]
pub(super) enum Note {
    /// It must be written, and somebody waits for that.
    Entry { draft: Draft, written: oneshot::Sender<()> },
    /// It is written unless there are very many, and nobody waits.
    Refusal(Draft),
}

#[derive(Debug)]
pub(super) struct Writer {
    log: AuditLog,
    last: watch::Sender<Chain>,
    /// Refusals that found no room in the queue.
    suppressed: Arc<AtomicU64>,
    /// A bucket of refusals that may be written, which time fills.
    refusals: u32,
    refilled: Timestamp,
}

impl Writer {
    pub(super) fn new(log: AuditLog, last: watch::Sender<Chain>, suppressed: Arc<AtomicU64>, now: Timestamp) -> Self {
        Self { log, last, suppressed, refusals: REFUSALS, refilled: now }
    }

    /// Runs until `stop` is cancelled and the queue is empty, or the log cannot be written.
    pub(super) fn run(&mut self, queue: &mut mpsc::Receiver<Note>, stop: &CancellationToken) -> Result<(), Failed> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| Failed::new(format!("cannot make the timer of the audit log: {error}")))?;
        runtime.block_on(self.write_all(queue, stop)).map_err(|error| broken(&error))
    }

    async fn write_all(
        &mut self,
        queue: &mut mpsc::Receiver<Note>,
        stop: &CancellationToken,
    ) -> Result<(), AuditError> {
        let mut timer = tokio::time::interval(SYNC);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut round = Vec::with_capacity(ROUND);
        loop {
            // The timer stands before the queue, so that notes without end do not hold up a sync. All are cancel-safe.
            tokio::select! {
                biased;
                () = stop.cancelled(), if !queue.is_closed() => queue.close(),
                _ = timer.tick(), if self.log.is_unsynced() => self.log.sync()?,
                received = queue.recv_many(&mut round, ROUND) => {
                    // Without notes the queue is closed, and empty for good.
                    if received == 0 {
                        return self.finish();
                    }
                    self.write(&mut round)?;
                }
            }
        }
    }

    /// Writes notes in their order. Whoever waits hears of it when the last line is known to all.
    fn write(&mut self, round: &mut Vec<Note>) -> Result<(), AuditError> {
        let mut waiting = Vec::new();
        for note in round.drain(..) {
            match note {
                Note::Entry { draft, written } => {
                    self.append(draft)?;
                    waiting.push(written);
                }
                Note::Refusal(draft) if self.may_note(draft.at) => self.append(draft)?,
                Note::Refusal(_) => self.log.suppress(1),
            }
        }
        self.last.send_replace(self.log.last());
        for written in waiting {
            // Whoever asked may be gone.
            let _ = written.send(());
        }
        Ok(())
    }

    fn append(&mut self, draft: Draft) -> Result<(), AuditError> {
        self.log.suppress(self.suppressed.swap(0, Ordering::Relaxed));
        self.log.append(draft).map(drop)
    }

    /// Tells of refusals that were only counted, and syncs.
    fn finish(&mut self) -> Result<(), AuditError> {
        self.log.suppress(self.suppressed.swap(0, Ordering::Relaxed));
        if self.log.suppressed() > 0 {
            self.log.append(Draft {
                at: partita_identity::now(),
                principal: Principal::Scheduler,
                address: String::new(),
                action: "Audit/End".to_owned(),
                object: String::new(),
                outcome: "ok".to_owned(),
                policy: String::new(),
            })?;
            self.last.send_replace(self.log.last());
        }
        self.log.sync()
    }

    fn may_note(&mut self, now: Timestamp) -> bool {
        let more = now.since(self.refilled).as_micros() / REFILL.as_micros();
        if more > 0 {
            self.refusals = self.refusals.saturating_add(u32::try_from(more).unwrap_or(u32::MAX)).min(REFUSALS);
            self.refilled = now;
        }
        let may = self.refusals > 0;
        self.refusals = self.refusals.saturating_sub(1);
        may
    }
}

fn broken(error: &AuditError) -> Failed {
    Failed::new(format!("the audit log failed: {}", chain(error)))
}
