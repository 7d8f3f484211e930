//! A list that mostly holds nothing or one thing, and then takes no memory beside its own.
//!
//! Very many arrays have one task, one input and one reader: a vector for each of these would cost them more than what is
//! in it. Pure data structure.

use std::fmt;
use std::ops::{Deref, DerefMut};

/// A list of few things.
#[derive(Clone, Default)]
pub(crate) enum Few<T> {
    #[default]
    None,
    One(T),
    #[expect(clippy::box_collection, reason = "so that the lists that hold less are as small as that")]
    Many(Box<Vec<T>>),
}

impl<T> Few<T> {
    pub(crate) fn push(&mut self, value: T) {
        self.insert(self.len(), value);
    }

    /// Puts something in before what is at a position now.
    pub(crate) fn insert(&mut self, at: usize, value: T) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(value),
            Self::One(first) => {
                let mut many = vec![first];
                many.insert(at, value);
                Self::Many(Box::new(many))
            }
            Self::Many(mut many) => {
                many.insert(at, value);
                Self::Many(many)
            }
        };
    }

    /// Takes out what is at a position that exists.
    pub(crate) fn remove(&mut self, at: usize) {
        match self {
            Self::Many(many) if many.len() > 1 => drop(many.remove(at)),
            Self::None | Self::One(_) | Self::Many(_) => *self = Self::None,
        }
    }
}

impl<T> From<Vec<T>> for Few<T> {
    fn from(mut many: Vec<T>) -> Self {
        if many.len() > 1 {
            many.shrink_to_fit();
            return Self::Many(Box::new(many));
        }
        many.pop().map_or(Self::None, Self::One)
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

impl<T> DerefMut for Few<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Self::None => &mut [],
            Self::One(one) => std::slice::from_mut(one),
            Self::Many(many) => many,
        }
    }
}

impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: fmt::Debug> fmt::Debug for Few<T> {
    /// As the list that it is: how it is kept does not show.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_list_of_what_was_put_in() {
        let mut few = Few::default();
        assert!(few.is_empty());
        for (at, value) in [(0, 'b'), (0, 'a'), (2, 'd'), (2, 'c')] {
            few.insert(at, value);
        }
        few.push('e');
        assert_eq!(*few, ['a', 'b', 'c', 'd', 'e']);
        few[1] = 'x';
        few.remove(0);
        assert_eq!(*few, ['x', 'c', 'd', 'e']);
        (0..4).for_each(|_| few.remove(0));
        assert!(few.is_empty());
        few.push('z');
        few.remove(0);
        assert!(few.is_empty());
    }

    #[test]
    fn a_short_vector_keeps_no_memory_beside_it() {
        assert!(matches!(Few::<u8>::from(Vec::with_capacity(9)), Few::None));
        assert!(matches!(Few::from(vec![1]), Few::One(1)));
        assert!(matches!(Few::from(vec![1, 2]), Few::Many(_)));
    }
}
