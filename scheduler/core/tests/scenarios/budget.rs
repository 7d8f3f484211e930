//! How much is alive at a time: what is produced is consumed before more is, and nothing waits for ever.

use partita_core::{JobEnd, Request};
use partita_testkit::{Cluster, HostModel, Reference, all, array, each, job, list, literal, policy};
use partita_types::{ByteSize, CpuTime, JobId, JobSpec};

/// A host with room for 100 MiB of partitions, of which 60 are to be used, where tasks take long.
fn small(name: &str, cores: u32) -> HostModel {
    let mut host = HostModel::new(name, cores);
    host.capacity.partitions = ByteSize::mib(100);
    host.task_time = CpuTime::from_micros(300_000);
    host
}

/// Tasks that write 10 MiB each, and as many that read them one by one and write next to nothing.
fn load_and_reduce(tasks: u32) -> JobSpec {
    let reduce = array("reduce").calls("pair").reads(each(0)).reads(each(0));
    job().with(array("load").tasks(tasks)).with(reduce).spec()
}

/// Runs the first frame of a host: `load` writes 10 MiB, everything else a hundred bytes.
fn run(cluster: &mut Cluster, host: &str) {
    let loads = cluster.frames(host)[0].array.0 == 0;
    cluster.model(host).output_size = if loads { ByteSize::mib(10) } else { ByteSize(100) };
    cluster.run_frame(host);
}

fn stored(cluster: &Cluster) -> ByteSize {
    cluster.core.hosts().iter().fold(ByteSize::ZERO, |sum, host| ByteSize(sum.0 + host.stored.0))
}

fn reason(cluster: &Cluster, id: JobId) -> String {
    let reasons = cluster.core.explain(id, None, None);
    reasons.into_iter().find(|told| told.state == "ready").map(|told| told.reason).unwrap_or_default()
}

/// Runs everything; answers the most that was stored at a time.
fn most_stored(cluster: &mut Cluster, hosts: &[&str]) -> ByteSize {
    let mut most = ByteSize::ZERO;
    while let Some(host) = hosts.iter().find(|host| !cluster.tasks_at(host).is_empty()) {
        run(cluster, host);
        most = most.max(stored(cluster));
    }
    most
}

#[test]
fn what_a_task_was_the_last_to_read_is_given_up_at_once() {
    let mut cluster = Cluster::new().tenant(policy("acme"));
    cluster.attach_new(small("one", 1));
    let spec = load_and_reduce(40);
    let id = cluster.submit("acme", spec.clone());
    let most = most_stored(&mut cluster, &["one"]);
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
    assert!(most <= ByteSize::mib(60), "{most}: 40 tasks write 10 MiB each");
    cluster.model("one").output_size = ByteSize(100);
    Reference::new(&spec).check(&cluster.results(id, 1));
    assert_eq!(cluster.request(Request::Release(id)), partita_core::Reply::Done);
    assert_eq!(stored(&cluster), ByteSize::ZERO);
}

#[test]
fn what_was_uploaded_kept_or_cannot_be_made_again_as_it_was_is_not_given_up_early() {
    for (keep, deterministic) in [(true, true), (false, false)] {
        let load = array("load").tasks(4).options(|o| (o.keep, o.deterministic) = (keep, deterministic));
        let mut cluster = Cluster::new().tenant(policy("acme"));
        cluster.attach_new(small("one", 1));
        cluster.submit("acme", job().with(load).with(array("next").reads(each(0))).spec());
        while cluster.counts(JobId { tenant: cluster.tenant_id("acme"), number: 1 }, 1).succeeded < 3 {
            run(&mut cluster, "one");
        }
        assert!(stored(&cluster) >= ByteSize::mib(30), "{}", stored(&cluster));
    }
}

/// Everything that is loaded is read together, so nothing can be given up before all of it is there: the reserve goes on.
#[test]
fn beyond_the_target_one_task_can_always_go_on() {
    let mut cluster = Cluster::new().tenant(policy("acme"));
    cluster.attach_new(small("one", 3));
    let sum = array("sum").tasks(1).reads(all(0));
    let id = cluster.submit("acme", job().with(array("load").tasks(12)).with(sum).spec());
    while cluster.counts(id, 0).succeeded < 6 {
        run(&mut cluster, "one");
    }
    let told = reason(&cluster, id);
    assert!(told.starts_with("live bytes: its outputs would add about"), "{told}");
    while cluster.counts(id, 0).succeeded < 12 {
        run(&mut cluster, "one");
        let loads = cluster.tasks_at("one").iter().filter(|task| task.0 == 0).count();
        assert!(loads <= 3 && (stored(&cluster) < ByteSize::mib(80) || loads <= 1), "{loads} at once");
    }
    most_stored(&mut cluster, &["one"]);
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
}

/// I21: what a tenant keeps holds up nobody else.
#[test]
fn a_tenant_that_has_little_is_not_held_up_by_what_others_keep() {
    let mut cluster = Cluster::new().tenant(policy("hoarder")).tenant(policy("acme"));
    cluster.attach_new(small("one", 2));
    cluster.submit("hoarder", job().with(array("load").tasks(9)).spec());
    most_stored(&mut cluster, &["one"]);
    let id = cluster.submit("acme", job().with(array("load").tasks(8)).spec());
    run(&mut cluster, "one");
    assert!(cluster.counts(id, 0).assigned >= 2, "{:?}: {}", cluster.counts(id, 0), reason(&cluster, id));
}

/// I13: a task that waits for bytes to be given up is not overtaken by what takes them.
#[test]
fn what_waits_for_live_bytes_keeps_its_turn() {
    let mut cluster = Cluster::new().tenant(policy("acme"));
    let mut host = small("one", 3);
    host.capacity.partitions = ByteSize::mib(105); // Of which 63 are to be used.
    cluster.attach_new(host);
    // What the two functions write is learned, and 41 MiB stay as results.
    let little =
        |tasks: u32| array("small").tasks(tasks).calls("pair").reads(literal(&["left"])).reads(literal(&["right"]));
    let learn = job().with(array("large").tasks(4)).with(little(1)).spec();
    let learned = cluster.submit("acme", learn);
    while cluster.job(learned).end.is_none() {
        let large = cluster.frames("one")[0].array.0 == 0;
        cluster.model("one").output_size = ByteSize::mib(if large { 10 } else { 1 });
        cluster.run_frame("one");
    }
    let before =
        cluster.submit("acme", job().with(array("large").tasks(9).options(|options| options.priority = 5)).spec());
    let behind = cluster.submit("acme", job().with(little(9)).spec());
    assert_eq!(cluster.counts(before, 0).assigned, 2, "{}", reason(&cluster, before));
    assert!(reason(&cluster, before).starts_with("live bytes"), "{}", reason(&cluster, before));
    assert_eq!(cluster.counts(behind, 0).assigned, 0, "it fits, and would take the bytes that the other waits for");
    assert!(reason(&cluster, behind).contains("go first"), "{}", reason(&cluster, behind));
}

/// Of what waits for live bytes, and what is too large for the memory beside it, only one can keep room for itself. If both
/// did, each would take the other's, within one event and without end.
#[test]
fn room_is_not_claimed_to_and_fro_by_what_waits_for_bytes_and_what_waits_for_memory() {
    let mut cluster = Cluster::new().tenant(policy("acme"));
    let mut host = small("one", 3);
    host.capacity.partitions = ByteSize::mib(105); // Of which 63 are to be used.
    host.capacity.memory = ByteSize::mib(1_000);
    cluster.attach_new(host);
    let large = |tasks: u32, priority: i32| {
        array("large").tasks(tasks).memory(ByteSize::mib(300)).options(move |options| options.priority = priority)
    };
    // What the function writes is learned, and 40 MiB stay as results.
    let learned = cluster.submit("acme", job().with(large(4, 0)).spec());
    while cluster.job(learned).end.is_none() {
        run(&mut cluster, "one");
    }
    let before = cluster.submit("acme", job().with(large(9, 5)).spec());
    assert!(reason(&cluster, before).starts_with("live bytes"), "{}", reason(&cluster, before));
    let wide = array("wide").tasks(2).memory(ByteSize::mib(800));
    let behind = cluster.submit("acme", job().with(wide).spec());
    assert!(cluster.core.effort() < 1_000, "{} steps", cluster.core.effort());
    assert_eq!((cluster.counts(before, 0).assigned, cluster.counts(behind, 0).assigned), (2, 0));
}

/// B18: and people are told where they stand, and nothing of who the others are.
#[test]
fn the_place_in_the_order_of_tenants_is_told_as_a_number() {
    let mut cluster = Cluster::new().tenant(policy("hoarder")).tenant(policy("acme")).host("one", 1);
    let first = cluster.submit("hoarder", job().with(array("a").tasks(50)).spec());
    let second = cluster.submit("acme", job().with(array("a").tasks(50)).spec());
    let [first, second] = [first, second].map(|id| reason(&cluster, id));
    assert!(first.contains("its place is 2 of 2 tenants with tasks that are ready"), "{first}");
    assert!(second.contains("its place is 1 of 2 tenants with tasks that are ready"), "{second}");
    assert!(!second.contains("hoarder"), "{second}");
}

#[test]
fn what_very_many_tasks_read_goes_when_all_of_them_have_ended() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1);
    let readers: [&[(u32, u32, u32)]; 100] = [&[(0, 0, 0)]; 100];
    let spec = job().with(array("load").tasks(1)).with(array("read").tasks(100).reads(list(&readers))).spec();
    let id = cluster.submit("acme", spec.clone());
    cluster.model("one").output_size = ByteSize(100);
    while cluster.job(id).end.is_none() {
        cluster.run_frame("one");
        let job = cluster.job(id);
        let load = u64::from(job.end.is_none());
        let expected = ByteSize(100 * (load + u64::from(job.arrays[1].counts.succeeded)));
        assert_eq!(stored(&cluster), expected, "the one output is there until its last reader has ended");
    }
    Reference::new(&spec).check(&cluster.results(id, 1));
}
