//! The journal on disk: what was flushed comes back, and what is damaged is named.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a failure fails the test")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use partita_core::Record;
use partita_store::{Damage, DiskJournal, Journal, JournalError, Position, Repair, Replayed};
use partita_types::{JobId, TenantId};

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

fn released(number: u32) -> Record {
    Record::JobReleased { job: JobId { tenant: TenantId(1), number } }
}

fn open(directory: &Path) -> DiskJournal {
    DiskJournal::open(directory, "test").unwrap()
}

fn replay(journal: &mut DiskJournal) -> Result<(Vec<Record>, Replayed), JournalError> {
    let mut records = Vec::new();
    let replayed = journal.replay(&mut |record| records.push(record))?;
    Ok((records, replayed))
}

/// A journal of `batches` batches of two records, closed.
fn filled(directory: &Path, batches: u32) {
    let mut journal = open(directory);
    for batch in 0..batches {
        journal.append(&[released(2 * batch), released(2 * batch + 1)]).unwrap();
    }
    journal.flush().unwrap();
    drop(journal);
    // sled's threads end after the drop, and free its lock when they do. This waits for the lock and gives it back.
    fs::File::open(directory.join("journal/db")).unwrap().lock().unwrap();
}

/// Opens sled itself, as something that damages the journal from outside.
fn tamper(directory: &Path, change: impl FnOnce(&sled::Tree)) {
    let database = database(&directory.join("journal"));
    change(&database.open_tree("batches").unwrap());
    database.flush().unwrap();
}

fn key(position: u64, part: u32) -> Vec<u8> {
    [&position.to_be_bytes()[..], &part.to_be_bytes()[..]].concat()
}

#[test]
fn what_was_flushed_comes_back_in_order() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path(), 3);
    let mut journal = open(directory.path());
    let (records, replayed) = replay(&mut journal).unwrap();
    assert_eq!(records, (0..6).map(released).collect::<Vec<_>>());
    assert_eq!((replayed.batches, replayed.records), (3, 6));
    assert_eq!(journal.append(&[released(9)]).unwrap(), Position(4));
    assert_eq!(journal.repairs(), []);
}

#[test]
fn a_batch_of_many_parts_comes_back_whole() {
    let directory = tempfile::tempdir().unwrap();
    let many: Vec<Record> = (0..200_000).map(released).chain(support::one_of_each()).collect();
    let mut journal = open(directory.path());
    journal.append(&many).unwrap();
    journal.append(&[released(1)]).unwrap();
    journal.flush().unwrap();
    drop(journal);
    let (records, replayed) = replay(&mut open(directory.path())).unwrap();
    assert!(records[..many.len()] == many[..], "the large batch differs");
    assert_eq!(replayed.batches, 2);
}

#[test]
fn a_damaged_batch_in_the_middle_stops_with_its_number() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path(), 5);
    tamper(directory.path(), |batches| {
        let mut value = batches.get(key(3, 0)).unwrap().unwrap().to_vec();
        *value.last_mut().unwrap() ^= 1;
        batches.insert(key(3, 0), value).unwrap();
    });
    let mut seen = Vec::new();
    let error = open(directory.path()).replay(&mut |record| seen.push(record)).unwrap_err();
    assert!(matches!(&error, JournalError::Damaged { position: Position(3), damage: Damage::Checksum, .. }), "{error}");
    assert!(error.to_string().contains(&directory.path().display().to_string()), "{error}");
    assert_eq!(seen, (0..4).map(released).collect::<Vec<_>>());
}

#[test]
fn a_missing_batch_and_a_missing_part_are_named() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path(), 4);
    tamper(directory.path(), |batches| drop(batches.remove(key(2, 0)).unwrap()));
    let error = replay(&mut open(directory.path())).unwrap_err();
    assert!(
        matches!(error, JournalError::Damaged { position: Position(2), damage: Damage::Missing(Position(2)), .. }),
        "{error}"
    );

    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(directory.path());
    journal.append(&(0..50_000).map(released).collect::<Vec<_>>()).unwrap();
    journal.append(&[released(1)]).unwrap();
    journal.flush().unwrap();
    drop(journal);
    tamper(directory.path(), |batches| drop(batches.remove(key(1, 1)).unwrap()));
    let error = replay(&mut open(directory.path())).unwrap_err();
    assert!(
        matches!(error, JournalError::Damaged { position: Position(1), damage: Damage::Parts { .. }, .. }),
        "{error}"
    );
}

#[test]
fn acknowledged_batches_missing_at_the_end_are_noticed() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path(), 4);
    tamper(directory.path(), |batches| {
        for position in [3, 4] {
            batches.remove(key(position, 0)).unwrap();
        }
    });
    let error = replay(&mut open(directory.path())).unwrap_err();
    assert!(
        matches!(error, JournalError::Damaged { position: Position(3), damage: Damage::Missing(Position(4)), .. }),
        "{error}"
    );
}

#[test]
fn a_torn_last_batch_is_dropped_only_if_it_was_never_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path(), 2);
    tamper(directory.path(), |batches| drop(batches.insert(key(3, 0), b"torn".to_vec()).unwrap()));
    let mut journal = open(directory.path());
    let (records, _) = replay(&mut journal).unwrap();
    assert_eq!(records, (0..4).map(released).collect::<Vec<_>>());
    assert!(
        matches!(journal.repairs(), [Repair::TornTailDropped { position: Position(3), .. }]),
        "{:?}",
        journal.repairs()
    );
    assert_eq!(journal.append(&[released(4)]).unwrap(), Position(3));
    journal.flush().unwrap();
    drop(journal);

    tamper(directory.path(), |batches| drop(batches.insert(key(3, 0), b"torn".to_vec()).unwrap()));
    let error = replay(&mut open(directory.path())).unwrap_err();
    assert!(matches!(error, JournalError::Damaged { position: Position(3), .. }), "{error}");
}

#[test]
fn damage_anywhere_in_the_files_never_yields_other_records() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path(), 40);
    let log = directory.path().join("journal/db");
    let good = fs::read(&log).unwrap();
    let all: Vec<Record> = (0..80).map(released).collect();
    let used = good.iter().rposition(|byte| *byte != 0).unwrap();
    for offset in (0..used).step_by(used / 60) {
        let copy = tempfile::tempdir().unwrap();
        copy_all(directory.path(), copy.path());
        let mut bad = good.clone();
        bad[offset] ^= 0x55;
        fs::write(copy.path().join("journal/db"), bad).unwrap();
        match DiskJournal::open(copy.path(), "test").and_then(|mut journal| replay(&mut journal)) {
            Ok((records, _)) => assert_eq!(records, all, "offset {offset}"),
            Err(error) => assert!(error.to_string().contains("state "), "offset {offset}: {error}"),
        }
    }
}

fn copy_all(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy_all(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn snapshot(directory: &Path) -> PathBuf {
    let is_snapshot = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("snap.");
    let entries = fs::read_dir(directory.join("journal")).unwrap();
    entries.map(|entry| entry.unwrap().path()).find(is_snapshot).expect("sled wrote no snapshot")
}

#[test]
fn a_broken_snapshot_file_is_rebuilt_and_told_of() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path(), 5);
    drop(open(directory.path()));
    let file = snapshot(directory.path());
    let length = fs::metadata(&file).unwrap().len();
    fs::write(&file, vec![0xa5; usize::try_from(length).unwrap()]).unwrap();
    let mut journal = open(directory.path());
    let (records, _) = replay(&mut journal).unwrap();
    assert_eq!(records.len(), 10);
    assert!(matches!(journal.repairs(), [Repair::SnapshotsRemoved { .. }]), "{:?}", journal.repairs());
}

#[test]
fn a_second_process_or_another_cluster_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path());
    let error = DiskJournal::open(directory.path(), "test").unwrap_err();
    assert!(matches!(error, JournalError::Locked { .. }), "{error}");
    drop(journal);
    let error = DiskJournal::open(directory.path(), "other").unwrap_err();
    assert!(matches!(&error, JournalError::OtherCluster { found, .. } if found == "test"), "{error}");
}

#[test]
fn a_newer_layout_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path(), 1);
    let database = database(&directory.path().join("journal"));
    database.open_tree("meta").unwrap().insert("format", &2_u32.to_be_bytes()).unwrap();
    drop(database);
    let error = DiskJournal::open(directory.path(), "test").unwrap_err();
    assert!(matches!(error, JournalError::NewerFormat { found: 2, known: 1, .. }), "{error}");
}

#[test]
fn a_torn_marker_is_told_of_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path(), 2);
    fs::write(directory.path().join("acknowledged"), b"torn").unwrap();
    let mut journal = open(directory.path());
    assert!(matches!(journal.repairs(), [Repair::MarkerUnreadable { .. }]));
    assert_eq!(replay(&mut journal).unwrap().0.len(), 4);
}
