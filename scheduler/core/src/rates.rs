//! Limits of CPU that counting frames does not keep: hosts keep them, each a part.
//!
//! A frame keeps one core busy at most, so a limit of whole cores is kept by [`partita_policy::Quota::frames`] alone. Of two
//! and a half cores a tenant gets three frames, and each host where it has some is told how much CPU time per time all of its
//! executors there have together; the host holds them to that by stopping them (a token bucket). The limit is divided in
//! proportion to the frames at each host, no more to any than its frames could use: the "flow proportional share" of Raghavan
//! et al., "Cloud Control with Distributed Rate Limiting" (SIGCOMM 2007), with frames as flows.
//!
//! Parts follow the frames, at most every [`DIVIDE_EVERY`] for each tenant. What hosts were told never adds up to more than the
//! limit, counting each host for no more than its frames could use, and but for [`LEAST`] of each, since nothing at all would
//! be no limit. A host that is told less has that long to hear it before others are told more, so parts exceed the limit only
//! if a message takes longer than that: while a host is cut off and not yet missed, and after a restart until every host has
//! attached, which keep what they were told last. Even then all together use less than one core more than a limit
//! `quota.cpu`, because frames are counted against that all the time.

use std::collections::BTreeMap;
use std::time::Duration;

use partita_policy::TenantPolicy;
use partita_types::{HostId, HostTenant, MilliCpu, TenantId, Timestamp};

use crate::Core;
use crate::action::{Action, HostCommand};
use crate::invariants::{Checked, ensure};
use crate::planted::Bug;
use crate::tenant::Tenant;
use crate::timers::Timer;

/// How often the limit of a tenant is divided anew at most, and how long a host has to hear that it has less.
const DIVIDE_EVERY: Duration = Duration::from_millis(100);
/// What a host is told that has no frames, or none that anything is left for: a limit of nothing would be no limit.
const LEAST: u64 = 1;
/// What a frame can use.
const FRAME: u64 = 1_000;

/// The part of one host, in thousandths of a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    /// Frames that the tenant has there.
    frames: u32,
    /// What the host was told last.
    told: u64,
    /// What it may not have heard yet that it has no more, and until when.
    before: Option<(u64, Timestamp)>,
    /// Whether it got frames since it was looked at.
    grew: bool,
}

impl Part {
    const NEW: Self = Self { frames: 0, told: LEAST, before: None, grew: false };

    /// What its frames could use.
    fn most(&self) -> u64 {
        u64::from(self.frames) * FRAME
    }

    /// What its frames have of what it was told.
    fn has(&self) -> u64 {
        self.told.min(self.most())
    }

    /// What its frames may have, if it has not heard yet.
    fn may_have(&self) -> u64 {
        self.before.map_or(self.told, |(before, _)| before.max(self.told)).min(self.most())
    }
}

/// How the limit of one tenant is divided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rates {
    limit: u64,
    /// Frames that it may have.
    frames: u32,
    /// Hosts that were told something else than [`LEAST`], or have frames.
    parts: BTreeMap<HostId, Part>,
    /// Not divided anew before.
    next: Timestamp,
    /// When a timer goes off for it.
    due: Option<Timestamp>,
}

impl Rates {
    /// The division for a policy, if hosts have to keep its limit: what the earlier one told them goes on.
    pub(crate) fn of(policy: &TenantPolicy, earlier: Option<Box<Self>>) -> Option<Box<Self>> {
        let limit = policy.cpu_limit().0;
        if limit.is_multiple_of(FRAME) {
            return None;
        }
        let (parts, due) = earlier.map(|earlier| (earlier.parts, earlier.due)).unwrap_or_default();
        // A lowered limit does not wait for its turn.
        Some(Box::new(Self { limit, frames: policy.quota.frames(), parts, next: Timestamp::default(), due }))
    }

    /// What a host is told.
    pub(crate) fn told(&self, host: HostId) -> MilliCpu {
        MilliCpu(self.parts.get(&host).map_or(LEAST, |part| part.told))
    }

    pub(crate) fn add_frame(&mut self, host: HostId) {
        let part = self.parts.entry(host).or_insert(Part::NEW);
        part.frames += 1;
        part.grew = true;
    }

    pub(crate) fn remove_frame(&mut self, host: HostId) {
        if let Some(part) = self.parts.get_mut(&host) {
            part.frames -= 1;
        }
    }

    /// Works out what hosts are told from now on, those with less first, and when to look again, if not all have what they
    /// should. Only those that `can_hear` are told. With `unknown`, hosts may have frames that have not attached yet.
    fn divide(
        &mut self,
        now: Timestamp,
        can_hear: impl Fn(HostId) -> bool,
        unknown: bool,
    ) -> (Vec<HostId>, Option<Timestamp>) {
        let mut told = Vec::new();
        let limit = self.left(&can_hear);
        self.cut_what_grew(limit, &can_hear, &mut told);
        if now < self.next {
            return (told, Some(self.next));
        }
        let targets = self.targets(&can_hear, unknown);
        let mut free = limit;
        for (host, target) in &targets {
            let Some(part) = self.parts.get_mut(host) else { continue };
            part.before = part.before.filter(|(_, until)| *until > now);
            if *target < part.has() {
                part.before = Some((part.may_have(), now.after(DIVIDE_EVERY)));
                part.told = *target;
                told.push(*host);
            }
            free = free.saturating_sub(part.may_have());
        }
        let mut whole = true;
        for (host, target) in targets {
            let Some(part) = self.parts.get_mut(&host) else { continue };
            if target > part.has() {
                let had = part.may_have();
                let more = target.min(had.saturating_add(free));
                free -= more.saturating_sub(had);
                if more > part.has() {
                    part.told = more;
                    told.push(host);
                }
                whole &= part.has() == target;
            }
        }
        if !told.is_empty() {
            self.next = now.after(DIVIDE_EVERY);
        }
        (told, (!whole).then_some(now.after(DIVIDE_EVERY)))
    }

    /// Hosts that got frames may use more of what they were told before. What then is too much is taken from them, before they
    /// get the frames.
    fn cut_what_grew(&mut self, limit: u64, can_hear: &impl Fn(HostId) -> bool, told: &mut Vec<HostId>) {
        let heard = |(host, _): &(&HostId, &Part)| can_hear(**host);
        let all: u64 = self.parts.iter().filter(heard).map(|(_, part)| part.has()).sum();
        let mut excess = all.saturating_sub(limit);
        for (host, part) in self.parts.iter_mut().filter(|(_, part)| part.grew) {
            part.grew = false;
            let less = excess.min(part.has().saturating_sub(LEAST));
            if less > 0 && can_hear(*host) {
                part.told = part.has() - less;
                excess -= less;
                told.push(*host);
            }
        }
    }

    /// What is left of the limit by hosts that cannot be told.
    fn left(&self, can_hear: &impl Fn(HostId) -> bool) -> u64 {
        let deaf = |(host, _): &(&HostId, &Part)| !can_hear(**host);
        self.limit.saturating_sub(self.parts.iter().filter(deaf).map(|(_, part)| part.may_have()).sum())
    }

    /// What each host should have, of those that have frames and can be told.
    fn targets(&self, can_hear: &impl Fn(HostId) -> bool, unknown: bool) -> Vec<(HostId, u64)> {
        let limit = self.left(can_hear);
        let having = || self.parts.iter().filter(|(host, part)| part.frames > 0 && can_hear(**host));
        let known: u64 = having().map(|(_, part)| u64::from(part.frames)).sum();
        // Each as much as if it had all its frames: then it does not matter where those are that are not known.
        let all = if unknown { known.max(u64::from(self.frames)) } else { known };
        let mut frames = 0;
        let upto = |frames: u64| u128::from(limit) * u128::from(frames) / u128::from(all.max(1));
        let target = |(host, part): (&HostId, &Part)| {
            let before = upto(frames);
            frames += u64::from(part.frames);
            let share = u64::try_from(upto(frames) - before).unwrap_or(u64::MAX);
            (*host, share.clamp(LEAST, part.most()))
        };
        having().map(target).collect()
    }
}

impl Tenant {
    /// What a host is told of it, once its policy is known.
    pub(crate) fn for_host(&self, host: HostId) -> Option<HostTenant> {
        let policy = self.policy.as_ref()?;
        Some(HostTenant {
            id: self.id,
            name: self.name.clone(),
            weight: policy.quota.weight,
            datasets: policy.datasets.clone(),
            cpu: self.rates.as_ref().map(|rates| rates.told(host)),
            guaranteed: policy.share.guaranteed.cpu,
        })
    }
}

impl Core {
    /// A tenant has another policy: hosts are told, and its limit is divided anew if they have to keep it.
    pub(crate) fn set_rates(&mut self, tenant: usize, policy: &TenantPolicy) {
        let frames: Vec<HostId> = {
            let own = self.frames.iter().filter(|(_, frame)| frame.job.tenant == self.tenants[tenant].id);
            own.map(|(_, frame)| frame.host).collect()
        };
        let owner = &mut self.tenants[tenant];
        let known = owner.rates.is_some();
        owner.rates = Rates::of(policy, owner.rates.take());
        if let Some(rates) = owner.rates.as_mut() {
            if !known {
                frames.into_iter().for_each(|host| rates.add_frame(host));
            }
            self.undivided.insert(owner.id);
        }
    }

    /// A frame of a tenant went to a host.
    pub(crate) fn rate_frame(&mut self, tenant: TenantId, host: HostId) {
        if let Some(rates) = &mut self.tenants[tenant.0 as usize].rates {
            rates.add_frame(host);
            self.undivided.insert(tenant);
        }
    }

    /// A frame of a tenant ended at a host.
    pub(crate) fn unrate_frame(&mut self, tenant: TenantId, host: HostId) {
        let keeps = self.has(Bug::RatesOutliveFrames);
        if let Some(rates) = &mut self.tenants[tenant.0 as usize].rates {
            rates.remove_frame(host);
            if !keeps {
                self.undivided.insert(tenant);
            }
        }
    }

    /// A host came or went, or is not waited for any more: what it has does not wait for its turn.
    pub(crate) fn divide_all_rates(&mut self) {
        for tenant in &mut self.tenants {
            if let Some(rates) = &mut tenant.rates {
                rates.next = Timestamp::default();
                self.undivided.insert(tenant.id);
            }
        }
    }

    /// A timer for a tenant went off.
    pub(crate) fn divide_again(&mut self, tenant: TenantId) {
        if let Some(rates) = self.tenants.get_mut(tenant.0 as usize).and_then(|tenant| tenant.rates.as_mut()) {
            rates.due = None;
            self.undivided.insert(tenant);
        }
    }

    /// Tells hosts their parts of limits whose frames have changed. Comes before the frames themselves, so that no host runs
    /// more of them by an older part.
    pub(crate) fn divide_rates(&mut self, actions: &mut Vec<Action>) {
        for id in std::mem::take(&mut self.undivided) {
            let Some(mut rates) = self.tenants.get_mut(id.0 as usize).and_then(|tenant| tenant.rates.take()) else {
                continue;
            };
            let can_hear = |host: HostId| self.hosts.get(host.0 as usize).is_some_and(|host| host.is_attached());
            let (told, again) = rates.divide(self.now, can_hear, self.known_hosts.are_awaited());
            if let Some(at) = again.filter(|_| rates.due.is_none()) {
                rates.due = Some(at);
                self.timers.set(at, Timer::Divide(id));
            }
            let tenant = &mut self.tenants[id.0 as usize];
            tenant.rates = Some(rates);
            for host in told {
                let tenants = tenant.for_host(host).into_iter().collect();
                actions.push(Action::Command { host, command: HostCommand::Tenants(tenants) });
            }
        }
    }

    /// I16: the parts of all hosts together are no more than the limit, apart from those that cannot be told.
    pub(crate) fn rates_stay_within_their_limit(&self) -> Checked {
        let name = "rates_stay_within_their_limit";
        for (tenant, rates) in self.tenants.iter().filter_map(|tenant| Some((tenant, tenant.rates.as_ref()?))) {
            let mut counted: BTreeMap<HostId, u32> = BTreeMap::new();
            for (_, frame) in self.frames.iter().filter(|(_, frame)| frame.job.tenant == tenant.id) {
                *counted.entry(frame.host).or_default() += 1;
            }
            let known = rates.parts.iter().filter(|(_, part)| part.frames > 0).map(|(host, part)| (*host, part.frames));
            ensure(known.eq(counted), name, || format!("tenant {}: {rates:?}", tenant.name))?;
            let is_attached = |host: &HostId| self.hosts[host.0 as usize].is_attached();
            let sum = |attached: bool| {
                let parts = rates.parts.iter().filter(|(host, _)| is_attached(host) == attached);
                parts.map(|(_, part)| part.has()).sum::<u64>()
            };
            let having = rates.parts.values().filter(|part| part.frames > 0).count() as u64;
            let most = rates.limit.saturating_sub(sum(false)) + having * LEAST;
            ensure(sum(true) <= most, name, || format!("tenant {}: {rates:?}", tenant.name))?;
        }
        Ok(())
    }

    /// I16: each host with frames has its part of the limit, or somebody is about to see to that.
    pub(crate) fn rates_follow_frames(&self) -> Checked {
        let can_hear = |host: HostId| self.hosts[host.0 as usize].is_attached();
        for (tenant, rates) in self.tenants.iter().filter_map(|tenant| Some((tenant, tenant.rates.as_ref()?))) {
            let targets = rates.targets(&can_hear, self.known_hosts.are_awaited());
            let whole = targets.iter().all(|(host, target)| rates.parts.get(host).map(Part::has) == Some(*target));
            let soon = rates.due.is_some_and(|due| due <= self.now.after(DIVIDE_EVERY));
            ensure(whole || soon, "rates_follow_frames", || format!("tenant {}: {rates:?}, {targets:?}", tenant.name))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
