//! How much the core looks at for one event. It counts and does not time, so that a test can hold it to a bound that no
//! machine changes: an event costs the same however much waits.

use std::cell::Cell;
use std::fmt;

use crate::Core;

/// More steps than any event takes. One that takes more does not come to an end, and a debug build says so instead of
/// hanging.
const STEPS_MAX: u64 = 1 << 24;

/// Steps that the last event took.
#[derive(Default)]
pub(crate) struct Effort {
    steps: Cell<u64>,
}

impl Effort {
    /// An event begins.
    pub(crate) fn begin(&self) {
        self.steps.set(0);
    }

    /// So many things more were looked at.
    pub(crate) fn note(&self, steps: usize) {
        self.steps.set(self.steps.get().saturating_add(steps as u64));
        debug_assert!(self.steps.get() < STEPS_MAX, "an event does not come to an end: {STEPS_MAX} steps");
    }
}

impl fmt::Debug for Effort {
    /// The same always: it is no part of the state.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Effort")
    }
}

impl Core {
    /// How much the last event made the core look at: arrays that could run, lots of their tasks, hosts for each of these,
    /// frames that could be taken back, and jobs that changed.
    #[must_use]
    pub fn effort(&self) -> u64 {
        self.effort.steps.get()
    }
}
