//! A new generation of the journal takes the place of the old one, whole, or not at all.

#![allow(clippy::unwrap_used, reason = "what goes wrong in a test ends it")]

use std::fs;
use std::path::Path;

use partita_core::{Core, Record};
use partita_store::{DiskJournal, Journal, JournalError};
use partita_types::{JobId, JobSpec, TenantId, TenantName};

fn released(number: u32) -> Record {
    Record::JobReleased { job: JobId { tenant: TenantId(0), number } }
}

fn submitted(number: u32) -> Record {
    let spec = JobSpec { name: "job".to_owned(), arrays: Vec::new(), open: true, deadline: None };
    let key = partita_core::IdempotencyKey([u8::try_from(number % 251).unwrap(); 16]);
    let job = JobId { tenant: TenantId(0), number };
    Record::JobSubmitted { job, key, spec, plans: Vec::new(), at: partita_types::Timestamp::from_micros(1) }
}

fn open(directory: &Path) -> DiskJournal {
    DiskJournal::open(directory, "test").unwrap()
}

/// A tenant, and jobs of which all but the last were released.
fn filled(journal: &mut DiskJournal, jobs: u32) -> Core {
    let mut core = Core::new();
    let mut records = vec![Record::TenantAdded { id: TenantId(0), name: TenantName::new("acme").unwrap() }];
    for number in 1..=jobs {
        records.push(submitted(number));
        records.extend((number < jobs).then(|| released(number)));
    }
    for batch in records.chunks(100) {
        journal.append(batch).unwrap();
        batch.iter().for_each(|record| core.restore(record, &mut Vec::new()));
    }
    journal.flush().unwrap();
    core
}

fn replay(journal: &mut DiskJournal) -> Vec<Record> {
    let mut records = Vec::new();
    journal.replay(&mut |record| records.push(record)).unwrap();
    records
}

fn files(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_not_needed_is_gone_and_what_came_meanwhile_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(directory.path());
    let core = filled(&mut journal, 2_000);
    let compaction = journal.begin_compaction().unwrap();
    journal.append(&[submitted(2_001)]).unwrap();
    let compacted = compaction.run(core.compaction()).unwrap();
    journal.append(&[submitted(2_002)]).unwrap();
    journal.adopt(compacted).unwrap().remove().unwrap();
    journal.append(&[released(2_001)]).unwrap();
    journal.flush().unwrap();
    let expected = [
        Record::TenantAdded { id: TenantId(0), name: TenantName::new("acme").unwrap() },
        Record::JobsForgotten { tenant: TenantId(0), count: 1_999 },
        submitted(2_000),
        submitted(2_001),
        submitted(2_002),
        released(2_001),
    ];
    assert_eq!(replay(&mut journal), expected);
    drop(journal);
    let mut journal = open(directory.path());
    assert_eq!(replay(&mut journal), expected);
    assert_eq!((journal.compactions(), journal.repairs()), (1, &[][..]));
    assert_eq!(files(directory.path()), ["acknowledged.2", "generation", "journal.2", "lock"]);
}

#[test]
fn a_compaction_that_was_not_switched_to_leaves_no_trace() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(directory.path());
    let core = filled(&mut journal, 50);
    let before = replay(&mut journal);
    drop(journal.begin_compaction().unwrap().run(core.compaction()).unwrap());
    drop(journal);
    assert!(directory.path().join("journal.2").exists());
    let mut journal = open(directory.path());
    assert_eq!(replay(&mut journal), before);
    assert_eq!(files(directory.path()), ["acknowledged", "journal", "lock"]);
}

#[test]
fn an_old_generation_that_was_not_removed_is_removed_at_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(directory.path());
    let core = filled(&mut journal, 50);
    let compacted = journal.begin_compaction().unwrap().run(core.compaction()).unwrap();
    drop(journal.adopt(compacted).unwrap());
    drop(journal);
    assert!(directory.path().join("journal").exists());
    assert_eq!(replay(&mut open(directory.path())).len(), 3);
    assert!(!directory.path().join("journal").exists());
}

/// Opens the engine's files behind the journal's back, as soon as it has let go of them: its lock ends with its threads, a
/// little after the drop.
fn database(path: &Path) -> sled::Db {
    loop {
        match sled::Config::new().path(path).segment_size(2 << 20).open() {
            Err(sled::Error::Io(fault)) if fault.to_string().contains("could not acquire lock") => {
                std::thread::yield_now();
            }
            opened => return opened.unwrap(),
        }
    }
}

#[test]
fn a_damaged_batch_stops_a_compaction_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(directory.path());
    let core = filled(&mut journal, 200);
    drop(journal);
    let database = database(&directory.path().join("journal"));
    let key = [2_u64.to_be_bytes().as_slice(), &0_u32.to_be_bytes()].concat();
    database.open_tree("batches").unwrap().insert(key, b"\0\0\0\x01damaged".as_slice()).unwrap();
    drop(database);
    let mut journal = open(directory.path());
    let error = journal.begin_compaction().unwrap().run(core.compaction()).unwrap_err();
    assert!(matches!(error, JournalError::Damaged { .. }), "{error}");
    assert!(journal.replay(&mut drop).is_err(), "the start finds the same");
    assert_eq!(journal.compactions(), 0);
}

#[test]
fn a_file_that_names_no_generation_stops_the_start() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    fs::write(directory.path().join("generation"), b"2").unwrap();
    let error = DiskJournal::open(directory.path(), "test").unwrap_err();
    assert!(matches!(error, JournalError::Generation { length: 1, .. }), "{error}");
    assert!(directory.path().join("journal").exists(), "nothing was removed");
}

#[test]
fn a_compaction_is_wanted_when_it_is_worth_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(directory.path()).compacting_from(10_000);
    assert!(!journal.wants_compaction());
    let core = filled(&mut journal, 500);
    assert!(journal.wants_compaction());
    let compacted = journal.begin_compaction().unwrap().run(core.compaction()).unwrap();
    journal.adopt(compacted).unwrap().remove().unwrap();
    assert!(!journal.wants_compaction());
    drop(journal);
    let mut journal = open(directory.path()).compacting_from(10_000);
    replay(&mut journal);
    assert!(!journal.wants_compaction(), "what was kept does not count again after a restart");
}
