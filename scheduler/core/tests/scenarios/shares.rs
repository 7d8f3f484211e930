//! Guarantees, cohorts, borrowing, lending, and how what was lent comes back.

use std::time::Duration;

use partita_core::JobEvent;
use partita_policy::TenantPolicy;
use partita_testkit::{Cluster, array, job, policy};
use partita_types::{ByteSize, Cause, CpuTime, JobId, JobSpec, MilliCpu};

/// A tenant that is guaranteed so many cores.
fn guaranteed(name: &str, cores: u64) -> TenantPolicy {
    let mut policy = policy(name);
    policy.share.guaranteed.cpu = MilliCpu(cores * 1000);
    policy
}

fn in_cohort(mut policy: TenantPolicy, cohort: &str) -> TenantPolicy {
    policy.share.cohort = Some(cohort.parse().unwrap());
    policy
}

/// Tasks of a function of which nothing is known yet, so that each may take long.
fn tasks(count: u32) -> JobSpec {
    job().with(array("a").tasks(count)).spec()
}

fn assigned(cluster: &Cluster, job: JobId) -> u32 {
    cluster.counts(job, 0).assigned
}

fn reason(cluster: &Cluster, id: JobId) -> String {
    cluster.core.explain(id, None, None).pop().unwrap().reason
}

#[test]
fn a_tenant_below_its_guarantee_goes_first() {
    let mut cluster = Cluster::new().tenant(policy("others")).tenant(guaranteed("acme", 2)).host("one", 4);
    cluster.model("one").task_time = CpuTime::from_micros(500_000);
    let mut heavy = policy("others");
    heavy.quota.weight = 1000;
    cluster.define(heavy);
    let others = cluster.submit("others", tasks(100));
    let acme = cluster.submit("acme", tasks(100));
    for _ in 0..50 {
        cluster.run_frame("one");
        assert!(assigned(&cluster, acme) >= 2, "whatever weight the others have");
    }
    assert!(cluster.counts(others, 0).succeeded > 0);
}

/// I18: bound B is 100 ms of the core's time; here it takes none.
#[test]
fn a_guarantee_is_reclaimed_from_long_tasks_at_once() {
    let mut cluster = Cluster::new().tenant(policy("others")).tenant(guaranteed("acme", 2)).host("one", 4);
    let others = cluster.submit("others", tasks(100));
    assert_eq!(assigned(&cluster, others), 5, "one for each core, and one that follows");
    let acme = cluster.submit("acme", tasks(2));
    assert_eq!(assigned(&cluster, acme), 2);
    assert_eq!(assigned(&cluster, others), 3, "two cores are left, and one follows");
    assert_eq!(cluster.core.preemptions(), 3, "two that ran, and the one that would have followed");
}

#[test]
fn what_is_not_guaranteed_is_never_reclaimed() {
    let mut cluster = Cluster::new().tenant(policy("others")).tenant(policy("acme")).host("one", 4);
    cluster.submit("others", tasks(100));
    let acme = cluster.submit("acme", tasks(1));
    cluster.advance(Duration::from_secs(60));
    assert_eq!((assigned(&cluster, acme), cluster.core.preemptions()), (1, 0), "it takes turns with what runs");
}

#[test]
fn a_preempted_attempt_never_counts_against_its_task() {
    let mut cluster = Cluster::new().tenant(policy("others")).tenant(guaranteed("acme", 1)).host("one", 1);
    let only_try = array("a").tasks(1).options(|options| options.retries = 0);
    let victim = cluster.submit("others", job().with(only_try).spec());
    for round in 1..=30 {
        assert_eq!(assigned(&cluster, victim), 1);
        let acme = cluster.submit("acme", tasks(1));
        assert_eq!((assigned(&cluster, acme), cluster.core.preemptions()), (1, round));
        let causes = cluster.events[&victim].iter().filter_map(|event| match event {
            JobEvent::AttemptFailed { failure, .. } => Some(failure.cause),
            _ => None,
        });
        assert!(causes.eq((0..round).map(|_| Cause::Preempted)));
        cluster.run_frame("one");
        cluster.advance(Duration::from_millis(200));
    }
    cluster.run_all();
    assert_eq!(cluster.counts(victim, 0).succeeded, 1);
}

#[test]
fn the_place_of_a_preempted_task_stays_reserved_until_its_host_confirms() {
    let mut cluster = Cluster::new().tenant(policy("others")).tenant(guaranteed("acme", 1)).host("one", 2);
    let others = cluster.submit("others", tasks(100));
    cluster.model("one").obeys = false;
    cluster.model("one").task_time = CpuTime::from_micros(500_000);
    let acme = cluster.submit("acme", tasks(100));
    assert_eq!((assigned(&cluster, others), assigned(&cluster, acme)), (3, 0), "nothing is free before it is");
    assert!(reason(&cluster, acme).contains("guarantee"), "{}", reason(&cluster, acme));
    // One of them has ended before it was stopped: that counts.
    let stopped = *cluster.model("one").told_to_stop.last().unwrap();
    let index = stopped.task.index;
    let run = cluster.take_run("one", 0, index);
    cluster.succeed("one", &[run]);
    assert_eq!((cluster.counts(others, 0).succeeded, assigned(&cluster, acme)), (1, 0));
    cluster.stop_told("one");
    assert!(assigned(&cluster, acme) >= 1);
}

#[test]
fn a_host_that_was_away_is_told_again_to_stop_what_was_preempted() {
    let mut cluster = Cluster::new().tenant(policy("others")).tenant(guaranteed("acme", 1)).host("one", 1);
    let others = cluster.submit("others", tasks(1));
    cluster.model("one").obeys = false;
    let acme = cluster.submit("acme", tasks(1));
    assert_eq!(cluster.core.preemptions(), 1);
    cluster.detach("one");
    cluster.model("one").told_to_stop.clear();
    cluster.attach("one");
    assert_eq!(cluster.model("one").told_to_stop.len(), 1, "the first time it did not hear it");
    cluster.stop_told("one");
    assert_eq!((assigned(&cluster, others), assigned(&cluster, acme)), (0, 1));
}

#[test]
fn victims_are_of_low_priority_then_late_and_of_tenants_that_borrow() {
    let mut cluster = Cluster::new()
        .tenant(guaranteed("modest", 1))
        .tenant(policy("others"))
        .tenant(guaranteed("acme", 1))
        .host("one", 3)
        .host("two", 1);
    let modest = cluster.submit("modest", tasks(1));
    let prioritised = |priority| array("a").tasks(1).options(|options| options.priority = priority);
    let high = cluster.submit("others", job().with(prioritised(5)).spec());
    let early = cluster.submit("others", job().with(prioritised(0)).spec());
    let late = cluster.submit("others", job().with(prioritised(0)).spec());
    let places: Vec<u32> = [modest, high, early, late].iter().map(|job| assigned(&cluster, *job)).collect();
    assert_eq!(places, [1; 4]);
    cluster.submit("acme", tasks(1));
    let left: Vec<u32> = [modest, high, early, late].iter().map(|job| assigned(&cluster, *job)).collect();
    assert_eq!(left, [1, 1, 1, 0]);
}

#[test]
fn short_tasks_get_the_time_to_end_by_themselves() {
    let mut cluster = Cluster::new().tenant(policy("others")).host("one", 1);
    let warm = cluster.submit("others", tasks(2));
    cluster.run_all();
    assert_eq!(cluster.counts(warm, 0).succeeded, 2);
    let others = cluster.submit("others", tasks(1000));
    cluster.define(guaranteed("acme", 1));
    let acme = cluster.submit("acme", tasks(1));
    assert_eq!((assigned(&cluster, acme), cluster.core.preemptions()), (0, 0), "they take ten milliseconds at most");
    cluster.advance_by(Duration::from_millis(49));
    assert_eq!(cluster.core.preemptions(), 0);
    cluster.advance_by(Duration::from_millis(2));
    assert!(cluster.core.preemptions() > 0, "they do not end, though they should have");
    assert_eq!(assigned(&cluster, acme), 1);
    assert!(cluster.counts(others, 0).ready > 900);
}

/// I19: with a guarantee of one core and a third, a tenant with one long task is below it, and with two above. If whoever
/// is below could preempt for what brings it above, these two would take the third core from each other for ever.
#[test]
fn two_tenants_never_preempt_each_other_in_turn() {
    let with = |name: &str| {
        let mut policy = policy(name);
        policy.share.guaranteed.cpu = MilliCpu(1_400);
        policy
    };
    let mut cluster = Cluster::new().tenant(with("red")).tenant(with("blue")).host("one", 3);
    let red = cluster.submit("red", tasks(100));
    let blue = cluster.submit("blue", tasks(100));
    for _ in 0..100 {
        cluster.advance_by(Duration::from_millis(60));
    }
    assert!(assigned(&cluster, red) >= 1 && assigned(&cluster, blue) >= 1);
    assert!(cluster.core.preemptions() <= 4, "{} preemptions, and no task has ended", cluster.core.preemptions());
}

/// I17, I19: more is guaranteed than there is. Nobody is above its guarantee, so nobody gives anything.
#[test]
fn guarantees_beyond_the_cluster_are_told_and_do_no_harm() {
    let mut cluster = Cluster::new().tenant(guaranteed("red", 2)).tenant(guaranteed("blue", 2)).host("one", 2);
    assert_eq!(cluster.core.oversubscription().cpu, MilliCpu(2000));
    let red = cluster.submit("red", tasks(100));
    let blue = cluster.submit("blue", tasks(100));
    for _ in 0..50 {
        cluster.advance_by(Duration::from_millis(60));
    }
    assert!(cluster.core.preemptions() <= 1, "{}", cluster.core.preemptions());
    assert!(assigned(&cluster, red) >= 2);
    for _ in 0..20 {
        cluster.run_frame("one");
    }
    assert!(cluster.counts(blue, 0).succeeded > 5, "what becomes free is shared");
    cluster.attach_new(partita_testkit::HostModel::new("two", 2));
    assert_eq!(cluster.core.oversubscription().cpu, MilliCpu(0));
}

/// I16.
#[test]
fn nobody_borrows_beyond_its_limit() {
    let mut bounded = guaranteed("acme", 1);
    bounded.share.borrow.cpu = Some(MilliCpu(2000));
    let mut cluster = Cluster::new().tenant(bounded).host("one", 8);
    let id = cluster.submit("acme", tasks(100));
    assert_eq!(assigned(&cluster, id), 3, "one that is guaranteed, and two more");
    let why = reason(&cluster, id);
    assert!(why.contains("4 cores of 3 cores") && why.contains("borrow"), "{why}");
}

#[test]
fn memory_is_borrowed_within_its_limit_too() {
    let mut bounded = guaranteed("acme", 1);
    bounded.share.guaranteed.memory = ByteSize::gib(1);
    bounded.share.borrow.memory = Some(ByteSize::gib(1));
    let mut cluster = Cluster::new().tenant(bounded).host("one", 8);
    let id = cluster.submit("acme", job().with(array("a").tasks(10).memory(ByteSize::mib(512))).spec());
    assert_eq!(assigned(&cluster, id), 4);
    let why = reason(&cluster, id);
    assert!(why.contains("2.5 GiB of 2 GiB of memory"), "{why}");
}

/// I16.
#[test]
fn what_is_not_lent_stays_free() {
    let mut keeper = guaranteed("keeper", 2);
    keeper.share.lend.cpu = Some(MilliCpu(0));
    let mut cluster = Cluster::new().tenant(keeper).tenant(policy("others")).host("one", 4);
    let others = cluster.submit("others", tasks(100));
    assert_eq!(assigned(&cluster, others), 2);
    let why = reason(&cluster, others);
    assert!(why.contains("3 cores of 2 cores") && !why.contains("keeper"), "{why}");
    let own = cluster.submit("keeper", tasks(2));
    assert_eq!((assigned(&cluster, own), cluster.core.preemptions()), (2, 0), "it was free");
}

#[test]
fn a_cohort_lends_to_its_own_only() {
    let mut cluster = Cluster::new()
        .tenant(in_cohort(guaranteed("lender", 2), "ours"))
        .tenant(in_cohort(policy("friend"), "ours"))
        .tenant(in_cohort(policy("stranger"), "theirs"))
        .host("one", 4);
    let stranger = cluster.submit("stranger", tasks(100));
    assert_eq!(assigned(&cluster, stranger), 2, "what is guaranteed to nobody");
    let friend = cluster.submit("friend", tasks(100));
    assert_eq!(assigned(&cluster, friend), 3, "what its cohort does not use, and one that follows");
    let lender = cluster.submit("lender", tasks(2));
    assert_eq!((assigned(&cluster, lender), assigned(&cluster, stranger)), (2, 2));
    assert_eq!(assigned(&cluster, friend), 1, "it waits until a core is free");
}

/// What was lost with a host has to come from somebody, and that is not the tenant with a guarantee.
#[test]
fn a_guarantee_holds_when_the_cluster_shrinks() {
    let mut cluster = Cluster::new()
        .tenant(in_cohort(guaranteed("acme", 2), "ours"))
        .tenant(in_cohort(policy("stranger"), "theirs"))
        .host("one", 2)
        .host("two", 2);
    let acme = cluster.submit("acme", tasks(2));
    let stranger = cluster.submit("stranger", tasks(100));
    assert_eq!(assigned(&cluster, acme), 2);
    assert!(assigned(&cluster, stranger) >= 2);
    let home = if cluster.frames("one").iter().any(|frame| frame.job == acme) { "one" } else { "two" };
    cluster.detach(home);
    cluster.advance(Duration::from_secs(6));
    assert_eq!(assigned(&cluster, acme), 2, "{}", reason(&cluster, acme));
}

/// The storage that a tenant occupies is part of its share, as its cores and memory are.
#[test]
fn who_stores_most_goes_last() {
    let mut cluster = Cluster::new().tenant(policy("hoarder")).tenant(policy("acme")).host("one", 4);
    cluster.model("one").output_size = ByteSize::gib(1);
    cluster.model("one").task_time = CpuTime::from_micros(500_000);
    cluster.submit("hoarder", tasks(12));
    cluster.run_all();
    cluster.model("one").output_size = ByteSize(1);
    let hoarder = cluster.submit("hoarder", tasks(100));
    let acme = cluster.submit("acme", tasks(100));
    for round in 0..30 {
        cluster.run_frame("one");
        let (hoarder, acme) = (assigned(&cluster, hoarder), assigned(&cluster, acme));
        assert!(round < 5 || acme > hoarder, "three quarters of the storage are as much as those of the cores");
    }
}

/// I18: with room for one frame at a time, what is stored would decide each time.
#[test]
fn who_stores_most_has_a_turn_too_where_there_is_room_for_one_frame() {
    let keeper = in_cohort(guaranteed("keeper", 1), "theirs");
    let (hoarder, acme) = (in_cohort(policy("hoarder"), "ours"), in_cohort(policy("acme"), "ours"));
    let mut cluster = Cluster::new().tenant(keeper).tenant(hoarder).tenant(acme).host("one", 1).host("two", 1);
    for host in ["one", "two"] {
        cluster.model(host).task_time = CpuTime::from_micros(500_000);
    }
    cluster.submit("hoarder", tasks(1));
    cluster.run_all();
    let acme = cluster.submit("acme", tasks(1000));
    let hoarder = cluster.submit("hoarder", tasks(1000));
    let mut frames = 0;
    while assigned(&cluster, hoarder) == 0 {
        assert!(frames <= 33, "{}", reason(&cluster, hoarder));
        let at = if cluster.frames("one").is_empty() { "two" } else { "one" };
        cluster.model(at).output_size = ByteSize(1);
        cluster.run_frame(at);
        frames += 1;
    }
    assert!(cluster.counts(acme, 0).succeeded > 0);
}

#[test]
fn a_large_task_does_not_starve_behind_small_ones() {
    let mut cluster = Cluster::new().tenant(policy("small")).tenant(policy("large")).host("one", 4);
    cluster.submit("small", job().with(array("a").tasks(1000).memory(ByteSize::gib(1))).spec());
    let large = cluster.submit("large", job().with(array("a").tasks(1).memory(ByteSize::gib(4))).spec());
    let mut rounds = 0;
    while assigned(&cluster, large) == 0 {
        cluster.run_frame("one");
        rounds += 1;
        assert!(rounds <= 5, "as many frames as were there when it came, and one: {}", reason(&cluster, large));
    }
}

#[test]
fn within_a_tenant_a_large_task_of_high_priority_is_not_passed_for_ever() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 4);
    let small = array("small").tasks(1000).memory(ByteSize::gib(1));
    let large = array("large").tasks(1).memory(ByteSize::gib(4)).options(|options| options.priority = 1);
    let first = cluster.submit("acme", job().with(small).spec());
    let urgent = cluster.submit("acme", job().with(large).spec());
    for _ in 0..4 {
        assert_eq!(assigned(&cluster, urgent), 0);
        cluster.run_frame("one");
    }
    assert_eq!(assigned(&cluster, urgent), 1);
    assert_eq!(cluster.counts(first, 0).succeeded, 4);
}

/// I13: gaps are filled with what cannot delay the large task.
#[test]
fn what_fits_beside_a_large_task_need_not_wait_for_it() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 4);
    let filler = cluster.submit("acme", job().with(array("filler").tasks(1).memory(ByteSize::gib(2))).spec());
    let large = array("large").tasks(1).memory(ByteSize::gib(3)).options(|options| options.priority = 1);
    let large = cluster.submit("acme", job().with(large).spec());
    let small = cluster.submit("acme", job().with(array("small").tasks(3).memory(ByteSize::mib(512))).spec());
    assert_eq!((assigned(&cluster, filler), assigned(&cluster, large)), (1, 0));
    assert_eq!(assigned(&cluster, small), 2, "one gibibyte is left beside it");
    cluster.run_frame("one");
    assert_eq!(assigned(&cluster, large), 1);
}

/// Bounded work: what is looked at does not grow with the tasks that wait.
#[test]
fn a_small_job_starts_at_once_behind_a_million_tasks() {
    let mut cluster = Cluster::new().tenant(policy("large")).tenant(guaranteed("small", 1)).host("one", 2);
    let large = cluster.submit("large", tasks(1_000_000));
    let small = cluster.submit("small", tasks(1));
    assert_eq!(assigned(&cluster, small), 1, "in the same step");
    assert!(cluster.counts(large, 0).ready > 999_990);
    assert!(cluster.core.preemptions() <= 2);
}

/// I18: there is a place for whoever has nothing, even if long tasks of others leave no time for short ones.
#[test]
fn short_tasks_of_one_tenant_do_not_starve_behind_long_ones_of_another() {
    let mut cluster = Cluster::new().tenant(policy("long")).tenant(policy("short")).host("one", 1);
    cluster.model("one").task_time = CpuTime::from_micros(100);
    cluster.submit("short", tasks(100));
    cluster.run_all();
    cluster.model("one").task_time = CpuTime::from_micros(500_000);
    let long = cluster.submit("long", tasks(100));
    assert_eq!(assigned(&cluster, long), 2, "one that runs, and one that follows");
    let short = cluster.submit("short", tasks(1));
    cluster.run_frame("one");
    assert_eq!(assigned(&cluster, short), 1, "{}", reason(&cluster, short));
}
