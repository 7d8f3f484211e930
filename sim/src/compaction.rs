//! Compactions of the journal, and its way to another disk. What is kept is decided by the core; that it is written beside
//! the journal and takes its place at once is a model of the store.

use partita_core::{Compaction, Record};

use crate::world::{Step, World};
use crate::{Checked, ensure};

/// Records in a batch of a compacted journal.
const TOGETHER: usize = 20;

impl World {
    /// Begins a compaction, unless records wait to be written or another one is under way.
    pub(crate) fn begin_compaction(&mut self, lasts: u64, dies: Option<u64>) -> Checked {
        let idle = self.scheduler.has_written_everything() && !self.scheduler.disk.is_compacting();
        let Some(core) = self.scheduler.core().filter(|_| idle) else { return Ok(()) };
        let picker = core.compaction();
        let before = self.scheduler.disk.records()?;
        let kept = compacted(picker, &before);
        self.a_compaction_keeps_the_state(&before, &kept)?;
        self.scheduler.disk.begin_compaction(kept.chunks(TOGETHER).map(<[Record]>::to_vec).collect());
        let life = self.scheduler.life;
        self.plan_step(lasts, Step::Compacted { life });
        if let Some(again) = dies {
            let wait = self.random.processes.below(lasts + 1);
            self.plan_step(wait, Step::Crash { again: again * 1_000 });
        }
        Ok(())
    }

    /// What was compacted takes the place of the journal.
    pub(crate) fn on_compacted(&mut self, life: u64) -> Checked {
        if self.scheduler.life == life && self.scheduler.is_up() {
            self.scheduler.disk.end_compaction()
        } else {
            Ok(())
        }
    }

    /// The scheduler is stopped, its state exported as lines of JSON, and imported on another disk.
    pub(crate) fn move_state(&mut self, again: u64) -> Checked {
        self.crash_scheduler()?;
        let records = self.scheduler.disk.replay()?;
        let moved: Result<Vec<Record>, String> = records.iter().map(exported_and_imported).collect();
        let same = moved.as_ref().is_ok_and(|moved| *moved == records);
        ensure(same, "what_is_exported_can_be_imported", || format!("{:?}", moved.as_ref().err()))?;
        self.scheduler.disk.replace(moved.unwrap_or_default().chunks(TOGETHER))?;
        self.plan_step(again, Step::StartScheduler);
        Ok(())
    }
}

fn compacted(mut picker: Compaction, records: &[Record]) -> Vec<Record> {
    let mut kept = Vec::new();
    records.iter().for_each(|record| picker.pass(record.clone(), &mut kept));
    picker.finish(&mut kept);
    kept
}

fn exported_and_imported(record: &Record) -> Result<Record, String> {
    let line = serde_json::to_string(record).map_err(|error| error.to_string())?;
    serde_json::from_str(&line).map_err(|error| format!("{error} in {line}"))
}
