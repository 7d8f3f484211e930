//! What the demo prints.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::words::{Counted, Native};

/// What `partita --json job show` says of a job.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct JobFigures {
    pub(crate) tasks: u64,
    pub(crate) attempts: u64,
    pub(crate) partitions: u64,
    pub(crate) partition_bytes: u64,
    pub(crate) partitions_moved: u64,
    pub(crate) bytes_moved: u64,
    pub(crate) files: u64,
    pub(crate) bytes_read: u64,
    /// From the submission to the end.
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_memory_bytes: u64,
}

impl JobFigures {
    pub(super) fn parse(line: &str) -> anyhow::Result<Self> {
        let job: Value = serde_json::from_str(line.trim()).context("cannot read what the cluster says of a job")?;
        let number = |path: &str| {
            let value = job.pointer(path).and_then(Value::as_u64);
            value.with_context(|| format!("the cluster does not tell {path} of a job"))
        };
        let cpu_seconds = job.pointer("/totals/cpu_seconds").and_then(Value::as_f64);
        let arrays = job.get("arrays").and_then(Value::as_array).into_iter().flatten();
        let micros = number("/ended_at_us")?.saturating_sub(number("/submitted_at_us")?);
        Ok(Self {
            tasks: arrays.filter_map(|array| array.get("tasks")?.as_u64()).sum(),
            attempts: number("/totals/attempts")?,
            partitions: number("/totals/partitions")?,
            partition_bytes: number("/totals/partition_bytes")?,
            partitions_moved: number("/totals/moved_partitions")?,
            bytes_moved: number("/totals/moved_bytes")?,
            files: number("/totals/dataset_files")?,
            bytes_read: number("/totals/dataset_bytes")?,
            seconds: Duration::from_micros(micros).as_secs_f64(),
            cpu_seconds: cpu_seconds.context("the cluster does not tell the CPU time of a job")?,
            peak_memory_bytes: number("/totals/peak_memory_bytes")?,
        })
    }
}

/// Everything about one run of the demo. It exists only if every number was verified.
pub(crate) struct Summary {
    pub(crate) hosts: u32,
    /// From the start of `partita run` until the result was there.
    pub(crate) seconds: f64,
    /// From the start of `partita dev` until it was ready.
    pub(crate) startup: Duration,
    pub(crate) job: JobFigures,
    pub(crate) research: JobFigures,
    pub(crate) counted: Counted,
    pub(crate) native: Native,
}

impl Summary {
    /// How much was read.
    pub(crate) fn mib(&self) -> f64 {
        mib(self.job.bytes_read)
    }

    /// The line at the end.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "verified": true,
            "hosts": self.hosts,
            "tasks": self.job.tasks,
            "attempts": self.job.attempts,
            "files": self.job.files,
            "mib": self.mib(),
            "seconds": self.seconds,
            "job_seconds": self.job.seconds,
            "native_seconds": self.native.seconds,
            "mib_s": self.mib() / self.seconds,
            "native_ratio": self.seconds / self.native.seconds,
            "startup_seconds": self.startup.as_secs_f64(),
            "partitions": self.job.partitions,
            "partition_bytes": self.job.partition_bytes,
            "partitions_moved": self.job.partitions_moved,
            "bytes_moved": self.job.bytes_moved,
            "tokens": self.counted.tokens,
            "distinct": self.counted.distinct,
            "tenants": {
                "analytics": tenant(&self.job),
                "research": tenant(&self.research),
            },
            "top": self.counted.words,
        })
    }
}

fn tenant(job: &JobFigures) -> Value {
    json!({ "tasks": job.tasks, "cpu_seconds": job.cpu_seconds, "peak_memory_bytes": job.peak_memory_bytes })
}

#[expect(clippy::cast_precision_loss, reason = "printed with two digits")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The answer to the question.
pub(super) fn print_top(counted: &Counted) {
    println!("\n{:>4}  {:<24} {:>12}", "", "identifier", "times");
    for (place, (word, count)) in counted.words.iter().enumerate() {
        println!("{:>4}  {word:<24} {:>12}", place + 1, grouped(*count));
    }
    println!("{:>4}  {:<24} {:>12}", "", "all", grouped(counted.tokens));
    println!("{:>4}  {:<24} {:>12}\n", "", "different ones", grouped(counted.distinct));
}

/// The table of figures.
pub(super) fn print_figures(summary: &Summary) {
    let (job, research) = (&summary.job, &summary.research);
    let row = |name: &str, value: String| println!("  {name:<28} {value}");
    println!();
    row("hosts", summary.hosts.to_string());
    row("files", grouped(job.files));
    row("read", format!("{:.1} MiB", summary.mib()));
    row("tasks, attempts", format!("{}, {}", grouped(job.tasks), grouped(job.attempts)));
    row("partitions", format!("{}, {:.1} MiB", grouped(job.partitions), mib(job.partition_bytes)));
    row("moved between hosts", format!("{}, {:.1} MiB", grouped(job.partitions_moved), mib(job.bytes_moved)));
    row("wall time", format!("{:.2} s, of which the job itself {:.2} s", summary.seconds, job.seconds));
    row("speed", format!("{:.1} MiB/s", summary.mib() / summary.seconds));
    row("native, same cores", native(summary));
    for (name, job) in [("analytics", job), ("research", research)] {
        let peak = mib(job.peak_memory_bytes);
        row(&format!("tenant {name}"), format!("{:.2} CPU seconds, peak of a task {peak:.1} MiB", job.cpu_seconds));
    }
    row("start of the cluster", format!("{:.2} s", summary.startup.as_secs_f64()));
}

fn native(summary: &Summary) -> String {
    let (seconds, threads) = (summary.native.seconds, summary.native.threads);
    format!("{seconds:.2} s with {threads} threads; Partita took {:.2} times as long", summary.seconds / seconds)
}

/// A number with its digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
    }

    #[test]
    fn what_the_cluster_says_of_a_job_is_read() {
        let line = r#"{"arrays":[{"tasks":4},{"tasks":3}],"submitted_at_us":1000000,"ended_at_us":3500000,"totals":{
            "attempts":8,"cpu_seconds":1.5,"peak_memory_bytes":10,"partitions":11,"partition_bytes":12,
            "moved_partitions":13,"moved_bytes":14,"dataset_files":15,"dataset_bytes":16}}"#;
        let job = JobFigures::parse(line).unwrap();
        assert_eq!((job.tasks, job.attempts, job.bytes_moved, job.files), (7, 8, 14, 15));
        assert!((job.seconds - 2.5).abs() < 1e-9);
        let error = JobFigures::parse("{}").unwrap_err().to_string();
        assert!(error.contains("/ended_at_us"), "{error}");
    }
}
