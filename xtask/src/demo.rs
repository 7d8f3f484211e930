//! `cargo xtask demo`: the whole path on real data. Team *analytics* asks which identifiers the crates on this machine
//! use most, while team *research* has a job of its own; then a native count checks every number.
//!
//! Everything is what a user would type: the programs are those of the tree, built in release mode, and they are called
//! with their public options. Nothing is left behind, neither processes nor files.
//!
//! With `--act restart` the scheduler is killed in the middle of the same question, and started again.

mod parts;
mod report;
mod restart;
mod words;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::Value;

pub(crate) use self::report::Summary;
use self::report::{print_figures, print_top};
use self::words::{Counted, Native};
use crate::children::{self, Collecting};
use crate::cluster::{Cluster, job_file, now};
use crate::workspace::Workspace;
use crate::{guests, setup};

/// Hosts of the cluster.
const HOSTS: u32 = 2;
/// The packages of the guests.
const GUESTS: [&str; 2] = ["partita-example-wordfreq", "partita-example-monte-carlo"];
/// The job of the second team: small, but long enough to run beside the other for a while.
const RESEARCH_TASKS: u64 = 40;
const RESEARCH_SAMPLES: u64 = 2_000_000;

/// Options of `cargo xtask demo`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What to show.
    #[arg(long, value_name = "ACT", default_value = "teams")]
    act: Act,
    /// Read only the first files, up to about this much, such as 64MiB.
    #[arg(long, value_name = "SIZE")]
    limit: Option<String>,
    /// End with one line of JSON.
    #[arg(long)]
    json: bool,
}

/// What there is to show.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Act {
    /// Two teams at once.
    Teams,
    /// One team; its scheduler is killed when half of the tasks have ended.
    Restart,
}

/// Builds, runs, checks, prints.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    children::watch_signals()?;
    let limit = arguments.limit.as_deref();
    let closing = match arguments.act {
        Act::Teams => measure(workspace, limit)?.to_json(),
        Act::Restart => {
            let programs = build(workspace)?;
            let restart = restart::run(workspace, &programs, &registry_sources()?, limit)?;
            restart.print();
            restart.to_json()
        }
    };
    if arguments.json {
        println!("{closing}");
    }
    Ok(())
}

/// Does everything but the line of JSON. Fails if a number differs.
pub(crate) fn measure(workspace: &Workspace, limit: Option<&str>) -> anyhow::Result<Summary> {
    let programs = build(workspace)?;
    let sources = registry_sources()?;
    step(&format!("Starting a cluster: {HOSTS} hosts, tenants analytics and research"));
    let scratch = tempfile::Builder::new().prefix("partita-demo-").tempdir();
    let scratch = scratch.context("cannot create a temporary directory")?;
    let (cluster, startup) = Cluster::start(&programs.partita, scratch.path(), &policy(&sources), HOSTS)?;
    println!("ready after {:.2} s, at {}", startup.as_secs_f64(), cluster.address());

    step("research estimates pi; analytics counts the identifiers in the crates on this machine");
    let research = start_research(workspace, &cluster, scratch.path())?;
    let (counted, seconds) = run_wordfreq(workspace, &cluster, scratch.path(), limit)?;
    finish_research(research, scratch.path())?;
    let (job, research) = (cluster.figures("analytics")?, cluster.figures("research")?);
    cluster.stop()?;

    step("Counting natively, on the same cores and without Partita");
    let native = Native::count(&programs.native, &sources, limit.map(words::bytes).transpose()?, counted.words.len())?;
    print_top(&counted);
    native.check(&counted, &job)?;
    println!("Verified: the native count comes to every number above: files, bytes, totals and the top 20.");
    let summary = Summary { hosts: HOSTS, seconds, startup, job, research, counted, native };
    print_figures(&summary);
    Ok(summary)
}

/// The programs that take part.
struct Programs {
    partita: PathBuf,
    native: PathBuf,
}

fn build(workspace: &Workspace) -> anyhow::Result<Programs> {
    step("Making the WebAssembly target available");
    setup::ensure(workspace)?;
    step("Building the guests, then the program in release mode");
    guests::build_some(workspace, &GUESTS)?;
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--release", "--package", "partita-cli", "--bin", "partita"]);
    cargo.args(["--package", "partita-bench", "--bin", "native-wordfreq"]);
    children::run(&mut cargo)?;
    let release = workspace.target.join("release");
    Ok(Programs { partita: release.join("partita"), native: release.join("native-wordfreq") })
}

/// Where cargo unpacks the crates that this tree and others are built from.
fn registry_sources() -> anyhow::Result<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    let sources = home.context("there is no home directory")?.join("registry/src");
    sources.canonicalize().with_context(|| format!("cargo keeps no sources in {}", sources.display()))
}

/// Starts the job of the second team, which runs beside the other.
fn start_research(workspace: &Workspace, cluster: &Cluster, scratch: &Path) -> anyhow::Result<Collecting> {
    let module = guests::directory(workspace).join("partita_example_monte_carlo.wasm");
    let text = format!(
        "name = \"monte-carlo\"\nmodules.pi = {{ path = {module:?} }}\n\
         [[array]]\nname = \"sample\"\nfunction = \"pi.sample\"\ntasks = {RESEARCH_TASKS}\n\
         args = {{ samples = {RESEARCH_SAMPLES} }}\n\
         [[array]]\nname = \"merge\"\nfunction = \"pi.merge\"\ninputs = [{{ fold = \"sample\", arity = {RESEARCH_TASKS} }}]\n"
    );
    let file = scratch.join("monte-carlo.toml");
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    let mut command = cluster.run("research", &file, "merge", &scratch.join("pi.json"));
    Collecting::start(command.stderr(std::process::Stdio::null()))
}

fn finish_research(job: Collecting, scratch: &Path) -> anyhow::Result<()> {
    job.finish().context("the job of team research failed")?;
    let estimate = words::last_json(&scratch.join("pi.json"))?;
    let number = |key: &str| estimate.get(key).and_then(serde_json::Value::as_f64).unwrap_or(f64::NAN);
    let samples = estimate.get("samples").and_then(serde_json::Value::as_u64);
    ensure!(samples == Some(RESEARCH_TASKS * RESEARCH_SAMPLES), "team research got {samples:?} samples");
    let (pi, error) = (number("pi"), number("error"));
    ensure!((pi - std::f64::consts::PI).abs() < 6.0 * error, "team research got {pi} ± {error} for pi");
    println!("research: pi is {pi:.5} ± {error:.5}, after {RESEARCH_TASKS} tasks");
    Ok(())
}

/// The main job, with a live progress bar. Returns its result, and the seconds it took as a whole: from the start of
/// `partita run` with a module that the cluster has not seen until the result was on disk.
fn run_wordfreq(
    workspace: &Workspace,
    cluster: &Cluster,
    scratch: &Path,
    limit: Option<&str>,
) -> anyhow::Result<(Counted, f64)> {
    let file = job_file(workspace, "wordfreq", scratch)?;
    let result = scratch.join("top.json");
    let mut command = cluster.run("analytics", &file, "top", &result);
    if let Some(limit) = limit {
        command.args(["--limit", limit]);
    }
    let begin = now();
    children::output(&mut command).context("the job of team analytics failed")?;
    let seconds = begin.elapsed().as_secs_f64();
    Ok((Counted::read(&result)?, seconds))
}

pub(crate) fn step(text: &str) {
    println!("\n== {text}");
}

/// Two tenants; the first may read the sources.
fn policy(sources: &Path) -> String {
    // A string of JSON is one of TOML as well.
    let location = Value::from(sources.display().to_string());
    format!(
        "[tenant.analytics]\nweight = 2\n\n\
         [[tenant.analytics.dataset]]\nname = \"crates\"\nlocation = {location}\ninclude = [\"*.rs\"]\n\n\
         [tenant.research]\nweight = 1\n"
    )
}
