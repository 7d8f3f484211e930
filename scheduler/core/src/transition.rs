//! Changes of task states within a job, and what follows for the tasks that depend on them.
//!
//! Every state change goes through [`Job::set_state`], which keeps counts, ready sets and the number of unfinished tasks
//! right. Nothing here looks at hosts or quotas.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use partita_types::{AttemptId, AttemptNumber, OutputInfo};

use crate::job::Job;
use crate::lives::next_number;
use crate::ranges::runs;
use crate::task::{Place, State, Task};

/// An attempt that was at a host when its task ended otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopped {
    /// The slot of its frame.
    pub(crate) slot: u32,
    pub(crate) attempt: AttemptId,
}

impl Job {
    /// The one place where a task changes its state.
    fn set_state(&mut self, array: u32, index: u32, state: State) {
        let owner = &mut self.arrays[array as usize];
        let before = std::mem::replace(&mut owner.tasks[index as usize].state, state);
        owner.tasks.shift(before, state, 1);
        if before == State::Ready {
            owner.ready.remove(index);
        }
        if before == State::Assigned {
            self.pairs.forget(array, index);
        }
        let owner = &mut self.arrays[array as usize];
        if state == State::Ready {
            owner.ready.insert(index, index + 1);
        }
        self.unfinished += u64::from(!state.is_final());
        self.unfinished -= u64::from(!before.is_final());
        if before == State::Ready || state == State::Ready {
            self.mark_dirty(array);
        }
    }

    /// Sets up the dependencies of a new array, and makes ready what can run.
    pub(crate) fn start_array(&mut self, array: u32) {
        let gates = self.count_closed_gates(array);
        self.array_mut(array).closed_gates = gates;
        if self.array(array).inputs.iter().any(|input| input.is_per_task()) {
            for index in 0..self.array(array).len() {
                let unmet = self.count_unmet(array, index);
                self.task_mut(array, index).unmet = unmet;
            }
        }
        self.release_waiting(array);
    }

    /// Makes ready every waiting task of an array that misses nothing.
    fn release_waiting(&mut self, array: u32) {
        let owner = self.array_mut(array);
        if owner.closed_gates > 0 || owner.is_upload() {
            return;
        }
        let free = |task: &Task| task.state == State::Waiting && task.unmet == 0;
        let indexes: Vec<u32> =
            (0_u32..).zip(&owner.tasks).filter(|(_, task)| free(task)).map(|(index, _)| index).collect();
        for (first, count) in runs(&indexes) {
            owner.ready.insert(first, first + count);
            owner.tasks.shift(State::Waiting, State::Ready, count);
            for task in &mut owner.tasks[first as usize..(first + count) as usize] {
                task.state = State::Ready;
            }
        }
        self.mark_dirty(array);
    }

    /// Whether a task that waits for nothing else could run now.
    fn may_run(&self, array: u32, index: u32) -> bool {
        let owner = self.array(array);
        owner.closed_gates == 0 && owner.tasks[index as usize].unmet == 0 && !owner.is_upload()
    }

    /// Puts an unfinished task where its dependencies want it.
    pub(crate) fn settle(&mut self, array: u32, index: u32) {
        let state = if self.may_run(array, index) { State::Ready } else { State::Waiting };
        self.set_state(array, index, state);
    }

    /// Lets an unfinished task wait for a point in time.
    pub(crate) fn delay(&mut self, array: u32, index: u32) {
        self.set_state(array, index, State::Delayed);
    }

    /// Hands ascending ready tasks to a frame; returns the numbers of their attempts, which are above `floor`.
    pub(crate) fn assign(&mut self, array: u32, indexes: &[u32], slot: u32, floor: u32) -> Vec<AttemptNumber> {
        let owner = self.array_mut(array);
        owner.ready.remove_ascending(indexes);
        let count = u32::try_from(indexes.len()).unwrap_or(u32::MAX);
        owner.tasks.shift(State::Ready, State::Assigned, count);
        let mut attempts = Vec::with_capacity(indexes.len());
        for index in indexes {
            let task = &mut owner.tasks[*index as usize];
            task.state = State::Assigned;
            task.attempt = next_number(task.attempt, floor);
            task.set_frame(slot);
            attempts.extend(AttemptNumber::from_wire(task.attempt));
        }
        self.mark_dirty(array);
        attempts
    }

    /// Takes attempts over that a host goes on with, and that were handed out before a restart.
    pub(crate) fn readmit(&mut self, array: u32, attempts: &[(u32, AttemptNumber)], slot: u32) {
        for (index, number) in attempts {
            self.set_state(array, *index, State::Assigned);
            let task = self.task_mut(array, *index);
            task.attempt = number.0.get();
            task.set_frame(slot);
        }
    }

    /// An attempt of an unfinished task succeeded. The place of the outputs is set by the caller. What else runs of the task
    /// goes to `stopped`.
    pub(crate) fn succeed(
        &mut self,
        array: u32,
        index: u32,
        attempt: AttemptNumber,
        infos: &[OutputInfo],
        stopped: &mut Vec<Stopped>,
    ) {
        stopped.extend(self.to_stop(array, index));
        self.set_state(array, index, State::Succeeded);
        let task = self.task_mut(array, index);
        task.count_attempt(attempt.0.get());
        task.set_place(Place::Nowhere);
        self.array_mut(array).set_outputs(index, infos);
        self.readers_gain(array, index);
        if self.array(array).all_succeeded() {
            for consumer in self.gated_consumers(array) {
                self.array_mut(consumer).closed_gates -= 1;
                self.release_waiting(consumer);
            }
        }
    }

    fn readers_gain(&mut self, array: u32, index: u32) {
        let readers = self.take_readers(array, index);
        for (reader_array, reader) in readers.iter().copied() {
            let task = self.task_mut(reader_array, reader);
            if task.state.is_final() {
                continue;
            }
            task.unmet -= 1;
            if task.unmet == 0 && task.state == State::Waiting {
                self.settle(reader_array, reader);
            }
        }
        self.scratch = readers;
    }

    fn readers_miss(&mut self, array: u32, index: u32) {
        let readers = self.take_readers(array, index);
        for (reader_array, reader) in readers.iter().copied() {
            let task = self.task_mut(reader_array, reader);
            if task.state.is_final() {
                continue;
            }
            task.unmet += 1;
            if task.state == State::Ready {
                self.set_state(reader_array, reader, State::Waiting);
            }
        }
        self.scratch = readers;
    }

    /// The tasks that read this one by edges of their own, in a buffer that is used again and again.
    fn take_readers(&mut self, array: u32, index: u32) -> Vec<(u32, u32)> {
        let mut readers = std::mem::take(&mut self.scratch);
        readers.clear();
        let _ = self.each_reader(array, index, &mut |reader_array, reader| {
            readers.push((reader_array, reader));
            ControlFlow::Continue(())
        });
        readers
    }

    /// The outputs of a succeeded task are gone and wanted: it has to run again.
    pub(crate) fn lose(&mut self, array: u32, index: u32) {
        let was_complete = self.array(array).all_succeeded();
        let unmet = self.count_unmet(array, index);
        let latest = self.task(array, index).latest();
        self.set_state(array, index, State::Waiting);
        let task = self.task_mut(array, index);
        (task.attempt, task.unmet, task.again) = (latest, unmet, true);
        self.readers_miss(array, index);
        if was_complete {
            for consumer in self.gated_consumers(array) {
                self.close_gate(consumer);
            }
        }
    }

    fn close_gate(&mut self, array: u32) {
        let owner = self.array_mut(array);
        owner.closed_gates += 1;
        let ready = std::mem::take(&mut owner.ready);
        owner.tasks.shift(State::Ready, State::Waiting, ready.len());
        for (start, end) in ready.ranges() {
            for task in &mut owner.tasks[start as usize..end as usize] {
                task.state = State::Waiting;
            }
        }
        self.mark_dirty(array);
    }

    /// Ends an unfinished task without outputs. What runs of it goes to `stopped`.
    pub(crate) fn finish(&mut self, array: u32, index: u32, state: State, stopped: &mut Vec<Stopped>) {
        debug_assert!(state.is_final() && state != State::Succeeded);
        stopped.extend(self.to_stop(array, index));
        self.set_state(array, index, state);
    }

    /// Every unfinished task that depends on the given one, in the order of arrays.
    pub(crate) fn unfinished_dependents(&self, array: u32, index: u32) -> Vec<(u32, u32)> {
        let mut found = BTreeSet::new();
        let mut whole = BTreeSet::new();
        let mut open = vec![(array, index)];
        while let Some((array, index)) = open.pop() {
            for consumer in self.gated_consumers(array) {
                if whole.insert(consumer) {
                    let all = (0..self.array(consumer).len()).map(|index| (consumer, index));
                    open.extend(
                        all.filter(|(array, index)| self.is_unfinished(*array, *index)).filter(|id| found.insert(*id)),
                    );
                }
            }
            let _ = self.each_reader(array, index, &mut |reader_array, reader| {
                if self.is_unfinished(reader_array, reader) && found.insert((reader_array, reader)) {
                    open.push((reader_array, reader));
                }
                ControlFlow::Continue(())
            });
        }
        found.into_iter().collect()
    }

    /// Every unfinished task, array by array.
    pub(crate) fn unfinished_tasks(&self) -> Vec<(u32, u32)> {
        let mut found = Vec::new();
        for (position, array) in (0_u32..).zip(&self.arrays) {
            if array.unfinished() > 0 {
                let tasks = (0_u32..).zip(&array.tasks).filter(|(_, task)| !task.state.is_final());
                found.extend(tasks.map(|(index, _)| (position, index)));
            }
        }
        found
    }

    fn is_unfinished(&self, array: u32, index: u32) -> bool {
        !self.task(array, index).state.is_final()
    }
}
