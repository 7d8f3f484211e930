//! Faults that are put in on purpose, to see that the simulation finds them.
//!
//! Faults of the service, the disk, the hosts and the clients are made by the simulation itself; those of the core by a
//! switch in [`partita_core::Core`] that only debug builds have.

use partita_core::{Bug, Core};

/// A fault on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// The journal's writer acknowledges before it has flushed.
    SkippedFlush,
    /// At a start, the last records are replayed twice.
    ReplayTwice,
    /// A host forgets to delete what it was told to.
    OrphanPartition,
    /// A watcher resumes one event too late.
    WatchOffByOne,
    /// Hosts take every tenant's weight for 1.
    WeightsIgnored,
    /// Hosts do not hold limits of CPU.
    LimitIgnored,
    /// In the core.
    Core(Bug),
}

impl Plant {
    /// Every planted bug.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let own = [
            Self::SkippedFlush,
            Self::ReplayTwice,
            Self::OrphanPartition,
            Self::WatchOffByOne,
            Self::WeightsIgnored,
            Self::LimitIgnored,
        ];
        own.into_iter().chain(Bug::ALL.into_iter().map(Self::Core)).collect()
    }

    /// How it is called on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SkippedFlush => "skipped-flush",
            Self::ReplayTwice => "replay-twice",
            Self::OrphanPartition => "orphan-partition",
            Self::WatchOffByOne => "watch-off-by-one",
            Self::WeightsIgnored => "weights-ignored",
            Self::LimitIgnored => "limit-ignored",
            Self::Core(bug) => bug.name(),
        }
    }

    /// Tells a core to be wrong, if the fault is one of the core.
    pub(crate) fn put_into(self, core: &mut Core) {
        if let Self::Core(bug) = self {
            core.plant(bug);
        }
    }
}
