//! `partita host drain`, `undrain` and `show`: empty a host so that it can be stopped without loss.

use std::time::Duration;

use clap::Args;
use partita_client::{Client, HostArray, HostDetail, HostDrain};
use partita_types::{ByteSize, HostName, format_duration, parse_duration};
use serde_json::json;

use crate::app::App;
use crate::outcome::Outcome;
use crate::output::{Align, Output, Table};

/// How often is asked how far it is.
const LOOK: Duration = Duration::from_millis(250);

const DRAIN_EXAMPLES: &str = "\
Examples:
  partita host drain host-2
  partita host drain host-2 --timeout 30m && systemctl --host host-2 stop partita-host
  partita --json host drain host-2 --timeout 0s

The host gets no more work. What waits there goes to others, what runs may end, and partitions that only it has move to
other hosts. If all of that is done in time the command succeeds, and the host can be stopped without loss. If not it
fails and lists what is left; the host stays as it is and goes on, until `partita host undrain` takes it back.";

/// Which host to empty.
#[derive(Debug, Args)]
#[command(after_help = DRAIN_EXAMPLES)]
pub(crate) struct Drain {
    /// The host.
    name: HostName,
    /// For how long to wait until it is empty.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "5m")]
    timeout: Duration,
}

/// Which host.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// The host.
    name: HostName,
}

/// Empties a host, and waits for it.
pub(crate) async fn drain(app: &App, arguments: &Drain) -> anyhow::Result<Outcome> {
    let client = app.client()?;
    let name = arguments.name.as_str();
    client.drain_host(name).await?;
    let last = tokio::time::timeout(arguments.timeout, wait(&client, &app.output, name)).await;
    let detail = match last {
        Ok(detail) => detail?,
        Err(_) => client.host(name).await?,
    };
    let done = detail.host.drain.as_ref().is_some_and(|drain| drain.done);
    if app.output.json {
        app.output.json_line(&json!({ "drained": done, "host": detail }))?;
    } else if done {
        app.output.line(&format!("host {name} is drained: it can be stopped, and nothing is lost with it"))?;
    } else {
        tell_rest(&app.output, &detail, arguments.timeout)?;
    }
    Ok(if done { Outcome::Done } else { Outcome::Failed })
}

/// Shows progress until the host is empty, or is not drained any more.
async fn wait(client: &Client, output: &Output, name: &str) -> Result<HostDetail, partita_client::Error> {
    let mut shown = None;
    loop {
        let detail = client.host(name).await?;
        let Some(drain) = detail.host.drain.clone() else { return Ok(detail) };
        if drain.done {
            return Ok(detail);
        }
        if shown.as_ref() != Some(&drain) {
            output.note(&progress(name, &drain));
            shown = Some(drain);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn progress(name: &str, drain: &HostDrain) -> String {
    let HostDrain { tasks, partitions, bytes, stuck, .. } = drain;
    let why = stuck.as_ref().map_or_else(String::new, |why| format!("; nothing moves: {why}"));
    format!("host {name}: {tasks} tasks and {partitions} partitions, {bytes}, are left{why}")
}

/// What could not move in time.
fn tell_rest(output: &Output, detail: &HostDetail, timeout: Duration) -> anyhow::Result<()> {
    let name = &detail.host.name;
    match &detail.host.drain {
        Some(drain) => {
            output.line(&format!("host {name} is not drained after {}", format_duration(timeout)))?;
            output.line(&progress(name, drain))?;
        }
        None => output.line(&format!("host {name} is not being drained any more"))?,
    }
    if !detail.arrays.is_empty() {
        output.table(&table(&detail.arrays))?;
    }
    Ok(())
}

fn table(arrays: &[HostArray]) -> Table {
    let mut table = Table::new(&[
        ("TENANT", Align::Left),
        ("JOB", Align::Right),
        ("ARRAY", Align::Left),
        ("TASKS", Align::Right),
        ("STORED", Align::Right),
    ]);
    for HostArray { tenant, job, array, tasks, bytes } in arrays {
        table.row([tenant.clone(), job.to_string(), array.clone(), tasks.to_string(), bytes.to_string()]);
    }
    table
}

/// Lets a host take part again.
pub(crate) async fn undrain(app: &App, Named { name }: &Named) -> anyhow::Result<Outcome> {
    app.client()?.undrain_host(name.as_str()).await?;
    if !app.output.json {
        app.output.line(&format!("host {name} takes part again"))?;
    }
    Ok(Outcome::Done)
}

/// Shows a host.
pub(crate) async fn show(app: &App, Named { name }: &Named) -> anyhow::Result<Outcome> {
    let detail = app.client()?.host(name.as_str()).await?;
    if app.output.json {
        app.output.json_line(&detail)?;
        return Ok(Outcome::Done);
    }
    let host = &detail.host;
    let mut pairs = Table::pairs();
    pairs.pair("host", &host.name);
    pairs.pair("state", super::state(host));
    pairs.pair("cores", host.cores);
    pairs.pair("tasks", host.assigned_tasks);
    pairs.pair("memory", host.memory);
    pairs.pair(
        "stored",
        format!("{} of {} in {} partitions", host.stored, host.partition_budget, host.stored_partitions),
    );
    pairs.pair("isolation", &host.isolation);
    if !host.features.is_empty() {
        pairs.pair("labels and resources", &host.features);
    }
    if let Some(drain) = host.drain.as_ref().filter(|drain| !drain.done) {
        pairs.pair("left", format!("{} tasks, {} partitions, {}", drain.tasks, drain.partitions, drain.bytes));
        if let Some(why) = &drain.stuck {
            pairs.pair("nothing moves", why);
        }
    }
    app.output.table(&pairs)?;
    if !detail.arrays.is_empty() {
        let bytes = detail.arrays.iter().fold(ByteSize::ZERO, |sum, array| sum.saturating_add(array.bytes));
        app.output.line(&format!("only here, {bytes}:"))?;
        app.output.table(&table(&detail.arrays))?;
    }
    Ok(Outcome::Done)
}
