//! A `list` edge, to be followed both ways: what a task reads, and who reads a task.

use partita_types::{ArrayIndex, OutputRef};

use crate::packed::Packed;

/// What each task of an array reads by a `list` edge.
#[derive(Debug)]
pub(crate) struct Lists {
    reads: Packed<OutputRef>,
    /// The positions of the reads in the order of what is read; empty if that is the order in which they stand anyhow.
    order: Box<[usize]>,
}

fn key(read: &OutputRef) -> (ArrayIndex, u32) {
    (read.array, read.index)
}

impl Lists {
    pub(crate) fn new(tasks: &[Vec<OutputRef>]) -> Self {
        let reads = Packed::new(tasks);
        let mut order: Vec<usize> = Vec::new();
        if !reads.items().is_sorted_by_key(key) {
            order.extend(0..reads.items().len());
            // Stable: of those that read the same, the first reader stays the first.
            order.sort_by_key(|position| key(&reads.items()[*position]));
        }
        Self { reads, order: order.into_boxed_slice() }
    }

    /// What a task reads.
    pub(crate) fn reads_of(&self, index: u32) -> &[OutputRef] {
        self.reads.get(index as usize)
    }

    /// The arrays that are read, ascending, with repetitions.
    pub(crate) fn sources(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.reads.items().len()).map(|rank| self.reads.items()[self.position(rank)].array.0)
    }

    /// The tasks that read a task, ascending, as often as they do.
    pub(crate) fn readers(&self, array: u32, index: u32) -> impl ExactSizeIterator<Item = u32> + '_ {
        let wanted = (ArrayIndex(array), index);
        let first = self.ranks_with(|found| found < wanted);
        let end = self.ranks_with(|found| found <= wanted);
        (first..end).map(|rank| u32::try_from(self.reads.list_of(self.position(rank))).unwrap_or(u32::MAX))
    }

    /// Where the read that is at a place in the order stands.
    fn position(&self, rank: usize) -> usize {
        self.order.get(rank).copied().unwrap_or(rank)
    }

    /// How many reads, in their order, satisfy what the first ones do and the others do not.
    fn ranks_with(&self, holds: impl Fn((ArrayIndex, u32)) -> bool) -> usize {
        let reads = self.reads.items();
        match self.order.is_empty() {
            true => reads.partition_point(|read| holds(key(read))),
            false => self.order.partition_point(|position| holds(key(&reads[*position]))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(tasks: &[&[(u32, u32)]]) -> Lists {
        let read = |(array, index): &(u32, u32)| OutputRef { array: ArrayIndex(*array), index: *index, output: 0 };
        Lists::new(&tasks.iter().map(|list| list.iter().map(read).collect()).collect::<Vec<_>>())
    }

    /// The same, worked out in the simplest way.
    fn expect(tasks: &[&[(u32, u32)]]) {
        let lists = lists(tasks);
        for array in 0..4 {
            for index in 0..4 {
                let reads = |list: &&[(u32, u32)]| list.iter().filter(|read| **read == (array, index)).count();
                let readers = (0_u32..).zip(tasks).flat_map(|(reader, list)| (0..reads(list)).map(move |_| reader));
                assert_eq!(lists.readers(array, index).collect::<Vec<_>>(), readers.collect::<Vec<_>>());
            }
        }
        let mut sources: Vec<u32> = tasks.iter().flat_map(|list| list.iter().map(|(array, _)| *array)).collect();
        sources.sort_unstable();
        assert_eq!(lists.sources().collect::<Vec<_>>(), sources);
    }

    #[test]
    fn readers_are_found_whatever_the_order_of_the_reads() {
        expect(&[&[(0, 0)]]);
        expect(&[&[(0, 0), (0, 1)], &[(0, 1), (2, 3)]]);
        expect(&[&[(2, 3), (0, 1), (0, 1)], &[], &[(0, 1), (1, 0)], &[(0, 0), (2, 3)]]);
        assert_eq!(lists(&[&[(2, 1)], &[(0, 3), (1, 1)]]).reads_of(1).len(), 2);
        assert!(lists(&[&[(0, 0)]]).order.is_empty());
    }
}
