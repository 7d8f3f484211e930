use std::io::Seek;

use super::*;
use crate::{Line, Page, read, verify};

fn draft(object: &str) -> Draft {
    Draft {
        at: Timestamp::from_micros(1_700_000_000_000_000),
        principal: Principal::Host { name: "host-1".to_owned() },
        address: "127.0.0.1:9".to_owned(),
        action: "Sessions/Attach".to_owned(),
        object: object.to_owned(),
        outcome: "ok".to_owned(),
        policy: "1".to_owned(),
    }
}

fn open(directory: &Path) -> AuditLog {
    AuditLog::open(directory, Timestamp::default()).unwrap().0
}

fn entries(page: &Page) -> Vec<Entry> {
    page.lines.iter().map(|line| Line::parse(line).unwrap().entry).collect()
}

/// A log of three lines, and its file.
fn three() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let mut log = open(directory.path());
    for object in ["a", "b", "c"] {
        log.append(draft(object)).unwrap();
    }
    log.sync().unwrap();
    let path = log.path.clone();
    (directory, path)
}

fn fault(directory: &Path) -> (u64, Fault) {
    match verify(directory).unwrap_err() {
        AuditError::Damaged { line, fault, .. } => (line, fault),
        other => panic!("{other}"),
    }
}

#[test]
fn a_log_goes_on_where_it_was() {
    let (directory, _) = three();
    let mut log = open(directory.path());
    assert_eq!(log.append(draft("d")).unwrap(), 4);
    let verified = verify(directory.path()).unwrap();
    assert_eq!((verified.first, verified.last, verified.torn), (1, log.last(), 0));
    assert_eq!(crate::verify_file(&log.path).unwrap(), verified);
    let page = read(directory.path(), 2, 10).unwrap();
    let entries = entries(&page);
    let objects: Vec<&str> = entries.iter().map(|entry| entry.object.as_str()).collect();
    assert_eq!((objects, page.more), (vec!["c", "d"], false));
    let page = read(directory.path(), 0, 2).unwrap();
    assert_eq!((page.lines.len(), page.more), (2, true));
}

#[test]
fn a_line_that_was_changed_removed_or_put_in_is_found() {
    let (directory, path) = three();
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let written = |lines: &[&str]| {
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        fault(directory.path())
    };
    assert_eq!(written(&[lines[0], &lines[1].replace("\"b\"", "\"x\""), lines[2]]), (2, Fault::Hash));
    assert_eq!(written(&[lines[0], lines[2]]), (2, Fault::Hash));
    assert_eq!(written(&[lines[0], lines[0], lines[1]]), (2, Fault::Hash));
    assert_eq!(written(&[lines[1], lines[2]]), (1, Fault::Hash));
    assert_eq!(written(&[lines[0], "nonsense", lines[2]]), (2, Fault::Form));
    // And nobody appends behind it.
    assert!(matches!(AuditLog::open(directory.path(), Timestamp::default()), Err(AuditError::Damaged { line: 2, .. })));
}

#[test]
fn what_a_crash_left_is_removed_and_told() {
    let (directory, path) = three();
    let before = fs::metadata(&path).unwrap().len();
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"0123456789abcdef").unwrap();
    assert_eq!(file.stream_position().unwrap(), before + 16);
    assert_eq!(verify(directory.path()).unwrap().torn, 16);
    let (mut log, repair) = AuditLog::open(directory.path(), Timestamp::default()).unwrap();
    assert_eq!(repair, Some(Repair { path, bytes: 16 }));
    log.append(draft("d")).unwrap();
    let verified = verify(directory.path()).unwrap();
    assert_eq!((verified.last.sequence, verified.torn), (5, 0));
    let page = read(directory.path(), 3, 1).unwrap();
    assert_eq!(entries(&page)[0].action, "Audit/Repair");
}

#[test]
fn refusals_that_were_only_counted_are_told_with_the_next_line() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = open(directory.path());
    log.suppress(1);
    log.suppress(1);
    log.append(draft("a")).unwrap();
    log.append(draft("b")).unwrap();
    let page = read(directory.path(), 0, 10).unwrap();
    let suppressed: Vec<u64> = entries(&page).iter().map(|entry| entry.suppressed).collect();
    assert_eq!(suppressed, [2, 0]);
}

#[test]
fn the_chain_goes_on_in_the_next_file_and_may_lose_its_oldest() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = open(directory.path());
    for round in 0..3 {
        log.append(draft(&format!("a{round}"))).unwrap();
        log.append(draft(&format!("b{round}"))).unwrap();
        log.size = FILE_MAX;
    }
    let files = reader::files(directory.path()).unwrap();
    assert_eq!(files.iter().map(|(first, _)| *first).collect::<Vec<_>>(), [1, 3, 5]);
    assert_eq!(verify(directory.path()).unwrap().last.sequence, 6);
    assert_eq!(read(directory.path(), 3, 10).unwrap().lines.len(), 3);
    drop(log);
    assert_eq!(open(directory.path()).append(draft("c")).unwrap(), 7);

    let (middle, oldest) = (&files[1].1, &files[0].1);
    fs::rename(middle, directory.path().join("kept")).unwrap();
    assert_eq!(fault(directory.path()), (1, Fault::Sequence { found: 5, expected: 3 }));
    fs::rename(directory.path().join("kept"), middle).unwrap();
    fs::remove_file(oldest).unwrap();
    let verified = verify(directory.path()).unwrap();
    assert_eq!((verified.first, verified.last.sequence), (3, 7));
    assert_eq!(open(directory.path()).append(draft("d")).unwrap(), 8);
}

#[test]
fn a_page_begins_where_it_was_asked_to_in_any_file() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = open(directory.path());
    for number in 1..=7 {
        log.append(draft(&number.to_string())).unwrap();
        if number == 3 {
            log.size = FILE_MAX;
        }
    }
    for after in 0..9 {
        for limit in 0..9 {
            let page = read(directory.path(), after, limit).unwrap();
            let found: Vec<u64> = entries(&page).iter().map(|entry| entry.sequence).collect();
            let wanted: Vec<u64> = (after + 1..=7).collect();
            let shown = &wanted[..limit.min(wanted.len())];
            assert_eq!((found.as_slice(), page.more), (shown, wanted.len() > limit), "{limit} behind {after}");
        }
    }
    assert_eq!(read(directory.path(), u64::MAX, 1).unwrap(), Page::default());
}

#[test]
fn a_page_passes_over_lines_without_reading_them_and_tells_of_those_that_are_missing() {
    let (directory, path) = three();
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let written = |lines: &[&str], after| {
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        read(directory.path(), after, 10)
    };
    assert_eq!(written(&["nonsense", lines[1], lines[2]], 1).unwrap().lines, [lines[1], lines[2]]);
    let missing = written(&[lines[0], lines[2]], 0).unwrap_err();
    let fault = Fault::Sequence { found: 3, expected: 2 };
    assert!(matches!(missing, AuditError::Damaged { line: 2, fault: found, .. } if found == fault));
}

#[test]
fn long_names_are_cut_and_control_characters_stay_in_their_line() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = open(directory.path());
    log.append(draft(&"é".repeat(10_000))).unwrap();
    log.append(draft("a\nb\u{1b}[31m")).unwrap();
    let page = read(directory.path(), 0, 10).unwrap();
    assert_eq!(page.lines.len(), 2);
    assert!(entries(&page)[0].object.len() <= crate::TEXT_MAX);
    let text = fs::read_to_string(&log.path).unwrap();
    assert_eq!(text.lines().count(), 2);
    assert!(!text.contains('\u{1b}'));
}
