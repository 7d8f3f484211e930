//! How a thread that cannot go on tells the rest of the process.

use std::panic::{AssertUnwindSafe, catch_unwind};

use partita_store::JournalError;
use tokio::sync::watch;
use tracing::error;

use crate::chain;

/// Why a scheduler stopped by itself, for whoever operates it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Failed {
    reason: String,
    disk_full: bool,
}

impl Failed {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), disk_full: false }
    }

    /// Of the journal.
    pub(super) fn journal(error: &JournalError) -> Self {
        let disk_full = matches!(error, JournalError::DiskFull { .. });
        Self { reason: format!("the journal failed: {}", chain(error)), disk_full }
    }

    /// Whether there is no room for the journal.
    pub(crate) fn disk_full(&self) -> bool {
        self.disk_full
    }
}

/// The first failure of a process.
#[derive(Debug, Clone)]
pub(crate) struct Failure(watch::Sender<Option<Failed>>);

impl Failure {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Reports one; only the first is kept.
    pub(crate) fn set(&self, failed: Failed) {
        self.0.send_if_modified(|first| {
            let empty = first.is_none();
            if empty {
                error!(error = %failed, "the scheduler cannot go on");
                *first = Some(failed);
            }
            empty
        });
    }

    /// The failure, if there is one.
    pub(crate) fn get(&self) -> Option<Failed> {
        self.0.borrow().clone()
    }

    /// Waits for one.
    pub(crate) async fn wait(&self) -> Failed {
        let mut receiver = self.0.subscribe();
        loop {
            if let Some(failed) = receiver.borrow_and_update().clone() {
                return failed;
            }
            if receiver.changed().await.is_err() {
                // `self` holds the sender, so this does not happen.
                return std::future::pending().await;
            }
        }
    }
}

/// Runs the body of a thread; an error or a panic becomes the failure. What the body borrows is dropped later, so that
/// whoever waits for it finds the failure.
pub(crate) fn guarded(thread: &'static str, failure: &Failure, body: impl FnOnce() -> Result<(), Failed>) {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => {}
        Ok(Err(failed)) => failure.set(failed),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            failure.set(Failed::new(format!("the {thread} thread panicked, which is a fault of this program: {text}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_reported_and_the_first_failure_is_kept() {
        let failure = Failure::new();
        guarded("core", &failure, || panic!("broken"));
        guarded("journal", &failure, || Err(Failed::new("second")));
        let failed = failure.wait().await.to_string();
        assert!(failed.contains("core") && failed.contains("broken"), "{failed}");
    }
}
