//! The job on the real table, compared with a result that was found without any of the code above.

use partita::testing;

use super::*;

const COUNTRIES: &str = include_str!("../data/countries.csv");
const EXPECTED: &str = include_str!("../data/expected.csv");

/// Cuts a text at line ends into pieces of about `size` bytes, as hosts do with a dataset.
fn pieces(text: &str, size: usize) -> Vec<Vec<u8>> {
    let mut pieces = vec![Vec::new()];
    for line in text.split_inclusive('\n') {
        if pieces.last().is_some_and(|piece| piece.len() >= size) {
            pieces.push(Vec::new());
        }
        if let Some(piece) = pieces.last_mut() {
            piece.extend_from_slice(line.as_bytes());
        }
    }
    pieces
}

fn run_job(text: &str, size: usize, groups: usize, arguments: &str) -> Result<String> {
    let mut parts = Vec::new();
    for piece in pieces(text, size) {
        parts.push(testing::run(&MODULE, "extract", arguments, vec![vec![piece]], groups)?);
    }
    let mut summaries = Vec::new();
    for index in 0..groups {
        let slice = parts.iter().map(|outputs| outputs[index].clone()).collect();
        summaries.extend(testing::run(&MODULE, "summarise", "", vec![slice], 1)?);
    }
    let result = testing::run(&MODULE, "table", "", vec![summaries], 1)?.remove(0);
    Ok(String::from_utf8(result)?)
}

/// The result by other means: fields are taken off the end of each line, groups are counted by searching the text.
fn expected_by_searching() -> String {
    let lines: Vec<&str> = COUNTRIES.lines().skip(1).filter(|line| !line.ends_with(",,")).collect();
    let tail = |line: &str| line.rsplitn(3, ',').take(2).map(str::to_owned).collect::<Vec<_>>();
    let name = |line: &str| line.rsplitn(6, ',').last().unwrap_or_default().to_owned();
    let mut groups: Vec<Vec<String>> = lines.iter().map(|line| tail(line)).collect();
    groups.sort_by(|a, b| (&a[1], &a[0]).cmp(&(&b[1], &b[0])));
    groups.dedup();
    let mut text = "region,sub_region,countries,longest_name\n".to_owned();
    for group in groups {
        let ending = format!(",{},{}", group[1], group[0]);
        let mut names: Vec<String> =
            lines.iter().filter(|line| line.ends_with(&ending)).map(|line| name(line)).collect();
        names.sort_by_key(|name| (std::cmp::Reverse(name.trim_matches('"').chars().count()), name.clone()));
        text += &format!("{},{},{},{}\n", group[1], group[0], names.len(), names[0]);
    }
    text
}

#[test]
fn the_expected_table_is_what_searching_the_text_finds() {
    assert_eq!(expected_by_searching(), EXPECTED);
}

#[test]
fn the_job_gives_the_expected_table_however_it_is_cut() {
    for size in [1, 500, 2048, 1 << 20] {
        for groups in [1, 4] {
            assert_eq!(run_job(COUNTRIES, size, groups, "").unwrap(), EXPECTED, "pieces of {size}, {groups} groups");
        }
    }
}

#[test]
fn one_region_can_be_chosen() {
    let table = run_job(COUNTRIES, 2048, 3, r#"{"region": "Oceania"}"#).unwrap();
    let expected: Vec<&str> =
        EXPECTED.lines().filter(|line| line.starts_with("region") || line.starts_with("Oceania")).collect();
    assert_eq!(table.lines().collect::<Vec<_>>(), expected);
    assert_eq!(expected.len(), 5);
}

#[test]
fn a_row_with_a_field_too_few_is_an_error_that_names_the_line() {
    let error = run_job("name,alpha2,alpha3,numeric,region,sub_region\nA,B\n", 1 << 20, 1, "").unwrap_err();
    assert!(error.to_string().contains("line: 2"), "{error}");
}

#[test]
fn the_data_is_complete() {
    let rows: Vec<csv::StringRecord> =
        csv::Reader::from_reader(COUNTRIES.as_bytes()).records().map(|row| row.unwrap()).collect();
    assert_eq!(rows.len(), 249);
    for (column, length) in [(1, 2), (2, 3), (3, 3)] {
        let codes: std::collections::BTreeSet<&str> = rows.iter().map(|row| &row[column]).collect();
        assert_eq!(codes.len(), 249, "column {column}");
        assert!(codes.iter().all(|code| code.len() == length), "column {column}");
    }
    assert_eq!(rows.iter().filter(|row| row[4].is_empty()).count(), 1, "only Antarctica has no region");
}
