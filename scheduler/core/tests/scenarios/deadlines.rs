//! What does not wait for ever: tasks that no host could run, jobs with a deadline, results that were kept long enough.

use std::time::Duration;

use partita_core::{Event, JobEnd, JobEvent, Reply, Request};
use partita_policy::TenantPolicy;
use partita_testkit::{Cluster, HostModel, array, each, job, policy};
use partita_types::{ByteSize, Cause, Isolation};

const MINUTE: Duration = Duration::from_secs(60);

fn cluster() -> Cluster {
    Cluster::new().tenant(policy("acme")).host("one", 2)
}

fn assert_nothing_used(cluster: &Cluster) {
    let usage = cluster.usage("acme");
    let used =
        (usage.running_jobs, usage.queued_tasks, usage.concurrent_tasks, usage.concurrent_memory.0, usage.stored.0);
    assert_eq!(used, (0, 0, 0, 0, 0));
}

/// B15
#[test]
fn a_task_that_no_host_could_run_fails_after_the_policys_time_and_says_why() {
    let mut cluster = cluster();
    let huge = job().with(array("huge").tasks(3).memory(ByteSize::gib(3))).with(array("after").reads(each(0)));
    let id = cluster.submit("acme", huge.spec());
    cluster.advance(9 * MINUTE);
    assert_eq!(cluster.job(id).end, None);
    let why = cluster.core.explain(id, None, Some(0));
    assert!(why[0].reason.contains("the job fails in "), "{why:?}");
    cluster.advance(2 * MINUTE);
    let view = cluster.job(id);
    assert_eq!((view.end, view.totals.attempts), (Some(JobEnd::Failed), 0), "nothing ever ran");
    let failure = view.failure.unwrap().2;
    assert_eq!(failure.cause, Cause::Unrunnable);
    assert!(failure.message.contains("each needs 3 GiB of memory"), "{}", failure.message);
    assert_eq!(cluster.counts(id, 1).aborted, 1);
    let failed = |event: &&JobEvent| matches!(event, JobEvent::AttemptFailed { .. });
    assert_eq!(cluster.events[&id].iter().filter(failed).count(), 1, "it is told once");
    assert_nothing_used(&cluster);
}

/// B15
#[test]
fn a_task_that_only_waits_for_its_turn_never_runs_out_of_time() {
    let mut cluster = cluster();
    cluster.submit("acme", job().with(array("busy").tasks(50)).spec());
    let id = cluster.submit("acme", job().with(array("behind").tasks(1)).spec());
    cluster.advance(30 * MINUTE);
    assert_eq!((cluster.job(id).end, cluster.counts(id, 0).ready), (None, 1));
}

/// B15: limits that were lowered after a task was admitted.
#[test]
fn a_task_that_a_lowered_limit_holds_for_ever_fails_after_the_policys_time_and_says_why() {
    let lower: [fn(&mut TenantPolicy); 2] = [
        |policy| policy.quota.concurrent_memory = ByteSize::mib(500),
        |policy| policy.share.borrow.memory = Some(ByteSize::mib(500)),
    ];
    for lower in lower {
        let mut cluster = Cluster::new().tenant(policy("acme"));
        let id = cluster.submit("acme", job().with(array("a").tasks(1).memory(ByteSize::gib(1))).spec());
        let mut lowered = policy("acme");
        lower(&mut lowered);
        cluster.define(lowered);
        cluster.attach_new(HostModel::new("one", 2));
        cluster.advance(9 * MINUTE);
        assert_eq!(cluster.job(id).end, None);
        cluster.advance(2 * MINUTE);
        let failure = cluster.job(id).failure.unwrap().2;
        assert_eq!(failure.cause, Cause::Unrunnable);
        assert!(failure.message.contains("500 MiB"), "{}", failure.message);
        assert_nothing_used(&cluster);
    }
}

/// B15: an empty cluster says nothing about tasks.
#[test]
fn tasks_of_a_cluster_without_hosts_wait_for_the_first() {
    let mut cluster = Cluster::new().tenant(policy("acme"));
    let id = cluster.submit("acme", job().with(array("a").tasks(1)).spec());
    cluster.advance(30 * MINUTE);
    assert_eq!(cluster.job(id).end, None);
    cluster.attach_new(HostModel::new("one", 1));
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
}

#[test]
fn a_host_that_fits_in_time_saves_the_task_and_the_clock_starts_anew() {
    let mut strict = policy("acme");
    strict.minimum_isolation = Isolation::Full;
    let mut cluster = Cluster::new().tenant(strict);
    let mut weak = HostModel::new("weak", 1);
    weak.isolation = Isolation::Process;
    cluster.attach_new(weak);
    let id = cluster.submit("acme", job().with(array("a").tasks(1)).spec());
    cluster.advance(9 * MINUTE);
    cluster.attach_new(HostModel::new("strong", 1));
    assert_eq!(cluster.counts(id, 0).assigned, 1);
    cluster.advance(MINUTE);
    cluster.detach("strong");
    cluster.advance(9 * MINUTE);
    assert_eq!(cluster.job(id).end, None);
    cluster.advance(2 * MINUTE);
    assert_eq!(cluster.job(id).end, Some(JobEnd::Failed));
}

#[test]
fn a_job_is_stopped_at_its_deadline_with_an_end_of_its_own() {
    let mut cluster = cluster();
    let quick = cluster.submit("acme", job().deadline(5 * MINUTE).with(array("b").tasks(1)).spec());
    cluster.run_all();
    let id = cluster.submit("acme", job().deadline(5 * MINUTE).with(array("a").tasks(20)).spec());
    cluster.run_frame("one");
    cluster.advance(4 * MINUTE);
    assert_eq!(cluster.job(id).end, None);
    let succeeded = cluster.counts(id, 0).succeeded;
    cluster.advance(2 * MINUTE);
    assert_eq!(cluster.job(id).end, Some(JobEnd::Expired));
    assert_eq!(cluster.counts(id, 0).cancelled, 20 - succeeded);
    assert!(cluster.tasks_at("one").is_empty(), "what ran of it was stopped");
    assert_eq!(cluster.job(quick).end, Some(JobEnd::Succeeded), "one that ended in time is left alone");
    assert_eq!(cluster.events[&id].last(), Some(&JobEvent::Ended(JobEnd::Expired)));
    assert!(matches!(cluster.request(Request::Cancel(id)), Reply::Refused(_)));
    cluster.restart_scheduler();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Expired));
}

#[test]
fn a_deadline_that_passed_while_the_scheduler_was_away_counts() {
    let mut cluster = cluster();
    let id = cluster.submit("acme", job().deadline(MINUTE).with(array("a").tasks(1)).spec());
    cluster.restart_scheduler();
    cluster.now = cluster.now.after(2 * MINUTE);
    assert!(cluster.core.next_deadline().is_some_and(|at| at <= cluster.now));
    cluster.apply(Event::Ticked);
    assert_eq!(cluster.job(id).end, Some(JobEnd::Expired));
}

/// Whatever becomes of its hosts, no task is handed out for ever.
#[test]
fn a_task_that_takes_its_host_down_each_time_is_given_up_some_day() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1);
    let id = cluster.submit("acme", job().with(array("a").tasks(1).options(|options| options.retries = 100)).spec());
    let mut attempts = 0;
    while cluster.job(id).end.is_none() {
        attempts += 1;
        assert!(attempts <= 1_000, "this goes on for ever");
        cluster.detach("one");
        cluster.model("one").restart();
        cluster.attach("one");
    }
    let view = cluster.job(id);
    assert_eq!((view.end, view.failure.unwrap().2.cause), (Some(JobEnd::Failed), Cause::HostLost));
}

fn keeping(retention: Option<Duration>) -> partita_policy::TenantPolicy {
    partita_policy::TenantPolicy { retention, ..policy("acme") }
}

#[test]
fn results_are_given_up_when_the_policys_retention_is_over() {
    let mut cluster = Cluster::new().tenant(keeping(Some(10 * MINUTE))).host("one", 2);
    let first = cluster.submit("acme", job().with(array("a").tasks(3)).spec());
    cluster.run_all();
    cluster.advance(6 * MINUTE);
    let second = cluster.submit("acme", job().with(array("a").tasks(3)).spec());
    cluster.run_all();
    cluster.advance(5 * MINUTE);
    assert!(cluster.core.job(first).is_none());
    assert_eq!(cluster.model("one").store.len(), 3, "those of the second job");
    cluster.advance(6 * MINUTE);
    assert!(cluster.core.job(second).is_none());
    assert!(cluster.model("one").store.is_empty());
    assert!(cluster.events.is_empty());
    assert_nothing_used(&cluster);
    cluster.restart_scheduler();
    assert!(cluster.core.job(first).is_none() && cluster.core.job(second).is_none(), "after a replay, too");
    assert_nothing_used(&cluster);
}

#[test]
fn a_job_that_goes_on_is_never_given_up_however_old_it_is() {
    let mut cluster = Cluster::new().tenant(keeping(Some(MINUTE))).host("one", 2);
    let open = cluster.submit("acme", job().open().with(array("a").tasks(1)).spec());
    cluster.run_all();
    cluster.advance(30 * MINUTE);
    assert_eq!(cluster.results(open, 0).len(), 1);
    cluster.request(Request::Close(open));
    cluster.advance(2 * MINUTE);
    assert!(cluster.core.job(open).is_none());
}

#[test]
fn retention_follows_the_policy_and_without_one_results_stay() {
    let mut cluster = Cluster::new().tenant(keeping(None)).host("one", 2);
    let id = cluster.submit("acme", job().with(array("a").tasks(1)).spec());
    cluster.run_all();
    cluster.advance(30 * MINUTE);
    assert_eq!(cluster.results(id, 0).len(), 1);
    cluster.restart_scheduler();
    cluster.define(keeping(Some(MINUTE)));
    cluster.attach("one");
    cluster.advance(Duration::from_secs(1));
    assert!(cluster.core.job(id).is_none(), "it ended long ago");
    assert!(cluster.model("one").store.is_empty());
}
