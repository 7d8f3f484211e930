//! Hosts of the simulation: a model with lanes that run tasks, and a connection that can break.

use std::collections::VecDeque;

use partita_core::{HostHello, HostMessage};
use partita_host_logic::ledger::Ledger;
use partita_testkit::{HostModel, Random, Run};
use partita_types::{Cause, FrameId, HeldFrame, PartitionId, Report};

/// What a core of a host is doing.
#[derive(Debug)]
pub(crate) struct Lane {
    frame: FrameId,
    runs: VecDeque<Run>,
}

/// A host of the simulation.
#[derive(Debug)]
pub(crate) struct SimHost {
    pub(crate) model: HostModel,
    /// Counts sessions; what belongs to an earlier one is void at the host.
    pub(crate) session: u64,
    /// Whether its session is open, as the host sees it.
    pub(crate) connected: bool,
    /// Whether its process runs.
    pub(crate) alive: bool,
    pub(crate) lanes: Vec<Option<Lane>>,
    /// Ends that were not reported yet.
    pub(crate) report: Report,
    /// Ends that were not acknowledged yet.
    pub(crate) ledger: Ledger,
    pub(crate) report_planned: bool,
    /// When the last message in each direction arrives: none overtakes it.
    pub(crate) last_to: u64,
    pub(crate) last_from: u64,
}

/// How a task of the simulation ends.
pub(crate) enum Outcome {
    Success,
    Failure(Cause, Vec<PartitionId>),
}

impl SimHost {
    pub(crate) fn new(name: &str, cores: u32) -> Self {
        Self {
            model: HostModel::new(name, cores),
            session: 0,
            connected: false,
            alive: true,
            lanes: (0..cores).map(|_| None).collect(),
            report: Report::default(),
            ledger: Ledger::default(),
            report_planned: false,
            last_to: 0,
            last_from: 0,
        }
    }

    /// Forgets everything that ran and was to be told.
    pub(crate) fn stop_everything(&mut self) {
        self.lanes.iter_mut().for_each(|lane| *lane = None);
        self.report = Report::default();
        self.ledger = Ledger::default();
        self.report_planned = false;
    }

    /// Begins a session with everything that is here and that was not acknowledged; also the number of the last report.
    pub(crate) fn hello(&mut self) -> (u64, HostHello) {
        self.take_report();
        let mut hello = self.model.hello();
        for lane in self.lanes.iter().flatten() {
            let open: Vec<&Run> = lane.runs.iter().filter(|run| !self.model.cancelled.contains(&run.attempt)).collect();
            let Some(first) = open.first() else { continue };
            let (job, array) = (first.attempt.task.job, first.attempt.task.array);
            let (indexes, attempts) = open.iter().map(|run| (run.attempt.task.index, run.attempt.number)).unzip();
            hello.held.push(HeldFrame { id: lane.frame, job, array, indexes, attempts });
        }
        let (last, ended) = self.ledger.unacknowledged();
        hello.ended = ended;
        (last, hello)
    }

    /// Gives frames to idle lanes; returns which lanes started.
    pub(crate) fn start_lanes(&mut self) -> Vec<usize> {
        let mut started = Vec::new();
        for position in 0..self.lanes.len() {
            while self.lanes[position].is_none() {
                let Some(frame) = self.model.frames.pop_front() else { return started };
                let runs: VecDeque<Run> = self.model.runs(&frame).into();
                if runs.is_empty() {
                    self.report.finished_frames.push(frame.id);
                    continue;
                }
                self.lanes[position] = Some(Lane { frame: frame.id, runs });
                started.push(position);
            }
        }
        started
    }

    /// The task that a lane is about to end, unless it was cancelled.
    pub(crate) fn next_run(&mut self, lane: usize) -> Option<Run> {
        let lane = self.lanes[lane].as_mut()?;
        while let Some(run) = lane.runs.pop_front() {
            if !self.model.cancelled.contains(&run.attempt) {
                return Some(run);
            }
        }
        None
    }

    /// Notes how a task ended.
    pub(crate) fn end(&mut self, run: &Run, outcome: Outcome) {
        let report = match outcome {
            Outcome::Success => self.model.succeed(std::slice::from_ref(run)),
            Outcome::Failure(cause, missing) => self.model.fail(run, cause, missing),
        };
        self.report.succeeded.extend(report.succeeded);
        self.report.failed.extend(report.failed);
    }

    /// Whether the lane has more to run; if not, its frame is finished.
    pub(crate) fn goes_on(&mut self, lane: usize) -> bool {
        let Some(busy) = &self.lanes[lane] else { return false };
        if busy.runs.is_empty() {
            self.report.finished_frames.push(busy.frame);
            self.lanes[lane] = None;
        }
        self.lanes[lane].is_some()
    }

    /// A stored partition to lose.
    pub(crate) fn pick_partition(&self, random: &mut Random) -> Option<PartitionId> {
        let stored = self.model.store.len() as u64;
        if stored == 0 { None } else { self.model.store.keys().nth(random.below(stored) as usize).copied() }
    }

    pub(crate) fn take_report(&mut self) -> (u64, HostMessage) {
        self.report_planned = false;
        let report = std::mem::take(&mut self.report);
        (self.ledger.keep(&report), HostMessage::Report(report))
    }
}
