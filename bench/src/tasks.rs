//! `tasks.*` and `latency.*`: tasks that do nothing, through the whole path: client, TLS, journal, two hosts, executors.

use anyhow::Context as _;
use partita_client::{Client, JobBuilder, JobState, Module};

use crate::figures::{Figures, Stopwatch, percentile};

/// Tasks run one after the other for the latency, per run.
const SINGLES: usize = 300;

/// Measures `runs` times.
pub(crate) async fn measure(
    figures: &mut Figures,
    runs: usize,
    client: &Client,
    module: &Module,
) -> anyhow::Result<()> {
    many(client, module, 10_000).await?; // Compiles, forks, and lets the scheduler learn how long a task takes.
    for _ in 0..runs {
        for (name, tasks) in [("tasks.noop_10k", 10_000_u32), ("tasks.noop_100k", 100_000)] {
            let seconds = many(client, module, tasks).await?;
            figures.add(name, "tasks/s", f64::from(tasks) / seconds);
        }
        let mut times = singles(client, module).await?;
        times.sort_by(f64::total_cmp);
        figures.add("latency.one_task_p50_us", "us", percentile(&times, 50.0));
        figures.add("latency.one_task_p99_us", "us", percentile(&times, 99.0));
    }
    Ok(())
}

/// Seconds from the submission of one array until the client knows that it is done.
async fn many(client: &Client, module: &Module, tasks: u32) -> anyhow::Result<f64> {
    let mut job = JobBuilder::new("noop");
    job.array("noop", module.function("noop")).tasks(tasks).add();
    let watch = Stopwatch::start();
    let handle = client.submit(job).await.context("cannot submit tasks that do nothing")?;
    let state = handle.ended().await.context("cannot wait for tasks that do nothing")?;
    let seconds = watch.seconds();
    anyhow::ensure!(state == JobState::Succeeded, "tasks that do nothing did not succeed");
    handle.release().await.context("cannot release tasks that did nothing")?;
    Ok(seconds)
}

/// Microseconds from submission to result, for jobs of one task each.
async fn singles(client: &Client, module: &Module) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::with_capacity(SINGLES);
    for _ in 0..SINGLES {
        let mut job = JobBuilder::new("one");
        let array = job.array("noop", module.function("noop")).tasks(1).add();
        let watch = Stopwatch::start();
        let handle = client.submit(job).await.context("cannot submit one task")?;
        handle.array(&array).wait().await.context("cannot wait for one task")?;
        times.push(watch.seconds() * 1e6);
        handle.release().await.context("cannot release one task")?;
    }
    Ok(times)
}
