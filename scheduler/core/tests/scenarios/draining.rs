//! Hosts that are emptied, and outputs that move for it.

use std::time::Duration;

use partita_core::{Core, DrainView, HOST_TIMEOUT, HostCommand, HostMessage, JobEnd, Record, Refusal, Reply, Request};
use partita_testkit::{Cluster, HostModel, all, array, each, job, policy};
use partita_types::{ArrayIndex, ByteSize, Cause, HostName, Isolation, JobId, PartitionId};

const MOMENT: Duration = Duration::from_secs(1);
/// Longer than it takes until everything that can move has moved.
const WHILE: Duration = Duration::from_secs(20);

fn name(host: &str) -> HostName {
    HostName::new(host).unwrap()
}

fn drain(cluster: &mut Cluster, host: &str) {
    assert_eq!(cluster.request(Request::Drain { host: name(host), on: true }), Reply::Done);
}

fn undrain(cluster: &mut Cluster, host: &str) {
    assert_eq!(cluster.request(Request::Drain { host: name(host), on: false }), Reply::Done);
}

fn view(core: &Core, host: &str) -> DrainView {
    let found = core.hosts().into_iter().find(|view| view.name.as_str() == host).unwrap();
    found.drain.expect("a host that is drained")
}

fn is_drained(cluster: &Cluster, host: &str) -> bool {
    view(&cluster.core, host).done
}

fn stored(cluster: &mut Cluster, host: &str) -> usize {
    cluster.model(host).store.len()
}

/// Two hosts of one core; a job of which the first has four results, because the second came late.
fn one_has_results() -> (Cluster, JobId) {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1);
    let id = cluster.submit("acme", job().with(array("kept").tasks(4).outputs(2)).spec());
    cluster.run_all();
    cluster.attach_new(HostModel::new("two", 1));
    assert_eq!((stored(&mut cluster, "one"), stored(&mut cluster, "two")), (8, 0));
    (cluster, id)
}

#[test]
fn results_of_a_drained_host_are_read_from_another_after_it_was_stopped_and_nothing_ran_again() {
    let (mut cluster, id) = one_has_results();
    drain(&mut cluster, "one");
    cluster.advance_by(MOMENT);
    assert!(is_drained(&cluster, "one"));
    assert_eq!((stored(&mut cluster, "one"), stored(&mut cluster, "two")), (0, 8));
    cluster.detach("one");
    cluster.advance(HOST_TIMEOUT + MOMENT);
    assert_eq!(cluster.results(id, 0).len(), 8);
    assert_eq!(cluster.job(id).totals.attempts, 4);
    assert!(!cluster.journal.iter().any(|record| matches!(record, Record::Lost { .. })));
}

#[test]
fn a_host_that_is_drained_gets_no_work_and_takes_part_again_when_that_is_taken_back() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1).host("two", 1);
    drain(&mut cluster, "one");
    let id = cluster.submit("acme", job().with(array("a").tasks(9)).spec());
    assert_eq!(cluster.tasks_at("one"), []);
    undrain(&mut cluster, "one");
    assert_ne!(cluster.tasks_at("one"), []);
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
}

/// Graceful draining is no failure: the tasks that wait there begin elsewhere, those that run end there, and no attempt
/// counts against a task.
#[test]
fn waiting_tasks_of_a_drained_host_go_elsewhere_and_running_ones_end_there() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1);
    let id = cluster.submit("acme", job().with(array("a").tasks(2)).spec());
    assert_eq!(cluster.tasks_at("one").len(), 2);
    // Too small to take anything from a busy host by itself.
    let mut two = HostModel::new("two", 1);
    two.capacity.cores = 0;
    cluster.attach_new(two);
    drain(&mut cluster, "one");
    cluster.advance_by(MOMENT);
    assert_eq!(cluster.tasks_at("one"), [(0, 0)], "what had begun");
    assert!(!is_drained(&cluster, "one"));
    cluster.run_frame("one");
    cluster.advance_by(MOMENT);
    assert!(is_drained(&cluster, "one"));
    cluster.attach_new(HostModel::new("three", 1));
    cluster.run_all();
    assert_eq!((cluster.job(id).end, cluster.job(id).failure), (Some(JobEnd::Succeeded), None));
    assert!(!cluster.journal.iter().any(|record| matches!(record, Record::AttemptFailed { .. })));
}

/// B26: a host that was drained and stopped has no part in the failures of a task.
#[test]
fn stopping_a_drained_host_counts_against_no_task() {
    let (mut cluster, _) = one_has_results();
    let id = cluster.submit("acme", job().with(array("next").tasks(3)).spec());
    drain(&mut cluster, "one");
    while !is_drained(&cluster, "one") {
        if cluster.tasks_at("one").is_empty() {
            cluster.advance_by(MOMENT);
        } else {
            cluster.run_frame("one");
        }
    }
    cluster.detach("one");
    cluster.advance(HOST_TIMEOUT + MOMENT);
    cluster.run_all();
    assert_eq!((cluster.job(id).end, cluster.job(id).totals.attempts), (Some(JobEnd::Succeeded), 3));
    assert!(!cluster.journal.iter().any(|record| matches!(record, Record::AttemptFailed { .. } | Record::Lost { .. })));
}

/// B44: all hosts of a cluster are drained. Those that are empty are done at once; those that have what no other has stay, say so,
/// and take part again when that is taken back; of two that have the same, one is done.
#[test]
fn when_all_hosts_are_drained_empty_ones_are_done_and_unique_data_stays_and_says_so() {
    let (mut cluster, id) = one_has_results();
    cluster.attach_new(HostModel::new("empty", 1));
    for host in ["empty", "two", "one"] {
        drain(&mut cluster, host);
    }
    cluster.advance(WHILE);
    assert!(is_drained(&cluster, "empty") && is_drained(&cluster, "two") && !is_drained(&cluster, "one"));
    let left = view(&cluster.core, "one");
    assert_eq!((left.partitions, left.bytes), (8, ByteSize(800)));
    let why = left.stuck.expect("a reason");
    assert!(why.contains("no other attached host that is not drained itself"), "{why}");
    let listed = cluster.core.left_at(cluster.id("one"));
    assert_eq!((listed.len(), listed[0].array.as_str(), listed[0].tasks), (1, "kept", 4));
    assert_eq!(stored(&mut cluster, "one"), 8);
    undrain(&mut cluster, "one");
    assert_eq!(cluster.results(id, 0).len(), 8);
}

/// B44: while a move goes on both have the outputs; whichever of the two is drained then, one copy is left, and that counts.
#[test]
fn of_two_hosts_with_the_same_outputs_one_is_drained() {
    let (mut cluster, id) = two_have_the_same();
    drain(&mut cluster, "two");
    cluster.advance(MOMENT);
    assert!(orders(&mut cluster, "one") == 0 && !is_drained(&cluster, "two"), "a task may read it there");
    cluster.run_frame("one");
    cluster.advance(MOMENT);
    assert!(is_drained(&cluster, "two"));
    assert_eq!((stored(&mut cluster, "one"), stored(&mut cluster, "two")), (2, 0));
    assert_eq!(cluster.results(id, 0).len(), 1);
}

/// An output that moved from one to two, and is still at one, because a task that was told so has not ended. One takes
/// part again.
fn two_have_the_same() -> (Cluster, JobId) {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1);
    let spec = job().with(array("input").tasks(1).options(|o| o.keep = true)).with(array("work").reads(each(0))).spec();
    let id = cluster.submit("acme", spec);
    cluster.run_frame("one");
    assert_eq!(cluster.tasks_at("one"), [(1, 0)]);
    let mut two = HostModel::new("two", 1);
    two.capacity.cores = 0;
    cluster.attach_new(two);
    drain(&mut cluster, "one");
    cluster.advance_by(MOMENT);
    assert_eq!((stored(&mut cluster, "one"), stored(&mut cluster, "two")), (1, 1));
    assert!(!is_drained(&cluster, "one"));
    undrain(&mut cluster, "one");
    (cluster, id)
}

/// B43: a copy that a task was told to read stays until that has ended.
#[test]
fn what_a_running_task_may_read_is_deleted_only_when_it_has_ended() {
    let (mut cluster, id) = two_have_the_same();
    cluster.advance(WHILE);
    assert_eq!(stored(&mut cluster, "one"), 1);
    cluster.run_frame("one");
    cluster.advance_by(MOMENT);
    assert_eq!((stored(&mut cluster, "one"), stored(&mut cluster, "two")), (1, 1), "the output of the task is all");
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
}

/// B23: the copy that is left takes over, and nothing is made again.
#[test]
fn if_the_place_of_an_output_is_lost_another_copy_takes_over() {
    let (mut cluster, id) = two_have_the_same();
    cluster.detach("two");
    cluster.advance(HOST_TIMEOUT + MOMENT);
    cluster.run_all();
    assert_eq!((cluster.job(id).end, cluster.job(id).totals.attempts), (Some(JobEnd::Succeeded), 2));
    assert_eq!(cluster.results(id, 0).len(), 1);
}

/// The word of a reader that looked at the old place says nothing about the new one.
#[test]
fn a_reader_that_was_told_of_the_old_place_does_not_cost_the_new_copy() {
    let (mut cluster, id) = two_have_the_same();
    let run = cluster.take_run("one", 1, 0);
    let input = run.inputs[0].0.id;
    let report = cluster.model("one").fail(&run, Cause::Input, vec![input]);
    cluster.say("one", HostMessage::Report(report));
    cluster.advance(MOMENT);
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
    assert!(!cluster.journal.iter().any(|record| matches!(record, Record::Lost { .. })));
}

/// The orders to copy that a host has not answered.
fn orders(cluster: &mut Cluster, host: &str) -> usize {
    cluster.model(host).told_to_copy.len()
}

/// I23
#[test]
fn nothing_is_deleted_at_the_source_before_the_copy_was_verified() {
    let (mut cluster, id) = one_has_results();
    cluster.model("two").copies = false;
    drain(&mut cluster, "one");
    cluster.advance(WHILE);
    assert_eq!((orders(&mut cluster, "two"), stored(&mut cluster, "one")), (1, 8));
    // The bytes that came are others than the task wrote.
    let (order, _, mut copies) = cluster.model("two").told_to_copy.pop().unwrap();
    copies.iter_mut().for_each(|copy| copy.info.hash.0 = [1; 32]);
    cluster.say("two", HostMessage::Copied { order, copies, problem: None });
    cluster.advance_by(MOMENT);
    assert_eq!((cluster.results(id, 0).len(), stored(&mut cluster, "one")), (8, 8));
    cluster.model("two").copies = true;
    cluster.advance(WHILE);
    assert!(is_drained(&cluster, "one"), "it is tried again after a while");
    assert_eq!(cluster.results(id, 0).len(), 8);
}

#[test]
fn a_target_that_dies_in_the_middle_costs_nothing_and_another_takes_its_place() {
    let (mut cluster, id) = one_has_results();
    cluster.model("two").copies = false;
    drain(&mut cluster, "one");
    cluster.advance_by(MOMENT);
    assert_eq!(orders(&mut cluster, "two"), 1);
    cluster.detach("two");
    cluster.model("two").restart();
    cluster.attach_new(HostModel::new("three", 1));
    cluster.advance(HOST_TIMEOUT + MOMENT);
    assert!(is_drained(&cluster, "one"));
    assert_eq!((cluster.results(id, 0).len(), cluster.job(id).totals.attempts), (8, 4));
}

#[test]
fn a_source_that_dies_in_the_middle_costs_what_any_loss_costs() {
    let (mut cluster, id) = one_has_results();
    cluster.model("two").copies = false;
    drain(&mut cluster, "one");
    cluster.advance_by(MOMENT);
    cluster.detach("one");
    cluster.model("one").restart();
    cluster.advance(HOST_TIMEOUT + MOMENT);
    cluster.copy_told("two");
    cluster.ask(Request::Locate { job: id, array: ArrayIndex(0), tasks: 0..4, output: 0 });
    cluster.run_all();
    assert_eq!((cluster.job(id).end, cluster.job(id).totals.attempts), (Some(JobEnd::Succeeded), 8));
}

/// A copy that arrives when its source is lost for good is as good as the original.
#[test]
fn a_copy_that_comes_after_its_source_was_lost_saves_the_outputs() {
    let (mut cluster, id) = one_has_results();
    cluster.model("two").copies = false;
    drain(&mut cluster, "one");
    cluster.advance_by(MOMENT);
    cluster.detach("one");
    cluster.advance(HOST_TIMEOUT + MOMENT);
    let (order, _, copies) = cluster.model("two").told_to_copy.pop().unwrap();
    cluster.model("two").store.extend(copies.iter().map(|copy| (copy.id, copy.info)));
    cluster.say("two", HostMessage::Copied { order, copies, problem: None });
    assert_eq!((cluster.results(id, 0).len(), cluster.job(id).totals.attempts), (8, 4));
}

/// What was ordered before a drain was taken back is not taken for what is ordered after it.
#[test]
fn the_answer_to_an_order_that_was_taken_back_changes_nothing() {
    let (mut cluster, id) = one_has_results();
    cluster.model("two").copies = false;
    drain(&mut cluster, "one");
    cluster.advance_by(MOMENT);
    let (first, _, copies) = cluster.model("two").told_to_copy.pop().unwrap();
    undrain(&mut cluster, "one");
    drain(&mut cluster, "one");
    cluster.advance_by(MOMENT);
    assert_eq!(orders(&mut cluster, "two"), 1);
    cluster.say("two", HostMessage::Copied { order: first, copies, problem: None });
    cluster.advance(WHILE);
    assert_eq!(stored(&mut cluster, "one"), 8, "the first answer says nothing about the second order");
    cluster.copy_told("two");
    cluster.advance_by(MOMENT);
    assert_eq!((stored(&mut cluster, "one"), cluster.results(id, 0).len()), (0, 8));
}

#[test]
fn a_copy_of_a_job_that_was_released_meanwhile_is_deleted() {
    let (mut cluster, id) = one_has_results();
    cluster.model("two").copies = false;
    drain(&mut cluster, "one");
    cluster.advance_by(MOMENT);
    let order = cluster.model("two").told_to_copy[0].clone();
    cluster.request(Request::Release(id));
    let copies = order.2;
    cluster.model("two").store.extend(copies.iter().map(|copy| (copy.id, copy.info)));
    cluster.say("two", HostMessage::Copied { order: order.0, copies, problem: None });
    assert_eq!((stored(&mut cluster, "one"), stored(&mut cluster, "two")), (0, 0));
}

/// I40
#[test]
fn what_no_host_has_room_for_stays_until_one_has() {
    let (mut cluster, id) = one_has_results();
    cluster.model("two").capacity.partitions = ByteSize(500);
    cluster.detach("two");
    cluster.attach("two");
    drain(&mut cluster, "one");
    cluster.advance(WHILE);
    let left = view(&cluster.core, "one");
    assert_eq!((left.done, left.partitions, left.bytes), (false, 4, ByteSize(400)), "two of four tasks had room");
    let why = left.stuck.unwrap();
    assert!(why.contains("host, two, has room for 100 B more, and 400 B are left"), "{why}");
    cluster.attach_new(HostModel::new("three", 1));
    cluster.advance(WHILE);
    assert!(is_drained(&cluster, "one"));
    assert_eq!(cluster.results(id, 0).len(), 8);
}

#[test]
fn outputs_never_go_to_a_host_that_is_weaker_than_their_tenants_policy_wants() {
    let mut strict = policy("acme");
    strict.minimum_isolation = Isolation::Full;
    let mut cluster = Cluster::new().tenant(strict).host("one", 1);
    cluster.submit("acme", job().with(array("kept").tasks(2)).spec());
    cluster.run_all();
    let mut weak = HostModel::new("weak", 1);
    weak.isolation = Isolation::Process;
    cluster.attach_new(weak);
    drain(&mut cluster, "one");
    cluster.advance(WHILE);
    assert_eq!((stored(&mut cluster, "one"), stored(&mut cluster, "weak")), (2, 0));
    assert!(!is_drained(&cluster, "one"));
}

#[test]
fn a_restart_of_the_scheduler_or_the_host_does_not_end_a_drain() {
    let (mut cluster, _) = one_has_results();
    cluster.model("two").copies = false;
    drain(&mut cluster, "one");
    cluster.restart_scheduler();
    cluster.attach("one");
    cluster.attach("two");
    cluster.model("two").copies = true;
    let id = cluster.submit("acme", job().with(array("next").tasks(3)).spec());
    assert_eq!(cluster.tasks_at("one"), []);
    cluster.advance(WHILE);
    assert!(is_drained(&cluster, "one"));
    cluster.run_all();
    cluster.detach("one");
    cluster.model("one").restart();
    cluster.advance(HOST_TIMEOUT + MOMENT);
    cluster.attach("one");
    cluster.advance_by(MOMENT);
    assert!(is_drained(&cluster, "one"));
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
}

#[test]
fn a_compaction_keeps_which_hosts_are_drained() {
    let (mut cluster, _) = one_has_results();
    drain(&mut cluster, "one");
    drain(&mut cluster, "two");
    undrain(&mut cluster, "two");
    let mut compaction = cluster.core.compaction();
    let mut kept = Vec::new();
    cluster.journal.iter().for_each(|record| compaction.pass(record.clone(), &mut kept));
    compaction.finish(&mut kept);
    let drains: Vec<_> = kept
        .iter()
        .filter_map(|record| match record {
            Record::HostDraining { name, on, .. } => Some((name.as_str(), *on)),
            _ => None,
        })
        .collect();
    assert_eq!(drains, [("one", true)]);
}

#[test]
fn a_host_that_nobody_knows_cannot_be_drained() {
    let (mut cluster, _) = one_has_results();
    let reply = cluster.request(Request::Drain { host: name("nobody"), on: true });
    let Reply::Refused(Refusal::NotFound { what }) = reply else { panic!("{reply:?}") };
    assert_eq!(what, "host nobody");
    // To say it again changes nothing, and is no fault.
    drain(&mut cluster, "one");
    drain(&mut cluster, "one");
    let drains = cluster.journal.iter().filter(|record| matches!(record, Record::HostDraining { .. })).count();
    assert_eq!(drains, 1);
}

/// Tasks wait, and say why, when every host is drained; they do not fail as if no host could ever run them.
#[test]
fn tasks_that_only_drained_hosts_could_run_wait_and_say_so() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1);
    drain(&mut cluster, "one");
    let id = cluster.submit("acme", job().with(array("a").tasks(1)).spec());
    let told = cluster.core.explain(id, None, None);
    assert!(told[0].reason.contains("is being drained"), "{told:?}");
    cluster.advance(Duration::from_secs(3_600));
    assert_eq!(cluster.job(id).end, None);
    undrain(&mut cluster, "one");
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
}

#[test]
fn uploads_go_to_hosts_that_take_part() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1).host("two", 1);
    drain(&mut cluster, "one");
    let id = cluster.submit("acme", job().with(array("data").tasks(1).upload()).spec());
    let task = partita_types::TaskId { job: id, array: ArrayIndex(0), index: 0 };
    let reply = cluster.request(Request::Upload { task, size: ByteSize(10) });
    let Reply::UploadTo { host, .. } = reply else { panic!("{reply:?}") };
    assert_eq!(host, cluster.id("two"));
}

/// A client may bring the same upload twice, under the same name if the scheduler was restarted in between. What came second
/// is the copy that counts, not a second one.
#[test]
fn an_upload_that_comes_twice_under_one_name_is_kept() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1);
    let id = cluster.submit("acme", job().with(array("data").tasks(1).upload()).spec());
    let task = partita_types::TaskId { job: id, array: ArrayIndex(0), index: 0 };
    let reply = cluster.request(Request::Upload { task, size: ByteSize(10) });
    let Reply::UploadTo { partition, .. } = reply else { panic!("{reply:?}") };
    let info = partita_types::OutputInfo { size: ByteSize(10), hash: partita_types::ContentHash([3; 32]) };
    for _ in 0..2 {
        cluster.model("one").store.insert(partition, info);
        cluster.say("one", HostMessage::UploadStored { partition, result: Ok(info) });
    }
    assert_eq!(cluster.results(id, 0).len(), 1);
}

/// Orders are bounded: four from a host at a time, and 64 MiB to another.
#[test]
fn few_orders_are_under_way_at_a_time_and_all_of_it_moves_in_the_end() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 4);
    cluster.model("one").output_size = ByteSize::mib(40);
    let id = cluster.submit("acme", job().with(array("kept").tasks(10)).spec());
    cluster.run_all();
    for host in ["two", "three", "four", "five", "six"] {
        let mut model = HostModel::new(host, 1);
        model.copies = false;
        cluster.attach_new(model);
    }
    drain(&mut cluster, "one");
    cluster.advance_by(MOMENT);
    let under_way = |cluster: &mut Cluster| -> Vec<usize> {
        ["two", "three", "four", "five", "six"].iter().map(|host| cluster.model(host).told_to_copy.len()).collect()
    };
    let first = under_way(&mut cluster);
    assert_eq!(first.iter().sum::<usize>(), 4, "{first:?}");
    while !is_drained(&cluster, "one") {
        for host in ["two", "three", "four", "five", "six"] {
            cluster.copy_told(host);
        }
        cluster.advance_by(MOMENT);
    }
    assert_eq!(cluster.results(id, 0).len(), 10);
}

/// A partition is not told to be deleted while anything says that it counts there.
#[test]
fn what_counts_at_a_host_is_never_told_to_be_deleted_there() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 2).host("two", 2).host("three", 2);
    let spec = job().with(array("a").tasks(12)).with(array("sum").reads(all(0))).spec();
    let id = cluster.submit("acme", spec);
    for host in ["one", "two", "three", "one", "two"] {
        drain(&mut cluster, host);
        let busy = ["one", "two", "three"].into_iter().find(|busy| !cluster.tasks_at(busy).is_empty());
        if let Some(busy) = busy {
            cluster.run_frame(busy);
        }
        cluster.advance_by(MOMENT);
        undrain(&mut cluster, host);
        let dropped: Vec<PartitionId> = cluster
            .commands
            .iter()
            .filter_map(|(_, command)| if let HostCommand::Drop(ids) = command { Some(ids.clone()) } else { None })
            .flatten()
            .collect();
        assert!(dropped.iter().all(|id| cluster.core.holders(id.attempt).is_empty()));
    }
    cluster.run_all();
    assert_eq!((cluster.job(id).end, cluster.job(id).totals.attempts), (Some(JobEnd::Succeeded), 13));
}
