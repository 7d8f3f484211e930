//! `partita dev`: a whole cluster on this machine, with everything that a real one has: TLS, tokens, confined executors.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use futures_util::future::select_all;
use partita_policy::PolicySet;
use partita_types::{ByteSize, HostName};
use serde::Deserialize;
use serde_json::json;

use crate::app::App;
use crate::cluster::child::Child;
use crate::cluster::credentials::Credentials;
use crate::cluster::demo_policy::{self, DatasetArgument};
use crate::cluster::layout::Layout;
use crate::cluster::machine::{Share, share};
use crate::config::running_cluster;
use crate::files::{Readers, private_directory, replace};
use crate::outcome::{Outcome, usage};
use crate::process::stop_requested;

const EXAMPLES: &str = "\
Examples:
  partita dev                                        one directory below ~/.local/state/partita
  partita dev --hosts 2 --data ./cluster
  partita dev --dataset crates=$HOME/.cargo/registry/src:*.rs
  partita dev --policies ./policies --listen 127.0.0.1:7600

While it runs, `partita` uses it by default; the contexts are in DATA/config.toml. Started again with the same
directory, the cluster goes on where it was. Ctrl-C stops everything.";

/// Run a whole cluster on this machine: scheduler, hosts, authority, tokens for two teams.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// How many hosts.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    hosts: u32,
    /// Where everything is kept [default: ~/.local/state/partita/dev].
    #[arg(long, value_name = "DIRECTORY")]
    data: Option<PathBuf>,
    /// The directory of the policy files [default: two tenants, analytics and research, written to DATA/policies].
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "datasets")]
    policies: Option<PathBuf>,
    /// Data for tenant analytics. May be repeated.
    #[arg(long = "dataset", value_name = "NAME=PATH[:*.EXT]")]
    datasets: Vec<DatasetArgument>,
    /// Where clients connect; port 0 takes any free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where metrics are served.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    metrics: SocketAddr,
    /// Tasks at once on each host [default: the machine's cores, shared equally].
    #[arg(long)]
    cores: Option<u32>,
    /// Memory for tasks on each host [default: half of the machine's, shared equally].
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// Memory for partitions on each host [default: a quarter of the machine's, shared equally].
    #[arg(long, value_name = "SIZE")]
    partitions: Option<ByteSize>,
    /// What the processes log into DATA/logs [default: $PARTITA_LOG, or info].
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

/// What a scheduler says when it is ready.
#[derive(Debug, Deserialize)]
struct SchedulerReady {
    address: SocketAddr,
    metrics: SocketAddr,
}

/// What a host says when it is ready.
#[derive(Debug, Deserialize)]
struct HostReady {
    address: SocketAddr,
}

/// Runs the cluster until it is asked to stop, or until one of its processes ends.
pub(crate) async fn run(app: &App, arguments: Arguments) -> anyhow::Result<Outcome> {
    let data = match (&arguments.data, app.environment.state()) {
        (Some(data), _) => data.clone(),
        (None, Some(state)) => state.join("dev"),
        (None, None) => return Err(usage("there is no home directory: say with --data where to keep the cluster")),
    };
    let layout = Layout::open(&data)?;
    let policies = match &arguments.policies {
        Some(policies) => policies.clone(),
        None => {
            demo_policy::write(&layout.policies(), &arguments.datasets)?;
            layout.policies()
        }
    };
    // Faults of a policy are told here, in full, and not in the log of a process that does not start.
    let policy_set = PolicySet::load(&policies)?;
    let mut cluster = Cluster { layout, children: Vec::new() };
    let work = async {
        tokio::select! {
            outcome = cluster.run(app, &arguments, &policies, &policy_set) => outcome,
            stopped = stop_requested() => stopped.map(|()| Outcome::Done),
        }
    };
    let outcome = work.await;
    if let Some(pointer) = running_cluster(&app.environment) {
        withdraw(&pointer, &cluster.layout);
    }
    // Who asks again does not want to wait: what is left is killed when it is dropped.
    tokio::select! {
        () = cluster.stop() => {}
        _ = stop_requested() => {}
    }
    outcome
}

/// The processes, the scheduler first.
struct Cluster {
    layout: Layout,
    children: Vec<Child>,
}

impl Cluster {
    /// Starts everything and waits for something to end.
    async fn run(
        &mut self,
        app: &App,
        arguments: &Arguments,
        policies: &Path,
        policy_set: &PolicySet,
    ) -> anyhow::Result<Outcome> {
        let ready = self.start_scheduler(app, arguments, policies).await?;
        let credentials = Credentials::load(&self.layout, policy_set)?;
        credentials.write_tokens(&self.layout)?;
        credentials.write_config(&self.layout, &ready.address.to_string())?;
        let hosts = self.start_hosts(app, arguments, &credentials, ready.address).await?;
        if let Err(error) = announce(app, &self.layout) {
            app.output.note(&format!("other terminals have to name the configuration with --config: {error:#}"));
        }
        self.tell(app, &credentials, &ready, &hosts)?;
        let mut renewal = tokio::time::interval(credentials.renewal());
        loop {
            let ends = self.children.iter_mut().map(|child| Box::pin(child.failed()));
            tokio::select! {
                (fault, ..) = select_all(ends) => return Err(fault),
                _ = renewal.tick() => credentials.write_tokens(&self.layout)?,
            }
        }
    }

    async fn start_scheduler(
        &mut self,
        app: &App,
        arguments: &Arguments,
        policies: &Path,
    ) -> anyhow::Result<SchedulerReady> {
        let mut command: Vec<OsString> = vec!["scheduler".into()];
        option(&mut command, "--cluster", "dev");
        option(&mut command, "--listen", arguments.listen.to_string());
        option(&mut command, "--metrics", arguments.metrics.to_string());
        option(&mut command, "--data", self.layout.scheduler());
        option(&mut command, "--policies", policies);
        log_option(&mut command, app, arguments);
        self.start("scheduler", &command)?.ready().await
    }

    async fn start_hosts(
        &mut self,
        app: &App,
        arguments: &Arguments,
        credentials: &Credentials,
        scheduler: SocketAddr,
    ) -> anyhow::Result<Vec<(String, SocketAddr)>> {
        let share = share(arguments.hosts);
        let share = Share {
            cores: arguments.cores.unwrap_or(share.cores),
            memory: arguments.memory.unwrap_or(share.memory),
            partitions: arguments.partitions.unwrap_or(share.partitions),
        };
        let names = (1..=arguments.hosts).map(|number| format!("host-{number}"));
        for name in names.clone() {
            let join = credentials.write_join_token(&self.layout, &HostName::new(&name)?)?;
            let mut command: Vec<OsString> = vec!["host".into()];
            option(&mut command, "--name", &name);
            option(&mut command, "--scheduler", scheduler.to_string());
            option(&mut command, "--authority", self.layout.authority());
            option(&mut command, "--data", self.layout.host(&name));
            option(&mut command, "--join-token-file", join);
            option(&mut command, "--cores", share.cores.to_string());
            option(&mut command, "--memory", share.memory.0.to_string());
            option(&mut command, "--partitions", share.partitions.0.to_string());
            log_option(&mut command, app, arguments);
            self.start(&name, &command)?;
        }
        let mut hosts = Vec::new();
        for (child, name) in self.children.iter_mut().skip(1).zip(names) {
            hosts.push((name, child.ready::<HostReady>().await?.address));
        }
        Ok(hosts)
    }

    fn start(&mut self, name: &str, arguments: &[OsString]) -> anyhow::Result<&mut Child> {
        let log = self.layout.logs().join(format!("{name}.log"));
        self.children.push(Child::start(name, arguments, log)?);
        self.children.last_mut().context("a child that was started is there")
    }

    /// The one line that says that the cluster can be used.
    fn tell(
        &self,
        app: &App,
        credentials: &Credentials,
        ready: &SchedulerReady,
        hosts: &[(String, SocketAddr)],
    ) -> anyhow::Result<()> {
        let config = self.layout.config();
        if app.output.json {
            let hosts: Vec<_> =
                hosts.iter().map(|(name, address)| json!({ "name": name, "address": address })).collect();
            let processes: serde_json::Map<_, _> =
                self.children.iter().map(|child| (child.name().to_owned(), json!(child.id()))).collect();
            return Ok(app.output.json_line(&json!({
                "ready": true,
                "address": ready.address,
                "metrics": ready.metrics,
                "config": config,
                "contexts": credentials.contexts(),
                "hosts": hosts,
                "processes": processes,
                "data": self.layout.root(),
                "logs": self.layout.logs(),
            }))?);
        }
        app.output.line(&format!("ready: cluster at {} with {} hosts", ready.address, hosts.len()))?;
        app.output.note(&format!("  contexts  {} in {}", credentials.contexts().join(", "), config.display()));
        app.output.note(&format!("  metrics   http://{}/metrics", ready.metrics));
        app.output.note(&format!("  logs      {}", self.layout.logs().display()));
        app.output.note("  Ctrl-C stops it; `partita host list` in another terminal uses it");
        Ok(())
    }

    /// Hosts first, all at once, so that they can say goodbye to the scheduler.
    async fn stop(&mut self) {
        let hosts = self.children.iter_mut().skip(1).map(Child::stop);
        futures_util::future::join_all(hosts).await;
        if let Some(scheduler) = self.children.first_mut() {
            scheduler.stop().await;
        }
    }
}

fn option(command: &mut Vec<OsString>, name: &str, value: impl AsRef<std::ffi::OsStr>) {
    command.push(name.into());
    command.push(value.as_ref().to_owned());
}

fn log_option(command: &mut Vec<OsString>, app: &App, arguments: &Arguments) {
    if let Some(filter) = arguments.log.as_deref().or(app.environment.log.as_deref()) {
        option(command, "--log", filter);
    }
}

/// Lets other invocations find this cluster. Without a home directory they need `--config`.
fn announce(app: &App, layout: &Layout) -> anyhow::Result<()> {
    let Some(pointer) = running_cluster(&app.environment) else { return Ok(()) };
    if let Some(directory) = pointer.parent() {
        private_directory(directory)?;
    }
    replace(&pointer, &format!("{}\n", layout.config().display()), Readers::Owner)
}

/// Takes that back, unless another cluster was started meanwhile.
fn withdraw(pointer: &Path, layout: &Layout) {
    let own = std::fs::read_to_string(pointer).is_ok_and(|text| Path::new(text.trim_end()) == layout.config());
    if own {
        // What is left over points to a configuration whose cluster does not answer, which says enough.
        let _ = std::fs::remove_file(pointer);
    }
}
