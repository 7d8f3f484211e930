//! Every byte is in exactly one split, in order, and no line is cut.

use std::fs;
use std::path::Path;

use partita_types::DatasetName;
use proptest::prelude::*;

use super::*;

fn grant(location: &Path, include: &[&str]) -> DatasetGrant {
    DatasetGrant {
        name: DatasetName::new("d").unwrap(),
        location: location.display().to_string(),
        include: include.iter().map(|pattern| (*pattern).to_owned()).collect(),
    }
}

fn directory(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    directory
}

fn read_all(grant: &DatasetGrant, split: ByteSize) -> Vec<Vec<u8>> {
    let plan = Datasets::default().plan(grant, split, None).unwrap();
    // Another instance, as another host would be.
    let datasets = Datasets::default();
    (0..plan.splits).map(|index| datasets.read(grant, &plan, index).unwrap().bytes().unwrap().to_vec()).collect()
}

#[test]
fn files_are_read_in_the_order_of_their_path_bytes_and_only_those_included() {
    let files: [(&str, &[u8]); 5] =
        [("b.rs", b"b\n"), ("a/z.rs", b"z\n"), ("a.rs", b"a\n"), ("B.rs", b"B\n"), ("c.txt", b"no\n")];
    let directory = directory(&files);
    assert_eq!(read_all(&grant(directory.path(), &["*.rs"]), ByteSize(4096)), [b"B\na\nz\nb\n"]);
}

#[test]
fn symbolic_links_lead_nowhere() {
    let directory = directory(&[("in/a", b"a\n"), ("out/secret", b"secret\n")]);
    std::os::unix::fs::symlink("../out", directory.path().join("in/link")).unwrap();
    std::os::unix::fs::symlink("../out/secret", directory.path().join("in/file")).unwrap();
    assert_eq!(read_all(&grant(&directory.path().join("in"), &[]), ByteSize(4096)), [b"a\n"]);
}

#[test]
fn a_file_that_became_a_link_is_not_read() {
    let directory = directory(&[("in/a", b"12345678"), ("secret", b"87654321")]);
    let grant = grant(&directory.path().join("in"), &[]);
    let datasets = Datasets::default();
    let plan = datasets.plan(&grant, ByteSize(4096), None).unwrap();
    fs::remove_file(directory.path().join("in/a")).unwrap();
    std::os::unix::fs::symlink("../secret", directory.path().join("in/a")).unwrap();
    let error = datasets.read(&grant, &plan, 0).unwrap_err();
    assert!(matches!(error, DatasetError::Read { .. }), "{error}");
}

#[test]
fn a_changed_dataset_is_refused() {
    let directory = directory(&[("a", b"1\n"), ("b", b"2\n")]);
    let grant = grant(directory.path(), &[]);
    let planner = Datasets::default();
    let plan = planner.plan(&grant, ByteSize(4096), None).unwrap();
    fs::write(directory.path().join("b"), b"other\n").unwrap();
    let of_another_host = Datasets::default().read(&grant, &plan, 0).unwrap_err().to_string();
    assert_eq!(of_another_host, "the dataset d changed since the job was submitted; submit the job again");
    let of_the_planner = planner.read(&grant, &plan, 0).unwrap_err();
    assert!(matches!(of_the_planner, DatasetError::FileChanged { .. }), "{of_the_planner}");
}

#[test]
fn a_limit_keeps_the_first_files_that_reach_it() {
    let directory = directory(&[("a", b"12345\n"), ("b", b"12345\n"), ("c", b"12345\n")]);
    let grant = grant(directory.path(), &[]);
    let plan = |limit| Datasets::default().plan(&grant, ByteSize(4096), Some(ByteSize(limit))).unwrap();
    assert_eq!((plan(6).files, plan(7).files, plan(0).files, plan(100).files), (1, 2, 0, 3));
}

#[test]
fn a_single_file_can_be_a_dataset() {
    let directory = directory(&[("a", b"1\n2\n3\n"), ("b", b"no")]);
    assert_eq!(read_all(&grant(&directory.path().join("a"), &[]), ByteSize(2)).concat(), b"1\n2\n3\n");
}

#[test]
fn a_split_that_does_not_exist_is_refused() {
    let directory = directory(&[("a", b"1\n")]);
    let grant = grant(directory.path(), &[]);
    let datasets = Datasets::default();
    let plan = datasets.plan(&grant, ByteSize(4096), None).unwrap();
    assert!(matches!(datasets.read(&grant, &plan, 1), Err(DatasetError::NoSuchSplit { splits: 1, index: 1, .. })));
}

#[test]
fn a_missing_location_is_named() {
    let error = Datasets::default().plan(&grant(Path::new("/nowhere/at/all"), &[]), ByteSize(4096), None).unwrap_err();
    assert_eq!(error.to_string(), "cannot read /nowhere/at/all");
}

/// Lines of lengths that often fall on cuts, with and without a line feed at the end.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let line = (0_usize..12, any::<u8>()).prop_map(|(length, byte)| vec![b'a' + byte % 26; length]);
    (proptest::collection::vec(line, 0..12), any::<bool>()).prop_map(|(lines, terminated)| {
        let mut bytes = lines.join(&b'\n');
        if terminated && !bytes.is_empty() {
            bytes.push(b'\n');
        }
        bytes
    })
}

fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    if bytes.is_empty() { Vec::new() } else { body.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_line_is_in_exactly_one_split_whole_and_in_order(
        contents in proptest::collection::vec(content(), 0..6),
        split in 1_u64..40,
    ) {
        let names: Vec<String> = (0..contents.len()).map(|number| format!("{number:02}")).collect();
        let files: Vec<(&str, &[u8])> =
            names.iter().map(String::as_str).zip(contents.iter().map(Vec::as_slice)).collect();
        let directory = directory(&files);
        let splits = read_all(&grant(directory.path(), &[]), ByteSize(split));
        let expected: Vec<Vec<u8>> = contents.iter().flat_map(|content| lines(content)).collect();
        let found: Vec<Vec<u8>> = splits.iter().flat_map(|split| lines(split)).collect();
        prop_assert_eq!(found, expected);
        let bytes: usize = contents.iter().map(Vec::len).sum();
        let added = splits.concat().len() - bytes;
        prop_assert!(added < contents.len().max(1), "{} line feeds were added", added);
    }
}
