//! Which host a task may run at: labels, resources, memory, and what happens if there is none yet.

use partita_testkit::{Cluster, HostModel, array, job, policy};
use partita_types::{ByteSize, CpuTime, JobId};

/// Two hosts: one in zone a with three pieces of A, one in zone b with one piece of B.
fn two_zones() -> Cluster {
    let mut cluster = Cluster::new().tenant(policy("acme"));
    cluster.attach_new(HostModel::new("one", 4).having(&["zone=a", "disk=fast"], &["a=3"]));
    cluster.attach_new(HostModel::new("two", 4).having(&["zone=b"], &["b=1"]));
    for host in ["one", "two"] {
        cluster.model(host).task_time = CpuTime::from_micros(500_000);
    }
    cluster
}

fn assigned(cluster: &Cluster, job: JobId) -> u32 {
    cluster.counts(job, 0).assigned
}

fn reason(cluster: &Cluster, id: JobId) -> String {
    cluster.core.explain(id, None, None).pop().unwrap().reason
}

/// B7: only hosts with the label get such tasks, however idle others are.
#[test]
fn tasks_with_a_label_run_only_at_hosts_that_have_it() {
    let mut cluster = two_zones();
    let id = cluster.submit("acme", job().with(array("a").tasks(50).needs(&["zone=a"], &[])).spec());
    let mut ran = 0;
    while !cluster.frames("one").is_empty() {
        assert!(cluster.frames("two").is_empty());
        cluster.run_frame("one");
        ran += 1;
    }
    assert_eq!((ran, cluster.counts(id, 0).succeeded), (50, 50));
}

/// B7: the same holds for what a task frees by failing, and for what a lost host had.
#[test]
fn a_retry_runs_only_at_hosts_with_its_labels() {
    let mut cluster = two_zones();
    let id = cluster.submit("acme", job().with(array("a").tasks(1).needs(&["zone=b"], &[])).spec());
    cluster.detach("two");
    cluster.advance(std::time::Duration::from_secs(6));
    assert_eq!(assigned(&cluster, id), 0, "host one is idle, and in another zone");
    cluster.attach("two");
    assert_eq!(cluster.tasks_at("two"), [(0, 0)]);
}

/// B14, B31: labels are strict. Nothing runs elsewhere meanwhile, and it runs when a host with them comes.
#[test]
fn a_task_that_no_host_can_run_waits_says_why_and_runs_when_one_comes() {
    let mut cluster = two_zones();
    let id = cluster.submit("acme", job().with(array("a").tasks(2).needs(&["zone=c"], &[])).spec());
    assert_eq!(assigned(&cluster, id), 0);
    assert_eq!(reason(&cluster, id), "wants a host with label zone=c, and no attached host has it");
    cluster.attach_new(HostModel::new("three", 1).having(&["zone=c"], &[]));
    assert_eq!(cluster.tasks_at("three"), [(0, 0), (0, 1)]);
}

/// B31: tasks that are there before any host does nothing to them.
#[test]
fn tasks_wait_for_the_first_host() {
    let mut cluster = Cluster::new().tenant(policy("acme"));
    let id = cluster.submit("acme", job().with(array("a").tasks(2)).spec());
    assert_eq!(assigned(&cluster, id), 0);
    cluster.attach_new(HostModel::new("one", 2));
    assert_eq!(assigned(&cluster, id), 2);
}

#[test]
fn labels_that_are_nowhere_together_are_named_together() {
    let mut cluster = two_zones();
    let id = cluster.submit("acme", job().with(array("a").tasks(1).needs(&["zone=b", "disk=fast"], &[])).spec());
    assert_eq!(reason(&cluster, id), "wants a host with label disk=fast and zone=b, and no attached host has it");
}

/// B19: each goes where its resource is; what nobody has waits for a host that has it.
#[test]
fn tasks_go_where_their_resources_are() {
    let mut cluster = two_zones();
    let mut submit =
        |resource: &str| cluster.submit("acme", job().with(array("x").tasks(1).needs(&[], &[resource])).spec());
    let (a, b, c) = (submit("a=3"), submit("b=1"), submit("c=2"));
    let jobs_at =
        |cluster: &Cluster, host: &str| cluster.frames(host).iter().map(|frame| frame.job).collect::<Vec<_>>();
    assert_eq!((jobs_at(&cluster, "one"), jobs_at(&cluster, "two")), (vec![a], vec![b]));
    let why = reason(&cluster, c);
    assert_eq!(why, "wants 2 of c, and the most that an attached host with its labels has is 0");
    cluster.attach_new(HostModel::new("three", 1).having(&[], &["c=2"]));
    assert_eq!(jobs_at(&cluster, "three"), [c]);
}

/// B19: never more at once than there is, and all of it is free at the end. I8 is checked after each step.
#[test]
fn a_resource_is_never_promised_twice_and_all_of_it_comes_back() {
    let mut cluster = two_zones();
    let id = cluster.submit("acme", job().with(array("x").tasks(20).needs(&[], &["a=2"])).spec());
    for _ in 0..20 {
        assert_eq!(assigned(&cluster, id), 1, "three pieces are enough for one that needs two");
        assert!(reason(&cluster, id).contains("resources, are taken") || cluster.counts(id, 0).ready == 0);
        cluster.run_frame("one");
    }
    assert_eq!(cluster.counts(id, 0).succeeded, 20);
    let all = cluster.submit("acme", job().with(array("x").tasks(1).needs(&[], &["a=3"])).spec());
    assert_eq!(assigned(&cluster, all), 1);
}

#[test]
fn resources_of_failed_and_cancelled_tasks_come_back() {
    let mut cluster = two_zones();
    let id = cluster.submit("acme", job().with(array("x").tasks(3).needs(&[], &["a=1"])).spec());
    let run = cluster.take_run("one", 0, 1);
    cluster.fail("one", &run, partita_types::Cause::Failed);
    assert_eq!(cluster.job(id).end, Some(partita_core::JobEnd::Failed), "and the others of it were cancelled");
    let all = cluster.submit("acme", job().with(array("x").tasks(1).needs(&[], &["a=3"])).spec());
    assert_eq!(assigned(&cluster, all), 1);
}

/// A large appetite is not starved by small ones: what comes free is kept for it.
#[test]
fn a_task_that_needs_all_of_a_resource_does_not_starve() {
    let mut cluster = two_zones();
    let small = cluster.submit("acme", job().with(array("x").tasks(100).needs(&[], &["a=1"])).spec());
    let greedy = array("x").tasks(1).needs(&[], &["a=3"]).options(|options| options.priority = 1);
    let greedy = cluster.submit("acme", job().with(greedy).spec());
    for _ in 0..4 {
        if assigned(&cluster, greedy) == 0 {
            cluster.run_frame("one");
        }
    }
    assert_eq!(assigned(&cluster, greedy), 1, "{}", reason(&cluster, greedy));
    assert!(cluster.counts(small, 0).succeeded <= 4);
}

/// B16: a task larger than any host never reaches one, says so, and runs when a larger host comes.
#[test]
fn a_task_larger_than_any_host_is_never_handed_out() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 2);
    let id = cluster.submit("acme", job().with(array("huge").tasks(1).memory(ByteSize::gib(3))).spec());
    assert_eq!(assigned(&cluster, id), 0);
    assert_eq!(reason(&cluster, id), "each needs 3 GiB of memory, and the largest attached host has 2 GiB");
    cluster.attach_new(HostModel::new("two", 4));
    assert_eq!(cluster.tasks_at("two"), [(0, 0)]);
}

/// B10: a host gets as many long tasks as it has cores and one that follows, and three frames of short ones per core: more
/// than keeps it busy would only wait there. The rest stays with the scheduler.
#[test]
fn hosts_are_kept_just_busy_enough() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 2).host("two", 1);
    let long = cluster.submit("acme", job().with(array("a").tasks(100)).spec());
    assert_eq!((cluster.frames("one").len(), cluster.frames("two").len()), (3, 2));
    assert_eq!(assigned(&cluster, long), 5);
    cluster.run_all();
    cluster.submit("acme", job().with(array("a").tasks(10_000)).spec());
    assert_eq!((cluster.frames("one").len(), cluster.frames("two").len()), (6, 3));
}

/// B12: hosts are not paused here, but away. Without any nothing is handed out, and a new one takes the queue.
#[test]
fn what_is_queued_goes_to_a_host_that_joins() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1);
    let id = cluster.submit("acme", job().with(array("a").tasks(10)).spec());
    cluster.detach("one");
    cluster.attach_new(HostModel::new("two", 2));
    assert_eq!(cluster.frames("two").len(), 3);
    cluster.attach("one");
    cluster.run_all();
    assert_eq!(cluster.counts(id, 0).succeeded, 10);
}

/// B18: what was submitted last runs first if its priority is higher, and last if it is lower.
#[test]
fn a_higher_priority_overtakes_what_waits() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1);
    cluster.model("one").task_time = CpuTime::from_micros(500_000);
    let with = |priority| array("a").tasks(1).options(|options| options.priority = priority);
    cluster.submit("acme", job().with(array("clog").tasks(2)).spec());
    let low = cluster.submit("acme", job().with(with(-1)).spec());
    let middle = cluster.submit("acme", job().with(with(0)).spec());
    let high = cluster.submit("acme", job().with(with(1)).spec());
    let mut order = Vec::new();
    while let Some(frame) = cluster.frames("one").first() {
        order.push(frame.job);
        cluster.run_frame("one");
    }
    assert_eq!(order[2..], [high, middle, low]);
}

#[test]
fn what_a_host_offers_counts_from_its_latest_session() {
    let mut cluster = two_zones();
    cluster.detach("two");
    cluster.model("two").features = partita_types::Features::default();
    cluster.attach("two");
    let id = cluster.submit("acme", job().with(array("x").tasks(1).needs(&["zone=b"], &[])).spec());
    assert_eq!(assigned(&cluster, id), 0);
    assert!(reason(&cluster, id).contains("zone=b"));
}

#[test]
fn uploads_and_amounts_of_nothing_are_refused() {
    let mut cluster = two_zones();
    let upload = array("in").upload().tasks(1).needs(&["zone=a"], &[]);
    let refusal = cluster.try_submit("acme", job().with(upload).spec()).unwrap_err().to_string();
    assert!(refusal.contains("uploaded data runs nowhere"), "{refusal}");
    let nothing = array("x").tasks(1).needs(&[], &["a=0"]);
    let refusal = cluster.try_submit("acme", job().with(nothing).spec()).unwrap_err().to_string();
    assert!(refusal.contains("\"x\"") && refusal.contains("a with an amount of 0"), "{refusal}");
}
