//! What must hold for the time that attempts may take.

use partita_core::Record;
use partita_types::{ArrayHeader, Cause};

use crate::world::World;
use crate::{Checked, ensure};

impl World {
    /// I43: what a host is told of the limits of an array is what was asked for it, and not for another one like it.
    pub(super) fn hosts_are_told_the_limits(&self, headers: &[ArrayHeader]) -> Checked {
        for header in headers {
            let Some(plan) = self.client_of(header.job).and_then(|client| client.planned(header.array)) else {
                continue;
            };
            let (told, asked) = (header.limits, (plan.wall_time(), plan.memory << 20));
            ensure((told.wall_time, told.memory.0) == asked, "hosts_are_told_the_limits", || {
                format!("array {} of job {}: {told:?}, asked for {asked:?}", header.array, header.job)
            })?;
        }
        Ok(())
    }

    /// An attempt that failed for the time that it took was at its host for at least that long.
    pub(super) fn who_is_late_had_its_time(&self, record: &Record) -> Checked {
        let Record::AttemptFailed { attempt, failure, .. } = record else { return Ok(()) };
        if failure.cause != Cause::WallTime {
            return Ok(());
        }
        let plan = self.client_of(attempt.task.job).and_then(|client| client.planned(attempt.task.array));
        let Some((plan, handed)) = plan.zip(self.handed_at(*attempt)) else { return Ok(()) };
        let (limit, had) = (plan.wall_time().as_micros() as u64, self.now - handed);
        ensure(had >= limit, "who_is_late_had_its_time", || {
            format!("{attempt} was stopped for its time after {had} microseconds, and may take {limit}")
        })
    }
}
