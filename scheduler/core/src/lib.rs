//! The scheduler's decisions, as a deterministic state machine without I/O: events in, actions out.
//!
//! There is no clock here, no randomness, no async and no hash map. One thread owns the [`Core`] and calls
//! [`Core::apply`]; the service around it does what the actions say, in their order, and decides nothing.
//!
//! The files follow the life of a job: `admission` and `submission` take it in, `placement` hands it out in frames,
//! `report` and `failure` take back what became of them, `recovery` rebuilds what was lost, `retention` gives up what nobody
//! needs, `results` says where the rest is. Each change that must survive a restart is a [`Record`], and has its effect in
//! `journal` only, whether it just happened or is replayed.

mod action;
mod admission;
mod array;
mod budget;
mod claims;
mod compaction;
mod copies;
mod deadlines;
mod drain;
mod edges;
mod effort;
mod event;
mod explain;
mod failure;
mod few;
mod fold;
mod frame;
mod framing;
mod history;
mod host;
mod inspect;
mod invariants;
mod job;
mod journal;
mod kinds;
mod known_hosts;
mod learned;
mod lists;
mod lives;
mod locations;
mod modules;
mod moves;
mod overcommit;
mod packed;
mod pairs;
mod placement;
mod plan;
mod planted;
mod preemption;
mod questions;
mod ranges;
mod rates;
mod reattach;
mod record;
mod recovery;
mod report;
mod results;
mod retention;
mod retraction;
mod reuse;
mod session;
mod shape;
mod share;
mod speculation;
mod states;
mod submission;
mod task;
mod tasks;
mod tenant;
mod timers;
mod transition;
mod uploads;
mod view;

pub use action::{Action, HostCommand, JobEnd, JobEvent, Refusal, Reply, TaskEnd};
pub use compaction::Compaction;
pub use event::{Event, HostHello, HostMessage, IdempotencyKey, Request, RequestId};
pub use invariants::Violation;
pub use planted::Bug;
pub use record::Record;
pub use timers::{HOST_TIMEOUT, RECOVERY_TIME};
pub use view::{
    ArrayView, Contents, DrainView, Explanation, HostView, JobTotals, JobView, LeftView, TaskCounts, TenantView,
};

use std::collections::{BTreeMap, BTreeSet};

use partita_policy::TenantPolicy;
use partita_types::{HostId, HostName, Incarnation, JobId, TenantId, TenantName, Timestamp};

use crate::claims::Claim;
use crate::copies::Copies;
use crate::deadlines::Unrunnable;
use crate::effort::Effort;
use crate::frame::Frames;
use crate::host::Host;
use crate::job::Job;
use crate::known_hosts::KnownHosts;
use crate::lives::Lives;
use crate::moves::Moves;
use crate::questions::Questions;
use crate::results::Locate;
use crate::retraction::Retractions;
use crate::share::Cohorts;
use crate::speculation::Stragglers;
use crate::task::Place;
use crate::tenant::Tenant;
use crate::timers::Timers;
use crate::uploads::Uploads;

/// The state of the cluster.
#[derive(Debug, Default)]
pub struct Core {
    /// By number.
    tenants: Vec<Tenant>,
    tenant_names: BTreeMap<TenantName, TenantId>,
    /// By number.
    hosts: Vec<Host>,
    host_names: BTreeMap<HostName, HostId>,
    frames: Frames,
    timers: Timers,
    questions: Questions,
    locates: Vec<Locate>,
    uploads: Uploads,
    /// The latest time that any event was seen at.
    now: Timestamp,
    unrunnable: Unrunnable,
    retractions: Retractions,
    /// Messages and records that came too late or made no sense.
    stale: u64,
    cohorts: Cohorts,
    /// Room at hosts that is kept for somebody.
    claims: Vec<Claim>,
    /// Frames that were stopped in favour of guarantees.
    preempted: u64,
    known_hosts: KnownHosts,
    stragglers: Stragglers,
    /// A fault on purpose.
    planted: Option<Bug>,
    lives: Lives,
    effort: Effort,
    copies: Copies,
    moves: Moves,
    /// Frames ever handed out.
    handed_out: u64,
    /// Tenants whose frames have changed since hosts were told their parts of its limit.
    undivided: BTreeSet<TenantId>,
    /// Who got frames beyond the usual places of hosts during this event, and what it had before each, in thirds of cores.
    granted: Vec<(TenantId, u64)>,
}

impl Core {
    /// A cluster without tenants, jobs and hosts.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replays one record of the journal, in the order in which they were written, before any event. Appends the
    /// [`Action::Publish`]s that it gave rise to, so that watchers find the same events after a restart.
    pub fn restore(&mut self, record: &Record, actions: &mut Vec<Action>) {
        self.perform(record, Place::Unknown, actions);
        self.timers.expect_recovery();
    }

    /// Applies one event seen at `now` and appends what must happen next to `actions`.
    /// Total: any event is accepted in any state; a stale one changes nothing but a counter.
    pub fn apply(&mut self, now: Timestamp, event: Event, actions: &mut Vec<Action>) {
        self.now = self.now.max(now);
        self.effort.begin();
        self.granted.clear();
        if self.timers.begin_recovery(self.now) {
            self.known_hosts.await_all(self.now);
            self.begin_life(actions);
            self.copies.begin(self.now);
        }
        match event {
            Event::TenantDefined(policy) => self.on_tenant_defined(policy, actions),
            Event::Requested { request, what } => self.on_requested(request, what, actions),
            Event::Abandoned(request) => self.on_abandoned(request),
            Event::HostAttached(hello) => self.on_host_attached(hello, actions),
            Event::HostDetached { host, incarnation } => self.on_host_detached(host, incarnation, actions),
            Event::FromHost { host, incarnation, message } => self.on_message(host, incarnation, message, actions),
            Event::Ticked => self.on_ticked(actions),
        }
        self.answer_locates(actions);
        self.place_work(actions);
        self.retract_work(actions);
        self.move_data(actions);
        self.divide_rates(actions);
        let anything_waits = self.tenants.iter().any(|tenant| !tenant.runnable.is_empty());
        self.unrunnable.watch(self.now, anything_waits);
        debug_assert_eq!(self.check_cheap_invariants(), Ok(()));
    }

    fn on_tenant_defined(&mut self, policy: TenantPolicy, actions: &mut Vec<Action>) {
        if !self.tenant_names.contains_key(&policy.name) {
            let id = TenantId(u32::try_from(self.tenants.len()).unwrap_or(u32::MAX));
            self.commit(Record::TenantAdded { id, name: policy.name.clone() }, actions);
        }
        let Some(id) = self.tenant_names.get(&policy.name).copied() else { return };
        self.entitle(id.0 as usize, &policy);
        let tenant = &mut self.tenants[id.0 as usize];
        tenant.policy = Some(policy.clone());
        tenant.above_limits = !tenant.is_within_limits();
        self.set_rates(id.0 as usize, &policy);
        let tenant = &self.tenants[id.0 as usize];
        for host in self.hosts.iter().filter(|host| host.is_attached()) {
            let command = HostCommand::Tenants(tenant.for_host(host.id).into_iter().collect());
            actions.push(Action::Command { host: host.id, command });
        }
    }

    fn on_requested(&mut self, request: RequestId, what: Request, actions: &mut Vec<Action>) {
        let answer = match what {
            Request::Submit { tenant, key, spec } => self.on_submit(request, tenant, key, spec, actions),
            Request::Extend { job, key, arrays } => self.on_extend(request, job, key, arrays, actions),
            Request::Close(job) => self.on_close(job, actions).map(Some),
            Request::Cancel(job) => self.on_cancel(job, actions).map(Some),
            Request::Release(job) => self.on_release(job, actions).map(Some),
            Request::AddModule { tenant, module, name, size } => {
                self.on_add_module(request, tenant, module, name, size, actions)
            }
            Request::Locate { job, array, tasks, output } => {
                self.on_locate(Locate { request, job, array, tasks, output });
                Ok(None)
            }
            Request::Upload { task, size } => self.on_upload(task, size).map(Some),
            Request::Drain { host, on } => self.on_drain(host, on, actions).map(Some),
        };
        match answer {
            Ok(None) => {}
            Ok(Some(reply)) => actions.push(Action::Reply { request, reply }),
            Err(refusal) => actions.push(Action::Reply { request, reply: Reply::Refused(refusal) }),
        }
    }

    fn on_abandoned(&mut self, request: RequestId) {
        self.locates.retain(|locate| locate.request != request);
        self.questions.forget(request);
    }

    fn on_message(&mut self, host: HostId, incarnation: Incarnation, message: HostMessage, actions: &mut Vec<Action>) {
        let current = self.hosts.get_mut(host.0 as usize).filter(|host| host.incarnation == incarnation);
        let Some(sender) = current.filter(|host| host.is_attached()) else {
            self.stale += 1;
            return;
        };
        sender.heard = self.now;
        match message {
            HostMessage::Heartbeat => {}
            HostMessage::Report(report) => self.on_report(host, report, actions),
            HostMessage::ModuleInspected { request, result } => {
                self.on_module_inspected(host, request, result, actions);
            }
            HostMessage::DatasetPlanned { request, result } => {
                self.on_dataset_planned(host, request, result, actions);
            }
            HostMessage::UploadStored { partition, result } => {
                self.on_upload_stored(host, partition, result, actions);
            }
            HostMessage::Lost(partitions) => self.on_partitions_lost(host, &partitions, actions),
            HostMessage::Retracted { frame, given } => self.on_retracted(host, frame, given),
            HostMessage::Copied { order, copies, problem } => self.on_copied(host, order, &copies, problem, actions),
        }
    }

    fn find_job(&self, id: JobId) -> Option<&Job> {
        self.tenants.get(id.tenant.0 as usize)?.job(id.number)
    }

    /// Lets `change` work on a job, and carries what that did to its numbers over to the tenant.
    fn change_job<R>(&mut self, id: JobId, change: impl FnOnce(&mut Job) -> R) -> Option<R> {
        self.effort.note(1);
        let tenant = self.tenants.get_mut(id.tenant.0 as usize)?;
        let job = tenant.job_mut(id.number)?;
        let before = (job.unfinished, u32::from(job.end.is_none()));
        let result = change(job);
        let after = (job.unfinished, u32::from(job.end.is_none()));
        tenant.usage.queued_tasks = tenant.usage.queued_tasks + after.0 - before.0;
        tenant.usage.running_jobs = tenant.usage.running_jobs + after.1 - before.1;
        tenant.refresh(id.number);
        Some(result)
    }
}

/// The refusal of a job that does not exist, or is another tenant's: the same words for both.
fn no_such_job(job: JobId) -> Refusal {
    Refusal::NotFound { what: format!("job {job}") }
}
