//! Lanes of simulated hosts: frames are admitted, get their inputs, run task by task, and their ends are reported. A task
//! goes on only while its frame holds a core lease.

use partita_host_logic::{AdmitError, Job, Logic, Offer, Prepared, Returned, Taken, WorkId};
use partita_testkit::Run;
use partita_types::{
    AttemptId, ByteSize, Cause, CpuTime, FailedAttempt, Failure, Frame, PartitionId, Report, SucceededBatch, TenantId,
    Usage,
};

use crate::guest::{Behaviour, LONG, WALL_TIME};
use crate::host::SimHost;
use crate::world::{Step, Word, World};
use crate::{Checked, ensure};

/// How long a task has run at least, and at most, when its host notices that it does.
const SEEN: (u64, u64) = (250_000, 500_000);
/// How long ends gather before they are reported.
const GATHER: u64 = 2_000;

/// A frame that has started at a host.
#[derive(Debug)]
pub(crate) struct Lane {
    work: WorkId,
    tenant: TenantId,
    /// What the frame has reserved.
    memory: ByteSize,
    frame: Frame,
    runs: Vec<Run>,
    /// Positions of the frame that it took, and which of them runs.
    positions: Vec<usize>,
    at: usize,
    /// Of the task that runs.
    serial: u64,
    /// Of its planned end; any other is void.
    end: u64,
    behaviour: Behaviour,
    /// What the tasks that ended used, and what the one that runs did before it was paused last, in microseconds.
    cpu: u64,
    ran: u64,
    /// Since when it goes on; paused, if not.
    since: Option<u64>,
    /// Whether the task that runs was seen running for a while.
    seen: bool,
}

impl Lane {
    /// Its executor is killed, and nobody wants to know.
    pub(crate) fn stop(self, logic: &mut Logic<Frame>) {
        logic.give_back(self.work, self.frame, self.at, CpuTime::from_micros(self.cpu + self.ran), None);
    }

    /// CPU time used for the frame, in microseconds.
    fn cpu_time(&self, now: u64) -> u64 {
        self.cpu + self.ran_for(now)
    }

    /// CPU time of the task that runs. Whoever stands still does not notice its end, but it ends.
    fn ran_for(&self, now: u64) -> u64 {
        let more = self.since.map_or(0, |since| now - since);
        (self.ran + more).min(self.behaviour.micros)
    }

    /// What its frame has reserved.
    pub(crate) fn memory(&self) -> ByteSize {
        self.memory
    }

    pub(crate) fn work(&self) -> WorkId {
        self.work
    }

    pub(crate) fn tenant(&self) -> TenantId {
        self.tenant
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.since.is_none()
    }

    /// How many of its tasks have ended.
    pub(crate) fn ended(&self) -> usize {
        self.at
    }

    fn run(&self) -> &Run {
        &self.runs[self.positions[self.at]]
    }
}

impl World {
    /// Takes a frame in.
    pub(crate) fn admit(&mut self, position: usize, frame: Frame) -> Checked {
        let host = &mut self.hosts[position];
        let attempts: Vec<AttemptId> = (0..frame.indexes.len()).filter_map(|place| frame.attempt(place)).collect();
        let Some(header) = host.headers.get(&(frame.job, frame.array)) else {
            self.refuse(position, &frame, &attempts, Cause::HostLost);
            return Ok(());
        };
        if !frame.reuse.is_empty() {
            return self.keep_copies(position, &frame);
        }
        let memory = frame.memory.unwrap_or(header.limits.memory);
        let offer = Offer { frame: frame.id, tenant: frame.job.tenant, memory, attempts: attempts.clone() };
        match host.logic.admit(offer) {
            Ok(work) => {
                let remote = frame.sources.iter().any(|source| source.name != host.name);
                let wait = if remote { self.random.network.between(500, 50_000) } else { 0 };
                let process = self.hosts[position].process;
                self.hosts[position].preparing.insert(work, frame);
                self.plan_step(wait, Step::Prepared { host: position, process, work });
            }
            Err(AdmitError::TooLarge { .. }) => self.refuse(position, &frame, &attempts, Cause::Memory),
            Err(AdmitError::Full) => self.refuse(position, &frame, &attempts, Cause::Preempted),
        }
        Ok(())
    }

    /// Keeps outputs for the tasks of a frame, too, instead of running them.
    fn keep_copies(&mut self, position: usize, frame: &Frame) -> Checked {
        for (mut run, from) in self.hosts[position].runs(frame).into_iter().zip(&frame.reuse) {
            let outputs = (0_u32..).take(run.outputs.len());
            let copy = |output| self.hosts[position].store.get(&PartitionId { attempt: *from, output }).copied();
            match outputs.map(copy).collect() {
                Some(copies) => {
                    run.outputs = copies;
                    self.check_outputs(&run)?;
                    self.succeed(position, &run, Usage::default(), 1);
                }
                None => self.fail(position, run.attempt, Cause::Input, Usage::default(), Vec::new()),
            }
        }
        self.hosts[position].report.finished_frames.push(frame.id);
        self.plan_report(position);
        Ok(())
    }

    fn refuse(&mut self, position: usize, frame: &Frame, attempts: &[AttemptId], cause: Cause) {
        for attempt in attempts {
            self.fail(position, *attempt, cause, Usage::default(), Vec::new());
        }
        self.hosts[position].report.finished_frames.push(frame.id);
        self.plan_report(position);
    }

    /// The inputs of a frame were fetched, as far as they are where they are said to be.
    pub(crate) fn on_prepared(&mut self, position: usize, process: u64, work: WorkId) -> Checked {
        if self.hosts[position].process != process || !self.hosts[position].alive {
            return Ok(());
        }
        let Some(frame) = self.hosts[position].preparing.remove(&work) else { return Ok(()) };
        if !self.hosts[position].logic.is_preparing(work) {
            return Ok(());
        }
        let mut failed = Vec::new();
        for (place, run) in self.hosts[position].runs(&frame).iter().enumerate() {
            let missing = self.missing(run);
            if !missing.is_empty() {
                failed.push(place);
                self.fail(position, run.attempt, Cause::Input, Usage::default(), missing);
            }
        }
        match self.hosts[position].logic.prepared(work, frame, &failed) {
            Prepared::Queued => self.settle(position)?,
            Prepared::Finished(frame) => self.hosts[position].report.finished_frames.push(frame),
            Prepared::Gone => {}
        }
        self.plan_report(position);
        Ok(())
    }

    /// Inputs that cannot be had.
    fn missing(&mut self, run: &Run) -> Vec<PartitionId> {
        let (hosts, now) = (&self.hosts, self.now);
        let there = |input: &&(partita_types::StoredPartition, partita_types::HostName)| {
            let source = hosts.iter().find(|host| host.name == input.1);
            source.is_some_and(|host| {
                host.alive && host.frozen_until <= now && host.store.get(&input.0.id) == Some(&input.0.info)
            })
        };
        let mut missing: Vec<PartitionId> =
            run.inputs.iter().filter(|input| !there(input)).map(|(stored, _)| stored.id).collect();
        if !self.healed && missing.is_empty() && self.random.network.chance(1) {
            missing.extend(run.inputs.first().map(|(stored, _)| stored.id));
        }
        missing
    }

    /// Gives leases to whom they are due, and frames to free lanes.
    pub(crate) fn settle(&mut self, position: usize) -> Checked {
        loop {
            self.watch_leases(position)?;
            let now = self.timestamp();
            let SimHost { logic, lanes, .. } = &mut self.hosts[position];
            let verdict = logic.arbitrate(now, &mut |work| cpu_time(lanes, work, now.micros));
            for work in verdict.pause {
                self.pause(position, work);
            }
            for work in verdict.resume {
                self.resume(position, work);
            }
            self.look_again(position, verdict.next.map(|next| next.micros));
            match self.hosts[position].logic.take(now) {
                Taken::Job(job) => self.start_lane(position, job),
                Taken::Nothing { until } => {
                    self.look_again(position, until.map(|until| until.micros).filter(|until| *until > self.now));
                    return Ok(());
                }
            }
        }
    }

    /// Plans the next look, unless an earlier one is planned.
    fn look_again(&mut self, position: usize, at: Option<u64>) {
        let now = self.now;
        let host = &mut self.hosts[position];
        let Some(at) = at.filter(|at| host.look.is_none_or(|look| look <= now || *at < look)) else { return };
        host.look = Some(at);
        let process = host.process;
        self.plan_step(at - now, Step::TakeWork { host: position, process });
    }

    fn start_lane(&mut self, position: usize, job: Job<Frame>) {
        let now = self.now;
        let host = &mut self.hosts[position];
        let runs = host.runs(&job.payload);
        let lane = Lane {
            work: job.work,
            tenant: job.tenant,
            memory: job.memory,
            frame: job.payload,
            runs,
            positions: job.positions,
            at: 0,
            serial: 0,
            end: 0,
            behaviour: Behaviour { micros: 0, cause: None },
            cpu: 0,
            ran: 0,
            since: Some(now),
            seen: false,
        };
        let Some(number) = host.lanes.iter().position(Option::is_none) else { return };
        host.lanes[number] = Some(lane);
        self.start_task(position, number);
    }

    fn pause(&mut self, position: usize, work: WorkId) {
        let now = self.now;
        let lanes = self.hosts[position].lanes.iter_mut().flatten();
        if let Some(lane) = lanes.into_iter().find(|lane| lane.work == work) {
            lane.ran = lane.ran_for(now);
            lane.since = None;
            // Wall time goes on.
            if lane.behaviour.cause != Some(Cause::WallTime) {
                lane.end = 0;
            }
        }
    }

    fn resume(&mut self, position: usize, work: WorkId) {
        let (now, end) = (self.now, self.next_serial());
        let host = &mut self.hosts[position];
        let process = host.process;
        let found = |lane: &Option<Lane>| lane.as_ref().is_some_and(|lane| lane.work == work);
        let Some(number) = host.lanes.iter().position(found) else { return };
        let Some(lane) = host.lanes[number].as_mut() else { return };
        lane.since = Some(now);
        if lane.behaviour.cause != Some(Cause::WallTime) {
            lane.end = end;
            let left = lane.behaviour.micros - lane.ran;
            self.plan_step(left, Step::EndTask { host: position, process, lane: number, serial: end });
        }
    }

    fn start_task(&mut self, position: usize, number: usize) {
        let (serial, end) = (self.next_serial(), self.next_serial());
        let now = self.now;
        let faults = if self.healed { 0 } else { self.plan.guest_faults };
        let seed = self.random.guests;
        let Some(lane) = self.hosts[position].lanes[number].as_ref() else { return };
        let (attempt, memory) = (lane.run().attempt, lane.memory);
        let mut behaviour = Behaviour::of(seed, attempt, self.fate(attempt.task), faults);
        let needed = self.client_of(attempt.task.job).and_then(|client| client.needs(attempt.task));
        if behaviour.cause.is_none() && needed.is_some_and(|needed| memory < ByteSize::mib(needed)) {
            behaviour.cause = Some(Cause::Memory);
        }
        if self.client_of(attempt.task.job).is_some_and(|client| client.is_long(attempt.task.array)) {
            behaviour.micros = (behaviour.micros + LONG).min(WALL_TIME.as_micros() as u64);
        }
        let slow = if self.healed { 1 } else { self.plan.hosts[position].slow.max(1) };
        let host = &mut self.hosts[position];
        // What the host was told, not what the plan says.
        let header = host.headers.get(&(attempt.task.job, attempt.task.array));
        let behaviour = behaviour.within(slow, header.map_or(WALL_TIME, |header| header.limits.wall_time));
        let process = host.process;
        if let Some(lane) = host.lanes[number].as_mut() {
            (lane.serial, lane.end, lane.behaviour, lane.seen) = (serial, end, behaviour, false);
            (lane.ran, lane.since) = (0, lane.since.map(|_| now));
        }
        let noticed = self.random.processes.between(SEEN.0, SEEN.1);
        if noticed < behaviour.micros {
            self.plan_step(noticed, Step::Seen { host: position, process, lane: number, serial });
        }
        self.plan_step(behaviour.micros, Step::EndTask { host: position, process, lane: number, serial: end });
    }

    /// The task on a lane runs for a while already.
    pub(crate) fn on_seen(&mut self, position: usize, process: u64, number: usize, serial: u64) {
        let host = &mut self.hosts[position];
        let current = host.process == process && host.alive;
        let lane = host.lanes[number].as_mut().filter(|lane| current && lane.serial == serial);
        let Some(lane) = lane else { return };
        lane.seen = true;
        let attempt = lane.run().attempt;
        host.report.started.push(attempt);
        self.plan_report(position);
    }

    /// In a new session everything that runs for a while is told again.
    pub(crate) fn tell_seen(&mut self, position: usize) {
        let host = &mut self.hosts[position];
        let seen = host.lanes.iter().flatten().filter(|lane| lane.seen).map(|lane| lane.run().attempt);
        host.report.started.extend(seen);
        self.plan_report(position);
    }

    /// The task on a lane ends by itself.
    pub(crate) fn on_task_end(&mut self, position: usize, process: u64, number: usize, serial: u64) -> Checked {
        let host = &self.hosts[position];
        let current = host.process == process && host.alive;
        let lane = host.lanes[number].as_ref().filter(|lane| current && lane.end == serial);
        let Some(lane) = lane else { return Ok(()) };
        let (run, behaviour) = (lane.run().clone(), lane.behaviour);
        self.check_outputs(&run)?;
        self.end_task(position, number, &run, behaviour)
    }

    fn end_task(&mut self, position: usize, number: usize, run: &Run, behaviour: Behaviour) -> Checked {
        let nonsense = !self.healed && self.random.processes.chance(1);
        let usage = behaviour.usage(nonsense);
        match behaviour.cause {
            None => self.succeed(position, run, usage, 0),
            Some(cause) => self.fail(position, run.attempt, cause, usage, Vec::new()),
        }
        let (now, at) = (self.timestamp(), self.now);
        self.watch_leases(position)?;
        let Some(lane) = self.hosts[position].lanes[number].as_mut() else { return Ok(()) };
        lane.cpu = lane.cpu_time(at);
        (lane.ran, lane.since) = (0, lane.since.map(|_| at));
        lane.at += 1;
        let lost = behaviour.kills_executor();
        if lost || lane.at == lane.positions.len() {
            self.give_back(position, number, lost.then_some(now))?;
        } else {
            self.start_task(position, number);
        }
        self.plan_report(position);
        Ok(())
    }

    /// A lane is done with a frame, or lost its executor.
    fn give_back(&mut self, position: usize, number: usize, lost: Option<partita_types::Timestamp>) -> Checked {
        let host = &mut self.hosts[position];
        let Some(lane) = host.lanes[number].take() else { return Ok(()) };
        let cpu = CpuTime::from_micros(lane.cpu);
        let returned = host.logic.give_back(lane.work, lane.frame, lane.at, cpu, lost);
        let cancelled = match returned {
            Returned::Again { cancelled } => cancelled,
            Returned::Finished { frame: Some(frame), cancelled } => {
                host.report.finished_frames.push(frame);
                cancelled
            }
            Returned::Finished { frame: None, .. } => Vec::new(),
        };
        for attempt in cancelled {
            self.fail(position, attempt, Cause::Cancelled, Usage::default(), Vec::new());
        }
        self.settle(position)
    }

    /// Stops attempts wherever they are.
    pub(crate) fn cancel_attempts(&mut self, position: usize, attempts: &[AttemptId]) -> Checked {
        let cancelled = self.hosts[position].logic.cancel(attempts);
        for attempt in cancelled.attempts {
            self.fail(position, attempt, Cause::Cancelled, Usage::default(), Vec::new());
        }
        self.hosts[position].report.finished_frames.extend(cancelled.finished);
        for (work, positions) in cancelled.running {
            let lanes = &self.hosts[position].lanes;
            let runs_now = |lane: &Option<Lane>| {
                lane.as_ref().is_some_and(|lane| lane.work == work && positions.contains(&lane.positions[lane.at]))
            };
            if let Some(number) = lanes.iter().position(runs_now) {
                self.kill_task(position, number)?;
            }
        }
        self.plan_report(position);
        self.settle(position)
    }

    /// Kills the executor of a lane; what else is in its frame is handed on.
    fn kill_task(&mut self, position: usize, number: usize) -> Checked {
        self.watch_leases(position)?;
        let now = self.now;
        let Some(lane) = self.hosts[position].lanes[number].as_mut() else { return Ok(()) };
        let attempt = lane.run().attempt;
        lane.cpu = lane.cpu_time(now);
        (lane.ran, lane.since) = (0, lane.since.map(|_| now));
        lane.at += 1;
        self.fail(position, attempt, Cause::Cancelled, Usage::default(), Vec::new());
        let now = self.timestamp();
        self.give_back(position, number, Some(now))
    }

    fn succeed(&mut self, position: usize, run: &Run, usage: Usage, reused: u32) {
        let host = &mut self.hosts[position];
        for (output, info) in (0_u32..).zip(&run.outputs) {
            host.store.insert(PartitionId { attempt: run.attempt, output }, *info);
        }
        let task = run.attempt.task;
        let fits = |batch: &&mut SucceededBatch| batch.job == task.job && batch.array == task.array;
        let batches = &mut host.report.succeeded;
        if batches.iter_mut().find(fits).is_none() {
            batches.push(SucceededBatch {
                job: task.job,
                array: task.array,
                indexes: Vec::new(),
                attempts: Vec::new(),
                outputs: Vec::new(),
                usage: Vec::new(),
                moved_partitions: 0,
                moved_bytes: partita_types::ByteSize::ZERO,
                reused: 0,
            });
        }
        let Some(batch) = batches.iter_mut().find(fits) else { return };
        batch.indexes.push(task.index);
        batch.attempts.push(run.attempt.number);
        batch.outputs.extend_from_slice(&run.outputs);
        batch.usage.push(usage);
        batch.reused += reused;
    }

    fn fail(
        &mut self,
        position: usize,
        attempt: AttemptId,
        cause: Cause,
        usage: Usage,
        missing_inputs: Vec<PartitionId>,
    ) {
        let failure = Failure::new(cause, "simulated");
        let failed = FailedAttempt { attempt, failure, usage, missing_inputs };
        self.hosts[position].report.failed.push(failed);
    }

    fn plan_report(&mut self, position: usize) {
        let host = &mut self.hosts[position];
        let empty = host.report == Report::default();
        if !empty && !host.report_planned && host.connected {
            host.report_planned = true;
            let session = host.session;
            let wait = self.random.network.below(GATHER);
            self.plan_step(wait, Step::SendReport { host: position, session });
        }
    }

    pub(crate) fn send_report(&mut self, position: usize, session: u64) {
        let host = &mut self.hosts[position];
        if host.connected && host.session == session {
            host.report_planned = false;
            let (number, report) = host.keep_report();
            host.remember(&report);
            self.send_to_scheduler(position, Word::Report(number, report));
        }
    }

    /// I25: whatever ran, ran on the right inputs and wrote what it always writes, even if nobody wants it any more.
    fn check_outputs(&self, run: &Run) -> Checked {
        let task = run.attempt.task;
        let Some(client) = self.client_of(task.job) else { return Ok(()) };
        for (output, info) in (0..).zip(&run.outputs) {
            let right = client.reference.output(task.array.0, task.index, output);
            ensure(info.hash == right, "outputs_are_what_the_reference_says", || {
                format!("output {output} of {}: read {:?}", run.attempt, run.inputs)
            })?;
        }
        Ok(())
    }
}

/// CPU time that the executor of a frame has used for it.
pub(crate) fn cpu_time(lanes: &[Option<Lane>], work: WorkId, now: u64) -> Option<CpuTime> {
    let lane = lanes.iter().flatten().find(|lane| lane.work == work)?;
    Some(CpuTime::from_micros(lane.cpu_time(now)))
}
