//! Counts words natively, on all cores, without anything of Partita: what `cargo xtask demo` compares its results with,
//! in numbers and in time.
//!
//! It shares no code with the guest and goes another way: whole files instead of pieces, one open-addressed table per
//! thread keyed by the bytes of the words, merged at the end. It reads the files that a host would read: those whose
//! names end as asked, in the order of the bytes of their paths, up to the one that reaches the limit.

mod native;

use std::fs;
use std::io::{BufWriter, Write as _};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use clap::Parser;

use self::native::files;
use self::native::table::Table;
use self::native::words;

/// Counts the identifiers in source files.
#[derive(Parser)]
struct Arguments {
    /// The directory; symbolic links in it are not followed.
    directory: PathBuf,
    /// Only files whose names end so.
    #[arg(long, default_value = ".rs")]
    suffix: String,
    /// Only the first files, up to about this many bytes.
    #[arg(long, value_name = "BYTES")]
    limit: Option<u64>,
    /// How many of the most frequent words to print.
    #[arg(long, default_value_t = 20)]
    top: usize,
    /// Write every word with its count to this file, sorted by word, separated by a tab.
    #[arg(long, value_name = "FILE")]
    counts: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let begin = now();
    let files = files::list(&arguments.directory, &arguments.suffix, arguments.limit)?;
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let table = words::count(&arguments.directory, &files, threads)?;
    let seconds = begin.elapsed().as_secs_f64();
    let top: Vec<(String, u64)> = top(&table, arguments.top);
    let summary = serde_json::json!({
        "files": files.len(),
        "bytes": files.iter().map(|file| file.size).sum::<u64>(),
        "tokens": table.iter().map(|(_, count)| count).sum::<u64>(),
        "distinct": table.len(),
        "identifier_bytes": table.iter().map(|(word, count)| word.len() as u64 * count).sum::<u64>(),
        "threads": threads,
        "seconds": seconds,
        "top": top,
    });
    if let Some(path) = &arguments.counts {
        write_counts(&table, path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("{summary}");
    Ok(())
}

/// The most frequent words; those of equal frequency in the order of their bytes.
fn top(table: &Table, count: usize) -> Vec<(String, u64)> {
    let mut all: Vec<(&[u8], u64)> = table.iter().collect();
    all.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    all.truncate(count);
    all.into_iter().map(|(word, count)| (String::from_utf8_lossy(word).into_owned(), count)).collect()
}

fn write_counts(table: &Table, path: &std::path::Path) -> std::io::Result<()> {
    let mut all: Vec<(&[u8], u64)> = table.iter().collect();
    all.sort_unstable();
    let mut file = BufWriter::new(fs::File::create(path)?);
    for (word, count) in all {
        file.write_all(word)?;
        writeln!(file, "\t{count}")?;
    }
    file.flush()
}

#[expect(clippy::disallowed_methods, reason = "measuring the time is what this program is for")]
fn now() -> Instant {
    Instant::now()
}
