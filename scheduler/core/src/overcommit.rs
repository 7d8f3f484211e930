//! Places beyond the usual ones, for tenants that long tasks of others would keep waiting.
//!
//! A host gets as many frames as keep its cores busy. Where long tasks hold them all, nobody else would have anything before one
//! of them ends, and one that does not end is never over. So a tenant that has less than its fair share of the CPU gets frames
//! at such a host all the same, and the host lets the tenants take turns on its cores, in slices of a few milliseconds by
//! weight. Gandiva (Xiao et al., OSDI 2018) does the same with jobs on GPUs: what finds none free is not queued, but shares one
//! in turns. The bounds:
//!
//! - Usual places go first. Only a tenant that finds none at any host gets one beyond them.
//! - Only at hosts whose cores are all held by long frames, of which another tenant has one: short ones end soon by
//!   themselves, and taking turns with oneself gains nothing.
//! - A tenant gets another frame as long as it has less than its fair share of all cores: its weight, divided by those of all
//!   tenants that have frames or ready tasks. So it has that much, rounded up to a frame, and one frame at least.
//! - A host gets twice its usual frames at most. Memory and resources are reserved as ever.
//! - Not while any tenant has a guarantee: what is guaranteed is whole cores, taken back by preemption, and must not be sliced
//!   away by those who have none.

use partita_types::TenantId;

use crate::Core;
use crate::claims::Need;
use crate::host::Host;
use crate::invariants::{Checked, ensure};
use crate::planted::Bug;
use crate::preemption::could_run;
use crate::tenant::Tenant;

/// How many times its usual frames a host gets at most.
pub(crate) const TIMES_USUAL: u32 = 2;

/// Which places of hosts are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Places {
    /// Those that keep cores busy.
    Usual,
    /// And those beyond them, for tenants that have less than their share.
    Beyond(Sharing),
}

/// What tenants have to share, and in which parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sharing {
    /// Thirds of cores of all hosts.
    cpu: u64,
    /// The weights of all tenants that have or want something.
    weights: u64,
}

impl Sharing {
    /// Whether a tenant of this weight has less than its fair share with so many thirds of cores. Compares exactly.
    fn is_less(self, used: u64, weight: u32) -> bool {
        u128::from(used) * u128::from(self.weights) < u128::from(self.cpu) * u128::from(weight)
    }
}

impl Host {
    /// Frames beyond the usual ones that it could take.
    pub(crate) fn free_beyond(&self, long: bool) -> u32 {
        let free = self.slots().saturating_mul(TIMES_USUAL).saturating_sub(self.frame_count());
        let usual = self.capacity.cores.saturating_add(1);
        let free_long = usual.saturating_mul(TIMES_USUAL).saturating_sub(self.long_frames);
        if long { free.min(free_long) } else { free }
    }

    /// Whether long frames hold all of its cores.
    pub(crate) fn is_held(&self) -> bool {
        self.capacity.cores > 0 && self.long_frames >= self.capacity.cores
    }
}

impl Core {
    /// How the cores are shared, if anybody may get more than the usual places now. Costs a look at each tenant and host.
    pub(crate) fn sharing(&self) -> Option<Sharing> {
        let waits = || self.tenants.iter().any(|tenant| !tenant.runnable.is_empty());
        let others = || self.tenants.iter().filter(|tenant| has_or_wants(tenant)).nth(1).is_some();
        let held = || self.hosts.iter().any(|host| host.takes_part() && host.is_held());
        let may = !self.any_guarantee() && !self.has(Bug::NobodyTakesTurns);
        (may && waits() && others() && held()).then(|| self.shares())
    }

    fn shares(&self) -> Sharing {
        let weights = self.tenants.iter().filter(|tenant| has_or_wants(tenant));
        let weights = weights.map(|tenant| u64::from(tenant.entitlement.weight)).fold(0, u64::saturating_add);
        Sharing { cpu: self.capacity().cpu, weights }
    }

    /// Whether a tenant may have one of these places, as far as its share goes.
    pub(crate) fn may_have(&self, places: Places, tenant: &Tenant) -> bool {
        match places {
            Places::Usual => true,
            Places::Beyond(sharing) => {
                let less = sharing.is_less(tenant.usage.cpu_thirds, tenant.entitlement.weight);
                less || self.has(Bug::OvercommitBeyondShare)
            }
        }
    }

    /// Frames of a tenant that a host could take.
    pub(crate) fn free_places(&self, host: &Host, long: bool, tenant: TenantId, places: Places) -> u32 {
        match places {
            Places::Usual => host.free_slots(long),
            Places::Beyond(_) if host.is_held() && self.has_long_of_others(host, tenant) => host.free_beyond(long),
            Places::Beyond(_) => 0,
        }
    }

    fn has_long_of_others(&self, host: &Host, tenant: TenantId) -> bool {
        let mut frames = host.frames.iter().filter_map(|slot| self.frames.get(*slot));
        frames.any(|frame| frame.long && frame.job.tenant != tenant)
    }

    /// Whether the frames of a tenant at a host share its cores with long ones of others.
    pub(crate) fn takes_turns(&self, host: &Host, tenant: TenantId) -> bool {
        host.frame_count() > host.capacity.cores && host.is_held() && self.has_long_of_others(host, tenant)
    }

    /// A frame was handed out to a place beyond the usual ones. What its tenant had before is kept for the check.
    pub(crate) fn note_beyond(&mut self, tenant: TenantId, had: u64) {
        if let Some(frame) = self.frames.latest_mut() {
            frame.beyond = true;
        }
        self.granted.push((tenant, had));
    }

    /// Why a tenant whose tasks find no usual place gets none beyond those.
    pub(crate) fn explain_turns(&self, tenant: &Tenant, need: &Need) -> &'static str {
        let Some(sharing) = self.sharing() else { return "" };
        if !sharing.is_less(tenant.usage.cpu_thirds, tenant.entitlement.weight) {
            return "; it has its fair share of the cores";
        }
        let suited = self.hosts.iter().filter(|host| could_run(tenant, need, host));
        let mut held = suited.filter(|host| host.is_held() && self.has_long_of_others(host, tenant.id)).peekable();
        if held.peek().is_none() {
            return "";
        }
        if held.all(|host| host.free_beyond(need.long) == 0) {
            return "; hosts whose cores long tasks of others hold have twice their usual frames, and take no more";
        }
        "; hosts whose cores long tasks of others hold would let it take turns, but have no memory or resources for it"
    }

    /// I18: who got more than the usual places in this event had less than its share, and nobody has a guarantee.
    pub(crate) fn only_who_has_less_gets_more(&self) -> Checked {
        let name = "only_who_has_less_gets_more";
        for (tenant, had) in &self.granted {
            let owner = &self.tenants[tenant.0 as usize];
            let fair = self.shares().is_less(*had, owner.entitlement.weight) && !self.any_guarantee();
            ensure(fair, name, || format!("tenant {} had {had} thirds of cores of {:?}", owner.name, self.shares()))?;
        }
        Ok(())
    }
}

/// Whether a tenant counts among those that share.
fn has_or_wants(tenant: &Tenant) -> bool {
    tenant.usage.frames > 0 || !tenant.runnable.is_empty()
}
