//! The way of a new user: a project from the template, built, pushed and run, with the commands of the README.

#![allow(clippy::unwrap_used, reason = "what goes wrong in a test ends it")]

use partita_tests::{Cluster, Finished};
use serde_json::Value;

#[test]
fn a_new_project_builds_and_runs() {
    let cluster = Cluster::start(1);
    let mut new = cluster.program();
    let _ = Finished::of(new.args(["new", "hello"])).success();
    let project = cluster.path().join("hello");
    // The user's own toolchain and crates; the project has a target directory of its own.
    let home = std::env::home_dir().unwrap();
    let mut build = cluster.program();
    build.arg("build").current_dir(&project).env("HOME", home).env_remove("CARGO_TARGET_DIR");
    let built = Finished::of(&mut build).success();
    assert!(built.contains("hello.wasm"), "{built}");

    let mut run = cluster.partita("research");
    run.current_dir(&project).args(["run", "job.toml", "--result", "merge", "--output", "result"]);
    let _ = Finished::of(&mut run).success();
    let result = std::fs::read_to_string(project.join("result")).unwrap();
    let counts: Value = serde_json::Deserializer::from_str(&result).into_iter().last().unwrap().unwrap();
    assert_eq!(counts["the"], 2, "{counts}");
    assert_eq!(counts["fox"], 1, "{counts}");
}
