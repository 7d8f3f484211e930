//! `partita job`: look at jobs, stop them, read what they wrote.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use partita_client::{Client, Event, Explanation, JobEvent, JobState, JobStatus};
use partita_types::format_duration;

use crate::app::App;
use crate::commands::log;
use crate::commands::outputs::{Selection, Target, write_selected};
use crate::outcome::Outcome;
use crate::output::{Align, Table, clean};
use crate::process::stop_requested;
use crate::summary;

/// List, watch, explain and cancel jobs, and read their results.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Look at another tenant's jobs; for operators and administrators.
    #[arg(long, global = true, value_name = "NAME")]
    tenant: Option<String>,
    #[command(subcommand)]
    command: JobCommand,
}

#[derive(Debug, Subcommand)]
enum JobCommand {
    /// List the jobs of the tenant.
    #[command(after_help = "Example:\n  partita job list")]
    List,
    /// Show how a job stands, what it used, and why it failed.
    #[command(after_help = "Example:\n  partita job show 7")]
    Show {
        /// Its number.
        job: u32,
    },
    /// Print the events of a job as they happen, until it ends.
    #[command(after_help = "Examples:\n  partita job watch 7\n  partita job watch 7 --from 120 --json")]
    Watch {
        /// Its number.
        job: u32,
        /// The first event wanted.
        #[arg(long, default_value_t = 0, value_name = "SEQUENCE")]
        from: u64,
    },
    /// Stop a job.
    #[command(after_help = "Example:\n  partita job cancel 7")]
    Cancel {
        /// Its number.
        job: u32,
    },
    /// Write the outputs of an array, one after the other in the order of the tasks.
    #[command(
        after_help = "Examples:\n  partita job result 7 top\n  partita job result 7 'top[last]'\n  partita job result 7 'map[12]:3' --output piece"
    )]
    Result {
        /// The job's number.
        job: u32,
        /// The array; of which task, if not all: a number or `last`; and which output, if not 0.
        #[arg(value_name = "ARRAY[[TASK]][:OUTPUT]")]
        array: Selection,
        /// Where to write; - is standard output.
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Print what the tasks of a job have logged, as far as the hosts still keep it.
    #[command(
        after_help = "Examples:\n  partita job log 7\n  partita job log 7 map --task 12\n  partita job log 7 --json"
    )]
    Log {
        /// The job's number.
        job: u32,
        /// Only this array.
        array: Option<String>,
        /// Only the task at this position of it.
        #[arg(long, requires = "array", value_name = "TASK")]
        task: Option<u32>,
    },
    /// Say why the tasks of a job are not running.
    #[command(after_help = "Examples:\n  partita job explain 7\n  partita job explain 7 --array 1 --task 12")]
    Explain {
        /// Its number.
        job: u32,
        /// The position of an array, for one task of it.
        #[arg(long, requires = "task")]
        array: Option<u32>,
        /// The position of a task.
        #[arg(long, requires = "array")]
        task: Option<u32>,
    },
    /// Give up the results of a job that has ended.
    #[command(after_help = "Example:\n  partita job release 7")]
    Release {
        /// Its number.
        job: u32,
    },
}

/// Does what the arguments say.
pub(crate) async fn run(app: &App, arguments: Arguments) -> anyhow::Result<Outcome> {
    let mut client = app.client()?;
    if let Some(tenant) = &arguments.tenant {
        client = client.on_behalf_of(tenant);
    }
    match arguments.command {
        JobCommand::List => app.output.list(&client.jobs().await?, listing)?,
        JobCommand::Show { job } => show(app, &client.job(job).status().await?)?,
        JobCommand::Watch { job, from } => return watch(app, &client, job, from).await,
        JobCommand::Cancel { job } => {
            client.job(job).cancel().await?;
            done(app, job, "cancelled")?;
        }
        JobCommand::Result { job, array, output } => {
            let written = write_selected(&client.job(job), &array, &Target::new(output.as_deref())).await?;
            if output.is_some() && app.output.json {
                app.output.json_line(&serde_json::json!({ "job": job, "bytes": written }))?;
            }
        }
        JobCommand::Explain { job, array, task } => {
            let explanations = client.explain(job, array.zip(task)).await?;
            let status = client.job(job).status().await?;
            if explanations.is_empty() && !app.output.json {
                app.output.line(&format!("nothing of job {job} waits; it is {}", status.state))?;
            } else {
                app.output.list(&explanations, |list| explained(list, &status))?;
            }
        }
        JobCommand::Log { job, array, task } => log::print(app, &client, job, array.as_deref(), task).await?,
        JobCommand::Release { job } => {
            client.job(job).release().await?;
            done(app, job, "released")?;
        }
    }
    Ok(Outcome::Done)
}

fn done(app: &App, job: u32, what: &str) -> std::io::Result<()> {
    if app.output.json {
        app.output.json_line(&serde_json::json!({ "job": job, what: true }))
    } else {
        app.output.line(&format!("job {job} {what}"))
    }
}

fn listing(jobs: &[JobStatus]) -> Table {
    let mut table = Table::new(&[
        ("JOB", Align::Right),
        ("NAME", Align::Left),
        ("STATE", Align::Left),
        ("DONE", Align::Right),
        ("TASKS", Align::Right),
        ("WALL", Align::Right),
        ("CPU", Align::Right),
    ]);
    for job in jobs {
        table.row([
            job.number.to_string(),
            job.name.clone(),
            if job.open && job.state == JobState::Running { "open".to_owned() } else { job.state.to_string() },
            job.counts.succeeded.to_string(),
            job.counts.total().to_string(),
            job.ended_at.map_or_else(|| "-".to_owned(), |ended| format_duration(ended.since(job.submitted_at))),
            job.totals.cpu.to_string(),
        ]);
    }
    table
}

fn show(app: &App, job: &JobStatus) -> std::io::Result<()> {
    if app.output.json { app.output.json_line(job) } else { summary::print(&app.output, job) }
}

async fn watch(app: &App, client: &Client, job: u32, from: u64) -> anyhow::Result<Outcome> {
    let mut watch = client.watch(job, from);
    let mut last = None;
    let stop = stop_requested();
    tokio::pin!(stop);
    loop {
        let event = tokio::select! {
            event = watch.next() => event?,
            stopped = &mut stop => {
                stopped?;
                app.output.note(&format!("go on with `partita job watch {job} --from {}`", watch.position()));
                return Ok(Outcome::Interrupted);
            }
        };
        let Some(event) = event else { break };
        if app.output.json {
            app.output.json_line(&event)?;
        } else {
            app.output.line(&format!("{:>6}  {}", event.sequence, clean(&told(&event))))?;
        }
        if let JobEvent::JobEnded { state } = event.what {
            last = Some(state);
        }
    }
    Ok(last.map_or(Outcome::Done, summary::outcome))
}

/// An event for people.
fn told(event: &Event) -> String {
    let ranges = |tasks: &[std::ops::Range<u32>]| {
        /// More ranges than these are only counted.
        const SHOWN: usize = 8;
        let one = |range: &std::ops::Range<u32>| match range.end.saturating_sub(range.start) {
            1 => range.start.to_string(),
            _ => format!("{}-{}", range.start, range.end.saturating_sub(1)),
        };
        let shown: Vec<_> = tasks.iter().take(SHOWN).map(one).collect();
        let more = tasks.len().saturating_sub(SHOWN);
        if more > 0 { format!("{} and {more} more ranges", shown.join(", ")) } else { shown.join(", ") }
    };
    match &event.what {
        JobEvent::ArraysAdded { arrays } => {
            let names: Vec<_> = arrays.iter().map(|array| format!("{} ({} tasks)", array.name, array.tasks)).collect();
            format!("arrays added: {}", names.join(", "))
        }
        JobEvent::TasksEnded { array, end, tasks } => format!("array {array}: tasks {} {end}", ranges(tasks)),
        JobEvent::AttemptFailed(failure) => {
            format!("array {}: attempt {} of task {}: {failure}", failure.array, failure.attempts, failure.index)
        }
        JobEvent::TasksLost { array, tasks } => {
            format!("array {array}: outputs of tasks {} were lost; they run again", ranges(tasks))
        }
        JobEvent::JobEnded { state } => format!("job {state}"),
    }
}

fn explained(list: &[Explanation], job: &JobStatus) -> Table {
    let mut table = Table::new(&[("TASKS", Align::Left), ("STATE", Align::Left), ("REASON", Align::Left)]);
    for explanation in list {
        let array = usize::try_from(explanation.array.0).ok().and_then(|array| job.arrays.get(array));
        let name = array.map_or_else(|| explanation.array.to_string(), |array| array.name.clone());
        let tasks = match explanation.count {
            1 => format!("{name}[{}]", explanation.first),
            count => format!("{name}[{}] and {} more", explanation.first, count.saturating_sub(1)),
        };
        table.row([tasks, explanation.state.clone(), explanation.reason.clone()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use partita_client::TaskEnd;
    use partita_types::ArrayIndex;

    use super::*;

    #[test]
    fn events_are_told_in_one_line() {
        let tasks = vec![0..1, 3..7];
        let what = JobEvent::TasksEnded { array: ArrayIndex(1), end: TaskEnd::Succeeded, tasks };
        assert_eq!(told(&Event { sequence: 3, what }), "array 1: tasks 0, 3-6 succeeded");
        let tasks = (0..20).map(|index| index * 2..index * 2 + 1).collect();
        let what = JobEvent::TasksLost { array: ArrayIndex(0), tasks };
        let text = told(&Event { sequence: 4, what });
        assert_eq!(
            text,
            "array 0: outputs of tasks 0, 2, 4, 6, 8, 10, 12, 14 and 12 more ranges were lost; they run again"
        );
    }
}
