//! The examples give the right results on a cluster of two hosts.

#![allow(clippy::unwrap_used, reason = "what goes wrong in a test ends it")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use partita_tests::{Cluster, example_job, repository};
use serde_json::Value;

/// Source code of no sense, the same at every run, in files of different sizes; and its identifiers with their counts.
fn write_sources(directory: &Path) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    let mut state = 7_u64;
    let mut next = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for file in 0..60 {
        let mut text = String::new();
        for _ in 0..(file * 7 + 1) {
            let spread = 1 + next(300);
            let word = format!("name_{}", next(spread));
            writeln!(text, "let {word} = {}; // 0x{word}", next(1_000)).unwrap();
            *counts.entry("let".to_owned()).or_insert(0) += 1;
            *counts.entry(word).or_insert(0) += 1;
        }
        let path = directory.join(format!("part-{}/file-{file}.rs", file % 5));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        fs::write(directory.join(format!("part-{}/file-{file}.txt", file % 5)), "not_counted").unwrap();
    }
    counts
}

/// The outputs of the last task of an array, as JSON.
fn last(result: &str) -> Value {
    serde_json::Deserializer::from_str(result).into_iter().last().unwrap().unwrap()
}

#[test]
fn wordfreq_counts_exactly() {
    let cluster = Cluster::start(2);
    let counts = write_sources(&cluster.path().join("crates"));
    let job = example_job("wordfreq").replace("split = \"8MiB\"", "split = \"16KiB\"");
    let (summary, result) = cluster.run("analytics", &job, "top");
    let top = last(&result);

    let mut expected: Vec<(&String, &u64)> = counts.iter().collect();
    expected.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
    let words: Vec<(String, u64)> = serde_json::from_value(top["words"].clone()).unwrap();
    let expected: Vec<(String, u64)> =
        expected.into_iter().take(20).map(|(word, count)| (word.clone(), *count)).collect();
    assert_eq!(words, expected);
    assert_eq!(top["tokens"], counts.values().sum::<u64>());
    assert_eq!(top["distinct"], counts.len());
    assert_eq!(summary["files"], 60);
    assert!(summary["tasks"].as_u64().unwrap() > 30, "{summary}");
    assert_eq!(summary["attempts"], summary["tasks"]);
}

#[test]
fn monte_carlo_adds_up_every_sample() {
    let cluster = Cluster::start(2);
    let job = example_job("monte-carlo").replace("10_000_000", "20_000");
    let (summary, result) = cluster.run("research", &job, "merge");
    let estimate = last(&result);
    assert_eq!(estimate["samples"], 100 * 20_000);
    let (pi, error) = (estimate["pi"].as_f64().unwrap(), estimate["error"].as_f64().unwrap());
    assert!((pi - std::f64::consts::PI).abs() < 6.0 * error, "{estimate}");
    // Sixteen at a time: 7 tasks merge 100, one merges those 7.
    assert_eq!(summary["tasks"], 108);
}

#[test]
fn etl_gives_the_table_that_is_expected() {
    let cluster = Cluster::start(2);
    let (_, result) = cluster.run("analytics", &example_job("etl"), "table");
    let expected = fs::read_to_string(repository().join("examples/etl/data/expected.csv")).unwrap();
    assert_eq!(result, expected);

    // What the tasks said on the way is there as well, from both hosts and in the order of the tasks.
    let log = cluster.ask("analytics", &["--json", "job", "log", "1", "extract"]);
    let attempts: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kept = |text: &str| text.strip_suffix(" dropped")?.split_once(" rows kept, ")?.0.parse::<u64>().ok();
    let rows: Option<u64> = attempts.iter().map(|attempt| kept(attempt["lines"][0]["text"].as_str()?)).sum();
    assert_eq!(rows, Some(248), "{log}");
    let tasks: Vec<u64> = attempts.iter().map(|attempt| attempt["index"].as_u64().unwrap()).collect();
    assert!(tasks.len() > 1 && tasks.is_sorted(), "{log}");
    let one = cluster.ask("analytics", &["job", "log", "1", "extract", "--task", "0"]);
    assert!(one.starts_with("extract[0]  info   ") && one.lines().count() == 1, "{one}");
    let refused = cluster.refused("analytics", &["job", "log", "1", "extrat"]);
    assert!(refused.contains("job 1 has no array \"extrat\"; it has: extract, summarise, table"), "{refused}");
    assert!(cluster.refused("research", &["job", "log", "1"]).contains("job 1"), "another tenant's job is not found");
}

#[test]
fn two_tenants_run_at_once_and_see_only_their_own() {
    let cluster = Cluster::start(2);
    let job = example_job("monte-carlo").replace("10_000_000", "200_000");
    let first = cluster.submit("research", &job);
    let second = cluster.submit("analytics", &job);
    for (who, number) in [("research", &first), ("analytics", &second)] {
        let mut watch = cluster.watch(who, number);
        let end = watch.line("the end of the job", |line| line.contains("job-ended"));
        assert!(end.contains("succeeded"), "{end}");
        let listed = cluster.ask(who, &["--json", "job", "list"]);
        assert_eq!(listed.lines().count(), 1, "{listed}");
        assert!(listed.contains(&format!("\"tenant\":\"{who}\"")), "{listed}");
    }
}
