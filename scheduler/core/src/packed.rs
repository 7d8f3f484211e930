//! A list of lists in two blocks of memory, for what is given task by task and never changes.
//!
//! A vector of vectors costs a header and an allocation for each, which for short arguments is more than what they say.

/// Lists, one after the other. There is at least one, maybe empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Packed<T> {
    items: Box<[T]>,
    /// Where each list ends, but for the last.
    borders: Box<[usize]>,
}

impl<T: Copy> Packed<T> {
    pub(crate) fn new<L: AsRef<[T]>>(lists: &[L]) -> Self {
        let mut items = Vec::with_capacity(lists.iter().map(|list| list.as_ref().len()).sum());
        let mut borders = Vec::with_capacity(lists.len().saturating_sub(1));
        for (position, list) in lists.iter().enumerate() {
            if position > 0 {
                borders.push(items.len());
            }
            items.extend_from_slice(list.as_ref());
        }
        Self { items: items.into_boxed_slice(), borders: borders.into_boxed_slice() }
    }

    /// The list at a position; empty if there is none.
    pub(crate) fn get(&self, position: usize) -> &[T] {
        let start = position.checked_sub(1).map_or(Some(0), |before| self.borders.get(before).copied());
        let end = self.borders.get(position).copied().unwrap_or(self.items.len());
        start.and_then(|start| self.items.get(start..end)).unwrap_or(&[])
    }

    /// All items, list after list.
    pub(crate) fn items(&self) -> &[T] {
        &self.items
    }

    /// The position of the list that an item is in.
    pub(crate) fn list_of(&self, item: usize) -> usize {
        self.borders.partition_point(|border| *border <= item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_come_back_as_they_were() {
        for lists in [vec![vec![1]], vec![vec![]], vec![vec![1, 2], vec![], vec![3], vec![]], vec![vec![], vec![4]]] {
            let packed = Packed::new(&lists);
            let mut item = 0;
            for (position, list) in lists.iter().enumerate() {
                assert_eq!(packed.get(position), list.as_slice());
                for _ in list {
                    assert_eq!(packed.list_of(item), position);
                    item += 1;
                }
            }
            assert!(packed.get(lists.len()).is_empty());
            assert_eq!(packed.items().len(), item);
        }
    }
}
