//! Executor processes that are kept for further work of the same tenant and module.
//!
//! An executor never changes tenant or module. After a while without work it is dropped, which kills it; the number of
//! idle ones is bounded, the oldest goes first. The zygote they are forked from is started again if it dies.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use partita_sandbox::{Artefact, Executor, ForkError, Program, StartError, Zygote, ZygoteConfig};
use partita_types::{ByteSize, Isolation, ModuleId, TenantId, Timestamp};

use crate::error;
use crate::metrics::Counters;
use crate::sync::lock;

/// An executor without work is kept for so long.
const IDLE_LIFE: Duration = Duration::from_secs(10);
/// Idle executors for each core lease.
const IDLE_PER_CORE: usize = 4;

/// What an executor was forked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) tenant: TenantId,
    pub(crate) module: ModuleId,
    /// The most that its guests may use.
    pub(crate) memory: ByteSize,
}

impl Kind {
    fn serves(&self, wanted: &Self) -> bool {
        self.tenant == wanted.tenant && self.module == wanted.module && self.memory >= wanted.memory
    }
}

#[derive(Debug)]
struct Idle {
    kind: Kind,
    executor: Executor,
    since: Timestamp,
}

/// The executors of this host that have no work, and the zygote.
#[derive(Debug)]
pub(crate) struct Executors {
    program: Program,
    zygote: Mutex<Arc<Zygote>>,
    isolation: Isolation,
    /// Oldest first.
    idle: Mutex<Vec<Idle>>,
    max_idle: usize,
    counters: Arc<Counters>,
}

impl Executors {
    /// Starts the zygote. Blocks until it is ready.
    pub(crate) fn start(program: Program, cores: u32, counters: Arc<Counters>) -> Result<Self, StartError> {
        let zygote = Zygote::start(&program, ZygoteConfig::default())?;
        let isolation = zygote.isolation();
        let max_idle = usize::try_from(cores).unwrap_or(1).saturating_mul(IDLE_PER_CORE);
        let (zygote, idle) = (Mutex::new(Arc::new(zygote)), Mutex::default());
        Ok(Self { program, zygote, isolation, idle, max_idle, counters })
    }

    /// How strongly executors are confined.
    pub(crate) fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// An idle executor of this kind, else a new one. Blocks for a millisecond if it has to be forked.
    ///
    /// One that died while it was idle is not given out: its next task would be charged with that death.
    pub(crate) fn get(&self, kind: &Kind, artefact: &Artefact) -> Result<(Kind, Executor), ForkError> {
        while let Some(Idle { kind, executor, .. }) = self.take_idle(kind) {
            if executor.handle().is_alive() {
                return Ok((kind, executor));
            }
        }
        self.fork(artefact, kind.memory).map(|executor| (*kind, executor))
    }

    fn take_idle(&self, kind: &Kind) -> Option<Idle> {
        let mut idle = lock(&self.idle);
        // The one used last has the warmest caches.
        let place = idle.iter().rposition(|idle| idle.kind.serves(kind))?;
        Some(idle.remove(place))
    }

    /// A new executor, whatever is idle.
    pub(crate) fn fork(&self, artefact: &Artefact, memory: ByteSize) -> Result<Executor, ForkError> {
        let executor = self.zygote()?.fork(artefact, memory)?;
        self.counters.executors_forked.one();
        Ok(executor)
    }

    /// The zygote; a new one if it died. Who comes meanwhile waits: without a zygote there is nothing else to do.
    fn zygote(&self) -> Result<Arc<Zygote>, ForkError> {
        let mut zygote = lock(&self.zygote);
        if !zygote.is_alive() {
            tracing::error!("the zygote died; starting another one");
            let started = Zygote::start(&self.program, ZygoteConfig::default());
            let started = started.map_err(|fault| ForkError::Failed(error::chain(&fault)))?;
            *zygote = Arc::new(started);
        }
        Ok(Arc::clone(&zygote))
    }

    /// Keeps an executor whose work is done.
    pub(crate) fn put(&self, kind: Kind, executor: Executor, now: Timestamp) {
        let mut idle = lock(&self.idle);
        idle.push(Idle { kind, executor, since: now });
        let oldest = (idle.len() > self.max_idle).then(|| idle.remove(0));
        drop(idle);
        // Killing and reaping takes a while; not under the lock.
        drop(oldest);
    }

    /// Drops executors that were idle for long.
    pub(crate) fn reap(&self, now: Timestamp) {
        let mut idle = lock(&self.idle);
        let (old, young) = std::mem::take(&mut *idle).into_iter().partition(|idle| now.since(idle.since) >= IDLE_LIFE);
        *idle = young;
        drop(idle);
        let old: Vec<Idle> = old;
        drop(old);
    }

    /// Drops all idle executors.
    pub(crate) fn clear(&self) {
        let all = std::mem::take(&mut *lock(&self.idle));
        drop(all);
    }
}
