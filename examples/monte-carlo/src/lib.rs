//! How large is pi? `sample` throws darts at a square and counts those that hit the circle in it, `merge` adds up.
//!
//! No input at all: the tasks of the array differ in the random numbers that their hosts give them. In a deterministic
//! task, which is the default, these follow from the task's identity, so a job has one result, wherever and however often
//! its tasks run.

use partita::prelude::*;
use partita::{Random, ensure};
use serde::{Deserialize, Serialize};

partita::module!(sample, merge);

/// What was thrown so far, and what follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// How many darts.
    pub samples: u64,
    /// How many of them hit the circle.
    pub hits: u64,
    /// The circle's part of the square, times four.
    pub pi: f64,
    /// The standard error of `pi`.
    pub error: f64,
}

impl Estimate {
    fn of(samples: u64, hits: u64) -> Self {
        let part = hits as f64 / samples as f64;
        let error = 4.0 * (part * (1.0 - part) / samples as f64).sqrt();
        Self { samples, hits, pi: 4.0 * part, error }
    }
}

/// Arguments of [`sample`].
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Darts {
    /// How many to throw.
    pub samples: u64,
}

/// Throws darts and counts the hits.
#[partita::task]
pub fn sample(Args(darts): Args<Darts>) -> Result<Json<Estimate>> {
    ensure!(darts.samples > 0, "`samples` is 0, so there is nothing to count");
    Ok(Json(Estimate::of(darts.samples, throw(darts.samples, &mut Random::new()))))
}

/// How many of so many darts hit.
fn throw(samples: u64, random: &mut Random) -> u64 {
    let mut hits = 0;
    for _ in 0..samples {
        let (x, y) = (random.next_f64(), random.next_f64());
        hits += u64::from(x * x + y * y < 1.0);
    }
    hits
}

/// Adds estimates up.
#[partita::task]
pub fn merge(parts: Many<Json<Estimate>>) -> Result<Json<Estimate>> {
    let (mut samples, mut hits) = (0, 0);
    for part in parts {
        let part = part?;
        samples += part.samples;
        hits += part.hits;
    }
    ensure!(samples > 0, "there is nothing to merge");
    Ok(Json(Estimate::of(samples, hits)))
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use partita::testing;

    use super::*;

    fn args(samples: u64) -> Args<Darts> {
        Args(Darts { samples })
    }

    #[test]
    fn the_estimate_is_within_its_error() {
        let samples = 200_000;
        let estimate = Estimate::of(samples, throw(samples, &mut Random::seeded(1)));
        assert!((estimate.pi - PI).abs() < 4.0 * estimate.error, "{estimate:?}");
        assert!((0.003..0.004).contains(&estimate.error), "{estimate:?}");
    }

    #[test]
    fn merging_adds_up() {
        let parts = vec![Json(Estimate::of(100, 80)), Json(Estimate::of(300, 220))];
        assert_eq!(merge(Many::from(parts)).unwrap().0, Estimate::of(400, 300));
        assert_eq!(Estimate::of(400, 300).pi, 3.0);
    }

    #[test]
    fn tasks_throw_different_darts() {
        let hits: Vec<u64> = (0..8).map(|_| sample(args(100_000)).unwrap().hits).collect();
        assert!(hits.iter().any(|count| *count != hits[0]), "{hits:?}");
    }

    #[test]
    fn the_whole_job_through_bytes() {
        let run = |name: &str, args: &str, inputs| testing::run(&MODULE, name, args, inputs, 1).unwrap().remove(0);
        let parts: Vec<Vec<u8>> = (0..4).map(|_| run("sample", r#"{"samples": 50000}"#, vec![])).collect();
        let halves = parts.chunks(2).map(|pair| run("merge", "", vec![pair.to_vec()])).collect();
        let result: Estimate = serde_json::from_slice(&run("merge", "", vec![halves])).unwrap();
        assert_eq!(result.samples, 200_000);
        assert!((result.pi - PI).abs() < 0.05, "{result:?}");
    }

    #[test]
    fn nothing_to_do_is_an_error() {
        assert!(sample(args(0)).is_err());
        assert!(merge(Many::from(vec![])).is_err());
        let error = testing::run(&MODULE, "sample", "", vec![], 1).unwrap_err();
        assert!(error.to_string().contains("missing field `samples`"), "{error}");
    }
}
