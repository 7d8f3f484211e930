//! What hosts say became of their attempts. Stale and malformed words change nothing but a counter.

use partita_types::{
    ArrayIndex, AttemptId, AttemptNumber, Cause, CpuTime, FailedAttempt, Failure, FrameId, HostId, JobId, OutputInfo,
    PartitionId, Report, SucceededBatch, TaskId, TenantId, Timestamp, Usage,
};

use crate::Core;
use crate::action::{Action, JobEvent, TaskEnd};
use crate::frame::LiveFrame;
use crate::planted::Bug;
use crate::preemption::preempted;
use crate::ranges::runs;
use crate::record::Record;
use crate::share::frame_cpu;
use crate::task::{Place, State};

impl Core {
    pub(crate) fn on_report(&mut self, host: HostId, report: Report, actions: &mut Vec<Action>) {
        for batch in report.succeeded {
            self.on_succeeded(host, batch, actions);
        }
        for failed in report.failed {
            self.on_failed(host, failed, actions);
        }
        self.note_started(host, &report.started);
        for frame in report.finished_frames {
            self.on_frame_finished(host, frame, actions);
        }
    }

    fn on_succeeded(&mut self, host: HostId, batch: SucceededBatch, actions: &mut Vec<Action>) {
        let width = self.find_job(batch.job).and_then(|job| Some(job.find_array(batch.array)?.kind.outputs as usize));
        let tasks = batch.indexes.len();
        let columns = [batch.attempts.len(), batch.usage.len()].iter().all(|length| *length == tasks);
        if !columns || width.is_some_and(|width| batch.outputs.len() != tasks * width) {
            self.stale += 1;
            return;
        }
        // Of a job that is gone nobody knows how many outputs its tasks had, but the report does.
        let width = width.unwrap_or(batch.outputs.len() / tasks.max(1));
        let mut valid = Vec::with_capacity(tasks);
        let mut unwanted = Vec::new();
        for (index, attempt) in batch.indexes.iter().zip(&batch.attempts) {
            let task = TaskId { job: batch.job, array: batch.array, index: *index };
            let attempt = AttemptId { task, number: *attempt };
            let current = self.close_attempt(host, task, attempt.number);
            valid.push(current);
            if !current && !self.counts_at(attempt, host) {
                let outputs = (0_u32..).take(width);
                unwanted.extend(outputs.map(|output| PartitionId { attempt, output }));
            }
        }
        self.send_drops(host, &unwanted, actions);
        let batch = if unwanted.is_empty() && valid.iter().all(|valid| *valid) {
            batch
        } else {
            filtered(batch, &valid, width)
        };
        if !batch.indexes.is_empty() {
            self.learn(&batch);
            self.commit_from(Record::Succeeded { batch, at: self.now }, host, actions);
        }
    }

    /// Learns how long tasks of a function take. Only what was just measured counts, so this is no effect of a record.
    fn learn(&mut self, batch: &SucceededBatch) {
        let array = self.find_job(batch.job).map(|job| job.array(batch.array.0));
        let learned = array.map(|array| array.kind.learned);
        // More than its limit nothing can have used, whatever a host says.
        let most = array
            .map_or(CpuTime::default(), |array| array.kind.limits.cpu_time.min(array.kind.limits.wall_time.into()));
        // What did not run says nothing.
        let ran = || batch.usage.iter().filter(|usage| **usage != Usage::default());
        let cpu = ran().fold(CpuTime::default(), |sum, usage| sum.saturating_add(usage.cpu.min(most)));
        let tasks = ran().count() as u64;
        let all = batch.indexes.len() as u64;
        let limit = array.map_or(0, |array| array.kind.limits.output.0).saturating_mul(all);
        let written = batch.outputs.iter().fold(0_u64, |sum, info| sum.saturating_add(info.size.0)).min(limit);
        let tenant = &mut self.tenants[batch.job.tenant.0 as usize];
        let Some(learned) = learned else { return };
        let unknown = tenant.run_times.get(learned).is_unknown();
        tenant.run_times.learn(learned, cpu, tasks);
        tenant.run_times.learn_output(learned, written, all);
        if unknown && !tenant.run_times.get(learned).is_long() {
            self.count_as_short(batch.job.tenant, learned);
        }
    }

    /// Frames of a function count as long as long as nothing is known of it. Now that it is, these are not. Happens once
    /// for each function.
    fn count_as_short(&mut self, tenant: TenantId, learned: usize) {
        let of_function = |(_, frame): &(u32, &LiveFrame)| {
            let array = self.find_job(frame.job).and_then(|job| job.find_array(frame.array));
            frame.long && frame.job.tenant == tenant && array.is_some_and(|array| array.kind.learned == learned)
        };
        let slots: Vec<u32> = self.frames.iter().filter(of_function).map(|(slot, _)| slot).collect();
        for slot in slots {
            let Some(frame) = self.frames.get_mut(slot) else { continue };
            frame.long = false;
            self.hosts[frame.host.0 as usize].long_frames -= 1;
            let usage = &mut self.tenants[tenant.0 as usize].usage;
            usage.cpu_thirds -= u64::from(frame_cpu(true) - frame_cpu(false));
        }
    }

    fn on_failed(&mut self, host: HostId, mut failed: FailedAttempt, actions: &mut Vec<Action>) {
        let attempt = failed.attempt;
        failed.failure = self.cause_of_stop(attempt, failed.failure);
        let frame = self.frame_number(attempt);
        if !self.close_attempt(host, attempt.task, attempt.number) {
            return;
        }
        self.forget_reuse(attempt.task);
        let gone = self.take_failed(host, frame, failed, actions);
        self.rebuild_needed(gone, None, actions);
    }

    /// The number of the frame that an attempt is in, and 0, which is before all others, if it is in none.
    pub(crate) fn frame_number(&self, AttemptId { task, number }: AttemptId) -> u64 {
        let slot = self.find_job(task.job).and_then(|job| job.slot_of(task.array, task.index, number));
        slot.and_then(|slot| self.frames.get(slot)).map_or(0, LiveFrame::number)
    }

    /// Notes the failure of an attempt that was in this frame and is in none any more. Returns the tasks that may have to run
    /// again for it.
    pub(crate) fn take_failed(
        &mut self,
        host: HostId,
        frame: u64,
        failed: FailedAttempt,
        actions: &mut Vec<Action>,
    ) -> Vec<TaskId> {
        let gone = self.take_missing(failed.attempt.task, frame, &failed.missing_inputs, actions);
        self.record_failure(failed.attempt, host, clipped(failed.failure), failed.usage, actions);
        gone
    }

    /// The host has nothing left of a frame: what it did not report goes back.
    fn on_frame_finished(&mut self, host: HostId, id: FrameId, actions: &mut Vec<Action>) {
        let slot = self.frames.slot_of(id);
        let Some(slot) = slot.filter(|slot| self.frames.get(*slot).is_some_and(|frame| frame.host == host)) else {
            // Usual: its last attempt was reported in the same message.
            return;
        };
        let failure = match self.frames.get(slot) {
            Some(frame) if frame.preempted => preempted(),
            _ => Failure::new(Cause::Preempted, "its host gave it back without running it"),
        };
        self.take_back(slot, &failure, actions);
    }

    /// Ends a frame and gives what was left of it out again.
    pub(crate) fn take_back(&mut self, slot: u32, failure: &Failure, actions: &mut Vec<Action>) {
        let Some(frame) = self.frames.get(slot) else { return };
        let (id, array, host) = (frame.job, frame.array, frame.host);
        let open: Vec<(u32, AttemptNumber)> = match self.find_job(id) {
            Some(job) => {
                let here = |index: &u32| Some((*index, job.attempt_in(array, *index, slot)?));
                frame.indexes.iter().filter_map(here).collect()
            }
            None => Vec::new(),
        };
        for (index, number) in open {
            let task = TaskId { job: id, array, index };
            if !self.close_attempt(host, task, number) {
                continue;
            }
            let attempt = AttemptId { task, number };
            self.record_failure(attempt, host, failure.clone(), Usage::default(), actions);
        }
        self.release_frame(slot);
    }

    /// Takes an attempt out of its frame, if `host` has it and nobody ended it before. The effect must follow at once.
    pub(crate) fn close_attempt(&mut self, host: HostId, task: TaskId, number: AttemptNumber) -> bool {
        let slot = self.find_job(task.job).and_then(|job| {
            let any = || job.find_task(task.array, task.index)?.frame().filter(|_| self.has(Bug::StaleAttemptAccepted));
            job.slot_of(task.array, task.index, number).or_else(any)
        });
        let slot = slot.filter(|slot| self.frames.get(*slot).is_some_and(|frame| frame.host == host));
        let Some(slot) = slot else {
            self.note_stopped(host, task.job, task.array, task.index);
            return false;
        };
        let tenant = self.tenants.get_mut(task.job.tenant.0 as usize);
        if let Some(job) = tenant.and_then(|tenant| tenant.job_mut(task.job.number)) {
            job.leave_frame(task.array.0, task.index, slot);
        }
        self.hosts[host.0 as usize].assigned_tasks -= 1;
        let empty = self.frames.get_mut(slot).is_some_and(|frame| {
            frame.open -= 1;
            frame.open == 0 && frame.stopping == 0
        });
        if empty {
            self.release_frame(slot);
        }
        true
    }

    /// A report that came too late. If it is of a cancelled attempt, that has stopped now.
    fn note_stopped(&mut self, host: HostId, job: JobId, array: ArrayIndex, index: u32) {
        self.stale += 1;
        let of_task = |slot: &&u32| {
            self.frames.get(**slot).is_some_and(|frame| {
                let same = frame.stopping > 0 && frame.job == job && frame.array == array;
                same && frame.indexes.binary_search(&index).is_ok()
            })
        };
        let Some(slot) = self.hosts[host.0 as usize].frames.iter().find(of_task).copied() else { return };
        let empty = self.frames.get_mut(slot).is_some_and(|frame| {
            frame.stopping -= 1;
            frame.open == 0 && frame.stopping == 0
        });
        if empty {
            self.release_frame(slot);
        }
    }

    /// Gives back what a frame had reserved.
    pub(crate) fn release_frame(&mut self, slot: u32) {
        let Some(frame) = self.frames.remove(slot) else { return };
        let kept = self.has(Bug::QuotaKeptOnHostLoss) && !self.hosts[frame.host.0 as usize].is_attached();
        let expected = if self.has(Bug::ExpectedBytesKept) { 0 } else { frame.expected };
        let host = &mut self.hosts[frame.host.0 as usize];
        host.frames.remove(&slot);
        host.memory -= frame.memory;
        host.expected -= expected;
        host.long_frames -= u32::from(frame.long);
        if let Some(needs) = &frame.needs {
            host.give_resources(needs);
        }
        self.stragglers.copies -= u32::from(frame.speculative);
        self.unrate_frame(frame.job.tenant, frame.host);
        let kept = kept || frame.speculative && self.has(Bug::LoserKeepsReservation);
        let usage = &mut self.tenants[frame.job.tenant.0 as usize].usage;
        if kept {
            return;
        }
        usage.frames -= 1;
        usage.memory -= frame.memory;
        usage.expected -= expected;
        usage.cpu_thirds -= u64::from(frame_cpu(frame.long));
        let tenant = &mut self.tenants[frame.job.tenant.0 as usize];
        tenant.above_limits = tenant.above_limits && !tenant.is_within_limits();
        if frame.preempted {
            self.settle_victim(frame.id);
        }
    }

    /// The effect of [`Record::Succeeded`].
    pub(crate) fn take_outputs(
        &mut self,
        batch: &SucceededBatch,
        at: Timestamp,
        place: Place,
        actions: &mut Vec<Action>,
    ) -> bool {
        let (id, array) = (batch.job, batch.array.0);
        let Some(owner) = self.find_job(id).and_then(|job| job.find_array(batch.array)) else { return false };
        let width = owner.kind.outputs as usize;
        let mut stopped = Vec::new();
        let Some(mut ended) = self.change_job(id, |job| {
            let mut ended = Vec::with_capacity(batch.indexes.len());
            let outputs = batch.outputs.chunks_exact(width.max(1));
            for ((index, number), infos) in batch.indexes.iter().zip(&batch.attempts).zip(outputs) {
                let task = job.find_task(batch.array, *index);
                if task.is_some_and(|task| !task.state.is_final()) {
                    job.succeed(array, *index, *number, infos, &mut stopped);
                    job.count_outputs(infos);
                    ended.push(*index);
                }
            }
            let reused = u64::from(batch.reused).min(ended.len() as u64);
            job.totals.attempts += ended.len() as u64 - reused;
            job.totals.reused += reused;
            job.totals.moved_partitions = job.totals.moved_partitions.saturating_add(batch.moved_partitions);
            job.totals.moved_bytes = job.totals.moved_bytes.saturating_add(batch.moved_bytes);
            ended
        }) else {
            return false;
        };
        for index in &ended {
            self.place_outputs(id, array, *index, place);
        }
        batch.usage.iter().for_each(|usage| self.charge(id, *usage));
        ended.sort_unstable();
        self.offer_for_reuse(id, array, &ended);
        publish_end(id, array, TaskEnd::Succeeded, &ended, actions);
        if !self.has(Bug::LoserRunsOn) {
            self.stop_attempts(stopped, actions);
        }
        self.drop_consumed(id, array, &ended, actions);
        self.after_end(id, array, at, actions);
        true
    }

    /// Charges an attempt to job and tenant.
    pub(crate) fn charge(&mut self, id: JobId, usage: Usage) {
        let Some(tenant) = self.tenants.get_mut(id.tenant.0 as usize) else { return };
        tenant.usage.cpu = tenant.usage.cpu.saturating_add(usage.cpu);
        tenant.usage.peak_memory = tenant.usage.peak_memory.max(usage.peak_memory);
        if let Some(job) = tenant.job_mut(id.number) {
            job.totals.cpu = job.totals.cpu.saturating_add(usage.cpu);
            job.totals.peak_memory = job.totals.peak_memory.max(usage.peak_memory);
        }
    }

    /// What follows when tasks of an array succeeded: perhaps its inputs are not needed any more, perhaps the job is done.
    fn after_end(&mut self, id: JobId, array: u32, at: Timestamp, actions: &mut Vec<Action>) {
        let Some(job) = self.find_job(id) else { return };
        if job.array(array).unfinished() == 0 {
            let sources = job.array(array).sources.to_vec();
            for source in sources {
                self.drop_unwanted(id, source, actions);
            }
            self.drop_unwanted(id, array, actions);
        }
        self.end_if_done(id, at, actions);
    }

    /// The effect of [`Record::Uploaded`].
    pub(crate) fn take_upload(
        &mut self,
        partition: PartitionId,
        info: OutputInfo,
        at: Timestamp,
        place: Place,
        actions: &mut Vec<Action>,
    ) -> bool {
        let TaskId { job: id, array, index } = partition.attempt.task;
        let waits = self.find_job(id).is_some_and(|job| {
            let uploads = job.find_array(array).is_some_and(|array| array.is_upload());
            uploads && job.find_task(array, index).is_some_and(|task| task.state == State::Waiting)
        });
        if !waits {
            return false;
        }
        self.change_job(id, |job| {
            job.succeed(array.0, index, partition.attempt.number, &[info], &mut Vec::new());
            job.count_outputs(&[info]);
        });
        self.place_outputs(id, array.0, index, place);
        publish_end(id, array.0, TaskEnd::Succeeded, &[index], actions);
        self.after_end(id, array.0, at, actions);
        true
    }
}

/// Tells those who watch that ascending tasks of an array ended.
pub(crate) fn publish_end(id: JobId, array: u32, end: TaskEnd, indexes: &[u32], actions: &mut Vec<Action>) {
    if !indexes.is_empty() {
        let event = JobEvent::TasksEnded { array: ArrayIndex(array), end, tasks: runs(indexes) };
        actions.push(Action::Publish { job: id, event });
    }
}

/// The valid part of a batch. Bytes moved cannot be told apart, and stay.
fn filtered(batch: SucceededBatch, valid: &[bool], width: usize) -> SucceededBatch {
    fn keep<T: Copy>(column: &[T], valid: &[bool]) -> Vec<T> {
        column.iter().zip(valid).filter(|(_, valid)| **valid).map(|(value, _)| *value).collect()
    }
    let rows = batch.outputs.chunks_exact(width.max(1)).zip(valid);
    SucceededBatch {
        indexes: keep(&batch.indexes, valid),
        attempts: keep(&batch.attempts, valid),
        outputs: rows.filter(|(_, valid)| **valid).flat_map(|(row, _)| row.iter().copied()).collect(),
        usage: keep(&batch.usage, valid),
        ..batch
    }
}

/// Longest text kept of a failure, and most lines of a backtrace or log.
const TEXT_MAX: usize = 4_096;
const LINES_MAX: usize = 64;

/// A failure without what is too long to keep.
fn clipped(mut failure: Failure) -> Failure {
    let clip = |text: &mut String| {
        if text.len() > TEXT_MAX {
            let end = (0..=TEXT_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(end);
        }
    };
    clip(&mut failure.message);
    for lines in [&mut failure.backtrace, &mut failure.log_tail] {
        lines.truncate(LINES_MAX);
        lines.iter_mut().for_each(clip);
    }
    failure
}
