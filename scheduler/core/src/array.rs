//! One array of a job: what was asked for, its tasks, and what is known of them together.
//!
//! Edges stay patterns. For each source an array knows who consumes it; nothing here grows with the number of edges
//! between single tasks, except the reverse index of an explicit list.

use std::collections::BTreeMap;
use std::sync::Arc;

use partita_types::{
    Arguments, ArrayHeader, ArrayIndex, ArraySource, ArraySpec, DatasetPlan, Edge, HostId, InputGroup, JobId, ModuleId,
    OutputInfo, Timestamp,
};

use crate::few::Few;
use crate::fold::FoldShape;
use crate::history::History;
use crate::kinds::Kind;
use crate::lists::Lists;
use crate::locations::Located;
use crate::packed::Packed;
use crate::ranges::RangeSet;
use crate::task::State;
use crate::tasks::Tasks;

/// What an edge means, with what was worked out from its source. All but the smallest is boxed.
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
        shape: Box<FoldShape>,
    },
    List(Box<Lists>),
    Dataset(Box<DatasetPlan>),
    /// One value for all.
    Literal(Box<Packed<u8>>),
    PerTaskLiteral(Box<Packed<u8>>),
}

const _: () = assert!(size_of::<Input>() <= 16, "an edge has become larger than it says");

impl Input {
    fn new(edge: &Edge, source_tasks: impl Fn(ArrayIndex) -> u32, plan: impl FnOnce() -> Option<DatasetPlan>) -> Self {
        match edge {
            Edge::Each { array, output } => Self::Each { source: array.0, output: *output },
            Edge::All { array, output } => Self::All { source: array.0, output: *output },
            Edge::Slice { array } => Self::Slice { source: array.0 },
            Edge::Fold { array, arity } => {
                let shape = FoldShape::new(source_tasks(*array).max(1), (*arity).max(2));
                Self::Fold { source: array.0, shape: Box::new(shape) }
            }
            Edge::List { tasks } => Self::List(Box::new(Lists::new(tasks))),
            Edge::Dataset { .. } => {
                plan().map_or_else(|| Self::Literal(Box::default()), |plan| Self::Dataset(Box::new(plan)))
            }
            Edge::Literal { values } if values.len() > 1 => Self::PerTaskLiteral(Box::new(Packed::new(values))),
            Edge::Literal { values } => Self::Literal(Box::new(Packed::new(values))),
        }
    }

    /// Adds the arrays that it reads from.
    fn add_sources(&self, sources: &mut Vec<u32>) {
        match self {
            Self::Each { source, .. }
            | Self::All { source, .. }
            | Self::Slice { source }
            | Self::Fold { source, .. } => sources.push(*source),
            Self::List(lists) => sources.extend(lists.sources()),
            Self::Dataset(_) | Self::Literal(_) | Self::PerTaskLiteral(_) => {}
        }
    }

    /// The arrays that it reads from, each once.
    pub(crate) fn sources(&self) -> Vec<u32> {
        let mut sources = Vec::new();
        self.add_sources(&mut sources);
        sources.dedup();
        sources
    }

    /// Whether it is met for all tasks at once, when every task of this source has succeeded.
    pub(crate) const fn gate(&self) -> Option<u32> {
        match self {
            Self::All { source, .. } | Self::Slice { source } => Some(*source),
            Self::Each { .. }
            | Self::Fold { .. }
            | Self::List(_)
            | Self::Dataset(_)
            | Self::Literal(_)
            | Self::PerTaskLiteral(_) => None,
        }
    }

    /// Whether it gives each task partitions of its own.
    pub(crate) const fn is_per_task(&self) -> bool {
        matches!(self, Self::Each { .. } | Self::Fold { .. } | Self::List(_))
    }
}

/// An edge, seen from its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Consumer {
    pub(crate) array: u32,
    pub(crate) input: u32,
}

/// What tasks of an array wrote, and where it is.
#[derive(Debug, Default)]
struct Written {
    /// Task by task.
    outputs: Few<OutputInfo>,
    /// How many bytes of it each host has.
    located: Located,
}

/// An array of a job. There may be as many as tasks, so it is small: what it shares with others is in its [`Kind`], and what
/// most arrays do not have, or not yet, is boxed.
#[derive(Debug)]
pub(crate) struct Array {
    pub(crate) kind: Arc<Kind>,
    /// Its name, and behind it what all its tasks are told: one block of memory for both.
    text: Box<[u8]>,
    /// What each task is told of its own.
    told: Option<Box<Packed<u8>>>,
    pub(crate) inputs: Few<Input>,
    /// The arrays that it reads from, each once; a fold also reads from itself.
    pub(crate) sources: Few<u32>,
    pub(crate) consumers: Few<Consumer>,
    /// Length of the longest path to it.
    pub(crate) depth: u32,
    /// Edges that wait for all tasks of their source.
    pub(crate) closed_gates: u32,
    pub(crate) tasks: Tasks,
    /// The tasks in [`State::Ready`].
    pub(crate) ready: RangeSet,
    /// Nothing until the first task succeeds.
    written: Option<Box<Written>>,
    /// The tasks that have a past, by position.
    #[expect(clippy::box_collection, reason = "an empty map is three times as large as this")]
    history: Option<Box<BTreeMap<u32, History>>>,
    /// Succeeded tasks whose outputs are at a detached host, or at one that has not come back since a restart.
    pub(crate) away: u32,
    /// How much of the text is the name.
    name_length: u16,
    /// Whether the tenant's set of arrays to run has it.
    pub(crate) listed: bool,
    /// Whether the job's list of arrays to look at has it.
    pub(crate) dirty: bool,
}

const _: () = assert!(size_of::<Array>() <= 152, "an array has become larger than a task may cost");

impl Array {
    /// An array with `tasks` tasks behind `before`. `plans` yields the plans of its dataset edges.
    pub(crate) fn new(
        spec: &ArraySpec,
        kind: Arc<Kind>,
        tasks: u32,
        before: &[Self],
        plans: &mut impl Iterator<Item = DatasetPlan>,
    ) -> Self {
        let position = u32::try_from(before.len()).unwrap_or(u32::MAX);
        let source_tasks = |array: ArrayIndex| before.get(array.0 as usize).map_or(0, Self::len);
        let inputs: Vec<_> = spec.inputs.iter().map(|edge| Input::new(edge, source_tasks, || plans.next())).collect();
        let mut sources: Vec<u32> = Vec::new();
        inputs.iter().for_each(|input| input.add_sources(&mut sources));
        sources.sort_unstable();
        sources.dedup();
        let above = sources.iter().filter_map(|source| before.get(*source as usize)).map(|array| array.depth + 1).max();
        if inputs.iter().any(|input| matches!(input, Input::Fold { .. })) {
            sources.push(position);
        }
        let (common, told): (&[u8], _) = match &spec.arguments {
            Arguments::Common(bytes) => (bytes, None),
            Arguments::PerTask(list) => (&[], Some(Box::new(Packed::new(list)))),
        };
        // Names that were accepted are much shorter than that.
        let name_length = u16::try_from(spec.name.len()).unwrap_or(u16::MAX);
        let text = [&spec.name.as_bytes()[..usize::from(name_length)], common].concat();
        Self {
            kind,
            text: text.into_boxed_slice(),
            told,
            inputs: inputs.into(),
            sources: sources.into(),
            consumers: Few::None,
            depth: above.unwrap_or(0),
            closed_gates: 0,
            tasks: Tasks::new(tasks),
            ready: RangeSet::default(),
            written: None,
            history: None,
            away: 0,
            name_length,
            listed: false,
            dirty: false,
        }
    }

    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.tasks.len()).unwrap_or(u32::MAX)
    }

    /// What is left of an array that is gone: its part of what it shared.
    pub(crate) fn into_kind(self) -> Arc<Kind> {
        self.kind
    }

    /// The name of the function; empty for uploads.
    pub(crate) fn function(&self) -> &str {
        match &self.kind.source {
            ArraySource::Function { function, .. } => function,
            ArraySource::Upload => "",
        }
    }

    /// The module of the function; uploads have none.
    pub(crate) fn module(&self) -> Option<ModuleId> {
        match &self.kind.source {
            ArraySource::Function { module, .. } => Some(*module),
            ArraySource::Upload => None,
        }
    }

    pub(crate) fn is_upload(&self) -> bool {
        matches!(self.kind.source, ArraySource::Upload)
    }

    pub(crate) fn unfinished(&self) -> u32 {
        self.tasks.counts().unfinished()
    }

    pub(crate) fn all_succeeded(&self) -> bool {
        self.tasks.in_state(State::Succeeded) == self.len()
    }

    /// Whether its outputs belong to the results of the job.
    pub(crate) fn is_result(&self, own: u32) -> bool {
        self.kind.options.keep || self.consumers.iter().all(|consumer| consumer.array == own)
    }

    /// What a task wrote. Empty for one that never succeeded.
    pub(crate) fn outputs_of(&self, index: u32) -> &[OutputInfo] {
        let width = self.kind.outputs as usize;
        let start = index as usize * width;
        self.written.as_ref().and_then(|written| written.outputs.get(start..start + width)).unwrap_or(&[])
    }

    pub(crate) fn set_outputs(&mut self, index: u32, infos: &[OutputInfo]) {
        let width = self.kind.outputs as usize;
        let start = index as usize * width;
        let written = self.written.get_or_insert_default();
        if written.outputs.is_empty() {
            let nothing = OutputInfo { size: Default::default(), hash: partita_types::ContentHash([0; 32]) };
            written.outputs = vec![nothing; self.tasks.len() * width].into();
        }
        if let Some(place) = written.outputs.get_mut(start..start + width)
            && infos.len() == width
        {
            place.copy_from_slice(infos);
        }
    }

    /// How many bytes of its outputs each host has.
    pub(crate) fn located(&self) -> &[(HostId, u64)] {
        self.written.as_ref().map_or(&[], |written| written.located.all())
    }

    pub(crate) fn located_at(&self, host: HostId) -> u64 {
        self.located().iter().find(|(there, _)| *there == host).map_or(0, |(_, bytes)| *bytes)
    }

    /// As [`Array::located`], to be changed.
    pub(crate) fn located_mut(&mut self) -> &mut Located {
        &mut self.written.get_or_insert_default().located
    }

    /// What earlier attempts of a task taught about it.
    pub(crate) fn past(&self, index: u32) -> Option<&History> {
        self.history.as_ref()?.get(&index)
    }

    /// Whether any task has a past.
    pub(crate) fn has_pasts(&self) -> bool {
        self.history.is_some()
    }

    /// As [`Array::past`], to be changed.
    pub(crate) fn past_mut(&mut self, index: u32) -> &mut History {
        self.history.get_or_insert_default().entry(index).or_default()
    }

    /// What people call it.
    pub(crate) fn name(&self) -> &str {
        std::str::from_utf8(&self.text[..usize::from(self.name_length)]).unwrap_or_default()
    }

    /// What all its tasks are told, if that is the same.
    fn common_arguments(&self) -> &[u8] {
        &self.text[usize::from(self.name_length)..]
    }

    /// What a task is told of its own, if each is told something else.
    pub(crate) fn own_arguments(&self, index: u32) -> Option<&[u8]> {
        self.told.as_ref().map(|list| list.get(index as usize))
    }

    /// What a task is told.
    pub(crate) fn arguments_of(&self, index: u32) -> &[u8] {
        self.own_arguments(index).unwrap_or_else(|| self.common_arguments())
    }

    /// Bytes of all outputs of a task.
    pub(crate) fn bytes_of(&self, index: u32) -> u64 {
        self.outputs_of(index).iter().fold(0, |sum, info| sum.saturating_add(info.size.0))
    }

    /// What a host must know before it can run a frame of it. `None` for uploads, which never run.
    pub(crate) fn header(&self, job: JobId, array: ArrayIndex, submitted_at: Timestamp) -> Option<ArrayHeader> {
        let ArraySource::Function { module, function } = &self.kind.source else { return None };
        let group = |input: &Input| match input {
            Input::Dataset(plan) => InputGroup::Dataset(DatasetPlan::clone(plan)),
            Input::Literal(value) => InputGroup::Literal(value.items().to_vec()),
            Input::PerTaskLiteral(_) => InputGroup::PerTaskLiteral,
            Input::Each { .. } | Input::All { .. } | Input::Slice { .. } | Input::Fold { .. } | Input::List(_) => {
                InputGroup::Partitions
            }
        };
        Some(ArrayHeader {
            job,
            array,
            module: *module,
            function: function.clone(),
            outputs: self.kind.outputs,
            limits: self.kind.limits,
            common_arguments: self.common_arguments().to_vec(),
            submitted_at,
            inputs: self.inputs.iter().map(group).collect(),
        })
    }
}
