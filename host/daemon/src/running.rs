//! Starting and stopping a host process.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use partita_identity::dial::DialError;
use partita_identity::serve::{self, BindError, ConnectionLimits};
use partita_identity::tls::{self, LiveIdentity, TlsError};
use partita_sandbox::{ArtefactCache, CompileLimits, Compiler};
use partita_types::{ByteSize, TenantId};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::config::{ConfigError, HostConfig};
use crate::enroll::{self, EnrollError, Enrolled};
use crate::error;
use crate::executors::Executors;
use crate::fetch::Fetcher;
use crate::host::{Host, Parts};
use crate::lanes;
use crate::metrics::{Counters, HostCounters};
use crate::modules::{Modules, blocking};
use crate::peer::PeerService;
use crate::session;
use crate::store::Store;
use crate::uplink::Uplink;

/// Descriptors that are not for partitions: connections, executors, modules, files being read.
const OTHER_FILES: u64 = 2048;
/// Longest wait for connections to end when the host stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a host did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No certificate.
    #[error(transparent)]
    Enroll(#[from] EnrollError),
    /// TLS.
    #[error("the host's certificate is not usable")]
    Tls(#[from] TlsError),
    /// The address of the scheduler.
    #[error("the scheduler's address is not usable")]
    Dial(#[from] DialError),
    /// The port.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The zygote.
    #[error("executors cannot be started on this machine")]
    Sandbox(#[from] partita_sandbox::StartError),
    /// A file in the data directory.
    #[error("cannot use {}", path.display())]
    Data {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Threads or descriptors.
    #[error("the system gives the host no {what}")]
    System {
        /// What is missing.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Why a running host cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The certificate ran out.
    #[error("the host lost its identity")]
    Identity(#[source] EnrollError),
    /// The listener.
    #[error("the host's partition service ended: {0}")]
    Service(String),
}

/// A host at work. Dropping it without [`stop`](Self::stop) leaves its threads to the end of the process.
pub struct Running {
    host: Arc<Host>,
    address: SocketAddr,
    attached: watch::Receiver<bool>,
    faults: mpsc::Receiver<HostError>,
    lanes: JoinHandle<()>,
}

/// Starts a host: gets its certificate, starts the sandbox, listens, and begins to attach. Returns before it is
/// attached; see [`Running::ready`].
///
/// # Errors
/// If anything that it needs is missing or wrong; each error names the setting or file.
pub async fn start(config: HostConfig) -> Result<Running, StartError> {
    config.check()?;
    let Enrolled { identity, authority } = enroll::enroll(&config).await?;
    let live = LiveIdentity::new(&identity);
    let (server_tls, client_tls) =
        (tls::live_server_config(&live, &authority)?, tls::live_client_config(&authority, &live)?);
    let listener = serve::bind(config.listen)?;
    let address =
        listener.local_addr().map_err(|source| StartError::System { what: "address to listen on", source })?;
    let counters = Arc::new(Counters::default());
    let uplink = Uplink::new(&config.scheduler, config.scheduler_name(), &client_tls)?;
    let cache = open_cache(&config.data)?;
    let compiler = Compiler::new(config.program.clone(), CompileLimits::default());
    let parts = Parts {
        address: config.advertise.clone().unwrap_or_else(|| address.to_string()),
        store: Store::new(config.partitions, raise_descriptors()?),
        executors: start_executors(&config, &counters).await?,
        modules: Modules::new(uplink.clone(), compiler, cache, Arc::clone(&counters)),
        fetcher: Fetcher::new(client_tls, ByteSize(config.partitions.0 / 8), Arc::clone(&counters)),
        uplink,
        counters,
        config,
    };
    let host = Host::new(parts);
    let lanes = lanes::start(&host).map_err(|source| StartError::System { what: "threads", source })?;
    let (fault_sender, faults) = mpsc::channel(4);
    let (attached_sender, attached) = watch::channel(false);
    spawn_service(&host, listener, server_tls, fault_sender.clone());
    spawn_renewal(&host, live, identity, fault_sender);
    host.tasks.spawn(session::keep(Arc::clone(&host), attached_sender));
    Ok(Running { host, address, attached, faults, lanes })
}

async fn start_executors(config: &HostConfig, counters: &Arc<Counters>) -> Result<Executors, StartError> {
    let (program, cores, counters) = (config.program.clone(), config.cores, Arc::clone(counters));
    let started = blocking(move || Executors::start(program, cores, counters)).await;
    let stopped = || StartError::System { what: "threads", source: io::Error::other("the runtime stops") };
    Ok(started.ok_or_else(stopped)??)
}

fn spawn_service(
    host: &Arc<Host>,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    faults: mpsc::Sender<HostError>,
) {
    let (service, stopping) = (PeerService::server(Arc::clone(host)), host.stopping.clone());
    let incoming = serve::incoming(listener, tls, ConnectionLimits::default());
    host.tasks.spawn(async move {
        let served = serve::server().serve_with_incoming_shutdown(service, incoming, stopping.cancelled()).await;
        if let Err(fault) = served {
            let _ = faults.send(HostError::Service(error::chain(&fault))).await;
        }
    });
}

fn spawn_renewal(
    host: &Arc<Host>,
    live: LiveIdentity,
    identity: partita_identity::Identity,
    faults: mpsc::Sender<HostError>,
) {
    let host_of_task = Arc::clone(host);
    host.tasks.spawn(async move {
        let stopping = host_of_task.stopping.clone();
        tokio::select! {
            fault = enroll::keep_renewed(host_of_task, live, identity) => {
                let _ = faults.send(HostError::Identity(fault)).await;
            }
            () = stopping.cancelled() => {}
        }
    });
}

/// Opens the cache of compiled modules under a key that only this data directory has.
fn open_cache(data: &Path) -> Result<ArtefactCache, StartError> {
    let path = data.join("artefacts.key");
    let failed = |path: PathBuf| move |source: io::Error| StartError::Data { path, source };
    let mut key = [0; 32];
    match fs::File::open(&path) {
        Ok(mut file) => file.read_exact(&mut key).map_err(failed(path))?,
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => {
            key = partita_identity::random();
            let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
            file.and_then(|mut file| file.write_all(&key)).map_err(failed(path))?;
        }
        Err(fault) => return Err(failed(path)(fault)),
    }
    let directory = data.join("artefacts");
    ArtefactCache::open(&directory, key).map_err(failed(directory))
}

/// Takes as many descriptors as the system allows; answers how many partitions may have one.
fn raise_descriptors() -> Result<usize, StartError> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised)
        .map_err(|fault| StartError::System { what: "descriptors", source: fault.into() })?;
    let files = limit.maximum.unwrap_or(1 << 20).saturating_sub(OTHER_FILES).max(256);
    Ok(usize::try_from(files).unwrap_or(usize::MAX))
}

impl Running {
    /// Where it listens for other hosts.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it counted so far.
    #[must_use]
    pub fn counters(&self) -> HostCounters {
        self.host.counters.read()
    }

    /// The bytes of partitions that it keeps for each tenant.
    #[must_use]
    pub fn stored(&self) -> BTreeMap<TenantId, ByteSize> {
        self.host.store.tenants().into_iter().map(|(tenant, stored)| (tenant, stored.bytes)).collect()
    }

    /// Waits until the scheduler has welcomed it.
    pub async fn ready(&mut self) {
        // The sender lives as long as the session is kept; if it is gone, the host stops and is not ready any more.
        if self.attached.wait_for(|attached| *attached).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until it cannot go on.
    pub async fn failed(&mut self) -> HostError {
        match self.faults.recv().await {
            Some(fault) => fault,
            None => std::future::pending().await,
        }
    }

    /// Kills what runs, ends connections and threads, and returns when they have ended.
    pub async fn stop(self) {
        let Self { host, lanes, .. } = self;
        host.stopping.cancel();
        host.engine.stop();
        host.collector.close();
        host.tasks.close();
        if tokio::time::timeout(STOP_TIMEOUT, host.tasks.wait()).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
        let executors = Arc::clone(&host);
        blocking(move || {
            if lanes.join().is_err() {
                tracing::error!("the thread that looks after leases panicked");
            }
            executors.executors.clear();
        })
        .await;
        tracing::info!(host = %host.config.name, counters = ?host.counters.read(), "stopped");
    }
}
