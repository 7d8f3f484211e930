//! A deterministic simulation of a cluster in which everything goes wrong: hosts die and come back with or without what
//! they had, connections break silently, messages are late, the scheduler crashes and loses what it had not flushed.
//!
//! Every invariant is checked after every event. At the end everything is healed; then every job must end, every result
//! must be what its submission says, and nothing may be left behind. A failure prints its seed: put it into
//! `one_seed_for_debugging` to see that run again.

#![allow(clippy::cast_possible_truncation, reason = "the numbers here are small")]

mod checks;
mod clients;
mod hosts;
mod world;

use world::World;

/// Seeds per test; the tests run in parallel.
const SEEDS: u64 = 50;

fn run(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        World::new(seed).run();
    }
}

#[test]
fn whatever_goes_wrong_every_job_ends_with_right_results_a() {
    run(0..SEEDS);
}

#[test]
fn whatever_goes_wrong_every_job_ends_with_right_results_b() {
    run(SEEDS..2 * SEEDS);
}

#[test]
fn whatever_goes_wrong_every_job_ends_with_right_results_c() {
    run(2 * SEEDS..3 * SEEDS);
}

#[test]
fn whatever_goes_wrong_every_job_ends_with_right_results_d() {
    run(3 * SEEDS..4 * SEEDS);
}

#[test]
fn the_same_seed_gives_the_same_log() {
    let hash = |seed| World::new(seed).traced().run();
    for seed in [3, 77] {
        assert_eq!(hash(seed), hash(seed), "seed {seed}");
    }
    assert_ne!(hash(3), hash(77));
}

#[test]
fn one_seed_for_debugging() {
    World::new(67).traced().run();
}
