//! `partita state`, on journals that no scheduler uses.

#![allow(clippy::unwrap_used, reason = "what goes wrong in a test ends it")]

use std::path::Path;
use std::process::{Command, Output};

use partita_core::{IdempotencyKey, Record};
use partita_store::{DiskJournal, Journal};
use partita_types::{JobId, JobSpec, TenantId, TenantName, Timestamp};
use serde_json::Value;

fn state(home: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_partita"))
        .args(["--json", "state"])
        .args(arguments)
        .env_clear()
        .env("HOME", home)
        .current_dir(home)
        .output()
        .expect("the program starts")
}

#[track_caller]
fn done(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    serde_json::from_slice(&output.stdout).expect("a line of JSON")
}

#[track_caller]
fn fails(output: &Output, code: i32, expected: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(expected), "{stderr}");
}

/// A tenant with three jobs, of which the first was cancelled and released.
fn records() -> Vec<Record> {
    let at = Timestamp::from_micros(1_800_000_000_000_000);
    let job = |number| JobId { tenant: TenantId(0), number };
    let submitted = |number: u8| Record::JobSubmitted {
        job: job(u32::from(number)),
        key: IdempotencyKey([number; 16]),
        spec: JobSpec { name: format!("job-{number}"), arrays: Vec::new(), open: true, deadline: None },
        plans: Vec::new(),
        at,
    };
    vec![
        Record::TenantAdded { id: TenantId(0), name: TenantName::new("acme").unwrap() },
        submitted(1),
        submitted(2),
        Record::JobCancelled { job: job(1), at },
        Record::JobReleased { job: job(1) },
        submitted(3),
    ]
}

fn filled(data: &Path) {
    let mut journal = DiskJournal::open(&data.join("state"), "partita").unwrap();
    for batch in records().chunks(2) {
        journal.append(batch).unwrap();
    }
    journal.flush().unwrap();
}

fn stored(data: &Path) -> Vec<Record> {
    let mut found = Vec::new();
    DiskJournal::open(&data.join("state"), "partita").unwrap().replay(&mut |record| found.push(record)).unwrap();
    found
}

#[test]
fn a_state_is_verified_and_counted() {
    let home = tempfile::tempdir().unwrap();
    filled(&home.path().join("data"));
    let found = done(&state(home.path(), &["verify", "--data", "data"]));
    assert_eq!((&found["records"], &found["batches"], &found["jobs"]), (&6.into(), &3.into(), &2.into()), "{found}");
    assert_eq!((&found["tenants"], &found["records_without_effect"]), (&1.into(), &0.into()), "{found}");
}

#[test]
fn damage_is_found_and_named() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    filled(&data);
    let log = data.join("state/journal/db");
    let mut bytes = std::fs::read(&log).unwrap();
    let name = b"job-2";
    let place = bytes.windows(name.len()).position(|window| window == name).expect("a record in the log");
    bytes[place] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    let output = state(home.path(), &["verify", "--data", "data"]);
    assert!(!output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("state data/state") || stderr.contains("data/state/journal"), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn what_is_exported_can_be_imported_and_is_the_same() {
    let home = tempfile::tempdir().unwrap();
    filled(&home.path().join("data"));
    assert_eq!(done(&state(home.path(), &["export", "--data", "data", "--output", "a.jsonl"]))["exported"], 6);
    assert_eq!(done(&state(home.path(), &["import", "--data", "new", "--input", "a.jsonl"]))["imported"], 6);
    assert_eq!(stored(&home.path().join("new")), records());
    fails(
        &state(home.path(), &["import", "--data", "new", "--input", "a.jsonl"]),
        2,
        "import into a new data directory",
    );
    fails(&state(home.path(), &["export", "--data", "data", "--output", "a.jsonl"]), 1, "a.jsonl");
    let other = ["import", "--data", "other", "--cluster", "other", "--input", "a.jsonl"];
    fails(&state(home.path(), &other), 2, "of cluster");
    assert!(!home.path().join("other").exists());
}

#[test]
fn lines_that_are_no_records_are_named() {
    let home = tempfile::tempdir().unwrap();
    let header = "{\"partita_state\":1,\"cluster\":\"partita\"}\n";
    std::fs::write(home.path().join("bad.jsonl"), format!("{header}{{\"Nonsense\":1}}\n")).unwrap();
    fails(&state(home.path(), &["import", "--data", "new", "--input", "bad.jsonl"]), 1, "bad.jsonl, line 2");
}

#[test]
fn compaction_drops_what_was_released() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    filled(&data);
    let told = done(&state(home.path(), &["compact", "--data", "data"]));
    assert_eq!((&told["records"]["before"], &told["records"]["after"]), (&6.into(), &4.into()), "{told}");
    assert_eq!(done(&state(home.path(), &["verify", "--data", "data"]))["jobs"], 2);
    assert_eq!(stored(&data)[1], Record::JobsForgotten { tenant: TenantId(0), count: 1 });
}

#[test]
fn a_state_in_use_or_none_at_all_is_said_to_be_that() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    fails(&state(home.path(), &["verify", "--data", "data"]), 2, "it has no state");
    assert!(!data.exists(), "nothing is created");
    filled(&data);
    let used = DiskJournal::open(&data.join("state"), "partita").unwrap();
    fails(&state(home.path(), &["verify", "--data", "data"]), 1, "in use by another process");
    drop(used);
    fails(&state(home.path(), &["verify", "--data", "data", "--cluster", "dev"]), 1, "belongs to cluster");
}
