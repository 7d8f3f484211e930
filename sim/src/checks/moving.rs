//! What must hold whenever data moves from host to host.

use partita_types::{HostId, PartitionId, StoredPartition};

use crate::world::World;
use crate::{Checked, ensure};

impl World {
    /// I23, I24: what a host is told to delete does not count as a copy any more, and if the outputs count at all, another
    /// host really has them, as far as the scheduler can know.
    pub(super) fn no_copy_is_dropped_that_counts(&self, host: HostId, partitions: &[PartitionId]) -> Checked {
        let Some(core) = self.scheduler.core() else { return Ok(()) };
        for partition in partitions {
            let holders = core.holders(partition.attempt);
            let there = |holder: &HostId| *holder != host && self.may_have(*holder, partition);
            let safe = holders.is_empty() || !holders.contains(&host) && holders.iter().any(there);
            ensure(safe, "no_copy_is_dropped_that_counts", || {
                format!("host {} is told to delete {partition}, which is at hosts {holders:?}", host.0)
            })?;
        }
        Ok(())
    }

    /// Whether a host has a partition, or lost it in a way of which the scheduler has not heard.
    fn may_have(&self, host: HostId, partition: &PartitionId) -> bool {
        let Some(link) = self.scheduler.session_of(host) else { return true };
        let host = &self.hosts[link.host];
        let unknown = !host.alive || !host.connected || host.session != link.serial;
        unknown || host.evicted.contains(partition) || host.store.contains_key(partition)
    }

    /// I10: copies go to attached hosts that are not drained themselves, and that do not have them.
    pub(super) fn copies_go_to_hosts_that_take_part(&self, host: HostId, partitions: &[StoredPartition]) -> Checked {
        let Some(core) = self.scheduler.core() else { return Ok(()) };
        let name = "copies_go_to_hosts_that_take_part";
        let views = core.hosts();
        let view = views.get(host.0 as usize);
        let takes_part = view.is_some_and(|view| view.state == "attached" && view.drain.is_none());
        ensure(takes_part, name, || format!("host {}: {view:?}", host.0))?;
        let known = partitions.iter().find(|partition| core.holders(partition.id.attempt).contains(&host));
        ensure(known.is_none(), name, || format!("host {} has {known:?} already", host.0))
    }
}

/// I40: a host that is said to be drained has nothing that counts.
pub(crate) fn drained_hosts_have_nothing_that_counts(world: &World, position: usize) -> Checked {
    let Some(core) = world.scheduler.core() else { return Ok(()) };
    let host = &world.hosts[position];
    let Some(id) = core.host(&host.name) else { return Ok(()) };
    let counts = host.store.keys().find(|partition| core.holders(partition.attempt).contains(&id));
    ensure(counts.is_none(), "drained_hosts_have_nothing_that_counts", || format!("host {}: {counts:?}", host.name))
}
