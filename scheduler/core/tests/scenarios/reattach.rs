//! Hosts go on while they have no session, and what they went on with is taken over when they are back.

use std::time::Duration;

use partita_core::{Event, HOST_TIMEOUT, HostCommand, HostMessage, JobEnd, Record, Request};
use partita_testkit::{Cluster, HostModel, Reference, all, array, each, job, policy};
use partita_types::{AttemptNumber, Cause, CpuTime, JobId};

const MOMENT: Duration = Duration::from_secs(1);

/// Two hosts with two cores each, and a job whose first tasks run at both.
fn busy() -> (Cluster, JobId, partita_types::JobSpec) {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 2).host("two", 2);
    let spec = job().with(array("a").tasks(6)).with(array("b").reads(each(0))).with(array("c").reads(all(1))).spec();
    let id = cluster.submit("acme", spec.clone());
    (cluster, id, spec)
}

fn failures(cluster: &Cluster) -> Vec<Cause> {
    let cause = |record: &Record| match record {
        Record::AttemptFailed { failure, .. } => Some(failure.cause),
        _ => None,
    };
    cluster.journal.iter().filter_map(cause).collect()
}

/// Everything of the journal that was not flushed with an answer is lost.
fn lose_what_nobody_waited_for(cluster: &mut Cluster) {
    let durable = cluster.journal.iter().rposition(Record::durable_before_visible).unwrap();
    cluster.journal.truncate(durable + 1);
    cluster.events = cluster.replayed().1;
}

/// B51: a running task completes although the connection is lost, and its result is taken when its host is back.
#[test]
fn tasks_go_on_at_a_detached_host_and_are_taken_over_when_it_is_back() {
    let (mut cluster, id, spec) = busy();
    let running = cluster.tasks_at("one");
    let done = cluster.take_frame("one");
    cluster.detach("one");
    cluster.succeed_unheard("one", &done);
    cluster.advance(MOMENT);
    cluster.attach("one");
    let left: Vec<_> = running.iter().filter(|task| **task != (0, done[0].attempt.task.index)).copied().collect();
    assert!(left.iter().all(|task| cluster.tasks_at("one").contains(task)), "{left:?}");
    cluster.run_all();
    assert_eq!((cluster.job(id).end, cluster.job(id).totals.attempts), (Some(JobEnd::Succeeded), 13));
    assert_eq!(failures(&cluster), []);
    Reference::new(&spec).check(&cluster.results(id, 2));
}

/// B51: the same for a scheduler that died: no running task runs again.
#[test]
fn after_a_restart_no_running_task_runs_again() {
    let (mut cluster, id, spec) = busy();
    cluster.run_frame("one");
    cluster.run_frame("two");
    let done = cluster.take_frame("two");
    let usage = cluster.usage("acme");
    cluster.restart_scheduler();
    cluster.succeed_unheard("two", &done);
    cluster.attach("two");
    cluster.advance(MOMENT);
    cluster.attach("one");
    let after = cluster.usage("acme");
    assert_eq!(after.concurrent_tasks, usage.concurrent_tasks, "what runs is reserved again");
    cluster.run_all();
    assert_eq!((cluster.job(id).end, cluster.job(id).totals.attempts), (Some(JobEnd::Succeeded), 13));
    assert_eq!(failures(&cluster), []);
    Reference::new(&spec).check(&cluster.results(id, 2));
}

#[test]
fn running_tasks_are_taken_over_even_if_the_records_of_what_they_read_are_lost() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 2).host("two", 2);
    let spec = job().with(array("a").tasks(4)).with(array("b").reads(each(0))).spec();
    let id = cluster.submit("acme", spec.clone());
    for host in ["one", "two", "one", "two"] {
        cluster.run_frame(host);
    }
    assert_eq!(cluster.counts(id, 1).assigned, 4);
    lose_what_nobody_waited_for(&mut cluster);
    cluster.restart_scheduler();
    // One of the readers has ended, and what it read is not known yet.
    let runs = cluster.take_frame("two");
    cluster.succeed_unheard("two", &runs);
    cluster.attach("two");
    assert_eq!((cluster.counts(id, 0).succeeded, cluster.counts(id, 1).succeeded), (2, 1));
    cluster.attach("one");
    cluster.run_all();
    assert_eq!((cluster.job(id).end, cluster.job(id).totals.attempts), (Some(JobEnd::Succeeded), 8));
    Reference::new(&spec).check(&cluster.results(id, 1));
}

#[test]
fn nothing_is_handed_out_after_a_restart_before_the_hosts_that_were_there_are_back() {
    let (mut cluster, id, _) = busy();
    let held = cluster.tasks_at("one");
    cluster.restart_scheduler();
    cluster.attach("one");
    cluster.run_frame("one");
    cluster.run_frame("one");
    assert_eq!(cluster.tasks_at("one"), held[2..]);
    let other = cluster.submit("acme", job().with(array("new").tasks(1)).spec());
    let why = cluster.core.explain(other, None, None);
    assert!(why[0].reason.contains("waits for hosts to come back: two"), "{why:?}");
    cluster.advance(HOST_TIMEOUT);
    assert!(cluster.tasks_at("one").len() > held.len() - 2, "the other had its time");
    assert_eq!(cluster.counts(id, 0).succeeded, 2);
}

#[test]
fn a_restarted_scheduler_does_not_wait_for_hosts_that_were_lost_before() {
    let (mut cluster, _, _) = busy();
    cluster.detach("two");
    cluster.advance(HOST_TIMEOUT + MOMENT);
    cluster.restart_scheduler();
    cluster.submit("acme", job().with(array("new").tasks(1).options(|options| options.priority = 9)).spec());
    cluster.model("one").frames.clear();
    cluster.attach("one");
    assert_eq!(cluster.frames("one")[0].job.number, 2);
}

#[test]
fn an_attempt_that_another_host_was_given_meanwhile_is_stopped_where_it_ran_first() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 8).host("two", 2);
    let spec = job().with(array("a").tasks(6)).with(array("b").reads(all(0))).spec();
    let id = cluster.submit("acme", spec.clone());
    assert!(!cluster.tasks_at("two").is_empty());
    cluster.restart_scheduler();
    cluster.attach("one");
    cluster.advance(HOST_TIMEOUT);
    let given = cluster.tasks_at("one");
    let late = cluster.tasks_at("two");
    assert!(late.iter().all(|task| given.contains(task)), "{late:?} are given out again");
    cluster.attach("two");
    assert!(cluster.tasks_at("two").is_empty());
    cluster.run_all();
    assert_eq!((cluster.job(id).end, cluster.job(id).totals.attempts), (Some(JobEnd::Succeeded), 7));
    Reference::new(&spec).check(&cluster.results(id, 1));
}

#[test]
fn what_ended_meanwhile_keeps_its_usage() {
    for restarts in [false, true] {
        let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1);
        let id = cluster.submit("acme", job().with(array("a").tasks(2)).spec());
        cluster.model("one").task_time = CpuTime::from_micros(77_000);
        let runs = cluster.take_frame("one");
        let mut report = cluster.success("one", &runs);
        report.succeeded[0].moved_partitions = 5;
        if restarts {
            cluster.restart_scheduler();
        } else {
            cluster.detach("one");
        }
        cluster.model("one").unheard = report;
        cluster.attach("one");
        let totals = cluster.job(id).totals;
        assert_eq!((totals.cpu.micros, totals.moved_partitions), (77_000, 5), "restarted: {restarts}");
    }
}

#[test]
fn failures_that_nobody_heard_are_reported_again() {
    for restarts in [false, true] {
        let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1);
        let array = array("a").tasks(1).options(|options| (options.retries, options.backoff) = (1, MOMENT));
        let id = cluster.submit("acme", job().with(array).spec());
        for attempt in 1..=2 {
            let runs = cluster.take_frame("one");
            let number = if restarts { (attempt - 1) * 1_024 + 1 } else { attempt };
            assert_eq!(runs[0].attempt.number.0.get(), number);
            if restarts {
                cluster.restart_scheduler();
            } else {
                cluster.detach("one");
            }
            cluster.fail_unheard("one", &runs[0], Cause::Trap);
            cluster.attach("one");
            cluster.advance(3 * MOMENT);
        }
        assert_eq!(cluster.job(id).end, Some(JobEnd::Failed), "restarted: {restarts}");
        assert_eq!(failures(&cluster), [Cause::Trap, Cause::Trap]);
    }
}

#[test]
fn a_failure_and_the_next_attempt_are_both_taken_over_after_a_restart() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1);
    let array = array("a").tasks(1).options(|options| (options.retries, options.backoff) = (3, Duration::ZERO));
    let id = cluster.submit("acme", job().with(array).spec());
    let runs = cluster.take_frame("one");
    cluster.fail("one", &runs[0], Cause::Trap);
    assert_eq!(cluster.frames("one")[0].attempts[0].0.get(), 2);
    lose_what_nobody_waited_for(&mut cluster);
    cluster.restart_scheduler();
    cluster.fail_unheard("one", &runs[0], Cause::Trap);
    cluster.attach("one");
    assert_eq!((cluster.counts(id, 0).assigned, failures(&cluster)), (1, vec![Cause::Trap]));
    cluster.run_all();
    assert_eq!(cluster.job(id).totals.attempts, 2);
}

#[test]
fn a_repeated_report_changes_only_a_counter() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 2);
    let spec = job().with(array("a").tasks(3)).with(array("b").reads(all(0))).spec();
    let id = cluster.submit("acme", spec);
    let first = cluster.take_frame("one");
    let report = cluster.success("one", &first);
    cluster.say("one", HostMessage::Report(report.clone()));
    let second = cluster.take_frame("one");
    cluster.fail("one", &second[0], Cause::Retry);
    cluster.detach("one");
    let (written, stale) = (cluster.journal.len(), cluster.core.stale());
    let failed = cluster.model("one").fail(&second[0], Cause::Retry, Vec::new()).failed;
    cluster.model("one").unheard = partita_types::Report { failed, ..report };
    cluster.attach("one");
    assert_eq!(cluster.core.stale(), stale + 2);
    assert_eq!(cluster.journal.len(), written);
    assert_eq!(cluster.counts(id, 0).succeeded, 1);
    assert!(!cluster.model("one").store.is_empty(), "its outputs are as good as before");
}

#[test]
fn a_frame_that_never_reached_its_host_is_given_out_again() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1);
    let id = cluster.submit("acme", job().with(array("a").tasks(1)).spec());
    cluster.model("one").frames.clear();
    cluster.detach("one");
    cluster.attach("one");
    assert_eq!(cluster.frames("one")[0].attempts[0].0.get(), 2);
    assert_eq!(failures(&cluster), [Cause::HostLost]);
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
}

#[test]
fn what_was_cancelled_meanwhile_is_stopped_and_keeps_its_reservation_until_then() {
    for restarts in [false, true] {
        let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1);
        let id = cluster.submit("acme", job().with(array("a").tasks(2)).spec());
        cluster.detach("one");
        cluster.request(Request::Cancel(id));
        assert_eq!(cluster.usage("acme").concurrent_tasks, 2, "it may be running still");
        if restarts {
            cluster.restart_scheduler();
        }
        // Commands are kept instead of delivered, to look at them.
        let hello = cluster.model("one").hello();
        let mut actions = Vec::new();
        cluster.core.apply(cluster.now, Event::HostAttached(hello), &mut actions);
        let stops = actions.iter().filter_map(|action| match action {
            partita_core::Action::Command { command: HostCommand::Cancel(attempts), .. } => Some(attempts.len()),
            _ => None,
        });
        assert_eq!(stops.sum::<usize>(), 2, "restarted: {restarts}");
        assert_eq!(cluster.usage("acme").concurrent_tasks, 2, "restarted: {restarts}");
        cluster.attach("one");
        assert!(cluster.frames("one").is_empty());
        assert_eq!(cluster.usage("acme").concurrent_tasks, 0, "restarted: {restarts}");
    }
}

#[test]
fn a_quota_holds_for_what_is_taken_over_too() {
    let (mut cluster, id, _) = busy();
    assert!(cluster.usage("acme").concurrent_tasks > 2);
    let mut small = policy("acme");
    small.quota.concurrent_tasks = 2;
    let (core, _) = cluster.replayed();
    cluster.restart_scheduler();
    cluster.core = core;
    cluster.define(small);
    cluster.attach("one");
    cluster.attach("two");
    assert_eq!(cluster.usage("acme").concurrent_tasks, 2);
    assert_eq!(cluster.frames("one").len() + cluster.frames("two").len(), 2, "the rest was stopped");
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
    let again = cluster.journal.iter().any(|record| match record {
        Record::Succeeded { batch, .. } => batch.attempts.iter().any(|number| *number > AttemptNumber::FIRST),
        _ => false,
    });
    assert!(again, "what was stopped has another number when it runs again");
}

#[test]
fn a_host_is_not_believed_about_attempts_that_it_was_not_given() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1);
    let id = cluster.submit("acme", job().with(array("a").tasks(9)).spec());
    let mut liar = HostModel::new("liar", 1);
    let mut frame = cluster.frames("one")[0].clone();
    frame.indexes = vec![8];
    frame.attempts = vec![AttemptNumber::FIRST];
    frame.id.0 += 1_000_000_000;
    let claimed = frame.id;
    liar.headers = cluster.model("one").headers.clone();
    liar.frames.push_back(frame);
    let ready = cluster.counts(id, 0).ready;
    cluster.attach_new(liar);
    let given = cluster.tasks_at("liar").len();
    assert_eq!(cluster.counts(id, 0).ready as usize + given, ready as usize, "it got tasks in the usual way only");
    assert!(cluster.frames("liar").iter().all(|frame| frame.id != claimed), "it is told to stop that");
}
