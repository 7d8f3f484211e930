//! Tenants do not wait for each other, with real processes: endless tasks of one share cores with short ones of another, and a
//! limit of CPU that is lowered holds for what runs.

#![allow(clippy::unwrap_used, reason = "what goes wrong in a test ends it")]

use std::fs;

use partita_tests::{Cluster, example_job, executors, wait_until};
use serde_json::Value;

/// More tasks than there are cores, none of which ends while a test looks.
fn endless() -> String {
    example_job("monte-carlo").replace("tasks = 100", "tasks = 4").replace("10_000_000", "1_000_000_000_000")
}

fn explanation(cluster: &Cluster, number: &str) -> String {
    cluster.ask("analytics", &["job", "explain", number])
}

/// Waits until the explanation of a job has some words.
fn wait_for_words(cluster: &Cluster, number: &str, words: &str) {
    wait_until(words, || Some(explanation(cluster, number)).filter(|why| !why.contains(words)));
}

fn shown(cluster: &Cluster, number: &str) -> Value {
    serde_json::from_str(&cluster.ask("analytics", &["--json", "job", "show", number])).unwrap()
}

fn cancel(cluster: &Cluster, number: &str) {
    let told = cluster.ask("analytics", &["job", "cancel", number]);
    assert!(told.contains(number), "{told}");
}

/// Whether an executor is stopped just now, as the kernel says.
fn is_stopped(executor: rustix::process::Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", executor.as_raw_nonzero()));
    stat.is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T')))
}

#[test]
fn short_tasks_of_one_team_end_while_endless_ones_of_another_hold_every_core() {
    let cluster = Cluster::start(1);
    let endless = cluster.submit("analytics", &endless());
    wait_for_words(&cluster, &endless, "is at host host-1");
    // It holds the only core, and the place of what would follow on it.
    let short = example_job("monte-carlo").replace("tasks = 100", "tasks = 20").replace("10_000_000", "10_000");
    let (summary, _) = cluster.run("research", &short, "merge");
    assert_eq!(summary["state"], "succeeded", "{summary}");
    let shown = shown(&cluster, &endless);
    assert_eq!((&shown["state"], &shown["totals"]["attempts"]), (&"running".into(), &0.into()), "{shown}");
    assert!(explanation(&cluster, &endless).contains("is at host host-1"), "they go on");
    cancel(&cluster, &endless);
}

#[test]
fn a_limit_of_cpu_that_is_lowered_holds_for_tasks_that_run() {
    let cluster = Cluster::start(1);
    let endless = cluster.submit("analytics", &endless());
    wait_for_words(&cluster, &endless, "is at host host-1");
    assert!(!explanation(&cluster, &endless).contains("may use"), "nothing bounds it");
    let file = cluster.path().join("policies/test.toml");
    let before = fs::read_to_string(&file).unwrap();
    let quota = "[tenant.analytics.quota]\n";
    assert!(before.contains(quota), "{before}");
    fs::write(&file, before.replace(quota, &format!("{quota}cpu = 0.1\n"))).unwrap();
    wait_for_words(&cluster, &endless, "may use 0.100 cores");
    // Nine tenths of the time its executor is stopped, which a tenant that is alone and has no limit never is.
    let host = cluster.host_pid(0);
    wait_until("executor that is stopped", || {
        let running = executors(host);
        (!running.iter().any(|executor| is_stopped(*executor))).then(|| format!("{running:?} run"))
    });
    cancel(&cluster, &endless);
}
