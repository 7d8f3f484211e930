//! Jobs and their extensions on the way in. Without datasets the answer is immediate; with them it waits until a host has
//! listed and split each. Nothing is stored before all is known to be right.

use partita_types::{
    ArrayIndex, ArraySpec, DatasetPlan, Edge, HostId, JobId, JobSpec, MAX_TASKS_PER_ARRAY, TenantId, check_arrays,
};

use crate::action::{Action, Refusal, Reply};
use crate::admission::Applicant;
use crate::event::{IdempotencyKey, RequestId};
use crate::questions::{Listing, Question, SubmissionId};
use crate::record::Record;
use crate::tenant::Accepted;
use crate::{Core, no_such_job};

/// What is submitted.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    Job(JobSpec),
    Extension { job: JobId, arrays: Vec<ArraySpec> },
}

impl Work {
    fn arrays(&self) -> &[ArraySpec] {
        match self {
            Self::Job(spec) => &spec.arrays,
            Self::Extension { arrays, .. } => arrays,
        }
    }

    fn arrays_mut(&mut self) -> &mut [ArraySpec] {
        match self {
            Self::Job(spec) => &mut spec.arrays,
            Self::Extension { arrays, .. } => arrays,
        }
    }

    /// The dataset edges, in the order of arrays and edges, each with the name of its array.
    fn listings(&self) -> impl Iterator<Item = (&str, Listing)> {
        self.arrays().iter().flat_map(|array| array.inputs.iter().map(|edge| (array.name.as_str(), edge))).filter_map(
            |(array, edge)| match edge {
                Edge::Dataset { dataset, split, limit } => {
                    Some((array, Listing { dataset: dataset.clone(), split: *split, limit: *limit }))
                }
                Edge::Each { .. }
                | Edge::All { .. }
                | Edge::Slice { .. }
                | Edge::Fold { .. }
                | Edge::List { .. }
                | Edge::Literal { .. } => None,
            },
        )
    }
}

/// A submission that waits for datasets to be listed.
#[derive(Debug)]
pub(crate) struct Submission {
    /// Who waits for the answer; more than one if the client repeated itself.
    pub(crate) requests: Vec<RequestId>,
    tenant: TenantId,
    key: IdempotencyKey,
    work: Work,
    /// What is known so far, one per distinct listing.
    plans: Vec<DatasetPlan>,
}

impl Core {
    pub(crate) fn on_submit(
        &mut self,
        request: RequestId,
        tenant: TenantId,
        key: IdempotencyKey,
        spec: JobSpec,
        actions: &mut Vec<Action>,
    ) -> Result<Option<Reply>, Refusal> {
        self.on_work(request, tenant, key, Work::Job(spec), actions)
    }

    pub(crate) fn on_extend(
        &mut self,
        request: RequestId,
        job: JobId,
        key: IdempotencyKey,
        arrays: Vec<ArraySpec>,
        actions: &mut Vec<Action>,
    ) -> Result<Option<Reply>, Refusal> {
        self.on_work(request, job.tenant, key, Work::Extension { job, arrays }, actions)
    }

    pub(crate) fn on_close(&mut self, id: JobId, actions: &mut Vec<Action>) -> Result<Reply, Refusal> {
        let job = self.find_job(id).ok_or_else(|| no_such_job(id))?;
        if job.open {
            self.commit(Record::JobClosed { job: id, at: self.now }, actions);
        }
        Ok(Reply::Done)
    }

    fn on_work(
        &mut self,
        request: RequestId,
        tenant: TenantId,
        key: IdempotencyKey,
        mut work: Work,
        actions: &mut Vec<Action>,
    ) -> Result<Option<Reply>, Refusal> {
        if let Some(accepted) = self.ready_tenant(tenant)?.keys.get(&key) {
            return Ok(Some(self.accepted(*accepted)));
        }
        let mut held = self.questions.all_held();
        if let Some(same) = held.find(|held| held.tenant == tenant && held.key == key) {
            same.requests.push(request);
            return Ok(None);
        }
        drop(held);
        let mut listings: Vec<Listing> = Vec::new();
        for (_, listing) in work.listings() {
            if !listings.contains(&listing) {
                listings.push(listing);
            }
        }
        if listings.is_empty() {
            self.check_work(tenant, &mut work)?;
            return self.accept(tenant, key, work, Vec::new(), actions).map(Some);
        }
        // What the policy fills in is not kept meanwhile: it would pass for a wish of the client under another policy.
        self.check_work(tenant, &mut work.clone())?;
        let requests = vec![request];
        let submission = self.questions.hold(Submission { requests, tenant, key, work, plans: Vec::new() });
        for listing in listings {
            if let Err(refusal) = self.ask(Question::Plan { submission, tenant, listing }, actions) {
                self.questions.release(submission);
                return Err(refusal);
            }
        }
        Ok(None)
    }

    /// Everything that can be checked before datasets were listed.
    fn check_work(&self, tenant: TenantId, work: &mut Work) -> Result<(), Refusal> {
        let tenant = self.ready_tenant(tenant)?;
        let Some(policy) = tenant.policy.as_ref() else { return Ok(()) };
        let applicant = Applicant { tenant, policy };
        match work {
            Work::Job(spec) => {
                spec.check()?;
                applicant.check_jobs()?;
            }
            Work::Extension { job, arrays } => {
                let found = self.find_job(*job).ok_or_else(|| no_such_job(*job))?;
                if !found.open {
                    let state = "takes no more arrays: it was closed, or has ended";
                    return Err(Refusal::State { what: format!("job {job}"), state });
                }
                let outputs: Vec<u32> = found.arrays.iter().map(|array| array.kind.outputs).collect();
                check_arrays(arrays, &outputs)?;
            }
        }
        applicant.check(work.arrays_mut())
    }

    /// The last checks, and then the record.
    fn accept(
        &mut self,
        tenant: TenantId,
        key: IdempotencyKey,
        work: Work,
        plans: Vec<DatasetPlan>,
        actions: &mut Vec<Action>,
    ) -> Result<Reply, Refusal> {
        let owner = self.ready_tenant(tenant)?;
        let Some(policy) = owner.policy.as_ref() else { return Err(no_such_job(owner.next_job())) };
        let before = match &work {
            Work::Job(_) => Vec::new(),
            Work::Extension { job, .. } => self.find_job(*job).map(crate::job::Job::shapes).unwrap_or_default(),
        };
        Applicant { tenant: owner, policy }.check_sizes(work.arrays(), &before, &plans)?;
        let job = match work {
            Work::Job(spec) => {
                let job = owner.next_job();
                self.commit(Record::JobSubmitted { job, key, spec, plans, at: self.now }, actions);
                job
            }
            Work::Extension { job, arrays } => {
                self.commit(Record::JobExtended { job, key, arrays, plans }, actions);
                self.rebuild_sources_behind(job, before.len(), actions);
                job
            }
        };
        let accepted = self.tenants[tenant.0 as usize].keys.get(&key);
        let accepted = accepted.copied().ok_or_else(|| no_such_job(job))?;
        Ok(self.accepted(accepted))
    }

    fn accepted(&self, accepted: Accepted) -> Reply {
        let ArrayIndex(first) = accepted.first;
        let arrays = self.find_job(accepted.job).map_or(&[][..], |job| &job.arrays[first as usize..]);
        let tasks = arrays.iter().take(accepted.arrays as usize).map(crate::array::Array::len).collect();
        Reply::Accepted { job: accepted.job, first: accepted.first, tasks }
    }

    /// New arrays may want outputs that were lost while nobody wanted them.
    fn rebuild_sources_behind(&mut self, id: JobId, first: usize, actions: &mut Vec<Action>) {
        let Some(job) = self.find_job(id) else { return };
        let mut sources: Vec<u32> =
            job.arrays[first..].iter().flat_map(|array| array.sources.iter().copied()).collect();
        sources.sort_unstable();
        sources.dedup();
        let gone = sources.into_iter().flat_map(|source| {
            let tasks = 0..job.array(source).len();
            tasks.filter(move |index| job.is_gone(source, *index)).map(move |index| job.task_id(source, index))
        });
        let gone = gone.collect();
        self.rebuild_needed(gone, None, actions);
    }

    pub(crate) fn on_dataset_planned(
        &mut self,
        host: HostId,
        request: RequestId,
        result: Result<DatasetPlan, String>,
        actions: &mut Vec<Action>,
    ) {
        let Some(Question::Plan { submission, listing, .. }) = self.questions.answered(host, request) else {
            self.stale += 1;
            return;
        };
        let Some(held) = self.questions.held(submission) else { return };
        let usable =
            |plan: &DatasetPlan| listing.is_answered_by(plan) && (1..=MAX_TASKS_PER_ARRAY).contains(&plan.splits);
        let plan = match result {
            Ok(plan) if usable(&plan) => Ok(plan),
            Ok(plan) => Err(format!("the host answered with {} pieces of dataset {}", plan.splits, plan.dataset)),
            Err(reason) => Err(reason),
        };
        match plan {
            Ok(plan) => {
                held.plans.push(plan);
                self.accept_held(submission, actions);
            }
            Err(reason) => {
                let array =
                    held.work.listings().find(|(_, wanted)| *wanted == listing).map(|(array, _)| array.to_owned());
                let refusal = Refusal::Dataset { dataset: listing.dataset, array: array.unwrap_or_default(), reason };
                self.refuse_held(submission, refusal, actions);
            }
        }
    }

    /// Accepts or refuses a submission once all its datasets are listed.
    fn accept_held(&mut self, id: SubmissionId, actions: &mut Vec<Action>) {
        let Some(held) = self.questions.held(id) else { return };
        let plan_for = |listing: Listing| held.plans.iter().find(|plan| listing.is_answered_by(plan)).cloned();
        let plans: Option<Vec<DatasetPlan>> = held.work.listings().map(|(_, listing)| plan_for(listing)).collect();
        let Some(plans) = plans else { return };
        let Some(mut submission) = self.questions.release(id) else { return };
        // Policy and job may have changed meanwhile.
        let checked = self.check_work(submission.tenant, &mut submission.work);
        let result =
            checked.and_then(|()| self.accept(submission.tenant, submission.key, submission.work, plans, actions));
        let reply = result.unwrap_or_else(Reply::Refused);
        for request in submission.requests {
            actions.push(Action::Reply { request, reply: reply.clone() });
        }
    }

    pub(crate) fn refuse_held(&mut self, id: SubmissionId, refusal: Refusal, actions: &mut Vec<Action>) {
        let Some(submission) = self.questions.release(id) else { return };
        for request in submission.requests {
            actions.push(Action::Reply { request, reply: Reply::Refused(refusal.clone()) });
        }
    }
}
