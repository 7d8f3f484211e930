//! `cargo xtask test`: every check of the tree, one step after the other, with one closing line that counts.
//!
//! A failing step does not stop the others, so that one run tells everything. All steps share one target directory and
//! the development profile, so that nothing is compiled twice.

mod count;
mod stream;

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use self::count::Count;
use crate::workspace::Workspace;
use crate::{guests, setup, tidy};

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only this step, with what it needs.
    #[arg(long, value_name = "STEP")]
    only: Option<Step>,
}

/// The steps, in the order in which they run: what fails fast comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Step {
    /// Code is formatted as `cargo fmt` does it.
    Fmt,
    /// The rules of the source tree that no compiler checks.
    Tidy,
    /// The WebAssembly target is there.
    Setup,
    /// Guest modules compile, without warnings.
    Guests,
    /// Everything else compiles, without warnings of the compiler and clippy.
    Clippy,
    /// The programs that system tests start.
    Build,
    /// Unit, scenario, simulation, sandbox and system tests; the last run the examples on clusters.
    Tests,
    /// The examples in the documentation run.
    Doctests,
    /// The documentation builds, without warnings.
    Docs,
}

impl Step {
    const ALL: [Self; 9] = [
        Self::Fmt,
        Self::Tidy,
        Self::Setup,
        Self::Guests,
        Self::Clippy,
        Self::Build,
        Self::Tests,
        Self::Doctests,
        Self::Docs,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Fmt => "fmt",
            Self::Tidy => "tidy",
            Self::Setup => "setup",
            Self::Guests => "guests",
            Self::Clippy => "clippy",
            Self::Build => "build",
            Self::Tests => "tests",
            Self::Doctests => "doctests",
            Self::Docs => "docs",
        }
    }

    /// What has to run before it.
    const fn needs(self) -> &'static [Self] {
        match self {
            Self::Tests => &[Self::Guests, Self::Build],
            Self::Fmt
            | Self::Tidy
            | Self::Setup
            | Self::Guests
            | Self::Clippy
            | Self::Build
            | Self::Doctests
            | Self::Docs => &[],
        }
    }

    /// Does it. What is not a test counts only if it fails.
    fn run(self, workspace: &Workspace) -> anyhow::Result<Count> {
        let cargo = |words: &[&str]| -> Command {
            let mut command = workspace.cargo();
            command.args(words);
            command
        };
        match self {
            Self::Fmt => stream::run(&mut cargo(&["fmt", "--all", "--check"]))?,
            Self::Tidy => return check_tidy(workspace),
            Self::Setup => setup::ensure(workspace).map(drop)?,
            Self::Guests => build_guests(workspace)?,
            Self::Clippy => {
                stream::run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
            }
            // With all targets, because the features of test dependencies count too: without them, Wasmtime is built twice.
            Self::Build => stream::run(&mut cargo(&["build", "--workspace", "--all-targets"]))?,
            Self::Tests if has_nextest(workspace) => {
                return stream::count(&mut cargo(&["nextest", "run", "--workspace", "--no-fail-fast"]), count::nextest);
            }
            Self::Tests => {
                println!(
                    "cargo-nextest is not installed; `cargo test` does it too, without a time limit for each test"
                );
                let words = ["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"];
                return stream::count(&mut cargo(&words), count::libtest);
            }
            Self::Doctests => {
                return stream::count(&mut cargo(&["test", "--workspace", "--doc", "--no-fail-fast"]), count::libtest);
            }
            Self::Docs => {
                let mut docs = cargo(&["doc", "--workspace", "--no-deps"]);
                stream::run(docs.env("RUSTDOCFLAGS", "--deny warnings"))?;
            }
        }
        Ok(Count::default())
    }
}

/// Runs the steps and prints the closing line.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let steps = match arguments.only {
        Some(step) => step.needs().iter().copied().chain([step]).collect(),
        None => Step::ALL.to_vec(),
    };
    let begin = now();
    let mut total = Count::default();
    let mut summary = Vec::new();
    for step in steps {
        let (count, line) = run_step(workspace, step);
        total += count;
        summary.push(line);
    }
    println!("\n{}\n{:<10} {:>8}\n", summary.join("\n"), "together", seconds(begin.elapsed()));
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One step, with its line of the summary.
fn run_step(workspace: &Workspace, step: Step) -> (Count, String) {
    println!("\n== {}", step.name());
    let begin = now();
    let result = step.run(workspace);
    let time = seconds(begin.elapsed());
    let (count, verdict) = match result {
        Ok(count) if count.failed == 0 && count.passed == 0 => (count, "ok".to_owned()),
        Ok(count) if count.failed == 0 => (count, format!("ok, {} passed", count.passed)),
        Ok(count) => (count, format!("FAILED, {} passed, {} failed", count.passed, count.failed)),
        Err(error) => {
            println!("{error:#}");
            (Count { passed: 0, failed: 1 }, "FAILED".to_owned())
        }
    };
    if count.failed > 0 {
        println!("step {0} failed; to run it alone: cargo xtask test --only {0}", step.name());
    }
    println!("-- {} {verdict} in {time}", step.name());
    (count, format!("{:<10} {time:>8}  {verdict}", step.name()))
}

fn check_tidy(workspace: &Workspace) -> anyhow::Result<Count> {
    let faults = tidy::check(workspace)?;
    for fault in &faults {
        println!("{fault}");
    }
    Ok(Count { passed: 0, failed: u64::from(!faults.is_empty()) })
}

/// Builds the guests, and has clippy read the parts of them and of the SDK that only WebAssembly compiles.
fn build_guests(workspace: &Workspace) -> anyhow::Result<()> {
    for component in guests::build(workspace)? {
        println!("{}", component.display());
    }
    let packages = workspace.guests().flat_map(|package| ["--package", package.name.as_str()]);
    if matches!(setup::ensure(workspace)?, setup::Target::Components) {
        let mut clippy = workspace.cargo();
        clippy.args(["clippy", "--lib", "--target", setup::TARGET]).args(packages);
        stream::run(clippy.args(["--", "--deny", "warnings"]))?;
    }
    Ok(())
}

fn has_nextest(workspace: &Workspace) -> bool {
    let mut command = workspace.cargo();
    command.args(["nextest", "--version"]);
    crate::workspace::output(&mut command).is_ok()
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[expect(clippy::disallowed_methods, reason = "for people who wait; nothing is decided with it")]
fn now() -> Instant {
    Instant::now()
}
