//! Memoisation: a task of an array that asks for it gets the outputs of an earlier task of its tenant that did the same.
//!
//! The same is: the same module, function and number of outputs, the same arguments, and inputs of the same content. That
//! is compared as a whole and not as a hash, so two different tasks are never taken for each other. The host that has the
//! earlier outputs keeps them under the name of the new attempt, too, and reports a success. From then on the two have
//! nothing to do with each other: each partition belongs to one task and is deleted with its job, whichever goes first.
//!
//! Data on hosts is known by the names and sizes of its files only, so arrays that read a dataset are left out.

use std::collections::BTreeMap;

use partita_types::{ArrayIndex, AttemptId, AttemptNumber, HostId, JobId, TaskId, TenantId};

use crate::Core;
use crate::array::{Array, Input};
use crate::job::Job;
use crate::overcommit::Places;
use crate::plan::Plan;
use crate::planted::Bug;
use crate::share::Standing;
use crate::task::{Place, State};
use crate::tenant::Tenant;

/// Longest description of a task that is kept.
const KEY_MAX: usize = 4_096;
/// Most tasks known of one tenant, and most bytes of their descriptions.
const KNOWN_MAX: usize = 16_384;
const KNOWN_BYTES_MAX: usize = 8 << 20;
/// Ready tasks looked at for one frame of copies.
const LOOKED_AT: usize = 64;

/// What a tenant's tasks have computed, the latest of each kind.
#[derive(Debug, Default)]
pub(crate) struct Known {
    tasks: BTreeMap<Vec<u8>, (u64, TaskId)>,
    /// By age, so that the oldest is given up first.
    ages: BTreeMap<u64, Vec<u8>>,
    next: u64,
    bytes: usize,
}

impl Known {
    fn get(&self, key: &[u8]) -> Option<TaskId> {
        self.tasks.get(key).map(|(_, task)| *task)
    }

    fn insert(&mut self, key: Vec<u8>, task: TaskId) {
        self.forget(&key);
        self.next += 1;
        self.bytes += key.len();
        self.ages.insert(self.next, key.clone());
        self.tasks.insert(key, (self.next, task));
        while self.tasks.len() > KNOWN_MAX || self.bytes > KNOWN_BYTES_MAX {
            let Some((_, oldest)) = self.ages.pop_first() else { return };
            self.tasks.remove(&oldest);
            self.bytes -= oldest.len();
        }
    }

    fn forget(&mut self, key: &[u8]) {
        if let Some((age, _)) = self.tasks.remove(key) {
            self.ages.remove(&age);
            self.bytes -= key.len();
        }
    }
}

impl Array {
    /// Whether its tasks take outputs of others that did the same, and offer theirs.
    pub(crate) fn memoises(&self) -> bool {
        self.kind.options.memoise && self.kind.options.deterministic && !self.is_upload()
    }
}

impl Job {
    /// Everything that the outputs of a task follow from, if that can be told.
    fn reuse_key(&self, array: u32, index: u32) -> Option<Vec<u8>> {
        let owner = self.array(array);
        if !owner.memoises() {
            return None;
        }
        let mut key = owner.module()?.0.to_vec();
        append(&mut key, owner.function().as_bytes());
        key.extend(owner.kind.outputs.to_le_bytes());
        append(&mut key, owner.arguments_of(index));
        for (group, input) in (0_u32..).zip(&owner.inputs) {
            match input {
                Input::Dataset(_) => return None,
                Input::Literal(value) => append(&mut key, value.items()),
                Input::PerTaskLiteral(values) => append(&mut key, values.get(index as usize)),
                Input::Each { .. } | Input::All { .. } | Input::Slice { .. } | Input::Fold { .. } | Input::List(_) => {
                    append(&mut key, &self.read_hashes(array, index, group)?);
                }
            }
            if key.len() > KEY_MAX {
                return None;
            }
        }
        (key.len() <= KEY_MAX).then_some(key)
    }

    /// The hashes of what a task reads by one edge, one after the other.
    fn read_hashes(&self, array: u32, index: u32, group: u32) -> Option<Vec<u8>> {
        let source = self.array(array).inputs[group as usize].gate();
        if source.is_some_and(|source| self.array(source).tasks.len() * 32 > KEY_MAX) {
            return None;
        }
        let mut hashes = Vec::new();
        let mut whole = true;
        self.each_read_of_group(array, index, group, &mut |read| match self
            .array(read.array)
            .outputs_of(read.index)
            .get(read.output as usize)
        {
            Some(info) => hashes.extend(info.hash.0),
            None => whole = false,
        });
        whole.then_some(hashes)
    }
}

/// Appends bytes so that where they end can be told.
fn append(key: &mut Vec<u8>, bytes: &[u8]) {
    key.extend((bytes.len() as u64).to_le_bytes());
    // What is too long is refused as a whole; the rest of it need not be copied for that.
    key.extend(&bytes[..bytes.len().min(KEY_MAX + 1)]);
}

impl Core {
    /// Tasks of an array that succeeded may be asked for their outputs from now on.
    pub(crate) fn offer_for_reuse(&mut self, id: JobId, array: u32, indexes: &[u32]) {
        if self.has(Bug::ComputedIsForgotten) {
            return;
        }
        let Some(tenant) = self.tenants.get_mut(id.tenant.0 as usize) else { return };
        let Some(job) = tenant.job(id.number).filter(|job| job.array(array).memoises()) else { return };
        let key = |index: &u32| Some((job.reuse_key(array, *index)?, job.task_id(array, *index)));
        let offers: Vec<(Vec<u8>, TaskId)> = indexes.iter().filter_map(key).collect();
        offers.into_iter().for_each(|(key, task)| tenant.known.insert(key, task));
    }

    /// An attempt of a task failed: if it was to be a copy, the next one is not.
    pub(crate) fn forget_reuse(&mut self, task: TaskId) {
        let Some(tenant) = self.tenants.get_mut(task.job.tenant.0 as usize) else { return };
        let key = tenant.job(task.job.number).and_then(|job| job.reuse_key(task.array.0, task.index));
        if let Some(key) = key {
            tenant.known.forget(&key);
        }
    }

    /// A frame of copies for the first ready tasks of an array whose outputs one host has already, if it has room for it.
    pub(crate) fn plan_reuse(
        &self,
        tenant: &Tenant,
        job: &Job,
        array: u32,
        standing: &Standing,
        places: Places,
    ) -> Option<Plan> {
        let owner = job.array(array);
        // A copy takes no memory. But what the array keeps for itself is open to those only that need as much as its tasks do.
        let candidates = || -> Vec<HostId> {
            let with = |memory| self.candidates(tenant, owner, (job.id.number, array), memory, standing, places);
            [0, owner.kind.limits.memory.0].into_iter().filter_map(|memory| with(memory).ok()).flatten().collect()
        };
        let mut hosts: Option<Vec<HostId>> = None;
        let mut found: Option<HostId> = None;
        let (mut indexes, mut reuse) = (Vec::new(), Vec::new());
        for index in owner.ready.positions_from(0).take(LOOKED_AT) {
            let known = job.reuse_key(array, index).and_then(|key| tenant.known.get(&key));
            let Some((host, attempt)) = known.and_then(|task| self.kept_at(tenant.id, task)) else { continue };
            // A host without room must not hide another one that has some.
            let has_room = hosts.get_or_insert_with(candidates).contains(&host);
            if has_room && *found.get_or_insert(host) == host {
                indexes.push(index);
                reuse.push(attempt);
            }
        }
        let host = found?;
        let long = tenant.run_times.get(owner.kind.learned).is_long();
        Some(Plan { job: job.id, array, host, indexes, memory: 0, long, reuse, speculative: false })
    }

    /// The attached host that has all outputs of a task, and the attempt that wrote them.
    fn kept_at(&self, tenant: TenantId, task: TaskId) -> Option<(HostId, AttemptId)> {
        let slot = self.find_job(task.job)?.find_task(ArrayIndex(task.array.0), task.index)?;
        let (State::Succeeded, Place::At(host)) = (slot.state, slot.place()) else { return None };
        let number = AttemptNumber::from_wire(slot.attempt)?;
        let there = task.job.tenant == tenant && self.hosts[host.0 as usize].is_attached();
        there.then_some((host, AttemptId { task, number }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(index: u32) -> TaskId {
        TaskId { job: JobId { tenant: TenantId(0), number: 1 }, array: ArrayIndex(0), index }
    }

    #[test]
    fn the_oldest_is_given_up_when_too_much_is_known() {
        let mut known = Known::default();
        let key = |number: u32| number.to_le_bytes().to_vec();
        for number in 0..=u32::try_from(KNOWN_MAX).unwrap_or(0) {
            known.insert(key(number), task(number));
        }
        assert_eq!((known.get(&key(0)), known.get(&key(1))), (None, Some(task(1))));
        assert_eq!((known.tasks.len(), known.ages.len()), (KNOWN_MAX, KNOWN_MAX));
    }

    #[test]
    fn what_is_known_is_bounded_in_bytes_and_given_back() {
        let mut known = Known::default();
        for number in 0..4_000_u32 {
            let mut key = vec![0; KEY_MAX];
            key[..4].copy_from_slice(&number.to_le_bytes());
            known.insert(key, task(number));
        }
        assert!(known.bytes <= KNOWN_BYTES_MAX && known.tasks.len() == KNOWN_BYTES_MAX / KEY_MAX);
        let keys: Vec<Vec<u8>> = known.tasks.keys().cloned().collect();
        keys.iter().for_each(|key| known.forget(key));
        assert_eq!((known.bytes, known.ages.len()), (0, 0));
    }

    #[test]
    fn descriptions_of_different_parts_are_different() {
        let joined = |parts: &[&[u8]]| {
            let mut key = Vec::new();
            parts.iter().for_each(|part| append(&mut key, part));
            key
        };
        assert_ne!(joined(&[b"ab", b"c"]), joined(&[b"a", b"bc"]));
    }
}
