//! The journal loses what only tells of released jobs, and nothing else.

use partita_core::{Core, Record, Request};
use partita_testkit::{Cluster, array, each, job, policy};
use partita_types::Cause;

use crate::restart::busy_cluster;

/// What a compaction leaves of a journal, as decided by the core that `decider` restores.
fn compacted(journal: &[Record]) -> Vec<Record> {
    let mut picker = restored(journal).compaction();
    let mut kept = Vec::new();
    journal.iter().for_each(|record| picker.pass(record.clone(), &mut kept));
    picker.finish(&mut kept);
    kept
}

fn restored(journal: &[Record]) -> Core {
    let mut core = Core::new();
    journal.iter().for_each(|record| core.restore(record, &mut Vec::new()));
    core
}

/// B50: jobs that finished, wait, run, failed or were cancelled are there as before; one that was released is not.
#[test]
fn a_compacted_journal_replays_to_the_same_state_and_the_same_events() {
    let (mut cluster, jobs) = busy_cluster();
    let kept = compacted(&cluster.journal);
    assert!(kept.len() < cluster.journal.len());
    assert_eq!(format!("{:?}", restored(&kept)), format!("{:?}", restored(&cluster.journal)));
    assert_eq!(restored(&kept).check_invariants(), Ok(()));
    let events = cluster.events.clone();
    cluster.journal = kept;
    assert_eq!(cluster.replayed().1, events, "who watches goes on at the same number");
    cluster.restart_scheduler();
    for host in ["one", "two"] {
        cluster.attach(host);
    }
    cluster.run_all();
    assert!(jobs.iter().all(|id| cluster.job(*id).end.is_some()));
}

/// B50: a compaction of a compacted journal, and so on, finds nothing more to drop.
#[test]
fn compacting_again_changes_nothing() {
    let (cluster, _) = busy_cluster();
    let once = compacted(&cluster.journal);
    assert_eq!(compacted(&once), once);
}

#[test]
fn the_journal_does_not_grow_with_jobs_that_were_released() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 2);
    let mut sizes = Vec::new();
    for round in 0..20 {
        let spec = job().with(array("a").tasks(5)).with(array("b").reads(each(0))).spec();
        let id = cluster.submit("acme", spec);
        if round % 3 == 0 {
            let runs = cluster.take_frame("one");
            cluster.fail("one", &runs[0], Cause::Failed);
        }
        cluster.run_all();
        cluster.request(Request::Release(id));
        cluster.journal = compacted(&cluster.journal);
        cluster.events = cluster.replayed().1;
        sizes.push(cluster.journal.len());
    }
    // The first one used nothing, so there is nothing to tell of that.
    assert!(sizes[1..].windows(2).all(|pair| pair[0] == pair[1]), "{sizes:?}");
    let used = cluster.usage("acme").cpu;
    cluster.restart_scheduler();
    assert_eq!(cluster.usage("acme").cpu, used, "what they used is not forgotten");
    let next = cluster.submit("acme", job().with(array("a").tasks(1)).spec());
    assert_eq!(next.number, 21, "their numbers are not given again");
}

#[test]
fn what_happens_after_the_decision_is_kept() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 2);
    let released = cluster.submit("acme", job().with(array("a").tasks(1)).spec());
    cluster.run_all();
    cluster.request(Request::Release(released));
    let decided = cluster.journal.len();
    let mut picker = restored(&cluster.journal).compaction();
    let later = cluster.submit("acme", job().with(array("a").tasks(2)).spec());
    cluster.run_all();
    cluster.request(Request::Release(later));
    let last = cluster.submit("acme", job().with(array("a").tasks(2)).spec());
    let mut kept = Vec::new();
    cluster.journal[..decided].iter().for_each(|record| picker.pass(record.clone(), &mut kept));
    picker.finish(&mut kept);
    kept.extend_from_slice(&cluster.journal[decided..]);
    assert_eq!(format!("{:?}", restored(&kept)), format!("{:?}", restored(&cluster.journal)));
    assert!(restored(&kept).job(last).is_some());
}
