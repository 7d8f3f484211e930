//! Random plans, continued: what the scheduler can do besides running graphs, added to a plan that has its graphs.

use partita_testkit::Random;

use crate::plan::{JobPlan, Plan};

impl Plan {
    /// Adds features to a plan. Each has a generator of its own, so that another one does not shift the numbers of these.
    pub(crate) fn decorate(&mut self, random: &mut Random) {
        let mut crashes = random.fork();
        self.jobs.iter_mut().for_each(|job| kill_executors(&mut crashes, job));
    }
}

/// Lets a task of some jobs kill its executor, as long as anybody runs it.
fn kill_executors(random: &mut Random, job: &mut JobPlan) {
    let array = random.below(job.arrays.len() as u64) as usize;
    let array = &mut job.arrays[array];
    if random.chance(5) && !array.upload {
        array.crashes = true;
    }
}
