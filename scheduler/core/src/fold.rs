//! The shape of a fold: which task of the tree reads what. Pure arithmetic.
//!
//! The tasks of a fold are numbered level by level. Those of level 0 merge the outputs of the source, those of each
//! later level the outputs of the level before; the last task is the root.

use std::ops::Range;

/// A tree that merges `leaves` inputs, `arity` at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoldShape {
    leaves: u32,
    arity: u32,
    /// The position of the first task of each level, and the number of all tasks at the end.
    levels: Vec<u32>,
}

/// What a task of a fold reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FoldInputs {
    /// Tasks of the source array.
    Source(Range<u32>),
    /// Earlier tasks of the fold itself.
    Own(Range<u32>),
}

impl FoldShape {
    /// The tree over `leaves` inputs, at least one, with an `arity` of at least 2.
    pub(crate) fn new(leaves: u32, arity: u32) -> Self {
        debug_assert!(leaves > 0 && arity > 1);
        let mut levels = vec![0];
        let mut width = leaves;
        let mut tasks = 0_u32;
        loop {
            width = width.div_ceil(arity);
            // Below twice the number of leaves, which is below 2^23.
            tasks += width;
            levels.push(tasks);
            if width == 1 {
                return Self { leaves, arity, levels };
            }
        }
    }

    /// How many tasks the tree has.
    pub(crate) fn tasks(&self) -> u32 {
        self.levels.last().copied().unwrap_or(0)
    }

    /// What a task reads.
    pub(crate) fn inputs(&self, task: u32) -> FoldInputs {
        let level = self.levels.partition_point(|first| *first <= task) - 1;
        let within = task - self.levels[level];
        let (base, width) = match level.checked_sub(1) {
            None => (0, self.leaves),
            Some(before) => (self.levels[before], self.levels[level] - self.levels[before]),
        };
        let first = within * self.arity;
        let range = base + first..base + (first + self.arity).min(width);
        if level == 0 { FoldInputs::Source(range) } else { FoldInputs::Own(range) }
    }

    /// The task that reads a task of the source.
    pub(crate) fn reader_of_source(&self, leaf: u32) -> u32 {
        leaf / self.arity
    }

    /// The task that reads a task of the fold; none reads the root.
    pub(crate) fn reader_of_own(&self, task: u32) -> Option<u32> {
        let level = self.levels.partition_point(|first| *first <= task) - 1;
        let next = *self.levels.get(level + 1)?;
        (next < self.tasks()).then(|| next + (task - self.levels[level]) / self.arity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_inputs_by_threes_make_seven_tasks() {
        let shape = FoldShape::new(10, 3);
        assert_eq!(shape.tasks(), 4 + 2 + 1);
        assert_eq!(shape.inputs(0), FoldInputs::Source(0..3));
        assert_eq!(shape.inputs(3), FoldInputs::Source(9..10));
        assert_eq!(shape.inputs(4), FoldInputs::Own(0..3));
        assert_eq!(shape.inputs(5), FoldInputs::Own(3..4));
        assert_eq!(shape.inputs(6), FoldInputs::Own(4..6));
    }

    #[test]
    fn one_input_still_makes_one_task() {
        let shape = FoldShape::new(1, 2);
        assert_eq!(shape.tasks(), 1);
        assert_eq!(shape.inputs(0), FoldInputs::Source(0..1));
        assert_eq!(shape.reader_of_own(0), None);
    }

    #[test]
    fn everything_but_the_root_is_read_exactly_once_by_its_reader() {
        for leaves in 1..70 {
            for arity in 2..9 {
                let shape = FoldShape::new(leaves, arity);
                let (mut source, mut own) = (vec![0; leaves as usize], vec![0; shape.tasks() as usize]);
                for task in 0..shape.tasks() {
                    match shape.inputs(task) {
                        FoldInputs::Source(range) => range.for_each(|leaf| {
                            source[leaf as usize] += 1;
                            assert_eq!(shape.reader_of_source(leaf), task);
                        }),
                        FoldInputs::Own(range) => range.for_each(|child| {
                            own[child as usize] += 1;
                            assert!(child < task);
                            assert_eq!(shape.reader_of_own(child), Some(task));
                        }),
                    }
                }
                let root = own.pop();
                assert_eq!(root, Some(0), "leaves {leaves}, arity {arity}");
                assert!(source.iter().chain(&own).all(|reads| *reads == 1), "leaves {leaves}, arity {arity}");
            }
        }
    }

    #[test]
    fn the_largest_fold_does_not_overflow() {
        let shape = FoldShape::new(partita_types::MAX_TASKS_PER_ARRAY, 2);
        let root = shape.tasks() - 1;
        assert!(matches!(shape.inputs(root), FoldInputs::Own(range) if range.end == root));
    }
}
