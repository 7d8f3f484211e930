//! What hosts call: their session, modules, both ends of relays, new certificates.
//!
//! Who a host is comes from its certificate, never from a message.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::{Stream, StreamExt, stream};
use partita_protocol::host::sessions_server::Sessions;
use partita_protocol::host::{
    CertificateResponse, HostMessage, ModuleChunk, ModuleRequest, RelayAck, RelayChunk, RelayPiece, RelayRequest,
    RenewRequest, SchedulerMessage,
};
use partita_types::{ModuleId, TenantId};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request as Call, Response, Status, Streaming};
use tracing::info;

use crate::audit::Object;
use crate::auth::host_caller;
use crate::driver::{Handle, Link, OUTBOX};
use crate::enrollment::Certifier;
use crate::logs::LogDesk;
use crate::metrics::Metrics;
use crate::module_files::ModuleFiles;
use crate::relay::{IDLE, OPEN_WITHIN, Relays, UploadPart};
use crate::session::{self, Reader};
use crate::status::not_found;

/// How long a new session may be silent before it has said hello.
const HELLO: Duration = Duration::from_secs(10);
/// Size of the pieces in which modules are sent.
const PIECE: usize = 256 << 10;

/// The service of sessions.
pub(crate) struct SessionService {
    pub(crate) handle: Handle,
    pub(crate) relays: Relays,
    pub(crate) logs: LogDesk,
    pub(crate) files: ModuleFiles,
    pub(crate) certifier: Certifier,
    pub(crate) metrics: Metrics,
    /// Readers of sessions, which shutdown waits for.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the scheduler stops.
    pub(crate) stop: CancellationToken,
    pub(crate) serials: Arc<AtomicU64>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Sessions for SessionService {
    async fn renew(&self, call: Call<RenewRequest>) -> Result<Response<CertificateResponse>, Status> {
        let host = host_caller(&call)?;
        let response = self.certifier.certify(&host, &call.into_inner().certificate_request)?;
        info!(%host, "certificate renewed");
        Ok(Response::new(response))
    }

    type AttachStream = Answers<SchedulerMessage>;

    async fn attach(&self, call: Call<Streaming<HostMessage>>) -> Result<Response<Self::AttachStream>, Status> {
        let (name, object) = (host_caller(&call)?, Object::of(&call));
        let mut messages = call.into_inner();
        let (hello, reported) = session::greeting(name.clone(), &mut messages, HELLO).await?;
        let incarnation = hello.incarnation;
        object.is(format_args!("incarnation {}, address {}", incarnation.0, hello.address));
        let (outbox, outgoing) = mpsc::channel(OUTBOX);
        let closed = self.stop.child_token();
        let serial = self.serials.fetch_add(1, Ordering::Relaxed);
        let link = Link { serial, name: name.clone(), outbox, closed: closed.clone() };
        let Some(session) = self.handle.attach(hello, reported, link).await? else {
            return Err(Status::failed_precondition(format!(
                "host {name} is attached with a later start of its process; stop one of the two"
            )));
        };
        info!(host = %name, incarnation = incarnation.0, "host attached");
        let reader = Reader {
            name,
            session,
            handle: self.handle.clone(),
            relays: self.relays.clone(),
            logs: self.logs.clone(),
            metrics: self.metrics.clone(),
            closed: closed.clone(),
        };
        self.tasks.spawn(reader.run(messages));
        let outgoing = stream::unfold(outgoing, |mut queue| async move { Some((Ok(queue.recv().await?), queue)) });
        // When the host goes away, this stream is dropped, and with it the guard.
        let guard = closed.clone().drop_guard();
        let outgoing = outgoing.take_until(closed.cancelled_owned()).map(move |message| {
            let _session = &guard;
            message
        });
        Ok(Response::new(Box::pin(outgoing)))
    }

    type ModuleStream = Answers<ModuleChunk>;

    async fn module(&self, call: Call<ModuleRequest>) -> Result<Response<Self::ModuleStream>, Status> {
        let host = host_caller(&call)?;
        let ModuleRequest { module, tenant } = call.into_inner();
        let id = ModuleId::from_slice(&module).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let tenant = TenantId(tenant);
        let known = self.handle.query(move |core| core.module(tenant, id).is_some()).await?;
        if !known && !self.files.is_held(id, tenant) {
            return Err(not_found(format_args!("module {id}")));
        }
        let file = self.files.read(id).await.map_err(|error| {
            tracing::error!(error = %error, module = %id, %host, "cannot read a module");
            Status::internal(format!("the scheduler cannot read module {id}"))
        })?;
        let chunks = stream::try_unfold(file, |mut file| async move {
            let mut data = BytesMut::with_capacity(PIECE);
            let read = file.read_buf(&mut data).await.map_err(|error| Status::internal(error.to_string()))?;
            Ok((read > 0).then(|| (ModuleChunk { data: data.freeze() }, file)))
        });
        Ok(Response::new(Box::pin(chunks)))
    }

    async fn send_result(&self, call: Call<Streaming<RelayChunk>>) -> Result<Response<RelayAck>, Status> {
        let host = host_caller(&call)?;
        let mut chunks = call.into_inner();
        let silent = |_| Status::deadline_exceeded("the relay was silent for too long");
        let first = tokio::time::timeout(OPEN_WITHIN, chunks.message()).await.map_err(silent)??;
        let first = first.ok_or_else(|| Status::invalid_argument("a relay begins with a chunk that names it"))?;
        let sender = self.relays.take_download(first.relay, &host).ok_or_else(|| not_found("the relay"))?;
        let mut next = Some(first);
        while let Some(chunk) = next {
            // As slow as the client, which the client's call bounds.
            sender.send(chunk.pieces).await.map_err(|_| Status::cancelled("the client is gone"))?;
            next = tokio::time::timeout(IDLE, chunks.message()).await.map_err(silent)??;
        }
        Ok(Response::new(RelayAck {}))
    }

    type ReceiveUploadStream = Answers<RelayChunk>;

    async fn receive_upload(&self, call: Call<RelayRequest>) -> Result<Response<Self::ReceiveUploadStream>, Status> {
        let host = host_caller(&call)?;
        let relay = call.into_inner().relay;
        let parts = self.relays.take_upload(relay, &host).ok_or_else(|| not_found("the relay"))?;
        let chunks = stream::unfold(parts, move |mut parts| async move {
            let part = parts.recv().await?;
            let piece = match part {
                UploadPart::Data(data) => RelayPiece { data, ..RelayPiece::default() },
                UploadPart::End => RelayPiece { end: true, ..RelayPiece::default() },
            };
            Some((Ok(RelayChunk { relay, pieces: vec![piece] }), parts))
        });
        Ok(Response::new(Box::pin(chunks)))
    }
}
