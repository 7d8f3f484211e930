//! What continuous integration runs of the simulation: some hundred seeds, the plans that once failed, and some seeds
//! twice. `cargo xtask sim` runs as many as there is time for.

use partita_sim::{Options, Plan, run};

/// Seeds per test; the tests run in parallel.
const SEEDS: u64 = 65;

fn all_hold(part: u64) {
    for seed in part * SEEDS..(part + 1) * SEEDS {
        if let Err(failed) = run(&Plan::generate(seed), Options::default()) {
            panic!("seed {seed}: {failed}\nsee it: cargo xtask sim --seed {seed} --seeds 1");
        }
    }
}

#[test]
fn whatever_goes_wrong_everything_holds_and_ends_well_1() {
    all_hold(0);
}

#[test]
fn whatever_goes_wrong_everything_holds_and_ends_well_2() {
    all_hold(1);
}

#[test]
fn whatever_goes_wrong_everything_holds_and_ends_well_3() {
    all_hold(2);
}

#[test]
fn whatever_goes_wrong_everything_holds_and_ends_well_4() {
    all_hold(3);
}

#[test]
fn whatever_goes_wrong_everything_holds_and_ends_well_5() {
    all_hold(4);
}

#[test]
fn whatever_goes_wrong_everything_holds_and_ends_well_6() {
    all_hold(5);
}

#[test]
fn whatever_goes_wrong_everything_holds_and_ends_well_7() {
    all_hold(6);
}

#[test]
fn whatever_goes_wrong_everything_holds_and_ends_well_8() {
    all_hold(7);
}

#[test]
fn the_same_seed_gives_the_same_log() {
    let hash = |seed| run(&Plan::generate(seed), Options { traced: true, plant: None }).map(|finished| finished.hash);
    let mut hashes = Vec::new();
    for seed in [3, 77, 1_001] {
        let first = hash(seed).expect("everything holds");
        assert_eq!(Ok(first), hash(seed), "seed {seed}");
        hashes.push(first);
    }
    hashes.dedup();
    assert_eq!(hashes.len(), 3, "{hashes:?}");
}

#[test]
fn plans_that_once_failed_do_so_no_more() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus");
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .expect("the corpus")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "the corpus is empty");
    for file in files {
        let text = std::fs::read_to_string(&file).expect("readable");
        let plan: Plan = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        if let Err(failed) = run(&plan, Options::default()) {
            panic!("{}: {failed}", file.display());
        }
    }
}
