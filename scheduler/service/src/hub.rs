//! The events of jobs, numbered, for clients who watch.
//!
//! The writer thread publishes; calls that watch read. An event gets its number when it is published, in the order of
//! the journal, and is shown when its record is on disk: so a client that comes back after a restart with the number
//! of the last event it saw finds the same events behind it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use partita_core::{JobEnd, JobEvent};
use partita_types::JobId;
use tokio::sync::watch;

/// Most memory for the events of one job, about. Beyond it the oldest are forgotten: who wants them is told to look at
/// the job instead.
const LOG_BYTES: usize = 32 << 20;
/// Most events in one answer, and about how large they may be together.
const BATCH_EVENTS: usize = 512;
const BATCH_BYTES: usize = 256 << 10;

/// How far the events of a job are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    /// Events before this number may be shown.
    pub(crate) visible: u64,
    /// The last event of the job is among them.
    pub(crate) ended: bool,
    /// The job was released.
    pub(crate) gone: bool,
}

/// The events of one job.
#[derive(Debug, Default)]
pub(crate) struct Log {
    events: Mutex<Events>,
    progress: watch::Sender<Progress>,
}

#[derive(Debug, Default)]
struct Events {
    /// The number of the first one kept.
    first: u64,
    kept: VecDeque<(JobEvent, usize)>,
    bytes: usize,
    end: Option<JobEnd>,
}

/// Events that are no longer kept were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("events before {first} of this job are no longer kept; watch from {first} on, or look at the job")]
pub(crate) struct Forgotten {
    pub(crate) first: u64,
}

impl Log {
    fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the progress.
    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// The next events from number `from` on, with their numbers, among those visible. Empty if there are none.
    ///
    /// # Errors
    /// If `from` is no longer kept.
    pub(crate) fn read(&self, from: u64) -> Result<Vec<(u64, JobEvent)>, Forgotten> {
        let visible = self.progress.borrow().visible;
        let events = self.events();
        if from < events.first {
            return Err(Forgotten { first: events.first });
        }
        let skip = usize::try_from(from - events.first).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let mut read = Vec::new();
        for (number, (event, size)) in (from..visible).zip(events.kept.iter().skip(skip)).take(BATCH_EVENTS) {
            bytes += size;
            if bytes > BATCH_BYTES && !read.is_empty() {
                break;
            }
            read.push((number, event.clone()));
        }
        Ok(read)
    }

    fn push(&self, event: JobEvent) {
        let mut events = self.events();
        if let JobEvent::Ended(end) = event {
            events.end = Some(end);
        }
        let event = joined(event);
        let size = size(&event);
        events.bytes += size;
        events.kept.push_back((event, size));
        while events.bytes > LOG_BYTES && events.kept.len() > 1 {
            if let Some((_, size)) = events.kept.pop_front() {
                events.bytes -= size;
                events.first += 1;
            }
        }
    }

    fn reveal(&self) {
        let events = self.events();
        let (visible, ended) = (events.first + events.kept.len() as u64, events.end.is_some());
        drop(events);
        self.progress.send_modify(|progress| (progress.visible, progress.ended) = (visible, ended));
    }
}

/// About how much memory an event takes.
fn size(event: &JobEvent) -> usize {
    let inside = match event {
        JobEvent::ArraysAdded { arrays, .. } => {
            arrays.iter().map(|(name, function, ..)| name.len() + function.len() + 64).sum()
        }
        JobEvent::TasksEnded { tasks, .. } | JobEvent::TasksLost { tasks, .. } => tasks.len() * 8,
        JobEvent::AttemptFailed { failure, .. } => {
            let lines = failure.backtrace.iter().chain(&failure.log_tail);
            failure.message.len() + lines.map(|line| line.len() + 24).sum::<usize>()
        }
        JobEvent::Ended(_) => 0,
    };
    size_of::<(JobEvent, usize)>() + inside
}

/// Joins ranges of one event that touch. Never joins events: those follow from journal records, which are batched
/// differently after a restart only if we did so here.
fn joined(event: JobEvent) -> JobEvent {
    match event {
        JobEvent::TasksEnded { array, end, tasks } => JobEvent::TasksEnded { array, end, tasks: join(tasks) },
        JobEvent::TasksLost { array, tasks } => JobEvent::TasksLost { array, tasks: join(tasks) },
        other => other,
    }
}

fn join(mut ranges: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    ranges.dedup_by(|next, before| {
        let touches = before.0.checked_add(before.1) == Some(next.0);
        if touches {
            before.1 += next.1;
        }
        touches
    });
    ranges.shrink_to_fit();
    ranges
}

/// The events of all jobs.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    logs: Mutex<Logs>,
}

#[derive(Debug, Default)]
struct Logs {
    jobs: BTreeMap<JobId, Arc<Log>>,
    /// Jobs with events that are not visible yet.
    hidden: BTreeSet<JobId>,
}

impl Hub {
    fn logs(&self) -> MutexGuard<'_, Logs> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log of a job that exists. Call this in the order of the journal only, so that a log which was forgotten
    /// does not come back.
    pub(crate) fn log(&self, job: JobId) -> Arc<Log> {
        Arc::clone(self.logs().jobs.entry(job).or_default())
    }

    /// Appends an event. It is not visible yet.
    pub(crate) fn publish(&self, job: JobId, event: JobEvent) {
        let mut logs = self.logs();
        logs.jobs.entry(job).or_default().push(event);
        logs.hidden.insert(job);
    }

    /// Forgets the events of a released job.
    pub(crate) fn forget(&self, job: JobId) {
        let mut logs = self.logs();
        logs.hidden.remove(&job);
        if let Some(log) = logs.jobs.remove(&job) {
            log.progress.send_modify(|progress| progress.gone = true);
        }
    }

    /// Shows everything published so far.
    pub(crate) fn reveal(&self) {
        let mut logs = self.logs();
        for job in std::mem::take(&mut logs.hidden) {
            if let Some(log) = logs.jobs.get(&job) {
                log.reveal();
            }
        }
    }

    /// Whether somebody watches a job with events that are not visible yet.
    pub(crate) fn watchers_wait(&self) -> bool {
        let logs = self.logs();
        logs.hidden.iter().any(|job| logs.jobs.get(job).is_some_and(|log| log.progress.receiver_count() > 0))
    }
}

#[cfg(test)]
mod tests {
    use partita_core::TaskEnd;
    use partita_types::{ArrayIndex, AttemptId, AttemptNumber, Cause, Failure, TaskId, TenantId};

    use super::*;

    const JOB: JobId = JobId { tenant: TenantId(1), number: 1 };

    fn ended(tasks: &[(u32, u32)]) -> JobEvent {
        JobEvent::TasksEnded { array: ArrayIndex(0), end: TaskEnd::Succeeded, tasks: tasks.to_vec() }
    }

    #[test]
    fn events_are_hidden_until_they_are_on_disk() {
        let hub = Hub::default();
        hub.publish(JOB, ended(&[(0, 1)]));
        let log = hub.log(JOB);
        assert_eq!(log.read(0), Ok(vec![]));
        assert!(!hub.watchers_wait());
        let progress = log.progress();
        assert!(hub.watchers_wait());
        hub.reveal();
        assert!(!hub.watchers_wait());
        assert_eq!(log.read(0), Ok(vec![(0, ended(&[(0, 1)]))]));
        assert_eq!(*progress.borrow(), Progress { visible: 1, ended: false, gone: false });
    }

    #[test]
    fn numbers_go_on_and_touching_ranges_of_one_event_are_joined() {
        let hub = Hub::default();
        hub.publish(JOB, ended(&[(0, 2), (2, 3), (7, 1)]));
        hub.publish(JOB, ended(&[(8, 1)]));
        hub.publish(JOB, JobEvent::Ended(JobEnd::Succeeded));
        hub.reveal();
        let events = hub.log(JOB).read(0).unwrap();
        assert_eq!(events[0], (0, ended(&[(0, 5), (7, 1)])));
        assert_eq!(events[1], (1, ended(&[(8, 1)])));
        assert_eq!(hub.log(JOB).read(2).unwrap().len(), 1);
        assert_eq!(hub.log(JOB).read(9), Ok(vec![]));
        assert!(hub.log(JOB).progress().borrow().ended);
    }

    #[test]
    fn a_log_has_a_bound_and_says_what_it_forgot() {
        let hub = Hub::default();
        let task = TaskId { job: JOB, array: ArrayIndex(0), index: 0 };
        let attempt = AttemptId { task, number: AttemptNumber::FIRST };
        let large = || JobEvent::AttemptFailed { attempt, failure: Failure::new(Cause::Trap, "x".repeat(1 << 20)) };
        for _ in 0..40 {
            hub.publish(JOB, large());
        }
        hub.reveal();
        let log = hub.log(JOB);
        let Forgotten { first } = log.read(0).unwrap_err();
        assert!((8..12).contains(&first), "{first}");
        let read = log.read(first).unwrap();
        assert_eq!((read.len(), read[0].0), (1, first), "one answer is bounded, too");
        assert_eq!(log.read(39).unwrap().len(), 1);
    }

    #[test]
    fn watchers_of_a_released_job_are_told() {
        let hub = Hub::default();
        hub.publish(JOB, ended(&[(0, 1)]));
        let progress = hub.log(JOB).progress();
        hub.forget(JOB);
        assert!(progress.borrow().gone);
        hub.reveal();
        assert_eq!(hub.log(JOB).read(0), Ok(vec![]));
    }
}
