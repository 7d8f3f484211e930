//! `sandbox.instance_us`: instantiating a module, calling a function that does nothing, and dropping the instance, in a
//! confined executor, as one attempt of a large batch. Everything around it (compiling, forking) is done before.

use std::path::Path;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use partita_sandbox::{
    ArtefactCache, Batch, BatchAttempt, CompileLimits, Compiler, Executor, Program, RunControl, RunEnd, Zygote,
    ZygoteConfig,
};
use partita_types::{ModuleId, TaskLimits, Timestamp};

use crate::figures::{Figures, Stopwatch};

/// Attempts of one batch.
const ATTEMPTS: u32 = 10_000;

/// Measures `runs` times.
pub(crate) fn measure(figures: &mut Figures, runs: usize, program: &Path, guest: &Path) -> anyhow::Result<()> {
    let program = Program { path: program.to_owned(), args: vec!["internal".into()] };
    let zygote = Zygote::start(&program, ZygoteConfig::default()).context("cannot start a zygote")?;
    let scratch = tempfile::tempdir().context("cannot create a temporary directory")?;
    let mut executor = fork(&program, &zygote, guest, scratch.path())?;
    run(&mut executor)?; // Warms up: pages of the pool, branch predictors.
    for _ in 0..runs {
        let seconds = run(&mut executor)?;
        figures.add("sandbox.instance_us", "us", seconds * 1e6 / f64::from(ATTEMPTS));
    }
    Ok(())
}

fn fork(program: &Program, zygote: &Zygote, guest: &Path, scratch: &Path) -> anyhow::Result<Executor> {
    let component = std::fs::read(guest).with_context(|| format!("cannot read {}", guest.display()))?;
    let compiler = Compiler::new(program.clone(), CompileLimits::default());
    let code = compiler.compile(&component).context("cannot compile the guest")?;
    let cache = ArtefactCache::open(scratch, [3; 32]).context("cannot open a cache of artefacts")?;
    let artefact = cache.insert(ModuleId([1; 32]), &code).context("cannot keep the artefact")?;
    zygote.fork(&artefact, TaskLimits::default().memory).context("cannot fork an executor")
}

/// Runs one batch and returns its seconds.
fn run(executor: &mut Executor) -> anyhow::Result<f64> {
    let attempt = BatchAttempt { seed: [0; 32], arguments: None, inputs: Vec::new() };
    let batch = Batch {
        function: "noop".to_owned(),
        limits: TaskLimits::default(),
        outputs: 1,
        submitted_at: Timestamp::from_micros(1),
        common_arguments: Bytes::new(),
        attempts: (0..ATTEMPTS).map(|_| attempt.clone()).collect(),
    };
    let control = RunControl::new().context("cannot make a control")?;
    let mut failure = None;
    let mut ended = 0;
    let watch = Stopwatch::start();
    let end = executor.run(&batch, &control, &mut |attempt| {
        ended += 1;
        failure = failure.take().or(attempt.result.err());
    });
    let seconds = watch.seconds();
    match (end, failure) {
        (RunEnd::Complete, None) if ended == ATTEMPTS => Ok(seconds),
        (_, Some(failure)) => bail!("a task that does nothing failed: {}: {}", failure.cause, failure.message),
        _ => bail!("the executor was lost after {ended} tasks"),
    }
}
