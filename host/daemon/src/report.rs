//! Ends of attempts on their way to the scheduler, gathered in columns.
//!
//! Lanes add one end at a time; the session takes everything that gathered at once. So while the host is idle a single
//! end leaves at once, and under load thousands share a message. If the session does not take (the scheduler is away or
//! slow), lanes stop before their next frame: results wait on lanes, not in an ever longer list. What was taken is kept
//! until the scheduler has acknowledged it, and counts as waiting.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard};

use partita_host_logic::ledger::{Ledger, batch_weight, failure_weight};
use partita_types::{
    ArrayIndex, AttemptId, ByteSize, FailedAttempt, FrameId, JobId, OutputInfo, Report, SucceededBatch, Timestamp,
    Usage,
};
use tokio::sync::Notify;

use crate::sync::lock;

/// Ends and outputs that may wait or be unacknowledged before lanes stop. At about 50 bytes each this is a few MiB.
const MAX_WAITING: usize = 131_072;
/// Ends and outputs of one report, about: it has to fit into a message.
const MAX_REPORT: usize = 16_384;
/// Failures of one report; each may carry a backtrace and log lines.
const MAX_FAILURES: usize = 256;

/// What was fetched from other hosts for the tasks of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Moved {
    pub(crate) partitions: u64,
    pub(crate) bytes: ByteSize,
}

/// When whoever waits for a report is woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tell {
    /// At once.
    Now,
    /// With what follows at once: the end of a frame's last attempt leaves together with the end of the frame.
    WithNext,
}

#[derive(Debug, Default)]
struct Waiting {
    /// In the order in which they were begun.
    succeeded: VecDeque<SucceededBatch>,
    /// Which of them still takes ends of its array, counted from the first batch ever.
    open: HashMap<(JobId, ArrayIndex), u64>,
    /// How many batches have left.
    left: u64,
    failed: VecDeque<FailedAttempt>,
    finished: Vec<FrameId>,
    started: Vec<AttemptId>,
    /// Ends and outputs in `succeeded` and `failed`.
    weight: usize,
    /// Whoever waits for a report was woken for what is here.
    told: bool,
    closed: bool,
    /// What was taken and not acknowledged.
    ledger: Ledger,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.weight == 0 && self.finished.is_empty() && self.started.is_empty()
    }

    /// The batch that takes ends of this array now.
    fn batch(&mut self, job: JobId, array: ArrayIndex) -> Option<&mut SucceededBatch> {
        let next = self.left + self.succeeded.len() as u64;
        let place = self.open.get(&(job, array)).and_then(|number| number.checked_sub(self.left));
        let place = place.and_then(|place| usize::try_from(place).ok());
        let place = match place.filter(|place| self.succeeded.get(*place).is_some_and(|b| batch_weight(b) < MAX_REPORT))
        {
            Some(place) => place,
            None => {
                self.open.insert((job, array), next);
                self.succeeded.push_back(empty(job, array));
                self.succeeded.len() - 1
            }
        };
        self.succeeded.get_mut(place)
    }

    /// What fits into one report, oldest first, with its number. Its ends are kept.
    fn take(&mut self) -> (u64, Report) {
        self.told = false;
        let mut report = Report::default();
        let mut taken = 0;
        while taken < MAX_REPORT {
            let Some(batch) = self.succeeded.pop_front() else { break };
            self.left += 1;
            taken += batch_weight(&batch);
            report.succeeded.push(batch);
        }
        let failures = self.failed.len().min(MAX_FAILURES);
        report.failed.extend(self.failed.drain(..failures));
        taken += report.failed.iter().map(failure_weight).sum::<usize>();
        self.weight = self.weight.saturating_sub(taken);
        // Frames are finished after all their ends, so those wait until everything else has left.
        if self.succeeded.is_empty() && self.failed.is_empty() {
            self.open.clear();
            self.weight = 0;
            report.finished_frames = std::mem::take(&mut self.finished);
            report.started = std::mem::take(&mut self.started);
        }
        (self.ledger.keep(&report), report)
    }
}

/// Ends per millisecond up to which reports leave at once, and how many more than that may come in a burst.
const QUICK_PER_MS: u64 = 4;
const QUICK_BURST: u64 = 16;

/// Decides whether reports leave at once or gather ends first: at once while there are few, so that a single task is
/// not held up, and gathered under load, so that a report is worth its price.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// A bucket that every end fills and time empties.
    level: u64,
    last: Timestamp,
}

impl Pace {
    /// A report with so many ends leaves; answers whether ends are to be gathered before the next one.
    pub(crate) fn gathers(&mut self, ends: usize, now: Timestamp) -> bool {
        let drained = u64::try_from(now.since(self.last).as_micros()).unwrap_or(u64::MAX).saturating_mul(QUICK_PER_MS);
        // In thousandths, since reports may follow each other within a millisecond.
        let level = self.level.saturating_sub(drained).saturating_add((ends as u64).saturating_mul(1000));
        self.level = level.min(4 * QUICK_BURST * 1000);
        self.last = now;
        self.level > QUICK_BURST * 1000
    }
}

/// Gathers the next report.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    waiting: Mutex<Waiting>,
    room: Condvar,
    ready: Notify,
}

impl Collector {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.waiting)
    }

    fn add(&self, when: Tell, change: impl FnOnce(&mut Waiting)) {
        let mut waiting = self.waiting();
        change(&mut waiting);
        let tell = when == Tell::Now && !waiting.told;
        waiting.told |= tell;
        drop(waiting);
        if tell {
            self.ready.notify_one();
        }
    }

    /// An attempt succeeded. `moved` is given with one attempt of a frame only.
    pub(crate) fn succeeded(&self, attempt: AttemptId, outputs: &[OutputInfo], usage: Usage, moved: Moved, when: Tell) {
        let (job, array) = (attempt.task.job, attempt.task.array);
        self.add(when, |waiting| {
            let Some(batch) = waiting.batch(job, array) else { return };
            batch.indexes.push(attempt.task.index);
            batch.attempts.push(attempt.number);
            batch.outputs.extend_from_slice(outputs);
            batch.usage.push(usage);
            batch.moved_partitions += moved.partitions;
            batch.moved_bytes = batch.moved_bytes.saturating_add(moved.bytes);
            waiting.weight += 1 + outputs.len();
        });
    }

    /// An attempt did not run: it got the outputs of an earlier one.
    pub(crate) fn reused(&self, attempt: AttemptId, outputs: &[OutputInfo]) {
        let (job, array) = (attempt.task.job, attempt.task.array);
        self.add(Tell::WithNext, |waiting| {
            let Some(batch) = waiting.batch(job, array) else { return };
            batch.indexes.push(attempt.task.index);
            batch.attempts.push(attempt.number);
            batch.outputs.extend_from_slice(outputs);
            batch.usage.push(Usage::default());
            batch.reused += 1;
            waiting.weight += 1 + outputs.len();
        });
    }

    /// An attempt failed.
    pub(crate) fn failed(&self, failed: FailedAttempt) {
        self.add(Tell::Now, |waiting| {
            waiting.weight += failure_weight(&failed);
            waiting.failed.push_back(failed);
        });
    }

    /// Nothing is left of a frame. Said after the ends of its attempts.
    pub(crate) fn finished(&self, frame: FrameId) {
        self.add(Tell::Now, |waiting| waiting.finished.push(frame));
    }

    /// Attempts have been running for a while.
    pub(crate) fn started(&self, attempts: Vec<AttemptId>) {
        if !attempts.is_empty() {
            self.add(Tell::Now, |waiting| waiting.started.extend(attempts));
        }
    }

    /// Blocks a lane while too many ends wait. Returns at once after [`close`](Self::close).
    pub(crate) fn wait_for_room(&self) {
        let full = |waiting: &mut Waiting| waiting.weight + waiting.ledger.weight() >= MAX_WAITING && !waiting.closed;
        let waiting = self.room.wait_while(self.waiting(), full);
        drop(waiting);
    }

    /// What waits, as soon as there is something: as much as fits into one report, and its number.
    ///
    /// # Cancel safety
    /// Nothing is taken if the future is dropped before it is ready.
    pub(crate) async fn take(&self) -> (u64, Report) {
        loop {
            if let Some(report) = self.take_now() {
                return report;
            }
            self.ready.notified().await;
        }
    }

    fn take_now(&self) -> Option<(u64, Report)> {
        let mut waiting = self.waiting();
        (!waiting.is_empty()).then(|| waiting.take())
    }

    /// The scheduler has written down every report up to this number.
    pub(crate) fn acknowledged(&self, number: u64) {
        self.waiting().ledger.acknowledge(number);
        self.room.notify_all();
    }

    /// Every end that the scheduler has not acknowledged, for a new session, and the number of the last report. Nothing
    /// waits afterwards.
    pub(crate) fn unacknowledged(&self) -> (u64, Report) {
        let mut waiting = self.waiting();
        while !waiting.is_empty() {
            waiting.take();
        }
        waiting.ledger.unacknowledged()
    }

    /// Forgets everything: the scheduler was away for too long.
    pub(crate) fn clear(&self) {
        let mut waiting = self.waiting();
        while !waiting.is_empty() {
            waiting.take();
        }
        waiting.ledger.clear();
        drop(waiting);
        self.room.notify_all();
    }

    /// Lets every lane go: the host stops.
    pub(crate) fn close(&self) {
        self.waiting().closed = true;
        self.room.notify_all();
    }
}

fn empty(job: JobId, array: ArrayIndex) -> SucceededBatch {
    SucceededBatch {
        job,
        array,
        indexes: Vec::new(),
        attempts: Vec::new(),
        outputs: Vec::new(),
        usage: Vec::new(),
        moved_partitions: 0,
        moved_bytes: ByteSize::ZERO,
        reused: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use partita_types::{AttemptNumber, Cause, ContentHash, Failure, TaskId, TenantId};

    use super::*;

    fn attempt(array: u32, index: u32) -> AttemptId {
        let job = JobId { tenant: TenantId(1), number: 1 };
        AttemptId { task: TaskId { job, array: ArrayIndex(array), index }, number: AttemptNumber::FIRST }
    }

    impl Collector {
        fn weight(&self) -> usize {
            let waiting = self.waiting();
            waiting.weight + waiting.ledger.weight()
        }
    }

    fn info(size: u64) -> OutputInfo {
        OutputInfo { size: ByteSize(size), hash: ContentHash([0; 32]) }
    }

    #[tokio::test]
    async fn ends_of_one_array_share_columns_and_arrays_do_not_mix() {
        let collector = Collector::default();
        let moved = Moved { partitions: 2, bytes: ByteSize(10) };
        collector.succeeded(attempt(0, 5), &[info(1), info(2)], Usage::default(), moved, Tell::Now);
        collector.succeeded(attempt(1, 7), &[info(3)], Usage::default(), Moved::default(), Tell::Now);
        collector.succeeded(attempt(0, 6), &[info(4), info(5)], Usage::default(), Moved::default(), Tell::Now);
        collector.finished(FrameId(9));
        let (_, report) = collector.take().await;
        let columns: Vec<_> =
            report.succeeded.iter().map(|batch| (batch.indexes.clone(), batch.outputs.len())).collect();
        assert_eq!(columns, [(vec![5, 6], 4), (vec![7], 1)]);
        assert_eq!((report.succeeded[0].moved_partitions, report.succeeded[0].moved_bytes), (2, ByteSize(10)));
        assert_eq!(report.finished_frames, [FrameId(9)]);
    }

    #[tokio::test]
    async fn a_report_is_bounded_and_frames_are_finished_with_the_last_one() {
        let collector = Collector::default();
        let outputs = vec![info(1); 999];
        for index in 0..40 {
            collector.succeeded(attempt(0, index), &outputs, Usage::default(), Moved::default(), Tell::Now);
        }
        collector.finished(FrameId(9));
        let mut reports = Vec::new();
        while reports.last().is_none_or(|report: &Report| report.finished_frames.is_empty()) {
            reports.push(collector.take().await.1);
        }
        let ends: Vec<usize> = reports.iter().map(|report| report.succeeded[0].indexes.len()).collect();
        assert_eq!(ends, [17, 17, 6]);
    }

    #[tokio::test]
    async fn who_waits_for_a_report_is_woken_by_the_first_end() {
        let collector = Arc::new(Collector::default());
        let waiting = tokio::task::spawn_blocking({
            let collector = Arc::clone(&collector);
            move || tokio::runtime::Handle::current().block_on(collector.take())
        });
        let failure = Failure::new(Cause::Trap, "unreachable");
        let missing_inputs = Vec::new();
        collector.failed(FailedAttempt { attempt: attempt(0, 0), failure, usage: Usage::default(), missing_inputs });
        assert_eq!(waiting.await.unwrap().1.failed.len(), 1);
    }

    #[tokio::test]
    async fn the_last_end_of_a_frame_leaves_with_the_end_of_the_frame() {
        let collector = Collector::default();
        collector.succeeded(attempt(0, 0), &[], Usage::default(), Moved::default(), Tell::Now);
        collector.take().await;
        collector.succeeded(attempt(0, 1), &[], Usage::default(), Moved::default(), Tell::WithNext);
        assert!(!collector.waiting().told);
        collector.finished(FrameId(1));
        let (_, report) = collector.take().await;
        assert_eq!((report.succeeded.len(), report.finished_frames.len()), (1, 1));
    }

    #[test]
    fn few_ends_leave_at_once_and_many_are_gathered() {
        let at = |micros: u64| Timestamp::from_micros(1_000_000 + micros);
        let mut pace = Pace::default();
        let one_by_one = (0..1000).filter(|n| pace.gathers(1, at(n * 300))).count();
        assert_eq!(one_by_one, 0);
        let under_load = (1000..2000).filter(|n| pace.gathers(30, at(n * 1000))).count();
        assert_eq!(under_load, 1000);
        assert!(!pace.gathers(1, at(2_100_000)), "a pause did not end the gathering");
    }

    /// B39: while nobody takes what ended, running tasks go on, queued ones wait, and they go on when there is room again.
    #[test]
    fn lanes_stop_while_too_many_ends_are_not_acknowledged_and_go_on_afterwards() {
        let outputs = vec![info(1); 1023];
        let collector = Arc::new(Collector::default());
        while collector.weight() < MAX_WAITING {
            collector.succeeded(attempt(0, 0), &outputs, Usage::default(), Moved::default(), Tell::Now);
        }
        let (began, begins) = std::sync::mpsc::sync_channel(1);
        let lane = std::thread::spawn({
            let collector = Arc::clone(&collector);
            move || {
                began.send(()).unwrap();
                collector.wait_for_room();
                collector.weight()
            }
        });
        begins.recv().unwrap();
        let (mut last, mut taken) = (0, 0);
        while let Some((number, report)) = collector.take_now() {
            (last, taken) = (number, taken + report.succeeded.iter().map(batch_weight).sum::<usize>());
        }
        assert_eq!(collector.weight(), taken, "what was taken counts until it is acknowledged");
        collector.acknowledged(last);
        assert_eq!(lane.join().unwrap(), 0, "the lane went on before there was room");
    }

    #[test]
    fn a_new_session_begins_with_every_end_that_was_not_acknowledged() {
        let collector = Collector::default();
        let end = |index| collector.succeeded(attempt(0, index), &[], Usage::default(), Moved::default(), Tell::Now);
        end(0);
        let first = collector.take_now().unwrap().0;
        end(1);
        collector.take_now().unwrap();
        end(2);
        collector.acknowledged(first);
        let (last, report) = collector.unacknowledged();
        let indexes: Vec<u32> = report.succeeded.iter().flat_map(|batch| batch.indexes.clone()).collect();
        assert_eq!((last, indexes), (3, vec![1, 2]));
        assert!(collector.take_now().is_none(), "what a hello says is not reported as well");
        assert_eq!(collector.unacknowledged().1.succeeded.len(), 2, "a hello that nobody heard is repeated");
        collector.acknowledged(last);
        assert_eq!(collector.unacknowledged().1, Report::default());
    }

    #[test]
    fn a_closed_collector_holds_nobody() {
        let collector = Collector::default();
        for index in 0..u32::try_from(MAX_WAITING).unwrap() {
            collector.succeeded(attempt(0, index), &[], Usage::default(), Moved::default(), Tell::Now);
        }
        collector.close();
        collector.wait_for_room();
    }
}
