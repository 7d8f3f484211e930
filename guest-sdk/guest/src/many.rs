//! Input groups of any number of partitions.

use std::iter::FusedIterator;
use std::vec;

use crate::host::Source;
use crate::{Context as _, FromInput, Reader, Result};

/// All partitions of an input group, one after the other: an iterator of `Result<X>`.
///
/// Each partition is read when it is asked for, so only one has to fit in memory. `X` can be anything that is an input
/// by itself: `Text`, `Bytes`, `Json<T>`, `Postcard<T>`, `Reader`, or a form of your own.
///
/// ```
/// # extern crate partita_guest as partita;
/// use partita::prelude::*;
///
/// /// Adds numbers up.
/// #[partita::task]
/// fn sum(numbers: Many<Json<u64>>) -> Result<Json<u64>> {
///     let mut sum = 0;
///     for number in numbers {
///         sum += number?.0;
///     }
///     Ok(Json(sum))
/// }
///
/// assert_eq!(sum(Many::from(vec![Json(1), Json(2)])).unwrap().0, 3);
/// ```
pub struct Many<X>(Parts<X>);

enum Parts<X> {
    /// Still at the host.
    Stored { sources: vec::IntoIter<Source>, total: usize },
    /// Made in the program itself.
    Ready(vec::IntoIter<X>),
}

impl<X> Many<X> {
    pub(crate) fn stored(sources: Vec<Source>) -> Self {
        let total = sources.len();
        Self(Parts::Stored { sources: sources.into_iter(), total })
    }
}

impl<X> From<Vec<X>> for Many<X> {
    fn from(values: Vec<X>) -> Self {
        Self(Parts::Ready(values.into_iter()))
    }
}

impl<X> FromIterator<X> for Many<X> {
    fn from_iter<I: IntoIterator<Item = X>>(values: I) -> Self {
        Self::from(values.into_iter().collect::<Vec<X>>())
    }
}

impl<X: FromInput> Iterator for Many<X> {
    type Item = Result<X>;

    fn next(&mut self) -> Option<Result<X>> {
        match &mut self.0 {
            Parts::Ready(values) => values.next().map(Ok),
            Parts::Stored { sources, total } => {
                let source = sources.next()?;
                let (number, total) = (*total - sources.len(), *total);
                Some(X::from_input(Reader::new(source)).with_context(|| format!("partition {number} of {total}")))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = match &self.0 {
            Parts::Ready(values) => values.len(),
            Parts::Stored { sources, .. } => sources.len(),
        };
        (left, Some(left))
    }
}

impl<X: FromInput> ExactSizeIterator for Many<X> {}
impl<X: FromInput> FusedIterator for Many<X> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Text, host::memory::Memory};

    #[test]
    fn partitions_are_decoded_one_by_one_and_named_when_bad() {
        let sources = [&b"one"[..], b"\xff", b"three"].map(|bytes| Memory::source(bytes.to_vec()));
        let mut many = Many::<Text>::stored(sources.to_vec());
        assert_eq!(many.len(), 3);
        assert_eq!(many.next().unwrap().unwrap(), Text::from("one"));
        assert!(many.next().unwrap().unwrap_err().to_string().starts_with("partition 2 of 3: not UTF-8"));
        assert_eq!(many.len(), 1);
        assert_eq!(many.next().unwrap().unwrap(), Text::from("three"));
        assert!(many.next().is_none());
    }
}
