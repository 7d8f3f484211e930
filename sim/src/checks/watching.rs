//! What must hold for clients who watch.

use crate::world::World;
use crate::{Checked, ensure};

impl World {
    /// I45: a watcher has every event once, in order, however its connections break.
    pub(crate) fn check_watcher(&self, position: usize) -> Checked {
        let client = &self.clients[position];
        let Some(job) = client.job.filter(|_| self.scheduler.is_up()) else { return Ok(()) };
        let shown = self.scheduler.hub.visible(job);
        if shown.is_empty() {
            // Released meanwhile.
            return Ok(());
        }
        ensure(shown.starts_with(&client.seen), "a_watcher_sees_each_event_once", || {
            let differs = client.seen.iter().zip(shown).position(|(seen, shown)| seen != shown);
            format!("job {job}: {} seen, {} shown, {differs:?} differs", client.seen.len(), shown.len())
        })
    }
}
