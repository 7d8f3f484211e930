//! The handle by which other threads reach a lane that is inside [`Executor::run`](crate::Executor::run).

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

/// No attempt is running.
const IDLE: u64 = u64::MAX;

/// Cancels attempts of a running batch and tells how far it is. Clones speak to the same run.
#[derive(Debug, Clone)]
pub struct RunControl {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Readable when there is something in `requests`.
    wake: OwnedFd,
    requests: Mutex<Requests>,
    running: AtomicU64,
    done: AtomicU64,
    total: AtomicU64,
    paused: AtomicBool,
}

/// What was asked for since the lane last looked.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    /// End the whole batch.
    pub(crate) all: bool,
    /// End these attempts.
    pub(crate) positions: BTreeSet<usize>,
}

/// The attempt that runs now and what it said about its progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// Its position in the batch.
    pub position: usize,
    /// What the guest says it has done; 0 if it said nothing.
    pub done: u64,
    /// Out of how much; 0 if it said nothing.
    pub total: u64,
}

impl RunControl {
    /// A handle for one run.
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub fn new() -> std::io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            shared: Arc::new(Shared {
                wake,
                requests: Mutex::default(),
                running: AtomicU64::new(IDLE),
                done: AtomicU64::new(0),
                total: AtomicU64::new(0),
                paused: AtomicBool::new(false),
            }),
        })
    }

    /// Ends the attempt at `position` with [`Cause::Cancelled`](partita_types::Cause::Cancelled), at once if it is
    /// running. Says nothing if it has ended already.
    pub fn cancel(&self, position: usize) {
        self.request(|requests| {
            requests.positions.insert(position);
        });
    }

    /// Ends every attempt of the batch that has not ended yet.
    pub fn cancel_all(&self) {
        self.request(|requests| requests.all = true);
    }

    /// Says whether somebody has stopped the executor or is about to. The lane then looks at it less often, and does not hold
    /// against it that it does not answer. Limits of wall time go on counting.
    pub fn set_paused(&self, paused: bool) {
        self.shared.paused.store(paused, Ordering::Release);
        if !paused {
            self.wake();
        }
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.shared.paused.load(Ordering::Acquire)
    }

    /// What runs now; `None` between attempts.
    #[must_use]
    pub fn running(&self) -> Option<Running> {
        let position = usize::try_from(self.shared.running.load(Ordering::Acquire)).ok()?;
        (position as u64 != IDLE).then(|| Running {
            position,
            done: self.shared.done.load(Ordering::Relaxed),
            total: self.shared.total.load(Ordering::Relaxed),
        })
    }

    fn request(&self, change: impl FnOnce(&mut Requests)) {
        change(&mut self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake();
    }

    /// Lets the lane look around.
    fn wake(&self) {
        // A full counter means that the lane is about to wake anyway.
        let _ = rustix::io::write(&self.shared.wake, &1_u64.to_ne_bytes());
    }

    /// Takes what was asked for. The descriptor is drained first, so that nothing asked for meanwhile is missed.
    pub(crate) fn take(&self) -> Requests {
        let mut counter = [0; 8];
        let _ = rustix::io::read(&self.shared.wake, &mut counter);
        std::mem::take(&mut self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Publishes what runs, for [`running`](Self::running).
    pub(crate) fn publish(&self, running: Option<Running>) {
        if let Some(running) = running {
            self.shared.done.store(running.done, Ordering::Relaxed);
            self.shared.total.store(running.total, Ordering::Relaxed);
        }
        let position = running.map_or(IDLE, |running| running.position as u64);
        self.shared.running.store(position, Ordering::Release);
    }
}

impl AsFd for RunControl {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.wake.as_fd()
    }
}
