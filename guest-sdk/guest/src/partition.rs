//! Several outputs: which key belongs to which, and a value for each.

use std::ops::{Index, IndexMut};
use std::{slice, vec};

/// The output, below `outputs`, that `key` belongs to.
///
/// The same on every platform and in every version, so modules that were built at different times can take part in one
/// shuffle. The algorithm: 64-bit FNV-1a over the bytes of the key; then the finaliser of `MurmurHash3`
/// (`h ^= h >> 33; h *= 0xff51afd7ed558ccd; h ^= h >> 33; h *= 0xc4ceb9fe1a85ec53; h ^= h >> 33`), because FNV alone
/// mixes its upper bits poorly; then the upper 64 bits of the 128-bit product of `h` and `outputs`, which spreads evenly
/// without a division. No protection against keys chosen to collide. With `outputs` of 0 the answer is 0.
///
/// ```
/// # extern crate partita_guest as partita;
/// use partita::partition_of;
///
/// assert_eq!(partition_of(b"self", 8), partition_of(b"self", 8));
/// assert!(partition_of(b"self", 8) < 8);
/// assert_eq!(partition_of(b"anything", 1), 0);
/// ```
#[must_use]
pub const fn partition_of(key: &[u8], outputs: u32) -> u32 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut index = 0;
    while index < key.len() {
        hash = (hash ^ key[index] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        index += 1;
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^= hash >> 33;
    // The upper half of the product, from 32-bit halves: guests have no 128-bit multiplication.
    let outputs = outputs as u64;
    let upper = (hash >> 32) * outputs + (((hash & 0xffff_ffff) * outputs) >> 32);
    #[allow(clippy::cast_possible_truncation, reason = "less than `outputs`, which is 32 bits wide")]
    let output = (upper >> 32) as u32;
    output
}

/// How many outputs the job gives to each task: as many as the consumers of a shuffle have tasks.
///
/// ```
/// # extern crate partita_guest as partita;
/// use partita::prelude::*;
///
/// /// Deals numbers out, round robin.
/// #[partita::task]
/// fn deal(numbers: Json<Vec<u64>>, outputs: Outputs) -> Partitioned<Json<Vec<u64>>> {
///     let mut hands = Partitioned::<Json<Vec<u64>>>::new(outputs);
///     for (turn, number) in numbers.iter().enumerate() {
///         hands[turn % outputs.count()].push(*number);
///     }
///     hands
/// }
///
/// let hands = deal(Json(vec![1, 2, 3]), Outputs::of(2));
/// assert_eq!((hands[0].0.clone(), hands[1].0.clone()), (vec![1, 3], vec![2]));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outputs(u32);

impl Outputs {
    /// That many outputs; at least one, as in a job.
    #[must_use]
    pub const fn of(count: u32) -> Self {
        Self(if count == 0 { 1 } else { count })
    }

    /// How many there are, at least one.
    #[must_use]
    pub const fn count(self) -> usize {
        self.0 as usize
    }

    /// The output that `key` belongs to, by [`partition_of`].
    #[must_use]
    pub const fn index_of(self, key: &[u8]) -> usize {
        partition_of(key, self.0) as usize
    }
}

/// A value for each output of a task.
///
/// ```
/// # extern crate partita_guest as partita;
/// use std::collections::BTreeMap;
/// use partita::prelude::*;
///
/// type Counts = BTreeMap<String, u64>;
///
/// /// Counts words; each output gets the words that belong to it.
/// #[partita::task]
/// fn map(text: Text, outputs: Outputs) -> Partitioned<Postcard<Counts>> {
///     let mut counts = Partitioned::<Postcard<Counts>>::new(outputs);
///     for word in text.split_whitespace() {
///         *counts.for_key(word.as_bytes()).entry(word.to_owned()).or_default() += 1;
///     }
///     counts
/// }
///
/// let counts = map(Text::from("to be or not to be"), Outputs::of(3));
/// assert_eq!(counts.len(), 3);
/// assert_eq!(counts.iter().map(|part| part.len()).sum::<usize>(), 4);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partitioned<X>(Vec<X>);

impl<X> Partitioned<X> {
    /// A default value for each output.
    #[must_use]
    pub fn new(outputs: Outputs) -> Self
    where
        X: Default,
    {
        Self::with(outputs, |_| X::default())
    }

    /// What `make` returns for the number of each output.
    ///
    /// ```
    /// # extern crate partita_guest as partita;
    /// use partita::{Outputs, Partitioned};
    ///
    /// let names = Partitioned::with(Outputs::of(2), |output| format!("part {output}"));
    /// assert_eq!(names[1], "part 1");
    /// ```
    #[must_use]
    pub fn with(outputs: Outputs, make: impl FnMut(usize) -> X) -> Self {
        Self((0..outputs.count()).map(make).collect())
    }

    /// How many outputs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no output, which no job has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of the output that `key` belongs to, by [`partition_of`].
    ///
    /// # Panics
    /// If there is no output.
    pub fn for_key(&mut self, key: &[u8]) -> &mut X {
        let count = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        &mut self.0[partition_of(key, count) as usize]
    }

    /// All values in the order of the outputs.
    pub fn iter(&self) -> slice::Iter<'_, X> {
        self.0.iter()
    }

    /// All values in the order of the outputs, to change them.
    pub fn iter_mut(&mut self) -> slice::IterMut<'_, X> {
        self.0.iter_mut()
    }
}

impl<X> From<Vec<X>> for Partitioned<X> {
    fn from(values: Vec<X>) -> Self {
        Self(values)
    }
}

impl<X> Index<usize> for Partitioned<X> {
    type Output = X;

    fn index(&self, output: usize) -> &X {
        &self.0[output]
    }
}

impl<X> IndexMut<usize> for Partitioned<X> {
    fn index_mut(&mut self, output: usize) -> &mut X {
        &mut self.0[output]
    }
}

impl<X> IntoIterator for Partitioned<X> {
    type Item = X;
    type IntoIter = vec::IntoIter<X>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, X> IntoIterator for &'a Partitioned<X> {
    type Item = &'a X;
    type IntoIter = slice::Iter<'a, X>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_of_a_key_never_changes() {
        // Computed apart from this code. A change here would split keys between modules of different age.
        assert_eq!(
            KNOWN.map(|(key, outputs, _)| partition_of(key.as_bytes(), outputs)),
            KNOWN.map(|(_, _, home)| home)
        );
    }

    const KNOWN: [(&str, u32, u32); 7] = [
        ("", 8, 7),
        ("a", 8, 4),
        ("self", 8, 4),
        ("let", 8, 0),
        ("foobar", 4096, 706),
        ("identifier", 1000, 230),
        ("Zürich", 64, 9),
    ];

    #[test]
    fn the_product_is_that_of_128_bits() {
        for outputs in [1, 2, 3, 8, 1000, 4096, u32::MAX] {
            for number in 0..200_u32 {
                let key = number.to_le_bytes();
                let whole = u128::from(hash(&key)) * u128::from(outputs);
                assert_eq!(u128::from(partition_of(&key, outputs)), whole >> 64, "{number} of {outputs}");
            }
        }
    }

    fn hash(key: &[u8]) -> u64 {
        let fnv = key
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        let one = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let two = (one ^ (one >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        two ^ (two >> 33)
    }

    #[test]
    fn keys_spread_evenly() {
        let mut counts = [0_u32; 16];
        for number in 0..16_000_u32 {
            counts[partition_of(format!("key{number}").as_bytes(), 16) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
    }

    #[test]
    fn no_outputs_is_no_panic() {
        assert_eq!(partition_of(b"key", 0), 0);
        assert_eq!(Outputs::of(0).count(), 1);
    }
}
