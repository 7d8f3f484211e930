//! Tasks that were given a second attempt while the first one runs. They are few, so what there is to know of them stands
//! beside the tasks and not in them.
//!
//! Both attempts are equal: the first result counts, and the failure of one leaves the task to the other. The one place that
//! ends an attempt is [`Job::leave_frame`]; whatever ends the task forgets the pair with it. `speculation.rs` decides who gets a
//! second attempt.

use std::collections::BTreeMap;

use partita_types::{ArrayIndex, AttemptId, AttemptNumber};

use crate::job::Job;
use crate::lives::next_number;
use crate::transition::Stopped;

/// What a [`crate::task::Task`] cannot say. Its `frame` is that of the first attempt, its `attempt` the number of the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pair {
    /// The number of the first attempt, which runs.
    pub(crate) first: u32,
    /// The slot of the second one's frame; `None` after that has ended.
    pub(crate) second: Option<u32>,
}

/// The pairs of a job, by array and task. All of them are assigned.
#[derive(Debug, Default)]
pub(crate) struct Pairs(BTreeMap<(u32, u32), Pair>);

impl Pairs {
    pub(crate) fn get(&self, array: u32, index: u32) -> Option<Pair> {
        self.0.get(&(array, index)).copied()
    }

    /// The task is not assigned any more.
    pub(crate) fn forget(&mut self, array: u32, index: u32) {
        self.0.remove(&(array, index));
    }

    /// All of them, by array and task.
    pub(crate) fn iter(&self) -> impl Iterator<Item = ((u32, u32), Pair)> + '_ {
        self.0.iter().map(|(key, pair)| (*key, *pair))
    }
}

impl Job {
    /// The attempts of a task that are at hosts, with the slots of their frames: none, one or two.
    pub(crate) fn attempts_at_hosts(
        &self,
        array: u32,
        index: u32,
    ) -> impl Iterator<Item = (u32, AttemptNumber)> + use<> {
        let task = self.task(array, index);
        let pair = self.pairs.get(array, index);
        let first = task.frame().zip(AttemptNumber::from_wire(pair.map_or(task.attempt, |pair| pair.first)));
        let second = pair.and_then(|pair| pair.second).zip(AttemptNumber::from_wire(task.attempt));
        first.into_iter().chain(second)
    }

    /// The number of the attempt of a task that is in the frame in a slot.
    pub(crate) fn attempt_in(&self, array: ArrayIndex, index: u32, slot: u32) -> Option<AttemptNumber> {
        self.find_task(array, index)?;
        self.attempts_at_hosts(array.0, index).find(|(frame, _)| *frame == slot).map(|(_, number)| number)
    }

    /// The slot of the frame with an attempt of a task, if it is at a host.
    pub(crate) fn slot_of(&self, array: ArrayIndex, index: u32, number: AttemptNumber) -> Option<u32> {
        self.find_task(array, index)?;
        self.attempts_at_hosts(array.0, index).find(|(_, known)| *known == number).map(|(slot, _)| slot)
    }

    /// Gives an assigned task a second attempt; returns its number, which is above `floor`.
    pub(crate) fn add_second(&mut self, array: u32, index: u32, slot: u32, floor: u32) -> Option<AttemptNumber> {
        let task = self.task_mut(array, index);
        debug_assert!(task.frame().is_some());
        let first = task.attempt;
        task.attempt = next_number(first, floor);
        let number = AttemptNumber::from_wire(task.attempt);
        self.pairs.0.insert((array, index), Pair { first, second: Some(slot) });
        number
    }

    /// Takes the attempt in a slot out of its frame. The other one of its task, if there is any, goes on.
    pub(crate) fn leave_frame(&mut self, array: u32, index: u32, slot: u32) {
        let key = (array, index);
        match self.pairs.0.get_mut(&key) {
            Some(pair) if pair.second == Some(slot) => pair.second = None,
            Some(Pair { second: Some(second), .. }) => {
                let second = *second;
                self.pairs.0.remove(&key);
                self.task_mut(array, index).set_frame(second);
            }
            Some(_) | None => self.task_mut(array, index).leave_frame(),
        }
    }

    /// What is to be stopped if a task ends now.
    pub(crate) fn to_stop(&self, array: u32, index: u32) -> impl Iterator<Item = Stopped> + use<> {
        let task = self.task_id(array, index);
        self.attempts_at_hosts(array, index)
            .map(move |(slot, number)| Stopped { slot, attempt: AttemptId { task, number } })
    }
}
