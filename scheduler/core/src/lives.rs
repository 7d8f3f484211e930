//! Attempt numbers across restarts of the scheduler.
//!
//! What is handed out is not written down, so a scheduler that starts again does not know which numbers an earlier one gave.
//! Were a number given twice, two attempts and their outputs would have the same name: an order to delete the one, late,
//! would meet the other. So each life of the scheduler has numbers of its own, above those of all lives before, and is
//! itself written down before anything is handed out in it: what Lamport calls an epoch ("The Part-Time Parliament", ACM
//! TOCS 1998). That costs one record per start, and nothing per attempt.

use partita_types::AttemptNumber;

use crate::Core;
use crate::action::Action;
use crate::failure::ATTEMPTS_MAX;
use crate::record::Record;

const PER_LIFE: u32 = AttemptNumber::PER_LIFE;
const _: () = assert!(ATTEMPTS_MAX < PER_LIFE);

/// Which life of the scheduler this is.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Lives {
    /// Lives before this one.
    before: u32,
}

impl Lives {
    /// The largest number that an earlier life could have given out.
    pub(crate) const fn floor(self) -> u32 {
        self.before.saturating_mul(PER_LIFE)
    }

    /// The number of the next attempt of a task whose latest has this one.
    pub(crate) fn after(self, attempt: u32) -> u32 {
        next_number(attempt, self.floor())
    }

    /// Which lives there were before, for the journal.
    pub(crate) const fn before(self) -> u32 {
        self.before
    }
}

/// The number of the next attempt, above both.
pub(crate) fn next_number(attempt: u32, floor: u32) -> u32 {
    attempt.max(floor).saturating_add(1)
}

/// Whether a task whose latest attempt has this number was handed out as often as it may be in one life.
pub(crate) const fn is_worn_out(attempt: u32) -> bool {
    attempt % PER_LIFE >= ATTEMPTS_MAX
}

/// How many attempts a task had in the life that the latest of them is of.
pub(crate) const fn in_its_life(attempt: u32) -> u32 {
    attempt % PER_LIFE
}

impl Core {
    /// Writes down that another life begins. Nothing of it is visible before that is on disk.
    pub(crate) fn begin_life(&mut self, actions: &mut Vec<Action>) {
        let number = self.lives.before.saturating_add(1);
        self.commit(Record::LifeBegan { number, at: self.now }, actions);
    }

    /// The effect of [`Record::LifeBegan`].
    pub(crate) fn take_life(&mut self, number: u32) -> bool {
        let later = number > self.lives.before;
        self.lives.before = self.lives.before.max(number);
        later
    }

    /// Whether an attempt may have been handed out by an earlier life.
    pub(crate) fn is_of_earlier_life(&self, number: AttemptNumber) -> bool {
        number.0.get() <= self.lives.floor()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_is_given_in_two_lives() {
        let (first, second) = (Lives { before: 0 }, Lives { before: 1 });
        let mut last = 0;
        while !is_worn_out(last) {
            last = first.after(last);
        }
        assert_eq!((last, second.after(0)), (ATTEMPTS_MAX, PER_LIFE + 1));
        assert!(second.after(last) > last);
    }

    #[test]
    fn a_task_may_be_handed_out_as_often_in_each_life() {
        let third = Lives { before: 2 };
        let mut last = 7;
        for _ in 0..ATTEMPTS_MAX {
            assert!(!is_worn_out(last));
            last = third.after(last);
        }
        assert!(is_worn_out(last));
    }
}
