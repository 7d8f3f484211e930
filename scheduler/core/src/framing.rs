//! Frames as hosts get them: arguments, literals, and where each input is.

use std::collections::BTreeMap;

use partita_types::{ArrayIndex, AttemptNumber, ByteSize, Frame, FrameId, HostId, InputPartition, Source};

use crate::Core;
use crate::array::{Array, Input};
use crate::edges::Read;
use crate::job::Job;
use crate::plan::Plan;
use crate::planted::Bug;
use crate::results::stored;
use crate::task::Place;

/// What the tasks of a frame read, in the order of [`Frame::inputs`].
pub(crate) struct FrameInputs {
    counts: Vec<u32>,
    inputs: Vec<InputPartition>,
    sources: Vec<Source>,
}

impl Core {
    /// Where everything is that the tasks of a plan read. `None` if something is nowhere; such tasks are not ready.
    pub(crate) fn frame_inputs(&self, plan: &Plan) -> Option<FrameInputs> {
        let job = self.find_job(plan.job)?;
        let mut found = FrameInputs { counts: Vec::new(), inputs: Vec::new(), sources: Vec::new() };
        let mut positions = BTreeMap::new();
        let groups = (0_u32..).zip(&job.array(plan.array).inputs);
        let groups: Vec<u32> = groups.filter(|(_, input)| is_partitions(input)).map(|(group, _)| group).collect();
        let mut complete = true;
        for index in &plan.indexes {
            for group in &groups {
                let before = found.inputs.len();
                let wrong = self.has(Bug::WrongSliceParent)
                    && matches!(job.array(plan.array).inputs[*group as usize], Input::Slice { .. });
                job.each_read_of_group(plan.array, *index, *group, &mut |read| {
                    let last = read.index + 1 == job.array(read.array).len();
                    let read = Read { index: if wrong && last { 0 } else { read.index }, ..read };
                    let place = job.task(read.array, read.index).place();
                    let partition = stored(job, ArrayIndex(read.array), read.index, read.output);
                    let (Place::At(host), Some(partition)) = (place, partition) else {
                        complete = false;
                        return;
                    };
                    let sources = &mut found.sources;
                    let source = *positions.entry(host).or_insert_with(|| {
                        sources.push(self.source(host));
                        u32::try_from(sources.len() - 1).unwrap_or(u32::MAX)
                    });
                    found.inputs.push(InputPartition { partition, source });
                });
                found.counts.push(u32::try_from(found.inputs.len() - before).unwrap_or(u32::MAX));
            }
        }
        debug_assert!(complete, "a ready task reads what is nowhere");
        complete.then_some(found)
    }

    pub(crate) fn source(&self, host: HostId) -> Source {
        let host = &self.hosts[host.0 as usize];
        Source { host: host.id, name: host.name.clone(), address: host.address.clone(), ticket: Vec::new() }
    }
}

/// Puts a frame together.
pub(crate) fn frame(id: FrameId, job: &Job, plan: &Plan, attempts: Vec<AttemptNumber>, inputs: FrameInputs) -> Frame {
    let array = job.array(plan.array);
    let own = |index: &u32| array.own_arguments(*index).map(<[u8]>::to_vec);
    Frame {
        id,
        job: plan.job,
        array: ArrayIndex(plan.array),
        indexes: plan.indexes.clone(),
        attempts,
        arguments: plan.indexes.iter().filter_map(own).collect(),
        literals: plan.indexes.iter().flat_map(|index| literals(array, *index)).collect(),
        input_counts: inputs.counts,
        inputs: inputs.inputs,
        sources: inputs.sources,
        memory: (plan.memory != array.kind.limits.memory.0).then_some(ByteSize(plan.memory)),
        reuse: plan.reuse.clone(),
    }
}

/// The values that per-task literals have for one task.
fn literals(array: &Array, index: u32) -> impl Iterator<Item = Vec<u8>> {
    array.inputs.iter().filter_map(move |input| match input {
        Input::PerTaskLiteral(values) => Some(values.get(index as usize).to_vec()),
        _ => None,
    })
}

fn is_partitions(input: &Input) -> bool {
    input.is_per_task() || input.gate().is_some()
}
