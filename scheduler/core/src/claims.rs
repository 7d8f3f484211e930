//! Room that is kept at hosts for one tenant: for a guarantee that is being reclaimed, or for a task so large that smaller ones
//! would never leave it room.
//!
//! The second kind is the reservation of EASY backfilling (Lifka, "The ANL/IBM SP Scheduling System", 1995): the task whose turn
//! it is gets a host where it will fit, and others may only use what they cannot delay it with. Where run times are not
//! known in advance, that is the memory and the resources beside it.

use partita_types::{FrameId, HostId, TenantId};

use crate::Core;
use crate::array::Array;
use crate::host::Host;
use crate::share::{Amount, frame_cpu};
use crate::tenant::Tenant;

/// What a frame needs at a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) memory: u64,
    pub(crate) long: bool,
}

impl Need {
    pub(crate) fn of(tenant: &Tenant, array: &Array, memory: u64) -> Self {
        Self { memory, long: tenant.run_times.get(array.learned).is_long() }
    }

    /// What it counts among the resources that tenants share.
    pub(crate) fn amount(self) -> Amount {
        Amount { cpu: u64::from(frame_cpu(self.long)), memory: self.memory, stored: 0 }
    }
}

/// Who may use the room of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ClaimFor {
    /// Any work of the tenant. These frames of others were told to stop for it, and have not yet.
    Guarantee { victims: Vec<FrameId> },
    /// One array, given by job and position. Frames with numbers above `since` were handed out beside the claim.
    Array { job: u32, array: u32, since: u64 },
}

/// Room at a host that is kept for a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) tenant: TenantId,
    pub(crate) host: HostId,
    /// Thirds of a core.
    pub(crate) cpu: u32,
    pub(crate) memory: u64,
    pub(crate) held_for: ClaimFor,
}

impl Claim {
    /// Smaller tasks of the same array would take a large one's room.
    fn is_open_to(&self, tenant: TenantId, (job, array): (u32, u32), memory: u64) -> bool {
        self.tenant == tenant
            && match &self.held_for {
                ClaimFor::Guarantee { .. } => true,
                ClaimFor::Array { job: owner, array: position, .. } => {
                    (*owner, *position) == (job, array) && memory >= self.memory
                }
            }
    }
}

impl Core {
    /// Whether a host has room for a frame beside what is claimed there by others. `strict` counts a core that is taken as
    /// taken, though a long frame might wait for it at the host.
    pub(crate) fn has_room_for(
        &self,
        host: &Host,
        need: Need,
        (tenant, array): (TenantId, (u32, u32)),
        strict: bool,
    ) -> bool {
        let fits = host.free_slots(need.long) > 0 && host.free_memory() >= need.memory;
        if !fits || (self.claims.is_empty() && !strict) {
            return fits;
        }
        let (mut cpu, mut memory) = (0_u32, 0_u64);
        for claim in &self.claims {
            if claim.host != host.id || claim.is_open_to(tenant, array, need.memory) {
                continue;
            }
            match claim.held_for {
                ClaimFor::Guarantee { .. } => {
                    cpu = cpu.saturating_add(claim.cpu);
                    memory = memory.saturating_add(claim.memory);
                }
                // What was there before will end. Only what came beside it counts.
                ClaimFor::Array { since, .. } => {
                    let beside = claim.memory.saturating_add(self.memory_since(host, since));
                    if beside.saturating_add(need.memory) > host.capacity.memory.0 {
                        return false;
                    }
                }
            }
        }
        let cores_matter = strict || cpu > 0;
        let cpu_fits = !cores_matter || host.free_cpu() >= frame_cpu(need.long).saturating_add(cpu);
        cpu_fits && host.free_memory() >= need.memory.saturating_add(memory)
    }

    /// Memory of the frames at a host that are younger than a claim.
    fn memory_since(&self, host: &Host, since: u64) -> u64 {
        let frames = host.frames.iter().filter_map(|slot| self.frames.get(*slot));
        frames.filter(|frame| frame.number() > since).map(|frame| frame.memory).fold(0, u64::saturating_add)
    }

    /// Gives up claims at hosts that are away, and of arrays that have nothing ready any more.
    pub(crate) fn prune_claims(&mut self) {
        if self.claims.is_empty() {
            return;
        }
        let mut claims = std::mem::take(&mut self.claims);
        claims.retain(|claim| {
            let there = self.hosts[claim.host.0 as usize].is_attached();
            there
                && match &claim.held_for {
                    ClaimFor::Guarantee { victims } => !victims.is_empty(),
                    ClaimFor::Array { job, array, .. } => {
                        let tenant = &self.tenants[claim.tenant.0 as usize];
                        tenant.job(*job).is_some_and(|job| job.array(*array).listed)
                    }
                }
        });
        self.claims = claims;
    }

    /// Keeps room at the host where a large frame will soonest find it. Each tenant has one such claim at most, and each host.
    /// Returns whether it has a new one.
    pub(crate) fn claim_for_array(&mut self, tenant: TenantId, (job, array): (u32, u32), need: Need) -> bool {
        let for_array = |claim: &&Claim| matches!(claim.held_for, ClaimFor::Array { .. });
        let own = |claim: &&Claim| for_array(claim) && claim.tenant == tenant;
        if self.claims.iter().filter(own).any(|claim| claim.is_open_to(tenant, (job, array), need.memory)) {
            return false;
        }
        // What goes first now does so here, too.
        self.claims.retain(|claim| !own(&claim));
        let Some(owner) = self.tenants.get(tenant.0 as usize) else { return false };
        let Some(policy) = &owner.policy else { return false };
        let taken = |host: &Host| self.claims.iter().filter(for_array).any(|claim| claim.host == host.id);
        let hosts = self.hosts.iter().filter(|host| {
            let strong = host.is_attached() && host.isolation >= policy.minimum_isolation;
            strong && host.capacity.memory.0 >= need.memory && !taken(host)
        });
        // Short frames end soon; what long ones have may stay taken for hours.
        let soon = |host: &&Host| {
            let frames = host.frames.iter().filter_map(|slot| self.frames.get(*slot));
            let short: u64 = frames.filter(|frame| !frame.long).map(|frame| frame.memory).sum();
            (host.free_memory().saturating_add(short), host.free_memory(), std::cmp::Reverse(host.id))
        };
        let Some(host) = hosts.max_by_key(soon).map(|host| host.id) else { return false };
        let held_for = ClaimFor::Array { job, array, since: self.frames.created() };
        self.claims.push(Claim { tenant, host, cpu: 0, memory: need.memory, held_for });
        true
    }

    /// A frame of an array was handed out: what was claimed for that is not needed any more.
    pub(crate) fn settle_claim(&mut self, tenant: TenantId, array: (u32, u32), memory: u64) {
        let for_array = |claim: &Claim| matches!(claim.held_for, ClaimFor::Array { .. });
        self.claims.retain(|claim| !for_array(claim) || !claim.is_open_to(tenant, array, memory));
    }

    /// How many places are being reclaimed for a tenant.
    pub(crate) fn reclaimed_for(&self, tenant: TenantId) -> u32 {
        let reclaims = |claim: &&Claim| claim.tenant == tenant && matches!(claim.held_for, ClaimFor::Guarantee { .. });
        u32::try_from(self.claims.iter().filter(reclaims).count()).unwrap_or(u32::MAX)
    }

    /// A frame that was told to stop has stopped.
    pub(crate) fn settle_victim(&mut self, frame: FrameId) {
        for claim in &mut self.claims {
            if let ClaimFor::Guarantee { victims } = &mut claim.held_for {
                victims.retain(|victim| *victim != frame);
            }
        }
        self.claims.retain(|claim| !matches!(&claim.held_for, ClaimFor::Guarantee { victims } if victims.is_empty()));
    }
}
