//! One entry point for everything that is done with this source tree: `cargo xtask --help` lists it.
//!
//! Commands here call other programs (cargo first of all) and judge what they say; they contain nothing of Partita
//! itself and depend on none of its crates, so that they build in seconds.

mod bench;
mod chaos;
mod checks;
mod children;
mod cluster;
mod demo;
mod etl;
mod guests;
mod setup;
mod sim;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Builds, checks, shows and measures Partita.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the WebAssembly target available; called by the other commands when needed.
    Setup(setup::Arguments),
    /// Build the guest modules: the examples and those of the tests.
    Guests,
    /// Show the whole path on real data: two hosts, two tenants, every number verified.
    Demo(demo::Arguments),
    /// Scale the table of the etl example up, run the example on it, and verify the result.
    Etl(etl::Arguments),
    /// Kill processes of a cluster in the middle of a job, round after round, and check everything afterwards.
    Chaos(chaos::Arguments),
    /// Measure, and print figures.
    Bench(bench::Arguments),
    /// Simulate clusters in which everything goes wrong, seed after seed.
    Sim(sim::Arguments),
    /// Run every check: format, lints, all tests, documentation, examples. What continuous integration calls.
    Test(checks::Arguments),
    /// Check the rules of the source tree that no compiler checks.
    Tidy,
}

fn main() -> ExitCode {
    match run(&Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::find()?;
    match command {
        Command::Setup(arguments) => setup::run(&workspace, arguments)?,
        Command::Guests => {
            for guest in guests::build(&workspace)? {
                println!("{}", guest.display());
            }
        }
        Command::Demo(arguments) => demo::run(&workspace, arguments)?,
        Command::Etl(arguments) => etl::run(&workspace, arguments)?,
        Command::Chaos(arguments) => chaos::run(&workspace, arguments)?,
        Command::Bench(arguments) => bench::run(&workspace, arguments)?,
        Command::Sim(arguments) => sim::run(&workspace, arguments)?,
        Command::Test(arguments) => return checks::run(&workspace, arguments),
        Command::Tidy => {
            let faults = tidy::check(&workspace)?;
            for fault in &faults {
                println!("{fault}");
            }
            println!("tidy: {} faults", faults.len());
            return Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
    }
    Ok(ExitCode::SUCCESS)
}
