//! Where a dataset is cut: a pure function of the sizes of its files.
//!
//! Whole files that are not larger than a split are packed together in order until the next one does not fit. A larger
//! file is cut alone, at multiples of the split size; each of these nominal cuts then moves to the next border of a
//! line when the piece is read (see [`super::read`]). So the number of splits needs no look into any file.

use partita_types::{ByteSize, MAX_TASKS_PER_ARRAY};

use super::DatasetError;
use super::listing::File;

/// What a split has of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Whole { file: usize, size: u64 },
    /// The lines that begin between two nominal cuts.
    Lines { file: usize, from: u64, to: u64 },
}

/// Cuts `files` into splits of about `split` bytes. There is always at least one split, perhaps an empty one.
pub(super) fn cut(files: &[File], split: ByteSize) -> Result<Vec<Vec<Part>>, DatasetError> {
    let size_of = split.0.max(1);
    let mut splits = Vec::new();
    let mut packed = Vec::new();
    let mut packed_bytes = 0_u64;
    for (file, File { size, .. }) in files.iter().enumerate() {
        let size = *size;
        let fits = packed_bytes.saturating_add(size) <= size_of;
        if !fits && !packed.is_empty() {
            splits.push(std::mem::take(&mut packed));
            packed_bytes = 0;
        }
        if size <= size_of {
            packed.push(Part::Whole { file, size });
            packed_bytes += size;
        } else {
            let pieces = usize::try_from(size.div_ceil(size_of)).unwrap_or(usize::MAX);
            check(split, splits.len().saturating_add(pieces))?;
            splits.extend(pieces_of(file, size, size_of).map(|part| vec![part]));
        }
    }
    if !packed.is_empty() || splits.is_empty() {
        splits.push(packed);
    }
    check(split, splits.len())?;
    Ok(splits)
}

fn check(split: ByteSize, splits: usize) -> Result<(), DatasetError> {
    let limit = usize::try_from(MAX_TASKS_PER_ARRAY).unwrap_or(usize::MAX);
    if splits > limit { Err(DatasetError::TooManySplits { split, splits }) } else { Ok(()) }
}

fn pieces_of(file: usize, size: u64, split: u64) -> impl Iterator<Item = Part> {
    let cuts = std::iter::successors(Some(0), move |from: &u64| from.checked_add(split).filter(|next| *next < size));
    cuts.map(move |from| Part::Lines { file, from, to: from.saturating_add(split).min(size) })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn files(sizes: &[u64]) -> Vec<File> {
        sizes.iter().enumerate().map(|(n, size)| File { path: PathBuf::from(n.to_string()), size: *size }).collect()
    }

    #[test]
    fn small_files_are_packed_and_large_ones_cut() {
        let splits = cut(&files(&[40, 60, 1, 250, 5]), ByteSize(100)).unwrap();
        let whole = |file, size| Part::Whole { file, size };
        let lines = |from, to| Part::Lines { file: 3, from, to };
        let expected = vec![
            vec![whole(0, 40), whole(1, 60)],
            vec![whole(2, 1)],
            vec![lines(0, 100)],
            vec![lines(100, 200)],
            vec![lines(200, 250)],
            vec![whole(4, 5)],
        ];
        assert_eq!(splits, expected);
    }

    #[test]
    fn no_files_make_one_empty_split() {
        assert_eq!(cut(&[], ByteSize(100)).unwrap(), vec![Vec::new()]);
    }

    #[test]
    fn more_splits_than_an_array_can_have_are_refused_before_they_are_made() {
        let error = cut(&files(&[u64::MAX]), ByteSize::kib(4)).unwrap_err();
        assert!(matches!(error, DatasetError::TooManySplits { .. }), "{error}");
    }
}
