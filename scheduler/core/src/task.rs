//! One task in 16 bytes, and how many tasks of an array are in which state.

use partita_types::HostId;

use crate::view::TaskCounts;

/// The state of a task. The last four are final; only the loss of its outputs takes a task out of `Succeeded` again. The
/// ways between them stand in `states.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum State {
    /// A dependency is missing, or an upload.
    Waiting,
    /// Could run now.
    Ready,
    /// Waits before its next attempt.
    Delayed,
    /// Part of a frame at a host.
    Assigned,
    Succeeded,
    Failed,
    Cancelled,
    Aborted,
}

impl State {
    pub(crate) const ALL: [Self; 8] = [
        Self::Waiting,
        Self::Ready,
        Self::Delayed,
        Self::Assigned,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Aborted,
    ];

    pub(crate) const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Aborted)
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Waiting | Self::Delayed => "waiting",
            Self::Ready => "ready",
            Self::Assigned => "assigned",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Aborted => "aborted",
        }
    }
}

/// Where the outputs of a succeeded task are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// At this host.
    At(HostId),
    /// The journal knows them; the host that has them has not attached since the restart.
    Unknown,
    /// Deleted or lost.
    Nowhere,
}

/// What the slot of an assigned task holds between the report of its attempt and the effect of that, so that a report
/// that names it twice is noticed.
const REPORTED: u32 = u32::MAX;
const UNKNOWN: u32 = u32::MAX - 1;
const NOWHERE: u32 = u32::MAX;

impl Place {
    const fn pack(self) -> u32 {
        match self {
            Self::At(host) => host.0,
            Self::Unknown => UNKNOWN,
            Self::Nowhere => NOWHERE,
        }
    }

    const fn unpack(packed: u32) -> Self {
        match packed {
            UNKNOWN => Self::Unknown,
            NOWHERE => Self::Nowhere,
            host => Self::At(HostId(host)),
        }
    }
}

/// A task. There are millions, so it is small.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task {
    /// The number of the latest attempt that was given out; 0 before the first. Of a succeeded task that of the attempt whose
    /// outputs count.
    pub(crate) attempt: u32,
    /// Of an assigned task the slot of its frame, of a succeeded one the packed [`Place`].
    place: u32,
    /// Inputs of its own that have not succeeded. Gates of the array are counted there. Stale in final states, but of a
    /// succeeded task the latest number that was given out.
    pub(crate) unmet: u32,
    pub(crate) state: State,
    /// Failed attempts that were its own fault.
    pub(crate) blamed: u8,
    /// Failed attempts that were nobody's fault, but must not go on for ever.
    pub(crate) excused: u8,
    /// Whether it has succeeded before, and its outputs were lost.
    pub(crate) again: bool,
}

const _: () = assert!(size_of::<Task>() == 16, "a task has become larger than it says");

impl Task {
    pub(crate) const fn new(unmet: u32) -> Self {
        let state = State::Waiting;
        Self { attempt: 0, place: NOWHERE, unmet, state, blamed: 0, excused: 0, again: false }
    }

    /// Where the outputs are.
    pub(crate) const fn place(&self) -> Place {
        match self.state {
            State::Succeeded => Place::unpack(self.place),
            _ => Place::Nowhere,
        }
    }

    pub(crate) const fn set_place(&mut self, place: Place) {
        self.place = place.pack();
    }

    /// The slot of the frame of an assigned task. If two attempts run, that of the first; [`crate::pairs`] has the other.
    pub(crate) fn frame(&self) -> Option<u32> {
        (self.state == State::Assigned && self.place != REPORTED).then_some(self.place)
    }

    /// The only attempt of an assigned task was reported.
    pub(crate) const fn leave_frame(&mut self) {
        self.place = REPORTED;
    }

    /// An attempt of a task that has just succeeded is the one that counts, be there later ones or not.
    pub(crate) fn count_attempt(&mut self, number: u32) {
        self.unmet = self.attempt.max(number);
        self.attempt = number;
    }

    /// The latest number that was given out.
    pub(crate) fn latest(&self) -> u32 {
        if self.state == State::Succeeded { self.attempt.max(self.unmet) } else { self.attempt }
    }

    pub(crate) const fn set_frame(&mut self, slot: u32) {
        self.place = slot;
    }
}

/// How many tasks are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts([u32; 8]);

impl Counts {
    pub(crate) fn waiting(tasks: u32) -> Self {
        let mut counts = Self::default();
        counts.add(State::Waiting, tasks);
        counts
    }

    pub(crate) const fn of(&self, state: State) -> u32 {
        self.0[state as usize]
    }

    pub(crate) fn add(&mut self, state: State, tasks: u32) {
        self.0[state as usize] += tasks;
    }

    pub(crate) fn shift(&mut self, from: State, to: State, tasks: u32) {
        self.0[from as usize] -= tasks;
        self.0[to as usize] += tasks;
    }

    /// Tasks that have not ended.
    pub(crate) fn unfinished(&self) -> u32 {
        State::ALL.into_iter().filter(|state| !state.is_final()).map(|state| self.of(state)).sum()
    }

    /// Whether any task ended without outputs.
    pub(crate) const fn any_dead(self) -> bool {
        self.of(State::Failed) + self.of(State::Cancelled) + self.of(State::Aborted) > 0
    }

    pub(crate) fn view(&self) -> TaskCounts {
        TaskCounts {
            waiting: self.of(State::Waiting) + self.of(State::Delayed),
            ready: self.of(State::Ready),
            assigned: self.of(State::Assigned),
            succeeded: self.of(State::Succeeded),
            failed: self.of(State::Failed),
            cancelled: self.of(State::Cancelled),
            aborted: self.of(State::Aborted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_survive_packing() {
        for place in [Place::At(HostId(0)), Place::At(HostId(77)), Place::Unknown, Place::Nowhere] {
            assert_eq!(Place::unpack(place.pack()), place);
        }
    }
}
