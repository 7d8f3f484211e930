//! Copies between hosts, and somebody who drains hosts and takes that back.

use partita_core::{Event, HostMessage, Request, RequestId};
use partita_types::{HostName, MoveId, PartitionId, Source, StoredPartition};

use crate::Checked;
use crate::checks::drained_hosts_have_nothing_that_counts;
use crate::world::{Step, World};

/// How often somebody looks at a host that is drained, in microseconds.
const LOOK: u64 = 500_000;

impl World {
    /// A host is told to copy partitions: they come after a while.
    pub(crate) fn begin_copy(
        &mut self,
        position: usize,
        order: MoveId,
        source: &Source,
        partitions: &[StoredPartition],
    ) {
        let wait = self.random.network.between(500, 200_000);
        let host = &mut self.hosts[position];
        host.copying.begin(order, partitions);
        let (process, session, source) = (host.process, host.session, source.name.clone());
        let partitions = partitions.to_vec();
        self.plan_step(wait, Step::Copied { host: position, process, session, order, source, partitions });
    }

    /// What could be had from the source has arrived.
    pub(crate) fn on_copy_ends(
        &mut self,
        position: usize,
        (process, session): (u64, u64),
        order: MoveId,
        source: &HostName,
        partitions: Vec<StoredPartition>,
    ) {
        let host = &self.hosts[position];
        if host.process != process || host.session != session || !host.alive || !host.connected {
            return;
        }
        let wanted = partitions.len();
        let breaks = !self.healed && self.random.network.chance(5);
        let corrupt = !self.healed && self.random.network.chance(5);
        let arrived: Vec<StoredPartition> =
            partitions.into_iter().filter(|it| !breaks && self.has(source, it)).collect();
        let spoilt = arrived.last().filter(|_| corrupt).map(|partition| partition.id);
        let info = |id: PartitionId| {
            let found = arrived.iter().find(|partition| partition.id == id && Some(id) != spoilt);
            found.map(|partition| partition.info)
        };
        let host = &mut self.hosts[position];
        let Some(copies) = host.copying.finish(order, info) else { return };
        for copy in &copies {
            host.store.insert(copy.id, copy.info);
            host.evicted.remove(&copy.id);
        }
        let problem = (copies.len() < wanted).then(|| format!("{} of {wanted} came", copies.len()));
        self.say(position, HostMessage::Copied { order, copies, problem });
    }

    /// Whether a host can be asked for a partition, and has it.
    fn has(&self, source: &HostName, partition: &StoredPartition) -> bool {
        let host = self.hosts.iter().find(|host| host.name == *source);
        host.is_some_and(|host| {
            let there = host.alive && host.frozen_until <= self.now;
            there && host.store.get(&partition.id) == Some(&partition.info)
        })
    }

    /// Somebody drains a host.
    pub(crate) fn drain(&mut self, position: usize, lasts: u64, stops: bool) -> Checked {
        if position >= self.hosts.len() {
            return Ok(());
        }
        self.set_drain(position, true)?;
        self.plan_step(LOOK, Step::Drained { host: position, stops, until: self.now + lasts });
        Ok(())
    }

    fn set_drain(&mut self, position: usize, on: bool) -> Checked {
        if !self.scheduler.is_up() {
            return Ok(());
        }
        self.scheduler.requests += 1;
        let request = RequestId(self.scheduler.requests);
        let host = self.hosts[position].name.clone();
        self.history.conduct.asks_to_drain(&host, on, self.now);
        self.apply(Event::Requested { request, what: Request::Drain { host, on } })
    }

    /// Whoever drains a host looks how far that is.
    pub(crate) fn on_drained(&mut self, position: usize, stops: bool, until: u64) -> Checked {
        let name = &self.hosts[position].name;
        let view = self.scheduler.core().and_then(|core| core.hosts().into_iter().find(|view| view.name == *name));
        let drain = view.as_ref().and_then(|view| view.drain.as_ref());
        let done = drain.is_some_and(|drain| drain.done);
        let over = self.now >= until || self.healed;
        // After a restart a host is seen only once it has attached.
        match view.as_ref().map(|view| view.drain.is_some()) {
            Some(true) if over => self.set_drain(position, false)?,
            Some(false) if over => return Ok(()),
            _ => {}
        }
        if done && !over {
            drained_hosts_have_nothing_that_counts(self, position)?;
            if stops {
                let again = self.random.processes.below(8_000_000);
                self.kill(position, again, false);
            }
        }
        // The record of it may be lost with the scheduler, so it is looked at once more.
        self.plan_step(LOOK, Step::Drained { host: position, stops: stops && !done, until });
        Ok(())
    }
}
