//! A budget of live bytes: new data is not produced faster than it is consumed.
//!
//! Dask withholds root tasks from its workers (queuing, `worker-saturation`), after finding that workers that run ahead fill
//! their memory with inputs of tasks that come later. Whether a task is a root is a guess from the shape of the graph, and
//! says nothing about how much it writes. Here bytes are counted: what hosts store, and what the frames that they have are
//! expected to write, by what was learned of each function. Above a host's target only frames go there that add nothing:
//! those whose outputs are no larger than what is given up when they have read it. Depth goes first within a tenant anyhow, so
//! what is begun is finished, and its inputs are gone. While an array waits for that, those behind it in the tenant's order
//! may start only what adds nothing, so that they do not take the bytes that it waits for.
//!
//! Two things are left out. A tenant of which nothing runs may always start one frame: this reserve is why nothing ever waits
//! for itself. And whoever has no more than its part of the targets, by weight, is not held up by what others keep.

use partita_types::HostId;

use crate::Core;
use crate::array::Array;
use crate::host::Host;
use crate::job::Job;
use crate::plan::Hold;
use crate::tenant::Tenant;

/// The part of a host's room for partitions that is to be used, in tenths; the rest is for what is larger than expected.
const TARGET_TENTHS: u64 = 6;

impl Host {
    /// Bytes that it stores, and that its frames are expected to write.
    fn live(&self) -> u64 {
        self.stored_bytes.saturating_add(self.expected)
    }

    fn target(&self) -> u64 {
        self.capacity.partitions.0 / 10 * TARGET_TENTHS
    }

    fn is_beyond_target(&self, more: u64) -> bool {
        self.live().saturating_add(more) > self.target()
    }
}

impl Job {
    /// About how many bytes are given up when a task of an array has ended: those of the partitions that only it reads, or its
    /// part of those that are read together.
    fn freed_by(&self, array: u32) -> u64 {
        if self.open {
            return 0;
        }
        let owner = self.array(array);
        let freed = |source: &&u32| **source != array && !self.array(**source).is_result(**source);
        let bytes = |source: &u32| {
            let source = self.array(*source);
            let stored = source.located().iter().map(|(_, bytes)| *bytes).fold(0, u64::saturating_add);
            let there = u64::from(source.tasks.in_state(crate::task::State::Succeeded)).max(1);
            (stored / there).saturating_mul(u64::from(source.len()))
        };
        let total = owner.sources.iter().filter(freed).map(bytes).fold(0, u64::saturating_add);
        total / u64::from(owner.len().max(1))
    }
}

impl Core {
    /// Takes those hosts out that have enough live bytes, unless a frame of an array adds none. `Err` if that leaves nothing.
    pub(crate) fn within_budget(
        &self,
        tenant: &Tenant,
        array: &Array,
        (job, position): (u32, u32),
        mut hosts: Vec<HostId>,
    ) -> Result<Vec<HostId>, Hold> {
        let written = tenant.run_times.get(array.kind.learned).output();
        let is_tight = |host: &HostId| self.hosts[host.0 as usize].is_beyond_target(written);
        if tenant.usage.frames == 0 || written == 0 || !hosts.iter().any(is_tight) {
            return Ok(hosts);
        }
        let freed = tenant.job(job).map_or(0, |job| job.freed_by(position));
        if written <= freed || self.has_little(tenant) {
            return Ok(hosts);
        }
        let tight: Vec<&Host> =
            hosts.iter().filter(|host| is_tight(host)).map(|id| &self.hosts[id.0 as usize]).collect();
        let sum = |of: fn(&Host) -> u64| tight.iter().map(|host| of(host)).fold(0, u64::saturating_add);
        let hold = Hold::LiveBytes { adds: written - freed, live: sum(Host::live), target: sum(Host::target) };
        hosts.retain(|host| !is_tight(host));
        if hosts.is_empty() { Err(hold) } else { Ok(hosts) }
    }

    /// Whether a task of an array is expected to write more than is given up when it has ended.
    pub(crate) fn adds_bytes(&self, tenant: &Tenant, array: &Array, (job, position): (u32, u32)) -> bool {
        let freed = tenant.job(job).map_or(0, |job| job.freed_by(position));
        tenant.run_times.get(array.kind.learned).output() > freed
    }

    /// Whether a tenant has no more live bytes than its part of all targets, by weight among those who have any or are about
    /// to: being handed out a frame must not make room for others, who were asked before.
    fn has_little(&self, tenant: &Tenant) -> bool {
        let live = |tenant: &Tenant| tenant.usage.stored.saturating_add(tenant.usage.expected);
        let weight = |tenant: &Tenant| u64::from(tenant.entitlement.weight);
        let others = self
            .tenants
            .iter()
            .filter(|other| other.id != tenant.id && (live(other) > 0 || !other.runnable.is_empty()));
        let weights = others.map(weight).fold(weight(tenant), u64::saturating_add);
        let attached = self.hosts.iter().filter(|host| host.is_attached());
        let targets = attached.map(Host::target).fold(0, u64::saturating_add);
        weights > weight(tenant) && live(tenant) < targets / weights.max(1) * weight(tenant)
    }
}
