//! The simulated world: one queue of steps in the order of time, and one generator of random numbers per concern.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use partita_core::{
    Action, Core, Event, HostCommand, HostMessage, JobEnd, JobEvent, Record, Reply, Request, RequestId,
};
use partita_testkit::{MODULE, Random, policy};
use partita_types::{
    Cause, FunctionInfo, HostId, HostName, JobId, ModuleInfo, StoredPartition, TaskId, TenantId, Timestamp,
};

use crate::clients::Client;
use crate::hosts::{Outcome, SimHost};

const TENANTS: [&str; 3] = ["red", "green", "blue"];
/// For how long things go wrong.
const TROUBLE: Duration = Duration::from_secs(60);
/// More steps than any run needs; one that takes more does not come to an end.
const STEPS_MAX: u64 = 200_000;
/// Steps of the log that a failure prints.
const LOG_MAX: usize = 60;

/// Something that happens at a point in time.
#[derive(Debug, Clone)]
enum Step {
    ToHost { host: usize, session: u64, command: HostCommand },
    FromHost { host: usize, session: u64, message: HostMessage, report: Option<u64> },
    NoticeDetach { host: usize, session: u64 },
    EndTask { host: usize, incarnation: u64, lane: usize },
    SendReport { host: usize, session: u64 },
    Acknowledge { host: usize, session: u64, report: u64 },
    Heartbeat { host: usize, session: u64 },
    Break { host: usize },
    Kill { host: usize },
    Connect { host: usize },
    Evict { host: usize },
    Crash,
    Submit(usize),
    Cancel(usize),
}

/// A cluster in trouble.
#[derive(Debug)]
pub(crate) struct World {
    seed: u64,
    pub(crate) now: u64,
    pub(crate) core: Core,
    pub(crate) journal: Vec<Record>,
    /// How much of the journal survives a crash for certain.
    flushed: usize,
    steps: BTreeMap<(u64, u64), Step>,
    taken: u64,
    pub(crate) hosts: Vec<SimHost>,
    pub(crate) numbers: BTreeMap<HostId, usize>,
    pub(crate) clients: Vec<Client>,
    events: BTreeMap<JobId, Vec<JobEvent>>,
    pub(crate) replies: BTreeMap<RequestId, Reply>,
    pub(crate) requests: u64,
    /// Reports that were worked on since the last flush: host, session and number.
    reported: Vec<(usize, u64, u64)>,
    healed: bool,
    network: Random,
    faults: Random,
    work: Random,
    log: VecDeque<String>,
    trace: Option<u64>,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for line in &self.log {
                eprintln!("{line}");
            }
            eprintln!("seed {} failed after {} steps", self.seed, self.taken);
        }
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut world = Self {
            seed,
            now: 1_700_000_000_000_000,
            core: Core::new(),
            journal: Vec::new(),
            flushed: 0,
            steps: BTreeMap::new(),
            taken: 0,
            hosts: Vec::new(),
            numbers: BTreeMap::new(),
            clients: Vec::new(),
            events: BTreeMap::new(),
            replies: BTreeMap::new(),
            requests: 0,
            reported: Vec::new(),
            healed: false,
            network: random.fork(),
            faults: random.fork(),
            work: random.fork(),
            log: VecDeque::new(),
            trace: None,
        };
        world.set_up(&mut random);
        world
    }

    /// With a hash of everything that happens.
    pub(crate) fn traced(mut self) -> Self {
        self.trace = Some(0);
        self
    }

    fn set_up(&mut self, random: &mut Random) {
        self.define_tenants();
        let function = FunctionInfo { name: "work".to_owned(), doc: String::new(), inputs: None, outputs: None };
        let size = partita_types::ByteSize(1);
        let info = ModuleInfo { id: MODULE, name: "m".to_owned(), size, functions: vec![function] };
        for tenant in (0..).take(TENANTS.len()) {
            let at = Timestamp::from_micros(self.now);
            let record = Record::ModuleAdded { tenant: TenantId(tenant), info: info.clone(), at };
            self.core.restore(&record, &mut Vec::new());
            self.journal.push(record);
        }
        self.flushed = self.journal.len();
        for position in 0..random.between(2, 4) {
            let cores = random.between(1, 3) as u32;
            self.hosts.push(SimHost::new(&format!("host-{position}"), cores));
            self.plan(random.below(1_000_000), Step::Connect { host: position as usize });
        }
        for number in 0..random.between(6, 10) {
            let tenant = TENANTS[random.below(3) as usize];
            self.clients.push(Client::new(number, tenant, random));
            let at = random.below(50_000_000);
            self.plan(at, Step::Submit(number as usize));
        }
        self.plan_trouble();
    }

    fn define_tenants(&mut self) {
        for (position, name) in (1..).zip(TENANTS) {
            let mut policy = policy(name);
            policy.quota.weight = position;
            policy.quota.concurrent_tasks = position * 2;
            policy.quota.queued_tasks = 200;
            // The lightest has a core for certain, which the heaviest borrows; the other is of another cohort.
            policy.share.guaranteed.cpu = partita_types::MilliCpu(if position == 1 { 1_000 } else { 0 });
            policy.share.cohort = (position == 2).then(|| "guests".parse().expect("a name"));
            self.apply(Event::TenantDefined(policy));
        }
    }

    fn plan_trouble(&mut self) {
        let end = TROUBLE.as_micros() as u64;
        for host in 0..self.hosts.len() {
            for _ in 0..self.faults.between(1, 6) {
                let at = self.faults.below(end);
                self.plan(at, Step::Break { host });
            }
            for _ in 0..self.faults.below(4) {
                let at = self.faults.below(end);
                self.plan(at, Step::Kill { host });
            }
            for _ in 0..self.faults.below(4) {
                let at = self.faults.below(end);
                self.plan(at, Step::Evict { host });
            }
        }
        for _ in 0..self.faults.below(4) {
            let at = self.faults.below(end);
            self.plan(at, Step::Crash);
        }
    }

    /// Runs to the end; returns the hash of everything that happened, if it is traced.
    pub(crate) fn run(mut self) -> Option<u64> {
        let healing = self.now + TROUBLE.as_micros() as u64;
        self.run_until(healing, |_| false);
        self.healed = true;
        for host in 0..self.hosts.len() {
            if !self.hosts[host].connected {
                self.plan(0, Step::Connect { host });
            }
        }
        let all_ended = |world: &Self| {
            let ended =
                |client: &Client| client.job.and_then(|job| world.core.job(job)).is_some_and(|view| view.end.is_some());
            world.clients.iter().all(ended)
        };
        self.run_until(healing + 900_000_000, all_ended);
        // What went wrong last is noticed, too.
        self.run_until(self.now + 30_000_000, |_| false);
        for client in &self.clients {
            let job = client.job.expect("every submission was acknowledged");
            let view = self.core.job(job).expect("no job is lost");
            assert!(view.end.is_some(), "{view:?}\n{:?}", self.core.explain(job, None, None));
        }
        self.check_results();
        self.check_journal();
        self.release_everything();
        self.trace
    }

    /// Takes steps until a time, or until `done` says so.
    pub(crate) fn run_until(&mut self, end: u64, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            self.taken += 1;
            assert!(self.taken < STEPS_MAX, "this does not come to an end");
            let step = self.steps.first_key_value().map(|((at, _), _)| *at);
            let deadline = self.core.next_deadline().map(|at| at.micros.max(self.now));
            let next = step.into_iter().chain(deadline).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = self.now.max(end);
                return;
            };
            self.now = next;
            if step == Some(next) {
                if let Some((_, step)) = self.steps.pop_first() {
                    self.note(|| format!("{step:?}"));
                    self.take(step);
                }
            } else {
                self.apply(Event::Ticked);
            }
        }
    }

    fn plan(&mut self, wait: u64, step: Step) {
        let number = self.requests;
        self.requests += 1;
        self.steps.insert((self.now + wait, number), step);
    }

    fn note(&mut self, line: impl Fn() -> String) {
        let Some(trace) = &mut self.trace else { return };
        let line = format!("{} {}", self.now % 1_000_000_000, line());
        for byte in line.bytes() {
            *trace = (*trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.log.push_back(line);
        if self.log.len() > LOG_MAX {
            self.log.pop_front();
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::ToHost { host, session, command } => self.on_command(host, session, command),
            Step::FromHost { host, session, message, report } => self.on_message(host, session, message, report),
            Step::Acknowledge { host, session, report } => {
                if self.is_current(host, session) {
                    self.hosts[host].ledger.acknowledge(report);
                }
            }
            Step::NoticeDetach { host, session } => {
                let current = self.hosts[host].session == session;
                let id = self.numbers.iter().find(|(_, position)| **position == host).map(|(id, _)| *id);
                if let Some(id) = id.filter(|_| current) {
                    let incarnation = self.hosts[host].model.incarnation;
                    self.apply(Event::HostDetached { host: id, incarnation });
                }
            }
            Step::EndTask { host, incarnation, lane } => self.on_task_end(host, incarnation, lane),
            Step::SendReport { host, session } => {
                if self.is_current(host, session) {
                    let (number, message) = self.hosts[host].take_report();
                    self.send(host, message, Some(number));
                }
            }
            Step::Heartbeat { host, session } => {
                if self.is_current(host, session) {
                    self.send_from(host, HostMessage::Heartbeat);
                    self.plan(1_000_000, Step::Heartbeat { host, session });
                }
            }
            Step::Break { host } => self.break_link(host),
            Step::Kill { host } => {
                self.break_link(host);
                self.hosts[host].alive = false;
                self.hosts[host].model.restart();
                self.hosts[host].stop_everything();
            }
            Step::Connect { host } => self.connect(host),
            Step::Evict { host } => self.evict(host),
            Step::Crash => self.crash(),
            Step::Submit(client) => self.submit(client),
            Step::Cancel(client) => self.cancel(client),
        }
    }

    fn is_current(&self, host: usize, session: u64) -> bool {
        let host = &self.hosts[host];
        host.connected && host.session == session
    }

    /// A connection ends. The scheduler may see that at once, later, or not at all.
    fn break_link(&mut self, host: usize) {
        if self.hosts[host].connected {
            self.hosts[host].connected = false;
            let session = self.hosts[host].session;
            if self.network.chance(60) {
                let wait = self.network.below(500_000);
                self.plan(wait, Step::NoticeDetach { host, session });
            }
            let wait = if self.network.chance(70) { 3_000_000 } else { 15_000_000 };
            let wait = self.network.below(wait);
            self.plan(wait, Step::Connect { host });
        }
    }

    fn connect(&mut self, host: usize) {
        let sim = &mut self.hosts[host];
        if sim.connected {
            return;
        }
        sim.alive = true;
        sim.connected = true;
        sim.session += 1;
        (sim.last_to, sim.last_from) = (0, 0);
        let (last_report, hello) = sim.hello();
        let (name, session) = (hello.name.clone(), sim.session);
        self.reported.push((host, session, last_report));
        self.apply_as(Event::HostAttached(hello), Some(host));
        let id = self.core.host(&name).expect("it attached");
        self.numbers.insert(id, host);
        self.plan(1_000_000, Step::Heartbeat { host, session });
    }

    /// A host loses a partition, notices, and says so.
    fn evict(&mut self, host: usize) {
        let Some(partition) = self.hosts[host].pick_partition(&mut self.faults) else { return };
        self.hosts[host].model.store.remove(&partition);
        if self.hosts[host].connected {
            self.send_from(host, HostMessage::Lost(vec![partition]));
        }
    }

    fn delay(&mut self) -> u64 {
        let slow = self.network.chance(5);
        self.network.between(100, if slow { 400_000 } else { 5_000 })
    }

    fn send_from(&mut self, host: usize, message: HostMessage) {
        self.send(host, message, None);
    }

    fn send(&mut self, host: usize, message: HostMessage, report: Option<u64>) {
        let at = (self.now + self.delay()).max(self.hosts[host].last_from + 1);
        self.hosts[host].last_from = at;
        let session = self.hosts[host].session;
        self.plan(at - self.now, Step::FromHost { host, session, message, report });
    }

    fn on_command(&mut self, host: usize, session: u64, command: HostCommand) {
        if !self.is_current(host, session) {
            return;
        }
        for message in self.hosts[host].model.on_command(command) {
            self.send_from(host, message);
        }
        self.start_lanes(host);
    }

    fn on_message(&mut self, host: usize, session: u64, message: HostMessage, report: Option<u64>) {
        // What was under way when a session ended is lost, or arrives when nobody expects it any more.
        if self.hosts[host].session != session && self.network.chance(50) {
            return;
        }
        let id = self.numbers.iter().find(|(_, position)| **position == host).map(|(id, _)| *id);
        let incarnation = self.hosts[host].model.incarnation;
        if let Some(id) = id {
            // An acknowledgement is of the session only, so it is no matter which one this came from.
            self.reported.extend(report.map(|report| (host, session, report)));
            self.apply(Event::FromHost { host: id, incarnation, message });
        }
    }

    fn start_lanes(&mut self, host: usize) {
        let incarnation = self.hosts[host].model.incarnation.0;
        for lane in self.hosts[host].start_lanes() {
            let wait = self.task_time();
            self.plan(wait, Step::EndTask { host, incarnation, lane });
        }
        self.plan_report(host);
    }

    fn task_time(&mut self) -> u64 {
        if self.work.chance(20) { self.work.between(500_000, 5_000_000) } else { self.work.between(500, 200_000) }
    }

    fn plan_report(&mut self, host: usize) {
        let sim = &mut self.hosts[host];
        let report = &sim.report;
        let empty = report.succeeded.is_empty() && report.failed.is_empty() && report.finished_frames.is_empty();
        if !empty && !sim.report_planned {
            sim.report_planned = true;
            let session = sim.session;
            self.plan(2_000, Step::SendReport { host, session });
        }
    }

    /// A task ends at a host, whether that is connected or not.
    fn on_task_end(&mut self, host: usize, incarnation: u64, lane: usize) {
        if self.hosts[host].model.incarnation.0 != incarnation || !self.hosts[host].alive {
            return;
        }
        if let Some(run) = self.hosts[host].next_run(lane) {
            let outcome = self.outcome(run.attempt.task, &run.inputs);
            if matches!(outcome, Outcome::Success) {
                self.check_outputs(&run);
            }
            self.hosts[host].end(&run, outcome);
        }
        if self.hosts[host].goes_on(lane) {
            let wait = self.task_time();
            self.plan(wait, Step::EndTask { host, incarnation, lane });
        } else {
            self.start_lanes(host);
        }
        self.plan_report(host);
    }

    fn outcome(&mut self, task: TaskId, inputs: &[(StoredPartition, HostName)]) -> Outcome {
        let there = |(stored, name): &&(StoredPartition, HostName)| {
            let source = self.hosts.iter().find(|host| host.model.name == *name);
            source.is_some_and(|host| host.alive && host.model.store.get(&stored.id) == Some(&stored.info))
        };
        let mut missing: Vec<_> = inputs.iter().filter(|input| !there(input)).map(|(stored, _)| stored.id).collect();
        if !self.healed && missing.is_empty() && self.faults.chance(1) {
            missing.extend(inputs.first().map(|(stored, _)| stored.id));
        }
        if !missing.is_empty() {
            return Outcome::Failure(Cause::Input, missing);
        }
        if self.client_of(task.job).is_some_and(|client| client.spec.arrays[task.array.0 as usize].name == "poison") {
            return Outcome::Failure(Cause::Failed, Vec::new());
        }
        if !self.healed && self.faults.chance(3) {
            let cause = [Cause::Trap, Cause::Retry, Cause::Memory][self.faults.below(3) as usize];
            return Outcome::Failure(cause, Vec::new());
        }
        Outcome::Success
    }

    pub(crate) fn client_of(&self, job: JobId) -> Option<&Client> {
        self.clients.iter().find(|client| client.job == Some(job))
    }

    pub(crate) fn apply(&mut self, event: Event) {
        self.apply_as(event, None);
    }

    /// Applies an event. `attaching` is the host whose session it opens.
    fn apply_as(&mut self, event: Event, attaching: Option<usize>) {
        self.note(|| format!("  {event:?}"));
        let mut actions = Vec::new();
        self.core.apply(Timestamp::from_micros(self.now), event, &mut actions);
        if let Err(violation) = self.core.check_invariants() {
            panic!("{violation}");
        }
        for action in actions {
            self.note(|| format!("    {action:?}"));
            match action {
                Action::Persist(record) => {
                    let durable = record.durable_before_visible();
                    self.journal.push(record);
                    if durable || self.network.chance(20) {
                        self.flush();
                    }
                }
                Action::Reply { request, reply } => drop(self.replies.insert(request, reply)),
                Action::Command { host, command } => self.send_to(host, command, attaching),
                Action::Publish { job, event } => self.events.entry(job).or_default().push(event),
                Action::Unpublish(job) => drop(self.events.remove(&job)),
                Action::Disconnect { host, .. } => {
                    let host = self.numbers[&host];
                    if attaching != Some(host) {
                        self.break_link(host);
                    }
                }
            }
        }
    }

    /// Everything is on disk: reports that were worked on need not be kept any more.
    fn flush(&mut self) {
        self.flushed = self.journal.len();
        for (host, session, report) in std::mem::take(&mut self.reported) {
            let wait = self.delay();
            self.plan(wait, Step::Acknowledge { host, session, report });
        }
    }

    fn send_to(&mut self, id: HostId, command: HostCommand, attaching: Option<usize>) {
        assert_eq!(self.core.hosts()[id.0 as usize].state, "attached", "{command:?}");
        let Some(host) = attaching.or_else(|| self.numbers.get(&id).copied()) else { return };
        let host = self.numbers.get(&id).copied().unwrap_or(host);
        let at = (self.now + self.delay()).max(self.hosts[host].last_to + 1);
        self.hosts[host].last_to = at;
        let session = self.hosts[host].session;
        self.plan(at - self.now, Step::ToHost { host, session, command });
    }

    pub(crate) fn request(&mut self, what: Request) -> Option<Reply> {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.apply(Event::Requested { request, what });
        self.replies.remove(&request)
    }

    fn submit(&mut self, position: usize) {
        let client = &self.clients[position];
        let tenant = self.core.tenant(&client.tenant.parse().expect("a name")).expect("a tenant");
        let known = client.job;
        let reply = self.request(Request::Submit { tenant, key: client.key, spec: client.spec.clone() });
        match reply {
            Some(Reply::Accepted { job, .. }) => {
                assert!(known.is_none_or(|known| known == job), "the same key gives the same job");
                self.clients[position].job = Some(job);
                if known.is_none() && self.clients[position].cancels {
                    let wait = self.work.below(5_000_000);
                    self.plan(wait, Step::Cancel(position));
                }
                // Some clients did not hear the answer.
                if self.network.chance(20) {
                    self.plan(1_000_000, Step::Submit(position));
                }
            }
            // Its quota is full; jobs of the tenant end some day.
            Some(Reply::Refused(_)) | None => self.plan(2_000_000, Step::Submit(position)),
            other => panic!("{other:?}"),
        }
    }

    fn cancel(&mut self, position: usize) {
        let Some(job) = self.clients[position].job else { return };
        if self.request(Request::Cancel(job)) == Some(Reply::Done) {
            self.clients[position].cancelled = true;
        }
    }

    /// The scheduler dies, with what it had not flushed, and starts again from what is left.
    fn crash(&mut self) {
        let unflushed = (self.journal.len() - self.flushed) as u64;
        let kept = self.flushed + self.faults.below(unflushed + 1) as usize;
        self.journal.truncate(kept);
        self.flushed = kept;
        self.reported.clear();
        let mut core = Core::new();
        let mut actions = Vec::new();
        for record in &self.journal {
            core.restore(record, &mut actions);
        }
        self.core = core;
        let mut events: BTreeMap<JobId, Vec<JobEvent>> = BTreeMap::new();
        for action in actions {
            match action {
                Action::Publish { job, event } => events.entry(job).or_default().push(event),
                Action::Unpublish(job) => drop(events.remove(&job)),
                other => panic!("replay asked for {other:?}"),
            }
        }
        for (job, now) in &events {
            assert!(self.events[job].starts_with(now), "a restart publishes what was published before, in job {job}");
        }
        self.events = events;
        for client in &self.clients {
            let Some(job) = client.job else { continue };
            let view = self.core.job(job).expect("an acknowledged job survives");
            assert!(!client.cancelled || view.end == Some(JobEnd::Cancelled), "an acknowledged cancellation survives");
        }
        self.numbers.clear();
        for host in 0..self.hosts.len() {
            if self.hosts[host].connected {
                self.hosts[host].connected = false;
                let wait = self.network.below(12_000_000);
                self.plan(wait, Step::Connect { host });
            }
        }
        self.define_tenants();
    }
}
