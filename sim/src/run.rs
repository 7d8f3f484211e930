//! One simulation from beginning to end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use partita_core::Violation;

use crate::plan::Plan;
use crate::plant::Plant;
use crate::world::World;

/// How to run a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// A fault to put in.
    pub plant: Option<Plant>,
    /// Note what happens, which takes several times as long.
    pub traced: bool,
}

/// A run in which everything held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Of everything that happened; 0 unless the run was traced.
    pub hash: u64,
    /// Steps of the simulation.
    pub steps: u64,
    /// Simulated time.
    pub simulated: Duration,
}

/// A run in which something did not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{violation} (after {steps} steps)")]
pub struct Failed {
    /// What, and where.
    pub violation: Violation,
    /// Steps until then.
    pub steps: u64,
    /// The last lines of the log, if the run was traced.
    pub log: Vec<String>,
}

/// Runs a plan. The same plan and options always give the same result.
///
/// # Errors
/// The first invariant that does not hold. A panic of the core counts as one.
pub fn run(plan: &Plan, options: Options) -> Result<Finished, Box<Failed>> {
    let mut world = World::new(plan, options.plant, options.traced);
    // A world that panicked is only asked for its log.
    let result = catch_unwind(AssertUnwindSafe(|| {
        let healing = world.healing();
        world.run_until(healing, |_| false)?;
        world.end_well()
    }));
    let violation = match result {
        Ok(Ok(())) => {
            return Ok(Finished {
                hash: if options.traced { world.log.hash() } else { 0 },
                steps: world.steps_taken(),
                simulated: world.simulated(),
            });
        }
        Ok(Err(violation)) => violation,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Violation { invariant: "nothing_panics", detail: text }
        }
    };
    Err(Box::new(Failed { violation, steps: world.steps_taken(), log: world.log.take_lines() }))
}
