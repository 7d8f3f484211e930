//! `partita host`: the process of one host; and commands about the hosts of a cluster.

mod doctor;
mod drain;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use futures_util::FutureExt;
use partita_client::{HostStatus, Token};
use partita_host::HostConfig;
use partita_sandbox::Program;
use partita_types::{ByteSize, FeatureError, HostName, Label, Resource, parse_duration};
use serde_json::json;

use crate::app::App;
use crate::outcome::{Outcome, usage};
use crate::output::{Align, Table};
use crate::process::{die_with, log, stop_requested};

const EXAMPLES: &str = "\
Examples:
  partita host list
  partita host drain host-2
  partita host doctor
  partita token issue --join host-1 > join.token
  partita host --name host-1 --scheduler scheduler:7600 --authority ca.pem --data /var/lib/partita \\
               --join-token-file join.token --listen 10.0.0.5:7601";

/// Run a host: offer cores and memory of this machine to the cluster. Or list the hosts, empty one, or look at a machine.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<HostCommand>,
    #[command(flatten)]
    process: Option<Process>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// List the hosts of the cluster.
    #[command(after_help = "Example:\n  partita host list")]
    List,
    /// Show a host, and what only it has.
    #[command(after_help = "Example:\n  partita host show host-2")]
    Show(drain::Named),
    /// Empty a host, so that it can be stopped without loss.
    Drain(drain::Drain),
    /// Look whether this machine can be a host, and how well it would keep tenants apart.
    Doctor(doctor::Doctor),
    /// Let a host take part again that was drained.
    #[command(after_help = "Example:\n  partita host undrain host-2")]
    Undrain(drain::Named),
}

/// What a command line about hosts asks for.
pub(crate) enum Wanted {
    /// Be a host.
    Process(Box<Process>),
    /// Ask the cluster.
    Command(HostCommand),
}

/// A host process.
#[derive(Debug, Args)]
pub(crate) struct Process {
    /// The name of the host in the cluster.
    #[arg(long, required = true)]
    name: HostName,
    /// The scheduler, as NAME:PORT.
    #[arg(long, required = true, value_name = "ADDRESS")]
    scheduler: String,
    /// The certificate of the cluster's authority, a PEM file.
    #[arg(long, required = true, value_name = "FILE")]
    authority: PathBuf,
    /// Where the host keeps its key and its compiled modules.
    #[arg(long, required = true, value_name = "DIRECTORY")]
    data: PathBuf,
    /// A join token; needed at the first start only.
    #[arg(long, value_name = "FILE")]
    join_token_file: Option<PathBuf>,
    /// Where to listen for other hosts; port 0 takes any free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Under which address other hosts reach this one, if not under the one it listens on.
    #[arg(long, value_name = "ADDRESS")]
    advertise: Option<String>,
    /// How many tasks may run at once [default: as many as the machine has cores].
    #[arg(long)]
    cores: Option<u32>,
    /// Memory for running tasks [default: half of the machine's].
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// Memory for stored partitions [default: a quarter of the machine's].
    #[arg(long, value_name = "SIZE")]
    partitions: Option<ByteSize>,
    /// For how long to go on with what was given out while the scheduler is away [default: 10 min].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    away: Option<Duration>,
    /// Says something about this host, for tasks that ask for it, as NAME=VALUE. May be given several times.
    #[arg(long = "label", value_name = "NAME=VALUE")]
    labels: Vec<Label>,
    /// Something countable that this host has, for tasks that ask for it, as NAME=AMOUNT. May be given several times.
    #[arg(long = "resource", value_name = "NAME=AMOUNT")]
    resources: Vec<Resource>,
    /// What to log to standard error [default: $PARTITA_LOG, or info].
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// End when this process, the parent, ends.
    #[arg(long, value_name = "PID", hide = true)]
    die_with: Option<i32>,
}

impl Arguments {
    /// The process to run, or what to ask the cluster.
    pub(crate) fn wanted(self) -> anyhow::Result<Wanted> {
        match (self.command, self.process) {
            (Some(command), _) => Ok(Wanted::Command(command)),
            (None, Some(process)) => Ok(Wanted::Process(Box::new(process))),
            (None, None) => Err(usage("say `partita host list`, or give the options of a host: see --help")),
        }
    }
}

/// Runs the host until it is asked to stop.
pub(crate) async fn run(app: &App, process: Process) -> anyhow::Result<Outcome> {
    if let Some(parent) = process.die_with {
        die_with(parent)?;
    }
    log(process.log.as_deref(), &app.environment, app.output.json)?;
    let name = process.name.clone();
    let mut running =
        partita_host::start(config(process)?).await.with_context(|| format!("cannot start host {name}"))?;
    let stop = stop_requested();
    tokio::pin!(stop);
    tokio::select! {
        attached = attach(&mut running) => attached.with_context(|| format!("host {name} stopped"))?,
        stopped = &mut stop => {
            stopped?;
            running.stop().await;
            return Ok(Outcome::Done);
        }
    }
    if app.output.json {
        app.output.json_line(&json!({ "ready": true, "name": name, "address": running.address() }))?;
    } else {
        app.output.line(&format!("ready: host {name} at {}", running.address()))?;
    }
    tokio::select! {
        fault = running.failed() => Err(anyhow::Error::from(fault).context(format!("host {name} stopped"))),
        stopped = &mut stop => {
            stopped?;
            running.stop().await;
            Ok(Outcome::Done)
        }
    }
}

/// Waits until the scheduler has welcomed the host, or the host cannot go on.
async fn attach(running: &mut partita_host::Running) -> Result<(), partita_host::HostError> {
    /// How late a fault may be noticed.
    const LOOK: Duration = Duration::from_millis(200);
    while tokio::time::timeout(LOOK, running.ready()).await.is_err() {
        if let Some(fault) = running.failed().now_or_never() {
            return Err(fault);
        }
    }
    Ok(())
}

fn config(process: Process) -> anyhow::Result<HostConfig> {
    let path = std::env::current_exe().context("cannot find the program itself, which helper processes run")?;
    let program = Program { path, args: vec!["internal".into()] };
    let join_token = process.join_token_file.map(|file| {
        let text = std::fs::read_to_string(&file);
        text.map(|text| Token::new(&text)).with_context(|| format!("cannot read the join token {}", file.display()))
    });
    let mut config = HostConfig::new(process.name, process.scheduler, process.authority, process.data, program);
    config.join_token = join_token.transpose()?;
    config.listen = process.listen;
    config.advertise = process.advertise;
    config.cores = process.cores.unwrap_or(config.cores);
    config.memory = process.memory.unwrap_or(config.memory);
    config.partitions = process.partitions.unwrap_or(config.partitions);
    config.away = process.away.unwrap_or(config.away);
    process.labels.into_iter().try_for_each(|label| config.features.add_label(label)).map_err(wrong)?;
    process.resources.into_iter().try_for_each(|resource| config.features.add_resource(resource)).map_err(wrong)?;
    Ok(config)
}

fn wrong(fault: FeatureError) -> anyhow::Error {
    usage(fault.to_string())
}

/// Asks the cluster about its hosts.
pub(crate) async fn ask(app: &App, command: HostCommand) -> anyhow::Result<Outcome> {
    match command {
        HostCommand::List => app.output.list(&app.client()?.hosts().await?, listing)?,
        HostCommand::Show(named) => return drain::show(app, &named).await,
        HostCommand::Drain(arguments) => return drain::drain(app, &arguments).await,
        HostCommand::Doctor(arguments) => return doctor::doctor(app, &arguments),
        HostCommand::Undrain(named) => return drain::undrain(app, &named).await,
    }
    Ok(Outcome::Done)
}

/// The state of a host for people: while it is attached, how far it is with being emptied.
fn state(host: &HostStatus) -> String {
    match &host.drain {
        None => host.state.clone(),
        Some(drain) => {
            let how = if drain.done { "drained" } else { "draining" };
            if host.state == "attached" { how.to_owned() } else { format!("{}, {how}", host.state) }
        }
    }
}

fn listing(hosts: &[HostStatus]) -> Table {
    let mut table = Table::new(&[
        ("HOST", Align::Left),
        ("STATE", Align::Left),
        ("CORES", Align::Right),
        ("TASKS", Align::Right),
        ("MEMORY", Align::Right),
        ("STORED", Align::Right),
        ("OF", Align::Right),
        ("PARTITIONS", Align::Right),
        ("ISOLATION", Align::Left),
        ("ADDRESS", Align::Left),
        ("LABELS AND RESOURCES", Align::Left),
    ]);
    for host in hosts {
        table.row([
            host.name.clone(),
            state(host),
            host.cores.to_string(),
            host.assigned_tasks.to_string(),
            host.memory.to_string(),
            host.stored.to_string(),
            host.partition_budget.to_string(),
            host.stored_partitions.to_string(),
            host.isolation.clone(),
            if host.address.is_empty() { "-".to_owned() } else { host.address.clone() },
            if host.features.is_empty() { "-".to_owned() } else { host.features.to_string() },
        ]);
    }
    table
}
