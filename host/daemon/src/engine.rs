//! The frames of this host between the session, the preparations and the lanes.
//!
//! One lock guards the queue. It is taken a few times per frame, never per task and never across a wait, which is less
//! than what a thread of its own with two channels would cost; [`partita_host_logic`] decides, this file only tells others.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use partita_host_logic::{AdmitError, Cancelled, Job, Logic, Offer, Prepared, Retracted, Returned, Taken, WorkId};
use partita_sandbox::RunControl;
use partita_types::{AttemptId, ByteSize, CpuTime, FrameId, HeldFrame, HostTenant, Timestamp};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::sync::lock;

/// A lane that has nothing to do looks after idle executors this often.
const IDLE: Duration = Duration::from_secs(1);

/// A frame that runs.
struct Run {
    control: RunControl,
    /// Positions of the frame, in the order of the batch.
    positions: Vec<usize>,
    attempts: Vec<AttemptId>,
    /// How many of them have ended and were handed on, from the front.
    ended: Arc<AtomicUsize>,
    /// What ran when we last looked, and whether it was told.
    seen: Option<(usize, bool)>,
}

struct State<P> {
    logic: Logic<P>,
    runs: HashMap<WorkId, Run>,
    preparing: HashMap<WorkId, AbortHandle>,
    /// No frame is given out: the session is about to begin, or the host stops.
    held: bool,
    stopped: bool,
}

/// What a lane does next.
pub(crate) enum Next<P> {
    Run(Job<P>),
    /// Nothing to run for a while.
    Idle,
    Stop,
}

/// The frames of this host.
pub(crate) struct Engine<P> {
    state: Mutex<State<P>>,
    wake: Condvar,
    quiet: Notify,
}

impl<P> Engine<P> {
    /// A host without frames, which gives none out before [`resume`](Self::resume).
    pub(crate) fn new(memory: ByteSize) -> Self {
        let logic = Logic::new(memory);
        let state = State { logic, runs: HashMap::new(), preparing: HashMap::new(), held: true, stopped: false };
        Self { state: Mutex::new(state), wake: Condvar::new(), quiet: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State<P>> {
        lock(&self.state)
    }

    /// Takes the weights of tenants over.
    pub(crate) fn set_tenants(&self, tenants: &[HostTenant]) {
        let mut state = self.state();
        for tenant in tenants {
            state.logic.set_weight(tenant.id, tenant.weight);
        }
    }

    /// See [`Logic::admit`].
    pub(crate) fn admit(&self, offer: Offer) -> Result<WorkId, AdmitError> {
        self.state().logic.admit(offer)
    }

    /// Remembers how to give up a preparation that runs as a task of its own.
    pub(crate) fn preparing(&self, work: WorkId, handle: AbortHandle) {
        let mut state = self.state();
        // A quick one has ended already.
        if state.logic.is_preparing(work) {
            state.preparing.insert(work, handle);
        }
    }

    /// See [`Logic::prepared`].
    pub(crate) fn prepared(&self, work: WorkId, payload: P, failed: &[usize]) -> Prepared {
        let mut state = self.state();
        state.preparing.remove(&work);
        let prepared = state.logic.prepared(work, payload, failed);
        drop(state);
        if prepared == Prepared::Queued {
            self.wake.notify_one();
        }
        prepared
    }

    /// See [`Logic::give_up`].
    pub(crate) fn give_up(&self, work: WorkId) -> Option<(FrameId, Vec<AttemptId>)> {
        let mut state = self.state();
        state.preparing.remove(&work);
        state.logic.give_up(work)
    }

    /// What the calling lane does next. Blocks for a second at most.
    pub(crate) fn next(&self, now: impl Fn() -> Timestamp) -> Next<P> {
        let mut state = self.state();
        loop {
            if state.stopped {
                return Next::Stop;
            }
            let now = now();
            let until = if state.held {
                None
            } else {
                match state.logic.take(now) {
                    Taken::Job(job) => {
                        let more = state.logic.has_ready();
                        drop(state);
                        if more {
                            self.wake.notify_one();
                        }
                        return Next::Run(job);
                    }
                    Taken::Nothing { until } => until,
                }
            };
            let wait = until.map_or(IDLE, |until| until.since(now).min(IDLE));
            let (woken, timeout) = self.wake.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            if timeout.timed_out() && until.is_none() {
                return Next::Idle;
            }
        }
    }

    /// A lane begins to run a batch; from now on its attempts can be cancelled. It counts the ends that it handed on in
    /// what is returned.
    pub(crate) fn running(
        &self,
        work: WorkId,
        control: &RunControl,
        positions: &[usize],
        attempts: &[AttemptId],
    ) -> Arc<AtomicUsize> {
        let ended = Arc::new(AtomicUsize::new(0));
        let mut state = self.state();
        let run = Run {
            control: control.clone(),
            positions: positions.to_vec(),
            attempts: attempts.to_vec(),
            ended: Arc::clone(&ended),
            seen: None,
        };
        if state.held {
            control.cancel_all();
        }
        // Between being taken and now, some may have been cancelled.
        for position in state.logic.cancelled_while_running(work) {
            cancel_position(&run, position);
        }
        state.runs.insert(work, run);
        ended
    }

    /// The frames that are here, each with its attempts that have not ended. An attempt that ends while this is called is
    /// either among them or was handed on before.
    pub(crate) fn held(&self) -> Vec<HeldFrame> {
        let state = self.state();
        state.logic.held(|work| state.runs.get(&work).map_or(0, |run| run.ended.load(Ordering::Acquire)))
    }

    /// See [`Logic::give_back`].
    pub(crate) fn give_back(
        &self,
        work: WorkId,
        payload: P,
        ended: usize,
        cpu: CpuTime,
        lost: Option<Timestamp>,
    ) -> Returned {
        let mut state = self.state();
        state.runs.remove(&work);
        let returned = state.logic.give_back(work, payload, ended, cpu, lost);
        let (quiet, more) = (state.logic.running() == 0, state.logic.has_ready());
        drop(state);
        if quiet {
            self.quiet.notify_waiters();
        }
        if more {
            self.wake.notify_one();
        }
        returned
    }

    /// Cancels attempts; those that run are killed at once.
    pub(crate) fn cancel(&self, attempts: &[AttemptId]) -> Cancelled {
        let mut state = self.state();
        let cancelled = state.logic.cancel(attempts);
        for work in &cancelled.abandoned {
            if let Some(handle) = state.preparing.remove(work) {
                handle.abort();
            }
        }
        for (work, positions) in &cancelled.running {
            if let Some(run) = state.runs.get(work) {
                positions.iter().for_each(|position| cancel_position(run, *position));
            }
        }
        cancelled
    }

    /// Gives a frame back, if it has not begun.
    pub(crate) fn retract(&self, frame: FrameId) -> bool {
        let mut state = self.state();
        match state.logic.retract(frame) {
            Retracted::Given { abandoned } => {
                if let Some(handle) = abandoned.and_then(|work| state.preparing.remove(&work)) {
                    handle.abort();
                }
                true
            }
            Retracted::Kept => false,
        }
    }

    /// Drops every frame and kills what runs; returns when nothing runs any more. No frame is given out until
    /// [`resume`](Self::resume).
    pub(crate) async fn clear(&self) {
        self.hold();
        loop {
            let quiet = self.quiet.notified();
            tokio::pin!(quiet);
            // Registered before looking, so that a lane that ends in between is not missed.
            quiet.as_mut().enable();
            if self.state().logic.running() == 0 {
                return;
            }
            quiet.await;
        }
    }

    fn hold(&self) {
        let mut state = self.state();
        state.held = true;
        let (abandoned, running) = state.logic.clear();
        for work in abandoned {
            if let Some(handle) = state.preparing.remove(&work) {
                handle.abort();
            }
        }
        for work in running {
            if let Some(run) = state.runs.get(&work) {
                run.control.cancel_all();
            }
        }
    }

    /// Gives frames out (again).
    pub(crate) fn resume(&self) {
        let mut state = self.state();
        state.held = false;
        // A scheduler that was restarted does not know who runs for long.
        state.runs.values_mut().for_each(|run| run.seen = None);
        drop(state);
        self.wake.notify_all();
    }

    /// Kills what runs and ends every lane.
    pub(crate) fn stop(&self) {
        self.hold();
        self.state().stopped = true;
        self.wake.notify_all();
    }

    /// Attempts that ran when this was last called and still run, each once.
    pub(crate) fn started(&self) -> Vec<AttemptId> {
        let mut state = self.state();
        let mut started = Vec::new();
        for run in state.runs.values_mut() {
            let position = run.control.running().map(|running| running.position);
            run.seen = match (run.seen, position) {
                (Some((before, told)), Some(position)) if before == position => {
                    if !told {
                        started.extend(run.attempts.get(position).copied());
                    }
                    Some((position, true))
                }
                (_, position) => position.map(|position| (position, false)),
            };
        }
        started
    }

    /// Memory that running guests may use.
    pub(crate) fn guest_memory(&self) -> ByteSize {
        self.state().logic.reserved()
    }
}

/// Cancels a position of a frame at its place in the batch.
fn cancel_position(run: &Run, position: usize) {
    if let Ok(place) = run.positions.binary_search(&position) {
        run.control.cancel(place);
    }
}
