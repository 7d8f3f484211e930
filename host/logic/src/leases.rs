//! Core leases: which of the frames that have started may use a core now, and which are paused.
//!
//! A host has as many leases as it offers cores. A frame starts with a lease. Between tenants leases go round by weighted
//! virtual time, which is CPU time by the kernel's clock divided by the weight: start-time fair queueing (Goyal, Vin, Cheng,
//! SIGCOMM 1996) on several servers at once (SFQ(D): Jin, Chase, Kaur, SIGMETRICS 2004). A lease is held for a slice at
//! least. After that a tenant that is further behind takes it, and the frame that had it is paused until it is its
//! tenant's turn again. Within a tenant nothing is sliced: its frames go on in the order in which they were sent.
//!
//! Nobody is looked at, and no clock is read, while a single tenant without a limit is here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use partita_types::{CpuTime, HostTenant, MilliCpu, TenantId, Timestamp};

use crate::WorkId;
use crate::bucket::Bucket;

/// How long a frame keeps its lease at least.
pub const SLICE: Duration = Duration::from_micros(SLICE_MICROS);
pub(crate) const SLICE_MICROS: u64 = 5_000;
/// By how much the kernel's clock of a process that runs may be late: two ticks at 250 Hz, and a little.
const CLOCK_LAG: u64 = 10_000;
/// Clocks are read once in so many microseconds at most.
const CHARGE_EVERY: u64 = 1_000;
/// So many slices at most a tenant makes up for that waited for something else than its share: for memory, or behind what is
/// guaranteed to others.
const LAG_SLICES: u64 = 20;
/// Shortest time between two looks that nothing else causes.
const LOOK_MIN: u64 = 1_000;
/// Virtual time is CPU time times this, divided by the weight, so that large weights still make a difference.
const VIRTUAL_SCALE: u64 = 1024;
/// Frames that have started at once, paused ones included, for each lease. Each costs a thread and a process.
const STARTED_PER_LEASE: usize = 8;
/// And all together, unless the host has more leases: the zygote keeps a thousand processes, and idle ones count, too.
const STARTED_MAX: usize = 512;

/// What a tenant gets at a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Its share in relation to those of others.
    pub weight: u32,
    /// The most CPU time per time that it gets.
    pub limit: Option<MilliCpu>,
    /// Cores that are not taken from it for the sake of others' shares.
    pub guaranteed: MilliCpu,
}

impl From<&HostTenant> for Terms {
    fn from(tenant: &HostTenant) -> Self {
        Self { weight: tenant.weight, limit: tenant.cpu, guaranteed: tenant.guaranteed }
    }
}

/// What is to be done with executors.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Stop their executors.
    pub pause: Vec<WorkId>,
    /// Let their executors go on.
    pub resume: Vec<WorkId>,
    /// When to ask again, if nothing happens before.
    pub next: Option<Timestamp>,
}

/// Whether a tenant's next frame can start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// If it gets a lease.
    Ready,
    /// Not before memory is free; until then nothing that comes after it may take that.
    Blocked,
    /// There is none, or it has to wait.
    No,
}

/// What a tenant would do with a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Go on with this frame.
    Resume(WorkId),
    /// Start its next frame.
    Start,
}

#[derive(Debug)]
struct Started {
    tenant: TenantId,
    /// Since when it holds a lease; paused, if not.
    lease: Option<Timestamp>,
    /// What its tenant was charged for it.
    charged: u64,
    /// The same, when it got the lease.
    charged_before: u64,
    /// It was paused since its clock was read last.
    unsettled: bool,
}

impl Started {
    /// What it has probably used that the kernel's clock does not show yet.
    fn pending(&self, now: Timestamp) -> u64 {
        let Some(since) = self.lease else { return 0 };
        let passed = micros(now.since(since));
        passed.saturating_sub(self.charged - self.charged_before).min(CLOCK_LAG)
    }
}

#[derive(Debug)]
struct Account {
    weight: u64,
    guaranteed: u64,
    /// Virtual time used.
    used: u64,
    limit: Option<Bucket>,
    holding: BTreeSet<WorkId>,
    paused: BTreeSet<WorkId>,
    /// Frames that are ready to start.
    waiting: usize,
    /// It had all that it wanted, or its limit held it up: what it did not use meanwhile is not made up for.
    returns: bool,
}

impl Account {
    fn new() -> Self {
        Self {
            weight: 1,
            guaranteed: 0,
            used: 0,
            limit: None,
            holding: BTreeSet::new(),
            paused: BTreeSet::new(),
            waiting: 0,
            returns: false,
        }
    }

    fn virtual_time(&self, cpu: u64) -> u64 {
        cpu.saturating_mul(VIRTUAL_SCALE) / self.weight
    }

    fn charge(&mut self, cpu: u64) {
        self.used = self.used.saturating_add(self.virtual_time(cpu));
        if let Some(bucket) = &mut self.limit {
            bucket.charge(cpu);
        }
    }

    fn is_active(&self) -> bool {
        self.waiting > 0 || !self.holding.is_empty() || !self.paused.is_empty()
    }

    /// Whether so many cores are no more than it is guaranteed.
    fn is_guaranteed(&self, cores: usize) -> bool {
        cores as u64 * 1_000 <= self.guaranteed
    }

    fn is_held_up(&self) -> bool {
        self.limit.as_ref().is_some_and(Bucket::is_dry)
    }
}

/// The leases of a host.
#[derive(Debug)]
pub(crate) struct Leases {
    total: usize,
    held: usize,
    started: BTreeMap<WorkId, Started>,
    accounts: BTreeMap<TenantId, Account>,
    /// Tenants that have something to run.
    active: BTreeSet<TenantId>,
    /// Virtual time of the host: the latest at which a slice began.
    clock: u64,
    charged_at: Timestamp,
}

impl Leases {
    pub(crate) fn new(total: usize) -> Self {
        Self {
            total: total.max(1),
            held: 0,
            started: BTreeMap::new(),
            accounts: BTreeMap::new(),
            active: BTreeSet::new(),
            clock: 0,
            charged_at: Timestamp::default(),
        }
    }

    /// Most frames that have started at once, paused ones included.
    pub(crate) fn places(&self) -> usize {
        (self.total * STARTED_PER_LEASE).min(STARTED_MAX).max(self.total)
    }

    pub(crate) fn started(&self) -> usize {
        self.started.len()
    }

    pub(crate) fn paused(&self) -> usize {
        self.started.len() - self.held
    }

    pub(crate) fn free(&self) -> usize {
        self.total - self.held
    }

    pub(crate) fn is_paused(&self, work: WorkId) -> bool {
        self.started.get(&work).is_some_and(|started| started.lease.is_none())
    }

    /// Whether some tenant has a frame that is ready to start.
    pub(crate) fn anybody_waits(&self) -> bool {
        self.active.iter().any(|tenant| self.accounts[tenant].waiting > 0)
    }

    fn account(&mut self, tenant: TenantId) -> &mut Account {
        self.accounts.entry(tenant).or_insert_with(Account::new)
    }

    /// Sets what a tenant gets. Clocks are to be read before, so that nothing from before counts towards the limit.
    pub(crate) fn set_tenant(&mut self, tenant: TenantId, terms: Terms) {
        // Nothing can use more than all leases.
        let binding = terms.limit.filter(|limit| limit.0 < self.total as u64 * 1_000);
        let account = self.account(tenant);
        account.weight = u64::from(terms.weight.max(1));
        account.guaranteed = terms.guaranteed.0;
        match (binding, &mut account.limit) {
            (Some(limit), Some(bucket)) if bucket.limit() != limit => bucket.set_limit(limit),
            (Some(_), Some(_)) => {}
            (Some(limit), none @ None) => *none = Some(Bucket::new(limit)),
            (None, bucket) => account.returns |= bucket.take().is_some_and(|bucket| bucket.is_dry()),
        }
    }

    /// Says how many frames of a tenant are ready to start.
    pub(crate) fn set_waiting(&mut self, tenant: TenantId, waiting: usize) {
        let account = self.account(tenant);
        account.returns |= account.waiting == 0 && waiting > 0 && account.paused.is_empty();
        account.waiting = waiting;
        self.note_activity(tenant);
    }

    fn note_activity(&mut self, tenant: TenantId) {
        if self.accounts.get(&tenant).is_some_and(Account::is_active) {
            self.active.insert(tenant);
        } else {
            self.active.remove(&tenant);
        }
    }

    /// Puts tenants that wanted no more than they had to the present. Slices under way began then at the latest, so these
    /// tenants are the next ones.
    pub(crate) fn welcome_back(&mut self) {
        for tenant in &self.active {
            let Some(account) = self.accounts.get_mut(tenant) else { continue };
            if std::mem::take(&mut account.returns) {
                account.used = account.used.max(self.clock);
            }
        }
    }

    /// A frame starts, with a lease.
    pub(crate) fn start(&mut self, work: WorkId, tenant: TenantId, now: Timestamp) {
        let started = Started { tenant, lease: None, charged: 0, charged_before: 0, unsettled: false };
        self.started.insert(work, started);
        self.account(tenant);
        self.grant(work, now);
        self.note_activity(tenant);
    }

    /// A frame ends, or gives up its executor. It used `cpu` all together.
    pub(crate) fn end(&mut self, work: WorkId, cpu: CpuTime) {
        let Some(started) = self.started.get_mut(&work) else { return };
        let (tenant, more) = (started.tenant, cpu.micros.saturating_sub(started.charged));
        started.charged += more;
        self.account(tenant).charge(more);
        self.advance(tenant);
        let account = self.account(tenant);
        account.holding.remove(&work);
        account.paused.remove(&work);
        self.held -= usize::from(self.started.remove(&work).is_some_and(|started| started.lease.is_some()));
        self.note_activity(tenant);
    }

    /// Moves the host's virtual time on to where the slices of a tenant that are under way began.
    fn advance(&mut self, tenant: TenantId) {
        let Some(account) = self.accounts.get(&tenant).filter(|account| !account.holding.is_empty()) else { return };
        let works = account.holding.iter().filter_map(|work| self.started.get(work));
        let under_way: u64 = works.map(|work| (work.charged - work.charged_before).min(SLICE_MICROS)).sum();
        self.clock = self.clock.max(account.used.saturating_sub(account.virtual_time(under_way)));
    }

    fn grant(&mut self, work: WorkId, now: Timestamp) {
        let Some(started) = self.started.get_mut(&work) else { return };
        started.charged_before = started.charged;
        self.held += usize::from(started.lease.replace(now).is_none());
        if let Some(account) = self.accounts.get_mut(&started.tenant) {
            account.paused.remove(&work);
            account.holding.insert(work);
            let lag = account.virtual_time(LAG_SLICES * SLICE_MICROS);
            account.used = account.used.max(self.clock.saturating_sub(lag));
        }
    }

    fn pause(&mut self, work: WorkId) {
        let Some(started) = self.started.get_mut(&work) else { return };
        started.unsettled = true;
        self.held -= usize::from(started.lease.take().is_some());
        if let Some(account) = self.accounts.get_mut(&started.tenant) {
            account.holding.remove(&work);
            account.paused.insert(work);
        }
    }

    /// Charges tenants what the clocks of their executors show.
    pub(crate) fn charge(&mut self, now: Timestamp, cpu: &mut dyn FnMut(WorkId) -> Option<CpuTime>) {
        if self.charged_at != Timestamp::default() && micros(now.since(self.charged_at)) < CHARGE_EVERY {
            return;
        }
        self.charged_at = now;
        for (work, started) in &mut self.started {
            if started.lease.is_none() && !started.unsettled {
                continue;
            }
            started.unsettled = false;
            let Some(cpu) = cpu(*work) else { continue };
            let more = cpu.micros.saturating_sub(started.charged);
            started.charged += more;
            if let Some(account) = self.accounts.get_mut(&started.tenant) {
                account.charge(more);
            }
        }
        let holders: Vec<TenantId> = self.active.iter().copied().collect();
        holders.into_iter().for_each(|tenant| self.advance(tenant));
    }

    /// Decides who runs. `cpu` is the CPU time of a frame's executor since it took the frame.
    pub(crate) fn arbitrate(
        &mut self,
        now: Timestamp,
        cpu: &mut dyn FnMut(WorkId) -> Option<CpuTime>,
        startable: &dyn Fn(TenantId) -> Start,
    ) -> Verdict {
        let mut verdict = Verdict::default();
        if self.is_simple() {
            self.welcome_back();
            return verdict;
        }
        self.charge(now, cpu);
        self.ration(now, &mut verdict);
        self.welcome_back();
        while let Some((tenant, turn)) = self.next_turn(now, startable) {
            if self.free() == 0 {
                let Some(victim) = self.victim(now, tenant) else { break };
                self.pause(victim);
                verdict.pause.push(victim);
            }
            match turn {
                Turn::Resume(work) => {
                    self.grant(work, now);
                    verdict.resume.push(work);
                }
                // A lane comes for it.
                Turn::Start => break,
            }
        }
        verdict.next = self.next_look(now, startable);
        verdict
    }

    /// Whether there is nothing to decide: nobody competes, and nobody is limited.
    fn is_simple(&self) -> bool {
        let unlimited = |tenant: &TenantId| {
            self.accounts.get(tenant).is_none_or(|account| account.limit.is_none() && account.paused.is_empty())
        };
        self.active.len() <= 1 && self.active.iter().all(unlimited)
    }

    /// Pauses the frames of tenants that have used up their limits.
    fn ration(&mut self, now: Timestamp, verdict: &mut Verdict) {
        let mut dry = Vec::new();
        for tenant in &self.active {
            let pending = self.pending(*tenant, now);
            let Some(account) = self.accounts.get_mut(tenant) else { continue };
            let Some(bucket) = &mut account.limit else { continue };
            let was_dry = bucket.is_dry();
            if bucket.fill(now, pending) {
                account.returns |= was_dry;
            } else {
                dry.extend(account.holding.iter().copied());
            }
        }
        for work in dry {
            self.pause(work);
            verdict.pause.push(work);
        }
    }

    fn pending(&self, tenant: TenantId, now: Timestamp) -> u64 {
        let Some(account) = self.accounts.get(&tenant) else { return 0 };
        account.holding.iter().filter_map(|work| self.started.get(work)).map(|started| started.pending(now)).sum()
    }

    /// The virtual time at which a slice of the tenant would begin that follows those under way.
    fn next_slice(&self, tenant: TenantId, now: Timestamp) -> u64 {
        let Some(account) = self.accounts.get(&tenant) else { return u64::MAX };
        let under_way = SLICE_MICROS * account.holding.len() as u64;
        let pending = self.pending(tenant, now);
        account.used.saturating_add(account.virtual_time(under_way.saturating_add(pending)))
    }

    /// The same, had the tenant one lease less.
    fn last_slice(&self, tenant: TenantId, now: Timestamp) -> u64 {
        let slice = self.accounts.get(&tenant).map_or(0, |account| account.virtual_time(SLICE_MICROS));
        self.next_slice(tenant, now).saturating_sub(slice)
    }

    /// Whether one more lease would still be within what a tenant is guaranteed.
    fn lacks(&self, tenant: TenantId) -> bool {
        self.accounts.get(&tenant).is_some_and(|account| account.is_guaranteed(account.holding.len() + 1))
    }

    /// Whose turn the next lease is, and for what: first of those who have less than they are guaranteed, then of the tenant
    /// that is furthest behind. Frames that are paused go before those that have not started.
    pub(crate) fn next_turn(&self, now: Timestamp, startable: &dyn Fn(TenantId) -> Start) -> Option<(TenantId, Turn)> {
        let eligible = |tenant: &&TenantId| self.accounts.get(tenant).is_some_and(|account| !account.is_held_up());
        let rank = |tenant: &TenantId| (!self.lacks(*tenant), self.next_slice(*tenant, now), *tenant);
        let mut order: Vec<(bool, u64, TenantId)> = self.active.iter().filter(eligible).map(rank).collect();
        order.sort_unstable();
        let mut blocked = false;
        for (_, _, tenant) in order {
            let account = self.accounts.get(&tenant)?;
            if let Some(work) = account.paused.first() {
                return Some((tenant, Turn::Resume(*work)));
            }
            match if self.has_place(account) { startable(tenant) } else { Start::No } {
                Start::Ready if !blocked => return Some((tenant, Turn::Start)),
                // Nothing overtakes it: a large frame would otherwise wait for ever behind small ones.
                Start::Blocked => blocked = true,
                Start::Ready | Start::No => {}
            }
        }
        None
    }

    /// Whether a tenant may have one more frame started. Half of the places are for tenants that have none.
    fn has_place(&self, account: &Account) -> bool {
        let has_none = account.holding.is_empty() && account.paused.is_empty();
        let places = if has_none { self.places() } else { (self.places() / 2).max(self.total) };
        self.started.len() < places
    }

    /// The frame that has to give its lease to a tenant: of the tenant that is furthest ahead, the last one whose slice
    /// is over. Nobody loses what it is guaranteed, and who has less than that takes it from whoever has more.
    fn victim(&self, now: Timestamp, tenant: TenantId) -> Option<WorkId> {
        let (wanted, lacks) = (self.next_slice(tenant, now), self.lacks(tenant));
        let has_more = |other: &TenantId| {
            self.accounts.get(other).is_some_and(|account| !account.is_guaranteed(account.holding.len()))
        };
        let others = self.active.iter().filter(|other| **other != tenant && has_more(other));
        let ahead = others.map(|other| (self.last_slice(*other, now), *other)).filter(|(at, _)| lacks || *at > wanted);
        let is_over = |work: &&WorkId| self.slice_end(**work).is_some_and(|end| end <= now);
        let victim = |(at, other): (u64, TenantId)| {
            let work = self.accounts.get(&other)?.holding.iter().rev().find(is_over)?;
            Some((at, *work))
        };
        ahead.filter_map(victim).max().map(|(_, work)| work)
    }

    fn slice_end(&self, work: WorkId) -> Option<Timestamp> {
        self.started.get(&work)?.lease.map(|since| since.after(SLICE))
    }

    /// Whether a tenant would do something with one more lease.
    fn wants_more(&self, tenant: TenantId, startable: &dyn Fn(TenantId) -> Start) -> bool {
        let wants = |account: &Account| {
            !account.paused.is_empty() || (self.has_place(account) && startable(tenant) == Start::Ready)
        };
        self.accounts.get(&tenant).is_some_and(|account| !account.is_held_up() && wants(account))
    }

    /// When something is to be decided again.
    fn next_look(&self, now: Timestamp, startable: &dyn Fn(TenantId) -> Start) -> Option<Timestamp> {
        let competition = || {
            let mut wanting = self.active.iter().filter(|tenant| self.wants_more(**tenant, startable));
            let one = wanting.next()?;
            let is_alone = wanting.next().is_none();
            let against = self.started.values().filter(|started| !is_alone || started.tenant != *one);
            let over = against.filter_map(|started| Some(micros(started.lease?.after(SLICE).since(now)))).min()?;
            // Of a slice that is over nobody knows when its tenant will be ahead.
            Some(if over == 0 { SLICE_MICROS } else { over })
        };
        let contended = if self.free() == 0 { competition() } else { None };
        let limits = self.active.iter().filter_map(|tenant| {
            let account = self.accounts.get(tenant)?;
            let bucket = account.limit.as_ref()?;
            if bucket.is_dry() {
                return Some(bucket.dry_for());
            }
            let lasts = || bucket.lasts_for(account.holding.len(), self.pending(*tenant, now));
            (!account.holding.is_empty()).then(|| lasts().min(SLICE_MICROS))
        });
        let wait = limits.chain(contended).min()?;
        Some(now.after(Duration::from_micros(wait.max(LOOK_MIN))))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
