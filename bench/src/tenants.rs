//! `tenants.cancel_*`: how soon cores are free for others when tasks are stopped.
//!
//! Tasks that would never end hold all cores, and another task waits. The time from the order to cancel until that task
//! has ended covers the order on disk, its way to the host, the end of the guests' processes, a new process, and the
//! waiting task with the report of its end: so the stop itself took less.

use std::time::Duration;

use anyhow::Context as _;
use partita_client::{Client, JobBuilder, JobHandle, Module};

use crate::figures::{Figures, Stopwatch, percentile};

/// Cancellations, per run.
const CANCELLATIONS: usize = 50;
/// How often it is looked whether tasks have been handed out.
const LOOK: Duration = Duration::from_millis(5);
/// From being handed out to spinning, amply.
const SETTLE: Duration = Duration::from_millis(30);
/// From one cancellation to the next: hosts ration the executors that a tenant may lose, and that is not measured here.
const PAUSE: Duration = Duration::from_millis(150);

/// Measures `runs` times.
pub(crate) async fn measure(
    figures: &mut Figures,
    runs: usize,
    client: &Client,
    module: &Module,
) -> anyhow::Result<()> {
    cancellation(client, module).await?; // Compiles, forks.
    for _ in 0..runs {
        let mut times = Vec::with_capacity(CANCELLATIONS);
        for _ in 0..CANCELLATIONS {
            times.push(cancellation(client, module).await?);
        }
        times.sort_by(f64::total_cmp);
        figures.add("tenants.cancel_p50_us", "us", percentile(&times, 50.0));
        figures.add("tenants.cancel_p99_us", "us", percentile(&times, 99.0));
    }
    Ok(())
}

/// Microseconds from the order until a task that waited has ended.
async fn cancellation(client: &Client, module: &Module) -> anyhow::Result<f64> {
    let cores = u32::try_from(std::thread::available_parallelism()?.get()).unwrap_or(u32::MAX);
    let mut job = JobBuilder::new("spin");
    job.array("spin", module.function("spin")).tasks(cores).add();
    let spinning = client.submit(job).await.context("cannot submit tasks that spin")?;
    handed_out(&spinning, cores).await?;
    let mut job = JobBuilder::new("waiting");
    let array = job.array("noop", module.function("noop")).tasks(1).add();
    let waiting = client.submit(job).await.context("cannot submit the task that waits")?;
    tokio::time::sleep(SETTLE).await;
    let watch = Stopwatch::start();
    spinning.cancel().await.context("cannot cancel tasks that spin")?;
    waiting.array(&array).wait().await.context("cannot wait for the task that waits")?;
    let micros = watch.seconds() * 1e6;
    waiting.release().await.context("cannot release the task that waited")?;
    spinning.release().await.context("cannot release tasks that span")?;
    tokio::time::sleep(PAUSE).await;
    Ok(micros)
}

/// Waits until so many tasks of a job are at hosts.
async fn handed_out(job: &JobHandle, tasks: u32) -> anyhow::Result<()> {
    while job.status().await?.counts.assigned < tasks {
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
