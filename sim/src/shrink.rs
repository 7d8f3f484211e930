//! Cuts a plan that fails down to the little that matters: delta debugging (Zeller and Hildebrandt, IEEE TSE 2002) over
//! faults, jobs, arrays and hosts, and simpler values for the rest.

use crate::plan::{ArrayPlan, JobPlan, Plan};
use crate::plant::Plant;
use crate::run::{Failed, Options, run};

/// Runs that shrinking takes at most.
const RUNS: u32 = 2_000;

/// A smaller plan that fails in the same way, and how it fails. `None` if the plan does not fail at all.
#[must_use]
pub fn shrink(plan: &Plan, plant: Option<Plant>) -> Option<(Plan, Box<Failed>)> {
    let failed = run(plan, Options { plant, traced: false }).err()?;
    let mut shrinker =
        Shrinker { plant, invariant: failed.violation.invariant, best: plan.clone(), failed, runs: RUNS };
    while shrinker.pass() && shrinker.runs > 0 {}
    let traced = run(&shrinker.best, Options { plant, traced: true }).err();
    Some((shrinker.best, traced.unwrap_or(shrinker.failed)))
}

struct Shrinker {
    plant: Option<Plant>,
    /// What fails; a plan that fails in another way is another matter.
    invariant: &'static str,
    best: Plan,
    failed: Box<Failed>,
    runs: u32,
}

impl Shrinker {
    /// Tries everything once; answers whether something could be left out.
    fn pass(&mut self) -> bool {
        let before = self.best.clone();
        self.quiet();
        self.remove_chunks(|plan| &mut plan.faults);
        self.remove_chunks(|plan| &mut plan.changes);
        self.remove_chunks(|plan| &mut plan.jobs);
        self.remove_arrays();
        self.simplify_jobs();
        self.remove_last_hosts();
        self.best != before
    }

    /// Keeps a plan if it still fails.
    fn try_plan(&mut self, plan: Plan) -> bool {
        // A job without arrays is refused, which is another fault than the one looked for.
        let refused = plan.jobs.iter().any(|job| job.arrays.is_empty());
        if plan == self.best || self.runs == 0 || refused {
            return false;
        }
        self.runs -= 1;
        match run(&plan, Options { plant: self.plant, traced: false }) {
            Err(failed) if failed.violation.invariant == self.invariant => {
                (self.best, self.failed) = (plan, failed);
                true
            }
            _ => false,
        }
    }

    fn try_change(&mut self, change: impl FnOnce(&mut Plan)) -> bool {
        let mut plan = self.best.clone();
        change(&mut plan);
        self.try_plan(plan)
    }

    fn quiet(&mut self) {
        self.try_change(|plan| plan.guest_faults = 0);
        self.try_change(|plan| plan.lost_messages = 0);
        self.try_change(|plan| plan.late_messages = 0);
    }

    /// Leaves out halves, quarters and so on, down to single items.
    fn remove_chunks<T>(&mut self, items: impl Fn(&mut Plan) -> &mut Vec<T>) {
        let mut size = items(&mut self.best).len();
        while size > 0 {
            let mut start = 0;
            while start < items(&mut self.best).len() {
                let removed = self.try_change(|plan| {
                    let list = items(plan);
                    let end = (start + size).min(list.len());
                    list.drain(start..end);
                });
                if !removed {
                    start += size;
                }
            }
            size /= 2;
        }
    }

    fn remove_arrays(&mut self) {
        for job in 0..self.best.jobs.len() {
            let mut array = self.best.jobs[job].arrays.len();
            while array > 0 {
                array -= 1;
                self.try_change(|plan| remove_array(&mut plan.jobs[job], array));
                array = array.min(self.best.jobs[job].arrays.len());
            }
        }
    }

    fn simplify_jobs(&mut self) {
        for job in 0..self.best.jobs.len() {
            self.try_change(|plan| plan.jobs[job].released = None);
            self.try_change(|plan| plan.jobs[job].cancelled = None);
            self.try_change(|plan| plan.jobs[job].deadline = None);
            self.try_change(|plan| plan.jobs[job].submitted = 0);
            self.try_change(|plan| {
                plan.jobs[job].closed = None;
                plan.jobs[job].arrays.iter_mut().for_each(|array| array.added = None);
            });
            for array in 0..self.best.jobs[job].arrays.len() {
                let simple = |array: &ArrayPlan| ArrayPlan {
                    tasks: array.tasks,
                    outputs: array.outputs,
                    inputs: array.inputs.clone(),
                    upload: array.upload,
                    added: array.added,
                    long: array.long,
                    ..ArrayPlan::default()
                };
                self.try_change(|plan| plan.jobs[job].arrays[array] = simple(&plan.jobs[job].arrays[array]));
            }
        }
    }

    fn remove_last_hosts(&mut self) {
        while self.best.hosts.len() > 1 && self.try_change(|plan| plan.hosts.truncate(plan.hosts.len() - 1)) {}
    }
}

/// Leaves out an array and all that read it.
fn remove_array(job: &mut JobPlan, array: usize) {
    let mut gone = vec![false; job.arrays.len()];
    for position in array..job.arrays.len() {
        let reads = |edge: &crate::EdgePlan| edge.sources().iter().any(|source| gone[*source as usize]);
        gone[position] = position == array || job.arrays[position].inputs.iter().any(reads);
    }
    let left: Vec<usize> = (0..gone.len()).filter(|position| !gone[*position]).collect();
    let number = |old: u32| left.partition_point(|position| *position < old as usize) as u32;
    job.arrays = left
        .iter()
        .map(|position| {
            let mut array = job.arrays[*position].clone();
            array.inputs = array.inputs.iter().map(|edge| edge.renumbered(&number)).collect();
            array
        })
        .collect();
}
