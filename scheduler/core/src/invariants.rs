//! What must hold in every state between two events. One function per invariant.
//!
//! All of them together look at every task, so only tests and the simulation call them; [`Core::apply`] checks in debug
//! builds what costs next to nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use partita_types::HostId;

use crate::Core;
use crate::array::Array;
use crate::claims::ClaimFor;
use crate::drain::Drain;
use crate::failure::ATTEMPTS_MAX;
use crate::job::Job;
use crate::kinds::Kind;
use crate::lives::in_its_life;
use crate::overcommit::{Places, TIMES_USUAL};
use crate::share::Amount;
use crate::task::{Counts, Place, State};

/// An invariant that does not hold: which, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{invariant}: {detail}")]
pub struct Violation {
    /// The name of the function that found it.
    pub invariant: &'static str,
    /// What is wrong.
    pub detail: String,
}

pub(crate) type Checked = Result<(), Violation>;

pub(crate) fn ensure(holds: bool, invariant: &'static str, detail: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(Violation { invariant, detail: detail() }) }
}

impl Core {
    /// Checks every invariant against the whole state.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn check_invariants(&self) -> Result<(), Violation> {
        self.check_cheap_invariants()?;
        quotas_are_never_exceeded(self)?;
        for job in self.tenants.iter().flat_map(|tenant| tenant.jobs()) {
            for (position, array) in (0_u32..).zip(&job.arrays) {
                counts_equal_recount(job, array)?;
                ready_set_is_the_ready_tasks(job, array)?;
                ready_iff_nothing_unmet(job, position)?;
                outputs_away_equal_recount(self, job, array)?;
                needed_outputs_are_somewhere(job, position)?;
            }
            a_job_ends_when_its_tasks_have(job)?;
            attempts_are_bounded(job)?;
        }
        usage_equals_sum_of_reservations(self)?;
        queued_tasks_equal_recount(self)?;
        ended_jobs_are_listed(self)?;
        stored_bytes_equal_recount(self)?;
        runnable_arrays_are_listed(self)?;
        what_arrays_share_is_in_use(self)?;
        an_assigned_task_is_in_exactly_one_frame(self)?;
        a_lost_host_has_nothing(self)?;
        places_beyond_the_usual_are_counted(self)?;
        self.only_who_has_less_gets_more()?;
        retractions_are_bounded(self)?;
        nothing_that_fits_is_left_waiting(self)?;
        nothing_is_borrowed_beyond_its_limit(self)?;
        a_guarantee_is_reclaimed_in_time(self)?;
        only_borrowers_are_preempted(self)?;
        frames_are_where_their_needs_are_met(self)?;
        copies_count_only_beside_another(self)?;
        moves_are_bounded(self)?;
        self.rates_stay_within_their_limit()?;
        self.rates_follow_frames()?;
        a_drained_host_has_nothing(self)?;
        self.at_most_two_attempts_of_a_task_run()
    }

    /// What costs as little as one look at each host.
    pub(crate) fn check_cheap_invariants(&self) -> Checked {
        hosts_are_never_overcommitted(self)
    }
}

fn hosts_are_never_overcommitted(core: &Core) -> Checked {
    for host in core.hosts.iter().filter(|host| host.is_attached()) {
        let frames = host.frames.len() as u64;
        let resources = host.resources.iter().all(|(name, used)| *used <= host.resource(name));
        let slots = u64::from(host.slots());
        let fits = frames <= slots * u64::from(TIMES_USUAL) && host.memory <= host.capacity.memory.0 && resources;
        ensure(fits, "hosts_are_never_overcommitted", || {
            format!("host {}: {frames} frames, {} bytes", host.name, host.memory)
        })?;
    }
    Ok(())
}

/// A lowered policy takes effect as frames end; once what runs is within it, it stays so.
fn quotas_are_never_exceeded(core: &Core) -> Checked {
    for tenant in core.tenants.iter().filter(|tenant| !tenant.above_limits) {
        let Some(policy) = &tenant.policy else { continue };
        let fits =
            tenant.usage.frames <= policy.quota.frames() && tenant.usage.memory <= policy.quota.concurrent_memory.0;
        ensure(fits, "quotas_are_never_exceeded", || format!("tenant {}: {:?}", tenant.name, tenant.usage))?;
    }
    Ok(())
}

fn counts_equal_recount(job: &Job, array: &Array) -> Checked {
    let mut counts = Counts::default();
    array.tasks.iter().for_each(|task| counts.add(task.state, 1));
    ensure(counts == array.tasks.counts(), "counts_equal_recount", || {
        format!("job {}, array {:?}: {:?}, counted {counts:?}", job.id, array.name(), array.tasks.counts())
    })
}

fn ready_set_is_the_ready_tasks(job: &Job, array: &Array) -> Checked {
    let ready = (0_u32..).zip(&array.tasks).filter(|(_, task)| task.state == State::Ready).map(|(index, _)| index);
    ensure(ready.eq(array.ready.positions_from(0)), "ready_set_is_the_ready_tasks", || {
        format!("job {}, array {:?}", job.id, array.name())
    })
}

fn ready_iff_nothing_unmet(job: &Job, position: u32) -> Checked {
    let array = job.array(position);
    let gates = job.count_closed_gates(position);
    ensure(gates == array.closed_gates, "ready_iff_nothing_unmet", || {
        format!("job {}, array {:?}: {} gates, counted {gates}", job.id, array.name(), array.closed_gates)
    })?;
    for (index, task) in (0_u32..).zip(&array.tasks).filter(|(_, task)| !task.state.is_final()) {
        let unmet = job.count_unmet(position, index);
        let may_run = unmet == 0 && gates == 0 && !array.is_upload();
        let right = match task.state {
            State::Ready => may_run,
            State::Waiting => !may_run,
            _ => true,
        };
        ensure(right && unmet == task.unmet, "ready_iff_nothing_unmet", || {
            format!("task {}: {task:?}, counted {unmet} unmet", job.task_id(position, index))
        })?;
    }
    Ok(())
}

fn outputs_away_equal_recount(core: &Core, job: &Job, array: &Array) -> Checked {
    let is_away = |place: Place| match place {
        Place::At(host) => core.hosts[host.0 as usize].is_detached(),
        Place::Unknown => true,
        Place::Nowhere => false,
    };
    let away = array.tasks.iter().filter(|task| is_away(task.place())).count();
    ensure(away == array.away as usize, "outputs_away_equal_recount", || {
        format!("job {}, array {:?}: {}, counted {away}", job.id, array.name(), array.away)
    })
}

/// Outputs that an unfinished task reads have a place, or their task runs again.
fn needed_outputs_are_somewhere(job: &Job, position: u32) -> Checked {
    for index in 0..job.array(position).len() {
        let lost = job.is_gone(position, index) && job.is_needed(position, index);
        ensure(!lost, "needed_outputs_are_somewhere", || format!("task {}", job.task_id(position, index)))?;
    }
    Ok(())
}

fn a_job_ends_when_its_tasks_have(job: &Job) -> Checked {
    let unfinished: u64 = job.arrays.iter().map(|array| u64::from(array.unfinished())).sum();
    let ended = job.end.is_some() || job.open || unfinished > 0;
    ensure(ended && unfinished == job.unfinished, "a_job_ends_when_its_tasks_have", || {
        format!("job {}: {} unfinished, counted {unfinished}, end {:?}", job.id, job.unfinished, job.end)
    })
}

/// I37. Uploads count the tries of the client, who decides how often.
fn attempts_are_bounded(job: &Job) -> Checked {
    let tasks = job.arrays.iter().filter(|array| !array.is_upload()).flat_map(|array| &array.tasks);
    let most = tasks.map(|task| in_its_life(task.attempt)).max().unwrap_or(0);
    ensure(most <= ATTEMPTS_MAX, "attempts_are_bounded", || format!("job {}: attempt {most}", job.id))
}

/// What the time that results are kept is counted from.
fn ended_jobs_are_listed(core: &Core) -> Checked {
    for tenant in &core.tenants {
        let ended: std::collections::BTreeSet<_> =
            tenant.jobs().filter_map(|job| Some((job.ended?, job.id.number))).collect();
        let same = ended == tenant.ended;
        ensure(same, "ended_jobs_are_listed", || format!("tenant {}: {:?}", tenant.name, tenant.ended))?;
    }
    Ok(())
}

fn usage_equals_sum_of_reservations(core: &Core) -> Checked {
    let name = "usage_equals_sum_of_reservations";
    for tenant in &core.tenants {
        let own = || core.frames.iter().filter(|(_, frame)| frame.job.tenant == tenant.id);
        let sum = own().fold(Amount::default(), |sum, (_, frame)| sum.plus(frame.amount()));
        let sums = (own().count() as u64, sum.cpu, sum.memory);
        let usage = (u64::from(tenant.usage.frames), tenant.usage.cpu_thirds, tenant.usage.memory);
        ensure(sums == usage, name, || format!("tenant {}: {usage:?}, counted {sums:?}", tenant.name))?;
    }
    for host in &core.hosts {
        let own = || core.frames.iter().filter(|(_, frame)| frame.host == host.id);
        let slots = own().map(|(slot, _)| slot).eq(host.frames.iter().copied());
        let memory: u64 = own().map(|(_, frame)| frame.memory).sum();
        let long = own().filter(|(_, frame)| frame.long).count();
        let open: u32 = own().map(|(_, frame)| frame.open).sum();
        let mut resources = BTreeMap::new();
        for needs in own().filter_map(|(_, frame)| frame.needs.as_ref()) {
            needs.resources.iter().for_each(|(name, amount)| *resources.entry(name.clone()).or_default() += *amount);
        }
        ensure(resources == host.resources, name, || format!("host {}: counted {resources:?}", host.name))?;
        let expected = own().map(|(_, frame)| frame.expected).fold(0, u64::saturating_add);
        ensure(expected == host.expected, name, || format!("host {}: counted {expected}", host.name))?;
        let right = slots && memory == host.memory && long == host.long_frames as usize && open == host.assigned_tasks;
        ensure(right, name, || format!("host {}: {host:?}", host.name))?;
    }
    Ok(())
}

fn queued_tasks_equal_recount(core: &Core) -> Checked {
    for tenant in &core.tenants {
        let queued: u64 = tenant.jobs().map(|job| job.unfinished).sum();
        let running = tenant.jobs().filter(|job| job.end.is_none()).count();
        let right = queued == tenant.usage.queued_tasks && running == tenant.usage.running_jobs as usize;
        ensure(right, "queued_tasks_equal_recount", || {
            format!("tenant {}: {:?}, counted {queued} tasks, {running} jobs", tenant.name, tenant.usage)
        })?;
    }
    Ok(())
}

fn stored_bytes_equal_recount(core: &Core) -> Checked {
    let name = "stored_bytes_equal_recount";
    let mut at: BTreeMap<HostId, (u64, u64)> = BTreeMap::new();
    for tenant in &core.tenants {
        let mut stored = 0;
        for array in tenant.jobs().flat_map(|job| &job.arrays) {
            let mut located: BTreeMap<HostId, u64> = BTreeMap::new();
            for (index, task) in (0_u32..).zip(&array.tasks) {
                let bytes = array.bytes_of(index);
                if let Place::At(host) = task.place() {
                    *located.entry(host).or_default() += bytes;
                    let sums = at.entry(host).or_default();
                    *sums = (sums.0 + u64::from(array.kind.outputs), sums.1 + bytes);
                }
                stored += if task.place() == Place::Nowhere { 0 } else { bytes };
            }
            located.retain(|_, bytes| *bytes > 0);
            let same = located.iter().map(|(host, bytes)| (*host, *bytes)).eq(array.located().iter().copied());
            ensure(same, name, || format!("array {:?}: {:?}, counted {located:?}", array.name(), array.located()))?;
        }
        ensure(stored == tenant.usage.stored, name, || {
            format!("tenant {}: {}, counted {stored}", tenant.name, tenant.usage.stored)
        })?;
    }
    for host in &core.hosts {
        let sums = at.get(&host.id).copied().unwrap_or_default();
        ensure(sums == (host.stored_partitions, host.stored_bytes), name, || {
            format!("host {}: {} and {} bytes, counted {sums:?}", host.name, host.stored_partitions, host.stored_bytes)
        })?;
    }
    Ok(())
}

/// Each array has a kind from its tenant's table, and the table has no other.
fn what_arrays_share_is_in_use(core: &Core) -> Checked {
    for tenant in &core.tenants {
        let mut users: BTreeMap<*const Kind, usize> = BTreeMap::new();
        for array in tenant.jobs().flat_map(|job| &job.arrays) {
            *users.entry(Arc::as_ptr(&array.kind)).or_default() += 1;
        }
        let known = || tenant.kinds.iter().map(|kind| (Arc::as_ptr(kind), Arc::strong_count(kind) - 1));
        let same = known().count() == users.len() && known().all(|(kind, count)| users.get(&kind) == Some(&count));
        ensure(same, "what_arrays_share_is_in_use", || {
            format!("tenant {}: {} kinds are kept, {} are used", tenant.name, known().count(), users.len())
        })?;
    }
    Ok(())
}

fn runnable_arrays_are_listed(core: &Core) -> Checked {
    for tenant in &core.tenants {
        let mut listed = 0;
        for job in tenant.jobs() {
            for (position, array) in (0_u32..).zip(&job.arrays) {
                let runs = !array.ready.is_empty() && !job.is_blocked(position);
                listed += usize::from(array.listed);
                ensure(runs == array.listed, "runnable_arrays_are_listed", || {
                    format!("job {}, array {:?}: listed {}", job.id, array.name(), array.listed)
                })?;
            }
        }
        ensure(listed == tenant.runnable.len(), "runnable_arrays_are_listed", || format!("tenant {}", tenant.name))?;
    }
    Ok(())
}

fn an_assigned_task_is_in_exactly_one_frame(core: &Core) -> Checked {
    let name = "an_assigned_task_is_in_exactly_one_frame";
    for (slot, frame) in core.frames.iter() {
        let open = core.find_job(frame.job).map_or(0, |job| {
            let here = |index: &&u32| job.attempt_in(frame.array, **index, slot).is_some();
            frame.indexes.iter().filter(here).count()
        });
        ensure(open == frame.open as usize && frame.open + frame.stopping > 0, name, || format!("frame {frame:?}"))?;
    }
    let assigned: u64 = core
        .tenants
        .iter()
        .flat_map(|tenant| tenant.jobs())
        .flat_map(|job| &job.arrays)
        .map(|array| u64::from(array.tasks.in_state(State::Assigned)))
        .sum();
    let jobs = core.tenants.iter().flat_map(|tenant| tenant.jobs());
    let seconds = jobs.flat_map(|job| job.pairs.iter()).filter(|(_, pair)| pair.second.is_some()).count() as u64;
    let open: u64 = core.frames.iter().map(|(_, frame)| u64::from(frame.open)).sum();
    let attempts = assigned + seconds;
    ensure(attempts == open, name, || format!("{attempts} attempts are assigned, {open} are in frames"))
}

/// I11. Only hosts that can answer are asked, for frames that they have or had, and for few at a time.
fn retractions_are_bounded(core: &Core) -> Checked {
    let name = "retractions_are_bounded";
    ensure(!core.retractions.is_overdone(), name, || format!("{:?}", core.retractions))?;
    for (id, host) in core.retractions.asked() {
        let frame = core.frames.slot_of(id).and_then(|slot| core.frames.get(slot));
        let right = core.hosts[host.0 as usize].is_attached() && frame.is_none_or(|frame| frame.host == host);
        ensure(right, name, || format!("frame {id:?} at host {host:?}"))?;
    }
    Ok(())
}

fn a_lost_host_has_nothing(core: &Core) -> Checked {
    for host in core.hosts.iter().filter(|host| !host.is_attached() && !host.is_detached()) {
        let nothing = host.frames.is_empty() && host.stored.is_empty();
        ensure(nothing, "a_lost_host_has_nothing", || format!("host {}", host.name))?;
    }
    Ok(())
}

/// I8: without those beyond them, no host has more than its usual frames.
fn places_beyond_the_usual_are_counted(core: &Core) -> Checked {
    for host in core.hosts.iter().filter(|host| host.is_attached()) {
        let frames = host.frames.iter().filter_map(|slot| core.frames.get(*slot));
        let usual = frames.filter(|frame| !frame.beyond).count() as u64;
        ensure(usual <= u64::from(host.slots()), "places_beyond_the_usual_are_counted", || {
            format!("host {}: {usual} of {} frames are in usual places", host.name, host.frames.len())
        })?;
    }
    Ok(())
}

fn nothing_that_fits_is_left_waiting(core: &Core) -> Checked {
    if core.known_hosts.are_awaited() {
        return Ok(());
    }
    let beyond = core.sharing().map(Places::Beyond);
    for tenant in &core.tenants {
        let beyond = beyond.filter(|places| core.may_have(*places, tenant));
        let mut plans = [Some(Places::Usual), beyond].into_iter().flatten();
        let plan = plans.find_map(|places| core.plan_frame(tenant.id, places).plan);
        ensure(plan.is_none(), "nothing_that_fits_is_left_waiting", || format!("tenant {}: {plan:?}", tenant.name))?;
    }
    Ok(())
}

/// I16: with what may be borrowed, the guarantee bounds what runs. Stored bytes are bounded when frames start, not while
/// these write.
fn nothing_is_borrowed_beyond_its_limit(core: &Core) -> Checked {
    for tenant in core.tenants.iter().filter(|tenant| tenant.policy.is_some() && !tenant.above_limits) {
        let running = Amount { stored: 0, ..tenant.used() };
        let excess = running.excess(tenant.entitlement.most);
        ensure(excess.is_none(), "nothing_is_borrowed_beyond_its_limit", || {
            format!("tenant {}: {excess:?}", tenant.name)
        })?;
    }
    Ok(())
}

/// I18: whoever has less than it is guaranteed and could have it gets it, within a bound.
fn a_guarantee_is_reclaimed_in_time(core: &Core) -> Checked {
    let late = core.tenants.iter().find(|tenant| core.waits_beyond_bound(tenant));
    ensure(late.is_none(), "a_guarantee_is_reclaimed_in_time", || {
        late.map(|tenant| format!("tenant {}: {:?}", tenant.name, tenant.starving)).unwrap_or_default()
    })
}

/// I19: what is reclaimed lies within a guarantee, so that nobody can reclaim it in turn; and each frame that stops for it
/// is still there.
fn only_borrowers_are_preempted(core: &Core) -> Checked {
    let name = "only_borrowers_are_preempted";
    for claim in &core.claims {
        let ClaimFor::Guarantee { victims } = &claim.held_for else { continue };
        let right = |frame: &crate::frame::LiveFrame| frame.preempted && frame.job.tenant != claim.tenant;
        let there =
            victims.iter().all(|id| core.frames.slot_of(*id).and_then(|slot| core.frames.get(slot)).is_some_and(right));
        ensure(there && !victims.is_empty(), name, || format!("{claim:?}"))?;
    }
    for tenant in core.tenants.iter().filter(|tenant| !tenant.entitlement.guaranteed.is_none()) {
        let claims = core.claims.iter().filter(|claim| claim.tenant == tenant.id);
        let cpu: u64 = claims
            .filter(|claim| matches!(claim.held_for, ClaimFor::Guarantee { .. }))
            .map(|claim| u64::from(claim.cpu()))
            .sum();
        let within = cpu == 0 || cpu <= tenant.entitlement.guaranteed.cpu;
        ensure(within, name, || format!("tenant {}: {cpu} thirds of cores reclaimed", tenant.name))?;
    }
    Ok(())
}

/// I8, I10: whatever an array asks for, the hosts of its frames have it.
fn frames_are_where_their_needs_are_met(core: &Core) -> Checked {
    for (_, frame) in core.frames.iter() {
        let host = &core.hosts[frame.host.0 as usize];
        let met = !host.is_attached() || frame.needs.as_ref().is_none_or(|needs| host.suits(needs));
        ensure(met, "frames_are_where_their_needs_are_met", || format!("frame {frame:?} at host {}", host.name))?;
    }
    Ok(())
}

/// I22, I24: a further copy is one of outputs that are at another host, of the attempt that counts.
fn copies_count_only_beside_another(core: &Core) -> Checked {
    core.check_copies().map_err(|detail| Violation { invariant: "copies_count_only_beside_another", detail })
}

/// I23: what is under way is bounded for each host, and goes to hosts that take part only.
fn moves_are_bounded(core: &Core) -> Checked {
    core.check_moves().map_err(|detail| Violation { invariant: "moves_are_bounded", detail })
}

/// I40: nothing would be lost with a host that is said to be drained.
fn a_drained_host_has_nothing(core: &Core) -> Checked {
    for host in core.hosts.iter().filter(|host| host.drain.as_ref().is_some_and(Drain::is_done)) {
        let nothing = host.frames.is_empty() && host.stored.is_empty() && host.extra_partitions == 0;
        ensure(nothing, "a_drained_host_has_nothing", || format!("host {}: {host:?}", host.name))?;
    }
    Ok(())
}
