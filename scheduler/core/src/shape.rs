//! How many tasks each array of a submission has, and whether its parts and references agree about it.
//!
//! The last of the checks that need nothing but the submission; [`partita_types::JobSpec::check`] comes first.
//! Replay computes the same shapes from the recorded submission again.

use partita_types::{
    Arguments, ArrayIndex, ArraySpec, DatasetPlan, Edge, MAX_TASKS_PER_ARRAY, OutputRef, SpecError, TaskCount,
};

use crate::fold::FoldShape;

/// Most inputs of one task: a frame lists them one by one, and has to fit into a message.
const MAX_INPUTS_PER_TASK: u64 = 65_536;

/// The resolved size of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) tasks: u32,
    pub(crate) outputs: u32,
}

/// The shapes of `arrays`, which stand behind arrays of the shapes `before`. `plans` has one plan for each dataset edge,
/// in the order of arrays and edges.
pub(crate) fn resolve(arrays: &[ArraySpec], before: &[Shape], plans: &[DatasetPlan]) -> Result<Vec<Shape>, SpecError> {
    let mut shapes = before.to_vec();
    let mut plans = plans.iter();
    for array in arrays {
        let tasks = length(array, &shapes, &mut plans)?;
        check_references(array, tasks, &shapes)?;
        shapes.push(Shape { tasks, outputs: array.outputs });
    }
    Ok(shapes.split_off(before.len()))
}

/// The shape of an array that `JobSpec::check` found to exist.
fn shape_of(shapes: &[Shape], array: ArrayIndex) -> Shape {
    shapes.get(array.0 as usize).copied().unwrap_or(Shape { tasks: 0, outputs: 0 })
}

/// The length that all parts of the array agree upon.
fn length<'a>(
    array: &ArraySpec,
    shapes: &[Shape],
    plans: &mut impl Iterator<Item = &'a DatasetPlan>,
) -> Result<u32, SpecError> {
    let mut demands: Vec<(&'static str, u64)> = Vec::new();
    if let TaskCount::Fixed(tasks) = array.tasks {
        demands.push(("task count", u64::from(tasks)));
    }
    for edge in &array.inputs {
        demands.extend(demand(edge, shapes, plans));
    }
    if let Arguments::PerTask(arguments) = &array.arguments {
        demands.push(("list of arguments", arguments.len() as u64));
    }
    let first = demands.first().map_or(1, |(_, tasks)| *tasks);
    let what = |what: &str| format!("{what} of array {:?}", array.name);
    let limit = u64::from(MAX_TASKS_PER_ARRAY);
    let tasks = u32::try_from(first).ok().filter(|tasks| u64::from(*tasks) <= limit);
    let tasks = tasks.ok_or_else(|| SpecError::TooMany { what: what("number of tasks"), value: first, limit })?;
    if tasks == 0 {
        return Err(SpecError::Zero { what: what("number of tasks") });
    }
    match demands.into_iter().find(|(_, asked)| *asked != first) {
        None => Ok(tasks),
        Some((what, asked)) => Err(SpecError::Length { array: array.name.clone(), tasks, what, asked }),
    }
}

/// How many tasks an edge asks for, if it does.
fn demand<'a>(
    edge: &Edge,
    shapes: &[Shape],
    plans: &mut impl Iterator<Item = &'a DatasetPlan>,
) -> Option<(&'static str, u64)> {
    match edge {
        Edge::Each { array, .. } => Some(("each edge", u64::from(shape_of(shapes, *array).tasks))),
        Edge::Slice { array } => Some(("slice edge", u64::from(shape_of(shapes, *array).outputs))),
        Edge::Fold { array, arity } => {
            let leaves = shape_of(shapes, *array).tasks.max(1);
            Some(("fold edge", u64::from(FoldShape::new(leaves, (*arity).max(2)).tasks())))
        }
        Edge::List { tasks } => Some(("list edge", tasks.len() as u64)),
        Edge::Dataset { .. } => Some(("dataset edge", plans.next().map_or(0, |plan| u64::from(plan.splits)))),
        Edge::Literal { values } if values.len() > 1 => Some(("literal edge", values.len() as u64)),
        Edge::All { .. } | Edge::Literal { .. } => None,
    }
}

/// Checks that listed tasks exist, and that no task reads more than fits into a frame.
fn check_references(array: &ArraySpec, tasks: u32, shapes: &[Shape]) -> Result<(), SpecError> {
    let mut common = 0_u64;
    let mut longest = 0_u64;
    for edge in &array.inputs {
        match edge {
            Edge::All { array, .. } | Edge::Slice { array } => common += u64::from(shape_of(shapes, *array).tasks),
            Edge::Each { .. } => common += 1,
            Edge::Fold { arity, .. } => common += u64::from(*arity),
            Edge::List { tasks: lists } => {
                longest += lists.iter().map(Vec::len).max().unwrap_or(0) as u64;
                lists.iter().flatten().try_for_each(|source| check_exists(array, source, shapes))?;
            }
            Edge::Dataset { .. } | Edge::Literal { .. } => {}
        }
    }
    let value = common + longest;
    if tasks > 0 && value > MAX_INPUTS_PER_TASK {
        let what = format!("number of inputs of a task of array {:?}", array.name);
        return Err(SpecError::TooMany { what, value, limit: MAX_INPUTS_PER_TASK });
    }
    Ok(())
}

fn check_exists(array: &ArraySpec, source: &OutputRef, shapes: &[Shape]) -> Result<(), SpecError> {
    let tasks = shape_of(shapes, source.array).tasks;
    if source.index < tasks {
        return Ok(());
    }
    Err(SpecError::NoSuchTask { array: array.name.clone(), target: source.array, index: source.index, tasks })
}
