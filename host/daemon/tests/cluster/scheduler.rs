//! A scheduler that decides nothing: the test says what it says.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use partita_host::{HostConfig, Running};
use partita_identity::serve::{self, ConnectionLimits, Peer};
use partita_identity::ticket::{self, Claims, TicketKey};
use partita_identity::token::{Signer, Token};
use partita_identity::{Authority, tls};
use partita_protocol::host::enrollment_server::{self, Enrollment, EnrollmentServer};
use partita_protocol::host::host_message::Message as FromHost;
use partita_protocol::host::scheduler_message::Message as ToHost;
use partita_protocol::host::sessions_server::{self, Sessions, SessionsServer};
use partita_protocol::host::{
    Assignment, AttemptList, CertificateResponse, Hello, HostMessage, JoinRequest, ModuleChunk, ModuleRequest,
    RelayAck, RelayChunk, RelayPiece, RelayRequest, RenewRequest, SchedulerMessage,
};
use partita_sandbox::Program;
use partita_types::{
    ArrayHeader, ArrayIndex, AttemptId, AttemptNumber, ByteSize, CpuTime, DatasetGrant, FailedAttempt, Frame, FrameId,
    HostId, HostName, HostTenant, InputGroup, InputPartition, JobId, MilliCpu, ModuleId, OutputInfo, PartitionId,
    Report, Source, StoredPartition, TaskId, TaskLimits, TenantId, TenantName, Timestamp, Welcome,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::{Request, Response, Status, Streaming};

use crate::guests;

/// The tenant of all tests.
pub(crate) const TENANT: TenantId = TenantId(1);
pub(crate) const JOB: JobId = JobId { tenant: TENANT, number: 1 };
/// Whatever a test waits for comes sooner.
const PATIENCE: Duration = Duration::from_secs(60);

/// A host that has attached, and both directions of its session.
type Attached = (HostName, Streaming<HostMessage>, mpsc::Sender<Result<SchedulerMessage, Status>>);

/// What the services work on.
struct State {
    authority: Authority,
    signer: Signer,
    used: Mutex<HashSet<String>>,
    modules: Mutex<HashMap<ModuleId, Vec<u8>>>,
    uploads: Mutex<HashMap<u64, Vec<RelayPiece>>>,
    results: mpsc::Sender<Vec<RelayChunk>>,
    sessions: mpsc::Sender<Attached>,
}

/// The scheduler of a test, and the directory of everything.
pub(crate) struct Cluster {
    pub(crate) address: SocketAddr,
    pub(crate) directory: tempfile::TempDir,
    state: Arc<State>,
    results: mpsc::Receiver<Vec<RelayChunk>>,
    sessions: mpsc::Receiver<Attached>,
    /// What the tenant may read.
    pub(crate) datasets: Vec<DatasetGrant>,
    /// With which key the tickets for the next host are made, if not the usual one.
    pub(crate) next_ticket_key: Option<TicketKey>,
    _server: tokio::task::JoinSet<()>,
}

/// The program that plays the helper processes.
pub(crate) fn program() -> Program {
    Program { path: env!("CARGO_BIN_EXE_partita-host-helper").into(), args: Vec::new() }
}

/// The key of the tickets for a host.
pub(crate) fn ticket_key(host: &str) -> TicketKey {
    TicketKey(*blake3::hash(host.as_bytes()).as_bytes())
}

/// Waits for something that must come.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

impl Cluster {
    /// A scheduler on a free port, with the tests' guest as a module.
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::create("test").unwrap();
        std::fs::write(directory.path().join("ca.pem"), authority.certificate_pem()).unwrap();
        let identity = authority.issue_server(&["localhost".to_owned()]).unwrap();
        let config = tls::server_config(&identity, authority.certificate_pem()).unwrap();
        let listener = serve::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let (result_sender, results) = mpsc::channel(8);
        let (session_sender, sessions) = mpsc::channel(8);
        let guest = guests::guest();
        let state = Arc::new(State {
            authority,
            signer: Signer::create("test").unwrap(),
            used: Mutex::default(),
            modules: Mutex::new(HashMap::from([(guests::id(&guest), guest)])),
            uploads: Mutex::default(),
            results: result_sender,
            sessions: session_sender,
        });
        let router = Router {
            enrollment: EnrollmentServer::from_arc(Arc::clone(&state)),
            sessions: SessionsServer::from_arc(Arc::clone(&state)),
        };
        let mut server = tokio::task::JoinSet::new();
        server.spawn(async move {
            let incoming = serve::incoming(listener, config, ConnectionLimits::default());
            serve::server().serve_with_incoming(router, incoming).await.unwrap();
        });
        Self {
            address,
            directory,
            state,
            results,
            sessions,
            datasets: Vec::new(),
            next_ticket_key: None,
            _server: server,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn join_token(&self, host: &str) -> Token {
        let lifetime = Duration::from_secs(60);
        self.state.signer.issue_join(&HostName::new(host).unwrap(), lifetime, partita_identity::now()).unwrap()
    }

    /// The configuration of a small host that has no token.
    pub(crate) fn config(&self, host: &str) -> HostConfig {
        let scheduler = format!("localhost:{}", self.address.port());
        let name = HostName::new(host).unwrap();
        HostConfig {
            cores: 2,
            memory: ByteSize::gib(1),
            partitions: ByteSize::mib(64),
            ..HostConfig::new(name, scheduler, self.path("ca.pem"), self.path(host), program())
        }
    }

    /// Starts a host that joins, and welcomes it.
    pub(crate) async fn host(&mut self, host: &str) -> (Running, Session) {
        let config = HostConfig { join_token: Some(self.join_token(host)), ..self.config(host) };
        self.start_host(config).await
    }

    /// Starts a host and welcomes it.
    pub(crate) async fn start_host(&mut self, config: HostConfig) -> (Running, Session) {
        let mut running = partita_host::start(config).await.unwrap();
        let session = self.welcome().await;
        soon("the host's session", running.ready()).await;
        (running, session)
    }

    /// Welcomes the next host that attaches.
    pub(crate) async fn welcome(&mut self) -> Session {
        let (name, mut inbound, outbound) = soon("a session", self.sessions.recv()).await.unwrap();
        let first = soon("a hello", inbound.message()).await.unwrap().unwrap();
        let Some(FromHost::Hello(hello)) = first.message else { panic!("{first:?} is no hello") };
        let tenant = HostTenant {
            id: TENANT,
            name: TenantName::new("team").unwrap(),
            weight: 1,
            datasets: self.datasets.clone(),
            cpu: None,
            guaranteed: MilliCpu(0),
        };
        let ticket_key = self.next_ticket_key.take().unwrap_or_else(|| ticket_key(name.as_str())).0;
        let heartbeat = Duration::from_millis(200);
        let welcome = Welcome { host: HostId(0), heartbeat, ticket_key, tenants: vec![tenant] };
        let session = Session { name, hello, inbound, outbound, frames: 0 };
        session.say(ToHost::Welcome(welcome.into())).await;
        session
    }

    pub(crate) fn add_module(&self, id: ModuleId, bytes: Vec<u8>) {
        self.state.modules.lock().unwrap().insert(id, bytes);
    }

    pub(crate) fn add_upload(&self, relay: u64, parts: &[&[u8]]) {
        let pieces = parts.iter().map(|part| RelayPiece {
            position: 0,
            data: Bytes::copy_from_slice(part),
            end: false,
            missing: false,
        });
        self.state.uploads.lock().unwrap().insert(relay, pieces.collect());
    }

    /// The next result that a host sends, by position.
    pub(crate) async fn result(&mut self) -> BTreeMap<u32, Option<Vec<u8>>> {
        let chunks = soon("a result", self.results.recv()).await.unwrap();
        let mut result: BTreeMap<u32, Option<Vec<u8>>> = BTreeMap::new();
        for piece in chunks.into_iter().flat_map(|chunk| chunk.pieces) {
            match result.entry(piece.position).or_insert_with(|| (!piece.missing).then(Vec::new)) {
                Some(bytes) => bytes.extend_from_slice(&piece.data),
                None => assert!(piece.missing),
            }
        }
        result
    }
}

/// The scheduler's end of a session.
pub(crate) struct Session {
    pub(crate) name: HostName,
    pub(crate) hello: Hello,
    inbound: Streaming<HostMessage>,
    outbound: mpsc::Sender<Result<SchedulerMessage, Status>>,
    frames: u64,
}

/// How the attempts of some frames ended, by task.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    pub(crate) succeeded: BTreeMap<u32, Vec<OutputInfo>>,
    pub(crate) failed: BTreeMap<u32, FailedAttempt>,
    pub(crate) moved: u64,
    pub(crate) last_report: u64,
}

impl Session {
    pub(crate) async fn say(&self, message: ToHost) {
        self.outbound.send(Ok(SchedulerMessage { message: Some(message) })).await.unwrap();
    }

    /// The next message other than a heartbeat.
    pub(crate) async fn hear(&mut self) -> FromHost {
        loop {
            let message = soon("a message of the host", self.inbound.message()).await.unwrap();
            match message.expect("the session is open").message.expect("a known message") {
                FromHost::Heartbeat(_) => {}
                message => return message,
            }
        }
    }

    /// Hands a frame of an array over.
    pub(crate) async fn assign(&mut self, header: ArrayHeader, frame: Frame) {
        self.frames += 1;
        let message = Assignment { arrays: vec![header.into()], frames: vec![frame.into()] };
        self.say(ToHost::Assignment(message)).await;
    }

    /// How the attempts of the frames handed over since the last time ended.
    pub(crate) async fn ends(&mut self) -> Ends {
        let mut ends = Ends::default();
        while self.frames > 0 {
            let FromHost::Report(report) = self.hear().await else { continue };
            ends.last_report = report.number;
            let report = Report::try_from(report).unwrap();
            for batch in report.succeeded {
                let outputs = batch.outputs.len() / batch.indexes.len();
                ends.moved += batch.moved_partitions;
                for (index, infos) in batch.indexes.iter().zip(batch.outputs.chunks(outputs)) {
                    assert!(ends.succeeded.insert(*index, infos.to_vec()).is_none(), "task {index} ended twice");
                }
            }
            for failed in report.failed {
                let index = failed.attempt.task.index;
                assert!(ends.failed.insert(index, failed).is_none(), "task {index} ended twice");
            }
            self.frames -= report.finished_frames.len() as u64;
        }
        ends
    }

    /// The frames that the hello named: id, array and tasks.
    pub(crate) fn held(&self) -> Vec<(u64, u32, Vec<u32>)> {
        self.hello.held.iter().map(|frame| (frame.frame, frame.array, frame.indexes.clone())).collect()
    }

    /// The next failure that is reported.
    pub(crate) async fn next_failure(&mut self) -> FailedAttempt {
        loop {
            let FromHost::Report(report) = self.hear().await else { continue };
            if let Some(failed) = Report::try_from(report).unwrap().failed.pop() {
                return failed;
            }
        }
    }

    /// Waits until an attempt is said to run.
    pub(crate) async fn until_started(&mut self) -> AttemptId {
        loop {
            let FromHost::Report(report) = self.hear().await else { continue };
            if let Some(started) = Report::try_from(report).unwrap().started.first() {
                return *started;
            }
        }
    }

    pub(crate) async fn cancel(&self, attempts: &[AttemptId]) {
        self.say(ToHost::Cancel(AttemptList::from_attempts(attempts))).await;
    }
}

/// An array of a function of the tests' guest.
pub(crate) fn array(number: u32, function: &str, inputs: Vec<InputGroup>) -> ArrayHeader {
    ArrayHeader {
        job: JOB,
        array: ArrayIndex(number),
        module: guests::id(&guests::guest()),
        function: function.to_owned(),
        outputs: 1,
        limits: TaskLimits {
            memory: ByteSize::mib(64),
            cpu_time: CpuTime::from_micros(60_000_000),
            ..TaskLimits::default()
        },
        common_arguments: b"common".to_vec(),
        submitted_at: Timestamp::from_micros(1_700_000_000_000_000),
        inputs,
    }
}

pub(crate) fn attempt(array: u32, index: u32) -> AttemptId {
    AttemptId { task: TaskId { job: JOB, array: ArrayIndex(array), index }, number: AttemptNumber::FIRST }
}

pub(crate) fn partition(array: u32, index: u32, info: OutputInfo) -> StoredPartition {
    StoredPartition { id: PartitionId { attempt: attempt(array, index), output: 0 }, info }
}

/// A frame of the first attempts of these tasks.
pub(crate) fn frame(id: u64, array: u32, indexes: std::ops::Range<u32>) -> Frame {
    Frame {
        id: FrameId(id),
        job: JOB,
        array: ArrayIndex(array),
        attempts: vec![AttemptNumber::FIRST; indexes.len()],
        indexes: indexes.collect(),
        arguments: Vec::new(),
        literals: Vec::new(),
        input_counts: Vec::new(),
        inputs: Vec::new(),
        sources: Vec::new(),
        memory: None,
        reuse: Vec::new(),
    }
}

/// Gives each task of a frame one input from `source`.
pub(crate) fn reading(mut frame: Frame, inputs: &[StoredPartition], source: Source) -> Frame {
    frame.input_counts = vec![1; inputs.len()];
    frame.inputs = inputs.iter().map(|partition| InputPartition { partition: *partition, source: 0 }).collect();
    frame.sources = vec![source];
    frame
}

/// The right to fetch partitions from a host.
pub(crate) fn source(from: &Session, key: &TicketKey, to: &str, partitions: &[StoredPartition]) -> Source {
    let claims = Claims {
        tenant: TENANT,
        destination: HostName::new(to).unwrap(),
        expires: partita_identity::now().after(Duration::from_secs(60)),
        partitions: partitions.iter().map(|partition| partition.id).collect(),
    };
    Source {
        host: HostId(7),
        name: from.name.clone(),
        address: from.hello.address.clone(),
        ticket: ticket::mint(key, &claims),
    }
}

pub(crate) fn info(bytes: &[u8]) -> OutputInfo {
    let hash = partita_types::ContentHash(*blake3::hash(bytes).as_bytes());
    OutputInfo { size: ByteSize(bytes.len() as u64), hash }
}

#[tonic::async_trait]
impl Enrollment for State {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<CertificateResponse>, Status> {
        let request = request.into_inner();
        let refuse = |fault: &dyn std::error::Error| Status::unauthenticated(fault.to_string());
        let claims = self.signer.verifier().verify_join(&request.token, partita_identity::now());
        let claims = claims.map_err(|fault| refuse(&fault))?;
        if !self.used.lock().unwrap().insert(claims.jti) {
            return Err(Status::unauthenticated("the join token was used before"));
        }
        Ok(Response::new(self.certificate(&claims.host, &request.certificate_request)))
    }
}

impl State {
    fn certificate(&self, host: &HostName, request: &[u8]) -> CertificateResponse {
        let chain = self.authority.sign_host(host, request).unwrap();
        CertificateResponse {
            chain: chain.into_iter().map(|der| Bytes::from(der.to_vec())).collect(),
            authority: self.authority.certificate_pem().to_owned(),
            host: host.to_string(),
        }
    }
}

fn caller<T>(request: &Request<T>) -> Result<HostName, Status> {
    let peer = request.extensions().get::<Peer>().and_then(|peer| peer.host.clone());
    peer.ok_or_else(|| Status::unauthenticated("no host certificate"))
}

type Answers<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl Sessions for State {
    type AttachStream = Answers<SchedulerMessage>;
    type ModuleStream = Answers<ModuleChunk>;
    type ReceiveUploadStream = Answers<RelayChunk>;

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<CertificateResponse>, Status> {
        let host = caller(&request)?;
        Ok(Response::new(self.certificate(&host, &request.get_ref().certificate_request)))
    }

    async fn attach(&self, request: Request<Streaming<HostMessage>>) -> Result<Response<Self::AttachStream>, Status> {
        let host = caller(&request)?;
        let (outbound, messages) = mpsc::channel(64);
        self.sessions.send((host, request.into_inner(), outbound)).await.map_err(|_| Status::unavailable("over"))?;
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn module(&self, request: Request<ModuleRequest>) -> Result<Response<Self::ModuleStream>, Status> {
        caller(&request)?;
        let id = ModuleId::from_slice(&request.get_ref().module).unwrap();
        let module = self.modules.lock().unwrap().get(&id).cloned();
        let module = module.ok_or_else(|| Status::not_found("no such module"))?;
        let (sender, chunks) = mpsc::channel(64);
        for data in module.chunks(16 << 10) {
            sender.send(Ok(ModuleChunk { data: Bytes::copy_from_slice(data) })).await.unwrap();
        }
        Ok(Response::new(ReceiverStream::new(chunks)))
    }

    async fn send_result(&self, request: Request<Streaming<RelayChunk>>) -> Result<Response<RelayAck>, Status> {
        caller(&request)?;
        let (mut inbound, mut chunks) = (request.into_inner(), Vec::new());
        while let Some(chunk) = inbound.message().await? {
            chunks.push(chunk);
        }
        self.results.send(chunks).await.map_err(|_| Status::unavailable("over"))?;
        Ok(Response::new(RelayAck {}))
    }

    async fn receive_upload(
        &self,
        request: Request<RelayRequest>,
    ) -> Result<Response<Self::ReceiveUploadStream>, Status> {
        let relay = request.get_ref().relay;
        let pieces = self.uploads.lock().unwrap().remove(&relay).ok_or_else(|| Status::not_found("no such relay"))?;
        let (sender, chunks) = mpsc::channel(64);
        for piece in pieces {
            sender.send(Ok(RelayChunk { relay, pieces: vec![piece] })).await.unwrap();
        }
        Ok(Response::new(ReceiverStream::new(chunks)))
    }
}

/// Both services behind one listener.
#[derive(Clone)]
struct Router {
    enrollment: EnrollmentServer<State>,
    sessions: SessionsServer<State>,
}

impl Service<http::Request<Body>> for Router {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match request.uri().path().split('/').nth(1) {
            Some(enrollment_server::SERVICE_NAME) => self.enrollment.call(request),
            Some(sessions_server::SERVICE_NAME) => self.sessions.call(request),
            service => panic!("a host called {service:?}"),
        }
    }
}
