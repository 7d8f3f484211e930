//! What must hold for modules that killed executors. What the journal alone can show is checked in the ledger.

use crate::world::World;
use crate::{Checked, ensure};

impl World {
    /// Who is told that its module is quarantined can find that in the journal.
    pub(crate) fn a_refusal_for_quarantine_is_true(&self, position: usize) -> Checked {
        let client = &self.clients[position];
        let was = self.history.ledger.quarantines.ever(client.tenant);
        ensure(was, "a_refusal_for_quarantine_is_true", || format!("client {position} of tenant {}", client.tenant))
    }
}
