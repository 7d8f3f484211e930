//! The cluster of the demo: `partita dev` with a policy of its own, in a temporary directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::report::JobFigures;
use super::{command, now};
use crate::children::{self, Server};

/// How long a cluster may take until it is ready.
const START: Duration = Duration::from_secs(60);

/// A running cluster. Stopped when dropped.
pub(super) struct Cluster {
    server: Server,
    program: PathBuf,
    home: PathBuf,
    config: PathBuf,
    address: String,
}

impl Cluster {
    /// Starts it and waits until it is ready. Also says how long that took.
    pub(super) fn start(
        program: &Path,
        scratch: &Path,
        sources: &Path,
        hosts: u32,
    ) -> anyhow::Result<(Self, Duration)> {
        let policies = scratch.join("policies");
        fs::create_dir(&policies).with_context(|| format!("cannot create {}", policies.display()))?;
        let file = policies.join("demo.toml");
        fs::write(&file, policy(sources)).with_context(|| format!("cannot write {}", file.display()))?;
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
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// A command that runs a job as a tenant and writes the result of one array into a file.
    pub(super) fn run(&self, tenant: &str, job: &Path, array: &str, result: &Path) -> Command {
        let mut run = self.partita(tenant);
        run.arg("run").arg(job).args(["--result", array]).arg("--output").arg(result).stdin(Stdio::null());
        run
    }

    /// What the cluster says of the only job of a tenant.
    pub(super) fn figures(&self, tenant: &str) -> anyhow::Result<JobFigures> {
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
    pub(super) fn stop(self) -> anyhow::Result<()> {
        self.server.stop()
    }
}

/// The ready line, if it is that.
fn ready(line: &str) -> Option<Value> {
    let value: Value = serde_json::from_str(line).ok()?;
    (value.get("ready") == Some(&Value::Bool(true))).then_some(value)
}

/// Two tenants; the first may read the sources.
fn policy(sources: &Path) -> String {
    // A string of JSON is one of TOML as well.
    let location = Value::from(sources.display().to_string());
    format!(
        "[tenant.analytics]\nweight = 2\n\n\
         [[tenant.analytics.dataset]]\nname = \"crates\"\nlocation = {location}\ninclude = [\"*.rs\"]\n\n\
         [tenant.research]\nweight = 1\n"
    )
}
