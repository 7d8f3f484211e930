//! `partita scheduler`: the scheduler process.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use partita_scheduler::{DISK_RESERVE, SchedulerConfig};
use partita_types::ByteSize;
use serde_json::json;

use crate::app::App;
use crate::outcome::Outcome;
use crate::process::{die_with, log, stop_requested};

const EXAMPLES: &str = "\
Examples:
  partita scheduler --data /var/lib/partita --policies /etc/partita/policies --name scheduler.example
  partita token issue --data /var/lib/partita --tenant analytics --subject ann --role admin

The first start makes the cluster's authority (DATA/authority/ca.pem) and its token keys.";

/// Run the scheduler of a cluster.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Where it keeps authority, token keys, journal and modules.
    #[arg(long, value_name = "DIRECTORY")]
    data: PathBuf,
    /// The directory of the policy files.
    #[arg(long, value_name = "DIRECTORY")]
    policies: PathBuf,
    /// The name of the cluster. Cannot be changed later.
    #[arg(long, default_value = "partita")]
    cluster: String,
    /// Where clients and hosts connect; port 0 takes any free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7600")]
    listen: SocketAddr,
    /// Where metrics and health are served, without TLS.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7610")]
    metrics: SocketAddr,
    /// A name or address under which clients reach it, for its certificate. May be repeated.
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Room on the disk of the data directory that new jobs and modules do not get, so that accepted work can end.
    #[arg(long, value_name = "SIZE", default_value_t = DISK_RESERVE)]
    disk_reserve: ByteSize,
    /// A file that names other issuers of tokens that are believed, such as the company's identity provider.
    #[arg(long, value_name = "FILE")]
    issuers: Option<PathBuf>,
    /// What to log to standard error [default: $PARTITA_LOG, or info].
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// End when this process, the parent, ends.
    #[arg(long, value_name = "PID", hide = true)]
    die_with: Option<i32>,
}

/// Runs the scheduler until it is asked to stop.
pub(crate) async fn run(app: &App, arguments: Arguments) -> anyhow::Result<Outcome> {
    if let Some(parent) = arguments.die_with {
        die_with(parent)?;
    }
    log(arguments.log.as_deref(), &app.environment, app.output.json)?;
    let config = SchedulerConfig {
        cluster: arguments.cluster,
        listen: arguments.listen,
        metrics: arguments.metrics,
        data: arguments.data,
        policies: arguments.policies,
        names: arguments.names,
        disk_reserve: arguments.disk_reserve,
        issuers: arguments.issuers,
    };
    let mut running = partita_scheduler::start(config).await.context("cannot start the scheduler")?;
    let (address, metrics) = (running.address(), running.metrics());
    if app.output.json {
        app.output.json_line(&json!({ "ready": true, "address": address, "metrics": metrics }))?;
    } else {
        app.output.line(&format!("ready: scheduler at {address}, metrics at http://{metrics}/metrics"))?;
    }
    tokio::select! {
        fault = running.failed() => {
            // Whoever waits for an answer is told why there is none.
            running.stop().await;
            Err(anyhow::Error::from(fault).context("the scheduler stopped"))
        }
        stopped = stop_requested() => {
            stopped?;
            running.stop().await;
            Ok(Outcome::Done)
        }
    }
}
