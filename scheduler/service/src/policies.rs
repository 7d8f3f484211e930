//! Policies from disk into the core, at the start and whenever a file changes.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use partita_core::Event;
use partita_policy::{PolicyErrors, PolicySet, PolicyVersion, TenantPolicy};
use tracing::{error, info};

use crate::audit::Auditor;
use crate::auth::InForce;
use crate::driver::{Handle, Stopped};
use crate::metrics::Metrics;

/// How often the directory is looked at: a lowered limit is to be in force within a second.
const POLL: Duration = Duration::from_millis(500);

/// The policies in force, and what the directory looked like when they were read.
#[derive(Debug)]
pub(crate) struct Policies {
    directory: PathBuf,
    version: PolicyVersion,
    tenants: Vec<TenantPolicy>,
    seen: Vec<(PathBuf, Option<SystemTime>, u64)>,
    in_force: InForce,
}

impl Policies {
    /// Reads the directory for the first time.
    pub(crate) fn load(directory: &Path) -> Result<Self, PolicyErrors> {
        // Looked at before it is read: what changes in between is read again.
        let seen = look(directory);
        let set = PolicySet::load(directory)?;
        let tenants: Vec<TenantPolicy> = set.iter().cloned().collect();
        let in_force = InForce::default();
        in_force.set(set.version(), &tenants);
        Ok(Self { directory: directory.to_owned(), version: set.version(), tenants, seen, in_force })
    }

    /// What calls need of the policies; changes with them.
    pub(crate) fn in_force(&self) -> InForce {
        self.in_force.clone()
    }

    /// The policies.
    pub(crate) fn tenants(&self) -> &[TenantPolicy] {
        &self.tenants
    }

    /// Reads the directory again if it looks different. Policies with a fault change nothing.
    ///
    /// Returns the policies that differ from those in force, or `None` if nothing was read.
    fn reload(&mut self) -> Option<Result<Vec<TenantPolicy>, PolicyErrors>> {
        let seen = look(&self.directory);
        if seen == self.seen {
            return None;
        }
        self.seen = seen;
        let set = match PolicySet::load(&self.directory) {
            Ok(set) => set,
            Err(errors) => return Some(Err(errors)),
        };
        self.version = set.version();
        let tenants: Vec<TenantPolicy> = set.iter().cloned().collect();
        let changed = tenants.iter().filter(|policy| !self.tenants.contains(policy)).cloned().collect();
        self.in_force.set(self.version, &tenants);
        self.tenants = tenants;
        Some(Ok(changed))
    }

    /// Keeps the core's policies those of the directory, until the scheduler stops.
    pub(crate) async fn follow(mut self, handle: Handle, metrics: Metrics, auditor: Auditor) -> Result<(), Stopped> {
        let mut timer = tokio::time::interval(POLL);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            timer.tick().await;
            match self.reload() {
                None => {}
                Some(Err(errors)) => {
                    error!(error = %errors, "policies have faults; those read before stay in force");
                    metrics.policies_broken(true);
                    // If that cannot be noted, the scheduler stops.
                    let _ = auditor.own("Policies/Read", errors.to_string(), "refused").await;
                }
                Some(Ok(changed)) => {
                    info!(version = %self.version, changed = changed.len(), "policies read again");
                    metrics.policies_broken(false);
                    let names: Vec<&str> = changed.iter().map(|policy| policy.name.as_str()).collect();
                    let _ = auditor.own("Policies/Read", format!("tenants {}", names.join(", ")), "ok").await;
                    for policy in changed {
                        handle.event(Event::TenantDefined(policy)).await?;
                    }
                }
            }
        }
    }
}

/// Names, times and sizes of the policy files.
fn look(directory: &Path) -> Vec<(PathBuf, Option<SystemTime>, u64)> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut seen: Vec<_> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let metadata = entry.metadata().ok()?;
            let path = entry.path();
            path.extension().is_some_and(|extension| extension == "toml").then(|| {
                let modified = metadata.modified().ok();
                (path, modified, metadata.len())
            })
        })
        .collect();
    seen.sort();
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_directory_is_read_again_and_a_fault_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.toml");
        std::fs::write(&file, "[tenant.one]\n").unwrap();
        let mut policies = Policies::load(directory.path()).unwrap();
        assert!(policies.reload().is_none(), "nothing changed");

        std::fs::write(&file, "[tenant.one]\nweight = 2\n[tenant.two]\n").unwrap();
        let changed = policies.reload().unwrap().unwrap();
        assert_eq!(changed.iter().map(|policy| policy.name.as_str()).collect::<Vec<_>>(), ["one", "two"]);

        std::fs::write(&file, "[tenant.one]\nwieght = 3\n").unwrap();
        assert!(policies.reload().unwrap().is_err());
        assert_eq!(policies.tenants().len(), 2);
        assert!(policies.reload().is_none(), "a fault is reported once");
    }
}
