//! The cluster that is measured: `partita dev` with two hosts and one tenant without tight limits.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use partita_client::{Client, Connection, Token};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// The tenant of the measurements. Its tokens are found under this name in the data directory.
const TENANT: &str = "bench";
/// Room for the largest arrays and partitions that are measured.
const POLICY: &str =
    "[tenant.bench.quota]\nconcurrent_tasks = 4096\nconcurrent_memory = \"1TiB\"\nstored = \"64GiB\"\n";

/// A running cluster. Stopped when dropped.
pub(crate) struct Cluster {
    dev: Child,
    scratch: TempDir,
    address: String,
}

impl Cluster {
    /// Starts it and waits until it is ready.
    pub(crate) fn start(program: &Path) -> anyhow::Result<Self> {
        let scratch = tempfile::Builder::new().prefix("partita-bench-").tempdir();
        let scratch = scratch.context("cannot create a temporary directory")?;
        let policies = scratch.path().join("policies");
        fs::create_dir(&policies).context("cannot create the directory of policies")?;
        fs::write(policies.join("bench.toml"), POLICY).context("cannot write the policy")?;
        let mut command = Command::new(program);
        command.env("HOME", scratch.path()).args(["--json", "dev", "--hosts", "2", "--log", "warn"]);
        command.arg("--data").arg(scratch.path().join("cluster")).arg("--policies").arg(&policies);
        let dev = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let dev = dev.with_context(|| format!("cannot start {}", program.display()))?;
        let mut cluster = Self { dev, scratch, address: String::new() };
        cluster.address = cluster.wait_until_ready()?;
        Ok(cluster)
    }

    /// The address of the scheduler, once it is ready.
    fn wait_until_ready(&mut self) -> anyhow::Result<String> {
        let out = self.dev.stdout.take().context("the cluster has no standard output")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).context("cannot read what the cluster prints")?;
        ensure!(!line.is_empty(), "the cluster ended before it was ready");
        let ready: Value = serde_json::from_str(&line).with_context(|| format!("the cluster is not ready: {line}"))?;
        ready.get("address").and_then(Value::as_str).map(str::to_owned).context("the ready line has no address")
    }

    /// A client of the tenant.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let read = |path: PathBuf| fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()));
        let data = self.scratch.path().join("cluster");
        let connection = Connection {
            address: self.address.clone(),
            authority_pem: read(data.join("scheduler/authority/ca.pem"))?,
            token: Token::new(&read(data.join("tokens").join(format!("{TENANT}.token")))?),
        };
        Client::connect(&connection).context("cannot make a client")
    }

    /// Stops it.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let _ = kill_process(Pid::from_child(&self.dev), Signal::TERM);
        let status = self.dev.wait().context("cannot wait for the end of the cluster")?;
        ensure!(status.success(), "the cluster ended with {status}");
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Its processes die with it; after `stop` there is nothing left to end.
        let _ = self.dev.kill();
        let _ = self.dev.wait();
    }
}
