//! A job: its arrays, and what is known of all its tasks together.
//!
//! A job knows nothing of hosts, quotas and other jobs. `edges.rs` says what its tasks read and who reads them,
//! `transition.rs` changes their states; what follows from a change for tenant and cluster is in the other files.

use std::sync::Arc;

use partita_types::{ArrayIndex, ArraySpec, DatasetPlan, Failure, JobId, OutputInfo, TaskId, TenantName, Timestamp};

use crate::action::JobEnd;
use crate::array::{Array, Consumer, Input};
use crate::event::IdempotencyKey;
use crate::few::Few;
use crate::kinds::Kind;
use crate::pairs::Pairs;
use crate::shape::Shape;
use crate::task::Task;
use crate::view::{ArrayView, JobTotals, JobView, TaskCounts};

/// When a job is extended, room is made for a quarter more arrays than it has.
const SPARE: usize = 4;

/// A job of a tenant.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) name: String,
    pub(crate) open: bool,
    pub(crate) end: Option<JobEnd>,
    pub(crate) submitted: Timestamp,
    pub(crate) ended: Option<Timestamp>,
    pub(crate) arrays: Vec<Array>,
    pub(crate) totals: JobTotals,
    pub(crate) failure: Option<Box<(TaskId, u32, Failure)>>,
    /// Tasks that have not ended.
    pub(crate) unfinished: u64,
    /// The keys under which it was submitted and extended.
    pub(crate) keys: Few<IdempotencyKey>,
    /// Arrays that may have to be listed as runnable, or no longer.
    pub(crate) dirty: Vec<u32>,
    /// A buffer for the readers of a task.
    pub(crate) scratch: Vec<(u32, u32)>,
    /// The tasks that were given a second attempt while the first one ran.
    pub(crate) pairs: Pairs,
}

impl Job {
    pub(crate) fn new(id: JobId, name: String, open: bool, submitted: Timestamp) -> Self {
        Self {
            id,
            name,
            open,
            end: None,
            submitted,
            ended: None,
            arrays: Vec::new(),
            totals: JobTotals::default(),
            failure: None,
            unfinished: 0,
            keys: Few::None,
            dirty: Vec::new(),
            scratch: Vec::new(),
            pairs: Pairs::default(),
        }
    }

    /// Appends arrays of resolved shapes and their kinds.
    pub(crate) fn extend(
        &mut self,
        specs: &[ArraySpec],
        shapes: &[Shape],
        kinds: Vec<Arc<Kind>>,
        plans: &[DatasetPlan],
    ) {
        for plan in plans {
            self.totals.dataset_files = self.totals.dataset_files.saturating_add(plan.files);
            self.totals.dataset_bytes = self.totals.dataset_bytes.saturating_add(plan.bytes);
        }
        // Doubling would leave half of it unused, and most jobs are never extended.
        self.arrays.reserve_exact(specs.len().max(self.arrays.len() / SPARE));
        let mut plans = plans.iter().cloned();
        for ((spec, shape), kind) in specs.iter().zip(shapes).zip(kinds) {
            let position = u32::try_from(self.arrays.len()).unwrap_or(u32::MAX);
            let array = Array::new(spec, kind, shape.tasks, &self.arrays, &mut plans);
            self.unfinished += u64::from(shape.tasks);
            self.arrays.push(array);
            self.connect(position);
            self.start_array(position);
        }
    }

    /// Tells the sources of a new array that it consumes them.
    fn connect(&mut self, position: u32) {
        let inputs: Vec<Vec<u32>> = self.array(position).inputs.iter().map(Input::sources).collect();
        for (input, sources) in (0_u32..).zip(inputs) {
            for source in sources {
                self.array_mut(source).consumers.push(Consumer { array: position, input });
            }
        }
        // A fold consumes itself, too.
        if self.array(position).sources.contains(&position) {
            let input = self.fold_input(position);
            self.array_mut(position).consumers.push(Consumer { array: position, input });
        }
    }

    fn fold_input(&self, position: u32) -> u32 {
        let fold = |input: &Input| matches!(input, Input::Fold { .. });
        let found = self.array(position).inputs.iter().position(fold);
        found.and_then(|at| u32::try_from(at).ok()).unwrap_or(0)
    }

    /// An array by a position that comes from this job itself.
    pub(crate) fn array(&self, position: u32) -> &Array {
        &self.arrays[position as usize]
    }

    /// As [`Job::array`].
    pub(crate) fn array_mut(&mut self, position: u32) -> &mut Array {
        &mut self.arrays[position as usize]
    }

    /// A task by positions that come from this job itself.
    pub(crate) fn task(&self, array: u32, index: u32) -> &Task {
        &self.arrays[array as usize].tasks[index as usize]
    }

    /// As [`Job::task`].
    pub(crate) fn task_mut(&mut self, array: u32, index: u32) -> &mut Task {
        &mut self.arrays[array as usize].tasks[index as usize]
    }

    /// An array by a position that comes from outside.
    pub(crate) fn find_array(&self, position: ArrayIndex) -> Option<&Array> {
        self.arrays.get(position.0 as usize)
    }

    /// A task by an id that comes from outside.
    pub(crate) fn find_task(&self, array: ArrayIndex, index: u32) -> Option<&Task> {
        self.find_array(array)?.tasks.get(index as usize)
    }

    pub(crate) fn task_id(&self, array: u32, index: u32) -> TaskId {
        TaskId { job: self.id, array: ArrayIndex(array), index }
    }

    pub(crate) fn shapes(&self) -> Vec<Shape> {
        self.arrays.iter().map(|array| Shape { tasks: array.len(), outputs: array.kind.outputs }).collect()
    }

    /// Whether an ended task may have to run again for `array`, or a client may want its outputs.
    pub(crate) fn wants_outputs_of(&self, array: u32) -> bool {
        self.open
            || self.array(array).is_result(array)
            || self.array(array).consumers.iter().any(|consumer| self.array(consumer.array).unfinished() > 0)
    }

    /// Whether `array` must not run now, because what it reads is away for a while.
    pub(crate) fn is_blocked(&self, array: u32) -> bool {
        self.array(array).sources.iter().any(|source| self.array(*source).away > 0)
    }

    /// Remembers that `array` may have to be listed as runnable, or no longer.
    pub(crate) fn mark_dirty(&mut self, array: u32) {
        if !self.array(array).dirty {
            self.array_mut(array).dirty = true;
            self.dirty.push(array);
        }
    }

    /// Notes what outputs a task wrote, in the totals.
    pub(crate) fn count_outputs(&mut self, infos: &[OutputInfo]) {
        self.totals.partitions += infos.len() as u64;
        for info in infos {
            self.totals.partition_bytes = self.totals.partition_bytes.saturating_add(info.size);
        }
    }

    pub(crate) fn view(&self, tenant: TenantName, with_arrays: bool) -> JobView {
        let view = |array: &Array| ArrayView {
            name: array.name().to_owned(),
            function: array.function().to_owned(),
            outputs: array.kind.outputs,
            counts: array.tasks.counts().view(),
        };
        let mut counts = TaskCounts::default();
        self.arrays.iter().for_each(|array| counts.add(&array.tasks.counts().view()));
        JobView {
            id: self.id,
            tenant,
            name: self.name.clone(),
            open: self.open,
            end: self.end,
            submitted: self.submitted,
            ended: self.ended,
            arrays: if with_arrays { self.arrays.iter().map(view).collect() } else { Vec::new() },
            counts,
            totals: self.totals,
            failure: self.failure.as_deref().cloned(),
        }
    }
}
