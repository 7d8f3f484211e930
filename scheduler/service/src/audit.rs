//! What goes into the audit log: every call that changes something, and every call that the gate refuses.
//!
//! An entry is written before the caller hears of the outcome, so it survives a killed scheduler; it is synced a moment
//! later. A log that cannot be written ends the scheduler: nobody changes anything without a trace.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use http::Request;
use partita_audit::{AuditError, AuditLog, Draft, Principal};
use partita_identity::serve::Peer;
use partita_types::Timestamp;
use tonic::{Code, Status};
use tracing::warn;

use crate::auth::{Caller, HostCaller, InForce};
use crate::chain;
use crate::driver::{Failed, Failure};

/// How often the log is synced, if anything was written.
const SYNC: Duration = Duration::from_millis(50);
/// Refusals that are written down at once, and how much time gives room for one more. The rest is counted.
const REFUSALS: u32 = 200;
const REFILL: Duration = Duration::from_millis(50);

/// Writes the audit log. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Auditor {
    state: Arc<Mutex<State>>,
    policies: InForce,
    failure: Failure,
}

#[derive(Debug)]
struct State {
    log: AuditLog,
    refusals: u32,
    refilled: Timestamp,
}

/// What a call was about, once its handler knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Object(Arc<OnceLock<String>>);

impl Object {
    /// Of a call that passed the gate. Of another one nobody reads what is noted.
    pub(crate) fn of<T>(call: &tonic::Request<T>) -> Self {
        call.extensions().get().cloned().unwrap_or_default()
    }

    /// Notes it; the first one counts.
    pub(crate) fn is(&self, object: impl std::fmt::Display) {
        let _ = self.0.set(object.to_string());
    }
}

/// A call, before its outcome is known.
#[derive(Debug)]
pub(crate) struct Audited {
    principal: Principal,
    address: String,
    action: &'static str,
    object: Object,
}

impl Audited {
    /// A call whose caller is known by now, if it will ever be. `action` is its path.
    pub(crate) fn new<B>(request: &mut Request<B>, path: &'static str) -> Self {
        let extensions = request.extensions_mut();
        let object = Object::default();
        extensions.insert(object.clone());
        let principal = if let Some(Caller(claims)) = extensions.get() {
            Principal::Token {
                tenant: claims.tenant.to_string(),
                subject: claims.sub.clone(),
                role: claims.role.to_string(),
                token: claims.jti.clone(),
            }
        } else if let Some(HostCaller(name)) = extensions.get() {
            Principal::Host { name: name.to_string() }
        } else {
            Principal::Unknown
        };
        let address = extensions.get::<Peer>().map(|peer| peer.address.to_string()).unwrap_or_default();
        // Without the package, whose name says nothing to people.
        let action = path.rsplit('.').next().unwrap_or(path);
        Self { principal, address, action, object }
    }
}

impl Auditor {
    /// Opens the log in `directory`.
    pub(crate) fn open(directory: &Path, policies: InForce, failure: Failure) -> Result<Self, AuditError> {
        let now = partita_identity::now();
        let (log, repair) = AuditLog::open(directory, now)?;
        if let Some(repair) = repair {
            warn!(path = %repair.path.display(), bytes = repair.bytes, "the audit log ended in half a line");
        }
        let state = State { log, refusals: REFUSALS, refilled: now };
        Ok(Self { state: Arc::new(Mutex::new(state)), policies, failure })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the log is.
    pub(crate) fn directory(&self) -> std::path::PathBuf {
        self.state().log.directory().to_owned()
    }

    /// The last line.
    pub(crate) fn last(&self) -> partita_audit::Chain {
        self.state().log.last()
    }

    /// Notes a call of somebody who was let in.
    pub(crate) fn ended(&self, audited: Audited, refused: Option<&Status>) -> Result<(), Status> {
        let draft = self.draft(audited, refused);
        self.append(&mut self.state(), draft)
    }

    /// Notes a call that the gate refused. Of very many only some; their number is noted with the next line.
    pub(crate) fn refused(&self, audited: Audited, status: &Status) -> Result<(), Status> {
        let draft = self.draft(audited, Some(status));
        let mut state = self.state();
        if state.may_note(draft.at) {
            return self.append(&mut state, draft);
        }
        state.log.suppress();
        Ok(())
    }

    /// Notes what the scheduler did by itself.
    pub(crate) fn own(
        &self,
        action: &'static str,
        object: impl std::fmt::Display,
        outcome: &str,
    ) -> Result<(), Status> {
        let audited =
            Audited { principal: Principal::Scheduler, address: String::new(), action, object: Object::default() };
        audited.object.is(object);
        let draft = Draft { outcome: outcome.to_owned(), ..self.draft(audited, None) };
        self.append(&mut self.state(), draft)
    }

    fn draft(&self, audited: Audited, refused: Option<&Status>) -> Draft {
        let Audited { principal, address, action, object } = audited;
        Draft {
            at: partita_identity::now(),
            principal,
            address,
            action: action.to_owned(),
            object: object.0.get().cloned().unwrap_or_default(),
            outcome: refused
                .map_or_else(|| "ok".to_owned(), |status| format!("{}: {}", name(status), status.message())),
            policy: self.policies.version(),
        }
    }

    fn append(&self, state: &mut State, draft: Draft) -> Result<(), Status> {
        state.log.append(draft).map(drop).map_err(|error| self.broken(&error))
    }

    fn broken(&self, error: &AuditError) -> Status {
        self.failure.set(Failed::new(format!("the audit log failed: {}", chain(error))));
        Status::unavailable("the scheduler stops because its audit log cannot be written")
    }

    /// Syncs the log now and then, for ever.
    pub(crate) async fn keep_synced(self) {
        let mut timer = tokio::time::interval(SYNC);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            timer.tick().await;
            let Some(file) = self.state().log.take_unsynced() else { continue };
            let synced = tokio::task::spawn_blocking(move || file.sync_data()).await;
            if let Ok(Err(source)) = synced {
                let path = self.directory();
                self.broken(&AuditError::Io { operation: "sync", path, source });
            }
        }
    }
}

impl State {
    /// A bucket that time fills.
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

/// The code as the protocol spells it, in small letters.
fn name(status: &Status) -> &'static str {
    match status.code() {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::InvalidArgument => "invalid-argument",
        Code::DeadlineExceeded => "deadline-exceeded",
        Code::NotFound => "not-found",
        Code::AlreadyExists => "already-exists",
        Code::PermissionDenied => "permission-denied",
        Code::ResourceExhausted => "resource-exhausted",
        Code::FailedPrecondition => "failed-precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out-of-range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data-loss",
        Code::Unauthenticated => "unauthenticated",
        Code::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_leaves_some_lines_and_their_number() {
        let directory = tempfile::tempdir().unwrap();
        let auditor = Auditor::open(directory.path(), InForce::default(), Failure::new()).unwrap();
        let status = Status::unauthenticated("no token");
        let refuse = || {
            let mut request = Request::new(());
            auditor.refused(Audited::new(&mut request, "/partita.client.v1.Jobs/List"), &status).unwrap();
        };
        (0..50_000).for_each(|_| refuse());
        let written = auditor.last().sequence;
        assert!((u64::from(REFUSALS)..25_000).contains(&written), "{written}");
        let mut request = Request::new(());
        auditor.ended(Audited::new(&mut request, "/partita.client.v1.Jobs/Cancel"), None).unwrap();
        let page = partita_audit::read(directory.path(), 0, usize::MAX).unwrap();
        let lines: Vec<_> = page.lines.iter().map(|line| partita_audit::Line::parse(line).unwrap().entry).collect();
        let told: u64 = lines.iter().map(|entry| entry.suppressed + 1).sum();
        assert_eq!(told, 50_001, "every call is written down or counted");
        let (first, last) = (lines.first().unwrap(), lines.last().unwrap());
        assert_eq!((first.action.as_str(), first.outcome.as_str()), ("Jobs/List", "unauthenticated: no token"));
        assert_eq!((last.action.as_str(), last.outcome.as_str()), ("Jobs/Cancel", "ok"));
    }
}
