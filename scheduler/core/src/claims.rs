//! Room that is kept at hosts for one tenant: for a guarantee that is being reclaimed, or for a task so large that smaller ones
//! would never leave it room.
//!
//! The second kind is the reservation of EASY backfilling (Lifka, "The ANL/IBM SP Scheduling System", 1995): the task whose turn
//! it is gets a host where it will fit, and others may only use what they cannot delay it with. Where run times are not
//! known in advance, that is the memory and the resources beside it.

use std::sync::Arc;

use partita_types::{Features, FrameId, HostId, ResourceName, TenantId};

use crate::Core;
use crate::array::Array;
use crate::frame::LiveFrame;
use crate::host::Host;
use crate::overcommit::Places;
use crate::share::{Amount, frame_cpu};
use crate::tenant::Tenant;

/// What a frame needs at a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) memory: u64,
    pub(crate) long: bool,
    /// Labels, and resources of which each frame holds some while it is there.
    pub(crate) features: Option<Arc<Features>>,
}

impl Need {
    pub(crate) fn of(tenant: &Tenant, array: &Array, memory: u64) -> Self {
        Self { memory, long: tenant.run_times.get(array.kind.learned).is_long(), features: array.kind.needs.clone() }
    }

    /// What it counts among the resources that tenants share.
    pub(crate) fn amount(&self) -> Amount {
        Amount { cpu: u64::from(frame_cpu(self.long)), memory: self.memory, stored: 0 }
    }

    /// Whether a host could have it if it had nothing else.
    pub(crate) fn is_suited_by(&self, host: &Host) -> bool {
        host.capacity.memory.0 >= self.memory && self.features.as_ref().is_none_or(|features| host.suits(features))
    }

    /// The resources with how much it takes of each.
    pub(crate) fn resources(&self) -> impl Iterator<Item = (&ResourceName, u64)> {
        self.features.iter().flat_map(|features| &features.resources).map(|(name, amount)| (name, *amount))
    }

    pub(crate) fn resource(&self, name: &ResourceName) -> u64 {
        self.features.as_ref().and_then(|features| features.resources.get(name)).copied().unwrap_or(0)
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
    pub(crate) need: Need,
    pub(crate) held_for: ClaimFor,
}

impl Claim {
    /// Thirds of a core that it keeps. A large task needs memory; a place it gets when it is its turn.
    pub(crate) fn cpu(&self) -> u32 {
        match self.held_for {
            ClaimFor::Guarantee { .. } => frame_cpu(self.need.long),
            ClaimFor::Array { .. } => 0,
        }
    }

    /// Smaller tasks of the same array would take a large one's room.
    fn is_open_to(&self, tenant: TenantId, (job, array): (u32, u32), memory: u64) -> bool {
        self.tenant == tenant
            && match &self.held_for {
                ClaimFor::Guarantee { .. } => true,
                ClaimFor::Array { job: owner, array: position, .. } => {
                    (*owner, *position) == (job, array) && memory >= self.need.memory
                }
            }
    }
}

impl Host {
    /// Whether it has what a frame needs, apart from a place for it.
    pub(crate) fn has_all_of(&self, need: &Need) -> bool {
        self.free_memory() >= need.memory
            && need.features.as_ref().is_none_or(|features| self.suits(features))
            && need.resources().all(|(name, amount)| self.free_resource(name) >= amount)
    }
}

impl Core {
    /// Whether a host has room for a frame beside what is claimed there by others, in `places`. `strict` counts a core that is
    /// taken as taken, though a long frame might wait for it at the host.
    pub(crate) fn has_room_for(
        &self,
        host: &Host,
        need: &Need,
        (tenant, array): (TenantId, (u32, u32)),
        strict: bool,
        places: Places,
    ) -> bool {
        // Whoever has nothing anywhere waits at a host even with short tasks: long ones of others may never leave time for
        // them, because one of those follows as soon as one ends.
        let has_nothing = self.tenants.get(tenant.0 as usize).is_some_and(|tenant| tenant.usage.frames == 0);
        let fits = self.free_places(host, need.long || has_nothing, tenant, places) > 0 && host.has_all_of(need);
        if !fits || (self.claims.is_empty() && !strict) {
            return fits;
        }
        let others = |claim: &&Claim| claim.host == host.id && !claim.is_open_to(tenant, array, need.memory);
        let cpu = self.claims.iter().filter(others).map(Claim::cpu).fold(0, u32::saturating_add);
        let cores_matter = strict || cpu > 0;
        if cores_matter && host.free_cpu() < frame_cpu(need.long).saturating_add(cpu) {
            return false;
        }
        let claims = || self.claims.iter().filter(others);
        self.fits_beside(
            host,
            claims(),
            (host.free_memory(), host.capacity.memory.0),
            need.memory,
            |frame| frame.memory,
            |need| need.memory,
        ) && need.resources().all(|(name, amount)| {
            let room = (host.free_resource(name), host.resource(name));
            self.fits_beside(host, claims(), room, amount, |frame| frame.resource(name), |need| need.resource(name))
        })
    }

    /// Whether an amount of memory or a resource fits into what is free, and beside the claims into what there is.
    fn fits_beside<'a>(
        &self,
        host: &Host,
        claims: impl Iterator<Item = &'a Claim>,
        (free, all): (u64, u64),
        amount: u64,
        of_frame: impl Fn(&LiveFrame) -> u64,
        of_need: impl Fn(&Need) -> u64,
    ) -> bool {
        let mut claimed = 0_u64;
        for claim in claims {
            let wanted = of_need(&claim.need);
            match claim.held_for {
                ClaimFor::Guarantee { .. } => claimed = claimed.saturating_add(wanted),
                // What was there before will end. Only what came beside it counts.
                ClaimFor::Array { since, .. } if wanted > 0 => {
                    let frames = host.frames.iter().filter_map(|slot| self.frames.get(*slot));
                    let beside = frames.filter(|frame| frame.number() > since).map(&of_frame);
                    let beside = beside.fold(wanted, u64::saturating_add);
                    if beside.saturating_add(amount) > all {
                        return false;
                    }
                }
                ClaimFor::Array { .. } => {}
            }
        }
        amount == 0 || free >= amount.saturating_add(claimed)
    }

    /// Gives up claims at hosts that are away, and of arrays that have nothing ready any more.
    pub(crate) fn prune_claims(&mut self) {
        if self.claims.is_empty() {
            return;
        }
        let mut claims = std::mem::take(&mut self.claims);
        claims.retain(|claim| {
            let there = self.hosts[claim.host.0 as usize].takes_part();
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

    /// Whether room is kept for an array of a tenant.
    pub(crate) fn has_array_claim(&self, tenant: TenantId) -> bool {
        let for_array = |claim: &Claim| matches!(claim.held_for, ClaimFor::Array { .. });
        self.claims.iter().any(|claim| claim.tenant == tenant && for_array(claim))
    }

    /// Keeps room at the host where a large frame will soonest find it. Each tenant has one such claim at most, and each host.
    /// Returns whether it has a new one.
    pub(crate) fn claim_for_array(&mut self, tenant: TenantId, (job, array): (u32, u32), need: &Need) -> bool {
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
            let strong = host.takes_part() && host.isolation >= policy.minimum_isolation;
            strong && need.is_suited_by(host) && !taken(host)
        });
        // Short frames end soon; what long ones have may stay taken for hours.
        let soon = |host: &&Host| {
            let frames = host.frames.iter().filter_map(|slot| self.frames.get(*slot));
            let short: u64 = frames.filter(|frame| !frame.long).map(|frame| frame.memory).sum();
            (host.free_memory().saturating_add(short), host.free_memory(), std::cmp::Reverse(host.id))
        };
        let Some(host) = hosts.max_by_key(soon).map(|host| host.id) else { return false };
        let held_for = ClaimFor::Array { job, array, since: self.frames.created() };
        self.claims.push(Claim { tenant, host, need: need.clone(), held_for });
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
