//! Reclaiming guarantees: whoever has less than it is guaranteed takes it back from those who have more than they are.
//!
//! This is the rule of Kueue's `reclaimWithinCohort` (<https://kueue.sigs.k8s.io/docs/concepts/preemption/>): with its new frame
//! the tenant is still within its guarantee, and each victim's tenant is above its own before it loses one. So whoever
//! preempts cannot become a victim by that, and no two tenants preempt each other in turn. Victims are those of the tenant's
//! own cohort first, then of the lowest priority, then what was handed out last, so that least work is lost.
//!
//! Long frames are stopped at once. Short ones end by themselves within milliseconds, and are stopped only if they do not
//! within [`PATIENCE`].

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use partita_types::{AttemptId, Cause, Failure, HostId, ResourceName, TaskId, TenantId, Timestamp};

use crate::Core;
use crate::action::{Action, HostCommand};
use crate::claims::{Claim, ClaimFor, Need};
use crate::frame::LiveFrame;
use crate::host::Host;
use crate::overcommit::Places;
use crate::plan::Hold;
use crate::share::{Amount, frame_cpu};
use crate::tenant::Tenant;
use crate::timers::{STOP_GRACE, Timer};

/// Within this a tenant below its guarantee has what it is guaranteed, as far as that is the core's work.
pub(crate) const RECLAIM_BOUND: Duration = Duration::from_millis(100);
/// For how long frames of short tasks are trusted to end by themselves.
const PATIENCE: Duration = Duration::from_millis(50);
/// When to look for victims again if there were none.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Frames reclaimed for one tenant after one event; more follow when these have stopped.
const RECLAIMS_MAX: usize = 64;
/// Arrays of a tenant looked at for one that only lacks room.
const WANTS_LOOKED_AT: usize = 8;
/// What the tenant of a victim is told.
const WHY: &str = "its place was lent, and is needed by a tenant that has it guaranteed";

/// A tenant has less than its guarantee, and nothing could be done yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Starving {
    pub(crate) since: Timestamp,
    look_again: Timestamp,
}

/// A frame that could be stopped, and what makes it a better or worse choice: smaller goes first.
type Candidate = ((bool, i32, Reverse<u64>), u32);

impl Core {
    /// Takes back what is guaranteed to tenants that have work and no room for it.
    pub(crate) fn reclaim_guarantees(&mut self, actions: &mut Vec<Action>) {
        if !self.any_guarantee() {
            return;
        }
        for position in 0..self.tenants.len() {
            let Some(want) = self.starving(&self.tenants[position]) else {
                self.tenants[position].starving = None;
                continue;
            };
            self.reclaim_for(position, want, actions);
        }
    }

    fn reclaim_for(&mut self, position: usize, mut want: Need, actions: &mut Vec<Action>) {
        let now = self.now;
        let fresh = Starving { since: now, look_again: now };
        let starving = *self.tenants[position].starving.get_or_insert(fresh);
        if now < starving.look_again {
            // Something has happened, which may have made victims. A look at all frames after each event is too dear.
            self.timers.set(starving.look_again, Timer::LookAgain);
            return;
        }
        let any = now >= starving.since.after(PATIENCE);
        for _ in 0..RECLAIMS_MAX {
            let Some((host, victims)) = self.choose_victims(&self.tenants[position], &want, any) else {
                let mut look_again = now.after(LOOK_AGAIN);
                if !any {
                    let patience = starving.since.after(PATIENCE);
                    look_again = look_again.min(patience);
                    self.timers.set(patience, Timer::LookAgain);
                }
                self.tenants[position].starving = Some(Starving { look_again, ..starving });
                return;
            };
            self.preempt(TenantId(u32::try_from(position).unwrap_or(u32::MAX)), host, want.clone(), victims, actions);
            match self.starving(&self.tenants[position]) {
                Some(next) => want = next,
                None => break,
            }
        }
        self.tenants[position].starving = None;
    }

    /// What a tenant would run within its guarantee if only there were room, beyond what is being reclaimed for it already.
    fn starving(&self, tenant: &Tenant) -> Option<Need> {
        if !tenant.is_below_guarantee() || tenant.runnable.is_empty() {
            return None;
        }
        let mut under_way = 0;
        let mut claimed = Amount::default();
        for claim in self.claims.iter().filter(|claim| claim.tenant == tenant.id) {
            if matches!(claim.held_for, ClaimFor::Guarantee { .. }) {
                under_way += 1;
                claimed = claimed.plus(claim.need.amount());
            }
        }
        let standing = self.standing(tenant);
        for runnable in tenant.runnable.iter().take(WANTS_LOOKED_AT) {
            let array = tenant.job(runnable.job)?.array(runnable.array);
            let lot = array.lots().next()?;
            let need = Need::of(tenant, array, lot.memory);
            let covered = tenant.entitlement.covers(tenant.used().plus(claimed).plus(need.amount()));
            if !covered || array.ready.len() <= under_way {
                return None;
            }
            match self.candidates(tenant, array, runnable.key(), need.memory, &standing, Places::Usual) {
                Err(Hold::Busy { .. }) => return Some(need),
                Err(hold) if hold.holds_tenant() => return None,
                Ok(_) | Err(_) => {}
            }
        }
        None
    }

    /// The host at which room is had at the least cost, and the slots of the frames to stop there.
    fn choose_victims(&self, tenant: &Tenant, want: &Need, any: bool) -> Option<(HostId, Vec<u32>)> {
        let above: Vec<bool> = self.tenants.iter().map(|other| self.can_give(tenant, other)).collect();
        if !above.contains(&true) {
            return None;
        }
        let hosts = self.hosts.iter().filter(|host| could_run(tenant, want, host));
        let choices = hosts.filter_map(|host| {
            let victims = self.victims_at(tenant, host, want, &above, any)?;
            let worst = victims.iter().map(|(cost, _)| *cost).max()?;
            Some(((worst.0, worst.1, victims.len(), worst.2, host.id), victims))
        });
        let ((.., host), victims) = choices.min_by_key(|(cost, _)| *cost)?;
        Some((host, victims.into_iter().map(|(_, slot)| slot).collect()))
    }

    fn can_give(&self, tenant: &Tenant, other: &Tenant) -> bool {
        other.id != tenant.id && other.is_above_guarantee()
    }

    /// The frames to stop at a host so that a frame fits, the cheapest first; `None` if that cannot be had.
    fn victims_at(
        &self,
        tenant: &Tenant,
        host: &Host,
        need: &Need,
        above: &[bool],
        any: bool,
    ) -> Option<Vec<Candidate>> {
        let mut candidates: Vec<Candidate> = Vec::new();
        // What will be free when everything that was told to stop has stopped, and all claims are met.
        let mut room = Room::at(host, need);
        for slot in &host.frames {
            let Some(frame) = self.frames.get(*slot) else { continue };
            if frame.preempted {
                room.gain(frame);
            } else if above[frame.job.tenant.0 as usize] && frame.open > 0 && (any || frame.long) {
                candidates.push((self.cost_of(tenant, frame), *slot));
            }
        }
        candidates.sort_unstable();
        self.claims.iter().filter(|claim| claim.host == host.id).for_each(|claim| room.lose(claim));
        let mut lost: BTreeMap<TenantId, Amount> = BTreeMap::new();
        let mut chosen = Vec::new();
        for candidate in candidates {
            if room.fits() {
                break;
            }
            let Some(frame) = self.frames.get(candidate.1) else { continue };
            let owner = &self.tenants[frame.job.tenant.0 as usize];
            let gone = lost.entry(owner.id).or_insert_with(|| self.stopping_of(owner.id));
            // Whoever has come down to its guarantee gives nothing more.
            if owner.entitlement.covers(owner.used().beyond(*gone)) {
                continue;
            }
            *gone = gone.plus(frame.amount());
            room.gain(frame);
            chosen.push(candidate);
        }
        (room.fits() && !chosen.is_empty()).then_some(chosen)
    }

    /// What a tenant is about to lose already.
    fn stopping_of(&self, tenant: TenantId) -> Amount {
        let victims = self.claims.iter().filter_map(|claim| match &claim.held_for {
            ClaimFor::Guarantee { victims } => Some(victims),
            ClaimFor::Array { .. } => None,
        });
        let frames = victims.flatten().filter_map(|id| self.frames.get(self.frames.slot_of(*id)?));
        let own = frames.filter(|frame| frame.job.tenant == tenant);
        own.fold(Amount::default(), |sum, frame| sum.plus(frame.amount()))
    }

    fn cost_of(&self, tenant: &Tenant, frame: &LiveFrame) -> (bool, i32, Reverse<u64>) {
        let owner = &self.tenants[frame.job.tenant.0 as usize];
        let stranger = owner.entitlement.cohort != tenant.entitlement.cohort;
        let array = self.find_job(frame.job).and_then(|job| job.find_array(frame.array));
        // A second attempt is the least loss: the first one goes on.
        let array = array.filter(|_| !frame.speculative);
        let priority = array.map_or(i32::MIN, |array| array.kind.options.priority);
        (stranger, priority, Reverse(frame.number()))
    }

    /// Tells a host to stop frames. They keep what they reserved, and their tasks what they are, until it says that they have.
    fn preempt(&mut self, tenant: TenantId, host: HostId, need: Need, slots: Vec<u32>, actions: &mut Vec<Action>) {
        let mut victims = Vec::new();
        let mut attempts = Vec::new();
        for slot in slots {
            self.open_attempts(slot, &mut attempts);
            let Some(frame) = self.frames.get_mut(slot) else { continue };
            frame.preempted = true;
            victims.push(frame.id);
            self.timers.set(self.now.after(STOP_GRACE), Timer::Reap(frame.id));
        }
        self.preempted += victims.len() as u64;
        let held_for = ClaimFor::Guarantee { victims };
        self.claims.push(Claim { tenant, host, need, held_for });
        actions.push(Action::Command { host, command: HostCommand::Cancel(attempts) });
    }

    /// The attempts of a frame that have not ended.
    pub(crate) fn open_attempts(&self, slot: u32, attempts: &mut Vec<AttemptId>) {
        let Some(frame) = self.frames.get(slot) else { return };
        let Some(job) = self.find_job(frame.job) else { return };
        for index in &frame.indexes {
            let number = job.attempt_in(frame.array, *index, slot);
            let task = TaskId { job: frame.job, array: frame.array, index: *index };
            attempts.extend(number.map(|number| AttemptId { task, number }));
        }
    }

    /// Ends a frame that was told to stop long ago, and whose host has not said that it did.
    pub(crate) fn reap(&mut self, slot: u32, actions: &mut Vec<Action>) {
        if self.frames.get(slot).is_some_and(|frame| frame.open > 0) {
            self.take_back(slot, &preempted(), actions);
        } else {
            self.release_frame(slot);
        }
    }

    /// What to write down of an attempt that a host says was cancelled: perhaps it was told to stop in favour of another tenant.
    pub(crate) fn cause_of_stop(&self, AttemptId { task, number }: AttemptId, failure: Failure) -> Failure {
        let slot = self.find_job(task.job).and_then(|job| job.slot_of(task.array, task.index, number));
        let victim = slot.and_then(|slot| self.frames.get(slot)).is_some_and(|frame| frame.preempted);
        if victim && failure.cause == Cause::Cancelled { preempted() } else { failure }
    }

    /// How many frames were stopped in favour of guarantees.
    #[must_use]
    pub fn preemptions(&self) -> u64 {
        self.preempted
    }

    /// Whether a tenant waits longer than it has to: there is something to reclaim for it, and that was not done in time.
    /// What came after the last look in vain has time until the next one, at most [`LOOK_AGAIN`] later.
    pub(crate) fn waits_beyond_bound(&self, tenant: &Tenant) -> bool {
        let long_ago = tenant
            .starving
            .is_some_and(|starving| starving.since.after(RECLAIM_BOUND) < self.now && starving.look_again <= self.now);
        long_ago && self.starving(tenant).is_some_and(|want| self.choose_victims(tenant, &want, true).is_some())
    }
}

/// How much there will be of everything that a frame needs, beyond what it needs. Negative is too little.
struct Room<'a> {
    cpu: i128,
    memory: i128,
    resources: Vec<(&'a ResourceName, i128)>,
}

impl<'a> Room<'a> {
    fn at(host: &Host, need: &'a Need) -> Self {
        let resource =
            |(name, amount): (&'a ResourceName, u64)| (name, i128::from(host.free_resource(name)) - i128::from(amount));
        Self {
            cpu: i128::from(host.slots()) - i128::from(host.cpu()) - i128::from(frame_cpu(need.long)),
            memory: i128::from(host.free_memory()) - i128::from(need.memory),
            resources: need.resources().map(resource).collect(),
        }
    }

    fn gain(&mut self, frame: &LiveFrame) {
        self.cpu += i128::from(frame_cpu(frame.long));
        self.memory += i128::from(frame.memory);
        self.resources.iter_mut().for_each(|(name, left)| *left += i128::from(frame.resource(name)));
    }

    fn lose(&mut self, claim: &Claim) {
        self.cpu -= i128::from(claim.cpu());
        self.memory -= i128::from(claim.need.memory);
        self.resources.iter_mut().for_each(|(name, left)| *left -= i128::from(claim.need.resource(name)));
    }

    fn fits(&self) -> bool {
        self.cpu >= 0 && self.memory >= 0 && self.resources.iter().all(|(_, left)| *left >= 0)
    }
}

/// Whether a host could run a frame of a tenant if it had nothing else.
pub(crate) fn could_run(tenant: &Tenant, need: &Need, host: &Host) -> bool {
    let isolation = tenant.policy.as_ref().map(|policy| policy.minimum_isolation);
    host.takes_part() && isolation.is_some_and(|isolation| host.isolation >= isolation) && need.is_suited_by(host)
}

/// Why an attempt was stopped.
pub(crate) fn preempted() -> Failure {
    Failure::new(Cause::Preempted, WHY)
}
