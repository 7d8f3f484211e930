//! Placement, the thinking half: which tasks go where next, from a read-only view of the state.
//!
//! Between tenants the order of [`crate::share`] decides, within a tenant that of [`crate::tenant::Runnable`]. Among hosts it
//! is where the bytes are against how busy the host is, beside what [`crate::claims`] keeps there.

use std::collections::{BTreeMap, BTreeSet};

use partita_policy::TenantPolicy;
use partita_types::{
    AttemptId, Features, HostId, Isolation, JobId, LabelName, LabelValue, MilliCpu, ResourceName, TenantId,
};

use crate::Core;
use crate::array::Array;
use crate::claims::Need;
use crate::history::Lot;
use crate::host::Host;
use crate::job::Job;
use crate::overcommit::Places;
use crate::planted::Bug;
use crate::share::{Amount, Standing, Withheld};
use crate::task::Place;
use crate::tenant::Tenant;

/// Arrays of one tenant looked at for one frame. Only those that fit on no host just now are passed over.
pub(crate) const ARRAYS_LOOKED_AT: usize = 256;
/// Ready tasks looked at for one that finds its inputs at a host with room.
const STARTS_LOOKED_AT: usize = 32;
/// Most inputs in one frame, so that it fits into a message.
const FRAME_INPUTS_MAX: u64 = 65_536;
/// Bytes that move in a microsecond, for weighing a transfer against a wait.
pub(crate) const BYTES_PER_MICRO: u64 = 500;

/// A frame to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) job: JobId,
    pub(crate) array: u32,
    pub(crate) host: HostId,
    /// Ready tasks, ascending.
    pub(crate) indexes: Vec<u32>,
    pub(crate) memory: u64,
    pub(crate) long: bool,
    /// Of a frame of copies for each task the attempt whose outputs it gets; else empty.
    pub(crate) reuse: Vec<AttemptId>,
    /// Whether its only task runs already, and gets a second attempt.
    pub(crate) speculative: bool,
}

/// What comes next of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) plan: Option<Plan>,
    /// An array that goes before what was planned, by job and position, and finds no host with enough memory.
    pub(crate) blocked: Option<((u32, u32), Need)>,
    /// Whether it is held by what others keep for themselves, which changes with each frame.
    pub(crate) withheld: bool,
}

/// Why ready tasks are not handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hold {
    NoPolicy,
    ConcurrentTasks {
        limit: u32,
    },
    Cpu {
        limit: MilliCpu,
    },
    ConcurrentMemory {
        needed: u64,
        used: u64,
        limit: u64,
    },
    Stored {
        used: u64,
        limit: u64,
    },
    NoHost,
    TooWeak {
        wanted: Isolation,
    },
    TooLarge {
        needed: u64,
        largest: u64,
    },
    /// All suited hosts are full; if `lacks_room`, not of frames, but of memory or resources.
    Busy {
        hosts: u32,
        slots: u32,
        own: u32,
        lacks_room: bool,
        reclaimed: u32,
    },
    /// No host has these labels.
    Unlabelled {
        labels: String,
    },
    /// No host with the right labels has so much of a resource.
    TooScarce {
        resource: ResourceName,
        needed: u64,
        largest: u64,
    },
    Share(Withheld),
    /// The hosts with room have enough bytes alive, and a task would add to them.
    LiveBytes {
        adds: u64,
        live: u64,
        target: u64,
    },
    /// Every host that would do is being emptied.
    Draining,
}

impl Hold {
    /// Whether the tenant's other arrays are held by the same.
    pub(crate) fn holds_tenant(&self) -> bool {
        match self {
            Self::NoPolicy | Self::ConcurrentTasks { .. } | Self::Cpu { .. } | Self::Stored { .. } | Self::Share(_) => {
                true
            }
            // Passing over the array whose turn it is would starve it. One that can never fit must not hold up the rest.
            Self::ConcurrentMemory { needed, limit, .. } => needed <= limit,
            Self::NoHost
            | Self::TooWeak { .. }
            | Self::TooLarge { .. }
            | Self::Unlabelled { .. }
            | Self::TooScarce { .. }
            | Self::LiveBytes { .. }
            | Self::Draining
            | Self::Busy { .. } => false,
        }
    }
}

impl Core {
    /// The tenant whose turn it is, among those with something to run that are not in `passed` and may have such places.
    pub(crate) fn next_tenant(
        &self,
        capacity: Amount,
        passed: &BTreeSet<TenantId>,
        places: Places,
    ) -> Option<TenantId> {
        let candidates =
            self.tenants.iter().filter(|tenant| !tenant.runnable.is_empty() && !passed.contains(&tenant.id));
        let candidates = candidates.filter(|tenant| self.may_have(places, tenant));
        let weight = |tenant: &Tenant| tenant.policy.as_ref().map_or(1, |policy| policy.quota.weight);
        let lightest = || self.tenants.iter().min_by_key(|tenant| weight(tenant)).map(|tenant| tenant.id);
        let starves = if self.has(Bug::LightestTenantStarves) { lightest() } else { None };
        let order = |tenant: &&Tenant| (starves == Some(tenant.id), tenant.rank(capacity, self.handed_out));
        candidates.min_by_key(order).map(|tenant| tenant.id)
    }

    /// The place of a tenant in that order, from 1, and how many tenants have something to run.
    pub(crate) fn place_in_order(&self, tenant: &Tenant) -> (usize, usize) {
        let capacity = self.capacity();
        let waiting = || self.tenants.iter().filter(|other| !other.runnable.is_empty());
        let rank = |tenant: &Tenant| (tenant.rank(capacity, self.handed_out), tenant.id);
        let before = waiting().filter(|other| rank(other) < rank(tenant)).count();
        (before + 1, waiting().count())
    }

    /// Whether any host could take a frame of anything.
    pub(crate) fn has_room(&self, places: Places) -> bool {
        let has_room = |host: &Host| match places {
            Places::Usual => host.free_slots(false) > 0 || host.free_slots(true) > 0,
            Places::Beyond(_) => host.is_held() && (host.free_beyond(false) > 0 || host.free_beyond(true) > 0),
        };
        self.hosts.iter().any(|host| host.takes_part() && has_room(host))
    }

    /// The next frame of a tenant, if there is room for any in such places.
    pub(crate) fn plan_frame(&self, tenant: TenantId, places: Places) -> Planned {
        let mut planned = Planned { plan: None, blocked: None, withheld: false };
        let Some(tenant) = self.tenants.get(tenant.0 as usize) else { return planned };
        let standing = self.standing(tenant);
        let mut enough = false;
        for runnable in tenant.runnable.iter().take(ARRAYS_LOOKED_AT) {
            self.effort.note(1);
            let Some(job) = tenant.job(runnable.job) else { break };
            let array = job.array(runnable.array);
            if array.memoises()
                && let Some(plan) = self.plan_reuse(tenant, job, runnable.array, &standing, places)
            {
                planned.plan = Some(plan);
                return planned;
            }
            for lot in array.lots() {
                match self.candidates(tenant, array, runnable.key(), lot.memory, &standing, places) {
                    // What goes first waits for bytes to be given up; what adds some would let it wait for ever.
                    Ok(_) if enough && self.adds_bytes(tenant, array, runnable.key()) => planned.withheld = true,
                    Ok(hosts) => {
                        planned.plan = Some(self.choose(tenant, job, runnable.array, lot, &hosts));
                        return planned;
                    }
                    Err(hold) if hold.holds_tenant() => {
                        planned.withheld |= matches!(hold, Hold::Share(Withheld::Kept(_)));
                        return planned;
                    }
                    // Room is kept for nothing behind it: that would take its own from it, and so on in turn.
                    Err(Hold::LiveBytes { .. }) => enough = true,
                    Err(Hold::Busy { lacks_room: true, .. }) if planned.blocked.is_none() && !enough => {
                        planned.blocked = Some((runnable.key(), Need::of(tenant, array, lot.memory)));
                    }
                    Err(_) => {}
                }
            }
        }
        planned
    }

    /// The hosts that could take a frame of an array now, which is given by its job and position, too, or why none can.
    pub(crate) fn candidates(
        &self,
        tenant: &Tenant,
        array: &Array,
        position: (u32, u32),
        needed: u64,
        standing: &Standing,
        places: Places,
    ) -> Result<Vec<HostId>, Hold> {
        self.effort.note(1 + self.hosts.len());
        let policy = tenant.policy.as_ref().ok_or(Hold::NoPolicy)?;
        let need = Need::of(tenant, array, needed);
        check_quota(tenant, policy, needed)?;
        self.check_share(tenant, standing, need.amount()).map_err(Hold::Share)?;
        let attached = || self.hosts.iter().filter(|host| host.takes_part());
        let strong = || attached().filter(|host| host.isolation >= policy.minimum_isolation);
        // What is guaranteed is not to wait at a host behind what somebody borrows.
        let strict = standing.others_borrow && tenant.entitlement.covers(tenant.used().plus(need.amount()));
        let free = |host: &&Host| self.has_room_for(host, &need, (tenant.id, position), strict, places);
        let hosts: Vec<HostId> = strong().filter(free).map(|host| host.id).collect();
        if !hosts.is_empty() {
            return self.within_budget(tenant, array, position, hosts);
        }
        let features = need.features.as_deref();
        self.fitting_host(policy, features, needed)?;
        let suited = || strong().filter(|host| features.is_none_or(|features| host.suits(features)));
        let hosts = u32::try_from(suited().count()).unwrap_or(u32::MAX);
        if hosts == 0 {
            return Err(Hold::Draining);
        }
        let slots = suited().map(Host::slots).fold(0, u32::saturating_add);
        let lacks_room = suited().any(|host| self.free_places(host, need.long, tenant.id, places) > 0);
        let reclaimed = self.reclaimed_for(tenant.id);
        Err(Hold::Busy { hosts, slots, own: tenant.usage.frames, lacks_room, reclaimed })
    }

    /// Whether any attached host could run tasks that need so much memory and have these wishes, busy or not.
    pub(crate) fn fitting_host(
        &self,
        policy: &TenantPolicy,
        needs: Option<&Features>,
        needed: u64,
    ) -> Result<(), Hold> {
        let attached = || self.hosts.iter().filter(|host| host.is_attached());
        if attached().next().is_none() {
            return Err(Hold::NoHost);
        }
        let strong: Vec<&Host> = attached().filter(|host| host.isolation >= policy.minimum_isolation).collect();
        if strong.is_empty() {
            return Err(Hold::TooWeak { wanted: policy.minimum_isolation });
        }
        if let Some(hold) = needs.and_then(|needs| misses(&strong, needs)) {
            return Err(hold);
        }
        let suited = strong.iter().filter(|host| needs.is_none_or(|needs| host.suits(needs)));
        let largest = suited.map(|host| host.capacity.memory.0).max().unwrap_or(0);
        if largest < needed { Err(Hold::TooLarge { needed, largest }) } else { Ok(()) }
    }

    /// Chooses tasks of a lot, and a host. `hosts` is not empty.
    fn choose(&self, tenant: &Tenant, job: &Job, array: u32, lot: Lot, hosts: &[HostId]) -> Plan {
        let owner = job.array(array);
        let unhurt = self.without_crashes(owner, lot, hosts);
        let hosts = if unhurt.is_empty() { hosts } else { &unhurt };
        let run_time = tenant.run_times.get(owner.kind.learned);
        let free = hosts.iter().map(|id| self.hosts[id.0 as usize].free_slots(run_time.is_long()));
        let free = free.fold(0, u32::saturating_add);
        let cores = self.hosts.iter().filter(|host| host.takes_part()).map(|host| host.capacity.cores);
        let cores = cores.fold(0, u32::saturating_add);
        let fair = owner.ready.len().div_ceil(free.max(cores).max(1));
        let most = run_time.frame_tasks().min(fair).max(1);
        let load = |id: HostId| {
            let host = &self.hosts[id.0 as usize];
            let frames = host.frames.len() as u64;
            frames.saturating_mul(run_time.frame_micros()) / u64::from(host.capacity.cores.max(1))
        };
        let common = job.common_bytes(array);
        let has_own = owner.inputs.iter().any(|input| input.is_per_task());
        let (start, host) = if lot.alone {
            let mut bytes = job.own_bytes(array, lot.start);
            common.iter().for_each(|(host, more)| *bytes.entry(*host).or_default() += more);
            (lot.start, cheapest(hosts, &bytes, load))
        } else if has_own {
            self.choose_start(job, array, most, hosts, &common, load).unwrap_or((lot.start, hosts[0]))
        } else {
            (lot.start, cheapest(hosts, &common, load))
        };
        Plan {
            job: job.id,
            array,
            host,
            indexes: if lot.alone { vec![start] } else { self.take_from(job, array, start, most, has_own) },
            memory: lot.memory,
            long: run_time.is_long(),
            reuse: Vec::new(),
            speculative: false,
        }
    }

    /// Among the first ready tasks one whose inputs are at a host with room; else the first at the cheapest host.
    fn choose_start(
        &self,
        job: &Job,
        array: u32,
        step: u32,
        hosts: &[HostId],
        common: &BTreeMap<HostId, u64>,
        load: impl Fn(HostId) -> u64,
    ) -> Option<(u32, HostId)> {
        let ranges = job.array(array).ready.ranges();
        let starts = ranges.flat_map(|(start, end)| (start..end).step_by(step as usize)).take(STARTS_LOOKED_AT);
        let mut first = None;
        for start in starts.filter(|start| !job.array(array).has_history(*start)) {
            let mut bytes = job.own_bytes(array, start);
            let home = largest(&bytes);
            for (host, more) in common {
                let sum = bytes.entry(*host).or_default();
                *sum = sum.saturating_add(*more);
            }
            let host = cheapest(hosts, &bytes, &load);
            if home.is_none_or(|home| home == host) {
                return Some((start, host));
            }
            first = first.or(Some((start, host)));
        }
        first
    }

    /// The hosts at which the only task of a lot has not killed an executor yet: the fault may be with the others.
    fn without_crashes(&self, array: &Array, lot: Lot, hosts: &[HostId]) -> Vec<HostId> {
        let crashed = if lot.alone { array.crashed_at(lot.start) } else { &[] };
        if crashed.is_empty() {
            return Vec::new();
        }
        hosts.iter().copied().filter(|id| !crashed.contains(&self.hosts[id.0 as usize].name)).collect()
    }

    /// Up to `most` ready tasks from `start` on that find their own inputs at the same host.
    fn take_from(&self, job: &Job, array: u32, start: u32, most: u32, has_own: bool) -> Vec<u32> {
        let mut inputs = 0_u64;
        job.each_read(array, start, &mut |_| inputs += 1);
        let fit = FRAME_INPUTS_MAX / inputs.max(1);
        let most = u64::from(most).min(fit).max(1);
        let home = |index: u32| if has_own { largest(&job.own_bytes(array, index)) } else { None };
        let first = home(start);
        let positions = job.array(array).ready.positions_from(start);
        let most = usize::try_from(most).unwrap_or(1);
        let joins = |index: &u32| *index == start || (home(*index) == first && !job.array(array).has_history(*index));
        positions.take(most).take_while(joins).collect()
    }
}

impl Job {
    /// How many bytes of what every task of an array reads each host has.
    pub(crate) fn common_bytes(&self, array: u32) -> BTreeMap<HostId, u64> {
        let mut bytes: BTreeMap<HostId, u64> = BTreeMap::new();
        let tasks = u64::from(self.array(array).len().max(1));
        for input in &self.array(array).inputs {
            let Some(source) = input.gate() else { continue };
            // Of a shuffle a task reads its slice only; of `all`, one of the outputs.
            let parts = match input {
                crate::array::Input::Slice { .. } => tasks,
                _ => u64::from(self.array(source).kind.outputs.max(1)),
            };
            for (host, there) in self.array(source).located() {
                let sum = bytes.entry(*host).or_default();
                *sum = sum.saturating_add(there / parts);
            }
        }
        bytes
    }

    /// How many bytes of what one task reads for itself each host has.
    pub(crate) fn own_bytes(&self, array: u32, index: u32) -> BTreeMap<HostId, u64> {
        let mut bytes: BTreeMap<HostId, u64> = BTreeMap::new();
        self.each_own_read(array, index, &mut |read| {
            if let Place::At(host) = self.task(read.array, read.index).place() {
                let info = self.array(read.array).outputs_of(read.index).get(read.output as usize);
                let sum = bytes.entry(host).or_default();
                *sum = sum.saturating_add(info.map_or(0, |info| info.size.0));
            }
        });
        bytes
    }
}

/// The host with most of the bytes.
fn largest(bytes: &BTreeMap<HostId, u64>) -> Option<HostId> {
    bytes.iter().max_by_key(|(host, bytes)| (**bytes, std::cmp::Reverse(**host))).map(|(host, _)| *host)
}

/// The host where a frame starts soonest, counting the time that missing bytes take to come.
pub(crate) fn cheapest(hosts: &[HostId], bytes: &BTreeMap<HostId, u64>, load: impl Fn(HostId) -> u64) -> HostId {
    let total = bytes.values().copied().fold(0, u64::saturating_add);
    let cost = |host: HostId| {
        let missing = total.saturating_sub(bytes.get(&host).copied().unwrap_or(0));
        load(host).saturating_add(missing / BYTES_PER_MICRO)
    };
    hosts.iter().copied().min_by_key(|host| (cost(*host), *host)).unwrap_or(HostId(0))
}

/// What hosts lack of what tasks ask for, if none of them has all of it.
fn misses(hosts: &[&Host], needs: &Features) -> Option<Hold> {
    if hosts.iter().any(|host| host.suits(needs)) {
        return None;
    }
    let has = |host: &Host, (name, value): (&LabelName, &LabelValue)| host.features.labels.get(name) == Some(value);
    let labelled: Vec<&Host> =
        hosts.iter().copied().filter(|host| needs.labels.iter().all(|label| has(host, label))).collect();
    if labelled.is_empty() {
        // One that no host has tells more than all together.
        let nowhere = needs.labels.iter().find(|label| !hosts.iter().any(|host| has(host, *label)));
        let show = |(name, value): (&LabelName, &LabelValue)| format!("{name}={value}");
        let all = || needs.labels.iter().map(show).collect::<Vec<_>>().join(" and ");
        return Some(Hold::Unlabelled { labels: nowhere.map_or_else(all, show) });
    }
    let largest = |name: &ResourceName| labelled.iter().map(|host| host.resource(name)).max().unwrap_or(0);
    let scarce = needs.resources.iter().find(|(name, amount)| largest(name) < **amount);
    // If each is somewhere, but not all at one host, the first stands for them.
    let (resource, needed) = scarce.or_else(|| needs.resources.iter().next())?;
    Some(Hold::TooScarce { resource: resource.clone(), needed: *needed, largest: largest(resource) })
}

/// Whether a frame with this much memory is within the tenant's quota.
fn check_quota(tenant: &Tenant, policy: &TenantPolicy, needed: u64) -> Result<(), Hold> {
    let (quota, usage) = (&policy.quota, &tenant.usage);
    if usage.frames >= quota.frames() {
        let by_tasks = quota.frames() == quota.concurrent_tasks;
        let limit = quota.concurrent_tasks;
        return Err(if by_tasks { Hold::ConcurrentTasks { limit } } else { Hold::Cpu { limit: quota.cpu } });
    }
    if usage.stored >= quota.stored.0 {
        return Err(Hold::Stored { used: usage.stored, limit: quota.stored.0 });
    }
    let limit = quota.concurrent_memory.0;
    if usage.memory.saturating_add(needed) > limit {
        return Err(Hold::ConcurrentMemory { needed, used: usage.memory, limit });
    }
    Ok(())
}
