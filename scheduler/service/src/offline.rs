//! What was done beside the scheduler, with the keys in its data directory: noted in the audit log as soon as it runs.
//!
//! Whoever may write that directory can leave out the note, as they could do anything else to the cluster; this is for
//! those who do not want to hide what they did.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use partita_types::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::audit::Auditor;
use crate::lines::{self, LinesError};

/// How often the file is looked at.
const POLL: Duration = Duration::from_secs(1);

/// Something that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Done {
    at_us: u64,
    user: u32,
    action: String,
    object: String,
}

/// Where a data directory has these notes.
fn path(data: &Path) -> PathBuf {
    data.join("offline.jsonl")
}

/// Notes in the data directory at `data` that somebody did `action` to `object` there, for the audit log. Durable when
/// this returns. Blocks.
///
/// # Errors
/// If the file cannot be written.
pub fn note_offline(data: &Path, action: &str, object: String, now: Timestamp) -> Result<(), LinesError> {
    let user = rustix::process::getuid().as_raw();
    lines::append(&path(data), &Done { at_us: now.micros, user, action: action.to_owned(), object })
}

/// The notes of a data directory on their way into the audit log.
#[derive(Debug)]
pub(crate) struct Offline {
    path: Arc<PathBuf>,
    auditor: Auditor,
}

impl Offline {
    pub(crate) fn new(data: &Path, auditor: Auditor) -> Self {
        Self { path: Arc::new(path(data)), auditor }
    }

    /// Passes notes on, now and whenever there are some, until `stop` is cancelled; never stops between a note and its
    /// removal.
    pub(crate) async fn follow(self, stop: CancellationToken) {
        let mut timer = tokio::time::interval(POLL);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = timer.tick() => {}
            }
            let passed = self.pass_on().await;
            if let (Err(fault), false) = (&passed, told) {
                error!(error = %crate::chain(fault), "what was done beside the scheduler cannot be noted");
            }
            told = passed.is_err();
        }
    }

    /// Passes all on. A crash in the middle may note some of them twice, and none of them never.
    async fn pass_on(&self) -> Result<(), LinesError> {
        let path = Arc::clone(&self.path);
        let Ok(text) = tokio::task::spawn_blocking(move || lines::peek(&path)).await else { return Ok(()) };
        let text = text?;
        // A line that is being written has no end yet.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        if whole == 0 {
            return Ok(());
        }
        for line in text[..whole].lines() {
            let noted = match serde_json::from_str(line) {
                Ok(Done { at_us, user, action, object }) => {
                    self.auditor.local(user, action, object, Timestamp::from_micros(at_us)).await
                }
                Err(_) => self.auditor.own("Offline/Read", "a note that means nothing".to_owned(), "refused").await,
            };
            // If that cannot be noted, the scheduler stops, and the next one finds it again.
            if noted.is_err() {
                return Ok(());
            }
        }
        let path = Arc::clone(&self.path);
        tokio::task::spawn_blocking(move || lines::drop_first(&path, whole)).await.unwrap_or(Ok(()))
    }
}
