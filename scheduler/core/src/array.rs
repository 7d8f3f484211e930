//! One array of a job: what was asked for, its tasks, and what is known of them together.
//!
//! Edges stay patterns. For each source an array knows who consumes it; nothing here grows with the number of edges
//! between single tasks, except the reverse index of an explicit list.

use std::collections::BTreeMap;
use std::sync::Arc;

use partita_types::{
    Arguments, ArrayHeader, ArrayIndex, ArraySource, ArraySpec, DatasetPlan, Edge, Features, HostId, InputGroup, JobId,
    ModuleId, OutputInfo, TaskLimits, Timestamp,
};

use crate::fold::FoldShape;
use crate::history::History;
use crate::ranges::RangeSet;
use crate::task::{Counts, State, Task};

/// What an edge means, with what was worked out from its source.
#[derive(Debug)]
pub(crate) enum Input {
    Each {
        source: u32,
        output: u32,
    },
    All {
        source: u32,
        output: u32,
    },
    Slice {
        source: u32,
    },
    Fold {
        source: u32,
        shape: FoldShape,
    },
    /// The lists themselves are in the spec. Here: for each source array, who reads which of its tasks, sorted.
    List {
        readers: BTreeMap<u32, Vec<(u32, u32)>>,
    },
    Dataset(DatasetPlan),
    Literal,
    PerTaskLiteral,
}

impl Input {
    fn new(edge: &Edge, source_tasks: impl Fn(ArrayIndex) -> u32, plan: impl FnOnce() -> Option<DatasetPlan>) -> Self {
        match edge {
            Edge::Each { array, output } => Self::Each { source: array.0, output: *output },
            Edge::All { array, output } => Self::All { source: array.0, output: *output },
            Edge::Slice { array } => Self::Slice { source: array.0 },
            Edge::Fold { array, arity } => {
                Self::Fold { source: array.0, shape: FoldShape::new(source_tasks(*array).max(1), (*arity).max(2)) }
            }
            Edge::List { tasks } => {
                let mut readers: BTreeMap<u32, Vec<(u32, u32)>> = BTreeMap::new();
                for (reader, sources) in (0_u32..).zip(tasks) {
                    for source in sources {
                        readers.entry(source.array.0).or_default().push((source.index, reader));
                    }
                }
                readers.values_mut().for_each(|list| list.sort_unstable());
                Self::List { readers }
            }
            Edge::Dataset { .. } => plan().map_or(Self::Literal, Self::Dataset),
            Edge::Literal { values } if values.len() > 1 => Self::PerTaskLiteral,
            Edge::Literal { .. } => Self::Literal,
        }
    }

    /// The arrays it reads from.
    pub(crate) fn sources(&self) -> Vec<u32> {
        match self {
            Self::Each { source, .. } | Self::All { source, .. } | Self::Slice { source } => vec![*source],
            Self::Fold { source, .. } => vec![*source],
            Self::List { readers } => readers.keys().copied().collect(),
            Self::Dataset(_) | Self::Literal | Self::PerTaskLiteral => Vec::new(),
        }
    }

    /// Whether it is met for all tasks at once, when every task of this source has succeeded.
    pub(crate) const fn gate(&self) -> Option<u32> {
        match self {
            Self::All { source, .. } | Self::Slice { source } => Some(*source),
            Self::Each { .. }
            | Self::Fold { .. }
            | Self::List { .. }
            | Self::Dataset(_)
            | Self::Literal
            | Self::PerTaskLiteral => None,
        }
    }

    /// Whether it gives each task partitions of its own.
    pub(crate) const fn is_per_task(&self) -> bool {
        matches!(self, Self::Each { .. } | Self::Fold { .. } | Self::List { .. })
    }
}

/// An edge, seen from its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Consumer {
    pub(crate) array: u32,
    pub(crate) input: u32,
}

/// An array of a job.
#[derive(Debug)]
pub(crate) struct Array {
    pub(crate) spec: ArraySpec,
    pub(crate) limits: TaskLimits,
    pub(crate) inputs: Vec<Input>,
    /// The arrays that it reads from, each once; a fold also reads from itself.
    pub(crate) sources: Vec<u32>,
    pub(crate) consumers: Vec<Consumer>,
    /// Length of the longest path to it.
    pub(crate) depth: u32,
    /// Where its tenant keeps the learned run time of its function.
    pub(crate) learned: usize,

    pub(crate) tasks: Vec<Task>,
    pub(crate) counts: Counts,
    /// The tasks in [`State::Ready`].
    pub(crate) ready: RangeSet,
    /// Edges that wait for all tasks of their source.
    pub(crate) closed_gates: u32,
    /// What succeeded tasks wrote, task by task; empty until the first succeeds.
    pub(crate) outputs: Vec<OutputInfo>,
    /// How many bytes of its outputs each host has.
    pub(crate) located: BTreeMap<HostId, u64>,
    /// Succeeded tasks whose outputs are at a detached host, or at one that has not come back since a restart.
    pub(crate) away: u32,
    /// Whether the tenant's set of arrays to run has it.
    pub(crate) listed: bool,
    /// Whether the job's list of arrays to look at has it.
    pub(crate) dirty: bool,
    /// The tasks that have a past, by position.
    pub(crate) history: BTreeMap<u32, History>,
    /// What its tasks need beyond memory; most need nothing. Frames keep it, too, since they can outlive their job.
    pub(crate) needs: Option<Arc<Features>>,
}

impl Array {
    /// An array with `tasks` tasks behind `before`. `plans` yields the plans of its dataset edges.
    pub(crate) fn new(
        spec: ArraySpec,
        tasks: u32,
        learned: usize,
        before: &[Self],
        plans: &mut impl Iterator<Item = DatasetPlan>,
    ) -> Self {
        let position = u32::try_from(before.len()).unwrap_or(u32::MAX);
        let source_tasks = |array: ArrayIndex| before.get(array.0 as usize).map_or(0, Self::len);
        let inputs: Vec<_> = spec.inputs.iter().map(|edge| Input::new(edge, source_tasks, || plans.next())).collect();
        let mut sources: Vec<u32> = inputs.iter().flat_map(Input::sources).collect();
        sources.sort_unstable();
        sources.dedup();
        let above = sources.iter().filter_map(|source| before.get(*source as usize)).map(|array| array.depth + 1).max();
        if inputs.iter().any(|input| matches!(input, Input::Fold { .. })) {
            sources.push(position);
        }
        Self {
            limits: spec.options.limits.or(TaskLimits::default()),
            inputs,
            sources,
            consumers: Vec::new(),
            depth: above.unwrap_or(0),
            learned,
            tasks: vec![Task::new(0); tasks as usize],
            counts: Counts::waiting(tasks),
            ready: RangeSet::default(),
            closed_gates: 0,
            outputs: Vec::new(),
            located: BTreeMap::new(),
            away: 0,
            listed: false,
            dirty: false,
            history: BTreeMap::new(),
            needs: (!spec.options.needs.is_empty()).then(|| Arc::new(spec.options.needs.clone())),
            spec,
        }
    }

    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.tasks.len()).unwrap_or(u32::MAX)
    }

    /// The name of the function; empty for uploads.
    pub(crate) fn function(&self) -> &str {
        match &self.spec.source {
            ArraySource::Function { function, .. } => function,
            ArraySource::Upload => "",
        }
    }

    /// The module of the function; uploads have none.
    pub(crate) fn module(&self) -> Option<ModuleId> {
        match &self.spec.source {
            ArraySource::Function { module, .. } => Some(*module),
            ArraySource::Upload => None,
        }
    }

    pub(crate) fn is_upload(&self) -> bool {
        matches!(self.spec.source, ArraySource::Upload)
    }

    pub(crate) fn unfinished(&self) -> u32 {
        self.counts.unfinished()
    }

    pub(crate) fn all_succeeded(&self) -> bool {
        self.counts.of(State::Succeeded) == self.len()
    }

    /// Whether its outputs belong to the results of the job.
    pub(crate) fn is_result(&self, own: u32) -> bool {
        self.spec.options.keep || self.consumers.iter().all(|consumer| consumer.array == own)
    }

    /// What a task wrote. Empty for one that never succeeded.
    pub(crate) fn outputs_of(&self, index: u32) -> &[OutputInfo] {
        let width = self.spec.outputs as usize;
        let start = index as usize * width;
        self.outputs.get(start..start + width).unwrap_or(&[])
    }

    pub(crate) fn set_outputs(&mut self, index: u32, infos: &[OutputInfo]) {
        let width = self.spec.outputs as usize;
        if self.outputs.is_empty() {
            let nothing = OutputInfo { size: Default::default(), hash: partita_types::ContentHash([0; 32]) };
            self.outputs = vec![nothing; self.tasks.len() * width];
        }
        let start = index as usize * width;
        if let Some(place) = self.outputs.get_mut(start..start + width)
            && infos.len() == width
        {
            place.copy_from_slice(infos);
        }
    }

    /// Bytes of all outputs of a task.
    pub(crate) fn bytes_of(&self, index: u32) -> u64 {
        self.outputs_of(index).iter().fold(0, |sum, info| sum.saturating_add(info.size.0))
    }

    /// What a host must know before it can run a frame of it. `None` for uploads, which never run.
    pub(crate) fn header(&self, job: JobId, array: ArrayIndex, submitted_at: Timestamp) -> Option<ArrayHeader> {
        let ArraySource::Function { module, function } = &self.spec.source else { return None };
        let common_arguments = match &self.spec.arguments {
            Arguments::Common(bytes) => bytes.clone(),
            Arguments::PerTask(_) => Vec::new(),
        };
        let group = |(edge, input): (&Edge, &Input)| match (edge, input) {
            (_, Input::Dataset(plan)) => InputGroup::Dataset(plan.clone()),
            (Edge::Literal { values }, Input::Literal) => {
                InputGroup::Literal(values.first().cloned().unwrap_or_default())
            }
            (_, Input::Literal) => InputGroup::Literal(Vec::new()),
            (_, Input::PerTaskLiteral) => InputGroup::PerTaskLiteral,
            (
                _,
                Input::Each { .. } | Input::All { .. } | Input::Slice { .. } | Input::Fold { .. } | Input::List { .. },
            ) => InputGroup::Partitions,
        };
        Some(ArrayHeader {
            job,
            array,
            module: *module,
            function: function.clone(),
            outputs: self.spec.outputs,
            limits: self.limits,
            common_arguments,
            submitted_at,
            inputs: self.spec.inputs.iter().zip(&self.inputs).map(group).collect(),
        })
    }
}
