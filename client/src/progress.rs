//! What is known of a job from its events: the fold over the event stream that futures and progress bars read.
//!
//! No I/O. Memory is bounded by what the cluster said about array sizes, which was checked against the limits of jobs.

use std::collections::BTreeMap;
use std::ops::Range;

use partita_types::{ArrayIndex, MAX_ARRAYS_PER_JOB};

use crate::view::{ArrayStatus, JobEvent, JobState, TaskEnd, TaskFailure};

/// Failures that are remembered with their texts. More are counted but look alike to a person.
const REMEMBERED_FAILURES: usize = 1_000;

/// A job as far as its events went.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    arrays: Vec<ArrayProgress>,
    state: Option<JobState>,
    failed_attempts: u64,
    failures: BTreeMap<(ArrayIndex, u32), TaskFailure>,
}

/// An array as far as its events went.
#[derive(Debug, Clone)]
pub struct ArrayProgress {
    /// Its name.
    pub name: String,
    /// How many tasks it has.
    pub tasks: u32,
    /// How many outputs each has.
    pub outputs: u32,
    succeeded: u32,
    failed: u32,
    cancelled: u32,
    aborted: u32,
    /// One byte per task, grown as far as ends were seen.
    ends: Vec<Option<TaskEnd>>,
    /// The ends in the order in which they came.
    log: Vec<(Range<u32>, TaskEnd)>,
}

impl Progress {
    /// Takes in the next event. Events that contradict what is known change nothing.
    pub fn apply(&mut self, event: &JobEvent) {
        match event {
            JobEvent::ArraysAdded { arrays } => {
                let room = MAX_ARRAYS_PER_JOB.saturating_sub(self.arrays.len());
                self.arrays.extend(arrays.iter().take(room).map(ArrayProgress::new));
            }
            JobEvent::TasksEnded { array, end, tasks } => {
                if let Some(array) = self.array_mut(*array) {
                    tasks.iter().for_each(|range| array.ended(range, *end));
                }
            }
            JobEvent::AttemptFailed(failure) => {
                self.failed_attempts += 1;
                let task = (failure.array, failure.index);
                if self.failures.len() < REMEMBERED_FAILURES || self.failures.contains_key(&task) {
                    self.failures.insert(task, failure.clone());
                }
            }
            JobEvent::TasksLost { array, tasks } => {
                if let Some(array) = self.array_mut(*array) {
                    tasks.iter().for_each(|range| array.lost(range));
                }
            }
            JobEvent::JobEnded { state } => self.state = Some(*state),
        }
    }

    /// The arrays so far, in order.
    #[must_use]
    pub fn arrays(&self) -> &[ArrayProgress] {
        &self.arrays
    }

    /// One array, if it came already.
    #[must_use]
    pub fn array(&self, index: ArrayIndex) -> Option<&ArrayProgress> {
        self.arrays.get(usize::try_from(index.0).ok()?)
    }

    /// The array of a name, if it came already.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<ArrayIndex> {
        let position = self.arrays.iter().position(|array| array.name == name)?;
        u32::try_from(position).ok().map(ArrayIndex)
    }

    /// How the job ended, if it did.
    #[must_use]
    pub fn ended(&self) -> Option<JobState> {
        self.state
    }

    /// How many attempts failed, whether or not their tasks succeeded later.
    #[must_use]
    pub fn failed_attempts(&self) -> u64 {
        self.failed_attempts
    }

    /// The latest failed attempt of a task.
    #[must_use]
    pub fn failure(&self, array: ArrayIndex, index: u32) -> Option<&TaskFailure> {
        self.failures.get(&(array, index))
    }

    fn array_mut(&mut self, index: ArrayIndex) -> Option<&mut ArrayProgress> {
        self.arrays.get_mut(usize::try_from(index.0).ok()?)
    }
}

impl ArrayProgress {
    fn new(array: &ArrayStatus) -> Self {
        Self {
            name: array.name.clone(),
            tasks: array.tasks,
            outputs: array.outputs,
            succeeded: 0,
            failed: 0,
            cancelled: 0,
            aborted: 0,
            ends: Vec::new(),
            log: Vec::new(),
        }
    }

    /// Tasks that succeeded.
    #[must_use]
    pub fn succeeded(&self) -> u32 {
        self.succeeded
    }

    /// Tasks that ended otherwise.
    #[must_use]
    pub fn not_succeeded(&self) -> u32 {
        self.failed.saturating_add(self.cancelled).saturating_add(self.aborted)
    }

    /// Whether every task ended.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.succeeded.saturating_add(self.not_succeeded()) >= self.tasks
    }

    /// How a task ended, if it did.
    #[must_use]
    pub fn end(&self, index: u32) -> Option<TaskEnd> {
        self.ends.get(usize::try_from(index).ok()?).copied().flatten()
    }

    /// The first task that ended in another way than by success.
    #[must_use]
    pub fn first_not_succeeded(&self) -> Option<(u32, TaskEnd)> {
        let bad = |(_, end): &&(Range<u32>, TaskEnd)| *end != TaskEnd::Succeeded;
        self.log.iter().find(bad).map(|(range, end)| (range.start, *end))
    }

    /// Ends in the order in which they came, from position `from` of that order on.
    pub(crate) fn log_from(&self, from: usize) -> &[(Range<u32>, TaskEnd)] {
        self.log.get(from..).unwrap_or_default()
    }

    fn ended(&mut self, range: &Range<u32>, end: TaskEnd) {
        let range = range.start..range.end.min(self.tasks);
        for index in range.clone() {
            let Ok(position) = usize::try_from(index) else { return };
            if self.ends.len() <= position {
                self.ends.resize(position + 1, None);
            }
            let before = self.ends[position].replace(end);
            self.count(before, |count| count.saturating_sub(1));
            self.count(Some(end), |count| count.saturating_add(1));
        }
        if !range.is_empty() {
            self.log.push((range, end));
        }
    }

    fn lost(&mut self, range: &Range<u32>) {
        for index in range.start..range.end.min(self.tasks) {
            let slot = usize::try_from(index).ok().and_then(|position| self.ends.get_mut(position));
            let before = slot.and_then(Option::take);
            self.count(before, |count| count.saturating_sub(1));
        }
    }

    fn count(&mut self, end: Option<TaskEnd>, change: impl Fn(u32) -> u32) {
        let counter = match end {
            None => return,
            Some(TaskEnd::Succeeded) => &mut self.succeeded,
            Some(TaskEnd::Failed) => &mut self.failed,
            Some(TaskEnd::Cancelled) => &mut self.cancelled,
            Some(TaskEnd::Aborted) => &mut self.aborted,
        };
        *counter = change(*counter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::TaskCounts;

    const MAP: ArrayIndex = ArrayIndex(0);

    fn job(tasks: u32) -> Progress {
        let mut progress = Progress::default();
        let array = ArrayStatus {
            name: "map".into(),
            function: "map".into(),
            tasks,
            outputs: 1,
            counts: TaskCounts::default(),
        };
        progress.apply(&JobEvent::ArraysAdded { arrays: vec![array] });
        progress
    }

    fn ended(tasks: Range<u32>, end: TaskEnd) -> JobEvent {
        JobEvent::TasksEnded { array: MAP, end, tasks: vec![tasks] }
    }

    #[test]
    fn an_array_is_complete_when_every_task_ended_somehow() {
        let mut job = job(4);
        job.apply(&ended(0..3, TaskEnd::Succeeded));
        assert!(!job.arrays()[0].is_complete());
        job.apply(&ended(3..4, TaskEnd::Failed));
        let array = job.array(MAP).unwrap();
        assert!(array.is_complete());
        assert_eq!((array.succeeded(), array.not_succeeded()), (3, 1));
        assert_eq!(array.first_not_succeeded(), Some((3, TaskEnd::Failed)));
    }

    #[test]
    fn lost_tasks_count_again_only_once() {
        let mut job = job(4);
        job.apply(&ended(0..4, TaskEnd::Succeeded));
        job.apply(&JobEvent::TasksLost { array: MAP, tasks: vec![1..2, 2..3] });
        assert_eq!(job.arrays()[0].succeeded(), 2);
        assert_eq!(job.arrays()[0].end(1), None);
        job.apply(&ended(1..3, TaskEnd::Succeeded));
        assert_eq!(job.arrays()[0].succeeded(), 4);
        assert_eq!(job.arrays()[0].log_from(1), [(1..3, TaskEnd::Succeeded)]);
    }

    #[test]
    fn an_end_told_twice_counts_once() {
        let mut job = job(2);
        job.apply(&ended(0..1, TaskEnd::Succeeded));
        job.apply(&ended(0..1, TaskEnd::Succeeded));
        assert_eq!(job.arrays()[0].succeeded(), 1);
    }

    #[test]
    fn ranges_beyond_the_array_and_unknown_arrays_take_no_memory() {
        let mut job = job(2);
        job.apply(&ended(0..4_000_000, TaskEnd::Succeeded));
        job.apply(&JobEvent::TasksEnded { array: ArrayIndex(9), end: TaskEnd::Failed, tasks: vec![0..1, 1..2] });
        assert_eq!(job.arrays()[0].succeeded(), 2);
        assert_eq!(job.arrays()[0].ends.len(), 2);
        assert_eq!(job.arrays().len(), 1);
    }

    #[test]
    fn the_latest_failure_of_a_task_is_kept_and_their_number_is_bounded() {
        let mut job = job(4);
        for index in 0..2_000 {
            job.apply(&JobEvent::AttemptFailed(failure(index, "first")));
        }
        job.apply(&JobEvent::AttemptFailed(failure(0, "second")));
        assert_eq!(job.failure(MAP, 0).unwrap().message, "second");
        assert_eq!(job.failures.len(), REMEMBERED_FAILURES);
        assert_eq!(job.failed_attempts(), 2_001);
    }

    fn failure(index: u32, message: &str) -> TaskFailure {
        TaskFailure {
            array: MAP,
            index,
            attempts: 1,
            cause: None,
            message: message.into(),
            backtrace: Vec::new(),
            log_tail: Vec::new(),
        }
    }
}
