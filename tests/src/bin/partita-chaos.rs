//! `cargo xtask chaos` builds this and runs it: rounds of killing processes in the middle of a job.

use std::time::Duration;

use clap::Parser;
use partita_tests::chaos::{self, Blow, Round};
use serde_json::{Map, Value, json};

/// Kills processes of a cluster in the middle of a job, round after round, and checks everything afterwards.
#[derive(Parser)]
struct Arguments {
    /// How many rounds.
    #[arg(long, default_value_t = 50)]
    rounds: u32,
    /// What the blows and their moments follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// End with one line of JSON.
    #[arg(long)]
    json: bool,
}

fn main() {
    let arguments = Arguments::parse();
    let mut rounds = Vec::new();
    println!(
        "seed {}\n{:>5}  {:<18}{:>12}{:>9}{:>9}{:>9}",
        arguments.seed, "round", "what", "after tasks", "failed", "again", "time"
    );
    chaos::run(arguments.rounds, arguments.seed, |round| {
        let Round { number, blow, after, tasks, rerun, failed, time, .. } = round;
        let after = format!("{after}/{tasks}");
        println!("{number:>5}  {blow:<18}{after:>12}{failed:>9}{rerun:>9}{:>7.1} s", time.as_secs_f64());
        rounds.push(round.clone());
    });
    println!("every result was right, nothing ran again that was there, nothing is left");
    if arguments.json {
        println!("{}", closing(&arguments, &rounds));
    }
}

/// The line at the end.
fn closing(arguments: &Arguments, rounds: &[Round]) -> Value {
    let of = |blow: Blow| rounds.iter().filter(move |round| round.blow == blow);
    let blows: Map<String, Value> =
        Blow::ALL.into_iter().map(|blow| (blow.to_string(), json!(of(blow).count()))).collect();
    let slowest = rounds.iter().map(|round| round.time).max().unwrap_or(Duration::ZERO);
    json!({
        "verified": true,
        "rounds": rounds.len(),
        "seed": arguments.seed,
        "blows": blows,
        "tasks": rounds.iter().map(|round| round.tasks).sum::<u64>(),
        "attempts": rounds.iter().map(|round| round.attempts).sum::<u64>(),
        "failed_attempts": rounds.iter().map(|round| round.failed).sum::<u64>(),
        "run_again": rounds.iter().map(|round| round.rerun).sum::<u64>(),
        "run_again_after_scheduler_kills": of(Blow::Scheduler).map(|round| round.rerun).sum::<u64>(),
        "slowest_seconds": slowest.as_secs_f64(),
    })
}
