//! Hosts of the simulation: their processes, sessions and partitions. Which frame runs next, and what is left of one, is
//! decided by the queue that real hosts have; lanes and reports are in `lanes`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use partita_core::{HostCommand, HostHello, HostMessage};
use partita_host_logic::copying::Copying;
use partita_host_logic::leases::Terms;
use partita_host_logic::ledger::Ledger;
use partita_host_logic::{Logic, Retracted, WorkId};
use partita_testkit::{Random, Run};
use partita_types::{
    ArrayHeader, ArrayIndex, ByteSize, ContentHash, DatasetPlan, Features, Frame, HostCapacity, HostName, HostTenant,
    Incarnation, Isolation, JobId, OutputInfo, PartitionId, Report, StoredPartition, TenantId,
};

use crate::Checked;
use crate::checks::LeaseWatch;
use crate::lanes::{Lane, cpu_time};
use crate::plan::{DATASETS, HostPlan};
use crate::plant::Plant;
use crate::world::{Step, World};

/// Room for partitions, if the plan does not say.
const PARTITIONS: ByteSize = ByteSize::gib(16);
/// Reports that a host may repeat in its next session.
const REPORTS_KEPT: usize = 3;

/// A host of the simulation.
#[derive(Debug)]
pub(crate) struct SimHost {
    pub(crate) name: HostName,
    pub(crate) capacity: HostCapacity,
    features: Features,
    pub(crate) incarnation: Incarnation,
    /// Whether its process runs.
    pub(crate) alive: bool,
    /// Counts lives of the process; steps of an earlier one are void.
    pub(crate) process: u64,
    /// The process stands still until then.
    pub(crate) frozen_until: u64,
    pub(crate) session: u64,
    /// Whether its session is open, as the host sees it.
    pub(crate) connected: bool,
    pub(crate) welcomed: bool,
    /// When it opened the session.
    pub(crate) dialled: u64,
    /// When the last message in each direction arrives: none overtakes it.
    pub(crate) last_to: u64,
    pub(crate) last_from: u64,
    /// Nothing arrives before.
    pub(crate) cut_to_scheduler: u64,
    pub(crate) cut_from_scheduler: u64,
    pub(crate) logic: Logic<Frame>,
    /// Frames that wait for their inputs.
    pub(crate) preparing: BTreeMap<WorkId, Frame>,
    pub(crate) headers: BTreeMap<(JobId, ArrayIndex), ArrayHeader>,
    pub(crate) store: BTreeMap<PartitionId, OutputInfo>,
    /// Frames that have started.
    pub(crate) lanes: Vec<Option<Lane>>,
    /// When leases are looked at next.
    pub(crate) look: Option<u64>,
    pub(crate) lease_watch: LeaseWatch,
    /// What tenants get on this host.
    pub(crate) tenants: BTreeMap<TenantId, Terms>,
    /// Ends that were not reported yet.
    pub(crate) report: Report,
    pub(crate) report_planned: bool,
    /// Reports that were not acknowledged.
    pub(crate) ledger: Ledger,
    /// The last reports of this life.
    pub(crate) reported: VecDeque<Report>,
    /// Something that an earlier life had said.
    pub(crate) old_news: Option<(Incarnation, Report)>,
    /// Orders to copy that are being carried out.
    pub(crate) copying: Copying,
    /// Partitions that it lost by itself, in this life of its process.
    pub(crate) evicted: BTreeSet<PartitionId>,
}

impl SimHost {
    pub(crate) fn new(position: usize, plan: &HostPlan) -> Self {
        let memory = ByteSize::mib(plan.memory);
        let logic = Logic::new(plan.cores, memory);
        Self {
            name: HostName::new(&format!("host-{position}")).expect("a good name"),
            capacity: HostCapacity {
                cores: plan.cores,
                memory,
                partitions: plan.partitions.map_or(PARTITIONS, ByteSize),
            },
            features: plan.features.features(),
            incarnation: Incarnation(1),
            alive: false,
            process: 0,
            frozen_until: 0,
            session: 0,
            connected: false,
            welcomed: false,
            dialled: 0,
            last_to: 0,
            last_from: 0,
            cut_to_scheduler: 0,
            cut_from_scheduler: 0,
            lanes: (0..logic.places()).map(|_| None).collect(),
            look: None,
            lease_watch: LeaseWatch::default(),
            tenants: BTreeMap::new(),
            logic,
            preparing: BTreeMap::new(),
            headers: BTreeMap::new(),
            store: BTreeMap::new(),
            report: Report::default(),
            report_planned: false,
            ledger: Ledger::default(),
            reported: VecDeque::new(),
            old_news: None,
            copying: Copying::default(),
            evicted: BTreeSet::new(),
        }
    }

    /// Says hello, with everything that is here and that was not acknowledged; also answers the number of the last report.
    pub(crate) fn begin_session(&mut self, session: u64, now: u64) -> (u64, HostHello) {
        self.session = session;
        self.copying.forget_all();
        (self.connected, self.welcomed, self.dialled) = (true, false, now);
        (self.last_to, self.last_from) = (now, now);
        self.keep_report();
        self.report_planned = false;
        let (last, ended) = self.ledger.unacknowledged();
        let lanes = &self.lanes;
        let run = |work| lanes.iter().flatten().find(|lane| lane.work() == work).map_or(0, Lane::ended);
        let held = self.logic.held(run);
        let hello = HostHello {
            name: self.name.clone(),
            incarnation: self.incarnation,
            capacity: self.capacity,
            isolation: Isolation::Full,
            address: format!("{}:7", self.name),
            inventory: self.store.iter().map(|(id, info)| StoredPartition { id: *id, info: *info }).collect(),
            held,
            ended,
            features: self.features.clone(),
        };
        (last, hello)
    }

    /// Takes what is to be reported, and keeps it until it is acknowledged.
    pub(crate) fn keep_report(&mut self) -> (u64, Report) {
        let report = std::mem::take(&mut self.report);
        (self.ledger.keep(&report), report)
    }

    fn stop_everything(&mut self) {
        self.logic.clear();
        self.preparing.clear();
        for lane in self.lanes.iter_mut().filter_map(Option::take) {
            lane.stop(&mut self.logic);
        }
        self.look = None;
        self.lease_watch = LeaseWatch::default();
        self.report = Report::default();
        self.report_planned = false;
        self.ledger = Ledger::default();
    }

    /// The process dies.
    pub(crate) fn die(&mut self, same: bool) {
        self.alive = false;
        self.connected = false;
        self.frozen_until = 0;
        self.stop_everything();
        self.store.clear();
        self.copying.forget_all();
        self.evicted.clear();
        self.headers.clear();
        if let Some(report) = self.reported.drain(..).next_back() {
            self.old_news = Some((self.incarnation, report));
        }
        if !same {
            self.incarnation.0 += 1;
        }
    }

    /// A stored partition to lose.
    pub(crate) fn pick_partition(&self, random: &mut Random) -> Option<PartitionId> {
        let stored = self.store.len() as u64;
        if stored == 0 { None } else { self.store.keys().nth(random.below(stored) as usize).copied() }
    }

    /// Remembers what it reported.
    pub(crate) fn remember(&mut self, report: &Report) {
        self.reported.push_back(report.clone());
        if self.reported.len() > REPORTS_KEPT {
            self.reported.pop_front();
        }
    }

    /// What the tasks of a frame do.
    pub(crate) fn runs(&self, frame: &Frame) -> Vec<Run> {
        self.headers
            .get(&(frame.job, frame.array))
            .map_or_else(Vec::new, |header| partita_testkit::runs_of(header, frame, partita_testkit::size_of_output))
    }
}

impl World {
    pub(crate) fn start_host(&mut self, position: usize) {
        let host = &mut self.hosts[position];
        if !host.alive {
            host.alive = true;
            host.process += 1;
            let process = host.process;
            self.plan_step(0, Step::Dial { host: position, process });
        }
    }

    pub(crate) fn on_command(&mut self, position: usize, session: u64, command: HostCommand) -> Checked {
        let host = &mut self.hosts[position];
        if !host.connected || host.session != session {
            return Ok(());
        }
        match command {
            HostCommand::Welcome { tenants } => {
                let first = !std::mem::replace(&mut host.welcomed, true);
                self.set_tenants(position, &tenants)?;
                if first {
                    self.repeat_reports(position);
                    self.tell_seen(position);
                }
            }
            HostCommand::Assign { arrays, frames } => {
                for header in arrays {
                    host.headers.insert((header.job, header.array), header);
                }
                return frames.into_iter().try_for_each(|frame| self.admit(position, frame));
            }
            HostCommand::Cancel(attempts) => return self.cancel_attempts(position, &attempts),
            HostCommand::Retract(frames) => {
                for frame in frames {
                    let given = self.hosts[position].logic.retract(frame) != Retracted::Kept;
                    self.say(position, HostMessage::Retracted { frame, given });
                }
                return self.settle(position);
            }
            HostCommand::Drop(partitions) => {
                if self.plant == Some(Plant::OrphanPartition) && partitions.len() > 3 {
                    return Ok(());
                }
                host.copying.dropped(&partitions);
                for partition in partitions {
                    host.store.remove(&partition);
                }
            }
            HostCommand::PlanDataset { request, dataset, split, limit, .. } => {
                let splits = DATASETS.iter().find(|(name, _)| *name == dataset.as_str()).map(|(_, splits)| *splits);
                let plan = |splits: u32| DatasetPlan {
                    dataset: dataset.clone(),
                    split,
                    limit,
                    splits,
                    files: u64::from(splits),
                    bytes: ByteSize(u64::from(splits) * split.0),
                    manifest: ContentHash([9; 32]),
                };
                let result = splits.map(plan).ok_or_else(|| format!("dataset {dataset} does not exist"));
                self.say(position, HostMessage::DatasetPlanned { request, result });
            }
            HostCommand::InspectModule { .. } => {}
            HostCommand::Tenants(tenants) => return self.set_tenants(position, &tenants),
            HostCommand::Copy { order, source, partitions } => self.begin_copy(position, order, &source, &partitions),
        }
        Ok(())
    }

    /// Takes over weights and limits of CPU.
    fn set_tenants(&mut self, position: usize, tenants: &[HostTenant]) -> Checked {
        self.watch_leases(position)?;
        let now = self.timestamp();
        for tenant in tenants {
            let SimHost { logic, lanes, tenants, .. } = &mut self.hosts[position];
            tenants.insert(tenant.id, tenant.into());
            let mut terms = Terms::from(tenant);
            match self.plant {
                Some(Plant::WeightsIgnored) => terms.weight = 1,
                Some(Plant::LimitIgnored) => terms.limit = None,
                _ => {}
            }
            logic.set_tenant(tenant.id, terms, now, &mut |work| cpu_time(lanes, work, now.micros));
        }
        self.settle(position)
    }

    /// What was sent shortly before a session ended may have arrived or not; some hosts repeat it.
    fn repeat_reports(&mut self, position: usize) {
        if !self.healed && self.random.network.chance(30) {
            for report in self.hosts[position].reported.clone() {
                self.say(position, HostMessage::Report(report));
            }
        }
    }

    /// A client's upload arrives, through the scheduler.
    pub(crate) fn on_upload(&mut self, position: usize, process: u64, partition: PartitionId, info: OutputInfo) {
        let host = &mut self.hosts[position];
        if host.process != process || !host.alive || !host.connected {
            return;
        }
        let fails = !self.healed && self.random.clients.chance(10);
        let result = if fails { Err("the client went away".to_owned()) } else { Ok(info) };
        if result.is_ok() {
            self.hosts[position].store.insert(partition, info);
        }
        self.say(position, HostMessage::UploadStored { partition, result });
    }

    /// A host loses a partition, notices, and says so.
    pub(crate) fn evict(&mut self, position: usize) {
        let Some(partition) = self.hosts[position].pick_partition(&mut self.random.processes) else { return };
        self.hosts[position].store.remove(&partition);
        self.hosts[position].evicted.insert(partition);
        self.say(position, HostMessage::Lost(vec![partition]));
    }
}
