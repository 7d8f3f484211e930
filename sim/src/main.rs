//! The simulation as a program: `cargo xtask sim` builds and calls it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Parser;
use partita_sim::{Campaign, Failed, Found, Options, Plan, Plant, Summary, run, shrink};
use serde_json::json;

/// Simulates clusters in which everything goes wrong.
#[derive(Parser)]
#[command(name = "partita-sim")]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// Stop after so many minutes.
    #[arg(long)]
    minutes: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Run a saved plan instead.
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Put a fault in on purpose; the run succeeds if it is found.
    #[arg(long, value_name = "NAME", value_parser = plant_named)]
    plant: Option<Plant>,
    /// Print one line of JSON at the end.
    #[arg(long)]
    json: bool,
    /// Where to save the plan of a seed that fails, cut down as far as it goes.
    #[arg(long, value_name = "DIRECTORY", default_value = "target/sim")]
    save: PathBuf,
    /// What is simulated, for the report of a failure.
    #[arg(long, default_value = "unknown")]
    commit: String,
}

fn plant_named(name: &str) -> Result<Plant, String> {
    let known = || Plant::all().into_iter().map(Plant::name).collect::<Vec<_>>().join(", ");
    Plant::all().into_iter().find(|plant| plant.name() == name).ok_or_else(|| format!("known are: {}", known()))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A panic of the core is a finding like any other, and told as one.
    std::panic::set_hook(Box::new(|_| {}));
    let result = match &arguments.replay {
        Some(file) => replay(&arguments, file),
        None => search(&arguments),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn replay(arguments: &Arguments, file: &Path) -> anyhow::Result<ExitCode> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let plan: Plan = serde_json::from_str(&text).with_context(|| format!("{} is no plan", file.display()))?;
    match run(&plan, Options { plant: arguments.plant, traced: true }) {
        Ok(finished) => {
            println!(
                "all held: {} steps, {:?} simulated, hash {:016x}",
                finished.steps, finished.simulated, finished.hash
            );
            Ok(ExitCode::SUCCESS)
        }
        Err(failed) => {
            failed.log.iter().for_each(|line| println!("{line}"));
            println!("{failed}");
            Ok(ExitCode::FAILURE)
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "measures how long it takes; decides nothing else")]
fn search(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let begin = Instant::now();
    let limit = arguments.minutes.map(|minutes| Duration::from_secs(minutes * 60));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let campaign = Campaign { first: arguments.seed, seeds: arguments.seeds, threads, plant: arguments.plant };
    let shown = Mutex::new(Duration::ZERO);
    let summary = campaign.run(&|summary| {
        let elapsed = begin.elapsed();
        if let Ok(mut shown) = shown.lock()
            && elapsed >= *shown + Duration::from_secs(1)
        {
            *shown = elapsed;
            eprint!(
                "\r{} of {} seeds, {} simulated, {} s",
                summary.seeds,
                arguments.seeds,
                hours(summary),
                elapsed.as_secs()
            );
        }
        limit.is_none_or(|limit| elapsed < limit)
    });
    eprintln!();
    let elapsed = begin.elapsed();
    let saved = summary.found.first().map(|found| save(arguments, found)).transpose()?;
    if arguments.json {
        let failures: Vec<_> = summary
            .found
            .iter()
            .map(|found| json!({ "seed": found.seed, "invariant": found.failed.violation.invariant, "detail": found.failed.violation.detail }))
            .collect();
        let plan = saved.as_ref().map(|path| path.display().to_string());
        println!(
            "{}",
            json!({
                "seeds": summary.seeds, "steps": summary.steps, "simulated_seconds": summary.simulated.as_secs(),
                "seconds": elapsed.as_secs_f64(), "commit": arguments.commit, "failures": failures, "plan": plan,
            })
        );
    } else {
        println!(
            "{} seeds, {} steps, {} simulated in {:.1} s: {} failed",
            summary.seeds,
            summary.steps,
            hours(&summary),
            elapsed.as_secs_f64(),
            summary.found.len()
        );
    }
    Ok(if summary.found.is_empty() != arguments.plant.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn hours(summary: &Summary) -> String {
    format!("{:.1} h", summary.simulated.as_secs_f64() / 3_600.0)
}

/// Cuts the plan of a seed down, saves it, and tells how to see it fail.
fn save(arguments: &Arguments, found: &Found) -> anyhow::Result<PathBuf> {
    let seed = found.seed;
    eprintln!("seed {seed} failed at commit {}: {}", arguments.commit, found.failed);
    eprintln!("cutting its plan down");
    let Some((plan, failed)) = shrink(&Plan::generate(seed), arguments.plant) else {
        bail!("seed {seed} failed once and not again: the simulation is not deterministic");
    };
    report(&failed);
    std::fs::create_dir_all(&arguments.save).with_context(|| format!("cannot make {}", arguments.save.display()))?;
    let file = arguments.save.join(format!("seed-{seed}.json"));
    let text = serde_json::to_string_pretty(&plan).context("cannot write the plan down")?;
    std::fs::write(&file, text + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    eprintln!(
        "{} jobs, {} hosts, {} faults are left: {}",
        plan.jobs.len(),
        plan.hosts.len(),
        plan.faults.len(),
        file.display()
    );
    eprintln!("see it fail: cargo xtask sim --replay {}", file.display());
    Ok(file)
}

fn report(failed: &Failed) {
    failed.log.iter().for_each(|line| eprintln!("{line}"));
    eprintln!("{failed}");
}
