//! The sample and the schema are what the parser really takes.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use partita_policy::{PolicySet, Resources, Share, json_schema};
use partita_types::{ByteSize, CohortName, Isolation, MilliCpu, TaskLimits, TenantName};
use serde_json::Value;

const SAMPLE: &str = include_str!("../sample.toml");

fn tenant(name: &str) -> TenantName {
    TenantName::new(name).expect("a tenant name")
}

#[test]
fn the_sample_directory_is_a_valid_policy_set() {
    let set = PolicySet::load(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap_or_else(|errors| panic!("{errors}"));
    let names: Vec<&str> = set.iter().map(|policy| policy.name.as_str()).collect();
    assert_eq!(names, ["analytics", "research"]);
}

#[test]
fn the_sample_says_what_its_comments_say() {
    let set = PolicySet::parse(&[("sample.toml", SAMPLE)]).unwrap();
    let analytics = set.get(&tenant("analytics")).unwrap();
    assert_eq!(analytics.quota.weight, 2);
    assert_eq!((analytics.quota.concurrent_tasks, analytics.quota.cpu), (64, MilliCpu(12_500)));
    assert_eq!(analytics.quota.frames(), 13, "12.5 cores allow 13 tasks, fewer than the 64 written");
    assert_eq!(analytics.share.cohort.as_ref().map(CohortName::as_str), Some("reporting"));
    let guaranteed = Resources { cpu: MilliCpu(8000), memory: ByteSize::gib(16), stored: ByteSize::gib(20) };
    assert_eq!(analytics.share.guaranteed, guaranteed);
    assert_eq!(analytics.share.borrow.cpu, Some(MilliCpu(4000)));
    assert_eq!(analytics.share.lend.stored, Some(ByteSize::ZERO));
    assert_eq!(analytics.quota.stored, ByteSize::gib(100));
    assert_eq!(analytics.minimum_isolation, Isolation::Full);
    assert_eq!(analytics.token_lifetime, Duration::from_secs(8 * 3600));
    assert_eq!(analytics.unrunnable_after, Duration::from_secs(15 * 60));
    assert_eq!(analytics.retention, Some(Duration::from_secs(7 * 86_400)));
    assert_eq!(analytics.task_defaults, TaskLimits::default());
    assert_eq!(analytics.task_maxima.wall_time, Duration::from_secs(7200));
    assert_eq!(analytics.datasets.len(), 2);
    assert_eq!(analytics.datasets[0].name.as_str(), "access-logs");
    assert_eq!(analytics.datasets[0].include, ["*.log", "*.ndjson"]);
    assert!(analytics.datasets[1].include.is_empty());

    let research = set.get(&tenant("research")).unwrap();
    assert_eq!((research.quota.weight, research.quota.frames()), (1, 4));
    assert_eq!(research.task_maxima.output, ByteSize::gib(2), "no attempt can write more than may be stored");
    assert_eq!((research.unrunnable_after, research.retention), (Duration::from_secs(600), None));
    assert_eq!(research.minimum_isolation, Isolation::Seccomp);
    assert_eq!(*research.share, Share::default(), "nothing is guaranteed, and nothing bounds what it borrows");
    assert!(set.get(&tenant("nobody")).is_none());
}

/// All property names of a schema.
fn keys_of(schema: &Value, keys: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::Object(properties)) = members.get("properties") {
                keys.extend(properties.keys().cloned());
            }
            members.values().for_each(|member| keys_of(member, keys));
        }
        Value::Array(entries) => entries.iter().for_each(|entry| keys_of(entry, keys)),
        _ => {}
    }
}

#[test]
fn the_sample_mentions_every_key_of_the_schema() {
    let schema: Value = serde_json::from_str(&json_schema()).unwrap();
    let mut keys = BTreeSet::new();
    keys_of(&schema, &mut keys);
    assert!(keys.len() > 20, "only {} keys were found in the schema", keys.len());
    for key in keys {
        let written = SAMPLE.lines().any(|line| {
            let line = line.trim_start();
            line.starts_with(&format!("{key} = "))
                || line.starts_with('[') && line.split(['[', ']', '.']).any(|part| part == key)
        });
        assert!(written, "the sample does not show the key {key}");
    }
}

#[test]
fn the_parser_knows_the_keys_of_the_schema_and_no_others() {
    let schema: Value = serde_json::from_str(&json_schema()).unwrap();
    let sections = [
        ("Tenant", "[tenant.a]\nnonsense = 1\n"),
        ("Quota", "[tenant.a.quota]\nnonsense = 1\n"),
        ("Limits", "[tenant.a.maxima]\nnonsense = 1\n"),
        ("Resources", "[tenant.a.lend]\nnonsense = 1\n"),
        ("Dataset", "[[tenant.a.dataset]]\nname = 'n'\nlocation = '/l'\nnonsense = 1\n"),
    ];
    for (definition, text) in sections {
        let in_schema: Vec<&str> =
            schema["$defs"][definition]["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        let message = PolicySet::parse(&[("a.toml", text)]).unwrap_err().to_string();
        let known: Vec<&str> = message.split_once("known keys: ").unwrap().1.split(", ").collect();
        assert_eq!(known, in_schema, "{definition}");
        assert_eq!(schema["$defs"][definition]["additionalProperties"], Value::Bool(false), "{definition}");
    }
}

#[test]
fn the_committed_schema_is_current() {
    assert_eq!(
        include_str!("../schema.json"),
        json_schema(),
        "run: cargo run -p partita-policy --example schema > policies/schema.json"
    );
}

#[test]
fn a_part_of_a_core_is_enough_for_one_task() {
    let policy = |text: &str| PolicySet::parse(&[("a.toml", text)]).unwrap().get(&tenant("acme")).unwrap().clone();
    let half = policy("[tenant.acme.quota]\ncpu = 0.5\n");
    assert_eq!((half.quota.frames(), half.cpu_limit()), (1, MilliCpu(500)));
    let borrowing = policy("[tenant.acme.guaranteed]\ncpu = 1\n[tenant.acme.borrow]\ncpu = 0.25\n");
    assert_eq!(borrowing.cpu_limit(), MilliCpu(1250), "what it is guaranteed, and what it may borrow");
    assert_eq!(policy("[tenant.acme]\n").cpu_limit(), MilliCpu(1_000_000_000));
}
