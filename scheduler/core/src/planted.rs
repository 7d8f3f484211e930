//! Faults that can be put into a core on purpose, so that the simulation can show that it finds them.
//!
//! In a release build [`Core::has`] is `false` for the compiler, and every branch that asks for it is gone. In a debug build
//! a core has no bug unless [`Core::plant`] was called, which only the simulation does.

use crate::Core;

/// A fault on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// What an earlier attempt says counts for the current one.
    StaleAttemptAccepted,
    /// What a tenant had reserved on a lost host is not given back.
    QuotaKeptOnHostLoss,
    /// A task that waited for its next attempt is not made ready when its time has come.
    LostWakeUp,
    /// The tenant with the smallest weight comes last, always.
    LightestTenantStarves,
    /// Attempts of a cancelled job are not stopped.
    CancelForgetsAttempts,
    /// A task of a shuffle gets the output of the first task in place of the last one's.
    WrongSliceParent,
    /// A tenant borrows as much as there is, whatever its policy says.
    BorrowBeyondLimit,
    /// Outputs that are lost with their host are not rebuilt.
    LostOutputsForgotten,
    /// What the slower of two attempts had reserved is not given back.
    LoserKeepsReservation,
    /// The slower of two attempts is not stopped.
    LoserRunsOn,
    /// A frame that a host is asked for is given to another before the answer.
    DoubleStartOnRetraction,
    /// A source is told to delete as soon as the target is told to copy, whatever becomes of the copy.
    LastCopyDroppedInMove,
    /// Hosts are not told anew what they have of a limit of CPU when a frame ends.
    RatesOutliveFrames,
    /// Tenants get frames beyond the usual places of hosts, whatever their share is.
    OvercommitBeyondShare,
    /// Tenants wait behind long tasks of others until one of these ends.
    NobodyTakesTurns,
    /// What an ended frame was expected to write still counts against the budget of live bytes.
    ExpectedBytesKept,
    /// Nothing is remembered of what was computed.
    ComputedIsForgotten,
}

impl Bug {
    /// Every bug.
    pub const ALL: [Self; 17] = [
        Self::StaleAttemptAccepted,
        Self::QuotaKeptOnHostLoss,
        Self::LostWakeUp,
        Self::LightestTenantStarves,
        Self::CancelForgetsAttempts,
        Self::WrongSliceParent,
        Self::BorrowBeyondLimit,
        Self::LostOutputsForgotten,
        Self::LoserKeepsReservation,
        Self::LoserRunsOn,
        Self::DoubleStartOnRetraction,
        Self::LastCopyDroppedInMove,
        Self::RatesOutliveFrames,
        Self::OvercommitBeyondShare,
        Self::NobodyTakesTurns,
        Self::ExpectedBytesKept,
        Self::ComputedIsForgotten,
    ];

    /// How it is called on a command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::StaleAttemptAccepted => "stale-attempt-accepted",
            Self::QuotaKeptOnHostLoss => "quota-kept-on-host-loss",
            Self::LostWakeUp => "lost-wake-up",
            Self::LightestTenantStarves => "lightest-tenant-starves",
            Self::CancelForgetsAttempts => "cancel-forgets-attempts",
            Self::WrongSliceParent => "wrong-slice-parent",
            Self::BorrowBeyondLimit => "borrow-beyond-limit",
            Self::LostOutputsForgotten => "lost-outputs-forgotten",
            Self::LoserKeepsReservation => "loser-keeps-reservation",
            Self::LoserRunsOn => "loser-runs-on",
            Self::DoubleStartOnRetraction => "double-start-on-retraction",
            Self::LastCopyDroppedInMove => "last-copy-dropped-in-move",
            Self::RatesOutliveFrames => "rates-outlive-frames",
            Self::OvercommitBeyondShare => "overcommit-beyond-share",
            Self::NobodyTakesTurns => "nobody-takes-turns",
            Self::ExpectedBytesKept => "expected-bytes-kept",
            Self::ComputedIsForgotten => "computed-is-forgotten",
        }
    }
}

impl Core {
    /// Makes this core wrong for the rest of its life, if this is a debug build. For the simulation's own tests.
    pub fn plant(&mut self, bug: Bug) {
        self.planted = Some(bug);
    }

    /// Whether this core has a bug on purpose.
    pub(crate) fn has(&self, bug: Bug) -> bool {
        cfg!(debug_assertions) && self.planted == Some(bug)
    }
}
