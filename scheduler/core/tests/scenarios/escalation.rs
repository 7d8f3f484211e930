//! What failed attempts teach: more memory for the next one, and no more executors for a module that kills them.

use std::time::Duration;

use partita_core::{JobEnd, Refusal, Reply, Request};
use partita_testkit::{Cluster, HostModel, MODULE, array, job, policy};
use partita_types::{ByteSize, Cause, JobId, SpecError};

const BASE: ByteSize = ByteSize::mib(64);

fn cluster() -> Cluster {
    Cluster::new().tenant(policy("acme")).host("one", 2)
}

/// Submits tasks with 64 MiB each that may be raised to `most`.
fn submit(cluster: &mut Cluster, tasks: u32, most: ByteSize) -> JobId {
    let hungry = array("a").tasks(tasks).memory(BASE).options(|options| {
        options.retries = 0;
        options.memory_max = Some(most);
    });
    cluster.submit("acme", job().with(hungry).spec())
}

fn memory_at(cluster: &Cluster, host: &str) -> Vec<Option<ByteSize>> {
    cluster.frames(host).iter().map(|frame| frame.memory).collect()
}

#[test]
fn a_task_that_ran_out_of_memory_gets_twice_as_much_at_once_and_that_is_no_retry() {
    let mut cluster = cluster();
    let id = submit(&mut cluster, 1, ByteSize::gib(1));
    for raised in [128, 256, 512] {
        let run = cluster.take_run("one", 0, 0);
        cluster.fail("one", &run, Cause::Memory);
        assert_eq!(memory_at(&cluster, "one"), [Some(ByteSize::mib(raised))], "without any wait");
        assert_eq!(cluster.usage("acme").concurrent_memory, ByteSize::mib(raised), "the reservation follows");
    }
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
    assert_eq!(cluster.usage("acme").concurrent_memory, ByteSize::ZERO);
}

#[test]
fn memory_is_raised_up_to_the_limit_of_the_array_and_then_the_task_fails() {
    let mut cluster = cluster();
    let id = submit(&mut cluster, 1, ByteSize::mib(96));
    let run = cluster.take_run("one", 0, 0);
    cluster.fail("one", &run, Cause::Memory);
    assert_eq!(memory_at(&cluster, "one"), [Some(ByteSize::mib(96))]);
    let run = cluster.take_run("one", 0, 0);
    cluster.fail("one", &run, Cause::Memory);
    assert_eq!(cluster.job(id).end, Some(JobEnd::Failed));
}

#[test]
fn memory_is_not_raised_beyond_the_largest_host() {
    let mut cluster = Cluster::new().tenant(policy("acme"));
    let mut small = HostModel::new("one", 1);
    small.capacity.memory = ByteSize::mib(100);
    cluster.attach_new(small);
    submit(&mut cluster, 1, ByteSize::gib(1));
    let run = cluster.take_run("one", 0, 0);
    cluster.fail("one", &run, Cause::Memory);
    assert_eq!(memory_at(&cluster, "one"), [Some(ByteSize::mib(100))]);
}

#[test]
fn memory_is_not_raised_beyond_the_largest_host_that_may_run_the_task() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("large", 1);
    let mut labelled = HostModel::new("labelled", 1).having(&["zone=a"], &[]);
    labelled.capacity.memory = ByteSize::mib(100);
    cluster.attach_new(labelled);
    let array = array("a").tasks(1).memory(BASE).needs(&["zone=a"], &[]);
    let id = cluster.submit("acme", job().with(array.options(|options| options.retries = 5)).spec());
    for memory in [None, Some(ByteSize::mib(100))] {
        assert_eq!(memory_at(&cluster, "labelled"), [memory]);
        let run = cluster.take_run("labelled", 0, 0);
        cluster.fail("labelled", &run, Cause::Memory);
    }
    cluster.advance(Duration::from_secs(31));
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded), "it goes on with what there is");
}

#[test]
fn a_task_with_more_memory_than_the_others_has_a_frame_of_its_own() {
    let mut cluster = cluster();
    let id = submit(&mut cluster, 400, ByteSize::gib(1));
    let run = cluster.take_run("one", 0, 0);
    cluster.fail("one", &run, Cause::Memory);
    while !cluster.frames("one").is_empty() {
        for frame in cluster.frames("one") {
            let alone = frame.indexes == [0];
            assert_eq!(frame.memory, alone.then_some(ByteSize::mib(128)), "{frame:?}");
            assert!(alone || !frame.indexes.contains(&0), "{frame:?}");
        }
        cluster.run_frame("one");
    }
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
}

#[test]
fn a_task_that_waits_for_its_larger_memory_does_not_hold_up_the_others() {
    let mut cluster = Cluster::new().tenant(policy("acme"));
    let mut host = HostModel::new("one", 2);
    host.capacity.memory = ByteSize::mib(128);
    cluster.attach_new(host);
    let id = submit(&mut cluster, 4, ByteSize::gib(1));
    let run = cluster.take_run("one", 0, 0);
    cluster.fail("one", &run, Cause::Memory);
    assert_eq!(cluster.counts(id, 0).assigned, 2, "others of the array run on");
    let why = cluster.core.explain(id, None, Some(0));
    assert!(why[0].reason.contains("it has 128 MiB of memory instead of 64 MiB"), "{why:?}");
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
}

#[test]
fn a_restart_remembers_how_much_memory_a_task_needs() {
    let mut cluster = cluster();
    let id = submit(&mut cluster, 1, ByteSize::gib(1));
    let run = cluster.take_run("one", 0, 0);
    cluster.fail("one", &run, Cause::Memory);
    cluster.restart_scheduler();
    cluster.attach("one");
    assert_eq!(memory_at(&cluster, "one"), [Some(ByteSize::mib(128))]);
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
}

#[test]
fn a_memory_limit_that_makes_no_sense_is_refused() {
    let mut cluster = cluster();
    let with = |most| array("a").tasks(1).memory(BASE).options(|options| options.memory_max = Some(most));
    let less = cluster.try_submit("acme", job().with(with(ByteSize::mib(32))).spec());
    assert!(matches!(less, Err(Refusal::Spec(SpecError::Meaningless { .. }))), "{less:?}");
    let more = cluster.try_submit("acme", job().with(with(ByteSize::gib(5))).spec());
    assert!(matches!(more, Err(Refusal::TaskLimit { what: "memory_max", .. })), "{more:?}");
}

/// Lets task 0 kill the executor that it runs on, wherever that is; returns the host.
fn kill_executor(cluster: &mut Cluster, hosts: &[&str]) -> String {
    let host = hosts.iter().find(|host| cluster.tasks_at(host).contains(&(0, 0))).copied().unwrap();
    let run = cluster.take_run(host, 0, 0);
    cluster.fail(host, &run, Cause::Crash);
    cluster.advance(Duration::from_secs(31));
    host.to_owned()
}

fn fragile(retries: u32) -> partita_types::JobSpec {
    job().with(array("a").tasks(1).options(|options| options.retries = retries)).spec()
}

/// B26
#[test]
fn a_task_that_killed_executors_at_three_hosts_fails_and_its_module_is_quarantined() {
    let hosts = ["one", "two", "three", "four"];
    let mut cluster = Cluster::new().tenant(policy("acme"));
    hosts.iter().for_each(|host| cluster.attach_new(HostModel::new(host, 1)));
    let id = cluster.submit("acme", fragile(50));
    let mut met: Vec<String> = (0..3).map(|_| kill_executor(&mut cluster, &hosts)).collect();
    let view = cluster.job(id);
    assert_eq!(view.end, Some(JobEnd::Failed));
    let (_, attempts, failure) = view.failure.unwrap();
    assert_eq!((attempts, failure.cause), (3, Cause::Crash));
    assert!(met.iter().all(|host| failure.message.contains(host.as_str())), "{}", failure.message);
    met.sort_unstable();
    met.dedup();
    assert_eq!(met.len(), 3, "each attempt ran at another host");

    let refused = cluster.try_submit("acme", fragile(0)).unwrap_err();
    assert!(matches!(refused, Refusal::Quarantined { module: MODULE, .. }), "{refused}");
    let tenant = cluster.tenant_id("acme");
    assert!(cluster.core.quarantine(tenant, MODULE).is_some());
    cluster.restart_scheduler();
    assert!(cluster.core.quarantine(tenant, MODULE).is_some(), "a restart does not forget it");

    let push = Request::AddModule { tenant, module: MODULE, name: "module".to_owned(), size: ByteSize::kib(1) };
    assert_eq!(cluster.request(push), Reply::ModuleAdded);
    assert!(cluster.core.quarantine(tenant, MODULE).is_none(), "pushing it again takes it out");
    cluster.try_submit("acme", fragile(0)).unwrap();
}

#[test]
fn with_fewer_than_three_hosts_three_killed_executors_are_enough() {
    let hosts = ["one", "two"];
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 1).host("two", 1);
    let id = cluster.submit("acme", fragile(50));
    kill_executor(&mut cluster, &hosts);
    kill_executor(&mut cluster, &hosts);
    assert_eq!(cluster.job(id).end, None);
    kill_executor(&mut cluster, &hosts);
    assert_eq!(cluster.job(id).end, Some(JobEnd::Failed));
}

/// B26: a host that goes away, in peace or not, is no evidence against its tasks.
/// B26: hosts that a task may not run at do not count.
#[test]
fn three_killed_executors_are_enough_if_only_one_of_many_hosts_may_run_the_task() {
    let mut cluster = Cluster::new().tenant(policy("acme"));
    cluster.attach_new(HostModel::new("gpu", 1).having(&["zone=a"], &[]));
    ["one", "two", "three"].iter().for_each(|host| cluster.attach_new(HostModel::new(host, 1)));
    let picky = array("a").tasks(1).needs(&["zone=a"], &[]).options(|options| options.retries = 50);
    let id = cluster.submit("acme", job().with(picky).spec());
    for _ in 0..3 {
        assert_eq!(cluster.job(id).end, None);
        kill_executor(&mut cluster, &["gpu"]);
    }
    assert_eq!(cluster.job(id).end, Some(JobEnd::Failed));
}

#[test]
fn hosts_that_go_away_never_count_against_a_task() {
    let mut cluster = Cluster::new().tenant(policy("acme"));
    let id = cluster.submit("acme", fragile(0));
    for number in 0..5 {
        let name = format!("host-{number}");
        cluster.attach_new(HostModel::new(&name, 1));
        assert_eq!(cluster.tasks_at(&name), [(0, 0)]);
        cluster.detach(&name);
        cluster.advance(Duration::from_secs(6));
    }
    assert_eq!(cluster.job(id).end, None);
    assert!(cluster.core.quarantine(cluster.tenant_id("acme"), MODULE).is_none());
    cluster.attach_new(HostModel::new("last", 1));
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
}
