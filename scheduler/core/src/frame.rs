//! Frames: what is at hosts right now, and what it reserves there.
//!
//! A frame ends when each of its attempts was reported, or when its host says that nothing is left of it. Attempts that
//! were cancelled keep the reservation until then, because they really run until then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use partita_types::{ArrayIndex, Features, FrameId, HostId, JobId, ResourceName, Timestamp};

use crate::few::Few;
use crate::share::{Amount, frame_cpu};

/// How far the clock of an earlier scheduler may have been ahead.
const CLOCK_ERROR: Duration = Duration::from_secs(86_400);

/// A frame at a host.
#[derive(Debug)]
pub(crate) struct LiveFrame {
    pub(crate) id: FrameId,
    pub(crate) job: JobId,
    pub(crate) array: ArrayIndex,
    pub(crate) host: HostId,
    /// The tasks, ascending.
    pub(crate) indexes: Few<u32>,
    /// Tasks whose attempt has not ended.
    pub(crate) open: u32,
    /// Attempts that were cancelled and not reported since.
    pub(crate) stopping: u32,
    /// Bytes reserved at the host and in the tenant's quota.
    pub(crate) memory: u64,
    /// Whether it counts against the host's bound on long frames.
    pub(crate) long: bool,
    /// Whether it was told to stop in favour of a guarantee.
    pub(crate) preempted: bool,
    /// What each of its tasks needs beyond memory.
    pub(crate) needs: Option<Arc<Features>>,
    /// Whether an attempt of it was seen running.
    pub(crate) started: bool,
    /// Whether it has the second attempt of a task of which another one runs, or ran when it was handed out.
    pub(crate) speculative: bool,
    /// Bytes that it is expected to write.
    pub(crate) expected: u64,
    /// Whether it was handed out beyond the usual places of its host, which lets tenants take turns on its cores.
    pub(crate) beyond: bool,
}

const _: () = assert!(size_of::<LiveFrame>() <= 88, "with a task and its frame, a task that runs alone costs more");

impl LiveFrame {
    /// Grows from frame to frame.
    pub(crate) fn number(&self) -> u64 {
        self.id.0
    }

    /// How much of a resource it has.
    pub(crate) fn resource(&self, name: &ResourceName) -> u64 {
        self.needs.as_ref().and_then(|needs| needs.resources.get(name)).copied().unwrap_or(0)
    }

    /// What it counts among the resources that tenants share.
    pub(crate) fn amount(&self) -> Amount {
        Amount { cpu: u64::from(frame_cpu(self.long)), memory: self.memory, stored: 0 }
    }
}

/// All frames, in slots that are used again.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    slots: Vec<Option<LiveFrame>>,
    free: Vec<u32>,
    /// The slot of each frame.
    by_id: BTreeMap<FrameId, u32>,
    last: u64,
}

impl Frames {
    /// Takes a slot and names the frame that will be in it. Names follow the clock, so that one that a scheduler gave
    /// before it was restarted means no other frame.
    pub(crate) fn reserve(&mut self, now: Timestamp) -> (u32, FrameId) {
        self.last = now.micros.max(self.last.saturating_add(1));
        (self.free_slot(), FrameId(self.last))
    }

    /// Takes a slot for a frame that was named before a restart. A name that is none is refused.
    pub(crate) fn readmit(&mut self, id: FrameId, now: Timestamp) -> Option<u32> {
        if self.by_id.contains_key(&id) || id.0 > now.after(CLOCK_ERROR).micros {
            return None;
        }
        self.last = self.last.max(id.0);
        Some(self.free_slot())
    }

    fn free_slot(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        })
    }

    /// The number of the youngest frame.
    pub(crate) fn created(&self) -> u64 {
        self.last
    }

    pub(crate) fn put(&mut self, slot: u32, frame: LiveFrame) {
        if let Some(place) = self.slots.get_mut(slot as usize) {
            self.by_id.insert(frame.id, slot);
            *place = Some(frame);
        }
    }

    pub(crate) fn get(&self, slot: u32) -> Option<&LiveFrame> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut LiveFrame> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// The frame that was handed out last.
    pub(crate) fn latest_mut(&mut self) -> Option<&mut LiveFrame> {
        self.get_mut(self.slot_of(FrameId(self.last))?)
    }

    /// The slot of a frame that still exists.
    pub(crate) fn slot_of(&self, id: FrameId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Option<LiveFrame> {
        let frame = self.slots.get_mut(slot as usize)?.take()?;
        self.by_id.remove(&frame.id);
        self.free.push(slot);
        Some(frame)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &LiveFrame)> {
        (0_u32..).zip(&self.slots).filter_map(|(slot, frame)| Some((slot, frame.as_ref()?)))
    }
}
