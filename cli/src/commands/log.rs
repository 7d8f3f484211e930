//! `partita job log`: what tasks logged, attempt by attempt.

use anyhow::{Context as _, bail};
use partita_client::{AttemptLog, Client, JobStatus};
use partita_types::AttemptNumber;

use crate::app::App;
use crate::output::clean;

/// Prints what is kept of a job, an array or a task.
pub(crate) async fn print(
    app: &App,
    client: &Client,
    job: u32,
    array: Option<&str>,
    task: Option<u32>,
) -> anyhow::Result<()> {
    let status = client.job(job).status().await?;
    let array = array.map(|name| position(&status, name)).transpose()?;
    let log = client.log(job, array, task).await?;
    for attempt in &log.attempts {
        if app.output.json {
            app.output.json_line(attempt)?;
            continue;
        }
        for line in &attempt.lines {
            app.output.line(&format!("{}  {:<5}  {}", name(&status, attempt), line.level, clean(&line.text)))?;
        }
    }
    for host in &log.silent {
        app.output.note(&format!("host {host} did not answer; what it keeps is missing here"));
    }
    for host in &log.cut {
        app.output.note(&format!("host {host} keeps more than this; name an array or a task"));
    }
    Ok(())
}

/// The position of an array.
fn position(status: &JobStatus, name: &str) -> anyhow::Result<u32> {
    let Some(position) = status.arrays.iter().position(|array| array.name == name) else {
        let names: Vec<&str> = status.arrays.iter().map(|array| array.name.as_str()).collect();
        bail!("job {} has no array {name:?}; it has: {}", status.number, names.join(", "));
    };
    u32::try_from(position).context("the job has too many arrays")
}

/// The attempt for people: `map[12]`, and from the second attempt on `map[12] attempt 2`.
fn name(status: &JobStatus, attempt: &AttemptLog) -> String {
    let array = usize::try_from(attempt.array.0).ok().and_then(|array| status.arrays.get(array));
    let array = array.map_or_else(|| attempt.array.to_string(), |array| array.name.clone());
    match AttemptNumber::from_wire(attempt.attempt) {
        None | Some(AttemptNumber::FIRST) => format!("{array}[{}]", attempt.index),
        Some(number) => format!("{array}[{}] attempt {number}", attempt.index),
    }
}
