//! The simulated world: one queue of steps in the order of time, and one generator of random numbers per concern.

use std::collections::BTreeMap;
use std::time::Duration;

use partita_core::{Event, HostCommand, HostHello, HostMessage, JobEvent, Reply, Request};
use partita_host_logic::WorkId;
use partita_testkit::Random;
use partita_types::{HostName, Incarnation, MoveId, OutputInfo, PartitionId, Report, StoredPartition, Timestamp};

use crate::checks::History;
use crate::client::Client;
use crate::host::SimHost;
use crate::log::Log;
use crate::plan::{Plan, TROUBLE, TenantPlan};
use crate::plant::Plant;
use crate::scheduler::Scheduler;
use crate::{Checked, ensure};

/// When every simulation begins.
const START: u64 = 1_700_000_000_000_000;
/// More steps than any run needs; one that takes more does not come to an end.
const STEPS_MAX: u64 = 3_000_000;

/// What a host sends.
#[derive(Debug, Clone)]
pub(crate) enum Word {
    /// With the number of the last report whose ends are in it.
    Hello(u64, HostHello),
    /// With its number.
    Report(u64, Report),
    Said(HostMessage),
}

/// Something that happens at a point in time.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// A host's process starts.
    StartHost {
        host: usize,
    },
    /// A host opens a session.
    Dial {
        host: usize,
        process: u64,
    },
    /// The host's end of a session closes.
    Closed {
        host: usize,
        session: u64,
    },
    /// The scheduler's end of a session closes.
    Noticed {
        host: usize,
        session: u64,
    },
    ToHost {
        host: usize,
        session: u64,
        command: HostCommand,
    },
    ToScheduler {
        host: usize,
        session: u64,
        incarnation: Incarnation,
        word: Word,
    },
    /// Reports up to this number are on disk.
    Acknowledged {
        host: usize,
        session: u64,
        report: u64,
    },
    Heartbeat {
        host: usize,
        session: u64,
    },
    SendReport {
        host: usize,
        session: u64,
    },
    /// The inputs of a frame were fetched, or not.
    Prepared {
        host: usize,
        process: u64,
        work: WorkId,
    },
    /// The task on a lane ends.
    EndTask {
        host: usize,
        process: u64,
        lane: usize,
        serial: u64,
    },
    /// The host notices that the task on a lane runs for a while.
    Seen {
        host: usize,
        process: u64,
        lane: usize,
        serial: u64,
    },
    /// A lane may find something to run.
    TakeWork {
        host: usize,
        process: u64,
    },
    /// Bytes of a client arrive at a host.
    Upload {
        host: usize,
        process: u64,
        partition: PartitionId,
        info: OutputInfo,
    },
    /// What a host was to copy has come, or not.
    Copied {
        host: usize,
        process: u64,
        session: u64,
        order: MoveId,
        source: HostName,
        partitions: Vec<StoredPartition>,
    },
    /// Somebody looks whether a host is drained, to stop it, or ends the drain.
    Drained {
        host: usize,
        stops: bool,
        until: u64,
    },
    StartScheduler,
    /// The scheduler dies.
    Crash {
        again: u64,
    },
    /// The scheduler's writer takes what waits.
    Write {
        life: u64,
    },
    /// A flush that something waits for is done.
    Flushed {
        life: u64,
    },
    /// Records that nobody waits for are flushed.
    FlushLater {
        life: u64,
    },
    ClientActs {
        client: usize,
    },
    /// A request arrives at the scheduler.
    Asked {
        client: usize,
        serial: u64,
        what: Request,
    },
    Answered {
        client: usize,
        serial: u64,
        reply: Reply,
    },
    /// A client gives up waiting for an answer.
    GivesUp {
        client: usize,
        serial: u64,
    },
    /// A watcher asks for more.
    Poll {
        client: usize,
        watch: u64,
    },
    /// Events arrive at a watcher, numbered from the first.
    Shown {
        client: usize,
        watch: u64,
        first: u64,
        events: Vec<JobEvent>,
    },
    Fault {
        position: usize,
    },
    /// A policy changes.
    Change {
        position: usize,
    },
    /// A compaction of the journal that began in this life of the scheduler is done.
    Compacted {
        life: u64,
    },
    /// What a fault did is over.
    Over {
        position: usize,
    },
}

/// Generators, one per concern.
#[derive(Debug)]
pub(crate) struct Randomness {
    pub(crate) network: Random,
    pub(crate) disk: Random,
    pub(crate) processes: Random,
    pub(crate) clients: Random,
    /// Of what guests do; see [`crate::guest::Behaviour`].
    pub(crate) guests: u64,
}

/// A cluster in trouble.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) plant: Option<Plant>,
    pub(crate) now: u64,
    steps: BTreeMap<(u64, u64), Step>,
    serial: u64,
    taken: u64,
    pub(crate) random: Randomness,
    pub(crate) scheduler: Scheduler,
    pub(crate) hosts: Vec<SimHost>,
    pub(crate) clients: Vec<Client>,
    /// The policies that hold now, by number of the tenant.
    pub(crate) policies: Vec<TenantPlan>,
    pub(crate) history: History,
    /// Nothing goes wrong any more.
    pub(crate) healed: bool,
    pub(crate) log: Log,
}

impl World {
    pub(crate) fn new(plan: &Plan, plant: Option<Plant>, traced: bool) -> Self {
        let mut random = Random::new(plan.seed);
        let mut world = Self {
            now: START,
            plant,
            steps: BTreeMap::new(),
            serial: 0,
            taken: 0,
            random: Randomness {
                network: random.fork(),
                disk: random.fork(),
                processes: random.fork(),
                clients: random.fork(),
                guests: random.number(),
            },
            scheduler: Scheduler::new(plan.tenants.len(), Timestamp::from_micros(START)),
            hosts: plan.hosts.iter().enumerate().map(|(position, host)| SimHost::new(position, host)).collect(),
            clients: plan.jobs.iter().enumerate().map(|(position, job)| Client::new(position, job, START)).collect(),
            policies: plan.tenants.clone(),
            history: History::default(),
            healed: false,
            log: Log::new(traced),
            plan: plan.clone(),
        };
        world.set_up();
        world
    }

    fn set_up(&mut self) {
        self.plan_step(0, Step::StartScheduler);
        for (host, plan) in self.plan.hosts.clone().iter().enumerate() {
            self.plan_step(plan.joins * 1_000, Step::StartHost { host });
        }
        for client in 0..self.clients.len() {
            let at = self.clients[client].next_time().unwrap_or(START);
            self.plan_step(at.saturating_sub(START), Step::ClientActs { client });
        }
        for (position, fault) in self.plan.faults.clone().iter().enumerate() {
            self.plan_step(fault.at * 1_000, Step::Fault { position });
        }
        for (position, change) in self.plan.changes.clone().iter().enumerate() {
            self.plan_step(change.at * 1_000, Step::Change { position });
        }
    }

    /// Lets a step happen after so many microseconds.
    pub(crate) fn plan_step(&mut self, wait: u64, step: Step) {
        self.serial += 1;
        self.steps.insert((self.now + wait, self.serial), step);
    }

    /// A number that was not given out before.
    pub(crate) fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub(crate) fn timestamp(&self) -> Timestamp {
        Timestamp::from_micros(self.now)
    }

    /// When everything heals.
    pub(crate) fn healing(&self) -> u64 {
        let faults = self.plan.faults.iter().map(|fault| fault.at);
        let last = faults.chain(self.plan.changes.iter().map(|change| change.at)).max().unwrap_or(0) * 1_000;
        START + last.max(if self.plan.faults.is_empty() { 0 } else { TROUBLE.as_micros() as u64 })
    }

    pub(crate) fn steps_taken(&self) -> u64 {
        self.taken
    }

    pub(crate) fn simulated(&self) -> Duration {
        Duration::from_micros(self.now - START)
    }

    /// Takes steps until a time, or until `done` says so.
    pub(crate) fn run_until(&mut self, end: u64, done: impl Fn(&Self) -> bool) -> Checked {
        while !done(self) {
            self.taken += 1;
            ensure(self.taken < STEPS_MAX, "everything_comes_to_an_end", || format!("{STEPS_MAX} steps"))?;
            let step = self.steps.first_key_value().map(|((at, _), _)| *at);
            let deadline = self.scheduler.deadline().map(|at| at.max(self.now));
            let next = step.into_iter().chain(deadline).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = self.now.max(end);
                return Ok(());
            };
            self.now = next;
            if step == Some(next) {
                if let Some((_, step)) = self.steps.pop_first() {
                    self.take(step)?;
                }
            } else {
                self.apply(Event::Ticked)?;
            }
        }
        Ok(())
    }

    /// Until when the process that a step belongs to stands still.
    fn stands_still(&self, step: &Step) -> Option<u64> {
        let until = match step {
            Step::ToHost { host, .. }
            | Step::Closed { host, .. }
            | Step::Dial { host, .. }
            | Step::Acknowledged { host, .. }
            | Step::Heartbeat { host, .. }
            | Step::SendReport { host, .. }
            | Step::Prepared { host, .. }
            | Step::EndTask { host, .. }
            | Step::Seen { host, .. }
            | Step::TakeWork { host, .. }
            | Step::Copied { host, .. }
            | Step::Upload { host, .. } => self.hosts[*host].frozen_until,
            Step::Noticed { .. }
            | Step::ToScheduler { .. }
            | Step::Write { .. }
            | Step::Flushed { .. }
            | Step::FlushLater { .. }
            | Step::Asked { .. }
            | Step::Poll { .. } => self.scheduler.stalled_until,
            _ => 0,
        };
        (until > self.now).then_some(until)
    }

    fn take(&mut self, step: Step) -> Checked {
        if let Some(until) = self.stands_still(&step) {
            self.plan_step(until - self.now, step);
            return Ok(());
        }
        self.log.note(self.now, || format!("{step:?}"));
        match step {
            Step::StartHost { host } => self.start_host(host),
            Step::Dial { host, process } => self.dial(host, process),
            Step::Closed { host, session } => self.on_closed(host, session),
            Step::Noticed { host, session } => return self.on_noticed(host, session),
            Step::ToHost { host, session, command } => return self.on_command(host, session, command),
            Step::ToScheduler { host, session, incarnation, word } => {
                return self.on_word(host, session, incarnation, word);
            }
            Step::Acknowledged { host, session, report } => {
                let host = &mut self.hosts[host];
                if host.connected && host.session == session {
                    host.ledger.acknowledge(report);
                }
            }
            Step::Heartbeat { host, session } => self.send_heartbeat(host, session),
            Step::SendReport { host, session } => self.send_report(host, session),
            Step::Prepared { host, process, work } => return self.on_prepared(host, process, work),
            Step::EndTask { host, process, lane, serial } => return self.on_task_end(host, process, lane, serial),
            Step::Seen { host, process, lane, serial } => self.on_seen(host, process, lane, serial),
            Step::TakeWork { host, process } => {
                if self.hosts[host].process == process {
                    return self.settle(host);
                }
            }
            Step::Upload { host, process, partition, info } => self.on_upload(host, process, partition, info),
            Step::Copied { host, process, session, order, source, partitions } => {
                self.on_copy_ends(host, (process, session), order, &source, partitions);
            }
            Step::Drained { host, stops, until } => return self.on_drained(host, stops, until),
            Step::StartScheduler => return self.start_scheduler(),
            Step::Crash { again } => return self.crash(again),
            Step::Write { life } => return self.write(life),
            Step::Flushed { life } => return self.on_flushed(life),
            Step::FlushLater { life } => self.flush_later(life),
            Step::ClientActs { client } => self.act(client),
            Step::Asked { client, serial, what } => return self.on_asked(client, serial, what),
            Step::Answered { client, serial, reply } => return self.on_answered(client, serial, reply),
            Step::GivesUp { client, serial } => return self.on_gives_up(client, serial),
            Step::Poll { client, watch } => self.on_poll(client, watch),
            Step::Shown { client, watch, first, events } => return self.on_shown(client, watch, first, events),
            Step::Fault { position } => return self.on_fault(position),
            Step::Change { position } => return self.change_policy(position),
            Step::Compacted { life } => return self.on_compacted(life),
            Step::Over { position } => self.on_over(position),
        }
        Ok(())
    }
}
