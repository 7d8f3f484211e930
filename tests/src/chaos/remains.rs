//! What may be there when no job is: the processes of the cluster, the files that it had before, and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rustix::process::getpid;
use serde_json::Value;

use super::blow::stored_partitions;
use crate::{Cluster, Family, open_files, wait_until};

/// What the kernel calls a descriptor of a partition.
const PARTITION: &str = "/memfd:partition";

/// What was there in the beginning.
pub(super) struct Remains {
    files: BTreeSet<String>,
    /// Of this process, without those of the cluster.
    others: Family,
}

impl Remains {
    /// Looks at a cluster without jobs.
    ///
    /// # Panics
    /// If it has anything of a job.
    pub(super) fn of(cluster: &Cluster) -> Self {
        wait_until_nothing_is_stored(cluster);
        Self { files: files(cluster.path()), others: others(cluster) }
    }

    /// Waits until the cluster has nothing of any job, and compares.
    ///
    /// # Panics
    /// If something is left.
    pub(super) fn check(&self, cluster: &Cluster) {
        wait_until_nothing_is_stored(cluster);
        let usage = cluster.ask("analytics", &["--json", "usage"]);
        for zero in ["\"running_jobs\":0", "\"queued_tasks\":0", "\"assigned_tasks\":0", "\"stored_bytes\":0"] {
            assert!(usage.contains(zero), "there is no {zero} in {usage}");
        }
        self.check_what_is_outside(cluster);
    }

    /// The same, of a cluster that was stopped.
    ///
    /// # Panics
    /// If something is left.
    pub(super) fn check_stopped(&self, cluster: &Cluster) {
        assert!(cluster.family().is_empty());
        self.check_what_is_outside(cluster);
    }

    fn check_what_is_outside(&self, cluster: &Cluster) {
        let strangers = others(cluster).without(&self.others);
        strangers.wait_until_gone();
        let files = files(cluster.path());
        let new: Vec<&String> = files.difference(&self.files).collect();
        assert!(new.is_empty(), "files are left: {new:?}");
    }
}

/// Descendants of this process that are not of the cluster.
fn others(cluster: &Cluster) -> Family {
    Family::of(getpid()).without(&cluster.family())
}

/// Every file of the cluster, except for those that the journal is made of.
fn files(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).expect("the directory of the cluster can be read") {
            let path = entry.expect("so can its parts").path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(root).expect("it is below").display().to_string();
                found.insert(name);
            }
        }
    }
    found.retain(|name| !name.starts_with("scheduler/state/"));
    found
}

fn wait_until_nothing_is_stored(cluster: &Cluster) {
    let empty =
        |host: &Value| host["state"] == "attached" && host["assigned_tasks"] == 0 && stored_partitions(host) == 0;
    let open = |id: i32| open_files(id).into_iter().find(|name| name.starts_with(PARTITION)).map(|name| (id, name));
    wait_until("cluster without partitions", || {
        let host = cluster.host_list().into_iter().find(|host| !empty(host)).map(|host| format!("host {host}"));
        let partition = || cluster.family().ids().find_map(open).map(|(id, name)| format!("process {id} has {name}"));
        host.or_else(partition)
    });
}
