//! The frames of this host between the session, the preparations and the lanes.
//!
//! One lock guards the queue. It is taken a few times per frame, never per task and never across a wait, which is less
//! than what a thread of its own with two channels would cost; [`partita_host_logic`] decides, this file only tells others.
//!
//! Executors are stopped and continued under the lock too, and only while their lanes are inside a batch: so none is
//! left stopped when its lane puts it aside, and no signal reaches one that has other work by then.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use partita_host_logic::{AdmitError, Cancelled, Job, Logic, Offer, Prepared, Retracted, Returned, Taken, WorkId};
use partita_sandbox::{ExecutorHandle, RunControl};
use partita_types::{AttemptId, ByteSize, CpuTime, FrameId, HeldFrame, HostTenant, Timestamp};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::sync::lock;

/// A lane that has nothing to do looks after idle executors this often.
const IDLE: Duration = Duration::from_secs(1);
/// If the system has no thread for one more lane, it is asked again after this time.
const LANE_RETRY: Duration = Duration::from_millis(500);

/// A frame that runs.
struct Run {
    control: RunControl,
    /// What runs it, until that has other work.
    executor: Option<ExecutorHandle>,
    /// The executor's CPU clock when it took the frame.
    cpu_before: CpuTime,
    paused: bool,
    /// Positions of the frame, in the order of the batch.
    positions: Vec<usize>,
    attempts: Vec<AttemptId>,
    /// How many of them have ended and were handed on, from the front.
    ended: Arc<AtomicUsize>,
    /// What ran when we last looked, and whether it was told.
    seen: Option<(usize, bool)>,
}

impl Run {
    /// CPU time that the executor spent on the frame.
    fn cpu_time(&self) -> Option<CpuTime> {
        let now = self.executor.as_ref()?.cpu_time()?;
        Some(CpuTime::from_micros(now.micros.saturating_sub(self.cpu_before.micros)))
    }

    fn set_paused(&mut self, paused: bool) {
        let Some(executor) = self.executor.as_ref().filter(|_| self.paused != paused) else { return };
        self.paused = paused;
        // The lane must not wonder about a process that is stopped already, or not going on yet.
        if paused {
            self.control.set_paused(true);
            executor.stop();
        } else {
            executor.resume();
            self.control.set_paused(false);
        }
    }
}

struct State<P> {
    logic: Logic<P>,
    runs: HashMap<WorkId, Run>,
    preparing: HashMap<WorkId, AbortHandle>,
    /// No frame is given out: the session is about to begin, or the host stops.
    held: bool,
    stopped: bool,
    /// When leases are to be looked at again, and until when whoever does that sleeps.
    look: Option<Timestamp>,
    sleeps_until: Option<Timestamp>,
    /// Lanes that there are.
    lanes: usize,
}

/// What a lane does next.
pub(crate) enum Next<P> {
    Run(Job<P>),
    /// Nothing to run for a while.
    Idle,
    Stop,
}

/// What whoever looks after leases does next.
pub(crate) enum Attend {
    /// Start one more lane.
    Lane,
    Stop,
}

/// The frames of this host.
pub(crate) struct Engine<P> {
    state: Mutex<State<P>>,
    wake: Condvar,
    /// Wakes whoever looks after leases.
    attend: Condvar,
    quiet: Notify,
    cores: usize,
    began: Instant,
}

impl<P> Engine<P> {
    /// A host without frames, which gives none out before [`resume`](Self::resume).
    pub(crate) fn new(cores: u32, memory: ByteSize) -> Self {
        let cores = cores.max(1);
        let state = State {
            logic: Logic::new(cores, memory),
            runs: HashMap::new(),
            preparing: HashMap::new(),
            held: true,
            stopped: false,
            look: None,
            sleeps_until: None,
            lanes: 0,
        };
        Self {
            state: Mutex::new(state),
            wake: Condvar::new(),
            attend: Condvar::new(),
            quiet: Notify::new(),
            cores: usize::try_from(cores).unwrap_or(usize::MAX),
            began: Instant::now(),
        }
    }

    /// Time since the start. Unlike the time of day it never jumps, and slices are short.
    fn now(&self) -> Timestamp {
        Timestamp::default().after(self.began.elapsed())
    }

    /// Lets the right ones run. `coming` lanes look for work next without being woken.
    fn arbitrate(&self, state: &mut State<P>, coming: usize) {
        let State { logic, runs, .. } = &mut *state;
        let verdict = logic.arbitrate(self.now(), &mut |work| runs.get(&work)?.cpu_time());
        for (works, paused) in [(&verdict.pause, true), (&verdict.resume, false)] {
            for work in works {
                if let Some(run) = runs.get_mut(work) {
                    run.set_paused(paused);
                }
            }
        }
        state.look = verdict.next;
        if state.logic.has_work_for_more_than(coming) {
            self.wake.notify_one();
        }
        let sooner = verdict.next.is_some_and(|next| state.sleeps_until.is_none_or(|until| next < until));
        if sooner || state.lanes < self.lanes_wanted(state) {
            self.attend.notify_one();
        }
    }

    /// Lanes that wait for paused executors cannot do anything else.
    fn lanes_wanted(&self, state: &State<P>) -> usize {
        (self.cores + state.logic.paused()).min(state.logic.places())
    }

    /// Looks after leases when it is time to, until there is something else to do.
    pub(crate) fn attend(&self) -> Attend {
        let mut state = self.state();
        loop {
            if state.stopped {
                return Attend::Stop;
            }
            if state.lanes < self.lanes_wanted(&state) {
                state.lanes += 1;
                return Attend::Lane;
            }
            let wait = state.look.map(|look| look.since(self.now()));
            if wait.is_some_and(|wait| wait.is_zero()) {
                self.arbitrate(&mut state, 0);
                continue;
            }
            state.sleeps_until = state.look;
            state = match wait {
                None => self.attend.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(wait) => self.attend.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0,
            };
            // Awake: whatever comes now is seen.
            state.sleeps_until = Some(Timestamp::default());
        }
    }

    /// The lane that [`attend`](Self::attend) asked for could not be started.
    pub(crate) fn without_lane(&self) {
        let mut state = self.state();
        state.lanes -= 1;
        let waited = self.attend.wait_timeout(state, LANE_RETRY);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn state(&self) -> MutexGuard<'_, State<P>> {
        lock(&self.state)
    }

    /// Takes the weights and limits of tenants over.
    pub(crate) fn set_tenants(&self, tenants: &[HostTenant]) {
        let mut state = self.state();
        let State { logic, runs, .. } = &mut *state;
        let now = self.now();
        for tenant in tenants {
            let mut cpu = |work| runs.get(&work)?.cpu_time();
            logic.set_tenant(tenant.id, tenant.into(), now, &mut cpu);
        }
        self.arbitrate(&mut state, 0);
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
        if prepared == Prepared::Queued {
            self.arbitrate(&mut state, 0);
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
    pub(crate) fn next(&self) -> Next<P> {
        let mut state = self.state();
        loop {
            if state.stopped {
                return Next::Stop;
            }
            let now = self.now();
            let until = if state.held {
                None
            } else {
                self.arbitrate(&mut state, 1);
                match state.logic.take(now) {
                    Taken::Job(job) => {
                        // There may be leases for others.
                        self.arbitrate(&mut state, 0);
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

    /// A lane begins to run a batch; from now on its attempts can be cancelled, and its executor paused. It counts the ends
    /// that it handed on in what is returned.
    pub(crate) fn running(
        &self,
        work: WorkId,
        control: &RunControl,
        executor: ExecutorHandle,
        positions: &[usize],
        attempts: &[AttemptId],
    ) -> Arc<AtomicUsize> {
        let ended = Arc::new(AtomicUsize::new(0));
        let mut state = self.state();
        let mut run = Run {
            control: control.clone(),
            cpu_before: executor.cpu_time().unwrap_or_default(),
            executor: Some(executor),
            paused: false,
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
        run.set_paused(state.logic.is_paused(work));
        state.runs.insert(work, run);
        ended
    }

    /// A lane is through with a batch: its executor may get other work, or none.
    pub(crate) fn leave(&self, work: WorkId) {
        if let Some(run) = self.state().runs.get_mut(&work) {
            run.set_paused(false);
            run.executor = None;
        }
    }

    /// The frames that are here, each with its attempts that have not ended. An attempt that ends while this is called is
    /// either among them or was handed on before.
    pub(crate) fn held(&self) -> Vec<HeldFrame> {
        let state = self.state();
        state.logic.held(|work| state.runs.get(&work).map_or(0, |run| run.ended.load(Ordering::Acquire)))
    }

    /// See [`Logic::give_back`].
    pub(crate) fn give_back(&self, work: WorkId, payload: P, ended: usize, cpu: CpuTime, lost: bool) -> Returned {
        let mut state = self.state();
        state.runs.remove(&work);
        let returned = state.logic.give_back(work, payload, ended, cpu, lost.then(|| self.now()));
        // The lane that calls takes the next frame, if the lease is for one.
        self.arbitrate(&mut state, 1);
        if state.logic.running() == 0 {
            self.quiet.notify_waiters();
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
        // Somebody may have been paused for what will not start.
        self.arbitrate(&mut state, 0);
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
                self.arbitrate(&mut state, 0);
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
        self.attend.notify_all();
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
