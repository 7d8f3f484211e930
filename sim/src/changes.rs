//! Policies that change while jobs run.

use partita_core::Event;

use crate::Checked;
use crate::world::World;

impl World {
    /// A policy is read again, and says something else.
    pub(crate) fn change_policy(&mut self, position: usize) -> Checked {
        let Some(change) = self.plan.changes.get(position).cloned() else { return Ok(()) };
        let Some(policy) = self.policies.get_mut(change.tenant) else { return Ok(()) };
        *policy = change.policy;
        self.history.policies_changed();
        if !self.scheduler.is_up() {
            return Ok(());
        }
        let policy = self.policies[change.tenant].policy(change.tenant);
        self.apply(Event::TenantDefined(policy))
    }
}
