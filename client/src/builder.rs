//! Builds a job array by array. References are values that `add` gave out, so an array can only refer to one before it.
//!
//! What can be known without the cluster is checked here and when the job is built; everything else (whether a module,
//! function or dataset exists, whether the quota allows it) is decided by the cluster.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use partita_types::{
    Arguments, ArrayIndex, ArrayOptions, ArraySource, ArraySpec, ByteSize, CpuTime, DatasetName, Edge, JobSpec,
    LabelName, LabelValue, LimitRequest, ModuleId, ModuleInfo, NameError, OutputRef, ResourceName, SpecError,
    TaskCount, check_arrays,
};
use serde::Serialize;

/// Why a job cannot be submitted as it was built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Arguments that JSON cannot express.
    #[error("the arguments of array {array:?} cannot be written as JSON")]
    Arguments {
        /// The array.
        array: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Not a name that a dataset can have.
    #[error("array {array:?} reads from a dataset that cannot exist")]
    Dataset {
        /// The array.
        array: String,
        /// What is wrong with the name.
        #[source]
        source: NameError,
    },
    /// A reference that another builder gave out.
    #[error("array {array:?} reads from array {target:?}, which was added to another job")]
    Foreign {
        /// The array that refers.
        array: String,
        /// The array that is not of this job.
        target: String,
    },
    /// Two arrays of one name.
    #[error("there are two arrays called {array:?}")]
    Duplicate {
        /// The name.
        array: String,
    },
    /// The job got other arrays since the builder was made, so that its references may point elsewhere.
    #[error("job {job} has {now} arrays, but these were built to follow {then}: build them again with `more`")]
    Outdated {
        /// The job.
        job: u32,
        /// How many arrays it had.
        then: usize,
        /// How many it has.
        now: usize,
    },
    /// Bounds, references and combinations.
    #[error(transparent)]
    Spec(#[from] SpecError),
}

/// Tells builders apart, so that a reference cannot be used with another job by mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BuilderId(u64);

impl BuilderId {
    pub(crate) fn fresh() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A module in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    info: ModuleInfo,
}

impl Module {
    pub(crate) fn new(info: ModuleInfo) -> Self {
        Self { info }
    }

    /// Its id: the SHA-256 of its bytes.
    #[must_use]
    pub fn id(&self) -> ModuleId {
        self.info.id
    }

    /// What it is and what it can run.
    #[must_use]
    pub fn info(&self) -> &ModuleInfo {
        &self.info
    }

    /// One of its functions. Whether it exists is checked when the job is submitted.
    #[must_use]
    pub fn function(&self, name: &str) -> Function {
        Function::new(self.info.id, name)
    }
}

/// A function of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    module: ModuleId,
    name: String,
}

impl Function {
    /// A function of a module of which only the id is known.
    #[must_use]
    pub fn new(module: ModuleId, name: &str) -> Self {
        Self { module, name: name.to_owned() }
    }
}

/// An array of a job that is being built, or was submitted from that builder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrayRef {
    pub(crate) builder: BuilderId,
    pub(crate) index: ArrayIndex,
    pub(crate) name: String,
}

impl ArrayRef {
    /// Its position in the job.
    #[must_use]
    pub fn index(&self) -> ArrayIndex {
        self.index
    }

    /// One output of its tasks. Where an array stands instead, output 0 is meant.
    #[must_use]
    pub fn output(&self, output: u32) -> OutputOf {
        OutputOf { array: self.clone(), output }
    }

    /// Output 0 of one of its tasks, for [`ArrayBuilder::list`].
    #[must_use]
    pub fn task(&self, index: u32) -> TaskRef {
        self.task_output(index, 0)
    }

    /// One output of one of its tasks, for [`ArrayBuilder::list`].
    #[must_use]
    pub fn task_output(&self, index: u32, output: u32) -> TaskRef {
        TaskRef { array: self.clone(), index, output }
    }
}

/// One output of every task of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputOf {
    array: ArrayRef,
    output: u32,
}

impl From<&ArrayRef> for OutputOf {
    fn from(array: &ArrayRef) -> Self {
        array.output(0)
    }
}

/// One output of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRef {
    array: ArrayRef,
    index: u32,
    output: u32,
}

/// Collects the arrays of a job.
///
/// ```
/// use partita_client::{Function, JobBuilder};
/// use partita_types::{ByteSize, ModuleId};
///
/// # fn main() -> Result<(), partita_client::BuildError> {
/// let module = ModuleId([7; 32]);
/// let mut job = JobBuilder::new("wordfreq");
/// let map = job
///     .array("map", Function::new(module, "map"))
///     .dataset("crates", ByteSize::mib(8))
///     .outputs(8)
///     .args(&serde_json::json!({ "min_length": 2 }))?
///     .add();
/// let reduce = job.array("reduce", Function::new(module, "reduce")).slice(&map).add();
/// job.array("top", Function::new(module, "top")).fold(&reduce, 8).add();
/// assert_eq!(job.build()?.arrays.len(), 3);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct JobBuilder {
    id: BuilderId,
    name: String,
    /// Outputs per task of the arrays that the job has already.
    before: Vec<u32>,
    arrays: Vec<ArraySpec>,
    open: bool,
    deadline: Option<Duration>,
    fault: Option<BuildError>,
}

impl JobBuilder {
    /// A job without arrays. The name is for people.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            id: BuilderId::fresh(),
            name: name.to_owned(),
            before: Vec::new(),
            arrays: Vec::new(),
            open: false,
            deadline: None,
            fault: None,
        }
    }

    /// More arrays for a job that has some.
    pub(crate) fn continuing(id: BuilderId, before: Vec<u32>) -> Self {
        Self { id, name: String::new(), before, arrays: Vec::new(), open: true, deadline: None, fault: None }
    }

    /// A job from a specification that was made elsewhere, such as from a file.
    #[must_use]
    pub fn from_spec(spec: JobSpec) -> Self {
        Self {
            id: BuilderId::fresh(),
            name: spec.name,
            before: Vec::new(),
            arrays: spec.arrays,
            open: spec.open,
            deadline: spec.deadline,
            fault: None,
        }
    }

    /// Stops the job so long after its submission, if it has not ended. Default: never.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Leaves the job open, so that arrays can be added later; see [`crate::JobHandle::extend`].
    #[must_use]
    pub fn open(mut self) -> Self {
        self.open = true;
        self
    }

    /// Starts an array whose tasks call `function`.
    pub fn array(&mut self, name: &str, function: Function) -> ArrayBuilder<'_> {
        let source = ArraySource::Function { module: function.module, function: function.name };
        ArrayBuilder { spec: empty_array(name, source, TaskCount::FromInputs), job: self }
    }

    /// Adds an array of `tasks` values that are uploaded after the submission; see [`crate::JobHandle::put`].
    pub fn upload(&mut self, name: &str, tasks: u32) -> ArrayRef {
        ArrayBuilder { spec: empty_array(name, ArraySource::Upload, TaskCount::Fixed(tasks)), job: self }.add()
    }

    /// Checks the job and gives its specification.
    ///
    /// # Errors
    /// The first fault, naming the array.
    pub fn build(self) -> Result<JobSpec, BuildError> {
        self.into_parts().map(|parts| JobSpec {
            name: parts.name,
            arrays: parts.arrays,
            open: parts.open,
            deadline: parts.deadline,
        })
    }

    pub(crate) fn into_parts(self) -> Result<Parts, BuildError> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let mut names = std::collections::BTreeSet::new();
        if let Some(twice) = self.arrays.iter().find(|array| !names.insert(array.name.as_str())) {
            return Err(BuildError::Duplicate { array: twice.name.clone() });
        }
        if self.before.is_empty() {
            JobSpec { name: self.name.clone(), arrays: Vec::new(), open: true, deadline: None }.check()?;
            if self.arrays.is_empty() && !self.open {
                return Err(SpecError::Empty { job: self.name }.into());
            }
        }
        check_arrays(&self.arrays, &self.before)?;
        Ok(Parts {
            id: self.id,
            name: self.name,
            before: self.before,
            arrays: self.arrays,
            open: self.open,
            deadline: self.deadline,
        })
    }

    fn index_of(&mut self, array: &str, target: &ArrayRef) -> ArrayIndex {
        if target.builder != self.id {
            self.blame(BuildError::Foreign { array: array.to_owned(), target: target.name.clone() });
        }
        target.index
    }

    /// Remembers the first fault; `build` reports it.
    fn blame(&mut self, fault: BuildError) {
        self.fault.get_or_insert(fault);
    }
}

/// A checked job, with what a handle must know of it.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) id: BuilderId,
    pub(crate) name: String,
    pub(crate) before: Vec<u32>,
    pub(crate) arrays: Vec<ArraySpec>,
    pub(crate) open: bool,
    pub(crate) deadline: Option<Duration>,
}

fn empty_array(name: &str, source: ArraySource, tasks: TaskCount) -> ArraySpec {
    ArraySpec {
        name: name.to_owned(),
        source,
        tasks,
        arguments: Arguments::Common(Vec::new()),
        inputs: Vec::new(),
        outputs: 1,
        options: ArrayOptions::default(),
    }
}

/// One array while it is described. It becomes part of the job with [`ArrayBuilder::add`].
#[derive(Debug)]
#[must_use = "the array becomes part of the job with `add`"]
pub struct ArrayBuilder<'a> {
    job: &'a mut JobBuilder,
    spec: ArraySpec,
}

impl ArrayBuilder<'_> {
    /// How many tasks. Needed only where no input says so.
    pub fn tasks(mut self, tasks: u32) -> Self {
        self.spec.tasks = TaskCount::Fixed(tasks);
        self
    }

    /// How many outputs each task writes. Default 1.
    pub fn outputs(mut self, outputs: u32) -> Self {
        self.spec.outputs = outputs;
        self
    }

    /// What all tasks are told, as JSON.
    ///
    /// # Errors
    /// If `arguments` cannot be written as JSON.
    pub fn args(mut self, arguments: &(impl Serialize + ?Sized)) -> Result<Self, BuildError> {
        self.spec.arguments = Arguments::Common(self.json(arguments)?);
        Ok(self)
    }

    /// What each task is told, as JSON; also says how many tasks there are.
    ///
    /// # Errors
    /// If one of them cannot be written as JSON.
    pub fn args_per_task(mut self, arguments: impl IntoIterator<Item = impl Serialize>) -> Result<Self, BuildError> {
        let list = arguments.into_iter().map(|each| self.json(&each)).collect::<Result<Vec<_>, _>>()?;
        if let (TaskCount::FromInputs, Ok(tasks)) = (self.spec.tasks, u32::try_from(list.len())) {
            self.spec.tasks = TaskCount::Fixed(tasks);
        }
        self.spec.arguments = Arguments::PerTask(list);
        Ok(self)
    }

    /// What all tasks are told, in a form of your own.
    pub fn raw_args(mut self, arguments: impl Into<Vec<u8>>) -> Self {
        self.spec.arguments = Arguments::Common(arguments.into());
        self
    }

    fn json(&self, arguments: &(impl Serialize + ?Sized)) -> Result<Vec<u8>, BuildError> {
        serde_json::to_vec(arguments).map_err(|source| BuildError::Arguments { array: self.spec.name.clone(), source })
    }

    /// Task i reads one output of task i of another array.
    pub fn each(self, source: impl Into<OutputOf>) -> Self {
        let OutputOf { array, output } = source.into();
        let array = self.job.index_of(&self.spec.name, &array);
        self.edge(Edge::Each { array, output })
    }

    /// Every task reads one output of every task of another array.
    pub fn all(self, source: impl Into<OutputOf>) -> Self {
        let OutputOf { array, output } = source.into();
        let array = self.job.index_of(&self.spec.name, &array);
        self.edge(Edge::All { array, output })
    }

    /// A shuffle: task i reads output i of every task of another array.
    pub fn slice(self, source: &ArrayRef) -> Self {
        let array = self.job.index_of(&self.spec.name, source);
        self.edge(Edge::Slice { array })
    }

    /// A tree that merges up to `arity` outputs at a time until one is left; the last task of this array has it.
    pub fn fold(self, source: &ArrayRef, arity: u32) -> Self {
        let array = self.job.index_of(&self.spec.name, source);
        self.edge(Edge::Fold { array, arity })
    }

    /// Task i reads the outputs listed for it.
    pub fn list(self, tasks: impl IntoIterator<Item = impl IntoIterator<Item = TaskRef>>) -> Self {
        let name = self.spec.name.clone();
        let mut lists = Vec::new();
        for task in tasks {
            let resolve = |source: TaskRef| OutputRef {
                array: self.job.index_of(&name, &source.array),
                index: source.index,
                output: source.output,
            };
            lists.push(task.into_iter().map(resolve).collect());
        }
        self.edge(Edge::List { tasks: lists })
    }

    /// Task i reads split i of a dataset of the tenant, in pieces of about `split`.
    pub fn dataset(self, name: &str, split: ByteSize) -> Self {
        self.dataset_edge(name, split, None)
    }

    /// The same, but only of the first files, up to about `limit`.
    pub fn dataset_up_to(self, name: &str, split: ByteSize, limit: ByteSize) -> Self {
        self.dataset_edge(name, split, Some(limit))
    }

    fn dataset_edge(self, name: &str, split: ByteSize, limit: Option<ByteSize>) -> Self {
        match DatasetName::new(name) {
            Ok(dataset) => self.edge(Edge::Dataset { dataset, split, limit }),
            Err(source) => {
                self.job.blame(BuildError::Dataset { array: self.spec.name.clone(), source });
                self
            }
        }
    }

    /// Every task reads these bytes, which travel with the submission. For more than some KiB use an upload.
    pub fn literal(self, value: impl Into<Vec<u8>>) -> Self {
        self.edge(Edge::Literal { values: vec![value.into()] })
    }

    /// Task i reads value i, which travels with the submission.
    pub fn literals(self, values: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Self {
        self.edge(Edge::Literal { values: values.into_iter().map(Into::into).collect() })
    }

    fn edge(mut self, edge: Edge) -> Self {
        self.spec.inputs.push(edge);
        self
    }

    /// Higher goes first within the tenant. Default 0.
    pub fn priority(mut self, priority: i32) -> Self {
        self.spec.options.priority = priority;
        self
    }

    /// How many more attempts a task has after one that failed. Default 2.
    pub fn retries(mut self, retries: u32) -> Self {
        self.spec.options.retries = retries;
        self
    }

    /// How long to wait before the first of them; doubles with each. Default 100 ms.
    pub fn backoff(mut self, wait: Duration) -> Self {
        self.spec.options.backoff = wait;
        self
    }

    /// Keeps the outputs after the job ended, though other tasks consumed them.
    pub fn keep(mut self) -> Self {
        self.spec.options.keep = true;
        self
    }

    /// Takes the outputs of earlier tasks that did the same, if they are still kept, and offers these to later ones. For
    /// functions that use neither random numbers nor the clock.
    pub fn memoise(mut self) -> Self {
        self.spec.options.memoise = true;
        self
    }

    /// Whether a task that runs for much longer than others of its function gets a second attempt at another host, if that has
    /// nothing else to do; the first result counts. Default true.
    pub fn speculate(mut self, speculate: bool) -> Self {
        self.spec.options.speculate = speculate;
        self
    }

    /// Says that equal inputs need not give equal outputs. Such tasks are never run twice at once.
    pub fn nondeterministic(mut self) -> Self {
        self.spec.options.deterministic = false;
        self
    }

    /// Memory of one attempt. Default: what the tenant's policy says.
    pub fn memory(self, memory: ByteSize) -> Self {
        self.limit(|limits| limits.memory = Some(memory))
    }

    /// The most memory that an attempt gets after others ran out of theirs; each gets twice as much as the one before.
    /// Default: what the tenant's policy allows for one task. As much as [`memory`](Self::memory) turns it off.
    pub fn memory_max(mut self, memory: ByteSize) -> Self {
        self.spec.options.memory_max = Some(memory);
        self
    }

    /// Runs its tasks only at hosts with this label.
    pub fn label(mut self, name: LabelName, value: LabelValue) -> Self {
        self.spec.options.needs.labels.insert(name, value);
        self
    }

    /// Runs its tasks only at hosts that have this resource, which each of them takes so much of while it runs.
    pub fn resource(mut self, name: ResourceName, amount: u64) -> Self {
        self.spec.options.needs.resources.insert(name, amount);
        self
    }

    /// CPU time of one attempt. Default: what the tenant's policy says.
    pub fn cpu_time(self, cpu_time: Duration) -> Self {
        self.limit(|limits| limits.cpu_time = Some(CpuTime::from(cpu_time)))
    }

    /// Wall time of one attempt. Default: what the tenant's policy says.
    pub fn wall_time(self, wall_time: Duration) -> Self {
        self.limit(|limits| limits.wall_time = Some(wall_time))
    }

    /// Bytes of all outputs of one attempt. Default: what the tenant's policy says.
    pub fn output_limit(self, output: ByteSize) -> Self {
        self.limit(|limits| limits.output = Some(output))
    }

    /// Bytes of log of one attempt. Default: what the tenant's policy says.
    pub fn log_limit(self, log: ByteSize) -> Self {
        self.limit(|limits| limits.log = Some(log))
    }

    fn limit(mut self, change: impl FnOnce(&mut LimitRequest)) -> Self {
        change(&mut self.spec.options.limits);
        self
    }

    /// Adds the array to the job.
    pub fn add(self) -> ArrayRef {
        let Self { job, spec } = self;
        let position = job.before.len() + job.arrays.len();
        // Far more arrays than `u32` can count are refused by `build`.
        let index = ArrayIndex(u32::try_from(position).unwrap_or(u32::MAX));
        let name = spec.name.clone();
        job.arrays.push(spec);
        ArrayRef { builder: job.id, index, name }
    }
}

#[cfg(test)]
mod tests;
