//! A cluster of single processes, as an administrator starts them on several machines: a scheduler, and hosts with join
//! tokens. The scheduler can be killed and started again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use super::policy;
use crate::children::{self, Server};
use crate::cluster::{command, ready};

/// How long a process may take until it is ready.
const START: Duration = Duration::from_secs(60);
/// The tenant.
const TENANT: &str = "analytics";

/// The processes. Stopped when dropped, the hosts first.
pub(super) struct Parts {
    hosts: Vec<Server>,
    scheduler: Option<Server>,
    program: PathBuf,
    scratch: PathBuf,
    /// Where the scheduler listens; stays the same when it is started again.
    address: String,
}

impl Parts {
    /// Starts all of them.
    pub(super) fn start(program: &Path, scratch: &Path, sources: &Path, hosts: u32) -> anyhow::Result<Self> {
        let policies = scratch.join("policies");
        fs::create_dir(&policies).with_context(|| format!("cannot create {}", policies.display()))?;
        write(&policies.join("demo.toml"), &policy(sources))?;
        let address = "127.0.0.1:0".to_owned();
        let (program, scratch) = (program.to_owned(), scratch.to_owned());
        let mut parts = Self { hosts: Vec::new(), scheduler: None, program, scratch, address };
        parts.start_scheduler()?;
        let token = parts.scratch.join("token");
        parts.issue(&token, &["--tenant", TENANT, "--subject", "demo", "--role", "developer"])?;
        let (address, authority) = (&parts.address, parts.authority());
        let config = format!("[context.demo]\naddress = {address:?}\nauthority = {authority:?}\ntoken = {token:?}\n");
        write(&parts.config(), &config)?;
        (1..=hosts).try_for_each(|number| parts.add_host(&format!("host-{number}")))?;
        Ok(parts)
    }

    /// The program as the tenant.
    pub(super) fn partita(&self) -> Command {
        let mut partita = command(&self.program, &self.scratch);
        partita.arg("--config").arg(self.config()).args(["--context", "demo"]);
        partita
    }

    /// Kills the scheduler with SIGKILL.
    pub(super) fn kill_scheduler(&mut self) -> anyhow::Result<()> {
        self.scheduler.take().context("the scheduler does not run")?.kill()
    }

    /// Starts the scheduler, where it was before, and waits until it is ready.
    pub(super) fn start_scheduler(&mut self) -> anyhow::Result<()> {
        let mut scheduler = command(&self.program, &self.scratch);
        scheduler.args(["--json", "scheduler", "--cluster", "demo", "--log", "warn", "--metrics", "127.0.0.1:0"]);
        scheduler.args(["--listen", &self.address]).arg("--data").arg(self.data());
        scheduler.arg("--policies").arg(self.scratch.join("policies"));
        let server = Server::start(&mut scheduler)?;
        let ready = server.line("line that says it is ready", START, ready)?;
        let address = ready.get("address").and_then(Value::as_str);
        self.address = address.context("the ready line of the scheduler has no address")?.to_owned();
        self.scheduler = Some(server);
        Ok(())
    }

    fn add_host(&mut self, name: &str) -> anyhow::Result<()> {
        let token = self.scratch.join(format!("{name}.join"));
        self.issue(&token, &["--join", name])?;
        let mut host = command(&self.program, &self.scratch);
        // Hosts tell of the scheduler's end; here everybody knows.
        host.args(["--json", "host", "--log", "error", "--name", name, "--scheduler", &self.address, "--cores", "1"]);
        host.arg("--authority").arg(self.authority()).arg("--data").arg(self.scratch.join(name));
        host.arg("--join-token-file").arg(token);
        let server = Server::start(&mut host)?;
        server.line("line that says it is ready", START, ready)?;
        self.hosts.push(server);
        Ok(())
    }

    /// Has a token written to a file.
    fn issue(&self, file: &Path, what: &[&str]) -> anyhow::Result<()> {
        let mut issue = command(&self.program, &self.scratch);
        issue.args(["token", "issue", "--data"]).arg(self.data()).args(what);
        write(file, &children::output(&mut issue)?)
    }

    fn data(&self) -> PathBuf {
        self.scratch.join("scheduler")
    }

    fn authority(&self) -> PathBuf {
        self.data().join("authority/ca.pem")
    }

    fn config(&self) -> PathBuf {
        self.scratch.join("config.toml")
    }

    /// Stops all of them.
    pub(super) fn stop(self) -> anyhow::Result<()> {
        self.hosts.into_iter().chain(self.scheduler).try_for_each(Server::stop)
    }
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
