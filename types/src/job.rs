//! Jobs as tenants submit them: a graph of arrays, joined by edge patterns.
//!
//! An array refers only to arrays before it, so a graph cannot have a cycle by construction;
//! [`JobSpec::check`] says which reference broke that rule. A thousand-by-thousand shuffle is one edge here.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ArrayIndex, ByteSize, DatasetName, FeatureError, Features, LimitRequest, ModuleId};

/// Most arrays in one job; bounds the work of a submission.
pub const MAX_ARRAYS_PER_JOB: usize = 10_000;
/// Most tasks in one array.
pub const MAX_TASKS_PER_ARRAY: u32 = 4_000_000;
/// Most outputs of one task: as many reducers as one shuffle can have.
pub const MAX_OUTPUTS_PER_TASK: u32 = 4_096;
/// Longest job or array name in bytes.
const MAX_LABEL: usize = 128;
/// Widest fold: a task holds its inputs as handles, and an attempt has at most 1,024 of those.
const MAX_FOLD_ARITY: u32 = 512;

/// A graph of arrays to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// For people; need not be unique.
    pub name: String,
    /// The arrays, each after those that it reads from.
    pub arrays: Vec<ArraySpec>,
    /// Whether arrays will be added later. An open job ends only after it was closed.
    pub open: bool,
    /// How long after its submission the job is stopped, if it has not ended. Default: never.
    pub deadline: Option<Duration>,
}

/// Tasks of one function that differ in their arguments and inputs only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArraySpec {
    /// For people and for references in job files.
    pub name: String,
    /// Where the outputs come from.
    pub source: ArraySource,
    /// How many tasks.
    pub tasks: TaskCount,
    /// What each task is told.
    pub arguments: Arguments,
    /// What each task reads; one input group of the function per edge, in this order.
    pub inputs: Vec<Edge>,
    /// How many outputs each task writes, 1 to [`MAX_OUTPUTS_PER_TASK`].
    pub outputs: u32,
    /// Limits and wishes.
    pub options: ArrayOptions,
}

/// Where the outputs of an array come from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ArraySource {
    /// A function of a module computes them.
    Function {
        /// The module.
        module: ModuleId,
        /// The name of the function in it.
        function: String,
    },
    /// The client uploads them, one per task, after the submission.
    Upload,
}

/// How many tasks an array has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskCount {
    /// This many.
    Fixed(u32),
    /// As many as the first edge that says so: the length of `each`, `list` or a per-task `literal`, the outputs of a
    /// `slice`, the splits of a `dataset`, the tree of a `fold`. One, if there is no such edge.
    FromInputs,
}

/// What the tasks of an array are told: bytes that the function decodes, by convention JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arguments {
    /// The same for all; may be empty.
    Common(Vec<u8>),
    /// One per task.
    PerTask(Vec<Vec<u8>>),
}

/// One output of one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputRef {
    /// The array, before the one that refers to it.
    pub array: ArrayIndex,
    /// The task in it.
    pub index: u32,
    /// The output of that task.
    pub output: u32,
}

/// Where the inputs of the tasks of an array come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Edge {
    /// Task i reads one output of task i.
    Each {
        /// The array to read from; it has as many tasks as this one.
        array: ArrayIndex,
        /// Which output.
        output: u32,
    },
    /// Every task reads one output of every task.
    All {
        /// The array to read from.
        array: ArrayIndex,
        /// Which output.
        output: u32,
    },
    /// Task i reads output i of every task: a shuffle.
    Slice {
        /// The array to read from; it has as many outputs as this one has tasks.
        array: ArrayIndex,
    },
    /// A tree: each task merges up to `arity` outputs, first those of `array`, then those of this array itself; the
    /// last task has the result. All tasks read output 0.
    Fold {
        /// The array to read from.
        array: ArrayIndex,
        /// How many inputs a task merges, 2 to 512.
        arity: u32,
    },
    /// Task i reads the outputs listed for it.
    List {
        /// For each task the outputs it reads.
        tasks: Vec<Vec<OutputRef>>,
    },
    /// Task i reads split i of external data.
    Dataset {
        /// The name of the dataset in the tenant's policy.
        dataset: DatasetName,
        /// About how much one task reads. Borders of lines are kept, so a split may be larger or smaller.
        split: ByteSize,
        /// Read only the first files, up to about this much.
        limit: Option<ByteSize>,
    },
    /// Bytes in the submission itself: one value for all tasks, or one per task.
    Literal {
        /// The values.
        values: Vec<Vec<u8>>,
    },
}

/// Limits and wishes for the tasks of an array.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ArrayOptions {
    /// Higher goes first within the tenant. Default 0.
    pub priority: i32,
    /// How many attempts after the first one, if it failed through its own fault. Default 2.
    pub retries: u32,
    /// Wait before the first retry; doubles with each, up to 30 s. Default 100 ms.
    pub backoff: Duration,
    /// What one attempt may use; what is left open comes from the tenant's policy.
    pub limits: LimitRequest,
    /// Whether equal inputs give equal outputs. Default true; a function that is granted real time or randomness is not.
    pub deterministic: bool,
    /// Keep the outputs after the job ended, though other tasks consumed them. Arrays that nobody consumes are kept
    /// in any case. Default false.
    pub keep: bool,
    /// The most memory that an attempt may get. One that ran out of memory is followed by one with twice as much, up to
    /// this; that does not use up a retry. Default, and at most: what the tenant's policy allows for one task.
    pub memory_max: Option<ByteSize>,
    /// What a host must have to run its tasks. Default: nothing beyond its size.
    pub needs: Features,
    /// Take the outputs of an earlier task of the tenant that did the same, if they are still kept, and offer these to
    /// later ones. Default false: the random numbers and the clock of a task differ from job to job, and a function that
    /// uses them would be given what others drew.
    pub memoise: bool,
    /// Start a second attempt of a task that runs for much longer than others of its function, if a host has nothing else
    /// to do; the first result counts. Default true; means nothing for what is not deterministic.
    pub speculate: bool,
}

impl Default for ArrayOptions {
    fn default() -> Self {
        Self {
            priority: 0,
            retries: 2,
            backoff: Duration::from_millis(100),
            limits: LimitRequest::default(),
            deterministic: true,
            keep: false,
            memory_max: None,
            needs: Features::default(),
            memoise: false,
            speculate: true,
        }
    }
}

/// Why a job cannot be accepted, whoever submits it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Nothing to do.
    #[error("job {job:?} has no arrays and is not open")]
    Empty {
        /// The job.
        job: String,
    },
    /// Too much at once.
    #[error("the {what} is {value}, more than the limit of {limit}")]
    TooMany {
        /// What there is too much of, with the array's name.
        what: String,
        /// How much there is.
        value: u64,
        /// How much there may be.
        limit: u64,
    },
    /// Zero of something that there must be.
    #[error("the {what} is 0; give at least 1")]
    Zero {
        /// What is missing, with the array's name.
        what: String,
    },
    /// A reference to an array that is not before the one that refers to it.
    #[error(
        "array {array:?} reads from array {target}, which is not before it: a job has no cycles, and its arrays are \
         listed in the order of their data"
    )]
    NotBefore {
        /// The array that refers.
        array: String,
        /// The position it refers to.
        target: ArrayIndex,
    },
    /// A reference to an output that the tasks there do not have.
    #[error("array {array:?} reads output {output} of array {target}, whose tasks have {outputs}")]
    NoSuchOutput {
        /// The array that refers.
        array: String,
        /// The array referred to.
        target: ArrayIndex,
        /// The output asked for.
        output: u32,
        /// How many there are.
        outputs: u32,
    },
    /// A reference to a task that the array does not have.
    #[error("array {array:?} reads from task {index} of array {target}, which has {tasks} tasks")]
    NoSuchTask {
        /// The array that refers.
        array: String,
        /// The array referred to.
        target: ArrayIndex,
        /// The task asked for.
        index: u32,
        /// How many there are.
        tasks: u32,
    },
    /// Two parts of an array disagree about its length.
    #[error("array {array:?} has {tasks} tasks, but its {what} asks for {asked}")]
    Length {
        /// The array.
        array: String,
        /// Its length as decided first.
        tasks: u32,
        /// What disagrees.
        what: &'static str,
        /// The other length.
        asked: u64,
    },
    /// Labels or resources that no host could have.
    #[error("array {array:?} asks for labels or resources that cannot be: {fault}")]
    Needs {
        /// The array.
        array: String,
        /// What is wrong.
        fault: FeatureError,
    },
    /// A combination that has no meaning.
    #[error("array {array:?}: {reason}")]
    Meaningless {
        /// The array.
        array: String,
        /// What is wrong and what to do.
        reason: &'static str,
    },
}

impl JobSpec {
    /// Checks everything that can be checked without the cluster: bounds, names, references.
    ///
    /// # Errors
    /// The first fault found, naming the array.
    pub fn check(&self) -> Result<(), SpecError> {
        if self.arrays.is_empty() && !self.open {
            return Err(SpecError::Empty { job: self.name.clone() });
        }
        at_most("length of the job's name", self.name.len() as u64, MAX_LABEL as u64)?;
        check_arrays(&self.arrays, &[])
    }
}

/// Checks arrays that are added behind `before`, which holds the number of outputs per task of each earlier array.
///
/// # Errors
/// The first fault found, naming the array.
pub fn check_arrays(arrays: &[ArraySpec], before: &[u32]) -> Result<(), SpecError> {
    at_most("number of arrays in the job", (before.len() + arrays.len()) as u64, MAX_ARRAYS_PER_JOB as u64)?;
    let mut outputs = before.to_vec();
    for array in arrays {
        array.check(&outputs)?;
        outputs.push(array.outputs);
    }
    Ok(())
}

fn at_most(what: &str, value: u64, limit: u64) -> Result<(), SpecError> {
    if value > limit { Err(SpecError::TooMany { what: what.to_owned(), value, limit }) } else { Ok(()) }
}

impl ArraySpec {
    /// Checks one array against the numbers of outputs of the arrays before it.
    fn check(&self, before: &[u32]) -> Result<(), SpecError> {
        at_most("length of an array's name", self.name.len() as u64, MAX_LABEL as u64)?;
        let of = |what: &str| format!("{what} of array {:?}", self.name);
        if self.outputs == 0 {
            return Err(SpecError::Zero { what: of("number of outputs") });
        }
        at_most(&of("number of outputs"), u64::from(self.outputs), u64::from(MAX_OUTPUTS_PER_TASK))?;
        if let TaskCount::Fixed(tasks) = self.tasks {
            if tasks == 0 {
                return Err(SpecError::Zero { what: of("number of tasks") });
            }
            at_most(&of("number of tasks"), u64::from(tasks), u64::from(MAX_TASKS_PER_ARRAY))?;
        }
        if let Arguments::PerTask(list) = &self.arguments {
            at_most(&of("number of arguments"), list.len() as u64, u64::from(MAX_TASKS_PER_ARRAY))?;
        }
        self.options.needs.check().map_err(|fault| SpecError::Needs { array: self.name.clone(), fault })?;
        self.check_kind()?;
        self.inputs.iter().try_for_each(|edge| self.check_edge(edge, before))
    }

    fn check_kind(&self) -> Result<(), SpecError> {
        let meaningless = |reason| Err(SpecError::Meaningless { array: self.name.clone(), reason });
        let folds = self.inputs.iter().filter(|edge| matches!(edge, Edge::Fold { .. })).count();
        if folds > 0 && (folds > 1 || self.tasks != TaskCount::FromInputs) {
            return meaningless("a fold decides the number of tasks; give one fold edge and no task count");
        }
        if self.options.memoise && !self.options.deterministic {
            return meaningless("only what is deterministic can be memoised");
        }
        match self.source {
            ArraySource::Upload if !self.inputs.is_empty() => meaningless("uploaded data has no inputs"),
            ArraySource::Upload if !self.options.needs.is_empty() => {
                meaningless("uploaded data runs nowhere; leave labels and resources out")
            }
            ArraySource::Upload if self.outputs != 1 => meaningless("uploaded data has one output per task"),
            ArraySource::Upload if !matches!(self.tasks, TaskCount::Fixed(_)) => {
                meaningless("uploaded data needs a task count")
            }
            ArraySource::Upload | ArraySource::Function { .. } => Ok(()),
        }
    }

    fn check_edge(&self, edge: &Edge, before: &[u32]) -> Result<(), SpecError> {
        let earlier = |array: ArrayIndex| {
            let position = usize::try_from(array.0).unwrap_or(usize::MAX);
            before
                .get(position)
                .copied()
                .ok_or_else(|| SpecError::NotBefore { array: self.name.clone(), target: array })
        };
        let output_of = |array: ArrayIndex, output: u32| {
            let outputs = earlier(array)?;
            if output < outputs {
                Ok(())
            } else {
                Err(SpecError::NoSuchOutput { array: self.name.clone(), target: array, output, outputs })
            }
        };
        match edge {
            Edge::Each { array, output } | Edge::All { array, output } => output_of(*array, *output),
            Edge::Slice { array } => earlier(*array).map(|_| ()),
            Edge::Fold { array, arity } => {
                output_of(*array, 0)?;
                if *arity < 2 {
                    return Err(SpecError::Meaningless {
                        array: self.name.clone(),
                        reason: "a fold merges at least 2 inputs at a time",
                    });
                }
                at_most("arity of a fold", u64::from(*arity), u64::from(MAX_FOLD_ARITY))
            }
            Edge::List { tasks } => {
                at_most("length of a list edge", tasks.len() as u64, u64::from(MAX_TASKS_PER_ARRAY))?;
                tasks.iter().flatten().try_for_each(|source| output_of(source.array, source.output))
            }
            Edge::Dataset { split, .. } if *split < ByteSize::kib(4) => Err(SpecError::Meaningless {
                array: self.name.clone(),
                reason: "a dataset is split into pieces of at least 4 KiB",
            }),
            Edge::Literal { values } if values.is_empty() => {
                Err(SpecError::Zero { what: format!("number of literal values of array {:?}", self.name) })
            }
            Edge::Dataset { .. } | Edge::Literal { .. } => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
