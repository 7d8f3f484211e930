//! The keys of tokens while the scheduler runs: they change without a restart.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use partita_identity::token::{Claims, JoinClaims, OldKeys, Signer, SignerError, TokenError, Verifier};
use partita_types::Timestamp;
use tokio::time::MissedTickBehavior;
use tracing::{error, info};

use crate::issuers::Issuers;

/// How often the files are looked at.
const POLL: Duration = Duration::from_secs(1);

/// What the directory looks like: the times and sizes of its files.
type Seen = Vec<(PathBuf, Option<SystemTime>, u64)>;

#[derive(Debug)]
struct Current {
    signer: Arc<Signer>,
    verifier: Arc<Verifier>,
    seen: Seen,
}

impl Current {
    fn new(signer: Signer, seen: Seen) -> Self {
        let verifier = Arc::new(signer.verifier());
        Self { signer: Arc::new(signer), verifier, seen }
    }
}

/// The keys in force. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    directory: Arc<Path>,
    current: Arc<RwLock<Current>>,
    /// Held while keys change on disk.
    changing: Arc<std::sync::Mutex<()>>,
    /// Who else is believed.
    issuers: Issuers,
}

impl Keys {
    /// Of a directory whose keys `signer` has.
    pub(crate) fn new(directory: &Path, signer: Signer, issuers: Issuers) -> Self {
        let current = Arc::new(RwLock::new(Current::new(signer, look(directory))));
        Self { directory: directory.into(), current, changing: Arc::default(), issuers }
    }

    /// Who else is believed.
    pub(crate) fn issuers(&self) -> Issuers {
        self.issuers.clone()
    }

    /// What issues tokens.
    pub(crate) fn signer(&self) -> Arc<Signer> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).signer)
    }

    fn verifier(&self) -> Arc<Verifier> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).verifier)
    }

    /// See [`Verifier::verify`]. A token that names another issuer that is believed is checked as one of that.
    pub(crate) fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, TokenError> {
        self.issuers.verify(token, now).unwrap_or_else(|| self.verifier().verify(token, now))
    }

    /// See [`Verifier::verify_join`].
    pub(crate) fn verify_join(&self, token: &str, now: Timestamp) -> Result<JoinClaims, TokenError> {
        self.verifier().verify_join(token, now)
    }

    /// Signs with a new key from now on. In force and durable when this returns. Blocks.
    pub(crate) fn rotate(&self, old: OldKeys, now: Timestamp) -> Result<Arc<Signer>, SignerError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody may have changed them beside this.
        let signer = Signer::load(&self.directory)?.rotate(&self.directory, old, now)?;
        self.replace(signer);
        Ok(self.signer())
    }

    fn replace(&self, signer: Signer) {
        let fresh = Current::new(signer, look(&self.directory));
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
    }

    /// Reads the keys again if they look different; false if not. Blocks.
    fn reload(&self) -> Result<bool, SignerError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = look(&self.directory);
        if seen == self.current.read().unwrap_or_else(PoisonError::into_inner).seen {
            return Ok(false);
        }
        let signer = Signer::load(&self.directory)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Current::new(signer, seen);
        Ok(true)
    }

    /// Reads the keys whenever they change beside the scheduler, for ever. With a fault, those read before stay in
    /// force.
    pub(crate) async fn follow(self) {
        let mut timer = tokio::time::interval(POLL);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = false;
        loop {
            timer.tick().await;
            let keys = self.clone();
            match tokio::task::spawn_blocking(move || keys.reload()).await {
                Ok(Ok(changed)) => {
                    told = false;
                    if changed {
                        info!(key = self.signer().key_id(), "the keys of tokens changed");
                    }
                }
                Ok(Err(fault)) if !told => {
                    error!(error = %crate::chain(&fault), "the keys of tokens cannot be read; those read before count");
                    told = true;
                }
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }
}

fn look(directory: &Path) -> Seen {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut seen: Seen = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let metadata = entry.metadata().ok()?;
            Some((entry.path(), metadata.modified().ok(), metadata.len()))
        })
        .collect();
    seen.sort();
    seen
}

#[cfg(test)]
mod tests {
    use partita_identity::token::Role;
    use partita_types::TenantName;

    use super::*;

    #[test]
    fn keys_that_change_beside_the_scheduler_are_read_and_a_fault_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (now, tenant) = (partita_identity::now(), TenantName::new("team").unwrap());
        let signer = Signer::create("test").unwrap();
        signer.save(directory.path()).unwrap();
        let keys = Keys::new(directory.path(), Signer::load(directory.path()).unwrap(), Issuers::default());
        let issue = |signer: &Signer| signer.issue(&tenant, "ann", Role::Viewer, POLL, now).unwrap();
        assert!(!keys.reload().unwrap(), "nothing changed");
        let fresh = signer.rotate(directory.path(), OldKeys::Verify, now).unwrap();
        assert!(keys.verify(issue(&fresh).expose(), now).is_err(), "it is not known yet");
        assert!(keys.reload().unwrap());
        for signer in [&signer, &fresh, &*keys.signer()] {
            assert!(keys.verify(issue(signer).expose(), now).is_ok());
        }
        assert_eq!(keys.signer().key_id(), fresh.key_id());
        std::fs::write(directory.path().join("keys.json"), "{}").unwrap();
        assert!(keys.reload().is_err());
        assert!(keys.verify(issue(&fresh).expose(), now).is_ok());
    }
}
