//! A scheduler on loopback, its clients, and a host that runs nothing and says what the test wants.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use partita_identity::dial::{Expect, channel};
use partita_identity::token::{Role, Signer};
use partita_identity::{CertificateDer, CertificateRequest, Identity, tls};
use partita_protocol::client::cluster_client::ClusterClient;
use partita_protocol::client::jobs_client::JobsClient;
use partita_protocol::client::modules_client::ModulesClient;
use partita_protocol::client::{Module, PushModuleHeader, PushModuleRequest, push_module_request};
use partita_protocol::host::enrollment_client::EnrollmentClient;
use partita_protocol::host::host_message::Message as Say;
use partita_protocol::host::scheduler_message::Message as Hear;
use partita_protocol::host::sessions_client::SessionsClient;
use partita_protocol::host::{
    Heartbeat, Hello, HostMessage, JoinRequest, ModuleInspected, PartitionList, SchedulerMessage,
};
use partita_protocol::job::FunctionInfo;
use partita_scheduler::{Running, SchedulerConfig, StartError};
use partita_types::{ByteSize, HostName, TenantName};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

pub(crate) const POLICIES: &str = "[tenant.acme.quota]\nqueued_tasks = 10\nmodule_size = \"64KiB\"\n[tenant.other]\n";
const LIMIT: Duration = Duration::from_secs(20);

/// Waits for something that must come.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("nothing came")
}

/// Adds a token to every call.
#[derive(Clone)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

pub(crate) type Authorized = InterceptedService<Channel, Bearer>;

/// A scheduler and its directory.
pub(crate) struct Cluster {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) running: Option<Running>,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("policies")).unwrap();
        std::fs::write(directory.path().join("policies/test.toml"), POLICIES).unwrap();
        let mut cluster = Self { directory, running: None };
        cluster.start_again().await;
        cluster
    }

    pub(crate) fn config(&self) -> SchedulerConfig {
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        SchedulerConfig {
            cluster: "test".to_owned(),
            listen: local,
            metrics: local,
            data: self.data(),
            policies: self.directory.path().join("policies"),
            names: Vec::new(),
            disk_reserve: ByteSize(0),
            issuers: None,
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub(crate) async fn start_again(&mut self) {
        self.running = Some(partita_scheduler::start(self.config()).await.unwrap());
    }

    /// Starts another scheduler with a changed configuration, which must fail.
    pub(crate) async fn start_wrong(&self, change: impl FnOnce(&mut SchedulerConfig)) -> StartError {
        let mut config = self.config();
        change(&mut config);
        partita_scheduler::start(config).await.unwrap_err()
    }

    pub(crate) async fn stop(&mut self) {
        self.running.take().unwrap().stop().await;
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.running().address()
    }

    pub(crate) fn authority(&self) -> String {
        std::fs::read_to_string(self.data().join("ca.pem")).unwrap()
    }

    pub(crate) fn signer(&self) -> Signer {
        Signer::load(&self.data().join("tokens")).unwrap()
    }

    pub(crate) fn token(&self, tenant: &str, role: Role) -> String {
        let tenant = TenantName::new(tenant).unwrap();
        let lifetime = Duration::from_secs(600);
        let token = self.signer().issue(&tenant, "ann", role, lifetime, partita_identity::now()).unwrap();
        token.expose().to_owned()
    }

    pub(crate) fn channel(&self, identity: Option<&Identity>) -> Channel {
        let config = tls::client_config(&self.authority(), identity).unwrap();
        let expect = Expect::Server("localhost".to_owned());
        channel(&format!("127.0.0.1:{}", self.address().port()), config, expect).unwrap()
    }

    pub(crate) fn authorized(&self, token: Option<&str>) -> Authorized {
        let bearer = token.map(|token| format!("Bearer {token}").parse().unwrap());
        InterceptedService::new(self.channel(None), Bearer(bearer))
    }

    pub(crate) fn developer(&self, tenant: &str) -> Authorized {
        self.authorized(Some(&self.token(tenant, Role::Developer)))
    }

    pub(crate) fn jobs(&self, tenant: &str) -> JobsClient<Authorized> {
        JobsClient::new(self.developer(tenant))
    }

    pub(crate) fn modules(&self, tenant: &str) -> ModulesClient<Authorized> {
        ModulesClient::new(self.developer(tenant))
    }

    pub(crate) fn cluster(&self, role: Role) -> ClusterClient<Authorized> {
        ClusterClient::new(self.authorized(Some(&self.token("acme", role))))
    }

    /// Lets a host join.
    pub(crate) async fn join(&self, name: &str) -> Identity {
        let name = HostName::new(name).unwrap();
        let token = self.signer().issue_join(&name, LIMIT, partita_identity::now()).unwrap();
        self.join_with(&name, token.expose()).await.unwrap()
    }

    pub(crate) async fn join_with(&self, name: &HostName, token: &str) -> Result<Identity, Status> {
        let request = CertificateRequest::new(name).unwrap();
        let join = JoinRequest { token: token.to_owned(), certificate_request: request.der().to_vec().into() };
        let response = EnrollmentClient::new(self.channel(None)).join(join).await?.into_inner();
        assert_eq!(response.host, name.as_str());
        let chain = response.chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        Ok(request.into_identity(chain).unwrap())
    }

    /// Pushes a module with the function `work`, which `host` finds good.
    pub(crate) async fn push(&self, host: &mut Host, name: &str, bytes: &'static [u8]) -> Module {
        let mut modules = self.modules("acme");
        let id: [u8; 32] = Sha256::digest(bytes).into();
        let parts = push_parts(name, bytes, &id);
        let push = async { modules.push(tokio_stream::iter(parts)).await.unwrap().into_inner() };
        let inspect = async {
            let Hear::InspectModule(asked) = host.hear().await else { panic!("expected an inspection") };
            let module = host.module(&asked.module, asked.tenant).await.unwrap();
            assert_eq!(module, bytes);
            let function = FunctionInfo { name: "work".to_owned(), ..Default::default() };
            let inspected =
                ModuleInspected { request: asked.request, functions: vec![function], refusal: String::new() };
            host.say(Say::ModuleInspected(inspected)).await;
        };
        soon(async { tokio::join!(push, inspect).0 }).await
    }
}

pub(crate) fn push_parts(name: &str, bytes: &[u8], id: &[u8]) -> Vec<PushModuleRequest> {
    use push_module_request::Part;
    let header = PushModuleHeader { name: name.to_owned(), size: bytes.len() as u64, id: id.to_vec().into() };
    let chunks = bytes.chunks(7).map(|chunk| Part::Chunk(chunk.to_vec().into()));
    [Part::Header(header)].into_iter().chain(chunks).map(|part| PushModuleRequest { part: Some(part) }).collect()
}

/// A host that does what the test says.
pub(crate) struct Host {
    pub(crate) sessions: SessionsClient<Channel>,
    say: mpsc::Sender<HostMessage>,
    messages: Streaming<SchedulerMessage>,
    /// Keeps the session alive while the test waits for something else.
    _heart: Arc<tokio::task::JoinSet<()>>,
}

pub(crate) fn hello(incarnation: u64, inventory: PartitionList) -> Hello {
    Hello {
        incarnation,
        cores: 2,
        memory_bytes: 4 << 30,
        partition_bytes: 1 << 30,
        isolation: "full".to_owned(),
        address: "127.0.0.1:9".to_owned(),
        inventory: Some(inventory),
        ..Hello::default()
    }
}

impl Host {
    /// Attaches and takes the welcome.
    pub(crate) async fn attach(cluster: &Cluster, identity: &Identity, hello: Hello) -> Self {
        let sessions = SessionsClient::new(cluster.channel(Some(identity)));
        Self::attach_with(sessions, hello).await.unwrap()
    }

    pub(crate) async fn attach_with(sessions: SessionsClient<Channel>, hello: Hello) -> Result<Self, Status> {
        Self::attach_saying(sessions, vec![Say::Hello(hello)]).await
    }

    /// Attaches with a hello of several messages.
    pub(crate) async fn attach_saying(
        mut sessions: SessionsClient<Channel>,
        greeting: Vec<Say>,
    ) -> Result<Self, Status> {
        let (say, said) = mpsc::channel(64);
        for message in greeting {
            say.send(HostMessage { message: Some(message) }).await.unwrap();
        }
        let messages = soon(sessions.attach(ReceiverStream::new(said))).await?.into_inner();
        let heart = say.clone();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            let mut timer = tokio::time::interval(Duration::from_secs(1));
            loop {
                timer.tick().await;
                let beat = HostMessage { message: Some(Say::Heartbeat(Heartbeat::default())) };
                if heart.send(beat).await.is_err() {
                    return;
                }
            }
        });
        let mut host = Self { sessions, say, messages, _heart: Arc::new(tasks) };
        let Hear::Welcome(welcome) = host.hear().await else { panic!("expected a welcome") };
        assert_eq!(welcome.ticket_key.len(), 32);
        Ok(host)
    }

    pub(crate) async fn say(&self, message: Say) {
        self.say.send(HostMessage { message: Some(message) }).await.unwrap();
    }

    /// The next message.
    pub(crate) async fn hear(&mut self) -> Hear {
        soon(self.messages.message()).await.unwrap().expect("the session ended").message.unwrap()
    }

    /// The next message other than an acknowledgement, which comes in its own time.
    pub(crate) async fn hear_command(&mut self) -> Hear {
        loop {
            match self.hear().await {
                Hear::AcknowledgedReport(_) => {}
                other => return other,
            }
        }
    }

    /// Whether the scheduler ended the session.
    pub(crate) async fn is_closed(&mut self) -> bool {
        loop {
            match soon(self.messages.message()).await {
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return true,
            }
        }
    }

    /// Fetches a module.
    pub(crate) async fn module(&mut self, id: &[u8], tenant: u32) -> Result<Vec<u8>, Status> {
        let request = partita_protocol::host::ModuleRequest { module: id.to_vec().into(), tenant };
        let mut chunks = self.sessions.module(request).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(chunk) = soon(chunks.message()).await? {
            bytes.extend_from_slice(&chunk.data);
        }
        Ok(bytes)
    }
}
