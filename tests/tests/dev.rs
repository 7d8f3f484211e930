//! `partita dev`: a whole cluster, from its ready line to its end without a trace.

#![allow(clippy::unwrap_used, reason = "what goes wrong in a test ends it")]

use std::path::Path;
use std::process::Command;

use partita_tests::{Family, Finished, Running, example_job, partita, wait_until_gone};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

struct Dev {
    process: Running,
    ready: Value,
}

fn command(home: &Path) -> Command {
    let mut command = partita();
    command.env("HOME", home).env_remove("PARTITA_CONFIG").env_remove("PARTITA_CONTEXT").arg("--json");
    command
}

impl Dev {
    fn start(home: &Path) -> Self {
        let mut dev = command(home);
        dev.args(["dev", "--hosts", "2", "--data"]).arg(home.join("cluster"));
        let mut process = Running::start(&mut dev);
        let line = process.line("ready line", |line| line.contains("\"ready\":true"));
        Self { process, ready: serde_json::from_str(&line).unwrap() }
    }

    /// Ends it as Ctrl-C does, and looks whether everything is gone.
    fn stop(self) {
        let family = Family::of(self.process.pid());
        assert!(family.len() > 5, "a scheduler, two hosts and their zygotes: {family:?}");
        self.process.signal(Signal::INT);
        let (status, output) = self.process.end();
        assert!(status.success(), "{status}\n{output}");
        wait_until_gone(&family);
    }
}

#[test]
fn a_cluster_comes_up_and_leaves_no_process_behind() {
    let home = TempDir::new().unwrap();
    let dev = Dev::start(home.path());
    assert_eq!(dev.ready["contexts"], serde_json::json!(["analytics", "research", "admin"]));
    let hosts = Finished::of(command(home.path()).args(["host", "list"])).success();
    let hosts: Vec<Value> = hosts.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(hosts.len(), 2);
    for host in &hosts {
        assert_eq!(host["state"], "attached", "{host}");
    }
    dev.stop();
}

#[test]
fn a_cluster_that_is_started_again_has_its_jobs() {
    let home = TempDir::new().unwrap();
    let file = home.path().join("job.toml");
    std::fs::write(&file, example_job("monte-carlo").replace("10_000_000", "1_000")).unwrap();
    let dev = Dev::start(home.path());
    let run = Finished::of(command(home.path()).arg("run").arg(&file)).success();
    assert!(run.contains("\"state\":\"succeeded\""), "{run}");
    dev.stop();

    let dev = Dev::start(home.path());
    let jobs = Finished::of(command(home.path()).args(["job", "list"])).success();
    assert!(jobs.contains("\"monte-carlo\"") && jobs.contains("\"succeeded\""), "{jobs}");
    dev.stop();
}

#[test]
fn a_directory_has_one_cluster_at_a_time() {
    let home = TempDir::new().unwrap();
    let dev = Dev::start(home.path());
    let mut second = command(home.path());
    second.args(["dev", "--data"]).arg(home.path().join("cluster"));
    let error = Finished::of(&mut second).failure();
    assert!(error.contains("a cluster is running in"), "{error}");
    dev.stop();
}
