//! Who goes next, and how much each tenant may use: weighted dominant-resource fairness above guarantees.
//!
//! The order is that of Ghodsi et al., "Dominant Resource Fairness", NSDI 2011: next is whoever has the smallest share of the
//! resource that it has most of, divided by its weight; the resources are CPU, memory and stored bytes. Before that go tenants
//! below their guarantee.
//!
//! CPU is counted in thirds of a core, because a host has three places for frames per core: one that runs, one that follows
//! at once, one on its way. A frame of short tasks counts one, a long one a whole core, since it leaves no time to those that
//! would follow it.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use partita_policy::{Resources, TenantPolicy};
use partita_types::{ByteSize, CohortName, MilliCpu};

use crate::Core;
use crate::host::FRAMES_PER_CORE;
use crate::planted::Bug;
use crate::tenant::Tenant;

/// Frames that others may get while a tenant has none, before it goes first. Where there is room for one frame at a time,
/// whoever stores more would else never have a turn: what it stores counts always, what others run only while it runs.
const PATIENCE: u64 = 32;

/// An amount of each resource that tenants share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Amount {
    /// Thirds of a core.
    pub(crate) cpu: u64,
    /// Bytes reserved for running tasks.
    pub(crate) memory: u64,
    /// Bytes of partitions.
    pub(crate) stored: u64,
}

impl Amount {
    /// More of anything than there is.
    const ALL: Self = Self { cpu: u64::MAX, memory: u64::MAX, stored: u64::MAX };

    pub(crate) const fn plus(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_add(other.cpu),
            memory: self.memory.saturating_add(other.memory),
            stored: self.stored.saturating_add(other.stored),
        }
    }

    /// What is left of it beyond `other`.
    pub(crate) const fn beyond(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(other.cpu),
            memory: self.memory.saturating_sub(other.memory),
            stored: self.stored.saturating_sub(other.stored),
        }
    }

    pub(crate) fn is_none(self) -> bool {
        self == Self::default()
    }

    /// The first resource of which it has more than `limit`, with how much that is and the limit.
    pub(crate) fn excess(self, limit: Self) -> Option<Excess> {
        if self.cpu > limit.cpu {
            return Some(Excess::Cpu { used: cores(self.cpu), limit: cores(limit.cpu) });
        }
        if self.memory > limit.memory {
            return Some(Excess::Memory { used: ByteSize(self.memory), limit: ByteSize(limit.memory) });
        }
        let stored = || Excess::Stored { used: ByteSize(self.stored), limit: ByteSize(limit.stored) };
        (self.stored > limit.stored).then(stored)
    }
}

/// More of a resource than a limit allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    Cpu { used: MilliCpu, limit: MilliCpu },
    Memory { used: ByteSize, limit: ByteSize },
    Stored { used: ByteSize, limit: ByteSize },
}

/// Thirds of a core that a frame counts.
pub(crate) const fn frame_cpu(long: bool) -> u32 {
    if long { FRAMES_PER_CORE } else { 1 }
}

/// As policies and people count.
pub(crate) const fn cores(thirds: u64) -> MilliCpu {
    MilliCpu(thirds.saturating_mul(1000) / FRAMES_PER_CORE as u64)
}

/// As frames count; what is left of a third is lost.
const fn thirds(cpu: MilliCpu) -> u64 {
    cpu.0.saturating_mul(FRAMES_PER_CORE as u64) / 1000
}

/// As frames count; a part of a core is had by a frame, too.
const fn whole_cores(cpu: MilliCpu) -> u64 {
    cpu.0.div_ceil(1000).saturating_mul(FRAMES_PER_CORE as u64)
}

/// What the policy of a tenant says about shares, as numbers to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entitlement {
    pub(crate) weight: u32,
    pub(crate) guaranteed: Amount,
    /// The guarantee, and what may be borrowed beyond it: of cores whole ones, because hosts see to the rest.
    pub(crate) most: Amount,
    /// The part of the guarantee that is never lent.
    pub(crate) kept: Amount,
    /// Position of its cohort.
    pub(crate) cohort: usize,
}

impl Default for Entitlement {
    fn default() -> Self {
        let none = Amount::default();
        Self { weight: 1, guaranteed: none, most: Amount::ALL, kept: none, cohort: 0 }
    }
}

impl Entitlement {
    fn new(policy: &TenantPolicy, cohort: usize) -> Self {
        let share = &policy.share;
        let bytes = |size: Option<ByteSize>, default: u64| size.map_or(default, |size| size.0);
        let cpu = |cpu: Option<MilliCpu>, default: u64| cpu.map_or(default, thirds);
        let guaranteed = Amount {
            cpu: thirds(share.guaranteed.cpu),
            memory: share.guaranteed.memory.0,
            stored: share.guaranteed.stored.0,
        };
        let borrowed = Amount {
            cpu: u64::MAX,
            memory: bytes(share.borrow.memory, u64::MAX),
            stored: bytes(share.borrow.stored, u64::MAX),
        };
        let lent = Amount {
            cpu: cpu(share.lend.cpu, u64::MAX),
            memory: bytes(share.lend.memory, u64::MAX),
            stored: bytes(share.lend.stored, u64::MAX),
        };
        let weight = policy.quota.weight.max(1);
        let beyond = |cpu: MilliCpu| whole_cores(MilliCpu(share.guaranteed.cpu.0.saturating_add(cpu.0)));
        let most = Amount { cpu: share.borrow.cpu.map_or(u64::MAX, beyond), ..guaranteed.plus(borrowed) };
        Self { weight, guaranteed, most, kept: guaranteed.beyond(lent), cohort }
    }

    /// Whether use stays within the guarantee for running tasks. Who is guaranteed cores only gets the memory that the tasks
    /// on them need.
    pub(crate) const fn covers(&self, used: Amount) -> bool {
        let memory = self.guaranteed.memory == 0 || used.memory <= self.guaranteed.memory;
        used.cpu <= self.guaranteed.cpu && memory
    }
}

/// The cohorts by name, and whether any guarantee has to be looked after at all.
#[derive(Debug, Default)]
pub(crate) struct Cohorts {
    names: BTreeMap<Option<CohortName>, usize>,
    any_guarantee: bool,
}

/// The resource of which a tenant has most, as a part of all there is of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dominant {
    used: u64,
    of: u64,
}

impl Dominant {
    /// What is used of which resource, in relation to what there is.
    pub(crate) fn new(used: Amount, capacity: Amount) -> Self {
        let memory = Self { used: used.memory, of: capacity.memory.max(1) };
        let stored = Self { used: used.stored, of: capacity.stored.max(1) };
        let cpu = Self { used: used.cpu, of: capacity.cpu.max(1) };
        [memory, stored]
            .into_iter()
            .fold(cpu, |most, other| if other.compare(most, 1, 1).is_gt() { other } else { most })
    }

    /// Compares exactly, without floating point and without a remainder, so that equal shares are equal.
    fn compare(self, other: Self, weight: u32, other_weight: u32) -> Ordering {
        let product = |share: Self, other: Self, weight: u32| {
            (u128::from(share.used) * u128::from(other.of)).saturating_mul(u128::from(weight))
        };
        product(self, other, other_weight).cmp(&product(other, self, weight))
    }
}

/// Where a tenant stands in the order. Smaller goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rank {
    below_guarantee: bool,
    /// Frames that others got since it got its last one, if it has none and that is too many.
    passed_over: u64,
    dominant: Dominant,
    weight: u32,
    served: u64,
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Rank {
    /// Who is below its guarantee; who was passed over for long; who has the smaller dominant share by weight; if equal, who
    /// was served less.
    fn cmp(&self, other: &Self) -> Ordering {
        let served = |rank: &Self, weight: u32| u128::from(rank.served) * u128::from(weight);
        let guarantees = other.below_guarantee.cmp(&self.below_guarantee);
        let shares = || self.dominant.compare(other.dominant, self.weight, other.weight);
        guarantees
            .then(other.passed_over.cmp(&self.passed_over))
            .then_with(shares)
            .then_with(|| served(self, other.weight).cmp(&served(other, self.weight)))
    }
}

/// What a tenant may do at the moment, worked out once for all its arrays.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    /// What all tenants use.
    total: Amount,
    /// What must stay free for others, whoever uses the rest.
    reserved: Amount,
    capacity: Amount,
    /// Whether somebody else uses more than its guarantee, so that a tenant below its own insists on free cores.
    pub(crate) others_borrow: bool,
}

/// Why a frame is not handed out though a host has room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Withheld {
    /// The tenant would borrow more than it may.
    Borrowing(Excess),
    /// The rest is kept for other tenants' guarantees.
    Kept(Excess),
}

impl Tenant {
    /// What it uses of the resources that are shared.
    pub(crate) fn used(&self) -> Amount {
        Amount { cpu: self.usage.cpu_thirds, memory: self.usage.memory, stored: self.usage.stored }
    }

    /// Whether it has less running than it is guaranteed.
    pub(crate) fn is_below_guarantee(&self) -> bool {
        let guaranteed = self.entitlement.guaranteed;
        let memory = guaranteed.memory == 0 || self.usage.memory < guaranteed.memory;
        self.usage.cpu_thirds < guaranteed.cpu && memory
    }

    /// Whether it has more running than it is guaranteed, and so something to give back.
    pub(crate) fn is_above_guarantee(&self) -> bool {
        !self.entitlement.covers(self.used())
    }

    /// Where it stands after so many frames were handed out to anybody.
    pub(crate) fn rank(&self, capacity: Amount, handed_out: u64) -> Rank {
        let others = handed_out.saturating_sub(self.last_served);
        let passed_over = if self.usage.frames == 0 && others >= PATIENCE { others } else { 0 };
        Rank {
            below_guarantee: self.is_below_guarantee(),
            passed_over,
            dominant: Dominant::new(self.used(), capacity),
            weight: self.entitlement.weight,
            served: self.served,
        }
    }
}

impl Core {
    /// Takes over what a policy says about shares.
    pub(crate) fn entitle(&mut self, tenant: usize, policy: &TenantPolicy) {
        let next = self.cohorts.names.len();
        let cohort = *self.cohorts.names.entry(policy.share.cohort.clone()).or_insert(next);
        self.tenants[tenant].entitlement = Entitlement::new(policy, cohort);
        self.cohorts.any_guarantee = self.tenants.iter().any(|tenant| !tenant.entitlement.guaranteed.is_none());
    }

    pub(crate) fn any_guarantee(&self) -> bool {
        self.cohorts.any_guarantee
    }

    /// What all attached hosts that take part offer together.
    pub(crate) fn capacity(&self) -> Amount {
        let attached = self.hosts.iter().filter(|host| host.takes_part());
        attached.fold(Amount::default(), |sum, host| {
            sum.plus(Amount {
                cpu: u64::from(host.slots()),
                memory: host.capacity.memory.0,
                stored: host.capacity.partitions.0,
            })
        })
    }

    /// What is guaranteed to all tenants together beyond what the attached hosts have; nothing unless policies promise too
    /// much, or hosts are missing.
    #[must_use]
    pub fn oversubscription(&self) -> Resources {
        let guarantees = self.tenants.iter().map(|tenant| tenant.entitlement.guaranteed);
        let beyond = guarantees.fold(Amount::default(), Amount::plus).beyond(self.capacity());
        Resources { cpu: cores(beyond.cpu), memory: ByteSize(beyond.memory), stored: ByteSize(beyond.stored) }
    }

    /// What a tenant may do at the moment. Costs a look at each tenant, if there are guarantees at all.
    pub(crate) fn standing(&self, tenant: &Tenant) -> Standing {
        let mut standing = Standing {
            total: Amount::default(),
            reserved: Amount::default(),
            capacity: Amount::default(),
            others_borrow: false,
        };
        if !self.cohorts.any_guarantee {
            return standing;
        }
        standing.capacity = self.capacity();
        // Per cohort: what its members lend to each other, and what is used of that.
        let mut pools = vec![(Amount::default(), Amount::default()); self.cohorts.names.len()];
        for other in &self.tenants {
            let (rights, used) = (&other.entitlement, other.used());
            standing.total = standing.total.plus(used);
            let (pool, taken) = &mut pools[rights.cohort];
            *pool = pool.plus(rights.guaranteed.beyond(rights.kept));
            *taken = taken.plus(used.beyond(rights.kept));
            if other.id != tenant.id {
                standing.reserved = standing.reserved.plus(rights.kept.beyond(used));
                standing.others_borrow |= other.is_above_guarantee();
            }
        }
        for (cohort, (pool, taken)) in pools.into_iter().enumerate() {
            if cohort != tenant.entitlement.cohort {
                standing.reserved = standing.reserved.plus(pool.beyond(taken));
            }
        }
        standing
    }

    /// Whether a tenant may have a frame of this size, as far as shares go.
    pub(crate) fn check_share(&self, tenant: &Tenant, standing: &Standing, frame: Amount) -> Result<(), Withheld> {
        let rights = &tenant.entitlement;
        let then = tenant.used().plus(frame);
        if let Some(excess) = then.excess(rights.most).filter(|_| !self.has(Bug::BorrowBeyondLimit)) {
            return Err(Withheld::Borrowing(excess));
        }
        if rights.covers(then) {
            return Ok(());
        }
        // What nobody keeps anything of is bounded by hosts and quotas only.
        let bound = |reserved: u64, all: u64| if reserved == 0 { u64::MAX } else { all.saturating_sub(reserved) };
        let (reserved, all) = (standing.reserved, standing.capacity);
        let free = Amount {
            cpu: bound(reserved.cpu, all.cpu),
            memory: bound(reserved.memory, all.memory),
            stored: bound(reserved.stored, all.stored),
        };
        standing.total.plus(frame).excess(free).map_or(Ok(()), |excess| Err(Withheld::Kept(excess)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Amount = Amount { cpu: 90, memory: 1 << 40, stored: 1 << 50 };

    fn rank(used: Amount, weight: u32, served: u64) -> Rank {
        Rank { below_guarantee: false, passed_over: 0, dominant: Dominant::new(used, ALL), weight, served }
    }

    #[test]
    fn the_dominant_share_is_of_what_is_used_most_of() {
        let half = rank(Amount { cpu: 45, memory: 0, stored: 0 }, 1, 0);
        for used in [Amount { cpu: 1, memory: 1 << 39, stored: 0 }, Amount { cpu: 1, memory: 1, stored: 1 << 49 }] {
            assert_eq!(rank(used, 1, 0).cmp(&half), Ordering::Equal, "{used:?}");
        }
        assert!(rank(Amount { cpu: 1, memory: (1 << 39) + 1, stored: 0 }, 1, 0) > half);
    }

    #[test]
    fn weights_divide_shares_exactly_and_equal_ones_are_served_in_turn() {
        let used = |cpu| Amount { cpu, memory: 0, stored: 0 };
        assert_eq!(rank(used(3), 1, 7).cmp(&rank(used(9), 3, 21)), Ordering::Equal);
        assert!(rank(used(3), 1, 7) < rank(used(9), 3, 22));
        assert!(rank(used(3), 1, 7) > rank(used(8), 3, 22));
    }

    #[test]
    fn shares_of_huge_and_of_empty_clusters_do_not_overflow() {
        let used = Amount { cpu: u64::MAX, memory: u64::MAX, stored: u64::MAX };
        let most = Dominant::new(used, Amount::default());
        assert!(most.compare(Dominant::new(Amount::default(), used), 1000, 1).is_gt());
    }

    #[test]
    fn half_a_core_is_one_third_that_frames_can_take() {
        assert_eq!(thirds(MilliCpu(500)), 1);
        assert_eq!(thirds(MilliCpu(1500)), 4);
        assert_eq!(cores(4), MilliCpu(1333));
    }
}
