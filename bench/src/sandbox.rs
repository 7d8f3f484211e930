//! `sandbox.instance_us`: instantiating a module, calling a function that does nothing, and dropping the instance, in a
//! confined executor, as one attempt of a large batch. Everything around it (compiling, forking) is done before.
//!
//! `sandbox.stop_*`: from the moment in which a host's thread asks for the end of an attempt that loops for ever until its
//! end is confirmed: the executor is killed and reaped, and what it used is read from the kernel.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use partita_sandbox::{
    Artefact, ArtefactCache, Batch, BatchAttempt, CompileLimits, Compiler, Executor, Program, RunControl, RunEnd,
    Zygote, ZygoteConfig,
};
use partita_types::{Cause, ModuleId, TaskLimits, Timestamp};

use crate::figures::{Figures, Stopwatch, percentile};

/// Attempts of one batch.
const ATTEMPTS: u32 = 10_000;
/// Attempts that are stopped, per run.
const STOPS: usize = 200;
/// From the first sign of an attempt until it loops, amply.
const SETTLE: Duration = Duration::from_millis(2);

/// Measures `runs` times.
pub(crate) fn measure(figures: &mut Figures, runs: usize, program: &Path, guest: &Path) -> anyhow::Result<()> {
    let program = Program { path: program.to_owned(), args: vec!["internal".into()] };
    let zygote = Zygote::start(&program, ZygoteConfig::default()).context("cannot start a zygote")?;
    let scratch = tempfile::tempdir().context("cannot create a temporary directory")?;
    let artefact = compile(&program, guest, scratch.path())?;
    let mut executor = fork(&zygote, &artefact)?;
    run(&mut executor)?; // Warms up: pages of the pool, branch predictors.
    for _ in 0..runs {
        let seconds = run(&mut executor)?;
        figures.add("sandbox.instance_us", "us", seconds * 1e6 / f64::from(ATTEMPTS));
    }
    for _ in 0..runs {
        let mut times = (0..STOPS).map(|_| stop(fork(&zygote, &artefact)?)).collect::<anyhow::Result<Vec<f64>>>()?;
        times.sort_by(f64::total_cmp);
        figures.add("sandbox.stop_p50_us", "us", percentile(&times, 50.0));
        figures.add("sandbox.stop_p99_us", "us", percentile(&times, 99.0));
    }
    Ok(())
}

fn compile(program: &Program, guest: &Path, scratch: &Path) -> anyhow::Result<Artefact> {
    let component = std::fs::read(guest).with_context(|| format!("cannot read {}", guest.display()))?;
    let compiler = Compiler::new(program.clone(), CompileLimits::default());
    let code = compiler.compile(&component).context("cannot compile the guest")?;
    let cache = ArtefactCache::open(scratch, [3; 32]).context("cannot open a cache of artefacts")?;
    cache.insert(ModuleId([1; 32]), &code).context("cannot keep the artefact")
}

fn fork(zygote: &Zygote, artefact: &Artefact) -> anyhow::Result<Executor> {
    zygote.fork(artefact, TaskLimits::default().memory).context("cannot fork an executor")
}

fn batch(function: &str, attempts: u32) -> Batch {
    let attempt = BatchAttempt { seed: [0; 32], arguments: None, inputs: Vec::new() };
    Batch {
        function: function.to_owned(),
        limits: TaskLimits::default(),
        outputs: 1,
        submitted_at: Timestamp::from_micros(1),
        common_arguments: Bytes::new(),
        attempts: (0..attempts).map(|_| attempt.clone()).collect(),
    }
}

/// Runs one batch and returns its seconds.
fn run(executor: &mut Executor) -> anyhow::Result<f64> {
    let batch = batch("noop", ATTEMPTS);
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

/// Microseconds from the request to end an attempt that loops until its end is confirmed.
fn stop(mut executor: Executor) -> anyhow::Result<f64> {
    let batch = batch("spin", 1);
    let control = RunControl::new().context("cannot make a control")?;
    let mut cause = None;
    let (asked, ended) = std::thread::scope(|scope| {
        let asks = scope.spawn(|| {
            while control.running().is_none() {
                std::thread::yield_now();
            }
            std::thread::sleep(SETTLE);
            let watch = Stopwatch::start();
            control.cancel(0);
            watch
        });
        let end = executor.run(&batch, &control, &mut |attempt| cause = attempt.result.err().map(|end| end.cause));
        let ended = Stopwatch::start();
        (asks.join().map(|asked| asked.until(&ended)), end)
    });
    match (asked, ended, cause) {
        (Ok(stopped), RunEnd::ExecutorLost { next: 1 }, Some(Cause::Cancelled)) => Ok(stopped.as_secs_f64() * 1e6),
        (_, end, cause) => bail!("a task that loops was to be cancelled, and ended otherwise: {end:?}, {cause:?}"),
    }
}
