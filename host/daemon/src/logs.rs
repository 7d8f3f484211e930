//! What attempts logged, kept for whoever asks: so much per tenant, the oldest is forgotten first.
//!
//! Nothing here outlives the process, and nobody is told when something is forgotten; logs are for people who look soon.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Mutex;

use partita_types::{ArrayIndex, AttemptId, AttemptLog, AttemptNumber, JobId, LogLine, TaskId, TenantId};

use crate::sync::lock;

/// Most memory for the logs of one tenant.
const TENANT_BYTES: usize = 16 << 20;
/// Most memory for one answer; more does not fit well into a message of the session.
const ANSWER_BYTES: usize = 1 << 20;
/// What a line or an attempt takes beside its text.
const OVERHEAD: usize = 64;

/// The logs of all attempts that ended here and logged anything.
#[derive(Debug, Default)]
pub(crate) struct Logs(Mutex<BTreeMap<TenantId, Kept>>);

/// Those of one tenant.
#[derive(Debug, Default)]
struct Kept {
    logs: BTreeMap<AttemptId, (Vec<LogLine>, usize)>,
    /// In the order in which they came.
    order: VecDeque<AttemptId>,
    bytes: usize,
}

/// Some logs, in the order of arrays, tasks and attempts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) logs: Vec<AttemptLog>,
    /// There was more.
    pub(crate) cut: bool,
}

impl Logs {
    /// Keeps what an attempt logged, if it logged anything.
    pub(crate) fn add(&self, attempt: AttemptId, lines: Vec<LogLine>) {
        if lines.is_empty() {
            return;
        }
        let bytes = lines.iter().map(|line| line.text.len() + OVERHEAD).sum::<usize>() + OVERHEAD;
        lock(&self.0).entry(attempt.task.job.tenant).or_default().add(attempt, lines, bytes);
    }

    /// What is kept of a job, of one array, or of one task of it.
    pub(crate) fn read(&self, job: JobId, array: Option<ArrayIndex>, index: Option<u32>) -> Read {
        let attempt = |array, index, number| AttemptId { task: TaskId { job, array, index }, number };
        let first = attempt(array.unwrap_or(ArrayIndex(0)), index.unwrap_or(0), AttemptNumber::FIRST);
        let last = attempt(array.unwrap_or(ArrayIndex(u32::MAX)), index.unwrap_or(u32::MAX), AttemptNumber::LAST);
        let tenants = lock(&self.0);
        let Some(kept) = tenants.get(&job.tenant) else { return Read::default() };
        let mut read = Read::default();
        let mut bytes = 0;
        for (attempt, (lines, size)) in kept.logs.range((Bound::Included(first), Bound::Included(last))) {
            bytes += size;
            if bytes > ANSWER_BYTES && !read.logs.is_empty() {
                read.cut = true;
                break;
            }
            read.logs.push(AttemptLog { attempt: *attempt, lines: lines.clone() });
        }
        read
    }
}

impl Kept {
    fn add(&mut self, attempt: AttemptId, lines: Vec<LogLine>, bytes: usize) {
        match self.logs.insert(attempt, (lines, bytes)) {
            Some((_, before)) => self.bytes -= before,
            None => self.order.push_back(attempt),
        }
        self.bytes += bytes;
        while self.bytes > TENANT_BYTES
            && let Some(oldest) = self.order.pop_front()
        {
            if let Some((_, bytes)) = self.logs.remove(&oldest) {
                self.bytes -= bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use partita_types::LogLevel;

    use super::*;

    fn job(tenant: u32, number: u32) -> JobId {
        JobId { tenant: TenantId(tenant), number }
    }

    fn attempt(job: JobId, array: u32, index: u32) -> AttemptId {
        AttemptId { task: TaskId { job, array: ArrayIndex(array), index }, number: AttemptNumber::FIRST }
    }

    fn line(text: &str) -> Vec<LogLine> {
        vec![LogLine { level: LogLevel::Info, text: text.to_owned() }]
    }

    fn places(read: &Read) -> Vec<(u32, u32)> {
        read.logs.iter().map(|log| (log.attempt.task.array.0, log.attempt.task.index)).collect()
    }

    #[test]
    fn a_reader_gets_the_part_asked_for_and_nothing_of_other_jobs_and_tenants() {
        let logs = Logs::default();
        for (job, array, index) in
            [(job(1, 1), 1, 5), (job(1, 1), 0, 9), (job(1, 1), 1, 2), (job(1, 2), 1, 5), (job(2, 1), 1, 5)]
        {
            logs.add(attempt(job, array, index), line("text"));
        }
        let read = |array: Option<u32>, index| places(&logs.read(job(1, 1), array.map(ArrayIndex), index));
        assert_eq!(read(None, None), [(0, 9), (1, 2), (1, 5)]);
        assert_eq!(read(Some(1), None), [(1, 2), (1, 5)]);
        assert_eq!(read(Some(1), Some(5)), [(1, 5)]);
        assert_eq!(read(Some(2), None), []);
        assert_eq!(logs.read(job(3, 1), None, None), Read::default());
    }

    #[test]
    fn who_logs_much_loses_its_own_oldest_logs_and_nobody_elses() {
        let logs = Logs::default();
        logs.add(attempt(job(2, 1), 0, 0), line("neighbour"));
        let text = "x".repeat(TENANT_BYTES / 4);
        for index in 0..10 {
            logs.add(attempt(job(1, 1), 0, index), line(&text));
        }
        let kept: Vec<u32> = lock(&logs.0)[&TenantId(1)].logs.keys().map(|attempt| attempt.task.index).collect();
        assert_eq!(kept, [7, 8, 9]);
        assert!(lock(&logs.0)[&TenantId(1)].bytes <= TENANT_BYTES);
        assert_eq!(logs.read(job(2, 1), None, None).logs.len(), 1);
    }

    #[test]
    fn an_answer_is_cut_and_says_so() {
        let logs = Logs::default();
        for index in 0..5 {
            logs.add(attempt(job(1, 1), 0, index), line(&"x".repeat(ANSWER_BYTES / 3)));
        }
        let read = logs.read(job(1, 1), None, None);
        assert_eq!((places(&read), read.cut), (vec![(0, 0), (0, 1)], true));
        assert!(!logs.read(job(1, 1), Some(ArrayIndex(0)), Some(4)).cut);
    }
}
