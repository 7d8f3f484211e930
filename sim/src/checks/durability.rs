//! What must hold across a crash of the scheduler.

use partita_core::{Core, JobEnd, JobEvent, Record, Reply};
use partita_types::{JobId, TaskId};

use super::History;
use crate::hub::Hub;
use crate::ledger::Ledger;
use crate::world::World;
use crate::{Checked, ensure};

impl World {
    /// Everything about a core that was rebuilt from these records.
    pub(crate) fn check_restart(
        &mut self,
        core: &Core,
        events: &[(JobId, Option<JobEvent>)],
        records: &[Record],
    ) -> Checked {
        let ledger = Ledger::of(records)?;
        self.a_replay_gives_the_same_state_each_time(core, records)?;
        self.what_was_acknowledged_survives(core)?;
        the_core_agrees_with_the_journal(core, &ledger)?;
        let history = std::mem::take(&mut self.history);
        let History { told, answers, sent, asked_release, ended_at, conduct, .. } = history;
        let conduct = conduct.after_restart();
        self.history = History { ledger, told, answers, sent, asked_release, ended_at, conduct, ..History::default() };
        for (job, event) in events {
            match event {
                Some(event) => self.history.final_states_are_final(*job, event)?,
                None => self.history.forget_job(*job),
            }
        }
        Ok(())
    }

    /// I31: replaying the same records twice gives the same state.
    fn a_replay_gives_the_same_state_each_time(&self, core: &Core, records: &[Record]) -> Checked {
        let (again, _) = self.restored(records);
        let same = format!("{core:?}") == format!("{again:?}");
        ensure(same, "a_replay_gives_the_same_state_each_time", || format!("{} records", records.len()))
    }

    /// I30: whatever a client was told is still so after a crash.
    fn what_was_acknowledged_survives(&self, core: &Core) -> Checked {
        let name = "what_was_acknowledged_survives";
        let told = &self.history.told;
        for job in &told.accepted {
            let released = self.history.ledger.released.contains(job);
            ensure(released || core.job(*job).is_some(), name, || format!("job {job} is gone"))?;
        }
        for (job, arrays) in &told.extended {
            let known = core.job(*job).map(|view| view.arrays.len() as u32);
            ensure(known.is_none_or(|known| known >= *arrays), name, || format!("arrays of job {job}: {known:?}"))?;
        }
        for job in &told.cancelled {
            let end = core.job(*job).map(|view| view.end);
            // Asked to cancel what was stopped anyhow, the core says that it is done.
            let right = end.is_none_or(|end| matches!(end, Some(JobEnd::Cancelled | JobEnd::Expired)));
            ensure(right, name, || format!("job {job} was cancelled: {end:?}"))?;
        }
        for job in &told.closed {
            ensure(core.job(*job).is_none_or(|view| !view.open), name, || format!("job {job} was closed"))?;
        }
        for job in &told.released {
            ensure(core.job(*job).is_none(), name, || format!("job {job} was released"))?;
        }
        Ok(())
    }

    /// I45: a restart shows the events that were shown before, under the same numbers.
    pub(crate) fn check_events_after_restart(&self, before: &Hub) -> Checked {
        for job in before.jobs() {
            let (shown, now) = (before.visible(job), self.scheduler.hub.visible(job));
            let released = self.history.ledger.released.contains(&job);
            ensure(released || now.starts_with(shown), "a_restart_shows_the_same_events", || {
                let differs = shown.iter().zip(now).position(|(shown, now)| shown != now);
                format!("job {job}: {} events were shown, {} are there, {differs:?} differs", shown.len(), now.len())
            })?;
        }
        Ok(())
    }

    /// Notes what a client is told. Its answer may get lost, but the promise was made.
    pub(crate) fn acknowledge(&mut self, client: usize, reply: &Reply) -> Checked {
        let Some(client) = self.clients.get(client) else { return Ok(()) };
        if let Reply::Accepted { job, first, tasks } = reply {
            let arrays = first.0 + tasks.len() as u32;
            self.history.told.accepted.insert(*job);
            let known = self.history.told.extended.entry(*job).or_default();
            *known = (*known).max(arrays);
            for (array, tasks) in (first.0..).zip(tasks) {
                let right = client.reference.tasks(array);
                ensure(*tasks == right, "arrays_have_as_many_tasks_as_they_should", || {
                    format!("array {array} of job {job}: {tasks}, not {right}")
                })?;
            }
        }
        let (Some(job), Reply::Done) = (client.job, reply) else { return Ok(()) };
        match client.wished() {
            Some("cancel") => drop(self.history.told.cancelled.insert(job)),
            Some("close") => drop(self.history.told.closed.insert(job)),
            Some("release") => drop(self.history.told.released.insert(job)),
            _ => {}
        }
        Ok(())
    }
}

/// I7: what the core says of each task is what the journal says, read in the simplest way.
fn the_core_agrees_with_the_journal(core: &Core, ledger: &Ledger) -> Checked {
    let name = "the_core_agrees_with_the_journal";
    for job in ledger.jobs.keys() {
        let view = core.job(*job);
        ensure(view.is_some() != ledger.released.contains(job), name, || format!("job {job}"))?;
        let Some(view) = view else { continue };
        for (array, known) in (0_u32..).zip(&view.arrays) {
            let range = TaskId { job: *job, array: partita_types::ArrayIndex(array), index: 0 }..TaskId {
                job: *job,
                array: partita_types::ArrayIndex(array + 1),
                index: 0,
            };
            let succeeded = ledger.tasks.range(range).filter(|(_, entry)| entry.succeeded).count();
            ensure(succeeded == known.counts.succeeded as usize, name, || {
                format!("array {array} of job {job}: {:?}, written down {succeeded}", known.counts)
            })?;
        }
        let cancelled = view.end == Some(JobEnd::Cancelled);
        ensure(cancelled == ledger.cancelled.contains(job), name, || format!("job {job}: {:?}", view.end))?;
    }
    Ok(())
}
