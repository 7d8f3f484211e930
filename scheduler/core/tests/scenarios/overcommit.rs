//! Tenants that long tasks of others would keep waiting get frames beyond the usual places of hosts, and take turns there.

use std::time::Duration;

use partita_core::HostCommand;
use partita_policy::TenantPolicy;
use partita_testkit::{Cluster, HostModel, array, job, policy};
use partita_types::{ByteSize, CpuTime, JobId, JobSpec, MilliCpu};

/// Tasks of a function of which nothing is known yet, so that each may take for ever.
fn tasks(count: u32) -> JobSpec {
    job().with(array("a").tasks(count)).spec()
}

fn weighing(name: &str, weight: u32) -> TenantPolicy {
    let mut policy = policy(name);
    policy.quota.weight = weight;
    policy
}

fn assigned(cluster: &Cluster, job: JobId) -> u32 {
    cluster.counts(job, 0).assigned
}

fn reason(cluster: &Cluster, id: JobId) -> String {
    cluster.core.explain(id, None, None).pop().unwrap().reason
}

/// Lets a tenant's function be known for short tasks.
fn warm_up(cluster: &mut Cluster, tenant: &str, host: &str) {
    cluster.model(host).task_time = CpuTime::from_micros(1_000);
    cluster.submit(tenant, tasks(2));
    cluster.run_all();
}

#[test]
fn a_light_tenant_starts_at_once_behind_endless_tasks_of_another() {
    let mut cluster = Cluster::new().tenant(policy("heavy")).tenant(policy("light")).host("one", 4);
    warm_up(&mut cluster, "light", "one");
    let heavy = cluster.submit("heavy", tasks(1_000));
    assert_eq!(assigned(&cluster, heavy), 5, "one for each core, and one that follows");
    let light = cluster.submit("light", tasks(50));
    assert!(assigned(&cluster, light) > 0);
    // Nothing of the other ever ends, and all of this does.
    for _ in 0..50 {
        let model = cluster.model("one");
        let Some(at) = model.frames.iter().position(|frame| frame.job == light) else { break };
        let frame = model.frames.remove(at).unwrap();
        let runs = model.runs(&frame);
        cluster.succeed("one", &runs);
    }
    assert_eq!((cluster.counts(light, 0).succeeded, assigned(&cluster, heavy)), (50, 5));
}

#[test]
fn each_tenant_gets_a_frame_and_nobody_more_than_its_share() {
    let mut cluster = Cluster::new().tenant(policy("endless")).host("one", 2);
    for (name, weight) in [("one", 1), ("two", 2), ("four", 4)] {
        cluster.define(weighing(name, weight));
    }
    let endless = cluster.submit("endless", tasks(100));
    assert_eq!(assigned(&cluster, endless), 3);
    let one = cluster.submit("one", tasks(100));
    let two = cluster.submit("two", tasks(100));
    // Two cores are six thirds. Of eight weights four are three thirds: one long frame is that.
    let four = cluster.submit("four", tasks(100));
    let places = [one, two, four].map(|job| assigned(&cluster, job));
    assert_eq!(places, [1, 1, 1], "and the host has twice its usual frames: {}", reason(&cluster, four));
}

#[test]
fn weights_decide_how_many_frames_there_are_beyond_the_usual() {
    let mut cluster = Cluster::new().host("one", 2);
    cluster.model("one").task_time = CpuTime::from_micros(500_000);
    for (name, weight) in [("one", 1), ("two", 2), ("four", 4)] {
        cluster.define(weighing(name, weight));
    }
    // The lightest holds everything when the others come.
    let jobs = ["one", "four", "two"].map(|name| cluster.submit(name, tasks(100)));
    // Shares of six thirds by 1 : 4 : 2 are 0.9, 3.4 and 1.7: rounded up to long frames one, two and one.
    assert_eq!(jobs.map(|job| assigned(&cluster, job)), [3, 2, 1]);
    assert!(reason(&cluster, jobs[1]).contains("fair share of the cores"), "{}", reason(&cluster, jobs[1]));
    // What the others have counts as usual while frames of the lightest end.
    for _ in 0..2 {
        cluster.run_frame("one");
    }
    assert_eq!(jobs.map(|job| assigned(&cluster, job)), [1, 2, 1]);
}

#[test]
fn who_finds_a_usual_place_gets_that() {
    let mut cluster = Cluster::new().tenant(policy("heavy")).tenant(policy("light")).host("one", 1);
    let heavy = cluster.submit("heavy", tasks(100));
    assert_eq!(assigned(&cluster, heavy), 2);
    cluster.attach_new(HostModel::new("two", 8));
    let light = cluster.submit("light", tasks(1));
    let home = cluster.frames("two").iter().any(|frame| frame.job == light);
    assert!(home || assigned(&cluster, light) == 1 && !reason(&cluster, light).contains("turns"));
}

#[test]
fn nobody_takes_turns_with_itself_or_behind_short_tasks() {
    let mut cluster = Cluster::new().tenant(policy("heavy")).tenant(policy("light")).host("one", 2);
    warm_up(&mut cluster, "heavy", "one");
    let heavy = cluster.submit("heavy", tasks(1_000));
    let had = assigned(&cluster, heavy);
    assert_eq!(cluster.frames("one").len(), 6, "short ones fill all places");
    let light = cluster.submit("light", tasks(1));
    assert_eq!((assigned(&cluster, heavy), assigned(&cluster, light)), (had, 0), "one of them ends in milliseconds");
    let mut alone = Cluster::new().tenant(policy("heavy")).host("one", 2);
    let heavy = alone.submit("heavy", tasks(1_000));
    assert_eq!(assigned(&alone, heavy), 3);
}

#[test]
fn a_guarantee_is_not_sliced_away() {
    let mut sure = policy("sure");
    sure.share.guaranteed.cpu = MilliCpu(1_000);
    let mut cluster = Cluster::new().tenant(sure).tenant(policy("heavy")).tenant(policy("light")).host("one", 2);
    let heavy = cluster.submit("heavy", tasks(100));
    let light = cluster.submit("light", tasks(100));
    assert_eq!((assigned(&cluster, heavy), assigned(&cluster, light)), (3, 0));
    let why = reason(&cluster, light);
    assert!(!why.contains("turns") && !why.contains("twice"), "{why}");
    // Once nothing is guaranteed any more, it is its turn.
    cluster.define(policy("sure"));
    assert_eq!(assigned(&cluster, light), 1);
}

#[test]
fn memory_and_limits_hold_beyond_the_usual_places_too() {
    let mut narrow = policy("narrow");
    narrow.quota.concurrent_tasks = 1;
    let mut cluster = Cluster::new().tenant(policy("heavy")).tenant(narrow).tenant(policy("large")).host("one", 4);
    cluster.submit("heavy", tasks(100));
    let narrow = cluster.submit("narrow", tasks(100));
    assert_eq!(assigned(&cluster, narrow), 1);
    assert!(reason(&cluster, narrow).contains("limit concurrent_tasks allows: 1"));
    let large = cluster.submit("large", job().with(array("a").tasks(1).memory(ByteSize::mib(3_900))).spec());
    assert_eq!(assigned(&cluster, large), 0, "the host has 4 GiB, and others have some of it");
    let why = reason(&cluster, large);
    assert!(why.contains("would let it take turns, but have no memory"), "{why}");
}

#[test]
fn a_host_has_twice_its_usual_frames_at_most_and_says_so() {
    let mut cluster = Cluster::new().tenant(policy("heavy")).host("one", 1);
    cluster.model("one").task_time = CpuTime::from_micros(500_000);
    cluster.submit("heavy", tasks(100));
    let mut jobs = Vec::new();
    for name in ["a", "b", "c", "d"] {
        cluster.define(policy(name));
        jobs.push(cluster.submit(name, tasks(10)));
    }
    let places: Vec<u32> = jobs.iter().map(|job| assigned(&cluster, *job)).collect();
    assert_eq!((places.as_slice(), cluster.frames("one").len()), (&[1, 1, 0, 0][..], 4));
    let why = reason(&cluster, jobs[3]);
    assert!(why.contains("have twice their usual frames, and take no more"), "{why}");
    let told = reason(&cluster, jobs[0]);
    assert!(told.contains("fair share of the cores"), "{told}");
    // Whoever has nothing is next.
    cluster.run_frame("one");
    assert_eq!((assigned(&cluster, jobs[2]), cluster.frames("one").len()), (1, 4));
}

#[test]
fn explanations_say_where_tenants_take_turns() {
    let mut cluster = Cluster::new().tenant(policy("heavy")).tenant(policy("light")).host("one", 1);
    let heavy = cluster.submit("heavy", tasks(2));
    let light = cluster.submit("light", tasks(1));
    for job in [light, heavy] {
        assert_eq!(reason(&cluster, job), "attempt 1 is at host one, where tenants take turns on the cores");
    }
    let run = cluster.model("one").frames.iter().position(|frame| frame.job == light).unwrap();
    let frame = cluster.model("one").frames.remove(run).unwrap();
    let runs = cluster.model("one").runs(&frame);
    cluster.succeed("one", &runs);
    assert_eq!(reason(&cluster, heavy), "attempt 1 is at host one", "it is alone there");
}

#[test]
fn what_a_lost_host_had_beyond_its_places_goes_on_elsewhere() {
    let mut cluster = Cluster::new().tenant(policy("heavy")).tenant(policy("light")).host("one", 1).host("two", 1);
    let heavy = cluster.submit("heavy", tasks(100));
    let light = cluster.submit("light", tasks(1));
    assert_eq!((assigned(&cluster, heavy), assigned(&cluster, light)), (4, 1));
    let home = if cluster.frames("one").iter().any(|frame| frame.job == light) { "one" } else { "two" };
    cluster.detach(home);
    cluster.advance(Duration::from_secs(6));
    assert_eq!((assigned(&cluster, heavy), assigned(&cluster, light)), (2, 1));
}

#[test]
fn a_restart_takes_over_more_frames_than_there_are_usual_places() {
    let mut cluster = Cluster::new().tenant(policy("heavy")).host("one", 1);
    cluster.submit("heavy", tasks(100));
    let mut jobs = Vec::new();
    for name in ["a", "b"] {
        cluster.define(policy(name));
        jobs.push(cluster.submit(name, tasks(1)));
    }
    assert_eq!(cluster.frames("one").len(), 4, "of three usual places, two for long tasks");
    cluster.restart_scheduler();
    cluster.attach("one");
    assert!(cluster.model("one").cancelled.is_empty());
    assert_eq!((cluster.frames("one").len(), jobs.iter().map(|job| assigned(&cluster, *job)).sum::<u32>()), (4, 2));
    // And a session that broke changes nothing.
    cluster.detach("one");
    cluster.attach("one");
    assert_eq!(cluster.frames("one").len(), 4);
}

/// What waits at a host in turns goes to one that joins, if it has not begun; nothing goes to a host that takes turns.
#[test]
fn a_host_that_joins_takes_over_what_has_not_begun() {
    let mut cluster = Cluster::new().tenant(policy("heavy")).tenant(policy("light")).host("one", 1);
    let heavy = cluster.submit("heavy", tasks(1));
    let other = cluster.submit("heavy", tasks(1));
    let light = cluster.submit("light", tasks(1));
    assert_eq!(cluster.frames("one").len(), 3);
    cluster.attach_new(HostModel::new("two", 2));
    assert_eq!(cluster.frames("two").len(), 2, "as many as it has cores");
    let at_two: Vec<JobId> = cluster.frames("two").iter().map(|frame| frame.job).collect();
    assert!(at_two.contains(&light) && at_two.contains(&other) && !at_two.contains(&heavy), "{at_two:?}");
    cluster.run_all();
}

#[test]
fn a_host_where_tenants_take_turns_counts_as_busy() {
    let mut cluster = Cluster::new().tenant(policy("heavy")).tenant(policy("light")).host("one", 1);
    cluster.submit("heavy", tasks(2));
    cluster.submit("light", tasks(1));
    cluster.attach_new(HostModel::new("two", 1));
    // One moved to the new host. The old one keeps two, has nothing idle, and asks for nothing.
    assert_eq!((cluster.frames("one").len(), cluster.frames("two").len()), (2, 1));
    let asks = |command: &(String, HostCommand)| matches!(command.1, HostCommand::Retract(_));
    assert!(!cluster.commands.iter().any(asks));
    assert!(cluster.model("two").asked_back.is_empty());
}
