//! Labels and resources in a plan, and what changes while it runs.

use partita_types::Features;
use serde::{Deserialize, Serialize};

use crate::plan::TenantPlan;

/// What a host has, or the tasks of an array need, beyond size.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FeaturePlan {
    /// Such as `zone=a`.
    pub labels: Vec<String>,
    /// Such as `gpu=2`.
    pub resources: Vec<String>,
}

impl FeaturePlan {
    /// Whether there is nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.resources.is_empty()
    }

    /// As the scheduler has it. What cannot be read is left out.
    pub(crate) fn features(&self) -> Features {
        let mut features = Features::default();
        for label in self.labels.iter().filter_map(|label| label.parse().ok()) {
            let _ = features.add_label(label);
        }
        for resource in self.resources.iter().filter_map(|resource| resource.parse().ok()) {
            let _ = features.add_resource(resource);
        }
        features
    }

    /// Whether a host that has this has all of that.
    pub(crate) fn suits(&self, needed: &Self) -> bool {
        let (has, needs) = (self.features(), needed.features());
        let labels = needs.labels.iter().all(|(name, value)| has.labels.get(name) == Some(value));
        labels && needs.resources.iter().all(|(name, amount)| has.resources.get(name) >= Some(amount))
    }
}

/// A tenant's policy becomes another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When, in milliseconds from the start.
    pub at: u64,
    /// The number of the tenant.
    pub tenant: usize,
    /// What then holds.
    pub policy: TenantPlan,
}
