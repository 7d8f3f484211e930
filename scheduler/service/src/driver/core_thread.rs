//! The thread that owns the core: inputs in, steps out, a tick when one is due.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use partita_core::{Action, Core, Event, HostCommand, HostHello, HostMessage, RequestId};
use partita_types::{ByteSize, DatasetName, HostId, Timestamp};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Failed, FromHost, Input, Link, SessionId, Step};
use crate::metrics::Metrics;

/// Inputs applied before their steps are passed on; bounds the delay of the first one.
const ROUND: usize = 256;
/// Listings of datasets that hosts have not answered.
const LISTINGS: usize = 1_024;
/// A deadline that is due is waited for at least this long, so that a core that always has one cannot spin.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
/// Longest wait without any deadline.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

pub(super) struct CoreThread {
    core: Core,
    steps: SyncSender<Vec<Step>>,
    metrics: Metrics,
    /// The session that speaks for each host.
    sessions: BTreeMap<HostId, SessionId>,
    /// Time as the core sees it never goes back.
    now: Timestamp,
    actions: Vec<Action>,
    round: Vec<Step>,
    /// What hosts were asked to list, because their answers do not repeat it.
    listings: BTreeMap<RequestId, (DatasetName, ByteSize, Option<ByteSize>)>,
    /// Set by the writer when the journal is worth a compaction.
    compaction_due: Arc<AtomicBool>,
}

impl CoreThread {
    pub(super) fn new(
        core: Core,
        steps: SyncSender<Vec<Step>>,
        metrics: Metrics,
        compaction_due: Arc<AtomicBool>,
    ) -> Self {
        let now = partita_identity::now();
        let (sessions, listings) = (BTreeMap::new(), BTreeMap::new());
        Self { core, steps, metrics, sessions, now, actions: Vec::new(), round: Vec::new(), listings, compaction_due }
    }

    /// Runs until `stop` is cancelled and the inbox is empty, or the writer is gone, which reports why by itself.
    pub(super) fn run(&mut self, inputs: &mut mpsc::Receiver<Input>, stop: &CancellationToken) -> Result<(), Failed> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| Failed::new(format!("cannot make the core's timer: {error}")))?;
        let mut received = Vec::with_capacity(ROUND);
        let mut stopping = false;
        loop {
            let wait = self.wait();
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = stop.cancelled(), if !stopping => { stopping = true; inputs.close(); }
                    _ = inputs.recv_many(&mut received, ROUND) => {}
                    () = tokio::time::sleep(wait) => {}
                }
            });
            if stopping && received.is_empty() && inputs.is_empty() {
                return Ok(());
            }
            for input in received.drain(..) {
                self.take(input);
            }
            self.tick();
            if self.compaction_due.swap(false, Ordering::Relaxed) {
                self.round.push(Step::Compact(self.core.compaction()));
            }
            let round = std::mem::take(&mut self.round);
            if !round.is_empty() && self.steps.send(round).is_err() {
                return Ok(());
            }
        }
    }

    fn time(&mut self) -> Timestamp {
        self.now = self.now.max(partita_identity::now());
        self.now
    }

    fn wait(&mut self) -> Duration {
        let now = self.time();
        let until = self.core.next_deadline().map_or(LONGEST_WAIT, |deadline| deadline.since(now));
        until.clamp(SHORTEST_WAIT, LONGEST_WAIT)
    }

    fn tick(&mut self) {
        let now = self.time();
        if self.core.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.apply(Event::Ticked);
        }
    }

    fn apply(&mut self, event: Event) {
        let now = self.time();
        self.metrics.events.inc();
        self.core.apply(now, event, &mut self.actions);
        for action in &self.actions {
            if let Action::Command {
                command: HostCommand::PlanDataset { request, dataset, split, limit, .. }, ..
            } = action
            {
                self.listings.insert(*request, (dataset.clone(), *split, *limit));
            }
        }
        // Those of hosts that never answered; the oldest have the smallest numbers.
        while self.listings.len() > LISTINGS {
            self.listings.pop_first();
        }
        self.round.extend(self.actions.drain(..).map(Step::Act));
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Event(event) => self.apply(event),
            Input::Request { request, what, answer } => {
                self.round.push(Step::Expect { request, answer });
                self.apply(Event::Requested { request, what });
            }
            Input::Query(query) => self.round.push(Step::Deliver(query(&self.core))),
            Input::Attach { hello, reported, link, attached } => self.attach(*hello, reported, link, attached),
            Input::FromHost(from) => self.hear(from),
            Input::Detach(session) => {
                if self.sessions.get(&session.host) == Some(&session) {
                    self.sessions.remove(&session.host);
                    self.apply(Event::HostDetached { host: session.host, incarnation: session.incarnation });
                }
            }
            Input::Lost { host, partitions } => {
                if let Some(&SessionId { incarnation, .. }) = self.sessions.get(&host) {
                    let message = HostMessage::Lost(partitions);
                    self.apply(Event::FromHost { host, incarnation, message });
                }
            }
            Input::Tell { host, message, told } => self.round.push(Step::Tell { host, message, told }),
        }
    }

    /// Opens a session, if the core welcomes the host.
    fn attach(&mut self, hello: HostHello, reported: u64, link: Link, attached: oneshot::Sender<SessionId>) {
        let (name, incarnation, serial) = (hello.name.clone(), hello.incarnation, link.serial);
        let before = self.round.len();
        self.apply(Event::HostAttached(hello));
        let Some(host) = self.core.host(&name) else { return };
        let is_welcome = |step: &Step| matches!(step, Step::Act(Action::Command { host: to, command: HostCommand::Welcome { .. } }) if *to == host);
        if !self.round[before..].iter().any(is_welcome) {
            self.metrics.stale_messages.inc();
            return;
        }
        // The link goes ahead of the welcome that takes it. It comes behind the event all the same, because only
        // then the number of a new host is known.
        self.round.insert(before, Step::Arrive { host, link });
        if reported > 0 {
            self.round.push(Step::Reported { host, serial, number: reported });
        }
        let session = SessionId { host, incarnation, serial };
        self.sessions.insert(host, session);
        // A session that is gone by now is detached by its own end.
        let _ = attached.send(session);
    }

    fn hear(&mut self, from: FromHost) {
        let SessionId { host, incarnation, serial } = from.session;
        if self.sessions.get(&host) != Some(&from.session) {
            self.metrics.stale_messages.inc();
            return;
        }
        let mut message = from.message;
        if let HostMessage::DatasetPlanned { request, result } = &mut message
            && let Some(listing) = self.listings.remove(request)
            && let Ok(plan) = result
        {
            (plan.dataset, plan.split, plan.limit) = listing;
        }
        self.apply(Event::FromHost { host, incarnation, message });
        if let Some(number) = from.report {
            self.round.push(Step::Reported { host, serial, number });
        }
        if let Some(done) = from.done {
            self.round.push(Step::Deliver(done));
        }
    }
}
