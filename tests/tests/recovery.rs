//! Processes are killed in the middle of a job, and the result is right nevertheless.

#![allow(clippy::unwrap_used, reason = "what goes wrong in a test ends it")]

use partita_tests::{Cluster, Running, example_job, executors};
use rustix::process::{Signal, kill_process};
use serde_json::Value;

/// About fifty tasks, each long enough that most of them have not run when the first has ended.
fn job() -> String {
    example_job("monte-carlo").replace("tasks = 100", "tasks = 50").replace("10_000_000", "500_000")
}

/// Waits until some tasks have ended, and not all.
fn wait_until_some_tasks_ended(watch: &mut Running) {
    watch.line("the end of a task", |line| line.contains("tasks-ended"));
}

fn wait_until_ended(watch: &mut Running) {
    let line = watch.line("the end of the job", |line| line.contains("job-ended"));
    assert!(line.contains("succeeded"), "{line}");
}

/// The result of the last task of the tree: nothing is missing, nothing is counted twice.
fn assert_right(cluster: &Cluster, number: &str) -> Value {
    let result = cluster.ask("research", &["job", "result", number, "merge"]);
    let estimate: Value = serde_json::Deserializer::from_str(&result).into_iter().last().unwrap().unwrap();
    assert_eq!(estimate["samples"], 50 * 500_000, "{estimate}");
    estimate
}

#[test]
fn a_killed_host_costs_time_and_nothing_else() {
    let mut cluster = Cluster::start(2);
    let number = cluster.submit("research", &job());
    let mut watch = cluster.watch("research", &number);
    wait_until_some_tasks_ended(&mut watch);
    cluster.kill_host(0);
    wait_until_ended(&mut watch);
    assert_right(&cluster, &number);
}

#[test]
fn a_host_that_comes_back_takes_part_again() {
    let mut cluster = Cluster::start(1);
    let number = cluster.submit("research", &job());
    let mut watch = cluster.watch("research", &number);
    wait_until_some_tasks_ended(&mut watch);
    cluster.kill_host(0);
    cluster.restart_host(0);
    wait_until_ended(&mut watch);
    assert_right(&cluster, &number);
}

#[test]
fn a_killed_scheduler_goes_on_where_it_was() {
    let mut cluster = Cluster::start(2);
    let finished = cluster.submit("research", &job());
    wait_until_ended(&mut cluster.watch("research", &finished));
    let before = assert_right(&cluster, &finished);

    let running = cluster.submit("research", &job());
    wait_until_some_tasks_ended(&mut cluster.watch("research", &running));
    cluster.kill_scheduler();
    cluster.start_scheduler();

    wait_until_ended(&mut cluster.watch("research", &running));
    assert_right(&cluster, &running);
    assert_eq!(assert_right(&cluster, &finished), before);
    let listed = cluster.ask("research", &["--json", "job", "list"]);
    assert_eq!(listed.lines().count(), 2, "{listed}");
}

#[test]
fn an_executor_that_dies_without_work_is_charged_to_nobody() {
    let cluster = Cluster::start(1);
    let first = cluster.submit("research", &job());
    wait_until_ended(&mut cluster.watch("research", &first));
    let idle = executors(cluster.host_pid(0));
    assert!(!idle.is_empty(), "the executors of the last job are kept for a while");
    for executor in idle {
        // It may have been given up by itself meanwhile.
        let _ = kill_process(executor, Signal::KILL);
    }
    let (summary, _) = cluster.run("research", &job(), "merge");
    assert_eq!(summary["state"], "succeeded", "{summary}");
    assert_eq!(summary["attempts"], summary["tasks"], "no task was tried twice: {summary}");
}
