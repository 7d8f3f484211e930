//! Which bytes are words: identifiers of ASCII letters, digits and underscores that do not begin with a digit, wherever
//! they stand. What begins with a digit, such as `0xff_u8`, is no word as a whole.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, bail};

use super::files::File;
use super::table::Table;

/// Counts the words of the files with so many threads.
pub(crate) fn count(directory: &Path, files: &[File], threads: usize) -> anyhow::Result<Table> {
    let next = AtomicUsize::new(0);
    let counter = || -> anyhow::Result<Table> {
        let mut table = Table::default();
        while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let path = directory.join(&file.path);
            let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            each(&text, |word| table.add(word, 1));
        }
        Ok(table)
    };
    std::thread::scope(|scope| {
        let counters: Vec<_> = (0..threads).map(|_| scope.spawn(counter)).collect();
        let mut total = Table::default();
        for counter in counters {
            match counter.join() {
                Ok(table) => total.merge(&table?),
                Err(_) => bail!("a counting thread panicked"),
            }
        }
        Ok(total)
    })
}

/// Calls `found` with every word of a text.
fn each<'a>(text: &'a [u8], mut found: impl FnMut(&'a [u8])) {
    let part = |byte: &u8| PART[usize::from(*byte)];
    let mut rest = text;
    while let Some(begin) = rest.iter().position(part) {
        rest = &rest[begin..];
        let end = rest.iter().position(|byte| !part(byte)).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        if !word[0].is_ascii_digit() {
            found(word);
        }
        rest = behind;
    }
}

/// Which bytes are part of a word.
const PART: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric() || byte == b'_';
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let mut all = Vec::new();
        each(text.as_bytes(), |word| all.push(String::from_utf8_lossy(word).into_owned()));
        all
    }

    #[test]
    fn words_are_identifiers_of_ascii_letters() {
        assert_eq!(words("fn a_1(x: u8) -> Größe { 0xff_u8 + 1e5 }"), ["fn", "a_1", "x", "u8", "Gr", "e"]);
        assert_eq!(words(""), Vec::<String>::new());
        assert_eq!(words("_ 9"), ["_"]);
    }
}
