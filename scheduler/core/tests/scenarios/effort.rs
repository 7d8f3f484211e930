//! An event costs the same however much waits.

use partita_testkit::{Cluster, array, each, job, policy};

/// Two hosts, busy with jobs of so many tasks, and what each of the same few events cost.
fn costs(jobs: u32, tasks: u32) -> Vec<u64> {
    let mut cluster = Cluster::new().tenant(policy("acme")).tenant(policy("other")).host("one", 2).host("two", 2);
    for _ in 0..jobs {
        let spec = job().with(array("a").tasks(tasks)).with(array("b").reads(each(0))).spec();
        cluster.submit("acme", spec.clone());
        cluster.submit("other", spec);
    }
    let mut costs = vec![cluster.core.effort()];
    for host in ["one", "two", "one", "two"] {
        cluster.run_frame(host);
        costs.push(cluster.core.effort());
    }
    cluster.detach("two");
    costs.push(cluster.core.effort());
    cluster.attach("two");
    costs.push(cluster.core.effort());
    costs
}

/// I14
#[test]
fn an_event_costs_the_same_however_many_tasks_wait() {
    let few = costs(1, 2_000);
    assert_eq!(costs(1, 40_000), few);
    assert!(few.iter().all(|steps| (1..500).contains(steps)), "{few:?}");
}

/// I14
#[test]
fn an_event_costs_the_same_however_many_jobs_wait() {
    assert_eq!(costs(1_500, 2), costs(500, 2));
}
