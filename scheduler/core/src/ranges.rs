//! Sets of task positions, kept as ranges: a hundred thousand ready tasks in a row cost one entry.
//!
//! Pure data structure; it knows nothing of tasks.

use std::collections::BTreeMap;

/// A set of positions as disjoint ranges that do not touch each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RangeSet {
    /// First position to the position behind the last.
    ranges: BTreeMap<u32, u32>,
    count: u32,
}

impl RangeSet {
    pub(crate) fn len(&self) -> u32 {
        self.count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The ranges in order, as first position and the one behind the last.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.ranges.iter().map(|(start, end)| (*start, *end))
    }

    /// The positions from `first` on, in order.
    pub(crate) fn positions_from(&self, first: u32) -> impl Iterator<Item = u32> + '_ {
        let before = self.ranges.range(..first).next_back().map(|(_, end)| first..*end);
        before.unwrap_or(0..0).chain(self.ranges.range(first..).flat_map(|(start, end)| *start..*end))
    }

    #[cfg(test)]
    fn contains(&self, position: u32) -> bool {
        self.range_around(position).is_some()
    }

    fn range_around(&self, position: u32) -> Option<(u32, u32)> {
        let (start, end) = self.ranges.range(..=position).next_back()?;
        (position < *end).then_some((*start, *end))
    }

    /// Adds positions of which none is in the set.
    pub(crate) fn insert(&mut self, start: u32, end: u32) {
        debug_assert!(start < end);
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

    /// Takes one position out, if it is in the set.
    pub(crate) fn remove(&mut self, position: u32) {
        self.remove_run(position, position + 1);
    }

    /// Takes out the part of `start..end` that lies in the range around `start`; returns how much that was.
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

    /// Takes out ascending positions that are all in the set. Costs one step per run, not per position.
    pub(crate) fn remove_ascending(&mut self, positions: &[u32]) {
        for (first, count) in runs(positions) {
            let removed = self.remove_run(first, first + count);
            debug_assert_eq!(removed, count, "positions from {first} on are not in the set");
        }
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
