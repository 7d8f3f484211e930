//! `cargo xtask sim`: builds the simulation of clusters and runs it over many seeds, or over a saved plan.

use std::process::{Command, Stdio};

use crate::children;
use crate::workspace::Workspace;

/// Options of `cargo xtask sim`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// Stop after so many minutes.
    #[arg(long)]
    minutes: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Run a saved plan instead, and show what happens.
    #[arg(long, value_name = "FILE")]
    replay: Option<String>,
    /// Put a fault in on purpose; the command succeeds if it is found.
    #[arg(long, value_name = "NAME")]
    plant: Option<String>,
    /// Print one line of JSON at the end.
    #[arg(long)]
    json: bool,
}

/// Builds and runs. A seed that fails leaves the smallest plan that fails in `sim/` of the target directory.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    children::watch_signals()?;
    let mut build = workspace.cargo();
    build.args(["build", "--quiet", "--package", "partita-sim"]);
    children::run(build.stdin(Stdio::null()))?;
    let mut sim = Command::new(workspace.target.join("debug").join("partita-sim"));
    sim.args(["--seeds", &arguments.seeds.to_string(), "--seed", &arguments.seed.to_string()]);
    sim.args(["--commit", &commit(workspace)]).arg("--save").arg(workspace.target.join("sim"));
    sim.args(arguments.minutes.iter().flat_map(|minutes| ["--minutes".to_owned(), minutes.to_string()]));
    sim.args(arguments.replay.iter().flat_map(|file| ["--replay", file]));
    sim.args(arguments.plant.iter().flat_map(|name| ["--plant", name]));
    sim.args(arguments.json.then_some("--json"));
    children::run(sim.stdin(Stdio::null()))
}

/// What is simulated. A source tree without git, or without history, has no name.
fn commit(workspace: &Workspace) -> String {
    let describe = ["describe", "--always", "--dirty"];
    let output = Command::new("git").current_dir(&workspace.root).args(describe).stderr(Stdio::null()).output();
    let name = output.ok().filter(|output| output.status.success());
    let name = name.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}
