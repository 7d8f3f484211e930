//! The tasks of an array, and how many of them are in which state.

use std::ops::{Deref, DerefMut};

use crate::task::{Counts, State, Task};

/// All tasks of an array, of which there is at least one.
#[derive(Debug)]
pub(crate) enum Tasks {
    /// Very many arrays have one task: it stands in the array, and there is nothing to count.
    One(Task),
    Many {
        tasks: Box<[Task]>,
        counts: Box<Counts>,
    },
}

const _: () = assert!(size_of::<Tasks>() <= 24, "an array of one task has a list for it");

impl Tasks {
    /// So many that wait.
    pub(crate) fn new(tasks: u32) -> Self {
        if tasks == 1 {
            return Self::One(Task::new(0));
        }
        let counts = Box::new(Counts::waiting(tasks));
        Self::Many { tasks: vec![Task::new(0); tasks as usize].into_boxed_slice(), counts }
    }

    /// How many are in a state.
    pub(crate) fn in_state(&self, state: State) -> u32 {
        match self {
            Self::One(task) => u32::from(task.state == state),
            Self::Many { counts, .. } => counts.of(state),
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        match self {
            Self::One(task) => {
                let mut counts = Counts::default();
                counts.add(task.state, 1);
                counts
            }
            Self::Many { counts, .. } => **counts,
        }
    }

    /// Notes that some changed their state. Every change of a state goes through here, and is held to the table in
    /// `states.rs`.
    pub(crate) fn shift(&mut self, from: State, to: State, tasks: u32) {
        debug_assert!(tasks == 0 || from.may_become(to), "no way leads from {from:?} to {to:?}: see states.rs");
        if let Self::Many { counts, .. } = self {
            counts.shift(from, to, tasks);
        }
    }
}

impl Deref for Tasks {
    type Target = [Task];

    fn deref(&self) -> &[Task] {
        match self {
            Self::One(task) => std::slice::from_ref(task),
            Self::Many { tasks, .. } => tasks,
        }
    }
}

impl DerefMut for Tasks {
    fn deref_mut(&mut self) -> &mut [Task] {
        match self {
            Self::One(task) => std::slice::from_mut(task),
            Self::Many { tasks, .. } => tasks,
        }
    }
}

impl<'a> IntoIterator for &'a Tasks {
    type Item = &'a Task;
    type IntoIter = std::slice::Iter<'a, Task>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_task_is_counted_as_many_are() {
        for tasks in [1, 2] {
            let mut all = Tasks::new(tasks);
            assert_eq!(all.counts(), Counts::waiting(tasks));
            all[0].state = State::Ready;
            all.shift(State::Waiting, State::Ready, 1);
            assert_eq!((all.in_state(State::Ready), all.in_state(State::Waiting)), (1, tasks - 1));
            assert_eq!(all.counts().of(State::Ready), 1);
            assert_eq!(all.len(), tasks as usize);
        }
    }
}
