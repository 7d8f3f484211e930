//! Taking back frames that wait at a busy host, for a host that has nothing to do.
//!
//! Work stealing by request and confirmation, as Dask's: the host that has a frame knows alone whether it has begun, so it is
//! asked, and the frame moves only after it said yes. Until then nothing changes. Only frames that take long are asked for:
//! a short one has ended before the answer is here. A frame is asked for only if its inputs move faster than it would
//! wait (Ousterhout et al., "Sparrow", SOSP 2013, take the same measure: late binding pays where waiting is long).
//!
//! A host that joins needs none of this for tasks that wait at the scheduler: it is given those at once.

use std::collections::BTreeMap;
use std::time::Duration;

use partita_types::{ArrayIndex, AttemptId, FrameId, HostId, JobId, Timestamp};

use crate::Core;
use crate::action::{Action, HostCommand};
use crate::claims::Need;
use crate::frame::LiveFrame;
use crate::host::Host;
use crate::overcommit::Places;
use crate::plan::BYTES_PER_MICRO;
use crate::planted::Bug;

/// Most questions that wait for an answer.
const ASKED_MAX: usize = 64;
/// For how long a task that was taken back is left where it went then.
const EPOCH: Duration = Duration::from_secs(30);
/// Most tasks taken back within that time; together with it, the rate. Frames that were asked for may still be added.
const MOVED_MAX: usize = 4_096;
/// Most tasks of one frame.
const FRAME_TASKS_MAX: usize = 256;

/// A task, by job, array and index.
type Moved = (JobId, ArrayIndex, u32);

/// Frames that hosts were asked to give back.
#[derive(Debug, Default)]
pub(crate) struct Retractions {
    /// Whom, and for whom.
    asked: BTreeMap<FrameId, (HostId, HostId)>,
    moved: BTreeMap<Moved, Timestamp>,
}

impl Retractions {
    /// The session of a host began or ended: it answers nothing any more.
    pub(crate) fn forget_host(&mut self, host: HostId) {
        self.asked.retain(|_, (from, _)| *from != host);
    }

    /// Whether a host is to be asked for a frame on behalf of all others: it was not, and there are not too many questions.
    pub(crate) fn ask(&mut self, frame: FrameId, from: HostId) -> bool {
        let room = self.asked.len() < ASKED_MAX && self.moved.len() < MOVED_MAX;
        room && self.asked.insert(frame, (from, from)).is_none()
    }

    /// Questions without an answer, with whom was asked.
    pub(crate) fn asked(&self) -> impl Iterator<Item = (FrameId, HostId)> + '_ {
        self.asked.iter().map(|(frame, (from, _))| (*frame, *from))
    }

    /// Whether there are more than there may be.
    pub(crate) fn is_overdone(&self) -> bool {
        self.asked.len() > ASKED_MAX || self.moved.len() > MOVED_MAX + ASKED_MAX * FRAME_TASKS_MAX
    }

    fn count(&self, which: impl Fn(HostId, HostId) -> bool) -> u32 {
        let count = self.asked.values().filter(|(from, to)| which(*from, *to)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    fn moved_lately(&self, frame: &LiveFrame, now: Timestamp) -> bool {
        let at = |index: &u32| self.moved.get(&(frame.job, frame.array, *index));
        frame.indexes.iter().filter_map(at).any(|at| at.after(EPOCH) > now)
    }

    /// Forgets what moved long ago, once there is no room for more.
    fn forget_old(&mut self, now: Timestamp) {
        if self.moved.len() >= MOVED_MAX {
            self.moved.retain(|_, at| at.after(EPOCH) > now);
        }
    }

    fn note_moved(&mut self, frame: &LiveFrame, now: Timestamp) {
        self.moved.extend(frame.indexes.iter().map(|index| ((frame.job, frame.array, *index), now)));
    }
}

impl Core {
    /// Asks busy hosts for frames that wait there, as long as others have free cores for them. Comes after everything that
    /// is ready was handed out.
    pub(crate) fn retract_work(&mut self, actions: &mut Vec<Action>) {
        self.retractions.forget_old(self.now);
        for position in 0..self.hosts.len() {
            let to = &self.hosts[position];
            if !to.takes_part() {
                continue;
            }
            let coming = self.retractions.count(|_, other| other == to.id);
            let idle = to.capacity.cores.saturating_sub(frames_of(to)).saturating_sub(coming);
            for _ in 0..idle {
                let Some((from, frame)) = self.frame_to_retract(&self.hosts[position]) else { break };
                self.retractions.asked.insert(frame, (from, self.hosts[position].id));
                actions.push(Action::Command { host: from, command: HostCommand::Retract(vec![frame]) });
                if self.has(Bug::DoubleStartOnRetraction)
                    && let Some(slot) = self.frames.slot_of(frame)
                {
                    self.take_retracted(slot);
                    self.place_work(actions);
                }
            }
        }
    }

    /// The last of the frames that wait at the host where most do, if it is better off at `to`.
    fn frame_to_retract(&self, to: &Host) -> Option<(HostId, FrameId)> {
        if self.retractions.asked.len() >= ASKED_MAX || self.retractions.moved.len() >= MOVED_MAX {
            return None;
        }
        let waiting = |host: &Host| {
            let asked = self.retractions.count(|from, _| from == host.id);
            frames_of(host).saturating_sub(host.capacity.cores).saturating_sub(asked)
        };
        let busy = self.hosts.iter().filter(|host| host.is_attached() && host.id != to.id && waiting(host) > 0);
        let from = busy.max_by_key(|host| (waiting(host), std::cmp::Reverse(host.id)))?;
        let mut frames: Vec<&LiveFrame> = from.frames.iter().filter_map(|slot| self.frames.get(*slot)).collect();
        frames.sort_unstable_by_key(|frame| frame.id);
        self.effort.note(frames.len());
        // Hosts begin with what came first.
        let waiting = frames.iter().skip(from.capacity.cores as usize);
        let frame = waiting.rev().find(|frame| self.may_move(frame, to))?;
        Some((from.id, frame.id))
    }

    /// Whether a frame has not begun, as far as is known, and would begin sooner at another host.
    fn may_move(&self, frame: &LiveFrame, to: &Host) -> bool {
        let untouched = frame.open as usize == frame.indexes.len() && frame.stopping == 0 && !frame.preempted;
        let tenant = self.tenants.get(frame.job.tenant.0 as usize);
        let Some(policy) = tenant.and_then(|tenant| tenant.policy.as_ref()) else { return false };
        let need = Need { memory: frame.memory, long: frame.long, features: frame.needs.clone() };
        let array = (frame.job.number, frame.array.0);
        let fits = to.isolation >= policy.minimum_isolation
            && self.has_room_for(to, &need, (frame.job.tenant, array), false, Places::Usual);
        let asked = self.retractions.asked.contains_key(&frame.id) || self.retractions.moved_lately(frame, self.now);
        frame.long
            && untouched
            && !frame.started
            && !frame.speculative
            && fits
            && !asked
            && self.moves_quickly(frame, to)
    }

    /// Whether the inputs of a frame come to a host in less time than a frame of its function takes.
    fn moves_quickly(&self, frame: &LiveFrame, to: &Host) -> bool {
        let Some((tenant, job)) = self.tenants.get(frame.job.tenant.0 as usize).zip(self.find_job(frame.job)) else {
            return false;
        };
        let array = job.array(frame.array.0);
        let mut bytes = job.common_bytes(frame.array.0);
        for index in &frame.indexes {
            for (host, more) in job.own_bytes(frame.array.0, *index) {
                let sum = bytes.entry(host).or_default();
                *sum = sum.saturating_add(more);
            }
        }
        let missing =
            bytes.iter().filter(|(host, _)| **host != to.id).fold(0_u64, |sum, (_, more)| sum.saturating_add(*more));
        let crashed = frame.indexes.iter().any(|index| array.crashed_at(*index).contains(&to.name));
        !crashed && missing / BYTES_PER_MICRO < tenant.run_times.get(array.kind.learned).frame_micros()
    }

    /// A host says whether it gave a frame back.
    pub(crate) fn on_retracted(&mut self, host: HostId, id: FrameId, given: bool) {
        if self.retractions.asked.get(&id).is_none_or(|(from, _)| *from != host) {
            self.stale += 1;
            return;
        }
        self.retractions.asked.remove(&id);
        // Its job may have ended meanwhile.
        let Some(slot) = self.frames.slot_of(id) else { return };
        if given {
            self.take_retracted(slot);
        } else if let Some(frame) = self.frames.get_mut(slot) {
            frame.started = true;
        }
    }

    /// The tasks of a frame are ready again. They did not begin, so this is no attempt that failed.
    fn take_retracted(&mut self, slot: u32) {
        let Some(frame) = self.frames.get(slot) else { return };
        let (job, array, host, open) = (frame.job, frame.array, frame.host, frame.open);
        self.retractions.note_moved(frame, self.now);
        let indexes = frame.indexes.to_vec();
        self.change_job(job, |job| {
            for index in indexes {
                if job.attempt_in(array, index, slot).is_some() {
                    job.leave_frame(array.0, index, slot);
                    if job.attempts_at_hosts(array.0, index).next().is_none() {
                        job.settle(array.0, index);
                    }
                }
            }
        });
        self.hosts[host.0 as usize].assigned_tasks -= open;
        self.release_frame(slot);
    }

    /// Attempts that their host has seen running.
    pub(crate) fn note_started(&mut self, host: HostId, started: &[AttemptId]) {
        for attempt in started {
            let AttemptId { task, number } = *attempt;
            let slot = self.find_job(task.job).and_then(|job| job.slot_of(task.array, task.index, number));
            let frame = slot.and_then(|slot| self.frames.get_mut(slot)).filter(|frame| frame.host == host);
            let Some(frame) = frame else { continue };
            frame.started = true;
            self.watch_for_straggling(*attempt);
        }
    }
}

pub(crate) fn frames_of(host: &Host) -> u32 {
    u32::try_from(host.frames.len()).unwrap_or(u32::MAX)
}
