//! What actions do: answers to requests, messages to hosts, events for watchers.
//!
//! Owned by the writer thread, which calls this in the order of the actions and after their records are written.
//! Nothing here blocks: who does not take what is meant for him is cut off.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use partita_core::{Action, HostCommand, JobEvent, Reply, RequestId};
use partita_identity::ticket::TicketKey;
use partita_protocol::PARTITIONS_PER_MESSAGE;
use partita_protocol::host::scheduler_message::Message;
use partita_protocol::host::{
    AttemptList, CopyPartitions, InspectModule, PartitionList, PlanDataset, SchedulerMessage,
};
use partita_types::{HostId, HostTenant, Welcome};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::{Link, Step};
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::tickets::Tickets;

/// How often a host says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// The state of what goes out.
pub(crate) struct Effects {
    hub: Arc<Hub>,
    metrics: Metrics,
    /// Requests without a reply; as many as there are calls in progress.
    waiting: HashMap<RequestId, oneshot::Sender<Reply>>,
    sessions: BTreeMap<HostId, Link>,
    /// Sessions that the core has not welcomed yet.
    arriving: BTreeMap<HostId, Link>,
    tickets: Tickets,
    /// The last report of each host that was worked on since the last flush.
    reports: BTreeMap<HostId, (u64, u64)>,
}

impl Effects {
    pub(crate) fn new(hub: Arc<Hub>, metrics: Metrics) -> Self {
        Self {
            hub,
            metrics,
            waiting: HashMap::new(),
            sessions: BTreeMap::new(),
            arriving: BTreeMap::new(),
            tickets: Tickets::default(),
            reports: BTreeMap::new(),
        }
    }

    /// Does one step.
    pub(super) fn perform(&mut self, step: Step) {
        match step {
            Step::Act(action) => self.act(action),
            Step::Expect { request, answer } => {
                self.waiting.insert(request, answer);
            }
            Step::Deliver(deliver) => deliver(),
            // Begun by the writer, which owns the journal.
            Step::Compact(_) => {}
            Step::Arrive { host, link } => {
                if let Some(earlier) = self.arriving.insert(host, link) {
                    earlier.closed.cancel();
                }
            }
            Step::Reported { host, serial, number } => {
                self.reports.insert(host, (serial, number));
            }
            Step::Tell { host, message, told } => {
                // Whoever asked may be gone.
                let _ = told.send(self.send(host, *message));
            }
        }
    }

    /// Everything performed so far is on disk: watchers may see it, and hosts may forget their reports.
    pub(super) fn all_on_disk(&mut self) {
        self.hub.reveal();
        for (host, (serial, number)) in std::mem::take(&mut self.reports) {
            if self.sessions.get(&host).is_some_and(|link| link.serial == serial) {
                self.message(host, Message::AcknowledgedReport(number));
            }
        }
    }

    /// Whether somebody watches a job that has events which are not on disk.
    pub(super) fn watchers_wait(&self) -> bool {
        self.hub.watchers_wait()
    }

    /// Ends all sessions.
    pub(super) fn end(&mut self) {
        for link in self.sessions.values().chain(self.arriving.values()) {
            link.closed.cancel();
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            // Written already, as one batch with its neighbours.
            Action::Persist(_) => {}
            Action::Reply { request, reply } => {
                if let Some(answer) = self.waiting.remove(&request) {
                    // A client that went away is told to the core by its call.
                    let _ = answer.send(reply);
                }
            }
            Action::Command { host, command } => self.command(host, command),
            Action::Publish { job, event } => {
                if let JobEvent::TasksEnded { end, tasks, .. } = &event {
                    self.metrics.tasks_ended(*end, tasks.iter().map(|(_, count)| u64::from(*count)).sum());
                }
                self.hub.publish(job, event);
            }
            Action::Unpublish(job) => self.hub.forget(job),
            Action::Disconnect { host, reason } => {
                warn!(host = host.0, reason, "session closed");
                if let Some(link) = self.sessions.remove(&host) {
                    link.closed.cancel();
                    self.metrics.sessions.set(i64::try_from(self.sessions.len()).unwrap_or(i64::MAX));
                }
            }
        }
    }

    fn command(&mut self, host: HostId, command: HostCommand) {
        let message = match command {
            HostCommand::Welcome { tenants } => {
                if let Some(link) = self.arriving.remove(&host)
                    && let Some(earlier) = self.sessions.insert(host, link)
                {
                    earlier.closed.cancel();
                }
                self.metrics.sessions.set(i64::try_from(self.sessions.len()).unwrap_or(i64::MAX));
                self.welcome(host, tenants)
            }
            // The same words as in the beginning of a session; it names those only of which something is new.
            HostCommand::Tenants(tenants) => self.welcome(host, tenants),
            HostCommand::Assign { arrays, mut frames } => {
                let Some(link) = self.sessions.get(&host) else { return };
                for frame in &mut frames {
                    self.tickets.fill_in(host, &link.name, frame);
                }
                let arrays = arrays.into_iter().map(Into::into).collect();
                let frames = frames.into_iter().map(Into::into).collect();
                Message::Assignment(partita_protocol::host::Assignment { arrays, frames })
            }
            HostCommand::Cancel(attempts) => Message::Cancel(AttemptList::from_attempts(&attempts)),
            HostCommand::Retract(frames) => {
                let frames = frames.into_iter().map(|frame| frame.0).collect();
                Message::Retract(partita_protocol::host::FrameList { frames })
            }
            HostCommand::Drop(partitions) => {
                let lists = partitions.chunks(PARTITIONS_PER_MESSAGE);
                return lists.for_each(|part| {
                    self.message(host, Message::Drop(PartitionList::from_ids(part.iter().copied())));
                });
            }
            HostCommand::InspectModule { request, tenant, module } => Message::InspectModule(InspectModule {
                request: request.0,
                tenant: tenant.0,
                module: module.0.to_vec().into(),
            }),
            HostCommand::PlanDataset { request, tenant, dataset, split, limit } => Message::PlanDataset(PlanDataset {
                request: request.0,
                tenant: tenant.0,
                name: dataset.into(),
                split_bytes: split.0,
                limit_bytes: limit.map(|limit| limit.0),
            }),
            HostCommand::Copy { order, mut source, partitions } => {
                let Some(link) = self.sessions.get(&host) else { return };
                self.tickets.for_copy(&link.name, &mut source, &partitions);
                Message::Copy(CopyPartitions {
                    order: order.0,
                    source: Some(source.into()),
                    partitions: Some(PartitionList::from_stored(&partitions)),
                })
            }
        };
        self.message(host, message);
    }

    fn welcome(&mut self, host: HostId, tenants: Vec<HostTenant>) -> Message {
        let TicketKey(ticket_key) = self.tickets.key(host);
        Message::Welcome(Welcome { host, heartbeat: HEARTBEAT, ticket_key, tenants }.into())
    }

    fn message(&mut self, host: HostId, message: Message) -> bool {
        self.send(host, SchedulerMessage { message: Some(message) })
    }

    /// Queues a message; false if there is no session, or not any more.
    fn send(&mut self, host: HostId, message: SchedulerMessage) -> bool {
        let Some(link) = self.sessions.get(&host) else { return false };
        match link.outbox.try_send(message) {
            Ok(()) => true,
            Err(error) => {
                if matches!(error, mpsc::error::TrySendError::Full(_)) {
                    warn!(host = %link.name, "session closed: the host does not read its messages");
                }
                // The session's own end tells the core.
                link.closed.cancel();
                self.sessions.remove(&host);
                self.metrics.sessions.set(i64::try_from(self.sessions.len()).unwrap_or(i64::MAX));
                false
            }
        }
    }
}
