//! What people look at, as messages. The other direction, and everything hosts see, is `partita_protocol::convert`.

use std::ops::Range;

use partita_core::{
    ArrayView, Explanation, HostView, JobEnd, JobEvent, JobTotals, JobView, LeftView, TaskCounts, TaskEnd, TenantView,
};
use partita_protocol::client as wire;
use partita_protocol::client::job_event::Event;
use partita_protocol::features_to_wire;
use partita_types::{AttemptId, Failure, ModuleInfo, Timestamp};

use crate::issued::{Issued, TokenHolder};

pub(crate) fn module(info: &ModuleInfo, pushed: Timestamp, quarantine: Option<&str>) -> wire::Module {
    wire::Module {
        id: info.id.0.to_vec().into(),
        name: info.name.clone(),
        size: info.size.0,
        functions: info.functions.iter().cloned().map(Into::into).collect(),
        pushed_at_us: pushed.micros,
        quarantine: quarantine.unwrap_or_default().to_owned(),
    }
}

pub(crate) fn job(view: JobView) -> wire::Job {
    let failure = view.failure.map(|(task, attempts, failure)| wire::TaskFailure {
        array: task.array.0,
        index: task.index,
        attempts,
        failure: Some(failure.into()),
    });
    wire::Job {
        number: view.id.number,
        name: view.name,
        tenant: view.tenant.into(),
        state: state(view.end).into(),
        open: view.open,
        arrays: view.arrays.into_iter().map(array).collect(),
        counts: Some(counts(&view.counts)),
        submitted_at_us: view.submitted.micros,
        ended_at_us: view.ended.map_or(0, |at| at.micros),
        totals: Some(totals(&view.totals)),
        failure,
    }
}

const fn state(end: Option<JobEnd>) -> wire::JobState {
    match end {
        None => wire::JobState::Running,
        Some(JobEnd::Succeeded) => wire::JobState::Succeeded,
        Some(JobEnd::Failed) => wire::JobState::Failed,
        Some(JobEnd::Cancelled) => wire::JobState::Cancelled,
        Some(JobEnd::Expired) => wire::JobState::Expired,
    }
}

fn array(view: ArrayView) -> wire::Array {
    wire::Array {
        name: view.name,
        function: view.function,
        tasks: tasks(&view.counts),
        outputs: view.outputs,
        counts: Some(counts(&view.counts)),
    }
}

/// A token that was issued.
pub(crate) fn issued(issued: Issued, revoked: bool) -> wire::IssuedToken {
    let Issued { id, holder, issued_us, expires_us, by } = issued;
    let (tenant, subject, role) = match holder {
        TokenHolder::Person { tenant, subject, role } => (tenant.to_string(), subject, role.to_string()),
        TokenHolder::Host { host } => (String::new(), host.to_string(), "join".to_owned()),
    };
    let [issued_at_s, expires_at_s] = [issued_us, expires_us].map(|time| time / 1_000_000);
    wire::IssuedToken { id, tenant, subject, role, issued_at_s, expires_at_s, revoked, by }
}

/// All tasks of an array.
pub(crate) fn tasks(counts: &TaskCounts) -> u32 {
    let TaskCounts { waiting, ready, assigned, succeeded, failed, cancelled, aborted } = *counts;
    [waiting, ready, assigned, succeeded, failed, cancelled, aborted].into_iter().fold(0, u32::saturating_add)
}

const fn counts(counts: &TaskCounts) -> wire::TaskCounts {
    let TaskCounts { waiting, ready, assigned, succeeded, failed, cancelled, aborted } = *counts;
    wire::TaskCounts { waiting, ready, assigned, succeeded, failed, cancelled, aborted }
}

const fn totals(totals: &JobTotals) -> wire::JobTotals {
    wire::JobTotals {
        attempts: totals.attempts,
        cpu_us: totals.cpu.micros,
        peak_memory_bytes: totals.peak_memory.0,
        partitions: totals.partitions,
        partition_bytes: totals.partition_bytes.0,
        moved_partitions: totals.moved_partitions,
        moved_bytes: totals.moved_bytes.0,
        dataset_files: totals.dataset_files,
        dataset_bytes: totals.dataset_bytes.0,
        reused: totals.reused,
        speculative: totals.speculative,
    }
}

/// An event with its number.
pub(crate) fn event(sequence: u64, event: JobEvent) -> wire::JobEvent {
    let event = match event {
        JobEvent::ArraysAdded { first: _, arrays } => Event::ArraysAdded(wire::ArraysAdded {
            arrays: arrays
                .into_iter()
                .map(|(name, function, tasks, outputs)| wire::Array { name, function, tasks, outputs, counts: None })
                .collect(),
        }),
        JobEvent::TasksEnded { array, end, tasks } => Event::TasksEnded(tasks_ended(array.0, task_end(end), &tasks)),
        JobEvent::TasksLost { array, tasks } => {
            Event::TasksLost(tasks_ended(array.0, wire::TaskEnd::Unspecified, &tasks))
        }
        JobEvent::AttemptFailed { attempt, failure } => Event::AttemptFailed(attempt_failed(attempt, failure)),
        JobEvent::Ended(end) => Event::JobEnded(wire::JobEnded { state: state(Some(end)).into() }),
    };
    wire::JobEvent { sequence, event: Some(event) }
}

fn tasks_ended(array: u32, end: wire::TaskEnd, tasks: &[(u32, u32)]) -> wire::TasksEnded {
    wire::TasksEnded {
        array,
        end: end.into(),
        first: tasks.iter().map(|(first, _)| *first).collect(),
        count: tasks.iter().map(|(_, count)| *count).collect(),
    }
}

const fn task_end(end: TaskEnd) -> wire::TaskEnd {
    match end {
        TaskEnd::Succeeded => wire::TaskEnd::Succeeded,
        TaskEnd::Failed => wire::TaskEnd::Failed,
        TaskEnd::Cancelled => wire::TaskEnd::Cancelled,
        TaskEnd::Aborted => wire::TaskEnd::Aborted,
    }
}

fn attempt_failed(attempt: AttemptId, failure: Failure) -> wire::TaskFailure {
    wire::TaskFailure {
        array: attempt.task.array.0,
        index: attempt.task.index,
        attempts: attempt.number.in_its_life(),
        failure: Some(failure.into()),
    }
}

/// A host; its address only for those who run the cluster.
pub(crate) fn host(view: HostView, show_address: bool) -> wire::Host {
    let (labels, resources) = features_to_wire(&view.features);
    wire::Host {
        name: view.name.into(),
        state: view.state.to_owned(),
        cores: view.capacity.cores,
        memory_bytes: view.capacity.memory.0,
        partition_budget_bytes: view.capacity.partitions.0,
        assigned_tasks: view.assigned_tasks,
        stored_partitions: view.stored_partitions,
        stored_bytes: view.stored.0,
        isolation: view.isolation.as_str().to_owned(),
        address: if show_address { view.address } else { String::new() },
        attached_at_us: view.attached.micros,
        labels,
        resources,
        drain: view.drain.map(|drain| wire::HostDrain {
            since_us: drain.since.micros,
            done: drain.done,
            tasks: drain.tasks,
            partitions: drain.partitions,
            bytes: drain.bytes.0,
            stuck: drain.stuck.unwrap_or_default(),
        }),
    }
}

/// What is left of an array at a host.
pub(crate) fn left(view: LeftView) -> wire::HostArray {
    let LeftView { tenant, job, array, tasks, bytes } = view;
    wire::HostArray { tenant: tenant.into(), job: job.number, array, tasks, bytes: bytes.0 }
}

pub(crate) fn usage(view: TenantView) -> wire::TenantUsage {
    wire::TenantUsage {
        tenant: view.name.into(),
        weight: u64::from(view.policy.quota.weight),
        running_jobs: view.running_jobs,
        queued_tasks: view.queued_tasks,
        queued_tasks_limit: view.policy.quota.queued_tasks,
        assigned_tasks: u64::from(view.concurrent_tasks),
        assigned_memory_bytes: view.concurrent_memory.0,
        stored_bytes: view.stored.0,
        cpu_us: view.cpu.micros,
        peak_memory_bytes: view.peak_memory.0,
    }
}

pub(crate) fn explanation(explanation: Explanation) -> wire::Explanation {
    wire::Explanation {
        array: explanation.array.0,
        first: explanation.first,
        count: explanation.count,
        state: explanation.state.to_owned(),
        reason: explanation.reason,
    }
}

/// The tasks that a request for results means, within an array of `tasks`; `None` if it reaches beyond.
pub(crate) fn result_tasks(request: &wire::ResultRequest, tasks: u32) -> Option<Range<u32>> {
    let end = if request.count == 0 { tasks } else { request.first.checked_add(request.count)? };
    (request.first <= end && end <= tasks).then_some(request.first..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_for_results_cannot_reach_beyond_the_array() {
        let ask = |first, count| result_tasks(&wire::ResultRequest { first, count, ..Default::default() }, 10);
        assert_eq!(ask(0, 0), Some(0..10));
        assert_eq!(ask(4, 0), Some(4..10));
        assert_eq!(ask(4, 6), Some(4..10));
        assert_eq!(ask(4, 7), None);
        assert_eq!(ask(11, 0), None);
        assert_eq!(ask(u32::MAX, u32::MAX), None);
    }
}
