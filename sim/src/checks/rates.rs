//! What must hold for limits of CPU that are divided among hosts, seen from what hosts are told.

use std::collections::BTreeMap;

use partita_types::{HostId, HostTenant, TenantId};

use super::History;
use crate::world::World;
use crate::{Checked, ensure};

/// What a frame can use, in thousandths of a core.
const FRAME: u64 = 1_000;

/// What hosts were told of the limits of tenants, in thousandths of a core.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<(TenantId, HostId), u64>);

impl Told {
    /// A host is told.
    pub(super) fn note(&mut self, host: HostId, tenants: &[HostTenant]) {
        for tenant in tenants {
            self.0.insert((tenant.id, host), tenant.cpu.map_or(u64::MAX, |cpu| cpu.0));
        }
    }
}

impl History {
    /// How many frames of a tenant hosts have, of which something has not ended.
    fn frames_of(&self, tenant: TenantId) -> BTreeMap<HostId, u64> {
        let mut frames = BTreeMap::new();
        for ((host, _), attempts) in &self.frames {
            let own = attempts.first().is_some_and(|attempt| attempt.task.job.tenant == tenant);
            if own && attempts.iter().any(|attempt| self.open.get(attempt) == Some(host)) {
                *frames.entry(*host).or_default() += 1;
            }
        }
        frames
    }
}

impl World {
    /// I16: what hosts were told that the frames they have may use is no more than the tenant's limit, all hosts together.
    pub(super) fn parts_of_a_limit_are_no_more_than_it(&self) -> Checked {
        let Some(core) = self.scheduler.core() else { return Ok(()) };
        // Who cannot be told that a limit was lowered keeps what it has.
        let deaf = core.hosts().iter().any(|host| host.state == "detached");
        if deaf && !self.plan.changes.is_empty() {
            return Ok(());
        }
        for view in core.tenants() {
            let limit = view.policy.cpu_limit().0;
            if limit.is_multiple_of(FRAME) {
                continue;
            }
            let frames = self.history.frames_of(view.id);
            let part = |(host, frames): (&HostId, &u64)| {
                let told = self.history.rates.0.get(&(view.id, *host));
                told.map_or(0, |told| *told.min(&(frames * FRAME)))
            };
            let sum: u64 = frames.iter().map(part).sum();
            // Nobody can be told that it has nothing at all.
            let most = limit + frames.len() as u64;
            ensure(sum <= most, "parts_of_a_limit_are_no_more_than_it", || {
                format!("tenant {}: {sum} of {limit}, frames {frames:?}, told {:?}", view.name, self.history.rates)
            })?;
        }
        Ok(())
    }
}
