//! Hosts that go, come back, come back too late, and lose what they had.

use std::time::Duration;

use partita_core::{Event, HOST_TIMEOUT, HostCommand, HostMessage, JobEnd, JobEvent, Record};
use partita_testkit::{Cluster, HostModel, Reference, all, array, each, job, policy};
use partita_types::{ByteSize, Cause, Incarnation, Isolation};

const MOMENT: Duration = Duration::from_secs(1);

fn two_hosts() -> Cluster {
    Cluster::new().tenant(policy("acme")).host("one", 1).host("two", 1)
}

fn failures(cluster: &Cluster) -> Vec<Cause> {
    let cause = |record: &Record| match record {
        Record::AttemptFailed { failure, .. } => Some(failure.cause),
        _ => None,
    };
    cluster.journal.iter().filter_map(cause).collect()
}

#[test]
fn the_tasks_of_a_lost_host_go_to_another_without_blame() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1);
    let no_retries = array("a").tasks(1).options(|options| options.retries = 0);
    let id = cluster.submit("acme", job().with(no_retries).spec());
    cluster.attach_new(HostModel::new("two", 1));
    cluster.detach("one");
    assert!(cluster.tasks_at("two").is_empty(), "the host may come back");
    cluster.advance(HOST_TIMEOUT + MOMENT);
    assert_eq!(cluster.frames("two")[0].attempts[0].0.get(), 2);
    assert_eq!(failures(&cluster), [Cause::HostLost]);
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
}

#[test]
fn late_reply_of_a_lost_host_is_ignored() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1);
    let id = cluster.submit("acme", job().with(array("a").tasks(1)).spec());
    cluster.attach_new(HostModel::new("two", 1));
    let run = cluster.take_frame("one");
    let late = cluster.success("one", &run);
    cluster.detach("one");
    cluster.advance(HOST_TIMEOUT + MOMENT);
    let before = cluster.core.stale();
    cluster.say("one", HostMessage::Report(late));
    assert_eq!(cluster.core.stale(), before + 1);
    assert_eq!(cluster.counts(id, 0).assigned, 1, "the attempt at the other host goes on");
}

/// B24: a host whose heartbeats stopped is given up after its time, once.
#[test]
fn a_silent_host_is_disconnected_and_its_work_given_out_again() {
    let mut cluster = two_hosts();
    cluster.submit("acme", job().with(array("a").tasks(2)).spec());
    let one = cluster.id("one");
    for _ in 0..6 {
        cluster.now = cluster.now.after(MOMENT);
        cluster.say("two", HostMessage::Heartbeat);
        cluster.apply(Event::Ticked);
    }
    assert_eq!(cluster.disconnected, [one]);
    assert_eq!(cluster.core.hosts()[one.0 as usize].state, "lost");
    assert_eq!(cluster.tasks_at("two").len(), 2);
    let given_up = cluster
        .journal
        .iter()
        .filter(|record| matches!(record, Record::HostLost { name, .. } if name.as_str() == "one"));
    assert_eq!(given_up.count(), 1);
}

#[test]
fn a_host_that_comes_back_in_time_keeps_its_outputs() {
    let mut cluster = two_hosts();
    let spec = job().with(array("a").tasks(2)).with(array("b").reads(all(0))).spec();
    let id = cluster.submit("acme", spec);
    cluster.run_frame("one");
    cluster.detach("one");
    cluster.run_frame("two");
    assert_eq!(cluster.counts(id, 1).ready, 1, "what it reads is out of reach for now");
    let why = cluster.core.explain(id, None, None);
    assert!(why[0].reason.contains("host one, which is detached"), "{why:?}");
    cluster.advance(MOMENT);
    cluster.attach("one");
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
    assert!(failures(&cluster).is_empty());
}

#[test]
fn what_ended_while_the_host_was_away_is_adopted_and_the_rest_goes_on() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 2);
    let id = cluster.submit("acme", job().with(array("a").tasks(2)).spec());
    let done = cluster.take_frame("one");
    let _unheard = cluster.success("one", &done);
    cluster.detach("one");
    cluster.advance(MOMENT);
    cluster.attach("one");
    let counts = cluster.counts(id, 0);
    assert_eq!((counts.succeeded, counts.assigned), (1, 1));
    assert_eq!(cluster.frames("one")[0].attempts[0].0.get(), 1);
    assert_eq!(failures(&cluster), []);
    cluster.run_all();
    assert_eq!(cluster.job(id).totals.attempts, 2);
}

#[test]
fn exactly_what_is_still_needed_of_a_lost_host_is_rebuilt() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 4);
    let spec = job().with(array("a").tasks(3)).with(array("b").reads(each(0))).with(array("c").reads(all(1))).spec();
    let id = cluster.submit("acme", spec.clone());
    for _ in 0..3 {
        cluster.run_frame("one");
    }
    for index in [0, 1] {
        let run = cluster.take_run("one", 1, index);
        cluster.succeed("one", &[run]);
    }
    cluster.attach_new(HostModel::new("two", 4));
    cluster.detach("one");
    cluster.advance(HOST_TIMEOUT + MOMENT);
    let lost = cluster.journal.iter().filter_map(|record| match record {
        Record::Lost { tasks } => Some(tasks.iter().map(|task| (task.array.0, task.index)).collect::<Vec<_>>()),
        _ => None,
    });
    let lost: Vec<_> = lost.flatten().collect();
    assert_eq!(lost, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]);
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
    Reference::new(&spec).check(&cluster.results(id, 2));
}

#[test]
fn outputs_that_nobody_needs_any_more_are_not_rebuilt() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 4);
    let spec = job().with(array("a").tasks(2)).with(array("b").reads(each(0))).spec();
    let id = cluster.submit("acme", spec);
    cluster.run_all();
    cluster.detach("one");
    cluster.advance(HOST_TIMEOUT + MOMENT);
    assert!(!cluster.journal.iter().any(|record| matches!(record, Record::Lost { .. })));
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
}

#[test]
fn missing_inputs_are_rebuilt_and_their_reader_is_not_blamed() {
    let mut cluster = two_hosts();
    let reader = array("b").reads(all(0)).options(|options| options.retries = 0);
    let spec = job().with(array("a").tasks(2)).with(reader).spec();
    let id = cluster.submit("acme", spec.clone());
    cluster.run_frame("one");
    cluster.run_frame("two");
    let at = if cluster.tasks_at("one").is_empty() { "two" } else { "one" };
    let source = if at == "one" { "two" } else { "one" };
    cluster.model(source).store.clear();
    let run = cluster.take_frame(at);
    let missing = cluster.missing(&run);
    assert_eq!(missing.len(), 1);
    let report = cluster.model(at).fail(&run[0], Cause::Input, missing);
    cluster.say(at, HostMessage::Report(report));
    assert_eq!(cluster.counts(id, 0).assigned, 1, "the lost one runs again");
    cluster.advance(MOMENT);
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
    Reference::new(&spec).check(&cluster.results(id, 1));
    assert!(cluster.events[&id].iter().any(|event| matches!(event, JobEvent::TasksLost { .. })));
}

#[test]
fn a_host_cannot_declare_inputs_lost_that_its_task_does_not_read() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 2);
    let id = cluster.submit("acme", job().with(array("a").tasks(1)).with(array("b").tasks(1)).spec());
    let run = cluster.take_run("one", 0, 0);
    cluster.succeed("one", &[run]);
    let victim = *cluster.model("one").store.keys().next().unwrap();
    let run = cluster.take_run("one", 1, 0);
    let report = cluster.model("one").fail(&run, Cause::Input, vec![victim]);
    cluster.say("one", HostMessage::Report(report));
    assert_eq!(cluster.counts(id, 0).succeeded, 1);
    assert!(cluster.model("one").store.contains_key(&victim));
}

#[test]
fn a_newer_session_of_a_host_replaces_the_older_and_an_older_one_is_only_counted() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1);
    cluster.submit("acme", job().with(array("a").tasks(1)).spec());
    let id = cluster.id("one");
    cluster.model("one").restart();
    cluster.attach("one");
    assert_eq!(cluster.disconnected, [id]);
    assert_eq!(cluster.frames("one")[0].attempts[0].0.get(), 2);
    let before = cluster.core.stale();
    let mut old = HostModel::new("one", 1);
    old.incarnation = Incarnation(1);
    cluster.apply(Event::HostAttached(old.hello()));
    cluster.apply(Event::HostDetached { host: id, incarnation: Incarnation(1) });
    assert_eq!(cluster.core.stale(), before + 2);
    assert_eq!(cluster.core.hosts()[id.0 as usize].state, "attached");
}

#[test]
fn a_host_is_told_to_drop_what_nobody_wants() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1).host("two", 1);
    let id = cluster.submit("acme", job().with(array("a").tasks(1)).spec());
    let run = cluster.take_frame("one");
    let _unheard = cluster.success("one", &run);
    cluster.detach("one");
    cluster.advance(HOST_TIMEOUT + MOMENT);
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
    cluster.attach("one");
    assert!(cluster.model("one").store.is_empty(), "the other host has the result of the current attempt");
    assert_eq!(cluster.model("two").store.len(), 1);
}

#[test]
fn tasks_run_where_their_inputs_are_while_there_is_room() {
    let mut cluster = Cluster::new().tenant(policy("acme"));
    for name in ["one", "two"] {
        let mut model = HostModel::new(name, 2);
        model.output_size = ByteSize::mib(64);
        cluster.attach_new(model);
    }
    let spec = job().with(array("a").tasks(4)).with(array("b").reads(each(0))).spec();
    cluster.submit("acme", spec);
    let (one, two) = (cluster.tasks_at("one"), cluster.tasks_at("two"));
    for host in ["one", "two"] {
        for _ in 0..2 {
            cluster.run_frame(host);
        }
    }
    let indexes = |tasks: &[(u32, u32)]| tasks.iter().map(|(_, index)| *index).collect::<Vec<_>>();
    assert_eq!(indexes(&cluster.tasks_at("one")), indexes(&one));
    assert_eq!(indexes(&cluster.tasks_at("two")), indexes(&two));
}

#[test]
fn a_policy_can_demand_stronger_isolation() {
    let mut careful = policy("acme");
    careful.minimum_isolation = Isolation::Full;
    let mut cluster = Cluster::new().tenant(careful);
    let mut weak = HostModel::new("weak", 1);
    weak.isolation = Isolation::Process;
    cluster.attach_new(weak);
    let id = cluster.submit("acme", job().with(array("a").tasks(1)).spec());
    assert!(cluster.tasks_at("weak").is_empty());
    assert!(cluster.core.explain(id, None, None)[0].reason.contains("isolation full"));
    cluster.attach_new(HostModel::new("strong", 1));
    assert_eq!(cluster.tasks_at("strong"), [(0, 0)]);
}

#[test]
fn the_header_of_an_array_is_sent_once_per_session() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1);
    cluster.submit("acme", job().with(array("a").tasks(100)).spec());
    cluster.detach("one");
    let headers = |cluster: &Cluster| {
        let count = |(_, command): &(String, HostCommand)| match command {
            HostCommand::Assign { arrays, .. } => arrays.len(),
            _ => 0,
        };
        cluster.commands.iter().map(count).sum::<usize>()
    };
    cluster.attach("one");
    assert!(cluster.model("one").told.is_empty(), "it goes on with what it has, so it need not be told yet");
    // A frame after that comes with its header, as the model demands.
    let runs = cluster.take_frame("one");
    cluster.succeed("one", &runs);
    assert_eq!(cluster.model("one").told.len(), 1, "a new session knows nothing");
    // From here on commands are kept instead of delivered, to look at them.
    let runs = cluster.take_frame("one");
    let report = cluster.success("one", &runs);
    let (host, incarnation) = (cluster.id("one"), Incarnation(1));
    let mut actions = Vec::new();
    cluster.core.apply(
        cluster.now,
        Event::FromHost { host, incarnation, message: HostMessage::Report(report) },
        &mut actions,
    );
    assert_eq!(headers(&cluster), 0);
    let assigned = actions.iter().any(|action| {
        matches!(action, partita_core::Action::Command { command: HostCommand::Assign { arrays, frames }, .. }
            if arrays.is_empty() && !frames.is_empty())
    });
    assert!(assigned, "{actions:?}");
}

#[test]
fn a_host_is_not_believed_about_tasks_that_it_was_not_given() {
    let mut cluster = Cluster::new().tenant(policy("acme"));
    let id = cluster.submit("acme", job().with(array("a").tasks(1)).spec());
    let mut liar = HostModel::new("liar", 0);
    let task = partita_types::TaskId { job: id, array: partita_types::ArrayIndex(0), index: 0 };
    let attempt = partita_types::AttemptId { task, number: partita_types::AttemptNumber::FIRST.next() };
    let info = partita_types::OutputInfo { size: ByteSize(1), hash: partita_types::ContentHash([6; 32]) };
    liar.store.insert(partita_types::PartitionId { attempt, output: 0 }, info);
    cluster.attach_new(liar);
    assert_eq!(cluster.counts(id, 0).ready, 1);
    assert!(cluster.model("liar").store.is_empty(), "it is told to drop that");
}

#[test]
fn absurd_numbers_of_a_host_do_not_break_the_scheduler() {
    let mut cluster = Cluster::new().tenant(policy("acme"));
    for name in ["one", "two"] {
        let mut absurd = HostModel::new(name, 2);
        absurd.capacity.memory = ByteSize(u64::MAX);
        absurd.capacity.partitions = ByteSize(u64::MAX);
        absurd.output_size = ByteSize(u64::MAX);
        cluster.attach_new(absurd);
    }
    let mut generous = policy("acme");
    generous.quota.stored = ByteSize(u64::MAX);
    cluster.define(generous);
    let id = cluster.submit("acme", job().with(array("a").tasks(20)).spec());
    let run = cluster.take_frame("one");
    let mut report = cluster.success("one", &run);
    report.succeeded[0].moved_partitions = u64::MAX;
    report.succeeded[0].moved_bytes = ByteSize(u64::MAX);
    cluster.say("one", HostMessage::Report(report));
    assert_eq!(cluster.counts(id, 0).succeeded, 1);
    assert!(cluster.core.explain(id, None, None).iter().any(|why| why.reason.contains("release jobs")));
}

#[test]
fn a_host_cannot_report_what_another_host_was_given() {
    let mut cluster = two_hosts();
    let id = cluster.submit("acme", job().with(array("a").tasks(2)).spec());
    let runs = cluster.take_frame("one");
    let forged = cluster.success("two", &runs);
    cluster.say("two", HostMessage::Report(forged));
    let failure = cluster.model("two").fail(&runs[0], Cause::Failed, Vec::new());
    cluster.say("two", HostMessage::Report(failure));
    assert_eq!(cluster.counts(id, 0).assigned, 2);
    cluster.succeed("one", &runs);
    assert_eq!(cluster.counts(id, 0).succeeded, 1);
}
