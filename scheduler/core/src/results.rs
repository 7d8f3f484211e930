//! Where results are. A question for outputs that are lost, away or being rebuilt is answered when they are there.

use std::ops::Range;

use partita_types::{ArrayIndex, AttemptId, AttemptNumber, HostId, JobId, PartitionId, StoredPartition, TaskId};

use crate::action::{Action, JobEnd, Refusal, Reply};
use crate::event::RequestId;
use crate::job::Job;
use crate::task::{Place, State};
use crate::{Core, no_such_job};

/// Most partitions in one answer.
const LOCATED_MAX: u32 = 1_024;

/// A question for outputs.
#[derive(Debug, Clone)]
pub(crate) struct Locate {
    pub(crate) request: RequestId,
    pub(crate) job: JobId,
    pub(crate) array: ArrayIndex,
    pub(crate) tasks: Range<u32>,
    pub(crate) output: u32,
}

/// What can be said of one output.
enum Finding {
    At(HostId),
    /// It will come by itself.
    Later,
    /// It comes if its task runs again.
    Gone,
}

impl Core {
    pub(crate) fn on_locate(&mut self, locate: Locate) {
        self.locates.push(locate);
    }

    /// Answers every question that can be answered. They are as few as there are clients who wait.
    pub(crate) fn answer_locates(&mut self, actions: &mut Vec<Action>) {
        let mut position = 0;
        while let Some(locate) = self.locates.get(position).cloned() {
            match self.locate(&locate, actions) {
                Ok(None) => position += 1,
                Ok(Some(reply)) => {
                    self.locates.remove(position);
                    actions.push(Action::Reply { request: locate.request, reply });
                }
                Err(refusal) => {
                    self.locates.remove(position);
                    let reply = Reply::Refused(refusal);
                    actions.push(Action::Reply { request: locate.request, reply });
                }
            }
        }
    }

    fn locate(&mut self, locate: &Locate, actions: &mut Vec<Action>) -> Result<Option<Reply>, Refusal> {
        let job = self.find_job(locate.job).ok_or_else(|| no_such_job(locate.job))?;
        let array = job
            .find_array(locate.array)
            .ok_or_else(|| Refusal::NotFound { what: format!("array {} of job {}", locate.array, locate.job) })?;
        if locate.output >= array.kind.outputs || locate.tasks.is_empty() || locate.tasks.end > array.len() {
            let Locate { array, tasks, output, .. } = locate;
            let what = format!("output {output} of tasks {} to {} of array {array}", tasks.start, tasks.end);
            return Err(Refusal::NotFound { what });
        }
        let mut located = Vec::new();
        let mut gone = Vec::new();
        let first = locate.tasks.start;
        for index in locate.tasks.clone().take(LOCATED_MAX as usize) {
            match self.find_output(job, locate.array, index) {
                Ok(Finding::At(host)) if gone.is_empty() => {
                    located.extend(stored(job, locate.array, index, locate.output).map(|stored| (host, stored)));
                }
                Ok(Finding::At(_)) => {}
                Ok(Finding::Gone) if located.is_empty() => gone.push(job.task_id(locate.array.0, index)),
                Err(refusal) if index == first => return Err(refusal),
                Ok(Finding::Later | Finding::Gone) | Err(_) => break,
            }
        }
        if !gone.is_empty() {
            self.rebuild(gone, None, actions);
        }
        Ok((!located.is_empty()).then_some(Reply::Located(located)))
    }

    fn find_output(&self, job: &Job, array: ArrayIndex, index: u32) -> Result<Finding, Refusal> {
        let task = job.task(array.0, index);
        let refuse = |state| Err(Refusal::State { what: format!("task {}", job.task_id(array.0, index)), state });
        match task.state {
            State::Succeeded => match task.place() {
                Place::At(host) if self.hosts[host.0 as usize].is_attached() => Ok(Finding::At(host)),
                Place::At(_) | Place::Unknown => Ok(Finding::Later),
                Place::Nowhere if job.array(array.0).is_upload() => refuse("was uploaded, and lost with its host"),
                Place::Nowhere if matches!(job.end, Some(JobEnd::Failed | JobEnd::Cancelled | JobEnd::Expired)) => {
                    refuse("lost its outputs; nothing runs again in a job that failed or was stopped")
                }
                Place::Nowhere if job.wants_outputs_of(array.0) => Ok(Finding::Gone),
                Place::Nowhere => refuse("had its outputs consumed; `keep` on its array keeps them"),
            },
            State::Failed => refuse("failed"),
            State::Cancelled => refuse("was cancelled"),
            State::Aborted => refuse("was aborted, because a task that it depends on failed"),
            State::Waiting | State::Ready | State::Delayed | State::Assigned if task.again => Ok(Finding::Later),
            State::Waiting | State::Ready | State::Delayed | State::Assigned => {
                refuse("has not ended; wait until it has")
            }
        }
    }
}

/// One output of a succeeded task.
pub(crate) fn stored(job: &Job, array: ArrayIndex, index: u32, output: u32) -> Option<StoredPartition> {
    let task = TaskId { job: job.id, array, index };
    let number = AttemptNumber::from_wire(job.task(array.0, index).attempt)?;
    let info = *job.array(array.0).outputs_of(index).get(output as usize)?;
    Some(StoredPartition { id: PartitionId { attempt: AttemptId { task, number }, output }, info })
}
