//! From a configuration to a running scheduler, and back.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use partita_audit::AuditError;
use partita_core::{Action, Core, Event};
use partita_identity::serve::{BindError, ConnectionLimits, bind, incoming, server};
use partita_identity::tls::{LiveIdentity, TlsError, live_server_config};
use partita_identity::token::{Signer, SignerError};
use partita_identity::{Authority, AuthorityError};
use partita_policy::PolicyErrors;
use partita_store::{DiskJournal, Journal, JournalError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::audit::{AuditThread, Auditor};
use crate::auth::{Gate, GateLayer};
use crate::cluster::ClusterService;
use crate::config::{ConfigError, Paths, SchedulerConfig};
use crate::driver::{self, Effects, Failed, Failure, Handle, Threads};
use crate::enrollment::{Certifier, EnrollmentService, Redeemed};
use crate::http::Monitor;
use crate::hub::Hub;
use crate::issued::IssuedTokens;
use crate::issuers::{Issuers, IssuersError};
use crate::jobs::JobService;
use crate::keys::Keys;
use crate::lines::LinesError;
use crate::logs::LogDesk;
use crate::metrics::{Metrics, MetricsError};
use crate::module_files::ModuleFiles;
use crate::modules::ModuleService;
use crate::offline::Offline;
use crate::policies::Policies;
use crate::relay::Relays;
use crate::revocations::Revocations;
use crate::router::Router;
use crate::sessions::SessionService;
use crate::space::Space;

/// How long open calls may take to end when the scheduler stops.
const GRACE: Duration = Duration::from_secs(5);
/// How often the server's certificate is made anew; it lives much longer.
const RECERTIFY: Duration = Duration::from_secs(12 * 3_600);

/// Why a scheduler did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A policy is wrong.
    #[error("the policies cannot be used")]
    Policies(#[source] PolicyErrors),
    /// A file or directory of the data directory cannot be used.
    #[error("cannot {operation} {path}")]
    Data {
        /// What was tried.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The data directory belongs to another cluster.
    #[error("data directory {path} belongs to cluster {found:?}, not to {expected:?}")]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// The configured cluster.
        expected: String,
    },
    /// The authority cannot be made or read.
    #[error("cannot use the cluster's authority in {path}")]
    Authority {
        /// Its directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: AuthorityError,
    },
    /// The keys of tokens cannot be made or read.
    #[error("cannot use the token keys in {path}")]
    Tokens {
        /// Their directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: SignerError,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[source] TlsError),
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The audit log cannot be used.
    #[error("the audit log cannot be used; restore it, or put its directory away to begin a new one")]
    Audit(#[from] AuditError),
    /// Other issuers of tokens cannot be believed.
    #[error(transparent)]
    Issuers(#[from] IssuersError),
    /// The issued or the revoked tokens cannot be read.
    #[error(transparent)]
    Lines(#[from] LinesError),
    /// The metrics cannot be set up.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
}

/// A running scheduler. Dropping it without [`Running::stop`] ends it without order; nothing acknowledged is lost.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    metrics: SocketAddr,
    /// Ends listeners, sessions and calls.
    stop: CancellationToken,
    /// Ends the driver, afterwards.
    stop_driver: CancellationToken,
    tasks: TaskTracker,
    threads: Option<Threads>,
    /// Ends last, because the ends of all calls are noted.
    audit: Option<AuditThread>,
    failure: Failure,
}

impl Running {
    /// Where clients and hosts connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where metrics and health are served.
    #[must_use]
    pub fn metrics(&self) -> SocketAddr {
        self.metrics
    }

    /// Ends all calls and sessions, writes what is left to write, and closes the journal.
    pub async fn stop(mut self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(GRACE, self.tasks.wait()).await.is_err() {
            warn!("calls were still open when the scheduler stopped");
        }
        self.stop_driver.cancel();
        let (threads, audit) = (self.threads.take(), self.audit.take());
        // Flushing may take a moment, and must not hold up the runtime. Nobody writes to the data directory afterwards.
        let ended = tokio::task::spawn_blocking(move || {
            threads.into_iter().for_each(Threads::join);
            audit.into_iter().for_each(AuditThread::end);
        });
        let _ = ended.await;
        info!("scheduler stopped");
    }

    /// Waits until the scheduler cannot go on, and says why. It accepts nothing any more then.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn failed(&mut self) -> Failed {
        self.failure.wait().await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        self.stop_driver.cancel();
    }
}

/// What is read from the data directory, or made on the first start.
struct Identities {
    authority: Arc<Authority>,
    keys: Keys,
    server: LiveIdentity,
}

/// Starts a scheduler: keys, policies, journal, listeners.
///
/// # Errors
/// If the configuration or a policy is wrong, a file cannot be read or written, the journal is damaged or in use, or a
/// port is in use.
///
/// # Panics
/// Outside of a tokio runtime.
pub async fn start(config: SchedulerConfig) -> Result<Running, StartError> {
    config.check()?;
    let paths = config.paths();
    let policies = Policies::load(&config.policies).map_err(StartError::Policies)?;
    let issuers = Issuers::open(config.issuers.as_deref())?;
    // Before anything is written: a second scheduler by mistake ends here.
    let (listener, monitor) = (bind(config.listen)?, bind(config.metrics)?);
    let identities = identities(&config, &paths, issuers)?;
    let metrics = Metrics::new()?;
    let hub = Arc::new(Hub::default());
    let (core, journal) = replay(&config, &paths, &hub)?;
    let failure = Failure::new();
    let stop_driver = CancellationToken::new();
    let effects = Effects::new(Arc::clone(&hub), metrics.clone());
    let (handle, threads) =
        driver::start(core, Box::new(journal), effects, metrics.clone(), stop_driver.clone(), failure.clone())
            .map_err(data("start threads for", &paths.state))?;
    for policy in policies.tenants() {
        // It fails only together with the journal, which is reported as the failure.
        let _ = handle.event(Event::TenantDefined(policy.clone())).await;
    }
    let local = |listener: &tokio::net::TcpListener| listener.local_addr().map_err(data("listen for", &config.data));
    let mut running = Running {
        address: local(&listener)?,
        metrics: local(&monitor)?,
        stop: CancellationToken::new(),
        stop_driver,
        tasks: TaskTracker::new(),
        threads: Some(threads),
        audit: None,
        failure,
    };
    let parts = Parts { config: &config, paths: &paths, identities, metrics, hub, handle };
    running.serve(parts, policies, listener, monitor)?;
    info!(address = %running.address, metrics = %running.metrics, cluster = config.cluster, "scheduler ready");
    Ok(running)
}

/// What the services are made of.
struct Parts<'a> {
    config: &'a SchedulerConfig,
    paths: &'a Paths,
    identities: Identities,
    metrics: Metrics,
    hub: Arc<Hub>,
    handle: Handle,
}

impl Running {
    fn serve(
        &mut self,
        parts: Parts<'_>,
        policies: Policies,
        listener: tokio::net::TcpListener,
        monitor: tokio::net::TcpListener,
    ) -> Result<(), StartError> {
        let Parts { config, paths, identities, metrics, hub, handle } = parts;
        let files = ModuleFiles::open(&paths.modules).map_err(data("use", &paths.modules))?;
        let redeemed = Redeemed::open(&paths.joined, partita_identity::now()).map_err(data("use", &paths.joined))?;
        let (relays, logs) = (Relays::default(), LogDesk::default());
        let Identities { authority, keys, server: identity } = identities;
        let certifier = Certifier(Arc::clone(&authority));
        let tls = live_server_config(&identity, authority.certificate_pem()).map_err(StartError::Tls)?;
        let space = Space::new(&config.data, config.disk_reserve, metrics.clone());
        let jobs = JobService {
            handle: handle.clone(),
            hub,
            relays: relays.clone(),
            logs: logs.clone(),
            metrics: metrics.clone(),
            space: space.clone(),
            stop: self.stop.clone(),
        };
        let sessions = SessionService {
            handle: handle.clone(),
            relays,
            logs,
            files: files.clone(),
            certifier: certifier.clone(),
            metrics: metrics.clone(),
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
            serials: Arc::default(),
        };
        let now = partita_identity::now();
        let revocations = Revocations::open(&paths.revoked, now)?;
        let issued = IssuedTokens::open(&paths.issued, now)?;
        let enrollment = EnrollmentService::new(keys.clone(), certifier, redeemed, revocations.clone());
        let modules = ModuleService::new(handle.clone(), files, space.clone());
        let (auditor, audit) =
            Auditor::start(&paths.audit, policies.in_force(), self.failure.clone(), self.tasks.clone())?;
        self.audit = Some(audit);
        let cluster = ClusterService {
            handle: handle.clone(),
            keys: keys.clone(),
            auditor: auditor.clone(),
            revocations: revocations.clone(),
            issued,
        };
        let gate = GateLayer(Gate::new(
            keys.clone(),
            policies.in_force(),
            metrics.clone(),
            auditor.clone(),
            revocations.clone(),
        ));
        let router = Router::new(modules, jobs, cluster, enrollment, sessions);
        let connections = incoming(listener, tls, ConnectionLimits::default());
        let stop = self.stop.clone();
        let failure = self.failure.clone();
        self.tasks.spawn(async move {
            let served =
                server().layer(gate).serve_with_incoming_shutdown(router, connections, ended(stop, failure)).await;
            if let Err(error) = served {
                error!(error = %crate::chain(&error), "the listener ended");
            }
        });
        let monitor_stop = self.stop.clone();
        let answers = Monitor { handle: handle.clone(), metrics: metrics.clone() };
        self.tasks.spawn(answers.serve(monitor, monitor_stop));
        let names = config.certificate_names();
        self.spawn(recertify(authority, identity, names));
        self.spawn(revocations.follow());
        self.spawn(keys.issuers().follow(auditor.clone()));
        self.spawn(keys.follow());
        self.tasks.spawn(Offline::new(&config.data, auditor.clone()).follow(self.stop.clone()));
        self.spawn(space.follow());
        self.spawn(async move {
            // It ends with the driver.
            let _ = policies.follow(handle, metrics, auditor).await;
        });
        Ok(())
    }

    /// Runs something until the scheduler stops.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }
}

/// The scheduler stops, or cannot go on.
async fn ended(stop: CancellationToken, failure: Failure) {
    tokio::select! {
        () = stop.cancelled() => {}
        _ = failure.wait() => stop.cancel(),
    }
}

/// Makes the server's certificate anew long before it expires.
async fn recertify(authority: Arc<Authority>, identity: LiveIdentity, names: Vec<String>) {
    let mut timer = tokio::time::interval(RECERTIFY);
    // The first tick comes at once.
    timer.tick().await;
    loop {
        timer.tick().await;
        match authority.issue_server(&names) {
            Ok(fresh) => identity.replace(&fresh),
            Err(error) => error!(error = %crate::chain(&error), "cannot renew the server's certificate"),
        }
    }
}

fn data(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StartError {
    let path = path.to_owned();
    move |source| StartError::Data { operation, path, source }
}

/// Loads the authority and the token keys, and makes what is not there.
fn identities(config: &SchedulerConfig, paths: &Paths, issuers: Issuers) -> Result<Identities, StartError> {
    let authority_failed = |source| StartError::Authority { path: paths.authority.clone(), source };
    let tokens_failed = |source| StartError::Tokens { path: paths.tokens.clone(), source };
    std::fs::create_dir_all(&config.data).map_err(data("create", &config.data))?;
    let authority = if paths.authority.exists() {
        Authority::load(&paths.authority).map_err(authority_failed)?
    } else {
        let authority = Authority::create(&config.cluster).map_err(authority_failed)?;
        make_directory(&paths.authority, |directory| authority.save(directory).map_err(authority_failed))?;
        info!(cluster = config.cluster, "made the authority of a new cluster");
        authority
    };
    let signer = if paths.tokens.exists() {
        Signer::load(&paths.tokens).map_err(tokens_failed)?
    } else {
        let signer = Signer::create(&config.cluster).map_err(tokens_failed)?;
        make_directory(&paths.tokens, |directory| signer.save(directory).map_err(tokens_failed))?;
        signer
    };
    for found in [authority.cluster(), signer.cluster()] {
        if found != config.cluster {
            let (path, expected) = (config.data.clone(), config.cluster.clone());
            return Err(StartError::OtherCluster { path, found: found.to_owned(), expected });
        }
    }
    std::fs::write(&paths.public_certificate, authority.certificate_pem())
        .map_err(data("write", &paths.public_certificate))?;
    let server = authority.issue_server(&config.certificate_names()).map_err(authority_failed)?;
    Ok(Identities {
        authority: Arc::new(authority),
        keys: Keys::new(&paths.tokens, signer, issuers),
        server: LiveIdentity::new(&server),
    })
}

/// Makes a directory that has all its files or does not exist, whenever the process ends.
fn make_directory(path: &Path, fill: impl FnOnce(&Path) -> Result<(), StartError>) -> Result<(), StartError> {
    let unfinished = path.with_extension("unfinished");
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished).map_err(data("remove", &unfinished))?;
    }
    std::fs::create_dir(&unfinished).map_err(data("create", &unfinished))?;
    fill(&unfinished)?;
    std::fs::rename(&unfinished, path).map_err(data("create", path))
}

/// Opens the journal and replays it into a new core.
fn replay(config: &SchedulerConfig, paths: &Paths, hub: &Hub) -> Result<(Core, DiskJournal), StartError> {
    #[expect(clippy::disallowed_methods, reason = "says in the log how long the replay took")]
    let begin = Instant::now();
    let mut journal = DiskJournal::open(&paths.state, &config.cluster)?;
    let mut core = Core::new();
    let mut actions = Vec::new();
    let replayed = journal.replay(&mut |record| {
        core.restore(&record, &mut actions);
        for action in actions.drain(..) {
            match action {
                Action::Publish { job, event } => hub.publish(job, event),
                Action::Unpublish(job) => hub.forget(job),
                // A replay has nobody to answer and no host to tell.
                Action::Persist(_) | Action::Reply { .. } | Action::Command { .. } | Action::Disconnect { .. } => {}
            }
        }
    })?;
    hub.reveal();
    for repair in journal.repairs() {
        warn!(state = %paths.state.display(), "the journal was repaired: {repair}");
    }
    info!(
        records = replayed.records,
        batches = replayed.batches,
        bytes = replayed.bytes,
        milliseconds = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX),
        "journal replayed"
    );
    Ok((core, journal))
}
