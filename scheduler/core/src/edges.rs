//! Who reads what: the edge patterns of a job, followed in both directions without ever being written out.

use std::ops::ControlFlow;

use crate::array::Input;
use crate::fold::FoldInputs;
use crate::job::Job;
use crate::task::State;

/// One input of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Read {
    /// The position of the edge.
    pub(crate) group: u32,
    /// The array read from.
    pub(crate) array: u32,
    /// The task read from.
    pub(crate) index: u32,
    /// Which output of it.
    pub(crate) output: u32,
}

impl Job {
    /// Calls `visit` for each partition that a task reads, edge by edge, in the order in which the function gets them.
    pub(crate) fn each_read(&self, array: u32, index: u32, visit: &mut dyn FnMut(Read)) {
        for group in (0_u32..).take(self.array(array).inputs.len()) {
            self.each_read_of_group(array, index, group, visit);
        }
    }

    /// As [`Job::each_read`], without the edges that give every task the outputs of a whole array.
    pub(crate) fn each_own_read(&self, array: u32, index: u32, visit: &mut dyn FnMut(Read)) {
        for (group, input) in (0_u32..).zip(&self.array(array).inputs) {
            if input.is_per_task() {
                self.each_read_of_group(array, index, group, visit);
            }
        }
    }

    /// The partitions that the edge at `group` gives to a task.
    pub(crate) fn each_read_of_group(&self, array: u32, index: u32, group: u32, visit: &mut dyn FnMut(Read)) {
        let owner = self.array(array);
        match &owner.inputs[group as usize] {
            Input::Each { source, output } => visit(Read { group, array: *source, index, output: *output }),
            Input::All { source, output } => {
                (0..self.array(*source).len())
                    .for_each(|task| visit(Read { group, array: *source, index: task, output: *output }));
            }
            Input::Slice { source } => {
                (0..self.array(*source).len())
                    .for_each(|task| visit(Read { group, array: *source, index: task, output: index }));
            }
            Input::Fold { source, shape } => {
                let (from, range) = match shape.inputs(index) {
                    FoldInputs::Source(range) => (*source, range),
                    FoldInputs::Own(range) => (array, range),
                };
                range.for_each(|task| visit(Read { group, array: from, index: task, output: 0 }));
            }
            Input::List(lists) => {
                for from in lists.reads_of(index) {
                    visit(Read { group, array: from.array.0, index: from.index, output: from.output });
                }
            }
            Input::Dataset(_) | Input::Literal(_) | Input::PerTaskLiteral(_) => {}
        }
    }

    /// Inputs of its own that a task still waits for.
    pub(crate) fn count_unmet(&self, array: u32, index: u32) -> u32 {
        let mut unmet = 0;
        self.each_own_read(array, index, &mut |read| {
            unmet += u32::from(self.task(read.array, read.index).state != State::Succeeded);
        });
        unmet
    }

    /// Edges of an array that wait for a whole array.
    pub(crate) fn count_closed_gates(&self, array: u32) -> u32 {
        let gates = self.array(array).inputs.iter().filter_map(Input::gate);
        gates.map(|source| u32::from(!self.array(source).all_succeeded())).sum()
    }

    /// Calls `visit` with each task that reads a task by an edge of its own, as often as it reads it, until told to stop.
    pub(crate) fn each_reader(
        &self,
        array: u32,
        index: u32,
        visit: &mut dyn FnMut(u32, u32) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        for consumer in &self.array(array).consumers {
            match &self.array(consumer.array).inputs[consumer.input as usize] {
                Input::Each { .. } => visit(consumer.array, index)?,
                Input::Fold { .. } if consumer.array == array => {
                    if let Some(reader) = self.fold_reader(array, index, consumer.input) {
                        visit(array, reader)?;
                    }
                }
                Input::Fold { shape, .. } => visit(consumer.array, shape.reader_of_source(index))?,
                Input::List(lists) => {
                    for reader in lists.readers(array, index) {
                        visit(consumer.array, reader)?;
                    }
                }
                Input::All { .. }
                | Input::Slice { .. }
                | Input::Dataset(_)
                | Input::Literal(_)
                | Input::PerTaskLiteral(_) => {}
            }
        }
        ControlFlow::Continue(())
    }

    fn fold_reader(&self, array: u32, index: u32, input: u32) -> Option<u32> {
        match &self.array(array).inputs[input as usize] {
            Input::Fold { shape, .. } => shape.reader_of_own(index),
            Input::Each { .. }
            | Input::All { .. }
            | Input::Slice { .. }
            | Input::List { .. }
            | Input::Dataset(_)
            | Input::Literal(_)
            | Input::PerTaskLiteral(_) => None,
        }
    }

    /// The arrays that read all of `array` at once, as often as they do.
    pub(crate) fn gated_consumers(&self, array: u32) -> Vec<u32> {
        let gated = |consumer: &&crate::array::Consumer| {
            self.array(consumer.array).inputs[consumer.input as usize].gate() == Some(array)
        };
        self.array(array).consumers.iter().filter(gated).map(|consumer| consumer.array).collect()
    }

    /// Whether a task that has not ended reads this one.
    pub(crate) fn is_needed(&self, array: u32, index: u32) -> bool {
        let unfinished = |reader_array: u32, reader: u32| {
            if self.task(reader_array, reader).state.is_final() {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        };
        self.gated_consumers(array).into_iter().any(|consumer| self.array(consumer).unfinished() > 0)
            || self.each_reader(array, index, &mut { unfinished }).is_break()
    }
}
