//! Tokens and certificates of hosts that count no more, although they have not expired.
//!
//! One line of JSON for each revocation, in one file of the data directory, on disk before it is acknowledged. A line is
//! of no use any more when all that it could mean has expired; the next start drops it. The file is read again
//! when it changes, so that tokens can be revoked beside a scheduler that does not answer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use partita_identity::HOST_CERTIFICATE_LIFETIME;
use partita_identity::token::{Claims, LEEWAY, LIFETIME_MAX};
use partita_types::{HostName, TenantName, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tonic::Status;
use tracing::error;

use crate::issued::{Issued, TokenHolder};
use crate::lines::{self, LinesError};

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
    /// Every certificate and join token of a host that was issued until the revocation.
    Host(HostName),
}

impl std::fmt::Display for Revoked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token(id) => write!(f, "token {id}"),
            Self::Holder { tenant, subject: None } => write!(f, "tokens of tenant {tenant}"),
            Self::Holder { tenant, subject: Some(subject) } => write!(f, "tokens of {subject:?} of tenant {tenant}"),
            Self::Host(name) => write!(f, "certificates and join tokens of host {name}"),
        }
    }
}

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    at_us: u64,
    revoked: Revoked,
}

#[derive(Debug, Default)]
struct Table {
    tokens: BTreeSet<String>,
    /// Until when tokens were issued that are revoked.
    holders: BTreeMap<(TenantName, Option<String>), Timestamp>,
    /// Until when certificates and join tokens of hosts were issued that are revoked.
    hosts: BTreeMap<HostName, Timestamp>,
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
            Revoked::Host(name) => {
                let until = self.hosts.entry(name).or_default();
                *until = at.max(*until);
            }
        }
    }
}

impl Table {
    /// Whether tokens of a holder that were issued at `issued` are revoked.
    fn has_holder(&self, tenant: &TenantName, subject: &str, issued: Timestamp) -> bool {
        let until = |subject: Option<&str>| {
            let key = (tenant.clone(), subject.map(str::to_owned));
            self.holders.get(&key).is_some_and(|until| issued <= *until)
        };
        !self.holders.is_empty() && (until(None) || until(Some(subject)))
    }
}

/// All revocations. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Revocations {
    path: Arc<Path>,
    table: Arc<RwLock<Table>>,
    /// Told whenever the table changes.
    changed: watch::Sender<()>,
}

/// With what somebody was let in.
#[derive(Debug, Clone)]
pub(crate) enum Credential {
    /// A token.
    Token(Arc<Claims>),
    /// The certificate of a host, and when it was issued.
    Certificate(HostName, Timestamp),
}

/// Adds a revocation to the file at `path`. Durable when this returns; a scheduler that runs reads it within a second.
///
/// # Errors
/// If the file cannot be written.
pub fn revoke(path: &Path, revoked: Revoked, now: Timestamp) -> Result<(), LinesError> {
    lines::append(path, &Line { at_us: now.micros, revoked })
}

impl Revocations {
    /// Reads the file, which need not exist, and drops what is of no use any more.
    pub(crate) fn open(path: &Path, now: Timestamp) -> Result<Self, LinesError> {
        let revocations = Self { path: path.into(), table: Arc::default(), changed: watch::Sender::new(()) };
        lines::retain(path, |line: &Line| {
            Timestamp::from_micros(line.at_us).after(LIFETIME_MAX.max(HOST_CERTIFICATE_LIFETIME) + LEEWAY) >= now
        })?;
        revocations.load()?;
        Ok(revocations)
    }

    fn load(&self) -> Result<(), LinesError> {
        // Looked at before it is read: what changes in between is read again.
        let mut table = Table { seen: look(&self.path), ..Table::default() };
        for line in lines::read::<Line>(&self.path)? {
            table.add(Timestamp::from_micros(line.at_us), line.revoked);
        }
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table;
        self.changed.send_replace(());
        Ok(())
    }

    /// Revokes; durable and in force when this returns. Blocks.
    pub(crate) fn revoke(&self, revoked: Revoked, now: Timestamp) -> Result<(), LinesError> {
        revoke(&self.path, revoked.clone(), now)?;
        self.table.write().unwrap_or_else(PoisonError::into_inner).add(now, revoked);
        self.changed.send_replace(());
        Ok(())
    }

    /// Whether a token is revoked. Tokens say to the second when they were issued, so those of the second of a
    /// revocation are meant, too.
    pub(crate) fn contains(&self, claims: &Claims) -> bool {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.tokens.contains(&claims.jti) || table.has_holder(&claims.tenant, &claims.sub, claims.iat)
    }

    /// Whether an issued token is revoked.
    pub(crate) fn has_issued(&self, issued: &Issued) -> bool {
        let at = Timestamp::from_micros(issued.issued_us);
        self.has_token(&issued.id)
            || match &issued.holder {
                TokenHolder::Person { tenant, subject, .. } => {
                    self.table.read().unwrap_or_else(PoisonError::into_inner).has_holder(tenant, subject, at)
                }
                TokenHolder::Host { host } => self.has_host(host, at),
            }
    }

    /// Whether the token with this id, for a person or a host, is revoked by its id.
    pub(crate) fn has_token(&self, id: &str) -> bool {
        self.table.read().unwrap_or_else(PoisonError::into_inner).tokens.contains(id)
    }

    /// Whether certificates and join tokens of a host that were issued at `issued` are revoked. Both say to the second
    /// when that was, so those of the second of a revocation are meant, too.
    pub(crate) fn has_host(&self, name: &HostName, issued: Timestamp) -> bool {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.hosts.get(name).is_some_and(|until| issued <= *until)
    }

    /// Refuses somebody whose credential is revoked.
    pub(crate) fn check(&self, credential: &Credential) -> Result<(), Status> {
        match credential {
            Credential::Token(claims) if self.contains(claims) => {
                Err(Status::unauthenticated("the token was revoked; get a new one from your administrator"))
            }
            Credential::Certificate(name, issued) if self.has_host(name, *issued) => {
                Err(Status::unauthenticated(format!(
                    "the certificate of host {name} was revoked; remove the identity from the host's data directory and \
                     join again with a new join token (`partita token issue --join {name}`)"
                )))
            }
            Credential::Token(_) | Credential::Certificate(..) => Ok(()),
        }
    }

    /// Waits until a credential is revoked, and says so.
    pub(crate) async fn ended(self, credential: Credential) -> Status {
        let mut changed = self.changed.subscribe();
        loop {
            if let Err(status) = self.check(&credential) {
                return status;
            }
            if changed.changed().await.is_err() {
                // `self` holds the sender, so this does not happen.
                return std::future::pending().await;
            }
        }
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
                error!(error = %crate::chain(&fault), "revocations cannot be read; those read before stay in force");
                told = seen;
            }
        }
    }
}

fn look(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
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

    #[tokio::test]
    async fn a_revoked_host_is_its_certificates_and_join_tokens_until_then() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("revoked");
        let now = partita_identity::now();
        let later = now.after(Duration::from_secs(2));
        let [stolen, other] = ["host-1", "host-2"].map(|name| HostName::new(name).unwrap());
        let revocations = Revocations::open(&path, now).unwrap();
        let ended = revocations.clone().ended(Credential::Certificate(stolen.clone(), now));
        revocations.check(&Credential::Certificate(stolen.clone(), now)).unwrap();
        revocations.revoke(Revoked::Host(stolen.clone()), now).unwrap();
        assert!(ended.await.message().contains("host host-1 was revoked"));
        for revocations in [revocations, Revocations::open(&path, now).unwrap()] {
            assert!(revocations.has_host(&stolen, now));
            assert!(!revocations.has_host(&stolen, later) && !revocations.has_host(&other, now));
        }
        let expired = later.after(HOST_CERTIFICATE_LIFETIME + LEEWAY);
        assert!(!Revocations::open(&path, expired).unwrap().has_host(&stolen, now), "nobody has such a certificate");
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
        assert!(matches!(fault, LinesError::Line { line: 2, .. }), "{fault}");
    }
}
