//! Memoisation: what was computed before is not computed again.

use partita_core::{JobEnd, Refusal, Request};
use partita_testkit::{ArrayBuilder, Cluster, HostModel, all, array, each, job, literal, policy};
use partita_types::{JobId, JobSpec, SpecError};

fn cluster() -> Cluster {
    Cluster::new().tenant(policy("acme")).host("one", 2)
}

fn memoised(name: &str) -> ArrayBuilder {
    array(name).options(|options| options.memoise = true)
}

/// Two tasks with arguments of their own, and one that reads both.
fn spec(first: &str, second: &str) -> JobSpec {
    let arguments = vec![first.as_bytes().to_vec(), second.as_bytes().to_vec()];
    job().with(memoised("map").tasks(2).arguments(arguments)).with(memoised("sum").reads(all(0))).spec()
}

fn submit(cluster: &mut Cluster, first: &str, second: &str) -> JobId {
    let id = cluster.submit("acme", spec(first, second));
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
    id
}

/// How many tasks of a job ran, and how many got outputs of others.
fn ran_and_reused(cluster: &Cluster, id: JobId) -> (u64, u64) {
    let totals = cluster.job(id).totals;
    (totals.attempts, totals.reused)
}

#[test]
fn a_task_that_did_the_same_before_is_not_run_again() {
    let mut cluster = cluster();
    let open = cluster.submit("acme", job().open().with(array("x").tasks(1)).spec());
    cluster.run_all();
    // The first job is kept open, so that the outputs that its second array consumed are still there.
    let kept = job().open().with(memoised("map").tasks(2).arguments(vec![b"a".to_vec(), b"b".to_vec()]));
    let first = cluster.submit("acme", kept.with(memoised("sum").reads(all(0))).spec());
    cluster.run_all();
    let second = submit(&mut cluster, "a", "b");
    assert_eq!(ran_and_reused(&cluster, first), (3, 0));
    assert_eq!(ran_and_reused(&cluster, second), (0, 3));
    let hashes = |results: std::collections::BTreeMap<_, _>| results.into_values().collect::<Vec<_>>();
    let (old, new) = (cluster.results(first, 1), cluster.results(second, 1));
    assert_eq!(hashes(old), hashes(new));
    assert_eq!(ran_and_reused(&cluster, open), (1, 0));
}

/// What the array keeps for its own next task, because somebody has the only one there is, does not keep out a copy.
#[test]
fn a_copy_goes_where_its_array_keeps_room_for_itself() {
    let mut cluster = Cluster::new().tenant(policy("acme"));
    let mut host = HostModel::new("one", 1);
    host.features.add_resource("gpu=1".parse().unwrap()).unwrap();
    cluster.attach_new(host);
    let same = memoised("map").tasks(4).options(|options| {
        options.keep = true;
        options.needs.add_resource("gpu=1".parse().unwrap()).unwrap();
    });
    let id = cluster.submit("acme", job().with(same).spec());
    cluster.run_all();
    assert_eq!(ran_and_reused(&cluster, id), (1, 3));
}

#[test]
fn other_arguments_other_inputs_and_other_tenants_are_not_the_same() {
    let mut cluster = cluster();
    let kept = |value: &str| {
        let map = memoised("map").tasks(1).arguments(vec![value.as_bytes().to_vec()]).options(|o| o.keep = true);
        job().with(map).with(memoised("next").reads(each(0))).spec()
    };
    let first = cluster.submit("acme", kept("a"));
    cluster.run_all();
    let other = cluster.submit("acme", kept("b"));
    cluster.run_all();
    assert_eq!((ran_and_reused(&cluster, first), ran_and_reused(&cluster, other)), ((2, 0), (2, 0)));
    cluster.define(policy("other"));
    let foreign = cluster.submit("other", kept("a"));
    cluster.run_all();
    assert_eq!(ran_and_reused(&cluster, foreign), (2, 0), "nothing is shared between tenants");
    let same = cluster.submit("acme", kept("a"));
    cluster.run_all();
    assert_eq!(ran_and_reused(&cluster, same), (0, 2));
}

#[test]
fn literals_tell_tasks_apart() {
    let mut cluster = cluster();
    let with = |values: &[&str]| job().with(memoised("a").reads(literal(values))).spec();
    let first = cluster.submit("acme", with(&["x", "y"]));
    cluster.run_all();
    let second = cluster.submit("acme", with(&["y", "z"]));
    cluster.run_all();
    assert_eq!((ran_and_reused(&cluster, first), ran_and_reused(&cluster, second)), ((2, 0), (1, 1)));
}

#[test]
fn an_array_that_does_not_ask_for_it_always_runs() {
    let mut cluster = cluster();
    let plain = || job().with(array("a").tasks(1)).spec();
    for _ in 0..2 {
        let id = cluster.submit("acme", plain());
        cluster.run_all();
        assert_eq!(ran_and_reused(&cluster, id), (1, 0));
    }
}

#[test]
fn whichever_job_is_released_first_the_other_keeps_its_outputs() {
    for older_first in [true, false] {
        let mut cluster = cluster();
        let single = || job().with(memoised("a").tasks(1)).spec();
        let older = cluster.submit("acme", single());
        cluster.run_all();
        let newer = cluster.submit("acme", single());
        assert_eq!(ran_and_reused(&cluster, newer), (0, 1));
        let (released, left) = if older_first { (older, newer) } else { (newer, older) };
        cluster.request(Request::Release(released));
        assert_eq!(cluster.results(left, 0).len(), 1);
        cluster.request(Request::Release(left));
        assert!(cluster.model("one").store.is_empty());
        assert_eq!(cluster.usage("acme").stored.0, 0);
        let later = cluster.submit("acme", single());
        cluster.run_all();
        assert_eq!(ran_and_reused(&cluster, later), (1, 0), "there was nothing left to take");
    }
}

#[test]
fn outputs_that_turn_out_to_be_gone_are_computed_after_all() {
    let mut cluster = cluster();
    let single = || job().with(memoised("a").tasks(1)).spec();
    cluster.submit("acme", single());
    cluster.run_all();
    cluster.model("one").store.clear();
    let id = cluster.submit("acme", single());
    assert_eq!(cluster.job(id).end, None);
    cluster.advance(std::time::Duration::from_secs(1));
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
    assert_eq!(cluster.results(id, 0).len(), 1);
}

#[test]
fn outputs_at_a_host_that_is_away_are_computed_elsewhere() {
    let mut cluster = cluster();
    let single = || job().with(memoised("a").tasks(1)).spec();
    cluster.submit("acme", single());
    cluster.run_all();
    cluster.attach_new(HostModel::new("two", 1));
    cluster.detach("one");
    let id = cluster.submit("acme", single());
    cluster.run_frame("two");
    assert_eq!(ran_and_reused(&cluster, id), (1, 0));
}

#[test]
fn a_restart_still_knows_what_was_computed() {
    let mut cluster = cluster();
    let single = || job().with(memoised("a").tasks(1)).spec();
    cluster.submit("acme", single());
    cluster.run_all();
    cluster.restart_scheduler();
    cluster.attach("one");
    let id = cluster.submit("acme", single());
    assert_eq!(ran_and_reused(&cluster, id), (0, 1));
    cluster.restart_scheduler();
    assert_eq!(ran_and_reused(&cluster, id), (0, 1), "and how much of it was used");
}

#[test]
fn what_is_not_deterministic_cannot_be_memoised() {
    let mut cluster = cluster();
    let odd = memoised("a").tasks(1).options(|options| options.deterministic = false);
    let refused = cluster.try_submit("acme", job().with(odd).spec());
    assert!(matches!(refused, Err(Refusal::Spec(SpecError::Meaningless { .. }))), "{refused:?}");
}
