//! What is done to a running cluster, and what may come of it.

use std::fmt;

use rustix::process::{Signal, kill_process};
use serde_json::Value;

use super::HOSTS;
use super::ledger::Ledger;
use super::random::Random;
use super::watch::Watch;
use crate::{Cluster, Family, Running, executors, wait_until};

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blow {
    /// The scheduler is killed and started again; sometimes twice.
    Scheduler,
    /// A host is killed and started again: at once, or after the cluster has given it up.
    Host,
    /// An executor is killed.
    Executor,
    /// The client that submitted the job is killed.
    Client,
    /// A host is stopped, and goes on after the cluster has given it up.
    Freeze,
}

impl Blow {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Scheduler, Self::Host, Self::Executor, Self::Client, Self::Freeze];
}

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Scheduler => "scheduler killed",
            Self::Host => "host killed",
            Self::Executor => "executor killed",
            Self::Client => "client killed",
            Self::Freeze => "host frozen",
        })
    }
}

/// What may have come of a blow.
#[derive(Debug)]
pub(super) struct Struck {
    blow: Blow,
    /// Partitions that were at a host when it was killed.
    partitions: u64,
}

impl Blow {
    /// Strikes. Returns when everything that was killed is gone or has been started again.
    pub(super) fn strike(
        self,
        cluster: &mut Cluster,
        client: &mut Running,
        watch: &mut Watch,
        random: &mut Random,
    ) -> Struck {
        let host = usize::try_from(random.below(HOSTS as u64)).unwrap_or_default();
        let mut partitions = 0;
        match self {
            Self::Scheduler => kill_scheduler(cluster, watch, random),
            Self::Host => partitions = kill_host(cluster, host, random),
            Self::Executor => kill_executor(cluster, host, watch, random),
            Self::Client => client.signal(Signal::KILL),
            Self::Freeze => freeze_host(cluster, host),
        }
        Struck { blow: self, partitions }
    }
}

fn kill_scheduler(cluster: &mut Cluster, watch: &mut Watch, random: &mut Random) {
    cluster.kill_scheduler();
    cluster.start_scheduler();
    if random.below(2) == 0 {
        // While hosts come back, or a little later.
        watch.look();
        let more = watch.ledger().done() + random.below(4);
        watch.until("some more tasks", |ledger| ledger.done() >= more || ledger.end().is_some());
        cluster.kill_scheduler();
        cluster.start_scheduler();
    }
}

/// Kills a host and returns how many partitions it had.
fn kill_host(cluster: &mut Cluster, host: usize, random: &mut Random) -> u64 {
    // It says nothing more from here on, so that the cluster's numbers are about what is killed.
    cluster.signal_host(host, Signal::STOP);
    let stored = || stored_partitions(&cluster.host_status(host));
    let mut partitions = stored();
    wait_until("settled number of partitions", || {
        let before = std::mem::replace(&mut partitions, stored());
        (before != partitions).then(|| format!("{before}, then {partitions}"))
    });
    let family = Family::of(cluster.host_pid(host));
    cluster.kill_host(host);
    family.wait_until_gone();
    if random.below(2) == 0 {
        wait_for_state(cluster, host, "lost");
    }
    cluster.restart_host(host);
    partitions
}

fn kill_executor(cluster: &Cluster, host: usize, watch: &mut Watch, random: &mut Random) {
    loop {
        let mut executors = executors(cluster.host_pid(host));
        random.shuffle(&mut executors);
        // One that has just ended is as good as none.
        if executors.iter().any(|executor| kill_process(*executor, Signal::KILL).is_ok()) {
            return;
        }
        let done = watch.ledger().done();
        watch.until("a task at the host", |ledger| ledger.done() > done || ledger.end().is_some());
        if watch.ledger().end().is_some() {
            return;
        }
    }
}

/// Stops the daemon of a host, not its executors: they end their attempts, which the host tells when it wakes.
fn freeze_host(cluster: &Cluster, host: usize) {
    cluster.signal_host(host, Signal::STOP);
    wait_for_state(cluster, host, "lost");
    cluster.signal_host(host, Signal::CONT);
    wait_for_state(cluster, host, "attached");
}

fn wait_for_state(cluster: &Cluster, host: usize, state: &str) {
    wait_until(&format!("host that is {state}"), || {
        let host = cluster.host_status(host);
        (host["state"] != state).then(|| host.to_string())
    });
}

pub(super) fn stored_partitions(host: &Value) -> u64 {
    host["stored_partitions"].as_u64().unwrap_or_else(|| panic!("how many partitions has {host}?"))
}

impl Struck {
    /// Compares what the events say with what may come of such a blow.
    ///
    /// # Panics
    /// If more came of it, or something else.
    pub(super) fn check(&self, ledger: &Ledger) {
        let (rerun, lost) = (ledger.rerun(), ledger.lost_partitions());
        let causes = |allowed: &[&str]| {
            let other = ledger.failures().iter().find(|failure| !allowed.contains(&failure.cause.as_str()));
            assert_eq!(other, None, "an attempt failed by what nobody did");
        };
        match self.blow {
            Blow::Scheduler | Blow::Client => {
                assert_eq!(rerun, 0, "tasks ran again whose outputs were there");
                causes(&["host-lost", "preempted"]);
            }
            Blow::Executor => {
                assert_eq!(rerun, 0, "tasks ran again whose outputs were there");
                assert!(ledger.failures().len() <= 1, "one executor, one attempt: {:?}", ledger.failures());
                causes(&["crash"]);
            }
            Blow::Host => {
                causes(&["host-lost", "input", "preempted"]);
                // Later, what the lost ones were made from has been dropped, and is made again as well.
                if ledger.all_was_needed() {
                    assert_eq!(lost, self.partitions, "exactly what the host had is rebuilt");
                }
            }
            Blow::Freeze => causes(&["host-lost", "input", "preempted"]),
        }
    }
}
