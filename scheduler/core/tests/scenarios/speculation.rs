//! Second attempts of tasks that run for very long.

use std::time::Duration;

use partita_core::{HOST_TIMEOUT, HostMessage, JobEnd, Record, Request};
use partita_policy::TenantPolicy;
use partita_testkit::{Cluster, HostModel, Reference, Run, all, array, each, job, policy};
use partita_types::{AttemptId, ByteSize, Cause, CpuTime, JobId, JobSpec, MilliCpu, Report, TaskCount};

const MOMENT: Duration = Duration::from_secs(1);
const HOSTS: [&str; 2] = ["one", "two"];

fn spec() -> JobSpec {
    job().with(array("a").tasks(6)).spec()
}

/// A host says that its first frame has been running for a while.
fn seen_running(cluster: &mut Cluster, host: &str) {
    let started: Vec<AttemptId> = cluster.frames(host)[0].attempt(0).into_iter().collect();
    cluster.say(host, HostMessage::Report(Report { started, ..Report::default() }));
}

/// Two hosts with a core each, where tasks take 300 ms; and a job of which only one task is left, which was seen running.
fn straggling(spec: JobSpec, limits: TenantPolicy) -> (Cluster, JobId) {
    let mut cluster = Cluster::new().tenant(limits).tenant(policy("others")).host("one", 1).host("two", 1);
    HOSTS.iter().for_each(|host| cluster.model(host).task_time = CpuTime::from_micros(300_000));
    let TaskCount::Fixed(tasks) = spec.arrays[0].tasks else { panic!("a fixed number of tasks") };
    let id = cluster.submit("acme", spec);
    while cluster.counts(id, 0).succeeded + 1 < tasks {
        let host = if cluster.tasks_at("two").is_empty() { "one" } else { "two" };
        let place = usize::from(host == "one" && cluster.frames("one").len() > 1);
        let index = cluster.tasks_at(host)[place].1;
        let run = cluster.take_run(host, 0, index);
        cluster.succeed(host, &[run]);
    }
    assert_eq!((cluster.tasks_at("one").len(), cluster.tasks_at("two").len()), (1, 0));
    seen_running(&mut cluster, "one");
    (cluster, id)
}

/// The same, and the task has its second attempt.
fn doubled() -> (Cluster, JobId) {
    let (mut cluster, id) = straggling(spec(), policy("acme"));
    cluster.advance(MOMENT);
    assert_eq!(attempts(&cluster), [(1, 1), (1, 2)]);
    (cluster, id)
}

/// How many frames each host has, and the number of the first attempt there.
fn attempts(cluster: &Cluster) -> [(usize, u32); 2] {
    HOSTS.map(|host| {
        let frames = cluster.frames(host);
        (frames.len(), frames.first().map_or(0, |frame| frame.attempts[0].0.get()))
    })
}

fn take(cluster: &mut Cluster, host: &str) -> Run {
    cluster.take_frame(host).remove(0)
}

fn used(cluster: &Cluster) -> (u32, ByteSize) {
    let usage = cluster.usage("acme");
    (usage.concurrent_tasks, usage.concurrent_memory)
}

fn ends_well(cluster: &mut Cluster, id: JobId, spec: &JobSpec) {
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
    Reference::new(spec).check(&cluster.results(id, 0));
    assert_eq!(used(cluster), (0, ByteSize::ZERO));
    assert_eq!(cluster.request(Request::Release(id)), partita_core::Reply::Done);
    cluster.advance(MOMENT);
    assert!(cluster.core.hosts().iter().all(|host| (host.assigned_tasks, host.stored_partitions) == (0, 0)));
}

#[test]
fn a_task_that_runs_for_very_long_gets_a_second_attempt_and_the_first_result_counts() {
    let (mut cluster, id) = doubled();
    assert_eq!(used(&cluster).0, 2, "both count against the quota");
    cluster.model("one").obeys = false;
    let late = cluster.model("one").frames[0].clone();
    cluster.run_frame("two");
    assert_eq!((cluster.job(id).end, cluster.counts(id, 0).succeeded), (Some(JobEnd::Succeeded), 6));
    assert_eq!(cluster.model("one").told_to_stop, [late.attempt(0).unwrap()]);
    assert_eq!(used(&cluster).0, 1, "what was not stopped yet keeps what it reserved");
    cluster.model("one").obeys = true;
    let run = take(&mut cluster, "one");
    cluster.succeed("one", &[run]);
    assert_eq!((cluster.counts(id, 0).succeeded, cluster.job(id).totals.attempts), (6, 6), "it came too late");
    ends_well(&mut cluster, id, &spec());
}

#[test]
fn if_the_first_attempt_wins_the_second_is_stopped() {
    let (mut cluster, id) = doubled();
    cluster.run_frame("one");
    assert_eq!((cluster.job(id).end, attempts(&cluster)), (Some(JobEnd::Succeeded), [(0, 0), (0, 0)]));
    ends_well(&mut cluster, id, &spec());
}

#[test]
fn outputs_of_a_first_attempt_are_rebuilt_under_a_number_that_nobody_had() {
    let spec = job().with(array("a").tasks(6)).with(array("b").tasks(1).reads(all(0))).spec();
    let (mut cluster, id) = straggling(spec.clone(), policy("acme"));
    cluster.advance(MOMENT);
    cluster.run_frame("one");
    let index = cluster.journal.iter().rev().find_map(|record| match record {
        Record::Speculated { attempt, .. } => Some(attempt.task.index),
        _ => None,
    });
    cluster.model("one").restart();
    cluster.attach("one");
    let frames = [cluster.frames("one"), cluster.frames("two")].concat();
    let rebuilt = frames.iter().find(|frame| frame.array.0 == 0 && frame.indexes.contains(&index.unwrap()));
    assert_eq!(rebuilt.map(|frame| frame.attempts[0].0.get()), Some(3));
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
    Reference::new(&spec).check(&cluster.results(id, 1));
}

#[test]
fn an_attempt_that_fails_leaves_the_task_to_the_other_one() {
    for (fails, wins) in [("one", "two"), ("two", "one")] {
        let (mut cluster, id) = doubled();
        let run = take(&mut cluster, fails);
        cluster.fail(fails, &run, Cause::Trap);
        assert_eq!((cluster.counts(id, 0).assigned, used(&cluster).0), (1, 1));
        cluster.advance(60 * MOMENT);
        assert_eq!(cluster.tasks_at(fails), [], "it gets no third one");
        cluster.run_frame(wins);
        assert_eq!(cluster.job(id).totals.attempts, 7);
        ends_well(&mut cluster, id, &spec());
    }
}

#[test]
fn only_the_attempt_that_is_left_uses_up_a_retry() {
    let no_retries = job().with(array("a").tasks(6).options(|options| options.retries = 0)).spec();
    for order in [HOSTS, ["two", "one"]] {
        let (mut cluster, id) = straggling(no_retries.clone(), policy("acme"));
        cluster.advance(MOMENT);
        let [first, second] = order.map(|host| (host, take(&mut cluster, host)));
        cluster.fail(first.0, &first.1, Cause::Trap);
        assert_eq!(cluster.job(id).end, None);
        cluster.fail(second.0, &second.1, Cause::Trap);
        assert_eq!((cluster.job(id).end, used(&cluster).0), (Some(JobEnd::Failed), 0));
    }
    // With a retry the next attempt comes, after its back-off, whichever failed last.
    for order in [HOSTS, ["two", "one"]] {
        let (mut cluster, id) = doubled();
        for host in order {
            let run = take(&mut cluster, host);
            cluster.fail(host, &run, Cause::Trap);
        }
        assert_eq!(cluster.counts(id, 0).waiting, 1);
        cluster.advance(MOMENT);
        assert_eq!(cluster.counts(id, 0).assigned, 1);
        assert_eq!(attempts(&cluster).iter().map(|(_, number)| number).max(), Some(&3));
        ends_well(&mut cluster, id, &spec());
    }
}

#[test]
fn memory_is_raised_once_when_both_attempts_ran_out_of_it() {
    let hungry = array("a").tasks(6).memory(ByteSize::mib(64));
    let hungry = hungry.options(|options| (options.retries, options.memory_max) = (0, Some(ByteSize::gib(1))));
    let (mut cluster, id) = straggling(job().with(hungry).spec(), policy("acme"));
    cluster.advance(MOMENT);
    let [one, two] = HOSTS.map(|host| take(&mut cluster, host));
    cluster.fail("one", &one, Cause::Memory);
    assert_eq!(cluster.counts(id, 0).assigned, 1);
    cluster.fail("two", &two, Cause::Memory);
    let frames = [cluster.frames("one"), cluster.frames("two")].concat();
    assert_eq!(frames[0].memory, Some(ByteSize::mib(128)));
}

#[test]
fn the_loss_of_one_host_leaves_the_attempt_at_the_other() {
    for (lost, left) in [("one", "two"), ("two", "one")] {
        let (mut cluster, id) = doubled();
        cluster.detach(lost);
        cluster.advance(2 * HOST_TIMEOUT);
        assert_eq!((cluster.counts(id, 0).assigned, used(&cluster).0), (1, 1));
        assert_eq!(cluster.tasks_at(left).len(), 1, "it is not handed out again");
        cluster.run_frame(left);
        assert_eq!((cluster.job(id).end, used(&cluster).0), (Some(JobEnd::Succeeded), 0));
        // It comes back with its attempt, which nobody wants any more.
        cluster.attach(lost);
        assert_eq!(cluster.tasks_at(lost), []);
        ends_well(&mut cluster, id, &spec());
    }
}

#[test]
fn both_attempts_go_on_when_their_hosts_attach_again() {
    let (mut cluster, id) = doubled();
    HOSTS.iter().for_each(|host| cluster.detach(host));
    HOSTS.iter().for_each(|host| cluster.attach(host));
    assert_eq!((attempts(&cluster), used(&cluster).0), ([(1, 1), (1, 2)], 2));
    cluster.detach("two");
    let run = take(&mut cluster, "two");
    cluster.succeed_unheard("two", &[run]);
    cluster.attach("two");
    assert_eq!((cluster.job(id).end, used(&cluster).0), (Some(JobEnd::Succeeded), 0));
    ends_well(&mut cluster, id, &spec());
}

#[test]
fn after_a_restart_one_of_two_attempts_is_taken_over_and_the_other_stopped() {
    for (first, second) in [("one", "two"), ("two", "one")] {
        let (mut cluster, id) = doubled();
        cluster.restart_scheduler();
        assert_eq!(cluster.job(id).totals.speculative, 1, "that it ran is in the journal");
        cluster.attach(first);
        cluster.attach(second);
        assert_eq!((cluster.tasks_at(first).len(), cluster.tasks_at(second).len()), (1, 0));
        assert_eq!((cluster.counts(id, 0).assigned, used(&cluster).0), (1, 1));
        let run = take(&mut cluster, first);
        cluster.fail(first, &run, Cause::HostLost);
        cluster.advance(MOMENT);
        assert!(attempts(&cluster).iter().any(|(_, number)| *number > 2), "numbers are not used again");
        ends_well(&mut cluster, id, &spec());
    }
}

#[test]
fn after_a_restart_the_result_of_either_attempt_is_taken() {
    for (first, second) in [("one", "two"), ("two", "one")] {
        for done in HOSTS {
            let (mut cluster, id) = doubled();
            let run = take(&mut cluster, done);
            cluster.restart_scheduler();
            cluster.succeed_unheard(done, &[run]);
            cluster.attach(first);
            cluster.attach(second);
            ends_well(&mut cluster, id, &spec());
        }
    }
}

/// I38: whatever runs of a task is stopped with its job.
#[test]
fn a_cancelled_or_expired_job_stops_both_attempts() {
    for expires in [false, true] {
        let deadline = if expires { 20 } else { 600 } * MOMENT;
        let limited = job().with(array("a").tasks(6)).deadline(deadline).spec();
        let (mut cluster, id) = straggling(limited, policy("acme"));
        cluster.advance(2 * MOMENT);
        assert_eq!(attempts(&cluster), [(1, 1), (1, 2)]);
        if expires {
            cluster.advance(deadline);
        } else {
            cluster.request(Request::Cancel(id));
        }
        let end = if expires { JobEnd::Expired } else { JobEnd::Cancelled };
        assert_eq!((cluster.job(id).end, attempts(&cluster)), (Some(end), [(0, 0), (0, 0)]));
        assert_eq!(used(&cluster), (0, ByteSize::ZERO));
    }
}

#[test]
fn what_is_not_deterministic_or_does_not_want_it_never_runs_twice() {
    let odd = array("a").tasks(6).options(|options| options.deterministic = false);
    let unwilling = array("a").tasks(6).options(|options| options.speculate = false);
    for array in [odd, unwilling] {
        let (mut cluster, _) = straggling(job().with(array).spec(), policy("acme"));
        cluster.advance(600 * MOMENT);
        assert_eq!(attempts(&cluster), [(1, 1), (0, 0)]);
    }
}

#[test]
fn what_takes_as_long_as_usual_gets_no_second_attempt() {
    let (mut cluster, _) = straggling(spec(), policy("acme"));
    cluster.advance_by(Duration::from_millis(900));
    assert_eq!(attempts(&cluster), [(1, 1), (0, 0)], "three times 300 ms, but not a second");
    cluster.advance_by(Duration::from_millis(200));
    assert_eq!(attempts(&cluster), [(1, 1), (1, 2)]);
    // Nothing is known of a function before five of its tasks have ended.
    let (mut cluster, _) = straggling(job().with(array("a").tasks(5)).spec(), policy("acme"));
    cluster.advance(600 * MOMENT);
    assert_eq!(attempts(&cluster), [(1, 1), (0, 0)]);
}

#[test]
fn nobody_gets_a_second_attempt_while_anything_waits() {
    let (mut cluster, _) = straggling(spec(), policy("acme"));
    let waits = array("waits").tasks(1).needs(&["zone=nowhere"], &[]);
    let other = cluster.submit("others", job().with(waits).spec());
    cluster.advance(30 * MOMENT);
    assert_eq!(attempts(&cluster), [(1, 1), (0, 0)]);
    cluster.request(Request::Cancel(other));
    cluster.advance(2 * MOMENT);
    assert_eq!(attempts(&cluster), [(1, 1), (1, 2)]);
}

/// I16: a second attempt is a frame like any other.
#[test]
fn a_second_attempt_never_exceeds_the_quota() {
    let mut limited = policy("acme");
    limited.quota.concurrent_tasks = 1;
    let mut borrower = policy("acme");
    borrower.share.borrow.cpu = Some(MilliCpu(1000));
    let mut small = policy("acme");
    small.quota.concurrent_memory = ByteSize::mib(100);
    let tasks = || job().with(array("a").tasks(6).memory(ByteSize::mib(64))).spec();
    for policy in [limited, borrower, small] {
        let (mut cluster, _) = straggling(tasks(), policy);
        cluster.advance(600 * MOMENT);
        assert_eq!(attempts(&cluster), [(1, 1), (0, 0)]);
    }
}

#[test]
fn few_cores_have_second_attempts() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 10).host("two", 10);
    HOSTS.iter().for_each(|host| cluster.model(host).task_time = CpuTime::from_micros(300_000));
    let id = cluster.submit("acme", job().with(array("a").tasks(26)).spec());
    for round in 0..16 {
        cluster.run_frame(HOSTS[round % 2]);
    }
    let left = cluster.counts(id, 0).assigned as usize;
    assert_eq!(left, 10);
    for host in HOSTS {
        let frames = cluster.frames(host);
        let started = frames.iter().filter_map(|frame| frame.attempt(0)).collect();
        cluster.say(host, HostMessage::Report(Report { started, ..Report::default() }));
    }
    cluster.advance(60 * MOMENT);
    assert_eq!(cluster.tasks_at("one").len() + cluster.tasks_at("two").len(), left + 2, "one in ten of 20 cores");
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
}

#[test]
fn a_second_attempt_waits_until_what_the_task_reads_is_there_again() {
    let reads = array("b").reads(each(0)).tasks(6);
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1).host("two", 1).host("three", 1);
    let id = cluster.submit("acme", job().with(array("a").tasks(6)).with(reads).spec());
    for host in ["one", "two", "three"] {
        cluster.model(host).task_time = CpuTime::from_micros(300_000);
    }
    while cluster.counts(id, 1).succeeded < 5 || cluster.counts(id, 1).assigned < 1 {
        let busy = ["one", "two", "three"].into_iter().find(|host| {
            let tasks = cluster.tasks_at(host);
            tasks.first().is_some_and(|task| task.0 == 0 || cluster.counts(id, 1).succeeded < 5)
        });
        cluster.run_frame(busy.unwrap());
    }
    let host = ["one", "two", "three"].into_iter().find(|host| !cluster.tasks_at(host).is_empty()).unwrap();
    seen_running(&mut cluster, host);
    let source = cluster.frames(host)[0].inputs[0];
    let home = cluster.frames(host)[0].sources[source.source as usize].name.to_string();
    cluster.detach(&home);
    cluster.advance(3 * MOMENT);
    let others = |cluster: &Cluster| -> usize {
        ["one", "two", "three"].iter().filter(|other| **other != host).map(|other| cluster.tasks_at(other).len()).sum()
    };
    assert_eq!(others(&cluster), 0, "its input is away");
    cluster.attach(&home);
    cluster.advance(2 * MOMENT);
    assert_eq!(others(&cluster), 1);
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
}

#[test]
fn a_guarantee_takes_a_second_attempt_before_anything_else() {
    let (mut cluster, id) = doubled();
    let mut guaranteed = policy("others");
    guaranteed.share.guaranteed.cpu = MilliCpu(1000);
    cluster.define(guaranteed);
    cluster.submit("others", job().with(array("a").tasks(1)).spec());
    assert_eq!(cluster.core.preemptions(), 1);
    assert_eq!(cluster.counts(id, 0).assigned, 1);
    assert_eq!(attempts(&cluster), [(1, 1), (1, 1)], "the second attempt made room for the others");
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
}

#[test]
fn people_are_told_of_second_attempts() {
    let (mut cluster, id) = doubled();
    let written = |record: &Record| matches!(record, Record::Speculated { attempt, .. } if attempt.number.0.get() == 2);
    assert_eq!(cluster.journal.iter().filter(|record| written(record)).count(), 1);
    assert_eq!(cluster.job(id).totals.speculative, 1);
    let reason = cluster.core.explain(id, None, None).pop().unwrap().reason;
    let expected =
        "attempt 1 is at host one; attempt 2 (speculative: an earlier one runs for very long) is at host two";
    assert_eq!(reason, expected);
    cluster.run_all();
}

#[test]
fn a_host_that_joins_takes_over_a_straggler() {
    let (mut cluster, id) = straggling(spec(), policy("acme"));
    cluster.detach("two");
    cluster.advance(20 * MOMENT);
    assert_eq!(cluster.tasks_at("one").len(), 1);
    cluster.attach_new(HostModel::new("three", 1));
    cluster.advance(2 * MOMENT);
    cluster.run_frame("three");
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
}

/// A replay knows of no attempt but those that ended, so the task seems to wait for its back-off after the first of them.
#[test]
fn after_a_restart_a_task_whose_attempts_failed_one_by_one_is_handed_out_again() {
    let (mut cluster, id) = straggling(spec(), policy("acme"));
    let run = take(&mut cluster, "one");
    cluster.fail("one", &run, Cause::Trap);
    cluster.advance(MOMENT);
    let at = if cluster.tasks_at("one").is_empty() { "two" } else { "one" };
    let other = if at == "one" { "two" } else { "one" };
    seen_running(&mut cluster, at);
    cluster.advance(2 * MOMENT);
    assert_eq!((cluster.tasks_at(at).len(), cluster.tasks_at(other).len()), (1, 1));
    let run = take(&mut cluster, at);
    cluster.fail(at, &run, Cause::Trap);
    cluster.restart_scheduler();
    HOSTS.iter().for_each(|host| cluster.model(host).restart());
    HOSTS.iter().for_each(|host| cluster.attach(host));
    cluster.advance(60 * MOMENT);
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
}
