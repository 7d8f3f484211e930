//! What the demo prints.

use std::time::Duration;

use serde_json::{Value, json};

use super::words::{Counted, Native};
use crate::cluster::JobFigures;

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
pub(super) fn mib(bytes: u64) -> f64 {
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
pub(super) fn grouped(number: u64) -> String {
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
}
