//! Tokens that count no more, although they have not expired.
//!
//! One line of JSON for each revocation, in one file of the data directory, on disk before it is acknowledged. A line is
//! of no use any more when all tokens that it could mean have expired; the next start drops it. The file is read again
//! when it changes, so that tokens can be revoked beside a scheduler that does not answer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use partita_identity::token::{Claims, LEEWAY, LIFETIME_MAX};
use partita_types::{TenantName, Timestamp};
use serde::{Deserialize, Serialize};
use tracing::error;

/// How often the file is looked at.
const POLL: Duration = Duration::from_secs(1);

/// What is revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Revoked {
    /// The token with this id.
    Token(String),
    /// Every token of a tenant, or of one holder, that was issued until the revocation.
    Holder {
        /// The tenant.
        tenant: TenantName,
        /// The holder; none for all.
        subject: Option<String>,
    },
}

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    at_us: u64,
    revoked: Revoked,
}

/// Why a revocation is not in force.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    /// The system refused.
    #[error("cannot {operation} the revoked tokens in {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A line that means nothing: whom it was meant for is not known, so it cannot be left out.
    #[error("{path} means nothing in line {line}; correct or remove that line")]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line; 1 is the first.
        line: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

#[derive(Debug, Default)]
struct Table {
    tokens: BTreeSet<String>,
    /// Until when tokens were issued that are revoked.
    holders: BTreeMap<(TenantName, Option<String>), Timestamp>,
    /// What the file looked like when it was read.
    seen: Option<(SystemTime, u64)>,
}

impl Table {
    fn add(&mut self, at: Timestamp, revoked: Revoked) {
        match revoked {
            Revoked::Token(id) => {
                self.tokens.insert(id);
            }
            Revoked::Holder { tenant, subject } => {
                let until = self.holders.entry((tenant, subject)).or_default();
                *until = at.max(*until);
            }
        }
    }
}

/// All revocations. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Revocations {
    path: Arc<Path>,
    table: Arc<RwLock<Table>>,
}

/// Adds a revocation to the file at `path`. Durable when this returns; a scheduler that runs reads it within a second.
///
/// # Errors
/// If the file cannot be written.
pub fn revoke(path: &Path, revoked: Revoked, now: Timestamp) -> Result<(), RevocationError> {
    let failed = io_failed("write", path);
    let write = || {
        let mut line = serde_json::to_string(&Line { at_us: now.micros, revoked })?;
        line.push('\n');
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        file.write_all(line.as_bytes())?;
        file.sync_all()
    };
    write().map_err(failed)
}

fn io_failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RevocationError {
    let path = path.to_owned();
    move |source| RevocationError::Io { operation, path, source }
}

impl Revocations {
    /// Reads the file, which need not exist, and drops what is of no use any more.
    pub(crate) fn open(path: &Path, now: Timestamp) -> Result<Self, RevocationError> {
        let revocations = Self { path: path.into(), table: Arc::default() };
        let lines = revocations.lines()?;
        let useful = |line: &Line| Timestamp::from_micros(line.at_us).after(LIFETIME_MAX + LEEWAY) >= now;
        if !lines.iter().all(useful) {
            let kept: Vec<Line> = lines.into_iter().filter(useful).collect();
            rewrite(path, &kept).map_err(io_failed("write", path))?;
        }
        revocations.load()?;
        Ok(revocations)
    }

    fn lines(&self) -> Result<Vec<Line>, RevocationError> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_failed("read", &self.path)(error)),
        };
        let parse = |(index, line)| {
            serde_json::from_str(line).map_err(|source| RevocationError::Line {
                path: self.path.to_path_buf(),
                line: index + 1,
                source,
            })
        };
        text.lines().enumerate().map(parse).collect()
    }

    fn load(&self) -> Result<(), RevocationError> {
        // Looked at before it is read: what changes in between is read again.
        let mut table = Table { seen: look(&self.path), ..Table::default() };
        for line in self.lines()? {
            table.add(Timestamp::from_micros(line.at_us), line.revoked);
        }
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table;
        Ok(())
    }

    /// Revokes; durable and in force when this returns. Blocks.
    pub(crate) fn revoke(&self, revoked: Revoked, now: Timestamp) -> Result<(), RevocationError> {
        revoke(&self.path, revoked.clone(), now)?;
        self.table.write().unwrap_or_else(PoisonError::into_inner).add(now, revoked);
        Ok(())
    }

    /// Whether a token is revoked. Tokens say to the second when they were issued, so those of the second of a
    /// revocation are meant, too.
    pub(crate) fn contains(&self, claims: &Claims) -> bool {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let until = |subject: Option<&str>| {
            let key = (claims.tenant.clone(), subject.map(str::to_owned));
            table.holders.get(&key).is_some_and(|until| claims.iat <= *until)
        };
        table.tokens.contains(&claims.jti) || (!table.holders.is_empty() && (until(None) || until(Some(&claims.sub))))
    }

    /// Reads the file whenever it changes, for ever. With a fault, what was read before stays in force.
    pub(crate) async fn follow(self) {
        let mut timer = tokio::time::interval(POLL);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut told = None;
        loop {
            timer.tick().await;
            let seen = look(&self.path);
            if seen == self.table.read().unwrap_or_else(PoisonError::into_inner).seen || seen == told {
                continue;
            }
            if let Err(fault) = self.load() {
                error!(error = %crate::chain(&fault), "revoked tokens cannot be read; those read before stay revoked");
                told = seen;
            }
        }
    }
}

fn look(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// Replaces the file in one step.
fn rewrite(path: &Path, lines: &[Line]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut text = String::new();
    for line in lines {
        text.push_str(&serde_json::to_string(line)?);
        text.push('\n');
    }
    let mut file = File::create(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use partita_identity::token::{Role, Signer};

    use super::*;

    /// What a token of now says.
    fn claims(tenant: &str, subject: &str, now: Timestamp) -> Claims {
        let signer = Signer::create("test").unwrap();
        let tenant = TenantName::new(tenant).unwrap();
        let token = signer.issue(&tenant, subject, Role::Viewer, Duration::from_secs(60), now).unwrap();
        signer.verifier().verify(token.expose(), now).unwrap()
    }

    #[test]
    fn what_is_revoked_is_just_what_was_meant_also_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("revoked");
        let now = partita_identity::now();
        let [ann, bob, eve] = [("one", "ann"), ("one", "bob"), ("two", "eve")].map(|(t, s)| claims(t, s, now));
        let again = claims("one", "ann", now);
        let later = claims("one", "bob", now.after(Duration::from_secs(2)));
        let revocations = Revocations::open(&path, now).unwrap();
        assert!([&ann, &bob, &eve].iter().all(|claims| !revocations.contains(claims)));
        revocations.revoke(Revoked::Token(ann.jti.clone()), now).unwrap();
        let holder =
            |subject: Option<&str>| Revoked::Holder { tenant: bob.tenant.clone(), subject: subject.map(str::to_owned) };
        revocations.revoke(holder(Some("bob")), now).unwrap();
        for revocations in [revocations, Revocations::open(&path, now).unwrap()] {
            assert!(revocations.contains(&ann) && revocations.contains(&bob));
            assert!(![&again, &later, &eve].iter().any(|claims| revocations.contains(claims)));
        }
        let revocations = Revocations::open(&path, now).unwrap();
        revocations.revoke(holder(None), now).unwrap();
        assert!(revocations.contains(&again) && !revocations.contains(&later) && !revocations.contains(&eve));
    }

    #[test]
    fn revocations_of_expired_tokens_are_dropped_and_nonsense_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("revoked");
        let now = partita_identity::now();
        let revoke = |id: &str, at| revoke(&path, Revoked::Token(id.to_owned()), at).unwrap();
        revoke("old", now);
        let later = now.after(LIFETIME_MAX + LEEWAY + Duration::from_secs(1));
        revoke("new", later);
        Revocations::open(&path, later).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.lines().count() == 1 && text.contains("new"), "{text}");
        fs::write(&path, text + "{}\n").unwrap();
        let fault = Revocations::open(&path, later).unwrap_err();
        assert!(matches!(fault, RevocationError::Line { line: 2, .. }), "{fault}");
    }
}
