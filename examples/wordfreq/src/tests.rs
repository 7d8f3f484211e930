//! The task functions one by one, and the whole job as the cluster would run it.

use std::collections::BTreeMap;

use partita::testing;

use super::*;

const PIECES: [&str; 4] = [
    "fn main() { let x = 1; println!(\"{x}\"); }\n",
    "impl Top { fn merge(&mut self, other: Self) { self.tokens += other.tokens; } }\n",
    "let x = x + y; // x again, and 0xff\n",
    "",
];

fn filter(min_length: usize) -> Args<Filter> {
    Args(Filter { min_length })
}

/// The counts of all pieces, found in the plainest way.
fn expected() -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for word in PIECES.concat().split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_')) {
        if word.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') {
            *counts.entry(word.to_owned()).or_default() += 1;
        }
    }
    counts
}

/// Runs map, shuffle, reduce and fold on bytes, as jobs do.
fn run_job(reducers: usize, n: u64) -> Result<Top> {
    let arguments = format!("{{\"n\": {n}}}");
    let mut parts: Vec<Vec<Vec<u8>>> = Vec::new();
    for piece in PIECES {
        parts.push(testing::run(&MODULE, "map", "", vec![vec![piece.as_bytes().to_vec()]], reducers)?);
    }
    let mut reduced = Vec::new();
    for index in 0..reducers {
        let slice = parts.iter().map(|outputs| outputs[index].clone()).collect();
        reduced.extend(testing::run(&MODULE, "reduce", &arguments, vec![slice], 1)?);
    }
    while reduced.len() > 1 {
        let group = reduced.drain(..2).collect();
        reduced.extend(testing::run(&MODULE, "top", &arguments, vec![group], 1)?);
    }
    Ok(serde_json::from_slice(&reduced[0])?)
}

#[test]
fn the_job_finds_what_a_plain_count_finds() {
    let counts = expected();
    let mut sorted: Vec<(String, u64)> = counts.clone().into_iter().collect();
    sorted.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    for reducers in [1, 3, 8] {
        let top = run_job(reducers, 5).unwrap();
        assert_eq!(top.words, sorted[..5], "with {reducers} reducers");
        assert_eq!(top.distinct, counts.len() as u64);
        assert_eq!(top.tokens, counts.values().sum::<u64>());
        assert_eq!(top.identifier_bytes, counts.iter().map(|(word, count)| word.len() as u64 * count).sum::<u64>());
    }
}

#[test]
fn every_word_is_in_one_part_only() {
    let parts = map(Bytes::from(PIECES.concat().as_str()), filter(0), Outputs::of(4)).unwrap();
    let mut counter = Counter::default();
    for part in &parts {
        part.add_to(&mut counter).unwrap();
    }
    let words: usize = parts.iter().map(|part| part.lengths.len()).sum();
    assert_eq!(words as u64, counter.distinct());
    assert_eq!(counter.distinct(), expected().len() as u64);
}

#[test]
fn short_identifiers_can_be_left_out() {
    let parts = map(Bytes::from("a bb ccc"), filter(2), Outputs::of(1)).unwrap();
    assert_eq!(parts[0].words, "bbccc");
}

#[test]
fn a_top_that_was_cut_too_short_is_refused() {
    let reduced = reduce(Many::from(vec![]), Args(Length { n: 3 })).unwrap();
    let error = top(Many::from(vec![reduced]), Args(Length { n: 4 })).unwrap_err();
    assert!(error.to_string().contains("the top 4 cannot be found in lists that were cut to 3"), "{error}");
}

#[test]
fn a_part_that_contradicts_itself_is_refused() {
    let torn = Counts { words: "ab".into(), lengths: vec![3], counts: vec![1] };
    assert!(torn.add_to(&mut Counter::default()).is_err());
    let uneven = Counts { words: "ab".into(), lengths: vec![2], counts: vec![] };
    assert!(uneven.add_to(&mut Counter::default()).is_err());
}

#[test]
fn unknown_arguments_are_refused() {
    let error = testing::run(&MODULE, "map", "{\"minlength\": 1}", vec![vec![vec![]]], 1).unwrap_err();
    assert!(error.to_string().starts_with("the arguments of `map`: unknown field `minlength`"), "{error}");
}
