//! Measures Partita: `cargo xtask bench` builds this in release mode and runs it.
//!
//! Every figure is the median of several runs. What goes through the whole path is measured on a cluster of its own with
//! two hosts, started and stopped here; its state is in a temporary directory. Nothing here decides whether a figure is
//! good enough.

mod cluster;
mod figures;
mod journal;
mod sandbox;
mod state;
mod tasks;
mod tenants;
mod transfer;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;

use self::cluster::Cluster;
use self::figures::{Figure, Figures};

/// Measures Partita.
#[derive(Parser)]
struct Arguments {
    /// The program `partita`.
    #[arg(long, value_name = "FILE")]
    partita: PathBuf,
    /// The guest of the measurements.
    #[arg(long, value_name = "FILE")]
    guest: PathBuf,
    /// How often to measure each figure.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Only this group of figures.
    #[arg(long, value_name = "GROUP")]
    only: Option<Group>,
    /// Print one line of JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Figures that are measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Group {
    /// Throughput and latency of tasks that do nothing.
    Tasks,
    /// One instance in an executor.
    Sandbox,
    /// Partitions between hosts.
    Transfer,
    /// Memory of the scheduler, and its journal.
    State,
    /// What one job or tenant notices of another.
    Tenants,
}

fn main() -> anyhow::Result<()> {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == state::COMMAND) {
        return state::run();
    }
    let arguments = Arguments::parse();
    let figures = measure(&arguments)?;
    if arguments.json {
        println!("{}", serde_json::json!({ "figures": figures }));
    } else {
        print(&figures);
    }
    Ok(())
}

fn measure(arguments: &Arguments) -> anyhow::Result<Vec<Figure>> {
    let wanted = |group| arguments.only.is_none_or(|only| only == group);
    let mut figures = Figures::default();
    if wanted(Group::State) {
        eprintln!("measuring the memory of pending tasks");
        state::measure(&mut figures, arguments.runs)?;
        eprintln!("measuring the journal");
        journal::measure(&mut figures, arguments.runs)?;
    }
    if wanted(Group::Sandbox) {
        eprintln!("measuring one instance");
        sandbox::measure(&mut figures, arguments.runs, &arguments.partita, &arguments.guest)?;
    }
    if [Group::Tasks, Group::Transfer, Group::Tenants].into_iter().any(wanted) {
        let runtime = tokio::runtime::Runtime::new().context("cannot start a runtime")?;
        runtime.block_on(on_a_cluster(arguments, &mut figures))?;
    }
    Ok(figures.finish())
}

async fn on_a_cluster(arguments: &Arguments, figures: &mut Figures) -> anyhow::Result<()> {
    let wanted = |group| arguments.only.is_none_or(|only| only == group);
    let cluster = Cluster::start(&arguments.partita)?;
    let client = cluster.client()?;
    let component = std::fs::read(&arguments.guest);
    let component = component.with_context(|| format!("cannot read {}", arguments.guest.display()))?;
    let module = client.push_module("bench", component).await.context("cannot push the guest")?;
    if wanted(Group::Tasks) {
        eprintln!("measuring tasks that do nothing");
        tasks::measure(figures, arguments.runs, &client, &module).await?;
    }
    if wanted(Group::Transfer) {
        eprintln!("measuring transfers between hosts");
        transfer::measure(figures, arguments.runs, &client, &module).await?;
    }
    if wanted(Group::Tenants) {
        eprintln!("measuring how soon tasks stop");
        tenants::measure(figures, arguments.runs, &client, &module).await?;
    }
    cluster.stop()
}

fn print(figures: &[Figure]) {
    println!("{:<32} {:>14} {:>14} {:>14}  unit", "figure", "median", "min", "max");
    for Figure { name, value, unit, min, max, .. } in figures {
        println!("{name:<32} {value:>14.2} {min:>14.2} {max:>14.2}  {unit}");
    }
}
