//! The scheduler dies and starts again from its journal.

use std::time::Duration;

use partita_core::{Action, Core, JobEnd, RECOVERY_TIME, Record, Request};
use partita_testkit::{Cluster, Reference, all, array, each, fold, job, policy};
use partita_types::{Cause, JobId};

pub(crate) fn busy_cluster() -> (Cluster, Vec<JobId>) {
    let mut cluster = Cluster::new().tenant(policy("acme")).tenant(policy("other")).host("one", 2).host("two", 2);
    let graph = || job().with(array("a").tasks(9)).with(array("b").reads(each(0))).with(array("c").reads(fold(1, 3)));
    let mut jobs = vec![cluster.submit("acme", graph().spec()), cluster.submit("other", graph().spec())];
    for host in ["one", "two", "one", "two", "one"] {
        cluster.run_frame(host);
    }
    let failing =
        job().with(array("bad").tasks(2).options(|options| options.priority = 5)).with(array("d").reads(all(0)));
    jobs.push(cluster.submit("acme", failing.spec()));
    cluster.run_frame("one");
    cluster.run_frame("two");
    while cluster.job(jobs[2]).end.is_none() {
        let host = if cluster.tasks_at("one").is_empty() { "two" } else { "one" };
        let frame = cluster.frames(host)[0].clone();
        if frame.job == jobs[2] {
            let runs = cluster.take_frame(host);
            cluster.fail(host, &runs[0], Cause::Failed);
        } else {
            cluster.run_frame(host);
        }
    }
    let cancelled = cluster.submit("other", graph().spec());
    cluster.request(Request::Cancel(cancelled));
    let released = cluster.submit("other", job().with(array("gone").tasks(1)).spec());
    cluster.request(Request::Cancel(released));
    cluster.request(Request::Release(released));
    jobs.push(cancelled);
    (cluster, jobs)
}

/// A view without what is at hosts, which a restarted scheduler does not know.
fn settled(core: &Core, id: JobId) -> partita_core::JobView {
    let mut view = core.job(id).unwrap();
    let arrays = view.arrays.iter_mut().map(|array| &mut array.counts);
    for counts in arrays.chain([&mut view.counts]) {
        counts.ready += counts.assigned;
        counts.assigned = 0;
    }
    view
}

#[test]
fn replay_finds_the_state_and_the_events_that_were_there_before() {
    let (cluster, jobs) = busy_cluster();
    let (core, events) = cluster.replayed();
    assert_eq!(events, cluster.events);
    for id in jobs {
        assert_eq!(settled(&core, id), settled(&cluster.core, id));
    }
    let (twice, _) = cluster.replayed();
    assert_eq!(format!("{core:?}"), format!("{twice:?}"), "replay is the same every time");
    assert_eq!(core.check_invariants(), Ok(()));
}

#[test]
fn usage_is_the_same_after_a_restart_except_for_what_runs() {
    let (mut cluster, _) = busy_cluster();
    let before = cluster.usage("acme");
    cluster.restart_scheduler();
    let after = cluster.usage("acme");
    assert_eq!(
        (after.running_jobs, after.queued_tasks, after.stored, after.cpu),
        (before.running_jobs, before.queued_tasks, before.stored, before.cpu)
    );
    assert_eq!((after.concurrent_tasks, after.concurrent_memory.0), (0, 0));
}

#[test]
fn nothing_that_finished_runs_again_when_hosts_come_back_after_a_restart() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 2).host("two", 2);
    let spec = job().with(array("a").tasks(6)).with(array("b").reads(all(0))).spec();
    let id = cluster.submit("acme", spec.clone());
    for host in ["one", "two", "one", "two"] {
        cluster.run_frame(host);
    }
    let done = cluster.counts(id, 0).succeeded;
    cluster.restart_scheduler();
    assert_eq!(cluster.counts(id, 0).succeeded, done);
    cluster.attach("one");
    cluster.advance(Duration::from_secs(2));
    cluster.attach("two");
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
    assert!(!cluster.journal.iter().any(|record| matches!(record, Record::Lost { .. })));
    assert_eq!(cluster.job(id).totals.attempts, 7, "each task once");
    Reference::new(&spec).check(&cluster.results(id, 1));
}

#[test]
fn after_a_restart_missing_hosts_are_waited_for_before_anything_is_rebuilt() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 2).host("two", 2);
    let spec = job().with(array("a").tasks(4)).with(array("b").reads(all(0))).spec();
    let id = cluster.submit("acme", spec.clone());
    for host in ["one", "two", "one", "two"] {
        cluster.run_frame(host);
    }
    cluster.restart_scheduler();
    // The reader has not reached its host.
    for name in ["one", "two"] {
        cluster.model(name).frames.clear();
    }
    cluster.attach("one");
    assert_eq!(cluster.counts(id, 1).ready, 1);
    let why = cluster.core.explain(id, None, None);
    assert!(why[0].reason.contains("restarted") && why[0].reason.contains("2 tasks"), "{why:?}");
    cluster.advance(RECOVERY_TIME + Duration::from_secs(1));
    assert_eq!(cluster.tasks_at("one").len(), 2, "the two of the other host run again");
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
    Reference::new(&spec).check(&cluster.results(id, 1));
}

#[test]
fn completions_that_were_not_written_are_told_by_the_hosts_that_have_them() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 2);
    let spec = job().with(array("a").tasks(3)).with(array("b").reads(each(0))).spec();
    let id = cluster.submit("acme", spec.clone());
    cluster.run_frame("one");
    cluster.run_frame("one");
    let durable = cluster.journal.iter().rposition(Record::durable_before_visible).unwrap();
    cluster.journal.truncate(durable + 1);
    cluster.events = cluster.replayed().1;
    cluster.restart_scheduler();
    assert_eq!(cluster.counts(id, 0).succeeded, 0);
    cluster.attach("one");
    assert_eq!(cluster.counts(id, 0).succeeded, 2);
    cluster.run_all();
    Reference::new(&spec).check(&cluster.results(id, 1));
}

#[test]
fn a_submission_is_written_before_anything_of_it_is_visible() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1);
    let tenant = cluster.tenant_id("acme");
    let spec = job().with(array("a").tasks(1)).spec();
    let what = Request::Submit { tenant, key: partita_core::IdempotencyKey([1; 16]), spec };
    let mut actions = Vec::new();
    let request = partita_core::RequestId(99);
    cluster.core.apply(cluster.now, partita_core::Event::Requested { request, what }, &mut actions);
    let written = actions.iter().position(|action| matches!(action, Action::Persist(Record::JobSubmitted { .. })));
    let answered = actions.iter().position(|action| matches!(action, Action::Reply { .. }));
    let assigned = actions.iter().position(|action| matches!(action, Action::Command { .. }));
    let published = actions.iter().position(|action| matches!(action, Action::Publish { .. }));
    for visible in [answered, assigned, published] {
        assert!(written.unwrap() < visible.unwrap(), "{actions:?}");
    }
}

/// I2: what is handed out is not in the journal, so a scheduler that forgot it must not give the same number again.
#[test]
fn no_attempt_shares_its_number_with_one_that_a_crash_made_the_scheduler_forget() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1);
    cluster.submit("acme", job().with(array("a").tasks(1)).spec());
    let before = cluster.frames("one")[0].attempts[0];
    for _ in 0..2 {
        cluster.restart_scheduler();
    }
    // Its host does not come back in time; another one gets the task.
    cluster.advance(RECOVERY_TIME + Duration::from_secs(1));
    cluster.attach_new(partita_testkit::HostModel::new("two", 1));
    let after = cluster.frames("two")[0].attempts[0];
    assert!(after > before, "{before}, then {after}");
    cluster.restart_scheduler();
    cluster.attach("two");
    cluster.run_all();
    assert_eq!(cluster.core.check_invariants(), Ok(()));
}

/// I2, I26: an upload that was stored before a crash and never written down is deleted; the next try is another partition.
#[test]
fn a_late_order_to_delete_a_forgotten_upload_does_not_meet_the_next_try() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1);
    let id = cluster.submit("acme", job().with(array("up").tasks(1).upload()).spec());
    let task = partita_types::TaskId { job: id, array: partita_types::ArrayIndex(0), index: 0 };
    let upload = |cluster: &mut Cluster| {
        let reply = cluster.request(Request::Upload { task, size: partita_types::ByteSize(5) });
        let partita_core::Reply::UploadTo { partition, .. } = reply else { panic!("{reply:?}") };
        partition
    };
    let first = upload(&mut cluster);
    cluster.restart_scheduler();
    let info = partita_testkit::uploaded(0, 0);
    cluster.model("one").store.insert(first, info);
    cluster.attach("one");
    let second = upload(&mut cluster);
    assert!(second.attempt.number > first.attempt.number, "{first}, then {second}");
}

/// B15: the time after which a task that no host can run fails goes on across restarts.
#[test]
fn a_task_that_nobody_can_run_fails_in_time_however_often_the_scheduler_starts_again() {
    let mut policy = policy("acme");
    policy.unrunnable_after = Duration::from_secs(120);
    let mut cluster = Cluster::new().tenant(policy).host("one", 1);
    let id = cluster.submit("acme", job().with(array("a").tasks(1).needs(&["zone=far"], &[])).spec());
    for _ in 0..5 {
        cluster.advance(Duration::from_secs(30));
        assert_eq!(cluster.job(id).end.is_some(), cluster.job(id).failure.is_some());
        cluster.restart_scheduler();
        cluster.attach("one");
    }
    cluster.advance(Duration::from_secs(20));
    assert_eq!(cluster.job(id).end, Some(JobEnd::Failed), "150 s and more after the first look");
}
