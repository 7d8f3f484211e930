//! The scheduler's process in the simulation: the real core, and a model of the service around it. Actions queue behind
//! their records; what a client or a host sees, it sees after the record is where it must be.

use std::collections::BTreeMap;

use partita_core::{Action, Core, Event, HostCommand, HostMessage, JobEvent, Record, Reply, Request, RequestId};
use partita_testkit::MODULE;
use partita_types::{ByteSize, FunctionInfo, HostId, Incarnation, JobId, ModuleInfo, TenantId, TenantName, Timestamp};

use crate::disk::Disk;
use crate::hub::Hub;
use crate::network::Session;
use crate::plan::Moment;
use crate::plant::Plant;
use crate::world::{Step, Word, World};
use crate::{Checked, ensure};

/// How long until a record that nobody waits for is on disk.
const FLUSH_WITHIN: u64 = 20_000;
/// How long a flush takes on a good disk.
const FLUSH: u64 = 300;
/// How long the writer gathers at most before it writes.
const GATHER: u64 = 200;

/// Something that waits for its turn behind the records.
#[derive(Debug)]
enum Out {
    Act(Action),
    /// The core took a host in; its link takes over with the welcome behind this.
    Arrive(HostId, Session),
    /// What the core made of a report, or of the ends in a hello, is all before this.
    Reported(Session, u64),
}

/// The scheduler's process.
#[derive(Debug)]
pub(crate) struct Scheduler {
    core: Option<Core>,
    /// Counts starts; steps of an earlier one are void.
    pub(crate) life: u64,
    pub(crate) stalled_until: u64,
    /// When this life began.
    pub(crate) started: u64,
    /// It dies at the next such moment, and starts again after so long.
    pub(crate) dies_at: Option<(Moment, u64)>,
    queue: Vec<Out>,
    /// What waits for the flush that is under way.
    flushing: Option<Vec<Out>>,
    write_planned: bool,
    flush_planned: bool,
    pub(crate) disk: Disk,
    /// The session that speaks for each host.
    sessions: BTreeMap<HostId, Session>,
    /// The session through which each host is spoken to.
    links: BTreeMap<HostId, Session>,
    /// Reports that were worked on since the last flush.
    reported: Vec<(Session, u64)>,
    /// Which client waits for which answer.
    waiting: BTreeMap<RequestId, (usize, u64)>,
    pub(crate) requests: u64,
    pub(crate) hub: Hub,
}

impl Scheduler {
    /// One that was never started, with a journal that knows tenants and their module.
    pub(crate) fn new(tenants: usize, at: Timestamp) -> Self {
        let mut disk = Disk::default();
        disk.flush = FLUSH;
        let function = FunctionInfo { name: "work".to_owned(), doc: String::new(), inputs: None, outputs: None };
        let info = ModuleInfo { id: MODULE, name: "m".to_owned(), size: ByteSize(1), functions: vec![function] };
        for number in 0..tenants {
            let id = TenantId(number as u32);
            let name = TenantName::new(&crate::plan::tenant_name(number)).expect("a good name");
            let module = Record::ModuleAdded { tenant: id, info: info.clone(), at };
            disk.append(&[Record::TenantAdded { id, name }, module]).expect("an empty disk has room");
        }
        disk.sync();
        Self {
            core: None,
            life: 0,
            stalled_until: 0,
            started: 0,
            dies_at: None,
            queue: Vec::new(),
            flushing: None,
            write_planned: false,
            flush_planned: false,
            disk,
            sessions: BTreeMap::new(),
            links: BTreeMap::new(),
            reported: Vec::new(),
            waiting: BTreeMap::new(),
            requests: 0,
            hub: Hub::default(),
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.core.is_some()
    }

    /// The core, while the process runs.
    pub(crate) fn core(&self) -> Option<&Core> {
        self.core.as_ref()
    }

    /// What hosts are told by what waits from this place on.
    pub(crate) fn commands_since(&self, place: usize) -> impl Iterator<Item = (HostId, &HostCommand)> {
        self.queue[place..].iter().filter_map(|out| match out {
            Out::Act(Action::Command { host, command }) => Some((*host, command)),
            _ => None,
        })
    }

    /// Whether the journal has everything that the core did.
    pub(crate) fn has_written_everything(&self) -> bool {
        self.queue.is_empty() && self.flushing.is_none()
    }

    /// When the core wants to be told the time.
    pub(crate) fn deadline(&self) -> Option<u64> {
        let deadline = self.core.as_ref()?.next_deadline()?;
        Some(deadline.micros.max(self.stalled_until))
    }

    /// The number that the core gave a host, if it speaks through this session.
    fn host_of(&self, session: Session) -> Option<HostId> {
        self.sessions.iter().find(|(_, known)| **known == session).map(|(id, _)| *id)
    }

    /// The session that the core knows of a host.
    pub(crate) fn session_of(&self, id: HostId) -> Option<Session> {
        self.sessions.get(&id).copied()
    }

    /// The position of the host that has a number.
    pub(crate) fn position_of(&self, id: HostId) -> Option<usize> {
        self.sessions.get(&id).map(|session| session.host)
    }
}

impl World {
    /// Applies an event to the core, if there is one.
    pub(crate) fn apply(&mut self, event: Event) -> Checked {
        let now = self.timestamp();
        let Some(core) = self.scheduler.core.as_mut() else { return Ok(()) };
        self.log.note(self.now, || format!("  {event:?}"));
        let mut actions = Vec::new();
        core.apply(now, event, &mut actions);
        for action in &actions {
            self.log.note(self.now, || format!("    {action:?}"));
            self.watch_action(action)?;
        }
        self.scheduler.queue.extend(actions.into_iter().map(Out::Act));
        self.plan_write();
        self.attempts_of_ended_tasks_are_stopped()?;
        self.check_after_event()
    }

    fn plan_write(&mut self) {
        let scheduler = &mut self.scheduler;
        if !scheduler.queue.is_empty() && scheduler.flushing.is_none() && !scheduler.write_planned {
            scheduler.write_planned = true;
            let life = scheduler.life;
            let wait = self.random.disk.below(GATHER);
            self.plan_step(wait, Step::Write { life });
        }
    }

    /// The writer appends the records of everything that waits, and flushes if an answer depends on it.
    pub(crate) fn write(&mut self, life: u64) -> Checked {
        if self.scheduler.life != life || !self.scheduler.is_up() {
            return Ok(());
        }
        self.scheduler.write_planned = false;
        let out = std::mem::take(&mut self.scheduler.queue);
        let persists =
            |out: &Out| if let Out::Act(Action::Persist(record)) = out { Some(record.clone()) } else { None };
        let records: Vec<Record> = out.iter().filter_map(persists).collect();
        if !records.is_empty() && self.scheduler.disk.append(&records).is_err() {
            return self.stop_for_want_of_room();
        }
        if records.iter().any(Record::durable_before_visible) && self.plant != Some(Plant::SkippedFlush) {
            self.scheduler.flushing = Some(out);
            let wait = self.scheduler.disk.flush;
            self.plan_step(wait, Step::Flushed { life });
            self.at_moment(Moment::Unflushed);
            return Ok(());
        }
        if self.scheduler.disk.is_dirty() && !self.scheduler.flush_planned {
            self.scheduler.flush_planned = true;
            let wait = FLUSH_WITHIN.max(self.scheduler.disk.flush);
            self.plan_step(wait, Step::FlushLater { life });
        }
        self.perform(out)?;
        if !self.scheduler.disk.is_dirty() {
            self.all_on_disk();
        }
        self.plan_write();
        Ok(())
    }

    pub(crate) fn on_flushed(&mut self, life: u64) -> Checked {
        if self.scheduler.life != life || !self.scheduler.is_up() {
            return Ok(());
        }
        self.scheduler.disk.sync();
        if let Some(out) = self.scheduler.flushing.take() {
            self.perform(out)?;
        }
        self.all_on_disk();
        self.plan_write();
        Ok(())
    }

    pub(crate) fn flush_later(&mut self, life: u64) {
        if self.scheduler.life == life && self.scheduler.is_up() {
            self.scheduler.flush_planned = false;
            // While a flush is under way, what was appended becomes safe, and visible, with that one.
            if self.scheduler.flushing.is_none() {
                self.scheduler.disk.sync();
                self.all_on_disk();
            }
        }
    }

    /// Everything performed so far is on disk: watchers may see it, and hosts may forget their reports.
    fn all_on_disk(&mut self) {
        self.scheduler.hub.reveal();
        for (session, report) in std::mem::take(&mut self.scheduler.reported) {
            if self.scheduler.links.values().any(|link| *link == session) {
                let wait = self.delay();
                let Session { host, serial } = session;
                self.plan_step(wait, Step::Acknowledged { host, session: serial, report });
            }
        }
    }

    fn stop_for_want_of_room(&mut self) -> Checked {
        self.crash_scheduler()?;
        let wait = self.random.processes.between(500_000, 3_000_000);
        self.plan_step(wait, Step::StartScheduler);
        Ok(())
    }

    fn perform(&mut self, out: Vec<Out>) -> Checked {
        for out in out {
            match out {
                Out::Arrive(id, session) => drop(self.scheduler.links.insert(id, session)),
                Out::Reported(session, number) => self.scheduler.reported.push((session, number)),
                Out::Act(Action::Persist(record)) => drop(record),
                Out::Act(Action::Reply { request, reply }) => self.reply(request, reply)?,
                Out::Act(Action::Command { host, command }) => {
                    if let HostCommand::Assign { frames, .. } = &command {
                        frames.iter().try_for_each(|frame| self.history.no_attempt_is_named_twice(frame))?;
                    }
                    if let Some(session) = self.scheduler.links.get(&host).copied() {
                        self.send_to_host(session, command);
                    }
                }
                Out::Act(Action::Publish { job, event }) => self.scheduler.hub.publish(job, event),
                Out::Act(Action::Unpublish(job)) => self.scheduler.hub.forget(job),
                Out::Act(Action::Disconnect { host, .. }) => {
                    if let Some(session) = self.scheduler.links.remove(&host) {
                        let wait = self.delay();
                        self.plan_step(wait, Step::Closed { host: session.host, session: session.serial });
                    }
                }
            }
        }
        Ok(())
    }

    fn reply(&mut self, request: RequestId, reply: Reply) -> Checked {
        let Some((client, serial)) = self.scheduler.waiting.remove(&request) else { return Ok(()) };
        self.acknowledge(client, &reply)?;
        self.at_moment(Moment::Answered);
        if !self.healed && self.random.network.chance(self.plan.lost_messages) {
            return Ok(());
        }
        let wait = self.delay();
        self.plan_step(wait, Step::Answered { client, serial, reply });
        Ok(())
    }

    /// A client's request arrives.
    pub(crate) fn on_asked(&mut self, client: usize, serial: u64, what: Request) -> Checked {
        if !self.scheduler.is_up() {
            return Ok(());
        }
        self.history.conduct.asks(&what);
        if let Request::Release(job) = &what {
            self.history.asks_for_release(*job);
        }
        self.scheduler.requests += 1;
        let request = RequestId(self.scheduler.requests);
        self.scheduler.waiting.insert(request, (client, serial));
        self.apply(Event::Requested { request, what })
    }

    /// A client waits no longer; usually its call tells the core.
    pub(crate) fn abandon(&mut self, client: usize, serial: u64) -> Checked {
        let found = self.scheduler.waiting.iter().find(|(_, waiting)| **waiting == (client, serial));
        let Some(request) = found.map(|(request, _)| *request) else { return Ok(()) };
        self.scheduler.waiting.remove(&request);
        self.apply(Event::Abandoned(request))
    }

    /// Something from a host arrives.
    pub(crate) fn on_word(&mut self, position: usize, session: u64, incarnation: Incarnation, word: Word) -> Checked {
        if !self.scheduler.is_up() {
            return Ok(());
        }
        let link = Session { host: position, serial: session };
        match word {
            Word::Hello(last, hello) => {
                let stale = self.hosts[position].session != session;
                if stale && !self.is_stray() {
                    return Ok(());
                }
                let name = hello.name.clone();
                let incarnation = hello.incarnation;
                let held = hello.held.clone();
                let before = self.scheduler.queue.len();
                self.apply(Event::HostAttached(hello))?;
                let Some(id) = self.scheduler.core().and_then(|core| core.host(&name)) else { return Ok(()) };
                let welcomes = |out: &Out| matches!(out, Out::Act(Action::Command { host, command: HostCommand::Welcome { .. } }) if *host == id);
                let welcome = self.scheduler.queue[before..].iter().position(welcomes);
                if let Some(place) = welcome {
                    let stopped = self.stopped_since(before, id);
                    self.a_host_goes_on_only_with_its_own(id, &held, &stopped)?;
                    self.scheduler.queue.insert(before + place, Out::Arrive(id, link));
                    self.scheduler.sessions.insert(id, link);
                    self.history.attached(name, incarnation);
                    self.scheduler.queue.push(Out::Reported(link, last));
                }
                Ok(())
            }
            Word::Report(number, report) => {
                self.on_said(link, incarnation, HostMessage::Report(report))?;
                self.scheduler.queue.push(Out::Reported(link, number));
                self.plan_write();
                Ok(())
            }
            Word::Said(message) => self.on_said(link, incarnation, message),
        }
    }

    /// Something from a host within a session.
    fn on_said(&mut self, link: Session, incarnation: Incarnation, message: HostMessage) -> Checked {
        let known = self.scheduler.host_of(link);
        let by_name = || self.scheduler.core().and_then(|core| core.host(&self.hosts[link.host].name));
        // The service lets nothing of an ended session through. The core must not depend on that.
        let host = known.or_else(by_name);
        if known.is_none() && !self.is_stray() {
            return Ok(());
        }
        match host {
            Some(host) => self.hear(host, incarnation, message),
            None => Ok(()),
        }
    }

    fn hear(&mut self, host: HostId, incarnation: Incarnation, message: HostMessage) -> Checked {
        let name =
            self.scheduler.core().and_then(|core| core.hosts().get(host.0 as usize).map(|view| view.name.clone()));
        let current = name.as_ref().and_then(|name| self.history.incarnation(name)) == Some(incarnation);
        if current
            && let Some(name) = name
            && let HostMessage::Retracted { frame, given: true } = message
        {
            let attempts = self.history.given_back(host, frame);
            self.a_task_is_not_moved_to_and_fro(&name, &attempts)?;
        }
        let event = Event::FromHost { host, incarnation, message };
        if current { self.apply(event) } else { self.apply_old_news(event) }
    }

    pub(crate) fn on_noticed(&mut self, position: usize, session: u64) -> Checked {
        let link = Session { host: position, serial: session };
        let Some(id) = self.scheduler.host_of(link) else { return Ok(()) };
        self.scheduler.sessions.remove(&id);
        match self.history.incarnation(&self.hosts[position].name) {
            Some(incarnation) => self.apply(Event::HostDetached { host: id, incarnation }),
            None => Ok(()),
        }
    }

    /// The scheduler dies, with what was not on disk.
    pub(crate) fn crash_scheduler(&mut self) -> Checked {
        if !self.scheduler.is_up() {
            return Ok(());
        }
        self.scheduler.disk.corruption_is_refused(&mut self.random.disk)?;
        self.scheduler.disk.crash(&mut self.random.disk);
        let scheduler = &mut self.scheduler;
        scheduler.core = None;
        scheduler.life += 1;
        scheduler.queue.clear();
        scheduler.flushing = None;
        (scheduler.write_planned, scheduler.flush_planned) = (false, false);
        (scheduler.stalled_until, scheduler.dies_at) = (0, None);
        scheduler.sessions.clear();
        scheduler.links.clear();
        scheduler.waiting.clear();
        scheduler.reported.clear();
        for host in 0..self.hosts.len() {
            let session = self.hosts[host].session;
            let wait = self.random.network.below(2_000_000);
            self.plan_step(wait, Step::Closed { host, session });
        }
        Ok(())
    }

    /// The scheduler starts from what is on its disk.
    pub(crate) fn start_scheduler(&mut self) -> Checked {
        if self.scheduler.is_up() {
            return Ok(());
        }
        let mut records = self.scheduler.disk.replay()?;
        if self.plant == Some(Plant::ReplayTwice) && records.len() > 40 {
            let again = records.split_off(records.len() - 5);
            records.extend(again.iter().cloned().chain(again.clone()));
        }
        let (core, events) = self.restored(&records);
        self.check_restart(&core, &events, &records)?;
        let before = std::mem::take(&mut self.scheduler.hub);
        for (job, event) in events {
            match event {
                Some(event) => self.scheduler.hub.publish(job, event),
                None => self.scheduler.hub.forget(job),
            }
        }
        self.scheduler.hub.reveal();
        self.check_events_after_restart(&before)?;
        (self.scheduler.core, self.scheduler.started) = (Some(core), self.now);
        for number in 0..self.plan.tenants.len() {
            let policy = self.policies[number].policy(number);
            self.apply(Event::TenantDefined(policy))?;
        }
        Ok(())
    }

    /// A core that was restored from records, and what it published; nothing stands for events that are forgotten.
    pub(crate) fn restored(&self, records: &[Record]) -> (Core, Vec<(JobId, Option<JobEvent>)>) {
        let mut core = Core::new();
        if let Some(plant) = self.plant {
            plant.put_into(&mut core);
        }
        let mut actions = Vec::new();
        for record in records {
            core.restore(record, &mut actions);
        }
        let mut events = Vec::new();
        for action in actions {
            match action {
                Action::Publish { job, event } => events.push((job, Some(event))),
                Action::Unpublish(job) => events.push((job, None)),
                // A replay asks for nothing else; `check_restart` counts on it.
                Action::Persist(_) | Action::Reply { .. } | Action::Command { .. } | Action::Disconnect { .. } => {}
            }
        }
        (core, events)
    }

    /// Asks the core something and waits for the answer.
    pub(crate) fn ask(&mut self, what: Request) -> Result<Option<Reply>, partita_core::Violation> {
        let client = self.clients.len();
        let serial = self.next_serial();
        self.history.answers.remove(&serial);
        let asked = format!("{what:?}");
        self.on_asked(client, serial, what)?;
        // Longer than what cannot run as limits are is waited for.
        let end = self.now + 1_200_000_000;
        self.run_until(end, |world| world.history.answers.contains_key(&serial))?;
        ensure(self.history.answers.contains_key(&serial), "every_request_is_answered", || asked)?;
        Ok(self.history.answers.remove(&serial))
    }
}
