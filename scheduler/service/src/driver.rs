//! The driver: one thread owns the core, one the journal and everything that the core's actions touch.
//!
//! Requests and host messages come in through one bounded inbox. The core thread applies them and passes what is to
//! happen through one bounded FIFO to the writer thread, which writes records before it acts. Answers to queries take
//! the same way, so that nobody sees a state that is not yet on disk. Nothing here decides anything.

mod compacting;
mod core_thread;
mod effects;
mod failure;
mod handle;
mod writer;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use partita_core::{Action, Compaction, Core, Event, HostHello, HostMessage, Reply, Request, RequestId};
use partita_protocol::host::SchedulerMessage;
use partita_types::{HostId, HostName, Incarnation, PartitionId};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub(crate) use effects::Effects;
pub use failure::Failed;
pub(crate) use failure::{Failure, guarded};
pub(crate) use handle::{Handle, NoReply, Stopped};

/// Inputs that wait for the core. Whoever has more waits, down to the sockets.
const INBOX: usize = 1_024;
/// Rounds of steps that wait for the journal.
const ROUNDS: usize = 64;
/// Messages that wait for one host. A host that does not read so many is cut off.
pub(crate) const OUTBOX: usize = 1_024;

/// What the core thread works on, in the order of arrival.
pub(crate) enum Input {
    /// Something that nobody waits for.
    Event(Event),
    /// A client's request.
    Request { request: RequestId, what: Request, answer: oneshot::Sender<Reply> },
    /// A look at the state.
    Query(Box<dyn FnOnce(&Core) -> Deliver + Send>),
    /// A host said hello.
    Attach { hello: Box<HostHello>, reported: u64, link: Link, attached: oneshot::Sender<SessionId> },
    /// A host said something else.
    FromHost(FromHost),
    /// A host's session ended.
    Detach(SessionId),
    /// A host does not have what it should have.
    Lost { host: HostId, partitions: Vec<PartitionId> },
    /// A message of the service itself to a host; the answer is whether the host has a session.
    Tell { host: HostId, message: Box<SchedulerMessage>, told: oneshot::Sender<bool> },
}

/// What a host said within a session.
pub(crate) struct FromHost {
    /// In which session.
    pub(crate) session: SessionId,
    /// What.
    pub(crate) message: HostMessage,
    /// The number of a report, which is acknowledged once it is on disk.
    pub(crate) report: Option<u64>,
    /// Called when everything that follows from it has happened.
    pub(crate) done: Option<Deliver>,
}

/// Called on the writer thread; must not block.
pub(crate) type Deliver = Box<dyn FnOnce() + Send>;

/// One session of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionId {
    pub(crate) host: HostId,
    pub(crate) incarnation: Incarnation,
    /// Tells a session from another one of the same incarnation.
    pub(crate) serial: u64,
}

/// The service's end of a session, held by the effects.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) serial: u64,
    pub(crate) name: HostName,
    pub(crate) outbox: mpsc::Sender<SchedulerMessage>,
    /// Cancelled when the session shall end.
    pub(crate) closed: CancellationToken,
}

/// What the writer thread works on, in this order.
pub(crate) enum Step {
    Act(Action),
    Expect {
        request: RequestId,
        answer: oneshot::Sender<Reply>,
    },
    Deliver(Deliver),
    Arrive {
        host: HostId,
        link: Link,
    },
    Reported {
        host: HostId,
        serial: u64,
        number: u64,
    },
    Tell {
        host: HostId,
        message: Box<SchedulerMessage>,
        told: oneshot::Sender<bool>,
    },
    /// The journal may be compacted, to what is needed of everything before. The last step of its round.
    Compact(Compaction),
}

/// The threads of a driver.
#[derive(Debug)]
pub(crate) struct Threads {
    core: std::thread::JoinHandle<()>,
    writer: std::thread::JoinHandle<()>,
}

impl Threads {
    /// Waits until both have ended. Blocks.
    pub(crate) fn join(self) {
        // A panic in them was caught and reported as the failure.
        let _ = self.core.join();
        let _ = self.writer.join();
    }
}

/// Starts both threads. They end when `stop` is cancelled, everything that had come in was worked on, and the journal
/// is flushed; or when something fails.
pub(crate) fn start(
    core: Core,
    journal: Box<dyn partita_store::Journal>,
    effects: Effects,
    metrics: crate::metrics::Metrics,
    stop: CancellationToken,
    failure: Failure,
) -> std::io::Result<(Handle, Threads)> {
    let (inbox, mut inputs) = mpsc::channel(INBOX);
    let compaction_due = Arc::new(AtomicBool::new(false));
    let (steps, rounds) = std::sync::mpsc::sync_channel(ROUNDS);
    let handle = Handle::new(inbox, metrics.clone(), failure.clone());
    let mut writer =
        writer::Writer::new(journal, effects, rounds, metrics.clone(), Arc::clone(&compaction_due), failure.clone());
    let report = failure.clone();
    let writer = std::thread::Builder::new()
        .name("partita-journal".to_owned())
        .spawn(move || guarded("journal", &report, || writer.run()))?;
    let mut core_thread = core_thread::CoreThread::new(core, steps, metrics, compaction_due);
    let core = std::thread::Builder::new()
        .name("partita-core".to_owned())
        .spawn(move || guarded("core", &failure, || core_thread.run(&mut inputs, &stop)))?;
    Ok((handle, Threads { core, writer }))
}

#[cfg(test)]
mod tests;
