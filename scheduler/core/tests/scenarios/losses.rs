//! Hosts that die in the middle of work, failures that come late, and what is not done twice.

use std::time::Duration;

use partita_core::{HOST_TIMEOUT, HostMessage, JobEnd, JobEvent, Refusal, Reply, Request};
use partita_testkit::{Cluster, HostModel, Reference, all, array, fold, job, policy};
use partita_types::{ArrayIndex, Cause, JobId, Report};

const MOMENT: Duration = Duration::from_secs(1);

fn two_hosts() -> Cluster {
    Cluster::new().tenant(policy("acme")).host("one", 1).host("two", 1)
}

/// The process of a host dies with everything that it had, and another one starts under its name.
fn hard_exit(cluster: &mut Cluster, name: &str) {
    cluster.detach(name);
    cluster.model(name).restart();
    cluster.attach(name);
}

fn ran(cluster: &Cluster, id: JobId) -> u64 {
    cluster.job(id).totals.attempts
}

/// B20
#[test]
fn results_that_died_with_a_host_are_made_again_for_a_sum_and_no_others() {
    let mut cluster = two_hosts();
    let id = cluster.submit("acme", job().open().with(array("a").tasks(10)).spec());
    cluster.run_all();
    let lost = cluster.model("one").store.len() as u64;
    assert!((1..10).contains(&lost), "both hosts have some");
    cluster.detach("one");
    cluster.advance(HOST_TIMEOUT + MOMENT);
    assert_eq!(ran(&cluster, id), 10, "nobody needs them yet");
    let key = partita_core::IdempotencyKey([7; 16]);
    cluster.request(Request::Extend { job: id, key, arrays: vec![array("sum").reads(all(0)).spec()] });
    cluster.run_all();
    assert_eq!(ran(&cluster, id), 10 + lost + 1);
    let spec = job().with(array("a").tasks(10)).with(array("sum").reads(all(0))).spec();
    let right = Reference::new(&spec).output(1, 0, 0);
    assert_eq!(cluster.results(id, 1).into_values().collect::<Vec<_>>(), [right]);
}

/// B21
#[test]
fn a_tree_of_256_is_right_though_a_host_dies_twice() {
    let mut cluster = two_hosts();
    let spec = job().with(array("leaf").tasks(256)).with(array("tree").reads(fold(0, 2))).spec();
    let reference = Reference::new(&spec);
    let id = cluster.submit("acme", spec);
    let mut frames = 0;
    while cluster.job(id).end.is_none() {
        let name = if cluster.tasks_at("one").is_empty() { "two" } else { "one" };
        cluster.run_frame(name);
        frames += 1;
        if frames == 20 || frames == 45 {
            hard_exit(&mut cluster, "one");
        }
    }
    assert!(frames > 45 && cluster.job(id).end == Some(JobEnd::Succeeded));
    let last = cluster.counts(id, 1).succeeded - 1;
    assert_eq!(cluster.results(id, 1)[&(1, last, 0)], reference.output(1, last, 0));
}

/// B27
#[test]
fn neither_a_result_that_is_kept_nor_an_error_is_made_again() {
    let mut cluster = two_hosts();
    let kept = cluster.submit("acme", job().with(array("a").tasks(3)).spec());
    cluster.run_all();
    for _ in 0..3 {
        assert_eq!(cluster.results(kept, 0).len(), 3);
    }
    assert_eq!(ran(&cluster, kept), 3);
    let failed = cluster.submit("acme", job().with(array("a").tasks(1)).spec());
    let host = if cluster.tasks_at("one").is_empty() { "two" } else { "one" };
    let run = cluster.take_run(host, 0, 0);
    cluster.fail(host, &run, Cause::Failed);
    let reply = cluster.request(Request::Locate { job: failed, array: ArrayIndex(0), tasks: 0..1, output: 0 });
    assert!(matches!(reply, Reply::Refused(Refusal::State { state: "failed", .. })), "{reply:?}");
    assert_eq!((ran(&cluster, failed), cluster.tasks_at(host).len()), (1, 0));
}

/// B28
#[test]
fn hosts_may_speak_of_tasks_that_were_cancelled_and_released() {
    let mut cluster = two_hosts();
    let id = cluster.submit("acme", job().with(array("a").tasks(100)).spec());
    let frames = [cluster.frames("one"), cluster.frames("two")].concat();
    let started: Vec<_> = frames.iter().filter_map(|frame| frame.attempt(0)).collect();
    cluster.request(Request::Cancel(id));
    for _ in 0..2 {
        let finished_frames = frames.iter().map(|frame| frame.id).collect();
        let report = Report { started: started.clone(), finished_frames, ..Report::default() };
        cluster.say("one", HostMessage::Report(report.clone()));
        cluster.say("two", HostMessage::Report(report));
        cluster.say("one", HostMessage::Heartbeat);
        cluster.request(Request::Release(id));
    }
    assert!(cluster.disconnected.is_empty());
    let next = cluster.submit("acme", job().with(array("a").tasks(2)).spec());
    cluster.run_all();
    assert_eq!(cluster.job(next).end, Some(JobEnd::Succeeded));
}

/// B30
#[test]
fn a_task_that_fails_twice_succeeds_with_two_retries_and_not_with_one() {
    for (retries, end) in [(1, JobEnd::Failed), (2, JobEnd::Succeeded)] {
        let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1);
        let id = cluster.submit("acme", job().with(array("a").tasks(1).options(|o| o.retries = retries)).spec());
        for _ in 0..2 {
            let run = cluster.take_run("one", 0, 0);
            cluster.fail("one", &run, Cause::Panic);
            cluster.advance(MOMENT);
        }
        cluster.run_all();
        assert_eq!(cluster.job(id).end, Some(end));
    }
}

/// B35
#[test]
fn the_error_of_a_cancelled_task_is_not_told_and_its_place_goes_to_the_next() {
    let mut narrow = policy("acme");
    narrow.quota.concurrent_tasks = 1;
    let mut cluster = Cluster::new().tenant(narrow).host("one", 1);
    let cancelled = cluster.submit("acme", job().with(array("a").tasks(1)).spec());
    let run = cluster.take_run("one", 0, 0);
    cluster.request(Request::Cancel(cancelled));
    let next = cluster.submit("acme", job().with(array("b").tasks(1)).spec());
    assert!(cluster.tasks_at("one").is_empty(), "it still runs there, as far as is known");
    cluster.fail("one", &run, Cause::Trap);
    assert_eq!(cluster.counts(next, 0).assigned, 1);
    let told = |event: &JobEvent| matches!(event, JobEvent::AttemptFailed { .. });
    assert!(!cluster.events[&cancelled].iter().any(told));
    assert_eq!(cluster.job(cancelled).failure, None);
}

/// B36
#[test]
fn the_error_of_an_old_attempt_is_refused_after_a_newer_one_succeeded() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1);
    let id = cluster.submit("acme", job().with(array("a").tasks(1)).spec());
    let old = cluster.take_run("one", 0, 0);
    cluster.detach("one");
    cluster.attach_new(HostModel::new("two", 1));
    cluster.advance(HOST_TIMEOUT + MOMENT);
    cluster.run_frame("two");
    cluster.attach("one");
    let before = (cluster.core.stale(), cluster.events[&id].len());
    cluster.fail("one", &old, Cause::Trap);
    assert_eq!((cluster.core.stale(), cluster.events[&id].len()), (before.0 + 1, before.1));
    assert_eq!((cluster.job(id).end, cluster.counts(id, 0).succeeded), (Some(JobEnd::Succeeded), 1));
}
