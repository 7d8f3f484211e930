//! A cluster as an administrator would start it: a scheduler, hosts with join tokens, and a configuration with a context
//! for each tenant. Each process can be killed and started again.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Family, Finished, Running, partita, repository, wait_until_gone};

/// Two tenants. The first may read the directory `crates` of the cluster's own directory, and the table of the example.
pub const POLICY: &str = r#"
[tenant.analytics]
weight = 2

[tenant.analytics.quota]
module_size = "4MiB"

[[tenant.analytics.dataset]]
name = "crates"
location = "DIRECTORY/crates"
include = ["*.rs"]

[[tenant.analytics.dataset]]
name = "countries"
location = "REPOSITORY/examples/etl/data"
include = ["countries*.csv"]

[tenant.research]
"#;

/// A running cluster. Its processes are killed when it is dropped.
pub struct Cluster {
    scheduler: Option<Running>,
    hosts: Vec<Host>,
    /// Of the scheduler; stays the same when it is started again.
    address: String,
    directory: TempDir,
}

struct Host {
    name: String,
    process: Option<Running>,
    address: String,
}

impl Cluster {
    /// Starts a scheduler with [`POLICY`] and so many hosts of one core.
    ///
    /// # Panics
    /// If anything does not start.
    #[must_use]
    pub fn start(hosts: usize) -> Self {
        let directory = TempDir::new().expect("there is room for a temporary directory");
        let path = directory.path();
        for part in ["policies", "crates", "home", "temporary"] {
            fs::create_dir(path.join(part)).expect("a new directory is empty");
        }
        let text = POLICY.replace("DIRECTORY", &path.display().to_string());
        let text = text.replace("REPOSITORY", &repository().display().to_string());
        fs::write(path.join("policies/test.toml"), text).expect("the policy can be written");
        let address = "127.0.0.1:0".to_owned();
        let mut cluster = Self { scheduler: None, hosts: Vec::new(), address, directory };
        cluster.start_scheduler();
        cluster.write_configuration();
        for number in 1..=hosts {
            cluster.add_host(&format!("host-{number}"));
        }
        cluster
    }

    /// The directory in which the cluster has everything.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The address of the scheduler.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The addresses of the hosts.
    pub fn host_addresses(&self) -> impl Iterator<Item = &str> {
        self.hosts.iter().map(|host| host.address.as_str())
    }

    /// The data directory of the scheduler.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.path().join("scheduler")
    }

    /// Where its processes would put temporary files.
    #[must_use]
    pub fn temporary(&self) -> PathBuf {
        self.path().join("temporary")
    }

    /// The certificate of the cluster's authority.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.data().join("authority/ca.pem")
    }

    /// The program with a clean environment.
    #[must_use]
    pub fn program(&self) -> Command {
        let mut command = partita();
        command.env("HOME", self.path().join("home")).env_remove("PARTITA_CONFIG").env_remove("PARTITA_CONTEXT");
        command.env("PARTITA_LOG", "info").env("TMPDIR", self.temporary()).current_dir(self.path());
        command
    }

    /// The program as somebody: `analytics`, `research`, or `admin`.
    #[must_use]
    pub fn partita(&self, who: &str) -> Command {
        let mut command = self.program();
        command.arg("--config").arg(self.path().join("config.toml")).args(["--context", who]);
        command
    }

    /// Runs a command as somebody, which must succeed.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn ask(&self, who: &str, arguments: &[&str]) -> String {
        Finished::of(self.partita(who).args(arguments)).success()
    }

    /// Runs a command as somebody, which must fail, and returns its error.
    ///
    /// # Panics
    /// If it does not fail.
    #[must_use]
    pub fn refused(&self, who: &str, arguments: &[&str]) -> String {
        Finished::of(self.partita(who).args(arguments)).failure()
    }

    /// Runs a job to its end and returns its summary and the outputs of one array.
    ///
    /// # Panics
    /// If it does not succeed.
    #[must_use]
    pub fn run(&self, who: &str, job: &str, array: &str) -> (Value, String) {
        let (file, result) = (self.path().join("job.toml"), self.path().join("result"));
        fs::write(&file, job).expect("the job file can be written");
        let mut command = self.partita(who);
        command.args(["--json", "run"]).arg(&file).args(["--result", array]).arg("--output").arg(&result);
        let output = Finished::of(&mut command).success();
        let last = output.lines().last().unwrap_or_default();
        let summary = serde_json::from_str(last).unwrap_or_else(|error| panic!("{error} in {output}"));
        (summary, fs::read_to_string(result).expect("the result was written"))
    }

    /// Submits a job without waiting for it and returns its number.
    ///
    /// # Panics
    /// If it is refused.
    #[must_use]
    pub fn submit(&self, who: &str, job: &str) -> String {
        let file = self.path().join("job.toml");
        fs::write(&file, job).expect("the job file can be written");
        let output = Finished::of(self.partita(who).arg("run").arg(&file).arg("--detach")).success();
        output.lines().last().unwrap_or_default().trim().to_owned()
    }

    /// Follows the events of a job, as lines of JSON.
    #[must_use]
    pub fn watch(&self, who: &str, job: &str) -> Running {
        Running::start(self.partita(who).args(["--json", "job", "watch", job]))
    }

    /// What the cluster says of its hosts, in the order in which the scheduler met them.
    ///
    /// # Panics
    /// If it does not answer.
    #[must_use]
    pub fn host_list(&self) -> Vec<Value> {
        let text = self.ask("admin", &["--json", "host", "list"]);
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
        text.lines().map(parse).collect()
    }

    /// What the cluster says of one host.
    ///
    /// # Panics
    /// If it does not know it.
    #[must_use]
    pub fn host_status(&self, position: usize) -> Value {
        let name = &self.hosts[position].name;
        let found = self.host_list().into_iter().find(|host| host["name"] == name.as_str());
        found.unwrap_or_else(|| panic!("nobody knows {name}"))
    }

    /// The process of the scheduler.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn scheduler_pid(&self) -> Pid {
        self.scheduler.as_ref().expect("the scheduler runs").pid()
    }

    /// The process of a host.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn host_pid(&self, position: usize) -> Pid {
        self.hosts[position].process.as_ref().expect("the host runs").pid()
    }

    /// The processes of scheduler and hosts that run, with all that descend from them.
    #[must_use]
    pub fn family(&self) -> Family {
        let hosts = self.hosts.iter().filter_map(|host| host.process.as_ref());
        let mut all = Family::default();
        for process in hosts.chain(&self.scheduler) {
            all = all.and(&Family::of(process.pid()));
        }
        all
    }

    /// Ends hosts and scheduler as an administrator does, with SIGTERM, and waits until nothing of them is left.
    ///
    /// # Panics
    /// If one of them does not end well.
    pub fn stop(&mut self) {
        let family = self.family();
        let hosts = self.hosts.iter_mut().filter_map(|host| host.process.take());
        for process in hosts.chain(self.scheduler.take()) {
            process.signal(Signal::TERM);
            let (status, output) = process.end();
            assert!(status.success(), "{status}\n{output}");
        }
        wait_until_gone(&family);
    }

    /// Sends a signal to the daemon of a host.
    ///
    /// # Panics
    /// If it does not run.
    pub fn signal_host(&self, position: usize, signal: Signal) {
        self.hosts[position].process.as_ref().expect("the host runs").signal(signal);
    }

    /// Kills a host with SIGKILL, executors and all.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill_host(&mut self, position: usize) {
        let process = self.hosts[position].process.take().expect("the host runs");
        process.signal(Signal::KILL);
        let _ = process.end();
    }

    /// Waits until the scheduler ended by itself, and returns how, with its output.
    ///
    /// # Panics
    /// If it does not run, or does not end.
    pub fn scheduler_end(&mut self) -> (ExitStatus, String) {
        self.scheduler.take().expect("the scheduler runs").end()
    }

    /// Kills the scheduler with SIGKILL.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill_scheduler(&mut self) {
        let process = self.scheduler.take().expect("the scheduler runs");
        process.signal(Signal::KILL);
        let _ = process.end();
    }

    /// Starts the scheduler, at the address that it had before.
    ///
    /// # Panics
    /// If it does not get ready.
    pub fn start_scheduler(&mut self) {
        self.start_scheduler_by(self.scheduler_command());
    }

    /// Starts the scheduler with a changed [`Self::scheduler_command`], at the address that it had before.
    ///
    /// # Panics
    /// If it does not get ready.
    pub fn start_scheduler_by(&mut self, mut command: Command) {
        command.args(["--listen", &self.address]);
        let mut process = Running::start(&mut command);
        self.address = text(&ready(&mut process), "address");
        self.scheduler = Some(process);
    }

    /// A command that starts a scheduler with the data of this cluster; its address is missing.
    #[must_use]
    pub fn scheduler_command(&self) -> Command {
        let mut command = self.program();
        command.args(["--json", "scheduler", "--cluster", "test", "--metrics", "127.0.0.1:0"]);
        command.arg("--data").arg(self.data()).arg("--policies").arg(self.path().join("policies"));
        command.arg("--die-with").arg(std::process::id().to_string());
        command
    }

    /// A command that starts a host; its join token is missing.
    #[must_use]
    pub fn host_command(&self, name: &str) -> Command {
        let mut command = self.program();
        command.args(["--json", "host", "--name", name, "--scheduler", &self.address, "--cores", "1"]);
        command.args(["--memory", "1GiB", "--partitions", "512MiB"]);
        command.arg("--authority").arg(self.authority()).arg("--data").arg(self.path().join(name));
        command.arg("--die-with").arg(std::process::id().to_string());
        command
    }

    /// Adds a host, and waits until it is ready.
    ///
    /// # Panics
    /// If it does not get ready.
    pub fn add_host(&mut self, name: &str) {
        let token = self.path().join(format!("{name}.join"));
        self.issue(&token, &["--join", name]);
        let mut process = Running::start(self.host_command(name).arg("--join-token-file").arg(token));
        let address = text(&ready(&mut process), "address");
        self.hosts.push(Host { name: name.to_owned(), process: Some(process), address });
    }

    /// Starts a host again that was killed, without a join token.
    ///
    /// # Panics
    /// If it does not get ready.
    pub fn restart_host(&mut self, position: usize) {
        let mut process = Running::start(&mut self.host_command(&self.hosts[position].name));
        self.hosts[position].address = text(&ready(&mut process), "address");
        self.hosts[position].process = Some(process);
    }

    /// Has a token written to a file.
    fn issue(&self, file: &Path, what: &[&str]) {
        let mut command = self.program();
        command.args(["token", "issue", "--data"]).arg(self.data()).args(what);
        let token = Finished::of(&mut command).success();
        fs::write(file, token).expect("the token can be written");
    }

    fn write_configuration(&self) {
        let mut text = String::new();
        for (who, tenant, role) in [
            ("analytics", "analytics", "developer"),
            ("research", "research", "developer"),
            ("admin", "research", "admin"),
        ] {
            let token = self.path().join(format!("{who}.token"));
            self.issue(&token, &["--tenant", tenant, "--subject", "test", "--role", role]);
            text.push_str(&self.context(who, &token));
        }
        fs::write(self.path().join("config.toml"), text).expect("the configuration can be written");
    }

    /// The text of a context that uses the token in a file.
    #[must_use]
    pub fn context(&self, name: &str, token: &Path) -> String {
        let mut text = String::new();
        let (address, authority) = (&self.address, self.authority());
        // Writing into a string does not fail.
        let _ = writeln!(text, "[context.{name}]\naddress = {address:?}\nauthority = {authority:?}\ntoken = {token:?}");
        text
    }
}

/// The line with which a process says that it is ready.
fn ready(process: &mut Running) -> Value {
    let is_ready = |line: &str| serde_json::from_str::<Value>(line).is_ok_and(|value| value["ready"] == true);
    let line = process.line("line that says it is ready", is_ready);
    serde_json::from_str(&line).expect("it was JSON a moment ago")
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("there is no {key} in {value}")).to_owned()
}
