//! Reports that the scheduler has not acknowledged.
//!
//! A report is forgotten when it is acknowledged, and not before: whatever becomes of a session or of the scheduler, the
//! next session begins with the ends of all reports that are still here.

use std::collections::VecDeque;

use partita_types::{AttemptId, FailedAttempt, HeldFrame, Report, SucceededBatch, TaskId};

/// A text weighs as much as one end for each so many bytes of it.
const BYTES_PER_WEIGHT: usize = 64;

/// What a batch weighs: its ends and their outputs.
#[must_use]
pub fn batch_weight(batch: &SucceededBatch) -> usize {
    batch.indexes.len() + batch.outputs.len()
}

/// What a failure weighs: an end with its texts.
#[must_use]
pub fn failure_weight(failed: &FailedAttempt) -> usize {
    let failure = &failed.failure;
    let lines = failure.backtrace.iter().chain(&failure.log_tail).map(String::len).sum::<usize>();
    1 + failed.missing_inputs.len() + (failure.message.len() + lines) / BYTES_PER_WEIGHT
}

fn report_weight(report: &Report) -> usize {
    report.succeeded.iter().map(batch_weight).sum::<usize>() + report.failed.iter().map(failure_weight).sum::<usize>()
}

/// The ends of a report, with its number.
#[derive(Debug, Clone)]
struct Kept {
    number: u64,
    weight: usize,
    succeeded: Vec<SucceededBatch>,
    failed: Vec<FailedAttempt>,
}

/// Reports that were sent, or are about to be, in their order.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    last: u64,
    kept: VecDeque<Kept>,
    weight: usize,
}

impl Ledger {
    /// Keeps the ends of a report and gives it the next number, from 1.
    pub fn keep(&mut self, report: &Report) -> u64 {
        self.last += 1;
        let weight = report_weight(report);
        if weight > 0 {
            let (succeeded, failed) = (report.succeeded.clone(), report.failed.clone());
            self.weight += weight;
            self.kept.push_back(Kept { number: self.last, weight, succeeded, failed });
        }
        self.last
    }

    /// Forgets every report up to this number: the scheduler has written them down.
    pub fn acknowledge(&mut self, number: u64) {
        while let Some(kept) = self.kept.pop_front_if(|kept| kept.number <= number) {
            self.weight -= kept.weight;
        }
    }

    /// Forgets everything: nobody will ever ask for it.
    pub fn clear(&mut self) {
        self.kept.clear();
        self.weight = 0;
    }

    /// What is kept, together.
    #[must_use]
    pub const fn weight(&self) -> usize {
        self.weight
    }

    /// All ends that are kept, and the number of the last report.
    #[must_use]
    pub fn unacknowledged(&self) -> (u64, Report) {
        let mut report = Report::default();
        for kept in &self.kept {
            report.succeeded.extend(kept.succeeded.iter().cloned());
            report.failed.extend(kept.failed.iter().cloned());
        }
        (self.last, report)
    }
}

/// Takes out of `held` what ended while it was gathered, and is among `ended`.
pub fn without_ended(held: &mut Vec<HeldFrame>, ended: &Report) {
    let of_batch = |batch: &SucceededBatch| {
        let (job, array) = (batch.job, batch.array);
        let ids = batch.indexes.iter().zip(&batch.attempts);
        ids.map(move |(index, number)| AttemptId { task: TaskId { job, array, index: *index }, number: *number })
            .collect::<Vec<_>>()
    };
    let succeeded = ended.succeeded.iter().flat_map(of_batch);
    let ended: std::collections::HashSet<AttemptId> =
        succeeded.chain(ended.failed.iter().map(|failed| failed.attempt)).collect();
    for frame in held.iter_mut() {
        let open = |(index, number): &(u32, partita_types::AttemptNumber)| {
            let task = TaskId { job: frame.job, array: frame.array, index: *index };
            !ended.contains(&AttemptId { task, number: *number })
        };
        let attempts = frame.indexes.iter().copied().zip(frame.attempts.iter().copied());
        (frame.indexes, frame.attempts) = attempts.filter(open).unzip();
    }
    held.retain(|frame| !frame.indexes.is_empty());
}

#[cfg(test)]
mod tests {
    use partita_types::{
        ArrayIndex, AttemptNumber, ByteSize, Cause, ContentHash, Failure, FrameId, JobId, OutputInfo, TenantId, Usage,
    };

    use super::*;

    const JOB: JobId = JobId { tenant: TenantId(1), number: 1 };

    fn report(indexes: &[u32]) -> Report {
        let batch = SucceededBatch {
            job: JOB,
            array: ArrayIndex(0),
            indexes: indexes.to_vec(),
            attempts: vec![AttemptNumber::FIRST; indexes.len()],
            outputs: vec![OutputInfo { size: ByteSize(1), hash: ContentHash([0; 32]) }; indexes.len()],
            usage: vec![Usage::default(); indexes.len()],
            moved_partitions: 0,
            moved_bytes: ByteSize::ZERO,
            reused: 0,
        };
        Report { succeeded: vec![batch], ..Report::default() }
    }

    fn kept(ledger: &Ledger) -> Vec<u32> {
        ledger.unacknowledged().1.succeeded.into_iter().flat_map(|batch| batch.indexes).collect()
    }

    #[test]
    fn a_report_is_kept_until_it_is_acknowledged_and_not_longer() {
        let mut ledger = Ledger::default();
        assert_eq!([ledger.keep(&report(&[1, 2])), ledger.keep(&report(&[3])), ledger.keep(&report(&[4]))], [1, 2, 3]);
        assert_eq!((kept(&ledger), ledger.weight()), (vec![1, 2, 3, 4], 8));
        ledger.acknowledge(2);
        assert_eq!((kept(&ledger), ledger.weight()), (vec![4], 2));
        ledger.acknowledge(1);
        assert_eq!(kept(&ledger), [4], "an acknowledgement that comes late changes nothing");
        ledger.acknowledge(3);
        assert_eq!((kept(&ledger), ledger.weight()), (vec![], 0));
        assert_eq!(ledger.unacknowledged().0, 3, "numbers go on");
    }

    #[test]
    fn a_report_without_ends_has_a_number_and_takes_no_room() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.keep(&Report { finished_frames: vec![FrameId(1)], ..Report::default() }), 1);
        assert_eq!((ledger.kept.len(), ledger.weight()), (0, 0));
    }

    #[test]
    fn long_texts_of_a_failure_weigh_more() {
        let task = TaskId { job: JOB, array: ArrayIndex(0), index: 0 };
        let attempt = AttemptId { task, number: AttemptNumber::FIRST };
        let failure = |text: &str| Failure { log_tail: vec![text.to_owned()], ..Failure::new(Cause::Trap, "") };
        let failed = |text: &str| FailedAttempt {
            attempt,
            failure: failure(text),
            usage: Usage::default(),
            missing_inputs: Vec::new(),
        };
        assert_eq!((failure_weight(&failed("")), failure_weight(&failed(&"x".repeat(6_400)))), (1, 101));
    }

    #[test]
    fn what_ended_meanwhile_is_not_held_any_more() {
        let frame = |id, indexes: &[u32]| HeldFrame {
            id: FrameId(id),
            job: JOB,
            array: ArrayIndex(0),
            indexes: indexes.to_vec(),
            attempts: vec![AttemptNumber::FIRST; indexes.len()],
        };
        let mut held = vec![frame(1, &[1, 2, 3]), frame(2, &[4])];
        without_ended(&mut held, &report(&[2, 4]));
        assert_eq!(held, [frame(1, &[1, 3])]);
    }
}
