//! Placement, the acting half: hands out frames until no more can be.

use std::collections::{BTreeMap, BTreeSet};

use partita_types::{ArrayHeader, ArrayIndex, Frame, HostId};

use crate::Core;
use crate::action::{Action, HostCommand};
use crate::frame::LiveFrame;
use crate::framing;
use crate::overcommit::Places;
use crate::plan::Plan;
use crate::share::frame_cpu;

/// What one host gets at once.
#[derive(Default)]
pub(crate) struct Assignment {
    arrays: Vec<ArrayHeader>,
    frames: Vec<Frame>,
}

/// What hosts get after one event.
pub(crate) type Assignments = BTreeMap<HostId, Assignment>;

impl Core {
    /// Hands out what can be handed out, and takes back what is guaranteed to others.
    pub(crate) fn place_work(&mut self, actions: &mut Vec<Action>) {
        if self.known_hosts.are_awaited() {
            // Handing out now what runs at a host that is about to come back would run it twice.
            return;
        }
        self.prune_claims();
        let mut assignments = Assignments::new();
        loop {
            // A second round for those whom the first frames of others have left more.
            while self.place_round(&mut assignments, Places::Usual) {}
            let beyond = self.sharing().map(Places::Beyond);
            if !beyond.is_some_and(|places| self.place_round(&mut assignments, places)) {
                break;
            }
        }
        self.divide_rates(actions);
        send(assignments, actions);
        self.reclaim_guarantees(actions);
    }

    /// Each step makes one frame or rules one tenant out. Returns whether a tenant that was ruled out may have a chance again.
    fn place_round(&mut self, assignments: &mut Assignments, places: Places) -> bool {
        let capacity = self.capacity();
        let mut passed = BTreeSet::new();
        let (mut withheld, mut again) = (false, false);
        while self.has_room(places)
            && let Some(tenant) = self.next_tenant(capacity, &passed, places)
        {
            let planned = self.plan_frame(tenant, places);
            // Nobody jumps a queue by being too large: only whose turn it is keeps room for itself.
            let claims_more = places == Places::Usual || !self.has_array_claim(tenant);
            if let Some((array, need)) = planned.blocked.filter(|_| passed.is_empty() && claims_more)
                && self.claim_for_array(tenant, array, &need)
            {
                continue;
            }
            withheld |= planned.withheld;
            let claims = self.claims.len();
            let had = self.tenants[tenant.0 as usize].usage.cpu_thirds;
            let placed = planned.plan.is_some_and(|plan| self.hand_out(plan, assignments));
            if placed && places != Places::Usual {
                self.note_beyond(tenant, had);
                // Who was passed over because a host had frames of its own only may take turns there now.
                again |= !passed.is_empty();
            }
            // A claim that is settled leaves its room to those who were passed over for it.
            again |= placed && (withheld || self.claims.len() < claims);
            if !placed {
                passed.insert(tenant);
            }
        }
        again
    }

    /// Makes a plan true. Returns whether it could be.
    pub(crate) fn hand_out(&mut self, plan: Plan, assignments: &mut Assignments) -> bool {
        let Some(inputs) = self.frame_inputs(&plan) else { return false };
        let (slot, id) = self.frames.reserve(self.now);
        let (job, array, host) = (plan.job, ArrayIndex(plan.array), plan.host);
        let floor = self.lives.floor();
        let attempts = self.change_job(job, |job| match plan.speculative {
            true => plan.indexes.iter().filter_map(|index| job.add_second(plan.array, *index, slot, floor)).collect(),
            false => job.assign(plan.array, &plan.indexes, slot, floor),
        });
        let (Some(attempts), Some(owner)) = (attempts, self.find_job(job)) else { return false };
        let frame = framing::frame(id, owner, &plan, attempts, inputs);
        let header = owner.array(plan.array).header(job, array, owner.submitted);
        let tasks = u32::try_from(plan.indexes.len()).unwrap_or(u32::MAX);
        let needs = owner.array(plan.array).kind.needs.clone();

        self.handed_out += 1;
        let tenant = &mut self.tenants[job.tenant.0 as usize];
        tenant.served += 1;
        tenant.last_served = self.handed_out;
        let assignment = assignments.entry(host).or_default();
        if self.hosts[host.0 as usize].sent.insert((job, array)) {
            assignment.arrays.extend(header);
        }
        assignment.frames.push(frame);
        let Plan { indexes, memory, long, speculative, .. } = plan;
        let learned = self.find_job(job).map(|job| job.array(array.0).kind.learned);
        let run_times = &self.tenants[job.tenant.0 as usize].run_times;
        let expected = learned.map_or(0, |learned| run_times.get(learned).output()).saturating_mul(u64::from(tasks));
        let live = LiveFrame {
            id,
            job,
            array,
            host,
            indexes: indexes.into(),
            open: tasks,
            stopping: 0,
            memory,
            long,
            preempted: false,
            needs,
            started: false,
            speculative,
            expected,
            beyond: false,
        };
        self.reserve(slot, live);
        self.settle_claim(job.tenant, (job.number, array.0), memory);
        true
    }

    /// Puts a frame into its slot, and reserves for it what it may use at its host and of its tenant's quota.
    pub(crate) fn reserve(&mut self, slot: u32, frame: LiveFrame) {
        let host = &mut self.hosts[frame.host.0 as usize];
        host.frames.insert(slot);
        host.long_frames += u32::from(frame.long);
        host.memory += frame.memory;
        host.expected = host.expected.saturating_add(frame.expected);
        host.assigned_tasks += frame.open;
        if let Some(needs) = &frame.needs {
            host.take_resources(needs);
        }
        self.stragglers.copies += u32::from(frame.speculative);
        let usage = &mut self.tenants[frame.job.tenant.0 as usize].usage;
        usage.frames += 1;
        usage.memory += frame.memory;
        usage.expected = usage.expected.saturating_add(frame.expected);
        usage.cpu_thirds += u64::from(frame_cpu(frame.long));
        self.rate_frame(frame.job.tenant, frame.host);
        self.frames.put(slot, frame);
    }
}

/// Tells hosts what they get.
pub(crate) fn send(assignments: Assignments, actions: &mut Vec<Action>) {
    for (host, Assignment { arrays, frames }) in assignments {
        actions.push(Action::Command { host, command: HostCommand::Assign { arrays, frames } });
    }
}
