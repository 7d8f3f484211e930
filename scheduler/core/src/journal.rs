//! What each record does to the state. The only way from a [`Record`] to its effects, taken when it is written and again
//! when it is replayed, so that a restart finds the state and the events that clients saw.

use partita_types::{
    ArrayIndex, ArraySource, ArraySpec, DatasetPlan, HostId, JobId, ModuleInfo, TenantId, TenantName, Timestamp,
};

use crate::Core;
use crate::action::{Action, JobEnd, JobEvent};
use crate::array::Array;
use crate::event::IdempotencyKey;
use crate::job::Job;
use crate::record::Record;
use crate::shape;
use crate::task::Place;
use crate::tenant::{Accepted, Tenant};
use crate::timers::Timer;

impl Core {
    /// Writes a record and lets it have its effect. Outputs that it tells of are nowhere.
    pub(crate) fn commit(&mut self, record: Record, actions: &mut Vec<Action>) {
        self.commit_at(record, Place::Nowhere, actions);
    }

    /// As [`Core::commit`] for a record that tells of outputs at a host.
    pub(crate) fn commit_from(&mut self, record: Record, host: HostId, actions: &mut Vec<Action>) {
        self.commit_at(record, Place::At(host), actions);
    }

    fn commit_at(&mut self, record: Record, place: Place, actions: &mut Vec<Action>) {
        let mut effects = Vec::new();
        self.perform(&record, place, &mut effects);
        actions.push(Action::Persist(record));
        actions.append(&mut effects);
    }

    /// Lets a record have its effect. One that does not fit the state changes nothing but a counter.
    pub(crate) fn perform(&mut self, record: &Record, place: Place, actions: &mut Vec<Action>) {
        let fits = match record {
            Record::TenantAdded { id, name } => self.add_tenant(*id, name),
            Record::ModuleAdded { tenant, info, at } => self.add_module(*tenant, info, *at),
            Record::JobSubmitted { job, key, spec, plans, at } => {
                let new = Job::new(*job, spec.name.clone(), spec.open, *at);
                if let Some(deadline) = spec.deadline {
                    self.timers.set(at.after(deadline), Timer::Deadline(*job));
                }
                self.add_job(new) && self.add_arrays(*job, *key, &spec.arrays, plans, actions)
            }
            Record::JobExtended { job, key, arrays, plans } => self.add_arrays(*job, *key, arrays, plans, actions),
            Record::JobClosed { job, at } => self.close_job(*job, *at, actions),
            Record::JobCancelled { job, at } => self.stop_job(*job, JobEnd::Cancelled, *at, actions),
            Record::JobExpired { job, at } => self.take_expiry(*job, *at, actions),
            Record::JobReleased { job } => self.release_job(*job, actions),
            Record::Succeeded { batch, at } => self.take_outputs(batch, *at, place, actions),
            Record::AttemptFailed { .. } => self.take_failure(record, actions),
            Record::Lost { tasks } => self.take_losses(tasks, actions),
            Record::Uploaded { partition, info, at } => self.take_upload(*partition, *info, *at, place, actions),
            Record::ModuleQuarantined { tenant, module, reason, at } => {
                self.take_quarantine(*tenant, *module, reason, *at)
            }
            Record::HostJoined { name, .. } => self.known_hosts.add(name),
            Record::HostLost { name, .. } => self.known_hosts.remove(name),
            Record::HostDraining { name, on, at } => self.take_drain(name, *on, *at),
            Record::JobsForgotten { tenant, count } => self.skip_jobs(*tenant, *count),
            Record::TenantUsed { tenant, cpu, peak_memory } => self.add_use(*tenant, *cpu, *peak_memory),
            Record::LifeBegan { number, .. } => self.take_life(*number),
            Record::Unrunnable { job, array, task, since } => self.unrunnable.take((*job, array.0, *task), *since),
            Record::Speculated { attempt, .. } => self.take_speculation(*attempt),
        };
        self.stale += u64::from(!fits);
    }

    fn add_tenant(&mut self, id: TenantId, name: &TenantName) -> bool {
        if id.0 as usize != self.tenants.len() || self.tenant_names.contains_key(name) {
            return false;
        }
        self.tenants.push(Tenant::new(id, name.clone()));
        self.tenant_names.insert(name.clone(), id);
        true
    }

    fn add_module(&mut self, tenant: TenantId, info: &ModuleInfo, at: Timestamp) -> bool {
        let Some(tenant) = self.tenants.get_mut(tenant.0 as usize) else { return false };
        tenant.modules.retain(|(known, _)| known.id != info.id);
        tenant.modules.push((info.clone(), at));
        // Pushed again: whoever does that has looked into what it did.
        tenant.quarantined.remove(&info.id);
        true
    }

    fn add_job(&mut self, job: Job) -> bool {
        let Some(tenant) = self.tenants.get_mut(job.id.tenant.0 as usize) else { return false };
        if tenant.next_job() != job.id {
            return false;
        }
        tenant.usage.running_jobs += 1;
        tenant.add_job(job);
        true
    }

    fn add_arrays(
        &mut self,
        id: JobId,
        key: IdempotencyKey,
        arrays: &[ArraySpec],
        plans: &[DatasetPlan],
        actions: &mut Vec<Action>,
    ) -> bool {
        let Some(before) = self.find_job(id).map(Job::shapes) else { return false };
        let Ok(shapes) = shape::resolve(arrays, &before, plans) else { return false };
        let first = ArrayIndex(u32::try_from(before.len()).unwrap_or(u32::MAX));
        let tenant = &mut self.tenants[id.tenant.0 as usize];
        let run_times = &mut tenant.run_times;
        let kinds = tenant.kinds.of_arrays(arrays, |source| match source {
            ArraySource::Function { module, function } => run_times.position(*module, function),
            ArraySource::Upload => usize::MAX,
        });
        let accepted = Accepted { job: id, first, arrays: u32::try_from(arrays.len()).unwrap_or(u32::MAX) };
        tenant.keys.insert(key, accepted);
        self.change_job(id, |job| {
            job.keys.push(key);
            job.extend(arrays, &shapes, kinds, plans);
        });
        let told =
            |array: &Array| (array.name().to_owned(), array.function().to_owned(), array.len(), array.kind.outputs);
        let arrays: Vec<_> = match self.find_job(id) {
            Some(job) => job.arrays[before.len()..].iter().map(told).collect(),
            None => return false,
        };
        if !arrays.is_empty() {
            actions.push(Action::Publish { job: id, event: JobEvent::ArraysAdded { first, arrays } });
        }
        true
    }

    fn close_job(&mut self, id: JobId, at: Timestamp, actions: &mut Vec<Action>) -> bool {
        let Some(()) = self.change_job(id, |job| job.open = false) else { return false };
        self.drop_unwanted_everywhere(id, actions);
        self.end_if_done(id, at, actions);
        true
    }

    /// Ends a job with success if nothing is left to do in it.
    pub(crate) fn end_if_done(&mut self, id: JobId, at: Timestamp, actions: &mut Vec<Action>) {
        let done = self.find_job(id).is_some_and(|job| job.end.is_none() && !job.open && job.unfinished == 0);
        if done {
            self.end_job(id, JobEnd::Succeeded, at, actions);
        }
    }

    /// Notes how a job ended, and tells those who watch.
    pub(crate) fn end_job(&mut self, id: JobId, end: JobEnd, at: Timestamp, actions: &mut Vec<Action>) {
        self.change_job(id, |job| {
            job.end = Some(end);
            job.ended = Some(at);
            job.open = false;
        });
        self.note_end(id, at);
        actions.push(Action::Publish { job: id, event: JobEvent::Ended(end) });
    }
}
