//! What is known of a host: what it offers, what runs there, what is stored there.
//!
//! `session.rs` says how hosts come and go.

use std::collections::{BTreeMap, BTreeSet};

use partita_types::{
    ArrayIndex, ByteSize, Features, HostCapacity, HostId, HostName, Incarnation, Isolation, JobId, ResourceName,
    Timestamp,
};

use crate::drain::Drain;
use crate::event::HostHello;
use crate::view::HostView;

/// Frames a host may have per core: one that runs, one that follows at once, one on its way.
pub(crate) const FRAMES_PER_CORE: u32 = 3;

/// Whether a host can be talked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Its session is open.
    Attached,
    /// Its session ended; it is lost if it does not come back until then.
    Detached {
        /// When it is given up.
        until: Timestamp,
    },
    /// It was given up. It may still attach again.
    Lost,
}

/// A host that attached at least once.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) id: HostId,
    pub(crate) name: HostName,
    pub(crate) incarnation: Incarnation,
    pub(crate) presence: Presence,
    pub(crate) capacity: HostCapacity,
    pub(crate) isolation: Isolation,
    pub(crate) address: String,
    pub(crate) attached: Timestamp,
    pub(crate) heard: Timestamp,
    /// Slots of the frames that it has.
    pub(crate) frames: BTreeSet<u32>,
    /// How many of them are long.
    pub(crate) long_frames: u32,
    /// Bytes reserved by them.
    pub(crate) memory: u64,
    pub(crate) assigned_tasks: u32,
    /// How many tasks of which arrays have their outputs there.
    pub(crate) stored: BTreeMap<(JobId, u32), u32>,
    pub(crate) stored_partitions: u64,
    pub(crate) stored_bytes: u64,
    /// Arrays whose headers were sent in this session.
    pub(crate) sent: BTreeSet<(JobId, ArrayIndex)>,
    pub(crate) features: Features,
    /// How much of its resources is reserved by frames.
    pub(crate) resources: BTreeMap<ResourceName, u64>,
    /// Bytes that its frames are expected to write.
    pub(crate) expected: u64,
    /// Being emptied: no more work for it.
    pub(crate) drain: Option<Drain>,
    /// Further copies there of what is stored elsewhere, and their bytes.
    pub(crate) extra_partitions: u64,
    pub(crate) extra_bytes: u64,
    /// Bytes of copies on their way to it.
    pub(crate) coming_bytes: u64,
}

impl Host {
    pub(crate) fn new(id: HostId, hello: &HostHello, now: Timestamp) -> Self {
        Self {
            id,
            name: hello.name.clone(),
            incarnation: hello.incarnation,
            presence: Presence::Lost,
            capacity: hello.capacity,
            isolation: hello.isolation,
            address: hello.address.clone(),
            attached: now,
            heard: now,
            frames: BTreeSet::new(),
            long_frames: 0,
            memory: 0,
            assigned_tasks: 0,
            stored: BTreeMap::new(),
            stored_partitions: 0,
            stored_bytes: 0,
            sent: BTreeSet::new(),
            features: hello.features.clone(),
            resources: BTreeMap::new(),
            expected: 0,
            drain: None,
            extra_partitions: 0,
            extra_bytes: 0,
            coming_bytes: 0,
        }
    }

    /// Whether it may be given tasks, uploads and copies.
    pub(crate) fn takes_part(&self) -> bool {
        self.is_attached() && self.drain.is_none()
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.presence == Presence::Attached
    }

    pub(crate) fn is_detached(&self) -> bool {
        matches!(self.presence, Presence::Detached { .. })
    }

    /// Frames that it may have at once.
    pub(crate) fn slots(&self) -> u32 {
        self.capacity.cores.saturating_mul(FRAMES_PER_CORE)
    }

    /// Frames that it could take now. Of long ones it gets just enough to keep its cores busy. Short ones do not wait behind
    /// those at the host: another host may have time for them sooner.
    pub(crate) fn free_slots(&self, long: bool) -> u32 {
        if long {
            let free = self.slots().saturating_sub(self.frame_count());
            free.min(self.capacity.cores.saturating_add(1).saturating_sub(self.long_frames))
        } else {
            self.free_cpu()
        }
    }

    /// Thirds of cores that are not taken: by a long frame a core, by others a third.
    pub(crate) fn free_cpu(&self) -> u32 {
        self.slots().saturating_sub(self.cpu())
    }

    /// Thirds of cores that are taken. More than there are, if a long frame waits for a core.
    pub(crate) fn cpu(&self) -> u32 {
        self.frame_count().saturating_add(self.long_frames.saturating_mul(FRAMES_PER_CORE - 1))
    }

    /// Whether one more frame is not more than usual, whatever it is.
    pub(crate) fn has_usual_slot(&self) -> bool {
        self.frame_count() < self.slots()
    }

    pub(crate) fn frame_count(&self) -> u32 {
        u32::try_from(self.frames.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn free_memory(&self) -> u64 {
        self.capacity.memory.0.saturating_sub(self.memory)
    }

    pub(crate) fn free_storage(&self) -> u64 {
        let taken = self.stored_bytes.saturating_add(self.extra_bytes).saturating_add(self.coming_bytes);
        self.capacity.partitions.0.saturating_sub(taken)
    }

    /// Whether it has all that tasks ask for, whoever has it at the moment.
    pub(crate) fn suits(&self, needs: &Features) -> bool {
        let labels = needs.labels.iter().all(|(name, value)| self.features.labels.get(name) == Some(value));
        labels && needs.resources.iter().all(|(name, amount)| self.resource(name) >= *amount)
    }

    /// How much of a resource it has.
    pub(crate) fn resource(&self, name: &ResourceName) -> u64 {
        self.features.resources.get(name).copied().unwrap_or(0)
    }

    /// How much of a resource is not reserved.
    pub(crate) fn free_resource(&self, name: &ResourceName) -> u64 {
        self.resource(name).saturating_sub(self.resources.get(name).copied().unwrap_or(0))
    }

    /// Reserves what a frame needs.
    pub(crate) fn take_resources(&mut self, needs: &Features) {
        for (name, amount) in &needs.resources {
            *self.resources.entry(name.clone()).or_default() += amount;
        }
    }

    /// Gives back what a frame had reserved.
    pub(crate) fn give_resources(&mut self, needs: &Features) {
        for (name, amount) in &needs.resources {
            let Some(used) = self.resources.get_mut(name) else { continue };
            *used -= amount;
            if *used == 0 {
                self.resources.remove(name);
            }
        }
    }

    pub(crate) fn view(&self) -> HostView {
        HostView {
            id: self.id,
            name: self.name.clone(),
            state: match self.presence {
                Presence::Attached => "attached",
                Presence::Detached { .. } => "detached",
                Presence::Lost => "lost",
            },
            address: self.address.clone(),
            capacity: self.capacity,
            isolation: self.isolation,
            assigned_tasks: self.assigned_tasks,
            stored_partitions: self.stored_partitions.saturating_add(self.extra_partitions),
            stored: ByteSize(self.stored_bytes.saturating_add(self.extra_bytes)),
            attached: self.attached,
            features: self.features.clone(),
            drain: self.drain.as_ref().map(|drain| drain.view(self)),
        }
    }
}
