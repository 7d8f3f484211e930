//! A cluster of its own for a command: `partita dev` with a policy, in a temporary directory, and what it says of jobs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::children::{self, Server};
use crate::workspace::Workspace;

/// How long a cluster may take until it is ready.
const START: Duration = Duration::from_secs(60);

/// A running cluster. Stopped when dropped.
pub(crate) struct Cluster {
    server: Server,
    program: PathBuf,
    home: PathBuf,
    config: PathBuf,
    address: String,
}

impl Cluster {
    /// Starts it and waits until it is ready. Also says how long that took.
    pub(crate) fn start(program: &Path, scratch: &Path, policy: &str, hosts: u32) -> anyhow::Result<(Self, Duration)> {
        let policies = scratch.join("policies");
        fs::create_dir(&policies).with_context(|| format!("cannot create {}", policies.display()))?;
        let file = policies.join("policy.toml");
        fs::write(&file, policy).with_context(|| format!("cannot write {}", file.display()))?;
        let mut dev = command(program, scratch);
        dev.args(["--json", "dev", "--hosts", &hosts.to_string()]);
        dev.arg("--data").arg(scratch.join("cluster")).arg("--policies").arg(&policies);
        let begin = now();
        let server = Server::start(&mut dev)?;
        let ready = server.line("line that says it is ready", START, ready)?;
        let startup = begin.elapsed();
        let text = |key: &str| {
            let text = ready.get(key).and_then(Value::as_str).map(str::to_owned);
            text.with_context(|| format!("the ready line of the cluster has no {key}"))
        };
        let (config, address) = (PathBuf::from(text("config")?), text("address")?);
        let attached = ready.get("hosts").and_then(Value::as_array).map_or(0, Vec::len);
        ensure!(u32::try_from(attached) == Ok(hosts), "the cluster has {attached} hosts instead of {hosts}");
        Ok((Self { server, program: program.to_owned(), home: scratch.to_owned(), config, address }, startup))
    }

    /// Where the scheduler is.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// A command that runs a job as a tenant and writes the result of one array into a file.
    pub(crate) fn run(&self, tenant: &str, job: &Path, array: &str, result: &Path) -> Command {
        let mut run = self.partita(tenant);
        run.arg("run").arg(job).args(["--result", array]).arg("--output").arg(result).stdin(Stdio::null());
        run
    }

    /// What the cluster says of the only job of a tenant.
    pub(crate) fn figures(&self, tenant: &str) -> anyhow::Result<JobFigures> {
        let jobs = children::output(self.partita(tenant).args(["--json", "job", "list"]))?;
        let job: Value = serde_json::from_str(jobs.trim()).with_context(|| format!("team {tenant} has not one job"))?;
        let number = job.get("number").with_context(|| format!("the job of team {tenant} has no number"))?.to_string();
        JobFigures::parse(&children::output(self.partita(tenant).args(["--json", "job", "show", &number]))?)
    }

    fn partita(&self, tenant: &str) -> Command {
        let mut partita = command(&self.program, &self.home);
        partita.arg("--config").arg(&self.config).args(["--context", tenant]);
        partita
    }

    /// Stops it.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        self.server.stop()
    }
}

/// The ready line, if it is that.
pub(crate) fn ready(line: &str) -> Option<Value> {
    let value: Value = serde_json::from_str(line).ok()?;
    (value.get("ready") == Some(&Value::Bool(true))).then_some(value)
}

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
    pub(crate) fn parse(line: &str) -> anyhow::Result<Self> {
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

/// Writes a copy of a job file of the examples that finds its module wherever this tree is built.
pub(crate) fn job_file(workspace: &Workspace, example: &str, directory: &Path) -> anyhow::Result<PathBuf> {
    let file = workspace.root.join("examples").join(example).join("job.toml");
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let built = format!("\"{}/", workspace.target.display());
    let copy = directory.join(format!("{example}.toml"));
    std::fs::write(&copy, text.replace("\"../../target/", &built))
        .with_context(|| format!("cannot write {}", copy.display()))?;
    Ok(copy)
}

/// A command without the user's own configuration of Partita.
pub(crate) fn command(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("HOME", home).env_remove("PARTITA_CONFIG").env_remove("PARTITA_CONTEXT");
    command
}

/// For telling how long something took.
#[expect(clippy::disallowed_methods, reason = "people are told how long it took")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

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
