//! What faults do.

use std::num::NonZeroU32;

use partita_core::{Event, HostMessage};
use partita_types::{
    ArrayIndex, AttemptId, AttemptNumber, ByteSize, Cause, ContentHash, FailedAttempt, Failure, FrameId, HostId,
    OutputInfo, PartitionId, Report, SucceededBatch, TaskId, Usage,
};

use crate::Checked;
use crate::plan::{FaultKind, Moment};
use crate::world::{Step, World};

impl World {
    /// A fault happens.
    pub(crate) fn on_fault(&mut self, position: usize) -> Checked {
        let Some(fault) = self.plan.faults.get(position).cloned() else { return Ok(()) };
        match fault.what {
            FaultKind::Break { host, again, noticed } => self.break_link(host, again * 1_000, noticed),
            FaultKind::Cut { host, to_scheduler, lasts } => {
                let until = self.now + lasts * 1_000;
                if let Some(host) = self.hosts.get_mut(host) {
                    match to_scheduler {
                        true => host.cut_to_scheduler = until,
                        false => host.cut_from_scheduler = until,
                    }
                }
            }
            FaultKind::Kill { host, again, same } => self.kill(host, again * 1_000, same),
            FaultKind::Freeze { host, lasts } => {
                if let Some(host) = self.hosts.get_mut(host) {
                    host.frozen_until = self.now + lasts * 1_000;
                }
            }
            FaultKind::Evict { host } => {
                if host < self.hosts.len() {
                    self.evict(host);
                }
            }
            FaultKind::Lie { host } => return self.lie(host),
            FaultKind::OldNews { host } => return self.tell_old_news(host),
            FaultKind::Crash { again, moment: Moment::Now } => return self.crash(again * 1_000),
            FaultKind::Crash { again, moment } => self.scheduler.dies_at = Some((moment, again * 1_000)),
            FaultKind::Stall { lasts } => self.scheduler.stalled_until = self.now + lasts * 1_000,
            FaultKind::SlowDisk { flush, lasts } => {
                self.scheduler.disk.flush = flush * 1_000;
                self.plan_step(lasts * 1_000, Step::Over { position });
            }
            FaultKind::FullDisk { lasts } => {
                self.scheduler.disk.full = true;
                self.plan_step(lasts * 1_000, Step::Over { position });
            }
            FaultKind::Compact { lasts, dies } => return self.begin_compaction(lasts * 1_000, dies),
            FaultKind::Move { again } => return self.move_state(again * 1_000),
            FaultKind::Drain { host, lasts, stops } => return self.drain(host, lasts * 1_000, stops),
            FaultKind::ClientDies { job } => {
                if job < self.clients.len() {
                    self.restart_client(job);
                }
            }
        }
        Ok(())
    }

    /// What a fault did is over.
    pub(crate) fn on_over(&mut self, position: usize) {
        match self.plan.faults.get(position).map(|fault| &fault.what) {
            Some(FaultKind::SlowDisk { .. }) => self.scheduler.disk.flush = 300,
            Some(FaultKind::FullDisk { .. }) => self.scheduler.disk.full = false,
            _ => {}
        }
    }

    /// The scheduler dies now.
    pub(crate) fn crash(&mut self, again: u64) -> Checked {
        self.crash_scheduler()?;
        self.plan_step(again, Step::StartScheduler);
        Ok(())
    }

    /// A moment came at which the scheduler may be meant to die: it does so before anything else happens.
    pub(crate) fn at_moment(&mut self, moment: Moment) {
        if let Some((_, again)) = self.scheduler.dies_at.take_if(|(at, _)| *at == moment) {
            self.plan_step(0, Step::Crash { again });
        }
    }

    fn break_link(&mut self, position: usize, again: u64, noticed: bool) {
        let Some(host) = self.hosts.get_mut(position).filter(|host| host.connected) else { return };
        host.connected = false;
        let (session, process) = (host.session, host.process);
        if noticed {
            let wait = self.random.network.below(500_000);
            self.plan_step(wait, Step::Noticed { host: position, session });
        }
        self.plan_step(again, Step::Dial { host: position, process });
    }

    pub(crate) fn kill(&mut self, position: usize, again: u64, same: bool) {
        let Some(host) = self.hosts.get(position).filter(|host| host.alive) else { return };
        let session = host.session;
        if host.connected && self.random.network.chance(70) {
            let wait = self.random.network.below(100_000);
            self.plan_step(wait, Step::Noticed { host: position, session });
        }
        self.hosts[position].die(same);
        self.plan_step(again, Step::StartHost { host: position });
    }

    /// What an earlier life of a host had said arrives now.
    fn tell_old_news(&mut self, position: usize) -> Checked {
        let Some(host) = self.hosts.get(position) else { return Ok(()) };
        let Some((incarnation, report)) = host.old_news.clone() else { return Ok(()) };
        let name = host.name.clone();
        let Some(id) = self.scheduler.core().and_then(|core| core.host(&name)) else { return Ok(()) };
        if self.history.incarnation(&name).is_none_or(|current| current <= incarnation) {
            return Ok(());
        }
        self.apply_old_news(Event::FromHost { host: id, incarnation, message: HostMessage::Report(report) })
    }

    /// A host reports the end of attempts that it was not given, columns that do not fit together, and frames, partitions
    /// and jobs that do not exist.
    fn lie(&mut self, position: usize) -> Checked {
        let Some(name) = self.hosts.get(position).map(|host| host.name.clone()) else { return Ok(()) };
        let Some(incarnation) = self.history.incarnation(&name) else { return Ok(()) };
        let Some(id) = self.scheduler.core().and_then(|core| core.host(&name)) else { return Ok(()) };
        let report = Report {
            succeeded: (0..4).filter_map(|_| self.forged_success(id)).collect(),
            failed: (0..3).filter_map(|_| self.forged_failure(id)).collect(),
            finished_frames: vec![FrameId(u64::MAX), FrameId(self.random.processes.number())],
            ..Report::default()
        };
        self.apply_lie(Event::FromHost { host: id, incarnation, message: HostMessage::Report(report) })
    }

    /// An attempt that nobody made: of a task that this host has, or of any other, with a number far from any.
    fn forged_attempt(&mut self, host: HostId) -> Option<AttemptId> {
        let own: Vec<TaskId> = self.history.tasks_at(host).collect();
        if !own.is_empty() && self.random.processes.chance(50) {
            let task = own[self.random.processes.below(own.len() as u64) as usize];
            return Some(AttemptId { task, number: AttemptNumber(NonZeroU32::new(999)?) });
        }
        let jobs: Vec<(partita_types::JobId, u32)> =
            self.clients.iter().filter_map(|client| Some((client.job?, client.arrays() as u32))).collect();
        if jobs.is_empty() {
            return None;
        }
        let random = &mut self.random.processes;
        let (job, arrays) = jobs[random.below(jobs.len() as u64) as usize];
        let array = ArrayIndex(random.below(u64::from(arrays) + 1) as u32);
        let task = TaskId { job, array, index: random.below(20) as u32 };
        let number = if random.chance(50) { u32::MAX } else { 1_000_000 };
        Some(AttemptId { task, number: AttemptNumber(NonZeroU32::new(number)?) })
    }

    fn forged_success(&mut self, host: HostId) -> Option<SucceededBatch> {
        let attempt = self.forged_attempt(host)?;
        let random = &mut self.random.processes;
        let info = OutputInfo { size: ByteSize(random.number()), hash: ContentHash([3; 32]) };
        Some(SucceededBatch {
            job: attempt.task.job,
            array: attempt.task.array,
            indexes: vec![attempt.task.index],
            attempts: vec![attempt.number; random.below(3) as usize],
            outputs: vec![info; random.below(4) as usize],
            usage: vec![Usage::default(); random.below(3) as usize],
            moved_partitions: u64::MAX,
            moved_bytes: ByteSize(u64::MAX),
            reused: u32::MAX,
        })
    }

    fn forged_failure(&mut self, host: HostId) -> Option<FailedAttempt> {
        let attempt = self.forged_attempt(host)?;
        let missing = PartitionId { attempt, output: 9 };
        Some(FailedAttempt {
            attempt,
            failure: Failure::new(Cause::Failed, "never happened"),
            usage: Usage::default(),
            missing_inputs: vec![missing],
        })
    }
}
