//! Questions that only a host can answer: what is in a module, what is in a dataset. Whoever waits for the answer waits here.
//!
//! A question is asked again at another host when the one that has it goes away.

use std::collections::BTreeMap;

use partita_types::{ByteSize, DatasetName, DatasetPlan, HostId, ModuleId, TenantId};

use crate::Core;
use crate::action::{Action, HostCommand, Refusal, Reply};
use crate::event::RequestId;
use crate::submission::Submission;

/// Names a submission that waits for answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SubmissionId(u64);

/// A module that is being looked at.
#[derive(Debug, Clone)]
pub(crate) struct Inspection {
    pub(crate) request: RequestId,
    pub(crate) tenant: TenantId,
    pub(crate) module: ModuleId,
    pub(crate) name: String,
    pub(crate) size: ByteSize,
}

/// A dataset to list, in a way to split it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) dataset: DatasetName,
    pub(crate) split: ByteSize,
    pub(crate) limit: Option<ByteSize>,
}

impl Listing {
    pub(crate) fn is_answered_by(&self, plan: &DatasetPlan) -> bool {
        (&self.dataset, self.split, self.limit) == (&plan.dataset, plan.split, plan.limit)
    }
}

/// What a host was asked.
#[derive(Debug, Clone)]
pub(crate) enum Question {
    Inspect(Inspection),
    Plan { submission: SubmissionId, tenant: TenantId, listing: Listing },
}

impl Question {
    fn tenant(&self) -> TenantId {
        match self {
            Self::Inspect(inspection) => inspection.tenant,
            Self::Plan { tenant, .. } => *tenant,
        }
    }

    fn command(&self, request: RequestId) -> HostCommand {
        match self {
            Self::Inspect(Inspection { tenant, module, .. }) => {
                HostCommand::InspectModule { request, tenant: *tenant, module: *module }
            }
            Self::Plan { tenant, listing, .. } => HostCommand::PlanDataset {
                request,
                tenant: *tenant,
                dataset: listing.dataset.clone(),
                split: listing.split,
                limit: listing.limit,
            },
        }
    }

    const fn what(&self) -> &'static str {
        match self {
            Self::Inspect(_) => "inspect a module",
            Self::Plan { .. } => "list a dataset",
        }
    }
}

/// Everything that waits for an answer of a host.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    last: u64,
    asked: BTreeMap<RequestId, (HostId, Question)>,
    waiting: BTreeMap<SubmissionId, Submission>,
}

impl Questions {
    /// Lets a submission wait.
    pub(crate) fn hold(&mut self, submission: Submission) -> SubmissionId {
        self.last += 1;
        let id = SubmissionId(self.last);
        self.waiting.insert(id, submission);
        id
    }

    pub(crate) fn held(&mut self, id: SubmissionId) -> Option<&mut Submission> {
        self.waiting.get_mut(&id)
    }

    pub(crate) fn all_held(&mut self) -> impl Iterator<Item = &mut Submission> {
        self.waiting.values_mut()
    }

    /// Takes a submission out, with all its questions.
    pub(crate) fn release(&mut self, id: SubmissionId) -> Option<Submission> {
        self.asked
            .retain(|_, (_, question)| !matches!(question, Question::Plan { submission, .. } if *submission == id));
        self.waiting.remove(&id)
    }

    /// Forgets a request whose client went away.
    pub(crate) fn forget(&mut self, request: RequestId) {
        self.asked.retain(|_, (_, question)| !matches!(question, Question::Inspect(of) if of.request == request));
        let mut forgotten = Vec::new();
        for (id, submission) in &mut self.waiting {
            submission.requests.retain(|waiting| *waiting != request);
            if submission.requests.is_empty() {
                forgotten.push(*id);
            }
        }
        for id in forgotten {
            self.release(id);
        }
    }

    /// The question that a host answers.
    pub(crate) fn answered(&mut self, host: HostId, request: RequestId) -> Option<Question> {
        let (asked, _) = self.asked.get(&request)?;
        if *asked != host {
            return None;
        }
        self.asked.remove(&request).map(|(_, question)| question)
    }
}

impl Core {
    /// The host that is best asked for something on behalf of a tenant: the least busy one that may work for it.
    pub(crate) fn host_to_ask(&self, tenant: TenantId) -> Option<HostId> {
        let policy = self.tenants.get(tenant.0 as usize)?.policy.as_ref()?;
        let fit = |host: &&crate::host::Host| host.is_attached() && host.isolation >= policy.minimum_isolation;
        self.hosts
            .iter()
            .filter(fit)
            .min_by_key(|host| (host.drain.is_some(), host.frames.len(), host.id))
            .map(|host| host.id)
    }

    /// Asks a host.
    pub(crate) fn ask(&mut self, question: Question, actions: &mut Vec<Action>) -> Result<(), Refusal> {
        let host = self.host_to_ask(question.tenant()).ok_or(Refusal::NoHost { what: question.what() })?;
        // Numbers go on from the clock, so that an answer to an earlier process of the scheduler fits no question.
        self.questions.last = self.questions.last.max(self.now.micros) + 1;
        let request = RequestId(self.questions.last);
        actions.push(Action::Command { host, command: question.command(request) });
        self.questions.asked.insert(request, (host, question));
        Ok(())
    }

    /// Asks again what a host was asked that went away.
    pub(crate) fn ask_again(&mut self, host: HostId, actions: &mut Vec<Action>) {
        let asked = self.questions.asked.iter().filter(|(_, (asked, _))| *asked == host);
        let requests: Vec<RequestId> = asked.map(|(request, _)| *request).collect();
        for request in requests {
            let Some((_, question)) = self.questions.asked.remove(&request) else { continue };
            let Err(refusal) = self.ask(question.clone(), actions) else { continue };
            match question {
                Question::Inspect(inspection) => {
                    let reply = Reply::Refused(refusal);
                    actions.push(Action::Reply { request: inspection.request, reply });
                }
                Question::Plan { submission, .. } => self.refuse_held(submission, refusal, actions),
            }
        }
    }
}
