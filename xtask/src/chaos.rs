//! `cargo xtask chaos`: builds what the system tests use, and kills processes of a cluster in the middle of a job for as
//! many rounds as one likes. What is done and checked stands in `tests/src/chaos.rs`.

use std::process::{Command, Stdio};

use crate::workspace::Workspace;
use crate::{children, guests};

/// The guest of the job.
const GUEST: &str = "partita-example-wordfreq";

/// Options of `cargo xtask chaos`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many rounds; each takes a few seconds.
    #[arg(long, default_value_t = 50)]
    rounds: u32,
    /// What the blows and their moments follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// End with one line of JSON.
    #[arg(long)]
    json: bool,
}

/// Builds and runs.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    children::watch_signals()?;
    guests::build_some(workspace, &[GUEST])?;
    // As the tests are built, so that nothing is compiled twice.
    children::run(workspace.cargo().args(["build", "--workspace", "--all-targets"]).stdin(Stdio::null()))?;
    let mut chaos = Command::new(workspace.target.join("debug/partita-chaos"));
    chaos.args(["--rounds", &arguments.rounds.to_string(), "--seed", &arguments.seed.to_string()]);
    if arguments.json {
        chaos.arg("--json");
    }
    children::run(chaos.stdin(Stdio::null()))
}
