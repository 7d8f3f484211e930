//! Sets of task positions, kept as ranges: a hundred thousand ready tasks in a row cost one entry.
//!
//! Pure data structure; it knows nothing of tasks.

use std::collections::BTreeMap;
use std::fmt;

/// A set of positions as disjoint ranges that do not touch each other. Most sets are one range at most; such a set has no
/// memory beside its own.
#[derive(Clone)]
pub(crate) enum RangeSet {
    /// First position and the one behind the last; the same two if it is empty.
    One(u32, u32),
    Many(Box<Tree>),
}

/// More ranges than one, until none is left.
#[derive(Clone, Default)]
pub(crate) struct Tree {
    /// First position to the position behind the last.
    ranges: BTreeMap<u32, u32>,
    count: u32,
}

impl Default for RangeSet {
    fn default() -> Self {
        Self::One(0, 0)
    }
}

impl fmt::Debug for RangeSet {
    /// The ranges: how they are kept does not show.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ranges()).finish()
    }
}

impl RangeSet {
    pub(crate) fn len(&self) -> u32 {
        match self {
            Self::One(start, end) => end - start,
            Self::Many(tree) => tree.count,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ranges in order, as first position and the one behind the last.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let (one, tree) = self.parts();
        one.into_iter().chain(tree.into_iter().flat_map(|tree| tree.ranges.iter().map(|(start, end)| (*start, *end))))
    }

    /// The positions from `first` on, in order.
    pub(crate) fn positions_from(&self, first: u32) -> impl Iterator<Item = u32> + '_ {
        let (one, tree) = self.parts();
        let one = one.map_or(0..0, |(start, end)| start.max(first)..end);
        one.chain(tree.into_iter().flat_map(move |tree| tree.positions_from(first)))
    }

    fn parts(&self) -> (Option<(u32, u32)>, Option<&Tree>) {
        match self {
            Self::One(start, end) => ((start < end).then_some((*start, *end)), None),
            Self::Many(tree) => (None, Some(tree)),
        }
    }

    #[cfg(test)]
    fn contains(&self, position: u32) -> bool {
        self.ranges().any(|(start, end)| (start..end).contains(&position))
    }

    /// Adds positions of which none is in the set.
    pub(crate) fn insert(&mut self, start: u32, end: u32) {
        debug_assert!(start < end);
        match self {
            Self::One(first, last) if first == last => (*first, *last) = (start, end),
            Self::One(_, last) if *last == start => *last = end,
            Self::One(first, _) if *first == end => *first = start,
            Self::One(first, last) => {
                let mut tree = Tree::of(*first, *last);
                tree.insert(start, end);
                *self = Self::Many(Box::new(tree));
            }
            Self::Many(tree) => tree.insert(start, end),
        }
    }

    /// Takes one position out, if it is in the set.
    pub(crate) fn remove(&mut self, position: u32) {
        self.remove_run(position, position + 1);
    }

    /// Takes out the part of `start..end` that lies in the range around `start`; returns how much that was.
    fn remove_run(&mut self, start: u32, end: u32) -> u32 {
        match self {
            Self::One(first, last) if start < *first || start >= *last => 0,
            Self::One(first, last) if start == *first => {
                let removed = end.min(*last) - start;
                *first += removed;
                removed
            }
            Self::One(_, last) if end >= *last => {
                let removed = *last - start;
                *last = start;
                removed
            }
            Self::One(first, last) => {
                let mut tree = Tree::of(*first, *last);
                let removed = tree.remove_run(start, end);
                *self = Self::Many(Box::new(tree));
                removed
            }
            Self::Many(tree) => {
                let removed = tree.remove_run(start, end);
                if tree.count == 0 {
                    *self = Self::default();
                }
                removed
            }
        }
    }

    /// Takes out ascending positions that are all in the set. Costs one step per run, not per position.
    pub(crate) fn remove_ascending(&mut self, positions: &[u32]) {
        for (first, count) in runs(positions) {
            let removed = self.remove_run(first, first + count);
            debug_assert_eq!(removed, count, "positions from {first} on are not in the set");
        }
    }
}

impl Tree {
    fn of(start: u32, end: u32) -> Self {
        Self { ranges: BTreeMap::from([(start, end)]), count: end - start }
    }

    fn positions_from(&self, first: u32) -> impl Iterator<Item = u32> + '_ {
        let before = self.ranges.range(..first).next_back().map(|(_, end)| first..*end);
        before.unwrap_or(0..0).chain(self.ranges.range(first..).flat_map(|(start, end)| *start..*end))
    }

    fn range_around(&self, position: u32) -> Option<(u32, u32)> {
        let (start, end) = self.ranges.range(..=position).next_back()?;
        (position < *end).then_some((*start, *end))
    }

    fn insert(&mut self, start: u32, end: u32) {
        let mut merged = (start, end);
        if let Some((before, until)) = self.ranges.range(..start).next_back().map(|(a, b)| (*a, *b)) {
            debug_assert!(until <= start, "position {start} is in the set already");
            if until == start {
                merged.0 = before;
            }
        }
        if let Some(behind) = self.ranges.remove(&end) {
            merged.1 = behind;
        }
        self.ranges.insert(merged.0, merged.1);
        self.count += end - start;
    }

    fn remove_run(&mut self, start: u32, end: u32) -> u32 {
        let Some((first, behind)) = self.range_around(start) else { return 0 };
        let end = end.min(behind);
        if first < start {
            self.ranges.insert(first, start);
        } else {
            self.ranges.remove(&first);
        }
        if end < behind {
            self.ranges.insert(end, behind);
        }
        self.count -= end - start;
        end - start
    }
}

/// Groups ascending positions into ranges of first and count.
pub(crate) fn runs(positions: &[u32]) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &position in positions {
        match runs.last_mut() {
            Some((first, count)) if u64::from(*first) + u64::from(*count) == u64::from(position) => *count += 1,
            _ => runs.push((position, 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[(u32, u32)]) -> RangeSet {
        let mut set = RangeSet::default();
        for (start, end) in ranges {
            set.insert(*start, *end);
        }
        set
    }

    #[test]
    fn neighbours_merge_on_both_sides() {
        let merged = set(&[(0, 3), (5, 9), (3, 5)]);
        assert_eq!(merged.ranges().collect::<Vec<_>>(), [(0, 9)]);
        assert_eq!(merged.len(), 9);
    }

    #[test]
    fn removal_in_the_middle_splits_a_range() {
        let mut split = set(&[(0, 10)]);
        split.remove(4);
        split.remove(4);
        assert_eq!(split.ranges().collect::<Vec<_>>(), [(0, 4), (5, 10)]);
        assert_eq!(split.len(), 9);
        assert!(!split.contains(4) && split.contains(5));
    }

    #[test]
    fn ascending_positions_go_in_whole_runs() {
        let mut left = set(&[(0, 10), (20, 30)]);
        left.remove_ascending(&[0, 1, 2, 9, 20, 21, 29]);
        assert_eq!(left.ranges().collect::<Vec<_>>(), [(3, 9), (22, 29)]);
        assert_eq!(left.len(), 13);
    }

    #[test]
    fn positions_start_inside_a_range() {
        let ranges = set(&[(0, 4), (6, 8)]);
        assert_eq!(ranges.positions_from(2).collect::<Vec<_>>(), [2, 3, 6, 7]);
        assert_eq!(ranges.positions_from(4).collect::<Vec<_>>(), [6, 7]);
        assert_eq!(ranges.positions_from(8).count(), 0);
    }

    #[test]
    fn runs_cover_exactly_the_positions() {
        assert_eq!(runs(&[1, 2, 3, 7, 9, 10]), [(1, 3), (7, 1), (9, 2)]);
        assert!(runs(&[]).is_empty());
    }
}
