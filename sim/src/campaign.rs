//! Many seeds, one after the other or on several threads, until there were enough or the time is over.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::plan::Plan;
use crate::plant::Plant;
use crate::run::{Failed, Options, run};

/// Which seeds to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Campaign {
    /// The first.
    pub first: u64,
    /// How many.
    pub seeds: u64,
    /// On how many threads.
    pub threads: usize,
    /// A fault to put in.
    pub plant: Option<Plant>,
}

/// A seed that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub seed: u64,
    /// How.
    pub failed: Box<Failed>,
}

/// What came of a campaign.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// Seeds that were run.
    pub seeds: u64,
    /// Steps of all together.
    pub steps: u64,
    /// Simulated time of all together.
    pub simulated: Duration,
    /// The failures, in the order of their seeds.
    pub found: Vec<Found>,
}

impl Campaign {
    /// Runs seeds until all were run, one failed, or `goes_on` says no; it is told after each seed.
    #[must_use]
    pub fn run(&self, goes_on: &(dyn Fn(&Summary) -> bool + Sync)) -> Summary {
        let next = AtomicU64::new(self.first);
        let summary = Mutex::new(Summary::default());
        let work = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed - self.first >= self.seeds {
                    return;
                }
                let result = run(&Plan::generate(seed), Options { plant: self.plant, traced: false });
                let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
                summary.seeds += 1;
                match result {
                    Ok(finished) => {
                        summary.steps += finished.steps;
                        summary.simulated += finished.simulated;
                    }
                    Err(failed) => summary.found.push(Found { seed, failed }),
                }
                if !summary.found.is_empty() || !goes_on(&summary) {
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(work);
            }
        });
        let mut summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
        summary.found.sort_by_key(|found| found.seed);
        summary
    }
}
