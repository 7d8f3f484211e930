//! A process that appends and compacts is killed, again and again: every batch that it acknowledged must be there afterwards.
//!
//! Its own `main`, because the test is also the process that is killed.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use partita_core::{Core, IdempotencyKey, Record};
use partita_store::{DiskJournal, Journal};
use partita_types::{JobId, JobSpec, TenantId, Timestamp};

/// What test runners call it.
const NAME: &str = "what_was_acknowledged_survives_kills_and_a_full_disk";
const CYCLES: u32 = 8;
const BATCHES_PER_CYCLE: usize = 25;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[1..] {
        ["append", directory] => append(Path::new(directory)),
        ["fill", directory] => fill(Path::new(directory)),
        // Test runners ask for names first, and for those of ignored tests, of which there are none.
        ref list if list.contains(&"--list") => {
            if !list.contains(&"--ignored") {
                println!("{NAME}: test");
            }
            Ok(())
        }
        [first, ..] if !first.starts_with('-') && !NAME.contains(first) => Ok(()),
        _ => {
            kill_again_and_again()?;
            fill_the_disk()
        }
    }
}

fn record(number: u32) -> Record {
    Record::JobReleased { job: JobId { tenant: TenantId(1), number } }
}

/// Appends for ever and prints how many records are durable.
fn append(directory: &Path) -> Result<(), Box<dyn Error>> {
    let mut journal = DiskJournal::open(directory, "kill")?;
    let mut count = 0;
    journal.replay(&mut |_| count += 1)?;
    // The journal is compacted all the time; a core without tenants forgets nothing, so every record stays.
    let mut compacting = None;
    loop {
        journal.append(&[record(count)])?;
        journal.flush()?;
        count += 1;
        println!("{count}");
        std::io::stdout().flush()?;
        match compacting.take() {
            None => {
                let compaction = journal.begin_compaction().ok_or("a journal on disk can be compacted")?;
                compacting = Some(std::thread::spawn(move || compaction.run(Core::new().compaction())));
            }
            Some(thread) if !thread.is_finished() => compacting = Some(thread),
            Some(thread) => {
                let compacted = thread.join().map_err(|_| "the compaction panicked")??;
                journal.adopt(compacted)?.remove()?;
            }
        }
    }
}

fn kill_again_and_again() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let (mut acknowledged, mut compactions) = (0, 0);
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
        let mut journal = DiskJournal::open(directory.path(), "kill")?;
        journal.replay(&mut |record| found.push(record))?;
        compactions = compactions.max(journal.compactions());
        let expected: Vec<Record> = (0..u32::try_from(found.len())?).map(record).collect();
        assert_eq!(found, expected, "cycle {cycle}");
        assert!(found.len() as u64 >= acknowledged, "cycle {cycle}: {} of {acknowledged}", found.len());
    }
    assert!(compactions > 0, "no compaction was completed between two kills");
    println!(
        "test what_was_acknowledged_survives_kill ... ok ({CYCLES} kills, {acknowledged} records, {compactions} compactions)"
    );
    Ok(())
}

/// A record of some KiB.
fn large(number: u32) -> Record {
    let name = format!("{number:08}").repeat(1_000);
    let spec = JobSpec { name, arrays: Vec::new(), open: true, deadline: None };
    let key = IdempotencyKey([0; 16]);
    let job = JobId { tenant: TenantId(1), number };
    Record::JobSubmitted { job, key, spec, plans: Vec::new(), at: Timestamp::default() }
}

/// Appends until the file system has no room, and prints each count once it is durable.
fn fill(directory: &Path) -> Result<(), Box<dyn Error>> {
    let mut journal = DiskJournal::open(directory, "kill")?;
    for count in 1.. {
        journal.append(&[large(count)])?;
        journal.flush()?;
        println!("{count}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// The journal's files may not grow beyond a limit, which the system enforces.
fn fill_the_disk() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let limited = "trap '' XFSZ; ulimit -f 8192; exec \"$0\" fill \"$1\"";
    let output =
        Command::new("sh").args(["-c", limited]).arg(std::env::current_exe()?).arg(directory.path()).output()?;
    let (out, error) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    let acknowledged: u32 = out.lines().last().ok_or_else(|| format!("nothing was written: {error}"))?.parse()?;
    assert!(!output.status.success() && error.contains("DiskFull"), "{error}");
    assert!(error.contains(&directory.path().display().to_string()), "{error}");
    let mut journal = DiskJournal::open(directory.path(), "kill")?;
    let mut found = Vec::new();
    journal.replay(&mut |record| found.push(record))?;
    let expected: Vec<Record> = (1..=u32::try_from(found.len())?).map(large).collect();
    assert!(found == expected && found.len() >= acknowledged as usize, "{} of {acknowledged}", found.len());
    // There is room again.
    journal.append(&[large(0)])?;
    journal.flush()?;
    println!("test a_full_disk_is_named_and_loses_nothing ... ok ({acknowledged} records)");
    Ok(())
}
