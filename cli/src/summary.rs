//! What a job was, in a table and in JSON.

use std::time::Duration;

use partita_client::{JobState, JobStatus, TaskFailure};
use partita_types::format_duration;
use serde_json::{Value, json};

use crate::output::{Align, Output, Table, clean};

/// Lines of log and backtrace that are shown of a failed task.
const TAIL: usize = 20;

/// Prints what a finished job used and made, and why it failed if it did.
pub(crate) fn print(output: &Output, job: &JobStatus) -> std::io::Result<()> {
    if output.json {
        return output.json_line(&to_json(job));
    }
    output.table(&arrays(job))?;
    output.line("")?;
    output.table(&table(job))?;
    match &job.failure {
        Some(failure) => output.line(&format!("\n{}", failure_text(job, failure))),
        None => Ok(()),
    }
}

/// One row for each array.
pub(crate) fn arrays(job: &JobStatus) -> Table {
    let mut table = Table::new(&[
        ("ARRAY", Align::Left),
        ("FUNCTION", Align::Left),
        ("TASKS", Align::Right),
        ("OUTPUTS", Align::Right),
        ("DONE", Align::Right),
        ("STATE", Align::Left),
    ]);
    for array in &job.arrays {
        let counts = &array.counts;
        let others = [
            (counts.assigned, "running"),
            (counts.ready, "ready"),
            (counts.waiting, "waiting"),
            (counts.failed, "failed"),
            (counts.aborted, "aborted"),
            (counts.cancelled, "cancelled"),
        ];
        let shown: Vec<_> =
            others.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        let state = if shown.is_empty() { "succeeded".to_owned() } else { shown.join(", ") };
        table.row([
            array.name.clone(),
            if array.function.is_empty() { "(upload)".to_owned() } else { array.function.clone() },
            array.tasks.to_string(),
            array.outputs.to_string(),
            counts.succeeded.to_string(),
            state,
        ]);
    }
    table
}

fn table(job: &JobStatus) -> Table {
    let totals = &job.totals;
    let mut table = Table::pairs();
    table.pair("job", format!("{} ({}) {}", job.number, job.name, job.state));
    if totals.dataset_files > 0 {
        table.pair("read", format!("{} files, {}", totals.dataset_files, totals.dataset_bytes));
    }
    table.pair("tasks", tasks(job));
    table.pair("attempts", totals.attempts);
    if totals.reused > 0 {
        table.pair("reused", format!("{} tasks", totals.reused));
    }
    if totals.speculative > 0 {
        table.pair("speculative attempts", totals.speculative);
    }
    table.pair("partitions", format!("{}, {}", totals.partitions, totals.partition_bytes));
    table.pair("moved between hosts", format!("{}, {}", totals.moved_partitions, totals.moved_bytes));
    if let Some(wall) = wall_time(job) {
        table.pair("wall time", format_duration(wall));
    }
    table.pair("CPU time", totals.cpu);
    table.pair("peak memory of a task", totals.peak_memory);
    table
}

fn tasks(job: &JobStatus) -> u64 {
    job.arrays.iter().map(|array| u64::from(array.tasks)).sum()
}

fn wall_time(job: &JobStatus) -> Option<Duration> {
    job.ended_at.map(|ended| ended.since(job.submitted_at))
}

/// The figures of the table under names that stay.
pub(crate) fn to_json(job: &JobStatus) -> Value {
    let totals = &job.totals;
    json!({
        "job": job.number,
        "name": job.name,
        "state": job.state,
        "tasks": tasks(job),
        "attempts": totals.attempts,
        "reused": totals.reused,
        "speculative_attempts": totals.speculative,
        "partitions": totals.partitions,
        "partition_bytes": totals.partition_bytes,
        "partitions_moved": totals.moved_partitions,
        "bytes_moved": totals.moved_bytes,
        "files": totals.dataset_files,
        "bytes_read": totals.dataset_bytes,
        "seconds": wall_time(job).map(|wall| wall.as_secs_f64()),
        "cpu_seconds": Duration::from_micros(totals.cpu.micros).as_secs_f64(),
        "peak_memory_bytes": totals.peak_memory,
        "failure": job.failure,
    })
}

/// Everything that is known about a failed task.
pub(crate) fn failure_text(job: &JobStatus, failure: &TaskFailure) -> String {
    let array = usize::try_from(failure.array.0).ok().and_then(|array| job.arrays.get(array));
    let name = array.map_or_else(|| failure.array.to_string(), |array| clean(&array.name));
    let mut text = format!("task {name}[{}] failed: {}", failure.index, clean(&failure.to_string()));
    for (title, lines) in [("backtrace", &failure.backtrace), ("log", &failure.log_tail)] {
        if lines.is_empty() {
            continue;
        }
        text.push_str(&format!("\n  {title}:"));
        let first = if title == "log" { lines.len().saturating_sub(TAIL) } else { 0 };
        for line in lines.iter().skip(first).take(TAIL) {
            text.push_str(&format!("\n    {}", clean(line)));
        }
    }
    text
}

/// What the end of a job means for the exit code.
pub(crate) fn outcome(state: JobState) -> crate::outcome::Outcome {
    match state {
        JobState::Succeeded | JobState::Running => crate::outcome::Outcome::Done,
        JobState::Failed | JobState::Cancelled | JobState::Expired => crate::outcome::Outcome::Failed,
    }
}

#[cfg(test)]
mod tests {
    use partita_client::{ArrayStatus, TaskCounts, Totals};
    use partita_types::{ArrayIndex, ByteSize, Cause, CpuTime, Timestamp};

    use super::*;

    fn job() -> JobStatus {
        JobStatus {
            number: 7,
            name: "wordfreq".into(),
            tenant: "analytics".into(),
            state: JobState::Failed,
            open: false,
            arrays: vec![ArrayStatus {
                name: "map".into(),
                function: "map".into(),
                tasks: 4,
                outputs: 8,
                counts: TaskCounts { succeeded: 3, failed: 1, ..TaskCounts::default() },
            }],
            counts: TaskCounts { succeeded: 3, failed: 1, ..TaskCounts::default() },
            submitted_at: Timestamp::from_micros(1_000_000),
            ended_at: Some(Timestamp::from_micros(3_500_000)),
            totals: Totals {
                attempts: 6,
                cpu: CpuTime::from_micros(1_250_000),
                partitions: 24,
                partition_bytes: ByteSize::kib(3),
                ..Totals::default()
            },
            failure: Some(TaskFailure {
                array: ArrayIndex(0),
                index: 2,
                attempts: 3,
                cause: Some(Cause::Panic),
                message: "index out of bounds\x1b[0m".into(),
                backtrace: vec!["map".into()],
                log_tail: (0..30).map(|line| format!("line {line}")).collect(),
            }),
        }
    }

    #[test]
    fn json_has_stable_names_and_plain_units() {
        let value = to_json(&job());
        assert_eq!(value["state"], "failed");
        assert_eq!(value["seconds"], 2.5);
        assert_eq!(value["cpu_seconds"], 1.25);
        assert_eq!(value["partition_bytes"], 3072);
        assert_eq!(value["failure"]["cause"], "panic");
    }

    #[test]
    fn a_failure_names_the_task_and_shows_the_end_of_its_log() {
        let job = job();
        let text = failure_text(&job, job.failure.as_ref().unwrap());
        assert!(text.starts_with("task map[2] failed: panic: index out of bounds\u{FFFD}[0m (3 attempts)\n"), "{text}");
        assert!(text.ends_with("\n    line 29") && !text.contains("line 9\n"), "{text}");
    }
}
