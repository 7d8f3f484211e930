//! Work that waits at a busy host, and hosts that have nothing to do.

use std::time::Duration;

use partita_core::{HOST_TIMEOUT, HostMessage, JobEnd, Request};
use partita_testkit::{Cluster, HostModel, all, array, job, policy};
use partita_types::{AttemptId, ByteSize, CpuTime, FrameId, JobId, Report};

const MOMENT: Duration = Duration::from_secs(1);

/// A cluster with one host of one core, which has one task running and one behind it.
fn one_waits() -> (Cluster, JobId) {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1);
    let id = cluster.submit("acme", job().with(array("a").tasks(2)).spec());
    assert_eq!(cluster.tasks_at("one"), [(0, 0), (0, 1)]);
    (cluster, id)
}

/// The frames that a host was asked to give back.
fn asked(cluster: &mut Cluster, host: &str) -> Vec<FrameId> {
    cluster.model(host).asked_back.clone()
}

fn finish(cluster: &mut Cluster, id: JobId) {
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
}

#[test]
fn a_task_that_waits_behind_a_long_one_goes_to_a_host_that_has_nothing_to_do() {
    let (mut cluster, id) = one_waits();
    cluster.attach_new(HostModel::new("two", 1));
    assert_eq!((cluster.tasks_at("one"), cluster.tasks_at("two")), (vec![(0, 0)], vec![(0, 1)]));
    assert_eq!(cluster.frames("two")[0].attempts[0].0.get(), 2);
    assert!(cluster.journal.iter().all(|record| !format!("{record:?}").contains("AttemptFailed")), "nothing failed");
    finish(&mut cluster, id);
}

/// B1: what waits is not worth moving, if its input takes longer on its way.
#[test]
fn a_task_that_waits_where_its_large_input_is_stays_there() {
    for (size, moves) in [(ByteSize::mib(64), false), (ByteSize::kib(64), true)] {
        let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1);
        cluster.model("one").output_size = size;
        let pairs = array("pair").calls("pair").tasks(2).reads(all(0)).reads(all(0));
        let id = cluster.submit("acme", job().with(array("input").tasks(1)).with(pairs).spec());
        cluster.run_frame("one");
        assert_eq!(cluster.tasks_at("one").len(), 2);
        cluster.attach_new(HostModel::new("two", 1));
        assert_eq!(cluster.tasks_at("two").len(), usize::from(moves));
        finish(&mut cluster, id);
    }
}

/// B2
#[test]
fn slow_tasks_with_cheap_data_are_spread_over_both_hosts() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1);
    cluster.model("one").task_time = CpuTime::from_micros(1_000_000);
    let id = cluster.submit("acme", job().with(array("slow").tasks(10)).spec());
    let mut two = HostModel::new("two", 1);
    two.task_time = CpuTime::from_micros(1_000_000);
    cluster.attach_new(two);
    let mut done = [0, 0];
    while cluster.job(id).end.is_none() {
        for (host, count) in ["one", "two"].into_iter().zip(&mut done) {
            if !cluster.tasks_at(host).is_empty() {
                cluster.run_frame(host);
                *count += 1;
            }
        }
    }
    assert_eq!(done, [5, 5]);
}

/// B3
#[test]
fn tasks_that_run_are_never_taken_back() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 2);
    let id = cluster.submit("acme", job().with(array("a").tasks(2)).spec());
    cluster.attach_new(HostModel::new("two", 2));
    assert!(asked(&mut cluster, "one").is_empty() && cluster.tasks_at("two").is_empty());
    finish(&mut cluster, id);
}

/// B3: only the host knows for certain what has begun.
#[test]
fn a_frame_that_began_before_the_question_came_stays() {
    let (mut cluster, id) = one_waits();
    cluster.model("one").running = 2;
    cluster.attach_new(HostModel::new("two", 1));
    assert_eq!(asked(&mut cluster, "one").len(), 1);
    assert_eq!((cluster.tasks_at("one").len(), cluster.tasks_at("two").len()), (2, 0));
    cluster.advance(60 * MOMENT);
    assert_eq!(asked(&mut cluster, "one").len(), 1, "it is not asked again");
    finish(&mut cluster, id);
}

/// B3
#[test]
fn a_frame_that_was_seen_running_is_not_asked_for() {
    let (mut cluster, id) = one_waits();
    let frames = cluster.frames("one");
    let started: Vec<AttemptId> = frames.iter().filter_map(|frame| frame.attempt(0)).collect();
    cluster.say("one", HostMessage::Report(Report { started, ..Report::default() }));
    cluster.attach_new(HostModel::new("two", 1));
    assert!(asked(&mut cluster, "one").is_empty());
    finish(&mut cluster, id);
}

/// B4
#[test]
fn short_tasks_are_never_taken_back() {
    let mut cluster = Cluster::new().tenant(policy("acme"));
    let hosts = ["one", "two", "three", "four"];
    hosts.iter().for_each(|host| cluster.attach_new(HostModel::new(host, 1)));
    hosts.iter().for_each(|host| cluster.model(host).output_size = ByteSize::mib(1));
    let spec = job().with(array("root").tasks(1)).with(array("child").tasks(1_000).reads(all(0)));
    let id = cluster.submit("acme", spec.spec());
    finish(&mut cluster, id);
    assert!(hosts.iter().all(|host| asked(&mut cluster, host).is_empty()));
}

/// B5
#[test]
fn a_host_that_joins_does_its_part_at_once() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1);
    cluster.model("one").task_time = CpuTime::from_micros(50_000);
    let id = cluster.submit("acme", job().with(array("a").tasks(100)).spec());
    cluster.run_frame("one");
    cluster.attach_new(HostModel::new("two", 1));
    assert!(!cluster.tasks_at("two").is_empty());
    while cluster.job(id).end.is_none() {
        for host in ["one", "two"] {
            if !cluster.tasks_at(host).is_empty() {
                cluster.run_frame(host);
            }
        }
    }
    assert!(cluster.model("two").store.len() >= 40, "it did its part");
    assert_eq!(cluster.results(id, 0).len(), 100);
}

/// B6: here a host that takes no work is one without a session.
#[test]
fn a_host_without_a_session_is_given_nothing() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("two", 1);
    cluster.detach("two");
    cluster.attach_new(HostModel::new("one", 1));
    let id = cluster.submit("acme", job().with(array("a").tasks(2)).spec());
    assert_eq!(cluster.tasks_at("one").len(), 2);
    assert!(asked(&mut cluster, "one").is_empty());
    finish(&mut cluster, id);
}

/// Asks for the waiting frame of host `one` for host `two`; the answer is still to come.
fn in_flight() -> (Cluster, JobId, FrameId) {
    let (mut cluster, id) = one_waits();
    cluster.model("one").answers = false;
    cluster.attach_new(HostModel::new("two", 1));
    let frame = asked(&mut cluster, "one")[0];
    assert!(cluster.tasks_at("two").is_empty(), "nothing moves before the answer");
    (cluster, id, frame)
}

fn give(cluster: &mut Cluster, frame: FrameId) {
    cluster.model("one").frames.retain(|other| other.id != frame);
    cluster.say("one", HostMessage::Retracted { frame, given: true });
}

/// B8
#[test]
fn a_host_that_is_lost_while_a_frame_is_on_its_way_to_it_loses_nothing() {
    let (mut cluster, id, frame) = in_flight();
    cluster.detach("two");
    cluster.advance(HOST_TIMEOUT + MOMENT);
    give(&mut cluster, frame);
    assert_eq!(cluster.tasks_at("one").len(), 2, "it came back");
    finish(&mut cluster, id);
}

/// B8
#[test]
fn an_answer_that_comes_after_its_host_was_lost_changes_nothing() {
    let (mut cluster, id, frame) = in_flight();
    cluster.detach("one");
    cluster.advance(HOST_TIMEOUT + MOMENT);
    assert_eq!(cluster.counts(id, 0).assigned, 2, "both are at the other host");
    let before = cluster.core.stale();
    give(&mut cluster, frame);
    assert_eq!(cluster.core.stale(), before + 1);
    cluster.attach("one");
    let before = cluster.core.stale();
    give(&mut cluster, frame);
    assert_eq!(cluster.core.stale(), before + 1);
    finish(&mut cluster, id);
}

/// B9
#[test]
fn an_answer_about_a_job_that_is_gone_changes_nothing() {
    let (mut cluster, id, frame) = in_flight();
    cluster.request(Request::Cancel(id));
    cluster.request(Request::Release(id));
    let before = cluster.usage("acme");
    cluster.say("one", HostMessage::Retracted { frame, given: false });
    let after = cluster.usage("acme");
    assert_eq!((before.concurrent_tasks, after.concurrent_tasks, after.queued_tasks), (0, 0, 0));
}

#[test]
fn a_host_cannot_give_back_what_it_was_not_asked_for() {
    let (mut cluster, id) = one_waits();
    let frame = cluster.frames("one")[0].id;
    let before = cluster.core.stale();
    cluster.say("one", HostMessage::Retracted { frame, given: true });
    assert_eq!((cluster.core.stale(), cluster.counts(id, 0).assigned), (before + 1, 2));
}

#[test]
fn a_task_that_moved_stays_for_a_while() {
    let (mut cluster, id) = one_waits();
    cluster.attach_new(HostModel::new("two", 1));
    cluster.detach("two");
    cluster.advance(HOST_TIMEOUT + MOMENT);
    assert_eq!(cluster.tasks_at("one"), [(0, 0), (0, 1)], "it came back with the loss of the host");
    cluster.attach("two");
    cluster.advance(5 * MOMENT);
    assert_eq!((asked(&mut cluster, "one").len(), cluster.tasks_at("two").len()), (1, 0));
    cluster.advance(30 * MOMENT);
    assert_eq!((asked(&mut cluster, "one").len(), cluster.tasks_at("two").len()), (2, 1));
    finish(&mut cluster, id);
}
