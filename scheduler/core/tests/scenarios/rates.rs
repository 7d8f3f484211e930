//! Limits of CPU that are no whole number of cores: each host is told its part, and parts follow the frames.

use std::time::Duration;

use partita_policy::TenantPolicy;
use partita_testkit::{Cluster, array, job, policy};
use partita_types::{CpuTime, JobId, JobSpec, MilliCpu};

/// A tenant that may use so many thousandths of a core.
fn limited(name: &str, cpu: u64) -> TenantPolicy {
    let mut policy = policy(name);
    policy.quota.cpu = MilliCpu(cpu);
    policy
}

fn tasks(count: u32) -> JobSpec {
    job().with(array("a").tasks(count)).spec()
}

/// What a host was told that the tenant may use there, in thousandths of a core.
fn rate(cluster: &mut Cluster, host: &str, tenant: &str) -> Option<u64> {
    let id = cluster.tenant_id(tenant);
    cluster.model(host).rates[&id].map(|cpu| cpu.0)
}

fn settle(cluster: &mut Cluster) {
    cluster.advance_by(Duration::from_millis(300));
}

fn reason(cluster: &Cluster, id: JobId) -> String {
    cluster.core.explain(id, None, None).swap_remove(0).reason
}

#[test]
fn half_a_core_is_one_frame_that_its_host_holds_to_that() {
    let mut cluster =
        Cluster::new().tenant(limited("acme", 500)).tenant(policy("others")).host("one", 4).host("two", 4);
    let id = cluster.submit("acme", tasks(5));
    assert_eq!(cluster.counts(id, 0).assigned, 1);
    assert_eq!(rate(&mut cluster, "one", "acme"), Some(500));
    assert_eq!(rate(&mut cluster, "two", "acme"), Some(1), "it has nothing there; 0 would be no limit");
    assert_eq!(rate(&mut cluster, "one", "others"), None);
    assert_eq!(reason(&cluster, id), "attempt 1 is at host one, where its tenant may use 0.500 cores");
    cluster.run_all();
    assert_eq!(cluster.counts(id, 0).succeeded, 5);
}

#[test]
fn parts_of_a_limit_follow_the_frames() {
    let mut cluster = Cluster::new().tenant(limited("acme", 2_500)).host("one", 1).host("two", 1);
    cluster.submit("acme", tasks(3));
    settle(&mut cluster);
    assert_eq!((cluster.frames("one").len(), cluster.frames("two").len()), (2, 1));
    let rates = (rate(&mut cluster, "one", "acme"), rate(&mut cluster, "two", "acme"));
    assert_eq!(rates, (Some(1_666), Some(834)));
    cluster.run_frame("one");
    settle(&mut cluster);
    let rates = (rate(&mut cluster, "one", "acme"), rate(&mut cluster, "two", "acme"));
    assert!(rates.0 >= Some(1_000) && rates.1 == Some(1_000), "each of two frames has a core: {rates:?}");
}

#[test]
fn a_lowered_limit_is_told_at_once_and_what_runs_goes_on() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 2);
    let id = cluster.submit("acme", tasks(2));
    assert_eq!(rate(&mut cluster, "one", "acme"), None);
    cluster.define(limited("acme", 300));
    assert_eq!((rate(&mut cluster, "one", "acme"), cluster.counts(id, 0).assigned), (Some(300), 2));
    cluster.define(limited("acme", 200));
    assert_eq!(rate(&mut cluster, "one", "acme"), Some(200), "whenever the last one was");
    cluster.define(limited("acme", 2_000));
    assert_eq!(rate(&mut cluster, "one", "acme"), None, "whole cores are kept by counting frames");
}

#[test]
fn what_a_lost_host_had_goes_to_the_others() {
    let mut cluster = Cluster::new().tenant(limited("acme", 1_500)).host("one", 1).host("two", 1);
    cluster.submit("acme", tasks(2));
    settle(&mut cluster);
    assert_eq!(rate(&mut cluster, "two", "acme"), Some(750));
    cluster.detach("one");
    settle(&mut cluster);
    assert_eq!(rate(&mut cluster, "two", "acme"), Some(750), "it may come back, and runs on");
    cluster.advance(Duration::from_secs(6));
    settle(&mut cluster);
    assert_eq!(rate(&mut cluster, "two", "acme"), Some(1_500), "both frames are there");
}

#[test]
fn hosts_are_told_their_parts_again_after_a_restart() {
    let mut cluster = Cluster::new().tenant(limited("acme", 1_500)).host("one", 1).host("two", 1);
    cluster.submit("acme", tasks(2));
    settle(&mut cluster);
    cluster.restart_scheduler();
    cluster.model("one").rates.clear();
    cluster.attach("one");
    assert_eq!(rate(&mut cluster, "one", "acme"), Some(750), "as if the other had the second frame that it may have");
    cluster.attach("two");
    settle(&mut cluster);
    assert_eq!((rate(&mut cluster, "one", "acme"), rate(&mut cluster, "two", "acme")), (Some(750), Some(750)));
}

#[test]
fn after_a_restart_a_host_that_does_not_come_back_leaves_its_part() {
    let mut cluster = Cluster::new().tenant(limited("acme", 1_500)).host("one", 1).host("two", 1);
    cluster.submit("acme", tasks(1));
    settle(&mut cluster);
    cluster.restart_scheduler();
    cluster.attach("one");
    assert_eq!(rate(&mut cluster, "one", "acme"), Some(750));
    cluster.advance(Duration::from_secs(11));
    assert_eq!(rate(&mut cluster, "one", "acme"), Some(1_000));
}

/// A frame that moves about does not wait for the next division, nor is anybody told anything, once hosts know.
#[test]
fn a_frame_after_the_other_at_changing_hosts_has_the_whole_limit() {
    let mut cluster =
        Cluster::new().tenant(limited("acme", 500)).tenant(policy("others")).host("one", 1).host("two", 1);
    cluster.model("one").task_time = CpuTime::from_micros(500_000);
    cluster.model("two").task_time = CpuTime::from_micros(500_000);
    cluster.submit("acme", tasks(50));
    for _ in 0..6 {
        let name = if cluster.frames("one").is_empty() { "two" } else { "one" };
        assert_eq!(rate(&mut cluster, name, "acme"), Some(500));
        cluster.advance_by(Duration::from_millis(150));
        // The other host is less busy when the next frame is handed out.
        cluster.submit("others", tasks(1));
        cluster.run_frame(name);
    }
}

#[test]
fn who_borrows_a_part_of_a_core_is_held_to_its_guarantee_and_that() {
    let mut policy = policy("acme");
    policy.share.guaranteed.cpu = MilliCpu(1_000);
    policy.share.borrow.cpu = Some(MilliCpu(250));
    let mut cluster = Cluster::new().tenant(policy).host("one", 4);
    let id = cluster.submit("acme", tasks(9));
    assert_eq!((cluster.counts(id, 0).assigned, rate(&mut cluster, "one", "acme")), (2, Some(1_250)));
}
