//! A process that appends is killed, again and again: every batch that it acknowledged must be there afterwards.
//!
//! Its own `main`, because the test is also the process that is killed.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use partita_core::Record;
use partita_store::{DiskJournal, Journal};
use partita_types::{JobId, TenantId};

const CYCLES: u32 = 8;
const BATCHES_PER_CYCLE: usize = 25;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[1..] {
        ["append", directory] => append(Path::new(directory)),
        // What `cargo test -- --list` and name filters ask for.
        [first, ..] if first == "--list" || (!first.starts_with('-') && !"kill".contains(first)) => Ok(()),
        _ => kill_again_and_again(),
    }
}

fn record(number: u32) -> Record {
    Record::JobReleased { job: JobId { tenant: TenantId(1), number } }
}

/// Appends for ever and prints each position once it is durable.
fn append(directory: &Path) -> Result<(), Box<dyn Error>> {
    let mut journal = DiskJournal::open(directory, "kill")?;
    let mut count = 0;
    journal.replay(&mut |_| count += 1)?;
    loop {
        let position = journal.append(&[record(count)])?;
        journal.flush()?;
        count += 1;
        println!("{position}");
        std::io::stdout().flush()?;
    }
}

fn kill_again_and_again() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let mut acknowledged = 0;
    for cycle in 0..CYCLES {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("append")
            .arg(directory.path())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        for line in lines.take(BATCHES_PER_CYCLE) {
            acknowledged = line?.parse()?;
        }
        child.kill()?;
        child.wait()?;
        let mut found = Vec::new();
        DiskJournal::open(directory.path(), "kill")?.replay(&mut |record| found.push(record))?;
        let expected: Vec<Record> = (0..u32::try_from(found.len())?).map(record).collect();
        assert_eq!(found, expected, "cycle {cycle}");
        assert!(found.len() as u64 >= acknowledged, "cycle {cycle}: {} of {acknowledged}", found.len());
    }
    println!("test what_was_acknowledged_survives_kill ... ok ({CYCLES} kills, {acknowledged} batches)");
    Ok(())
}
