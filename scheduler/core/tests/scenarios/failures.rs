//! Attempts that fail, jobs that fail with them, and jobs that are cancelled.

use std::time::Duration;

use partita_core::{HostCommand, HostMessage, JobEnd, JobEvent, Reply, Request, TaskEnd};
use partita_testkit::{Cluster, HostModel, all, array, each, job, policy};
use partita_types::{Cause, Report};

fn cluster() -> Cluster {
    Cluster::new().tenant(policy("acme")).host("one", 4)
}

fn assert_nothing_used(cluster: &Cluster) {
    let usage = cluster.usage("acme");
    let used =
        (usage.running_jobs, usage.queued_tasks, usage.concurrent_tasks, usage.concurrent_memory.0, usage.stored.0);
    assert_eq!(used, (0, 0, 0, 0, 0));
}

#[test]
fn a_failed_attempt_is_retried_after_a_growing_wait() {
    let mut cluster = cluster();
    let flaky = array("a").tasks(1).options(|options| {
        options.retries = 2;
        options.backoff = Duration::from_secs(2);
    });
    let id = cluster.submit("acme", job().with(flaky).spec());
    for wait in [2, 4] {
        let run = cluster.take_run("one", 0, 0);
        cluster.fail("one", &run, Cause::Trap);
        let why = cluster.core.explain(id, None, Some(0));
        assert!(why[0].reason.contains(&format!("the next may start in {wait}.")), "{why:?}");
        cluster.advance(Duration::from_secs(wait - 1));
        assert!(cluster.tasks_at("one").is_empty());
        cluster.advance(Duration::from_secs(2));
        assert_eq!(cluster.tasks_at("one"), [(0, 0)]);
    }
    let run = cluster.take_run("one", 0, 0);
    assert_eq!(run.attempt.number.0.get(), 3);
    cluster.fail("one", &run, Cause::Trap);
    let view = cluster.job(id);
    assert_eq!(view.end, Some(JobEnd::Failed));
    let (task, attempts, failure) = view.failure.unwrap();
    assert_eq!((task.index, attempts, failure.cause), (0, 3, Cause::Trap));
}

#[test]
fn a_permanent_failure_is_not_retried() {
    let mut cluster = cluster();
    let id = cluster.submit("acme", job().with(array("a").tasks(1)).spec());
    let run = cluster.take_run("one", 0, 0);
    cluster.fail("one", &run, Cause::Failed);
    assert_eq!(cluster.job(id).end, Some(JobEnd::Failed));
}

#[test]
fn faults_of_hosts_do_not_use_up_retries_but_do_not_go_on_for_ever() {
    let mut cluster = cluster();
    let strict = array("a").tasks(1).options(|options| options.retries = 0);
    let id = cluster.submit("acme", job().with(strict).spec());
    for _ in 0..10 {
        let run = cluster.take_run("one", 0, 0);
        cluster.fail("one", &run, Cause::Storage);
        assert_eq!(cluster.job(id).end, None);
        cluster.advance(Duration::from_secs(40));
    }
    let run = cluster.take_run("one", 0, 0);
    cluster.fail("one", &run, Cause::Storage);
    assert_eq!(cluster.job(id).end, Some(JobEnd::Failed));
}

#[test]
fn dependents_of_a_failed_task_are_aborted_and_the_rest_of_the_job_is_cancelled() {
    let mut cluster = cluster();
    let spec = job()
        .with(array("a").tasks(3))
        .with(array("b").reads(each(0)))
        .with(array("c").reads(all(1)))
        .with(array("aside").tasks(2))
        .spec();
    let id = cluster.submit("acme", spec);
    let run = cluster.take_run("one", 0, 1);
    cluster.fail("one", &run, Cause::Failed);
    let ends = |array: usize| {
        let counts = cluster.counts(id, array);
        (counts.failed, counts.aborted, counts.cancelled)
    };
    assert_eq!([ends(0), ends(1), ends(2), ends(3)], [(1, 0, 2), (0, 1, 2), (0, 1, 0), (0, 0, 2)]);
    let view = cluster.job(id);
    assert_eq!((view.end, view.failure.unwrap().0.index), (Some(JobEnd::Failed), 1));
    assert!(cluster.tasks_at("one").is_empty(), "what ran of it was stopped");
    let ended = cluster.events[&id].iter().filter_map(|event| match event {
        JobEvent::TasksEnded { array, end, tasks } => Some((array.0, *end, tasks.clone())),
        _ => None,
    });
    let ended: Vec<_> = ended.take(4).collect();
    assert_eq!(
        ended,
        [
            (0, TaskEnd::Failed, vec![(1, 1)]),
            (1, TaskEnd::Aborted, vec![(1, 1)]),
            (2, TaskEnd::Aborted, vec![(0, 1)]),
            (0, TaskEnd::Cancelled, vec![(0, 1), (2, 1)]),
        ]
    );
}

#[test]
fn a_cancelled_job_ends_at_once_and_nothing_of_it_starts_again() {
    let mut cluster = cluster();
    let id = cluster.submit("acme", job().with(array("a").tasks(20)).spec());
    assert_eq!(cluster.request(Request::Cancel(id)), Reply::Done);
    assert_eq!(cluster.job(id).end, Some(JobEnd::Cancelled));
    assert_eq!(cluster.counts(id, 0).cancelled, 20);
    assert!(cluster.tasks_at("one").is_empty());
    cluster.advance(Duration::from_secs(60));
    assert!(cluster.tasks_at("one").is_empty());
    assert_eq!(cluster.request(Request::Cancel(id)), Reply::Done, "cancelling twice is the same");
    assert_eq!(cluster.request(Request::Release(id)), Reply::Done);
    assert_nothing_used(&cluster);
}

#[test]
fn a_late_success_of_a_cancelled_task_is_only_counted_and_what_it_left_is_dropped() {
    let mut cluster = cluster();
    let id = cluster.submit("acme", job().with(array("a").tasks(1)).spec());
    let runs = cluster.take_frame("one");
    let late = cluster.success("one", &runs);
    cluster.request(Request::Cancel(id));
    let before = cluster.core.stale();
    cluster.say("one", HostMessage::Report(late));
    assert_eq!(cluster.core.stale(), before + 1);
    assert_eq!(cluster.counts(id, 0).cancelled, 1);
    assert!(cluster.model("one").store.is_empty());
}

#[test]
fn cancelled_attempts_keep_their_reservation_until_their_host_says_that_they_stopped() {
    let mut narrow = policy("acme");
    narrow.quota.concurrent_tasks = 1;
    let mut cluster = Cluster::new().tenant(narrow);
    cluster.attach_new(HostModel::new("one", 1));
    let first = cluster.submit("acme", job().with(array("a").tasks(1)).spec());
    let frame = cluster.frames("one")[0].id;
    cluster.model("one").frames.clear();
    cluster.request(Request::Cancel(first));
    let second = cluster.submit("acme", job().with(array("b").tasks(1)).spec());
    assert_eq!(cluster.counts(second, 0).ready, 1, "the first still runs, as far as is known");
    cluster.say("one", HostMessage::Report(Report { finished_frames: vec![frame], ..Report::default() }));
    assert_eq!(cluster.counts(second, 0).assigned, 1);
}

#[test]
fn a_host_that_never_says_that_it_stopped_does_not_hold_a_reservation_for_ever() {
    let mut cluster = cluster();
    let id = cluster.submit("acme", job().with(array("a").tasks(1)).spec());
    cluster.model("one").frames.clear();
    cluster.request(Request::Cancel(id));
    cluster.request(Request::Release(id));
    assert_eq!(cluster.usage("acme").concurrent_tasks, 1);
    cluster.advance(Duration::from_secs(6));
    assert_nothing_used(&cluster);
}

#[test]
fn what_a_finished_frame_did_not_report_is_given_out_again() {
    let mut cluster = cluster();
    let id = cluster.submit("acme", job().with(array("a").tasks(1)).spec());
    let frame = cluster.frames("one")[0].id;
    cluster.model("one").frames.clear();
    cluster.say("one", HostMessage::Report(Report { finished_frames: vec![frame], ..Report::default() }));
    assert_eq!(cluster.counts(id, 0).waiting, 1);
    cluster.advance(Duration::from_secs(1));
    assert_eq!(cluster.frames("one")[0].attempts[0].0.get(), 2);
}

#[test]
fn a_report_that_names_an_attempt_twice_or_has_uneven_columns_changes_nothing_more() {
    let mut cluster = cluster();
    let id = cluster.submit("acme", job().with(array("a").tasks(2)).spec());
    let run = cluster.take_run("one", 0, 0);
    let mut twice = cluster.success("one", &[run.clone(), run]);
    twice.succeeded.push(twice.succeeded[0].clone());
    cluster.say("one", HostMessage::Report(twice));
    assert_eq!(cluster.counts(id, 0).succeeded, 1);
    let run = cluster.take_run("one", 0, 1);
    let mut uneven = cluster.success("one", &[run]);
    uneven.succeeded[0].outputs.clear();
    cluster.say("one", HostMessage::Report(uneven));
    assert_eq!(cluster.counts(id, 0).assigned, 1);
}

#[test]
fn a_released_job_leaves_nothing_behind() {
    let mut cluster = cluster();
    let spec = job().with(array("a").tasks(3)).with(array("b").reads(all(0))).spec();
    let id = cluster.submit("acme", spec);
    let running = cluster.request(Request::Release(id));
    assert!(matches!(running, Reply::Refused(_)), "{running:?}");
    cluster.run_all();
    assert_eq!(cluster.request(Request::Release(id)), Reply::Done);
    assert!(cluster.core.job(id).is_none());
    assert!(cluster.model("one").store.is_empty());
    assert!(!cluster.events.contains_key(&id));
    assert_nothing_used(&cluster);
    assert!(!cluster.commands.iter().any(|(_, command)| matches!(command, HostCommand::Assign { .. })));
}

#[test]
fn an_attempt_named_twice_takes_only_its_own_place_in_its_frame() {
    let mut cluster = cluster();
    let id = cluster.submit("acme", job().with(array("a").tasks(100)).spec());
    cluster.run_frame("one");
    while cluster.frames("one")[0].indexes.len() == 1 {
        cluster.run_frame("one");
    }
    let done = cluster.counts(id, 0).succeeded;
    let runs = cluster.take_frame("one");
    let twice = cluster.success("one", &[runs[0].clone(), runs[0].clone()]);
    cluster.say("one", HostMessage::Report(twice));
    assert_eq!(cluster.counts(id, 0).succeeded, done + 1);
    cluster.succeed("one", &runs[1..]);
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
}
