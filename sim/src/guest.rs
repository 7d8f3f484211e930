//! Guests of the simulation: how long a task takes and how it ends, from its identity alone, so that a smaller plan
//! does not change what the tasks left in it do.

use std::time::Duration;

use partita_testkit::Random;
use partita_types::{AttemptId, Cause, Usage};

/// Retries of every array: enough that only what is poisoned fails for good.
pub(crate) const RETRIES: u32 = 30;
/// The wall time limit of a task, unless its array has another.
pub(crate) const WALL_TIME: Duration = Duration::from_secs(8);
/// The longest that a task takes by itself, once nothing goes wrong any more.
pub(crate) const LONGEST_HEALED: u64 = 200_000;

/// How much longer tasks of a long array take: less than their wall time.
pub(crate) const LONG: u64 = 6_000_000;

/// What a task does whatever happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It gets there in the end.
    Sound,
    /// It fails, for good.
    Poisoned,
    /// It kills its executor, each time.
    Crashes,
}

/// What an attempt is going to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Behaviour {
    /// How long it runs, in microseconds.
    pub(crate) micros: u64,
    /// Why it fails, if it does.
    pub(crate) cause: Option<Cause>,
}

impl Behaviour {
    /// What an attempt of a task does, of which `faults` in 100 go wrong.
    pub(crate) fn of(seed: u64, attempt: AttemptId, fate: Fate, faults: u64) -> Self {
        let task = attempt.task;
        let identity = u64::from(task.job.tenant.0) << 48 ^ u64::from(task.job.number) << 32;
        let identity = identity ^ u64::from(task.array.0) << 24 ^ u64::from(task.index) << 8;
        let mut random = Random::new(seed ^ identity ^ u64::from(attempt.number.0.get()));
        let random = &mut random.fork();
        let healed = faults == 0;
        let slow = !healed && random.chance(15);
        let micros = if slow { random.between(500_000, 5_000_000) } else { random.between(500, LONGEST_HEALED) };
        match fate {
            Fate::Poisoned => {
                let cause = if random.chance(70) { Cause::Failed } else { Cause::Module };
                return Self { micros, cause: Some(cause) };
            }
            Fate::Crashes => return Self { micros, cause: Some(Cause::Crash) },
            Fate::Sound => {}
        }
        if !random.chance(faults) {
            return Self { micros, cause: None };
        }
        let causes = [Cause::Trap, Cause::Retry, Cause::Crash, Cause::Panic, Cause::Memory, Cause::OutputSize];
        if random.chance(15) {
            // It hangs, and is killed at its limit.
            return Self { micros: WALL_TIME.as_micros() as u64, cause: Some(Cause::WallTime) };
        }
        Self { micros, cause: Some(causes[random.below(causes.len() as u64) as usize]) }
    }

    /// The same where everything takes so many times longer, and where it is killed after so long. What has as much time as
    /// most is never late.
    pub(crate) fn within(mut self, slow: u64, limit: Duration) -> Self {
        let limit_micros = limit.as_micros() as u64;
        let hangs = self.cause == Some(Cause::WallTime);
        let micros = if hangs { limit_micros } else { self.micros * slow };
        if micros > limit_micros && limit < WALL_TIME {
            self.cause = Some(Cause::WallTime);
        }
        self.micros = micros.min(limit_micros);
        self
    }

    /// Whether the executor is lost with the attempt.
    pub(crate) fn kills_executor(&self) -> bool {
        matches!(self.cause, Some(Cause::Crash | Cause::WallTime | Cause::CpuTime | Cause::Memory))
    }

    /// What the host measured, now and then nonsense: nobody must come to harm by it.
    pub(crate) fn usage(&self, nonsense: bool) -> Usage {
        let micros = if nonsense { u64::MAX } else { self.micros };
        let peak_memory = partita_types::ByteSize(if nonsense { u64::MAX } else { 1 << 20 });
        Usage { cpu: partita_types::CpuTime::from_micros(micros), peak_memory }
    }
}
