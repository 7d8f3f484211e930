//! `transfer.*`: partitions that move between two hosts, over TLS and with tickets.
//!
//! Producers are spread over both hosts by their load; one consumer reads them all, so the half that lies on the other
//! host has to move before it starts. The consumer looks at no byte. The time is from the moment when the client knows
//! that the producers are done until it knows that the consumer is, so it includes the scheduler's part.

use anyhow::{Context as _, bail};
use partita_client::{Client, JobBuilder, Module};
use partita_types::ByteSize;
use serde_json::json;

use crate::figures::{Figures, Stopwatch};

/// How often a job is tried in which by chance nothing had to move.
const TRIES: usize = 10;

/// Measures `runs` times.
pub(crate) async fn measure(
    figures: &mut Figures,
    runs: usize,
    client: &Client,
    module: &Module,
) -> anyhow::Result<()> {
    for _ in 0..runs {
        figures.add("transfer.1mib_mib_s", "MiB/s", moved(client, module, 64, ByteSize::mib(1)).await?);
        figures.add("transfer.64mib_mib_s", "MiB/s", moved(client, module, 4, ByteSize::mib(64)).await?);
    }
    Ok(())
}

/// MiB per second, for so many partitions of that size.
async fn moved(client: &Client, module: &Module, partitions: u32, size: ByteSize) -> anyhow::Result<f64> {
    for _ in 0..TRIES {
        let mut job = JobBuilder::new("transfer");
        let produce = job.array("produce", module.function("produce")).tasks(partitions);
        let produce = produce.args(&json!({ "bytes": size.0 })).context("cannot encode arguments")?.add();
        let consume = job.array("consume", module.function("consume")).all(&produce).tasks(1).add();
        let handle = client.submit(job).await.context("cannot submit producers and a consumer")?;
        handle.array(&produce).wait().await.context("cannot wait for the producers")?;
        let watch = Stopwatch::start();
        handle.array(&consume).wait().await.context("cannot wait for the consumer")?;
        let seconds = watch.seconds();
        handle.ended().await.context("cannot wait for the end of the job")?;
        let bytes = handle.status().await.context("cannot ask for the job")?.totals.moved_bytes;
        handle.release().await.context("cannot release the job")?;
        if bytes > ByteSize::ZERO {
            #[expect(clippy::cast_precision_loss, reason = "some hundred MiB")]
            return Ok(bytes.0 as f64 / f64::from(1 << 20) / seconds);
        }
    }
    bail!("all producers ran on one host {TRIES} times: nothing moved")
}
