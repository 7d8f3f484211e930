//! Hard limits, fair shares, order within a tenant, and why something waits.

use std::time::Duration;

use partita_testkit::{Cluster, all, array, job, policy};
use partita_types::{ByteSize, CpuTime};

fn reasons(cluster: &Cluster, id: partita_types::JobId) -> Vec<(u32, u32, String)> {
    cluster.core.explain(id, None, None).into_iter().map(|why| (why.first, why.count, why.reason)).collect()
}

#[test]
fn a_tenant_never_runs_more_tasks_than_its_limit() {
    let mut narrow = policy("acme");
    narrow.quota.concurrent_tasks = 2;
    let mut cluster = Cluster::new().tenant(narrow).host("one", 8);
    let id = cluster.submit("acme", job().with(array("a").tasks(5)).spec());
    assert_eq!(cluster.counts(id, 0).assigned, 2);
    let why = reasons(&cluster, id);
    let (at_host, ready) = (&why[0], &why[1]);
    assert_eq!((at_host.0, at_host.1, at_host.2.as_str()), (0, 2, "attempt 1 is at host one"));
    assert!((ready.0, ready.1) == (2, 3) && ready.2.contains("limit concurrent_tasks allows: 2"), "{why:?}");
    cluster.run_frame("one");
    assert_eq!(cluster.counts(id, 0).assigned, 2);
}

#[test]
fn a_tenant_never_reserves_more_memory_than_its_limit() {
    let mut narrow = policy("acme");
    narrow.quota.concurrent_memory = ByteSize::mib(1000);
    let mut cluster = Cluster::new().tenant(narrow).host("one", 8);
    let id = cluster.submit("acme", job().with(array("a").tasks(5).memory(ByteSize::mib(400))).spec());
    assert_eq!(cluster.counts(id, 0).assigned, 2);
    let why = reasons(&cluster, id).pop().unwrap().2;
    assert!(why.contains("400 MiB") && why.contains("800 MiB") && why.contains("1000 MiB"), "{why}");
}

#[test]
fn a_host_never_promises_more_memory_than_it_has() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 2);
    let id = cluster.submit("acme", job().with(array("a").tasks(5).memory(ByteSize::mib(900))).spec());
    assert_eq!(cluster.counts(id, 0).assigned, 2, "2 GiB have room for two");
    let huge = cluster.submit("acme", job().with(array("b").tasks(1).memory(ByteSize::gib(3))).spec());
    assert!(
        reasons(&cluster, huge)[0].2.contains("each needs 3 GiB of memory, and the largest attached host has 2 GiB")
    );
}

#[test]
fn a_task_that_fits_nowhere_does_not_hold_up_the_others() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 2);
    let first = array("huge").tasks(1).memory(ByteSize::gib(3)).options(|options| options.priority = 9);
    let id = cluster.submit("acme", job().with(first).with(array("small").tasks(1)).spec());
    assert_eq!((cluster.counts(id, 0).ready, cluster.counts(id, 1).assigned), (1, 1));
}

#[test]
fn storing_more_than_allowed_stops_new_work() {
    let mut narrow = policy("acme");
    narrow.quota.stored = ByteSize(250);
    let mut cluster = Cluster::new().tenant(narrow).host("one", 1);
    cluster.model("one").task_time = CpuTime::from_micros(50_000);
    let id = cluster.submit("acme", job().with(array("a").tasks(9)).spec());
    cluster.run_all();
    assert!(cluster.counts(id, 0).ready > 0);
    assert!(reasons(&cluster, id).pop().unwrap().2.contains("release jobs that have ended"));
}

#[test]
fn without_hosts_everything_waits_and_says_so() {
    let mut cluster = Cluster::new().tenant(policy("acme"));
    let spec = job().with(array("a").tasks(3)).with(array("b").reads(all(0))).spec();
    let id = cluster.submit("acme", spec);
    cluster.advance(Duration::from_secs(6));
    let why = reasons(&cluster, id);
    assert_eq!(why[0], (0, 3, "no host is attached".to_owned()));
    assert_eq!(why[1], (0, 1, "waits for array \"a\": 0 of 3 tasks have succeeded".to_owned()));
}

/// Runs frames in the order in which they were handed out, and counts whose they are.
fn share_of_frames(cluster: &mut Cluster, rounds: usize) -> (usize, usize) {
    let small = cluster.tenant_id("small");
    let mut counts = (0, 0);
    for _ in 0..rounds {
        let tenant = cluster.frames("one")[0].job.tenant;
        if tenant == small {
            counts.0 += 1
        } else {
            counts.1 += 1
        }
        cluster.run_frame("one");
    }
    counts
}

#[test]
fn tenants_share_by_weight() {
    let mut large = policy("large");
    large.quota.weight = 3;
    let mut cluster = Cluster::new().tenant(policy("small")).tenant(large).host("one", 4);
    cluster.model("one").task_time = CpuTime::from_micros(50_000);
    cluster.submit("small", job().with(array("a").tasks(500)).spec());
    cluster.submit("large", job().with(array("a").tasks(500)).spec());
    // The first frames went out before the second tenant came.
    share_of_frames(&mut cluster, 20);
    let (small, large) = share_of_frames(&mut cluster, 200);
    assert!((small as i64 - 50).abs() <= 4, "{small} : {large}");
}

#[test]
fn the_dominant_resource_decides_and_not_the_number_of_tasks() {
    let mut cluster = Cluster::new().tenant(policy("small")).tenant(policy("large")).host("one", 4);
    cluster.model("one").task_time = CpuTime::from_micros(50_000);
    cluster.submit("large", job().with(array("a").tasks(300).memory(ByteSize::mib(1024))).spec());
    cluster.submit("small", job().with(array("a").tasks(300).memory(ByteSize::mib(8))).spec());
    share_of_frames(&mut cluster, 20);
    let large = cluster.usage("large");
    let small = cluster.usage("small");
    assert!(small.concurrent_tasks > large.concurrent_tasks, "{small:?} {large:?}");
}

#[test]
fn a_small_job_starts_behind_a_hundred_thousand_tasks_of_another() {
    let mut cluster = Cluster::new().tenant(policy("large")).tenant(policy("small")).host("one", 2);
    let big = cluster.submit("large", job().with(array("a").tasks(100_000)).spec());
    for _ in 0..5 {
        cluster.run_frame("one");
    }
    let id = cluster.submit("small", job().with(array("b").tasks(1)).spec());
    cluster.run_frame("one");
    assert_eq!(cluster.counts(id, 0).assigned, 1, "it gets the first place that becomes free");
    assert!(cluster.counts(big, 0).ready > 90_000);
}

/// B18: chains are finished before new ones are begun.
#[test]
fn within_a_tenant_priority_goes_first_then_what_is_deeper_then_what_is_older() {
    let mut narrow = policy("acme");
    narrow.quota.concurrent_tasks = 1;
    let mut cluster = Cluster::new().tenant(narrow).host("one", 1);
    let chain =
        || job().with(array("a").tasks(2)).with(array("b").tasks(1).reads(partita_testkit::list(&[&[(0, 0, 0)]])));
    let older = cluster.submit("acme", chain().spec());
    let newer = cluster.submit("acme", chain().spec());
    let urgent = array("urgent").tasks(1).options(|options| options.priority = 1);
    let urgent = cluster.submit("acme", job().with(urgent).spec());
    let mut order = Vec::new();
    while let Some(frame) = cluster.frames("one").first() {
        order.push((frame.job, frame.array.0));
        cluster.run_frame("one");
    }
    let expected = [(older, 0), (urgent, 0), (older, 1), (older, 0), (newer, 0), (newer, 1), (newer, 0)];
    assert_eq!(order, expected);
}

#[test]
fn frames_grow_with_what_was_learned_and_never_leave_a_host_idle() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 2).host("two", 2);
    for host in ["one", "two"] {
        cluster.model(host).task_time = CpuTime::from_micros(100);
    }
    let id = cluster.submit("acme", job().with(array("a").tasks(10_000)).spec());
    assert!(cluster.frames("one").iter().all(|frame| frame.indexes.len() == 1), "nothing is known yet");
    cluster.run_frame("one");
    let largest = cluster.frames("one").iter().map(|frame| frame.indexes.len()).max();
    assert_eq!(largest, Some(100), "about 10 ms");
    cluster.run_all();
    let more = cluster.submit("acme", job().with(array("a").tasks(120)).spec());
    let (one, two) = (cluster.tasks_at("one").len(), cluster.tasks_at("two").len());
    assert!(one.abs_diff(two) <= 10 && one + two >= 100, "{one} and {two}");
    cluster.run_all();
    assert_eq!((cluster.counts(id, 0).succeeded, cluster.counts(more, 0).succeeded), (10_000, 120));
}

#[test]
fn explanations_name_nothing_of_other_tenants() {
    let mut cluster = Cluster::new().tenant(policy("secretive")).tenant(policy("acme")).host("one", 1);
    cluster.submit("secretive", job().with(array("hidden").tasks(100)).spec());
    let id = cluster.submit("acme", job().with(array("a").tasks(50)).spec());
    for (_, _, reason) in reasons(&cluster, id) {
        assert!(!reason.contains("secretive") && !reason.contains("hidden"), "{reason}");
    }
    assert!(reasons(&cluster, id).iter().any(|(_, _, reason)| reason.contains("fair share")));
}
