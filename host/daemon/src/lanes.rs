//! Lanes: threads that run prepared frames on executors, each one frame after the other.
//!
//! There is a lane for each core lease, and one more for each frame that is paused; those are started when they are needed.
//! A lane blocks only on the queue and on its executor. It hands every end of an attempt on at once: outputs into the
//! store, the end into the next report. If an executor is lost, the attempt that lost it was reported; what is left of
//! the frame goes back to the queue and is taken up again without blame.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use partita_host_logic::{Job, Returned};
use partita_sandbox::{Artefact, AttemptEnd, Batch, ForkError, RunControl, RunEnd};
use partita_types::{AttemptId, Cause, CpuTime, Failure, ModuleId, OutputInfo, Usage};
use tokio::sync::OwnedSemaphorePermit;

use crate::engine::{Attend, Next};
use crate::error;
use crate::executors::Kind;
use crate::host::Host;
use crate::report::{Moved, Tell};

/// After so many executors in a row that did not even start an attempt, the frame's attempts fail.
const MAX_SETBACKS: u32 = 3;

/// A frame with everything that it needs to run.
#[derive(Debug)]
pub(crate) struct Runnable {
    module: ModuleId,
    artefact: Artefact,
    /// The attempts that have not ended.
    batch: Batch,
    /// Their names, and their positions in the frame.
    ids: Vec<AttemptId>,
    positions: Vec<usize>,
    /// Told with the first attempt that succeeds.
    moved: Moved,
    setbacks: u32,
    /// Given back when the frame is done.
    _memory: Option<OwnedSemaphorePermit>,
}

impl Runnable {
    /// Of attempts whose `ids` and `positions` are in the order of the batch.
    pub(crate) fn new(
        module: ModuleId,
        artefact: Artefact,
        batch: Batch,
        ids: Vec<AttemptId>,
        positions: Vec<usize>,
        moved: Moved,
        memory: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self { module, artefact, batch, ids, positions, moved, setbacks: 0, _memory: memory }
    }

    /// Leaves out what is not to run: attempts that were cancelled since the frame was prepared.
    fn keep(&mut self, wanted: &[usize]) {
        if wanted.len() == self.positions.len() {
            return;
        }
        let keep: Vec<bool> = self.positions.iter().map(|position| wanted.binary_search(position).is_ok()).collect();
        retain(&mut self.batch.attempts, &keep);
        retain(&mut self.ids, &keep);
        retain(&mut self.positions, &keep);
    }

    /// Leaves out the first attempts: they ended.
    fn advance(&mut self, ended: usize) {
        let ended = ended.min(self.ids.len());
        self.batch.attempts.drain(..ended);
        self.ids.drain(..ended);
        self.positions.drain(..ended);
    }
}

fn retain<T>(list: &mut Vec<T>, keep: &[bool]) {
    let mut keep = keep.iter();
    list.retain(|_| keep.next().is_some_and(|keep| *keep));
}

/// Starts the lanes of a host, and the thread that looks after leases: it stops and continues executors when time alone
/// is the reason, and starts further lanes.
///
/// # Errors
/// If the system gives no thread.
pub(crate) fn start(host: &Arc<Host>) -> std::io::Result<JoinHandle<()>> {
    let host = Arc::clone(host);
    std::thread::Builder::new().name("leases".to_owned()).spawn(move || attend(&host))
}

fn attend(host: &Arc<Host>) {
    let mut lanes = Vec::new();
    while let Attend::Lane = host.engine.attend() {
        let of_lane = Arc::clone(host);
        let name = format!("lane-{}", lanes.len());
        match std::thread::Builder::new().name(name).spawn(move || run(&of_lane)) {
            Ok(lane) => lanes.push(lane),
            Err(fault) => {
                tracing::error!(error = %fault, "no thread for a lane; trying again");
                host.engine.without_lane();
            }
        }
    }
    for lane in lanes {
        if lane.join().is_err() {
            tracing::error!("a lane panicked");
        }
    }
}

fn run(host: &Host) {
    loop {
        host.collector.wait_for_room();
        // Here because freeing the pages of large copies takes a while; between two frames it keeps nobody waiting.
        host.fetcher.expire();
        match host.engine.next() {
            Next::Run(job) => Turn::new(host, job).run(),
            Next::Idle => host.executors.reap(partita_identity::now()),
            Next::Stop => return,
        }
    }
}

/// How a turn on an executor went.
struct Outcome {
    /// How many attempts ended, from the front.
    ended: usize,
    /// Whether an executor was lost.
    lost: bool,
}

/// One frame on one lane, until it ends or loses its executor.
struct Turn<'a> {
    host: &'a Host,
    job: Job<Box<Runnable>>,
    cpu: CpuTime,
}

impl<'a> Turn<'a> {
    fn new(host: &'a Host, mut job: Job<Box<Runnable>>) -> Self {
        job.payload.keep(&job.positions);
        Self { host, job, cpu: CpuTime::default() }
    }

    fn run(mut self) {
        let outcome = self.execute();
        if outcome.lost {
            self.host.counters.executors_lost.one();
        }
        let Self { host, job, cpu } = self;
        let mut runnable = job.payload;
        runnable.advance(outcome.ended);
        match host.engine.give_back(job.work, runnable, outcome.ended, cpu, outcome.lost) {
            Returned::Again { cancelled } => host.cancelled(cancelled),
            Returned::Finished { frame, cancelled } => {
                if let Some(frame) = frame {
                    host.cancelled(cancelled);
                    host.collector.finished(frame);
                }
            }
        }
    }

    fn execute(&mut self) -> Outcome {
        let runnable = &self.job.payload;
        let control = match RunControl::new() {
            Ok(control) => control,
            Err(fault) => return self.setback(&ForkError::Resources(fault)),
        };
        let kind = Kind { tenant: self.job.tenant, module: runnable.module, memory: self.job.memory };
        let (kind, mut executor) = match self.host.executors.get(&kind, &runnable.artefact) {
            Ok(found) => found,
            Err(fault) => return self.setback(&fault),
        };
        let handle = executor.handle();
        let handed_on = self.host.engine.running(self.job.work, &control, handle, &runnable.positions, &runnable.ids);
        let Runnable { batch, ids, moved, .. } = &mut *self.job.payload;
        let (host, cpu) = (self.host, &mut self.cpu);
        let mut on_end = |end: AttemptEnd| {
            *cpu = cpu.saturating_add(end.usage.cpu);
            if let Some(id) = ids.get(end.position) {
                let when = if end.position + 1 == ids.len() { Tell::WithNext } else { Tell::Now };
                let position = end.position;
                ended(host, *id, end, moved, when);
                // Behind the report of it, so that it is never in neither.
                handed_on.store(position + 1, Ordering::Release);
            }
        };
        let end = executor.run(batch, &control, &mut on_end);
        self.host.engine.leave(self.job.work);
        match end {
            RunEnd::Complete => {
                self.host.executors.put(kind, executor, partita_identity::now());
                Outcome { ended: self.job.payload.ids.len(), lost: false }
            }
            RunEnd::ExecutorLost { next: 0 } => {
                drop(executor);
                self.setback(&ForkError::Failed("it died before it began with the first task".to_owned()))
            }
            RunEnd::ExecutorLost { next } => {
                self.job.payload.setbacks = 0;
                Outcome { ended: next, lost: true }
            }
        }
    }

    /// An executor was not to be had, which says nothing about the tasks; at some point it does not help to go on.
    fn setback(&mut self, fault: &ForkError) -> Outcome {
        let runnable = &mut self.job.payload;
        runnable.setbacks += 1;
        let reason = error::chain(fault);
        tracing::warn!(tenant = %self.job.tenant, module = %runnable.module, error = %reason, "no executor");
        if runnable.setbacks < MAX_SETBACKS {
            return Outcome { ended: 0, lost: true };
        }
        let cause = match fault {
            ForkError::Failed(_) => Cause::Crash,
            ForkError::ZygoteLost | ForkError::Resources(_) => Cause::HostLost,
        };
        for id in &runnable.ids {
            self.host.fail(*id, Failure::new(cause, reason.clone()), Usage::default(), Vec::new());
        }
        Outcome { ended: runnable.ids.len(), lost: true }
    }
}

/// An attempt ended: keeps its outputs and its log, and reports it.
fn ended(host: &Host, id: AttemptId, end: AttemptEnd, moved: &mut Moved, when: Tell) {
    host.logs.add(id, end.log);
    let outputs = match end.result {
        Ok(outputs) => outputs,
        Err(failure) => return host.fail(id, failure, end.usage, Vec::new()),
    };
    let infos: Vec<OutputInfo> = outputs.iter().map(|output| output.info).collect();
    match host.store.insert(id, outputs) {
        Ok(()) => {
            host.counters.attempts_succeeded.one();
            host.collector.succeeded(id, &infos, end.usage, std::mem::take(moved), when);
        }
        Err(full) => host.fail(id, Failure::new(Cause::Storage, full.to_string()), end.usage, Vec::new()),
    }
}
