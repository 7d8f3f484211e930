//! What goes into the audit log: every call that changes something, and every call that the gate refuses.
//!
//! An entry is written before the caller hears of the outcome, so it survives a killed scheduler; it is synced a moment
//! later. A log that cannot be written ends the scheduler: nobody changes anything without a trace. Calls hand their
//! notes to one thread, which owns the log, so that none of them waits for a disk while it holds a thread of the runtime.

mod writer;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use http::Request;
use partita_audit::{AuditError, AuditLog, Chain, Draft, Principal};
use partita_identity::serve::Peer;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Code, Status};
use tracing::warn;

use crate::auth::{Caller, HostCaller, InForce};
use crate::driver::{Failure, guarded};
use writer::{Note, Writer};

/// Notes that wait for the log. Calls that were let in wait for room; refusals beyond it are counted.
const QUEUE: usize = 1_024;

/// Notes things in the audit log. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Auditor {
    notes: mpsc::Sender<Note>,
    /// Refusals for which there was no room.
    suppressed: Arc<AtomicU64>,
    last: watch::Receiver<Chain>,
    directory: Arc<Path>,
    policies: InForce,
    /// Waits for room for notes that cannot wait themselves.
    late: TaskTracker,
}

/// The thread that writes the log. Dropping it ends the thread, too, and does not wait for that.
#[derive(Debug)]
pub(crate) struct AuditThread {
    thread: std::thread::JoinHandle<()>,
    /// Cancelled when this is dropped, which is how the thread learns of it.
    stop: tokio_util::sync::DropGuard,
}

impl AuditThread {
    /// Writes and syncs what was noted so far, takes nothing more, and closes the log. Blocks.
    pub(crate) fn end(self) {
        drop(self.stop);
        // A panic in it was caught and reported as the failure.
        let _ = self.thread.join();
    }
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

/// A call that runs. If it is dropped before its outcome is known, because its caller went away, that is noted: it may
/// have changed something all the same.
#[derive(Debug)]
pub(crate) struct Running {
    auditor: Auditor,
    audited: Option<Audited>,
}

impl Running {
    /// Notes the outcome; see [`Auditor::ended`].
    pub(crate) async fn ended(mut self, refused: Option<&Status>) -> Result<(), Status> {
        match self.audited.take() {
            Some(audited) => self.auditor.ended(audited, refused).await,
            None => Ok(()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(audited) = self.audited.take() {
            self.auditor.abandoned(audited);
        }
    }
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
        } else if let Some(HostCaller(name, _)) = extensions.get() {
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
    /// Opens the log in `directory` and starts its thread.
    pub(crate) fn start(
        directory: &Path,
        policies: InForce,
        failure: Failure,
        late: TaskTracker,
    ) -> Result<(Self, AuditThread), AuditError> {
        let now = partita_identity::now();
        let (log, repair) = AuditLog::open(directory, now)?;
        if let Some(repair) = repair {
            warn!(path = %repair.path.display(), bytes = repair.bytes, "the audit log ended in half a line");
        }
        let (notes, mut queue) = mpsc::channel(QUEUE);
        let (suppressed, published) = (Arc::<AtomicU64>::default(), watch::Sender::new(log.last()));
        let last = published.subscribe();
        let stop = CancellationToken::new();
        let ended = stop.clone();
        let mut writer = Writer::new(log, published, Arc::clone(&suppressed), now);
        let body = move || guarded("audit", &failure, || writer.run(&mut queue, &ended));
        let thread = std::thread::Builder::new()
            .name("partita-audit".to_owned())
            .spawn(body)
            .map_err(|source| AuditError::Io { operation: "start a thread for", path: directory.to_owned(), source })?;
        let auditor = Self { notes, suppressed, last, directory: directory.into(), policies, late };
        Ok((auditor, AuditThread { thread, stop: stop.drop_guard() }))
    }

    /// Where the log is.
    pub(crate) fn directory(&self) -> Arc<Path> {
        Arc::clone(&self.directory)
    }

    /// The last line. Whoever was told that something is written finds it here.
    pub(crate) fn last(&self) -> Chain {
        *self.last.borrow()
    }

    /// Follows a call of somebody who was let in.
    pub(crate) fn follow(&self, audited: Audited) -> Running {
        Running { auditor: self.clone(), audited: Some(audited) }
    }

    /// Notes a call of somebody who was let in. It is written when this returns.
    pub(crate) async fn ended(&self, audited: Audited, refused: Option<&Status>) -> Result<(), Status> {
        self.write(self.draft(audited, refused)).await
    }

    /// Notes a call whose caller did not wait for the outcome.
    fn abandoned(&self, audited: Audited) {
        let left = Status::cancelled("the caller left before the outcome was known");
        let (written, _) = oneshot::channel();
        let note = Note::Entry { draft: self.draft(audited, Some(&left)), written };
        // Of a log that takes no more the scheduler knows.
        if let Err(TrySendError::Full(note)) = self.notes.try_send(note) {
            let notes = self.notes.clone();
            self.late.spawn(async move { notes.send(note).await });
        }
    }

    /// Notes a call that the gate refused. Of very many only some; their number is noted with the next line.
    pub(crate) fn refused(&self, audited: Audited, status: &Status) -> Result<(), Status> {
        match self.notes.try_send(Note::Refusal(self.draft(audited, Some(status)))) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => {
                self.suppressed.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(TrySendError::Closed(_)) => Err(closed()),
        }
    }

    /// Notes what the scheduler did by itself. It is written when this returns.
    pub(crate) async fn own(&self, action: &'static str, object: String, outcome: &str) -> Result<(), Status> {
        let audited =
            Audited { principal: Principal::Scheduler, address: String::new(), action, object: Object::default() };
        audited.object.is(object);
        self.write(Draft { outcome: outcome.to_owned(), ..self.draft(audited, None) }).await
    }

    /// Notes what somebody did beside the scheduler, `at` some time. It is written when this returns.
    pub(crate) async fn local(
        &self,
        user: u32,
        action: String,
        object: String,
        at: partita_types::Timestamp,
    ) -> Result<(), Status> {
        let (principal, address, outcome) = (Principal::Local { user }, String::new(), "ok".to_owned());
        let policy = self.policies.version();
        self.write(Draft { at, principal, address, action, object, outcome, policy }).await
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

    async fn write(&self, draft: Draft) -> Result<(), Status> {
        let (written, wait) = oneshot::channel();
        self.notes.send(Note::Entry { draft, written }).await.map_err(|_| closed())?;
        wait.await.map_err(|_| closed())
    }
}

/// The log takes no more: the scheduler stops, perhaps because of just that.
fn closed() -> Status {
    Status::unavailable("the scheduler stops, and its audit log takes no more")
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

    fn request(path: &'static str) -> Audited {
        Audited::new(&mut Request::new(()), path)
    }

    fn started(directory: &Path, failure: Failure) -> (Auditor, AuditThread) {
        Auditor::start(directory, InForce::default(), failure, TaskTracker::new()).unwrap()
    }

    fn entries(directory: &Path) -> Vec<partita_audit::Entry> {
        let page = partita_audit::read(directory, 0, usize::MAX).unwrap();
        page.lines.iter().map(|line| partita_audit::Line::parse(line).unwrap().entry).collect()
    }

    #[tokio::test]
    async fn a_flood_of_refusals_leaves_some_lines_and_their_number() {
        let directory = tempfile::tempdir().unwrap();
        let (auditor, _thread) = started(directory.path(), Failure::new());
        let status = Status::unauthenticated("no token");
        for _ in 0..50_000 {
            auditor.refused(request("/partita.client.v1.Jobs/List"), &status).unwrap();
        }
        auditor.ended(request("/partita.client.v1.Jobs/Cancel"), None).await.unwrap();
        let lines = entries(directory.path());
        assert_eq!(auditor.last().sequence, lines.len() as u64, "it is written before the caller hears of it");
        let refusals = lines.len() - 1;
        assert!((writer::REFUSALS as usize..25_000).contains(&refusals), "{refusals}");
        let told: u64 = lines.iter().map(|entry| entry.suppressed + 1).sum();
        assert_eq!(told, 50_001, "every call is written down or counted");
        let (first, last) = (lines.first().unwrap(), lines.last().unwrap());
        assert_eq!((first.action.as_str(), first.outcome.as_str()), ("Jobs/List", "unauthenticated: no token"));
        assert_eq!((last.action.as_str(), last.outcome.as_str()), ("Jobs/Cancel", "ok"));
    }

    #[tokio::test]
    async fn an_ended_log_has_all_that_was_noted_and_takes_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let (auditor, thread) = started(directory.path(), Failure::new());
        let status = Status::unauthenticated("no token");
        let flood = QUEUE as u64 * 8;
        for _ in 0..flood {
            auditor.refused(request("/partita.client.v1.Jobs/List"), &status).unwrap();
        }
        thread.end();
        let lines = entries(directory.path());
        let told: u64 = lines.iter().map(|entry| entry.suppressed + u64::from(entry.action == "Jobs/List")).sum();
        assert_eq!(told, flood, "also those that were only counted");
        let late = auditor.ended(request("/partita.client.v1.Jobs/Cancel"), None).await.unwrap_err();
        assert_eq!(late.code(), Code::Unavailable);
        assert_eq!(auditor.refused(request("/partita.client.v1.Jobs/List"), &status).unwrap_err().code(), late.code());
        let (again, _thread) = started(directory.path(), Failure::new());
        again.own("Policies/Read", String::new(), "ok").await.unwrap();
        assert_eq!(partita_audit::verify(directory.path()).unwrap().last, again.last());
    }

    #[tokio::test]
    async fn a_log_that_cannot_be_written_ends_the_scheduler_and_nobody_is_told_ok() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit");
        let (mut log, _) = AuditLog::open(&path, partita_identity::now()).unwrap();
        let text = "x".repeat(partita_audit::TEXT_MAX);
        let draft = Draft {
            at: partita_identity::now(),
            principal: Principal::Scheduler,
            address: String::new(),
            action: "Policies/Read".to_owned(),
            object: text.clone(),
            outcome: text,
            policy: String::new(),
        };
        let size =
            || std::fs::read_dir(&path).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum::<u64>();
        while size() < 16 << 20 {
            log.append(draft.clone()).unwrap();
        }
        drop(log);
        let failure = Failure::new();
        let (auditor, _thread) = started(&path, failure.clone());
        // A full file is followed by another one, for which there is no directory.
        std::fs::remove_dir_all(&path).unwrap();
        let refused = auditor.ended(request("/partita.client.v1.Jobs/Cancel"), None).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        let failed = failure.wait().await.to_string();
        assert!(failed.starts_with("the audit log failed: cannot create "), "{failed}");
    }
}
