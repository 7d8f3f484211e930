//! Hosts are emptied and stopped, with real processes: what they had is read from others, and nothing runs again.

#![allow(clippy::unwrap_used, reason = "what goes wrong in a test ends it")]

use partita_tests::{Cluster, Finished, example_job};
use serde_json::Value;

/// Runs a job to its end and returns its number and its result.
fn run(cluster: &Cluster) -> (String, Value) {
    let job = example_job("monte-carlo").replace("tasks = 100", "tasks = 20").replace("10_000_000", "100_000");
    let number = cluster.submit("research", &job);
    let mut watch = cluster.watch("research", &number);
    let line = watch.line("the end of the job", |line| line.contains("job-ended"));
    assert!(line.contains("succeeded"), "{line}");
    let result = result(cluster, &number);
    (number, result)
}

fn result(cluster: &Cluster, number: &str) -> Value {
    let result = cluster.ask("research", &["job", "result", number, "merge"]);
    serde_json::Deserializer::from_str(&result).into_iter().last().unwrap().unwrap()
}

/// Attempts of a job that ended, as its summary tells.
fn attempts(cluster: &Cluster, number: &str) -> Value {
    let shown: Value = serde_json::from_str(&cluster.ask("research", &["--json", "job", "show", number])).unwrap();
    shown["totals"]["attempts"].clone()
}

fn host(cluster: &Cluster, name: &str) -> Value {
    serde_json::from_str(&cluster.ask("admin", &["--json", "host", "show", name])).unwrap()
}

#[test]
fn a_kept_result_outlives_its_drained_and_killed_host_and_nothing_runs_again() {
    let mut cluster = Cluster::start(1);
    let (number, before) = run(&cluster);
    let ran = attempts(&cluster, &number);
    assert!(ran.as_u64().is_some_and(|ran| ran > 20), "{ran}");
    assert!(host(&cluster, "host-1")["stored_partitions"].as_u64().unwrap() > 0);
    cluster.add_host("host-2");

    let told = cluster.ask("admin", &["host", "drain", "host-1", "--timeout", "1m"]);
    assert!(told.contains("host host-1 is drained"), "{told}");
    let drained = host(&cluster, "host-1");
    assert_eq!((&drained["drain"]["done"], &drained["stored_partitions"]), (&true.into(), &0.into()), "{drained}");
    assert!(cluster.ask("admin", &["host", "list"]).contains("drained"));
    cluster.kill_host(0);

    assert_eq!(result(&cluster, &number), before);
    assert_eq!(attempts(&cluster, &number), ran);
    let (_, next) = run(&cluster);
    assert_eq!(next["samples"], before["samples"], "the other host goes on");
}

#[test]
fn a_drain_without_room_elsewhere_fails_in_time_says_why_and_can_be_taken_back() {
    let cluster = Cluster::start(1);
    let (number, before) = run(&cluster);
    let drain = ["host", "drain", "host-1", "--timeout", "1s"];
    let Finished { status, stdout, stderr } = Finished::of(cluster.partita("admin").args(drain));
    assert_eq!(status.code(), Some(1), "{stdout}{stderr}");
    assert!(stdout.contains("host host-1 is not drained after 1"), "{stdout}");
    assert!(stdout.contains("there is no other attached host that is not drained itself"), "{stdout}");
    assert!(stdout.contains("research") && stdout.contains("merge"), "{stdout}");
    assert_eq!(result(&cluster, &number), before, "it goes on serving");

    // The drain outlives the command, and tasks say what they wait for.
    let waiting = cluster.submit("research", &example_job("monte-carlo"));
    let why = cluster.ask("research", &["job", "explain", &waiting]);
    assert!(why.contains("is being drained"), "{why}");
    let back = cluster.ask("admin", &["host", "undrain", "host-1"]);
    assert!(back.contains("takes part again"), "{back}");
    assert_eq!(host(&cluster, "host-1")["drain"], Value::Null);
    let cancelled = cluster.ask("research", &["job", "cancel", &waiting]);
    assert!(cancelled.contains(&waiting), "{cancelled}");
    assert_eq!(run(&cluster).1["samples"], before["samples"]);
}

#[test]
fn only_those_who_run_the_cluster_may_drain_and_hosts_must_exist() {
    let cluster = Cluster::start(1);
    let refused = cluster.refused("research", &["host", "drain", "host-1"]);
    assert!(refused.contains("needs one of"), "{refused}");
    let unknown = cluster.refused("admin", &["host", "drain", "host-9"]);
    assert!(unknown.contains("host host-9 does not exist"), "{unknown}");
}
