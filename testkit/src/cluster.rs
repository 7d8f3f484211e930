//! A scheduler core with hosts, driven by hand: every message is delivered when the test says so.

use std::collections::BTreeMap;
use std::time::Duration;

use partita_core::{
    Action, Core, Event, HOST_TIMEOUT, HostCommand, HostMessage, IdempotencyKey, JobEvent, JobView, Record, Refusal,
    Reply, Request, RequestId, TaskCounts, TenantView,
};
use partita_policy::TenantPolicy;
use partita_types::{
    ArrayIndex, ByteSize, Cause, Frame, HostId, HostName, JobId, JobSpec, PartitionId, Report, StoredPartition,
    TenantId, Timestamp,
};

use crate::builders::MODULE;
use crate::host::{HostModel, Run};

/// A scheduler core with hosts.
#[derive(Debug)]
pub struct Cluster {
    /// The core.
    pub core: Core,
    /// The time.
    pub now: Timestamp,
    /// Everything that was written.
    pub journal: Vec<Record>,
    /// Everything that was published, by job.
    pub events: BTreeMap<JobId, Vec<JobEvent>>,
    /// Commands to hosts since they were last taken, by name.
    pub commands: Vec<(String, HostCommand)>,
    /// Hosts whose sessions the core closed.
    pub disconnected: Vec<HostId>,
    hosts: BTreeMap<String, HostModel>,
    connected: BTreeMap<HostId, String>,
    replies: BTreeMap<RequestId, Reply>,
    requests: u64,
}

impl Default for Cluster {
    fn default() -> Self {
        Self::new()
    }
}

impl Cluster {
    /// A cluster without tenants and hosts.
    #[must_use]
    pub fn new() -> Self {
        Self {
            core: Core::new(),
            now: Timestamp::from_micros(1_700_000_000_000_000),
            journal: Vec::new(),
            events: BTreeMap::new(),
            commands: Vec::new(),
            disconnected: Vec::new(),
            hosts: BTreeMap::new(),
            connected: BTreeMap::new(),
            replies: BTreeMap::new(),
            requests: 0,
        }
    }

    /// With a tenant that has [`MODULE`]; see [`Cluster::define`].
    #[must_use]
    pub fn tenant(mut self, policy: TenantPolicy) -> Self {
        self.define(policy);
        self
    }

    /// With an attached host.
    #[must_use]
    pub fn host(mut self, name: &str, cores: u32) -> Self {
        self.attach_new(HostModel::new(name, cores));
        self
    }

    /// Reads a policy. A new tenant gets [`MODULE`], with the help of a host that goes away again.
    pub fn define(&mut self, policy: TenantPolicy) -> TenantId {
        let name = policy.name.clone();
        self.apply(Event::TenantDefined(policy));
        let tenant = self.core.tenant(&name).unwrap();
        if self.core.module(tenant, MODULE).is_none() {
            self.attach_new(HostModel::new("inspector", 0));
            let id = self.id("inspector");
            let size = ByteSize::kib(1);
            let reply = self.request(Request::AddModule { tenant, module: MODULE, name: "module".to_owned(), size });
            assert_eq!(reply, Reply::ModuleAdded);
            self.connected.remove(&id);
            let host = self.hosts.remove("inspector").unwrap();
            self.apply(Event::HostDetached { host: id, incarnation: host.incarnation });
            // It is lost for good, so that nobody waits for it after a restart.
            self.advance(HOST_TIMEOUT);
        }
        tenant
    }

    /// The number of a tenant.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn tenant_id(&self, name: &str) -> TenantId {
        self.core.tenant(&name.parse().unwrap()).unwrap()
    }

    /// What a tenant uses.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn usage(&self, name: &str) -> TenantView {
        let id = self.tenant_id(name);
        self.core.tenants().into_iter().find(|tenant| tenant.id == id).unwrap()
    }

    /// Attaches a new host.
    pub fn attach_new(&mut self, model: HostModel) {
        let name = model.name.to_string();
        self.hosts.insert(name.clone(), model);
        self.attach(&name);
    }

    /// Opens a session of a host, with what it stores, what it goes on with, and what nobody heard.
    pub fn attach(&mut self, name: &str) {
        let model = self.hosts.get_mut(name).unwrap();
        let hello = model.hello();
        model.unheard = Report::default();
        let host_name = hello.name.clone();
        self.apply_only(Event::HostAttached(hello));
        let id = self.core.host(&host_name).unwrap();
        self.connected.insert(id, name.to_owned());
        self.deliver();
    }

    /// Ends the session of a host. It keeps what it has.
    pub fn detach(&mut self, name: &str) {
        let id = self.id(name);
        let incarnation = self.hosts[name].incarnation;
        self.connected.remove(&id);
        self.apply(Event::HostDetached { host: id, incarnation });
    }

    /// The model of a host.
    pub fn model(&mut self, name: &str) -> &mut HostModel {
        self.hosts.get_mut(name).unwrap()
    }

    /// The number of a host.
    ///
    /// # Panics
    /// If it never attached.
    #[must_use]
    pub fn id(&self, name: &str) -> HostId {
        self.core.host(&name.parse().unwrap()).unwrap()
    }

    /// Applies an event, lets hosts do what they are told, and applies what they say to that.
    pub fn apply(&mut self, event: Event) {
        self.apply_only(event);
        self.deliver();
    }

    fn apply_only(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.core.apply(self.now, event, &mut actions);
        if let Err(violation) = self.core.check_invariants() {
            panic!("{violation}");
        }
        let mut commands = Vec::new();
        for action in actions {
            match action {
                Action::Persist(record) => self.journal.push(record),
                Action::Reply { request, reply } => {
                    let before = self.replies.insert(request, reply);
                    assert!(before.is_none(), "{request:?} was answered twice");
                }
                Action::Command { host, command } => commands.push((host, command)),
                Action::Publish { job, event } => self.events.entry(job).or_default().push(event),
                Action::Unpublish(job) => drop(self.events.remove(&job)),
                Action::Disconnect { host, .. } => {
                    self.connected.remove(&host);
                    self.disconnected.push(host);
                }
            }
        }
        for (host, command) in commands {
            let view = &self.core.hosts()[host.0 as usize];
            assert_eq!(view.state, "attached", "{command:?} to host {}", view.name);
            self.commands.push((view.name.to_string(), command));
        }
    }

    /// Lets hosts do what they were told, and tells the core what they say to that.
    fn deliver(&mut self) {
        while let Some(position) = self.commands.iter().position(|(name, _)| self.is_connected(name)) {
            let (name, command) = self.commands.remove(position);
            let host = self.id(&name);
            let model = self.hosts.get_mut(&name).unwrap();
            let incarnation = model.incarnation;
            for message in model.on_command(command) {
                self.apply_only(Event::FromHost { host, incarnation, message });
            }
            if self.hosts[&name].copies {
                self.copy_some(&name);
            }
        }
    }

    /// A host carries out the orders to copy that it has.
    pub fn copy_told(&mut self, name: &str) {
        self.copy_some(name);
        self.deliver();
    }

    fn copy_some(&mut self, name: &str) {
        let (host, incarnation) = (self.id(name), self.hosts[name].incarnation);
        for (order, source, partitions) in std::mem::take(&mut self.model(name).told_to_copy) {
            let there = |wanted: &StoredPartition| {
                let source = self.hosts.get(source.as_str()).filter(|_| self.is_connected(source.as_str()));
                source.is_some_and(|source| source.store.get(&wanted.id) == Some(&wanted.info))
            };
            let (copies, rest): (Vec<_>, Vec<_>) = partitions.into_iter().partition(there);
            self.model(name).store.extend(copies.iter().map(|copy| (copy.id, copy.info)));
            let problem = (!rest.is_empty()).then(|| format!("host {source} does not have {} partitions", rest.len()));
            self.apply_only(Event::FromHost {
                host,
                incarnation,
                message: HostMessage::Copied { order, copies, problem },
            });
        }
    }

    fn is_connected(&self, name: &str) -> bool {
        self.connected.values().any(|connected| connected == name)
    }

    /// Lets time pass. Connected hosts go on sending heartbeats.
    pub fn advance(&mut self, wait: Duration) {
        let end = self.now.after(wait);
        while self.now < end {
            self.now = end.min(self.now.after(Duration::from_secs(1)));
            for name in self.connected.values().cloned().collect::<Vec<_>>() {
                self.say(&name, HostMessage::Heartbeat);
            }
            if self.core.next_deadline().is_some_and(|deadline| deadline <= self.now) {
                self.apply(Event::Ticked);
            }
        }
    }

    /// Lets a short time pass, and each deadline in it be noticed when it comes.
    pub fn advance_by(&mut self, wait: Duration) {
        let end = self.now.after(wait);
        for name in self.connected.values().cloned().collect::<Vec<_>>() {
            self.say(&name, HostMessage::Heartbeat);
        }
        while let Some(deadline) = self.core.next_deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            self.apply(Event::Ticked);
        }
        self.now = end;
    }

    /// A host stops what it was told to stop.
    pub fn stop_told(&mut self, name: &str) {
        let report = self.model(name).stop_told();
        self.say(name, HostMessage::Report(report));
    }

    /// A host says something.
    pub fn say(&mut self, name: &str, message: HostMessage) {
        let (host, incarnation) = (self.id(name), self.hosts[name].incarnation);
        self.apply(Event::FromHost { host, incarnation, message });
    }

    /// Asks for something; the answer may come later.
    pub fn ask(&mut self, what: Request) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.apply(Event::Requested { request, what });
        request
    }

    /// The answer to a request, once it is there.
    pub fn answer(&mut self, request: RequestId) -> Option<Reply> {
        self.replies.remove(&request)
    }

    /// Asks for something that is answered at once.
    ///
    /// # Panics
    /// If it is not.
    pub fn request(&mut self, what: Request) -> Reply {
        let request = self.ask(what);
        self.answer(request).expect("an answer at once")
    }

    /// Submits a job under a key of its own.
    ///
    /// # Errors
    /// If it is refused.
    pub fn try_submit(&mut self, tenant: &str, spec: JobSpec) -> Result<JobId, Refusal> {
        let tenant = self.tenant_id(tenant);
        let mut key = [0; 16];
        key[..8].copy_from_slice(&(self.requests + 1).to_le_bytes());
        match self.request(Request::Submit { tenant, key: IdempotencyKey(key), spec }) {
            Reply::Accepted { job, .. } => Ok(job),
            Reply::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    /// Submits a job that is accepted.
    ///
    /// # Panics
    /// If it is refused.
    pub fn submit(&mut self, tenant: &str, spec: JobSpec) -> JobId {
        self.try_submit(tenant, spec).unwrap_or_else(|refusal| panic!("{refusal}"))
    }

    /// A job.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn job(&self, job: JobId) -> JobView {
        self.core.job(job).unwrap()
    }

    /// The states of the tasks of an array.
    #[must_use]
    pub fn counts(&self, job: JobId, array: usize) -> TaskCounts {
        self.job(job).arrays[array].counts
    }

    /// The frames that a host has, in order.
    #[must_use]
    pub fn frames(&self, name: &str) -> Vec<Frame> {
        self.hosts[name].frames.iter().cloned().collect()
    }

    /// The tasks that a host has, in order, as array and index.
    #[must_use]
    pub fn tasks_at(&self, name: &str) -> Vec<(u32, u32)> {
        let tasks = |frame: &Frame| frame.indexes.iter().map(|index| (frame.array.0, *index)).collect::<Vec<_>>();
        self.hosts[name].frames.iter().flat_map(tasks).collect()
    }

    /// Takes the first frame off a host.
    ///
    /// # Panics
    /// If there is none.
    pub fn take_frame(&mut self, name: &str) -> Vec<Run> {
        let model = self.hosts.get_mut(name).unwrap();
        let frame = model.frames.pop_front().expect("a frame");
        model.runs(&frame)
    }

    /// Takes a task off the frames of a host.
    ///
    /// # Panics
    /// If it is not there.
    pub fn take_run(&mut self, name: &str, array: u32, index: u32) -> Run {
        let model = self.hosts.get_mut(name).unwrap();
        let has = |frame: &Frame| frame.array.0 == array && frame.indexes.contains(&index);
        let position = model.frames.iter().position(has).expect("the task");
        let frame = model.frames[position].clone();
        let run = model.runs(&frame).into_iter().find(|run| run.attempt.task.index == index).unwrap();
        if frame.indexes.len() == 1 {
            model.frames.remove(position);
        }
        run
    }

    /// What a host reports if runs succeed.
    pub fn success(&mut self, name: &str, runs: &[Run]) -> Report {
        self.hosts.get_mut(name).unwrap().succeed(runs)
    }

    /// Ends runs at a host with success, while nobody listens.
    pub fn succeed_unheard(&mut self, name: &str, runs: &[Run]) {
        let report = self.success(name, runs);
        self.model(name).unheard.succeeded.extend(report.succeeded);
    }

    /// Ends a run at a host with failure, while nobody listens.
    pub fn fail_unheard(&mut self, name: &str, run: &Run, cause: Cause) {
        let report = self.hosts[name].fail(run, cause, Vec::new());
        self.model(name).unheard.failed.extend(report.failed);
    }

    /// Ends runs at a host with success.
    pub fn succeed(&mut self, name: &str, runs: &[Run]) {
        let report = self.success(name, runs);
        self.say(name, HostMessage::Report(report));
    }

    /// Ends a run at a host with failure.
    pub fn fail(&mut self, name: &str, run: &Run, cause: Cause) {
        let report = self.hosts[name].fail(run, cause, Vec::new());
        self.say(name, HostMessage::Report(report));
    }

    /// Runs the first frame of a host, whose inputs must be where they are said to be.
    pub fn run_frame(&mut self, name: &str) {
        let runs = self.take_frame(name);
        let missing = self.missing(&runs);
        assert!(missing.is_empty(), "{missing:?} are not where they are said to be");
        self.succeed(name, &runs);
    }

    /// Inputs of runs that are not where they are said to be.
    #[must_use]
    pub fn missing(&self, runs: &[Run]) -> Vec<PartitionId> {
        let there = |(stored, host): &(StoredPartition, HostName)| {
            let name = self.connected.values().find(|name| *name == host.as_str());
            name.is_some_and(|name| self.hosts[name].store.get(&stored.id) == Some(&stored.info))
        };
        runs.iter().flat_map(|run| &run.inputs).filter(|input| !there(input)).map(|(stored, _)| stored.id).collect()
    }

    /// Runs everything that is at hosts, and what comes after it, until nothing is left.
    pub fn run_all(&mut self) {
        loop {
            let busy = self.connected.values().find(|name| !self.hosts[*name].frames.is_empty()).cloned();
            let Some(name) = busy else { return };
            self.run_frame(&name);
        }
    }

    /// Everything that clients can find of an array, by task and output.
    ///
    /// # Panics
    /// If something is not there.
    pub fn results(&mut self, job: JobId, array: u32) -> BTreeMap<(u32, u32, u32), partita_types::ContentHash> {
        let view = self.job(job).arrays[array as usize].clone();
        let mut results = BTreeMap::new();
        for output in 0..view.outputs {
            let mut first = 0;
            while first < view.counts.succeeded {
                let (array, tasks) = (ArrayIndex(array), first..view.counts.succeeded);
                let reply = self.request(Request::Locate { job, array, tasks, output });
                let Reply::Located(found) = reply else { panic!("{reply:?}") };
                for (host, stored) in &found {
                    let name = &self.connected[host];
                    assert_eq!(self.hosts[name].store.get(&stored.id), Some(&stored.info), "{stored:?} at {name}");
                    results.insert((array.0, stored.id.attempt.task.index, output), stored.info.hash);
                }
                first += found.len() as u32;
            }
        }
        results
    }

    /// A core that was restored from everything written so far, with its events.
    #[must_use]
    pub fn replayed(&self) -> (Core, BTreeMap<JobId, Vec<JobEvent>>) {
        let mut core = Core::new();
        let mut actions = Vec::new();
        for record in &self.journal {
            core.restore(record, &mut actions);
        }
        let mut events: BTreeMap<JobId, Vec<JobEvent>> = BTreeMap::new();
        for action in actions {
            match action {
                Action::Publish { job, event } => events.entry(job).or_default().push(event),
                Action::Unpublish(job) => drop(events.remove(&job)),
                other => panic!("replay asked for {other:?}"),
            }
        }
        (core, events)
    }

    /// The scheduler dies and starts again from its journal. No host is attached then; policies are read again.
    pub fn restart_scheduler(&mut self) {
        let policies: Vec<_> = self.core.tenants().into_iter().map(|tenant| tenant.policy).collect();
        let (core, events) = self.replayed();
        assert_eq!(events, self.events, "a restart publishes the same events");
        self.core = core;
        self.connected.clear();
        self.commands.clear();
        self.replies.clear();
        policies.into_iter().for_each(|policy| self.apply(Event::TenantDefined(policy)));
    }
}
