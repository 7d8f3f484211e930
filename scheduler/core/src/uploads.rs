//! Data that clients upload: which host takes it, and what became of it.

use std::collections::BTreeMap;

use partita_types::{AttemptId, AttemptNumber, ByteSize, HostId, OutputInfo, PartitionId, TaskId};

use crate::action::{Action, Refusal, Reply};
use crate::lives::{in_its_life, is_worn_out};
use crate::record::Record;
use crate::task::State;
use crate::{Core, no_such_job};

/// Uploads under way.
#[derive(Debug, Default)]
pub(crate) struct Uploads {
    to: BTreeMap<PartitionId, HostId>,
}

impl Uploads {
    /// Whatever this host was receiving is lost.
    pub(crate) fn forget_host(&mut self, host: HostId) {
        self.to.retain(|_, to| *to != host);
    }

    /// Whether a host is to receive something.
    pub(crate) fn any_to(&self, host: HostId) -> bool {
        self.to.values().any(|to| *to == host)
    }
}

impl Core {
    pub(crate) fn on_upload(&mut self, task: TaskId, size: ByteSize) -> Result<Reply, Refusal> {
        let job = self.find_job(task.job).ok_or_else(|| no_such_job(task.job))?;
        let not_found = || Refusal::NotFound { what: format!("upload {task}") };
        let array = job.find_array(task.array).filter(|array| array.is_upload()).ok_or_else(not_found)?;
        let slot = array.tasks.get(task.index as usize).ok_or_else(not_found)?;
        let refuse = |state| Err(Refusal::State { what: format!("upload {task}"), state });
        match slot.state {
            State::Waiting => {}
            State::Succeeded => return refuse("is complete already"),
            State::Ready | State::Delayed | State::Assigned | State::Failed | State::Cancelled | State::Aborted => {
                return refuse("is not wanted any more: its job has ended");
            }
        }
        let next = self.lives.after(slot.attempt);
        if is_worn_out(slot.attempt) && in_its_life(next) > 1 {
            return refuse("was begun a thousand times and never arrived: submit its job anew");
        }
        let host = self.host_for_upload(task, size)?;
        self.change_job(task.job, |job| job.task_mut(task.array.0, task.index).attempt = next);
        let Some(number) = AttemptNumber::from_wire(next) else { return Err(not_found()) };
        let partition = PartitionId { attempt: AttemptId { task, number }, output: 0 };
        self.uploads.to.retain(|upload, _| upload.attempt.task != task);
        self.uploads.to.insert(partition, host);
        Ok(Reply::UploadTo { host, partition })
    }

    /// The host with the most room.
    fn host_for_upload(&self, task: TaskId, size: ByteSize) -> Result<HostId, Refusal> {
        let tenant = self.ready_tenant(task.job.tenant)?;
        let Some(policy) = tenant.policy.as_ref() else { return Err(no_such_job(task.job)) };
        let (value, limit) = (tenant.usage.stored.saturating_add(size.0), policy.quota.stored.0);
        if value > limit {
            let what = "bytes of partitions kept";
            return Err(Refusal::Quota { tenant: tenant.name.clone(), what, limit, value });
        }
        let fits = |host: &&crate::host::Host| {
            host.takes_part() && host.isolation >= policy.minimum_isolation && host.free_storage() >= size.0
        };
        let roomiest =
            self.hosts.iter().filter(fits).max_by_key(|host| (host.free_storage(), std::cmp::Reverse(host.id)));
        roomiest.map(|host| host.id).ok_or(Refusal::NoHost { what: "store the upload" })
    }

    pub(crate) fn on_upload_stored(
        &mut self,
        host: HostId,
        partition: PartitionId,
        result: Result<OutputInfo, String>,
        actions: &mut Vec<Action>,
    ) {
        let expected = self.uploads.to.get(&partition) == Some(&host);
        if expected {
            self.uploads.to.remove(&partition);
        }
        let TaskId { job, array, index } = partition.attempt.task;
        let task = self.find_job(job).and_then(|job| job.find_task(array, index));
        let current =
            task.is_some_and(|task| task.state == State::Waiting && task.attempt == partition.attempt.number.0.get());
        match result {
            Ok(info) if expected && current => {
                self.commit_from(Record::Uploaded { partition, info, at: self.now }, host, actions);
            }
            // Brought twice: numbers of attempts start again after a restart, so it may be the very copy that counts.
            Ok(info) if self.holders(partition.attempt).contains(&host) => {
                self.stale += 1;
                let job = self.find_job(job).and_then(|job| job.find_array(array));
                if job.is_none_or(|array| array.outputs_of(index).first() != Some(&info)) {
                    self.on_partitions_lost(host, &[partition], actions);
                }
            }
            Ok(_) => {
                self.stale += 1;
                self.send_drops(host, &[partition], actions);
            }
            Err(_) => self.stale += u64::from(!expected),
        }
    }
}
