//! What a policy grants a tenant beyond its weight: what is guaranteed, and what is borrowed and lent within a cohort.
//!
//! The words are those of Kueue's `ClusterQueue`: `guaranteed` is its `nominalQuota`, `borrow` its `borrowingLimit`, `lend`
//! its `lendingLimit`, a cohort its cohort. See <https://kueue.sigs.k8s.io/docs/concepts/cluster_queue/>.

use partita_types::{ByteSize, CohortName, MilliCpu};

/// An amount of each resource that tenants share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resources {
    /// Cores.
    pub cpu: MilliCpu,
    /// Memory of tasks.
    pub memory: ByteSize,
    /// Partitions.
    pub stored: ByteSize,
}

impl Resources {
    /// The sum, staying at the largest value instead of wrapping.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self {
            cpu: MilliCpu(self.cpu.0.saturating_add(other.cpu.0)),
            memory: self.memory.saturating_add(other.memory),
            stored: self.stored.saturating_add(other.stored),
        }
    }
}

/// A bound on each resource; `None` bounds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// Cores.
    pub cpu: Option<MilliCpu>,
    /// Memory of tasks.
    pub memory: Option<ByteSize>,
    /// Partitions.
    pub stored: Option<ByteSize>,
}

/// What a tenant has for certain, and how it shares the rest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Share {
    /// What it gets as soon as it has work, whatever others do.
    pub guaranteed: Resources,
    /// The most that it uses beyond that.
    pub borrow: Bounds,
    /// The most of its guarantee that its cohort uses while it does not.
    pub lend: Bounds,
    /// The tenants with which it lends and borrows. All tenants that name none are one cohort, too.
    pub cohort: Option<CohortName>,
}
