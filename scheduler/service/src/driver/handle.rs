//! What the services hold of the driver.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use partita_core::{Core, Event, HostHello, Reply, Request, RequestId};
use partita_protocol::host::SchedulerMessage;
use partita_types::{HostId, PartitionId};
use tokio::sync::{mpsc, oneshot};

use super::{Failure, FromHost, Input, Link, SessionId};
use crate::metrics::Metrics;

/// The scheduler is ending; the request was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stopped {
    /// Somebody stopped it, or something that only its log tells.
    #[error("the scheduler is stopping")]
    Ending,
    /// The journal cannot be written.
    #[error(
        "the scheduler stops because its disk is full; nothing that it acknowledged is lost, and this was not \
         acknowledged: try again when the cluster's administrator has made room"
    )]
    DiskFull,
}

/// Why a request has no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoReply {
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error("no answer within {0:?}")]
    Late(Duration),
}

/// The way into the core. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    inbox: mpsc::Sender<Input>,
    requests: Arc<AtomicU64>,
    metrics: Metrics,
    failure: Failure,
}

impl Handle {
    pub(super) fn new(inbox: mpsc::Sender<Input>, metrics: Metrics, failure: Failure) -> Self {
        Self { inbox, requests: Arc::default(), metrics, failure }
    }

    /// Why nothing is answered.
    fn stopped(&self) -> Stopped {
        if self.failure.get().is_some_and(|failed| failed.disk_full()) { Stopped::DiskFull } else { Stopped::Ending }
    }

    async fn send(&self, input: Input) -> Result<(), Stopped> {
        self.metrics.inbox.set(i64::try_from(self.inbox.max_capacity() - self.inbox.capacity()).unwrap_or(i64::MAX));
        self.inbox.send(input).await.map_err(|_| self.stopped())
    }

    /// Passes an event on.
    pub(crate) async fn event(&self, event: Event) -> Result<(), Stopped> {
        self.send(Input::Event(event)).await
    }

    /// Asks the core and waits for its reply. If the caller goes away or the time is over, the core is told.
    pub(crate) async fn request(&self, what: Request, limit: Duration) -> Result<Reply, NoReply> {
        let request = RequestId(self.requests.fetch_add(1, Ordering::Relaxed));
        let (answer, reply) = oneshot::channel();
        self.send(Input::Request { request, what, answer }).await?;
        let mut open = Open { handle: self, request: Some(request) };
        let reply = tokio::time::timeout(limit, reply).await;
        if matches!(reply, Ok(Ok(_))) {
            open.request = None;
        }
        match reply {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(NoReply::Stopped(self.stopped())),
            Err(_) => Err(NoReply::Late(limit)),
        }
    }

    /// Looks at the state, once everything that came before is on disk.
    pub(crate) async fn query<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Core) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        self.query_then(look, |seen| seen).await
    }

    /// Looks at the state, and calls `then` in the order of the journal. It must not block.
    pub(crate) async fn query_then<T: Send + 'static, U: Send + 'static>(
        &self,
        look: impl FnOnce(&Core) -> T + Send + 'static,
        then: impl FnOnce(T) -> U + Send + 'static,
    ) -> Result<U, Stopped> {
        let (sender, receiver) = oneshot::channel();
        let query = move |core: &Core| -> super::Deliver {
            let seen = look(core);
            Box::new(move || {
                // Whoever asked may be gone.
                let _ = sender.send(then(seen));
            })
        };
        self.send(Input::Query(Box::new(query))).await?;
        receiver.await.map_err(|_| self.stopped())
    }

    /// Opens a session. Ends in the hello count as reports up to the number `reported`. `None` if the core does not take the host.
    pub(crate) async fn attach(
        &self,
        hello: HostHello,
        reported: u64,
        link: Link,
    ) -> Result<Option<SessionId>, Stopped> {
        let (attached, receiver) = oneshot::channel();
        self.send(Input::Attach { hello: Box::new(hello), reported, link, attached }).await?;
        Ok(receiver.await.ok())
    }

    /// Passes on what a host said.
    pub(crate) async fn hear(&self, message: FromHost) -> Result<(), Stopped> {
        self.send(Input::FromHost(message)).await
    }

    /// Ends a session.
    pub(crate) async fn detach(&self, session: SessionId) -> Result<(), Stopped> {
        self.send(Input::Detach(session)).await
    }

    /// Tells that a host does not have partitions that it should have.
    pub(crate) async fn lost(&self, host: HostId, partitions: Vec<PartitionId>) -> Result<(), Stopped> {
        self.send(Input::Lost { host, partitions }).await
    }

    /// Sends a message of the service to a host; false if the host has no session.
    pub(crate) async fn tell(&self, host: HostId, message: SchedulerMessage) -> Result<bool, Stopped> {
        let (told, receiver) = oneshot::channel();
        self.send(Input::Tell { host, message: Box::new(message), told }).await?;
        receiver.await.map_err(|_| self.stopped())
    }
}

/// A request without a reply. Dropping it tells the core that nobody waits any more.
struct Open<'a> {
    handle: &'a Handle,
    request: Option<RequestId>,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let Some(request) = self.request else { return };
        // Without room in the inbox the core keeps a request that nobody waits for until it answers it.
        if self.handle.inbox.try_send(Input::Event(Event::Abandoned(request))).is_err() {
            self.handle.metrics.abandons_lost.inc();
        }
    }
}
