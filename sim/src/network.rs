//! The network of the simulation: every connection keeps its order, and nothing else does. What is under way when a
//! connection ends is lost, or arrives when nobody expects it any more.

use partita_core::{HostCommand, HostMessage};

use crate::world::{Step, Word, World};

/// Sessions that the host began and the scheduler did not hear of end after this long, in microseconds.
const NO_WELCOME: u64 = 10_000_000;
/// Between two heartbeats.
const HEARTBEAT: u64 = 1_000_000;
/// Of 100 messages of a session that ended, so many arrive all the same.
const STRAYS: u64 = 20;

/// One side of a session, as the scheduler knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session {
    /// The position of the host.
    pub(crate) host: usize,
    /// Which session.
    pub(crate) serial: u64,
}

impl World {
    /// How long a message takes.
    pub(crate) fn delay(&mut self) -> u64 {
        let late = self.random.network.chance(self.plan.late_messages);
        self.random.network.between(100, if late { 400_000 } else { 5_000 })
    }

    pub(crate) fn send_to_host(&mut self, session: Session, command: HostCommand) {
        let at = self.now + self.delay();
        let host = &mut self.hosts[session.host];
        let at = at.max(host.last_to + 1).max(host.cut_from_scheduler);
        host.last_to = at;
        self.plan_step(at - self.now, Step::ToHost { host: session.host, session: session.serial, command });
    }

    pub(crate) fn send_to_scheduler(&mut self, position: usize, word: Word) {
        let at = self.now + self.delay();
        let host = &mut self.hosts[position];
        let at = at.max(host.last_from + 1).max(host.cut_to_scheduler);
        host.last_from = at;
        let (session, incarnation) = (host.session, host.incarnation);
        self.plan_step(at - self.now, Step::ToScheduler { host: position, session, incarnation, word });
    }

    pub(crate) fn say(&mut self, host: usize, message: HostMessage) {
        if self.hosts[host].connected {
            self.send_to_scheduler(host, Word::Said(message));
        }
    }

    /// Whether a message of a session that is over by now arrives at all.
    pub(crate) fn is_stray(&mut self) -> bool {
        self.random.network.chance(STRAYS)
    }

    /// A host opens a session, unless it has one.
    pub(crate) fn dial(&mut self, position: usize, process: u64) {
        let host = &self.hosts[position];
        if host.connected || !host.alive || host.process != process {
            return;
        }
        if !self.scheduler.is_up() {
            let wait = self.random.network.between(100_000, 3_000_000);
            self.plan_step(wait, Step::Dial { host: position, process });
            return;
        }
        let session = self.next_serial();
        let (last, hello) = self.hosts[position].begin_session(session, self.now);
        self.send_to_scheduler(position, Word::Hello(last, hello));
        self.plan_step(HEARTBEAT, Step::Heartbeat { host: position, session });
    }

    /// The host's side: the session is over, and another one begins soon.
    pub(crate) fn on_closed(&mut self, position: usize, session: u64) {
        let host = &mut self.hosts[position];
        if host.connected && host.session == session {
            host.connected = false;
            let process = host.process;
            let wait = self.random.network.between(50_000, 3_000_000);
            self.plan_step(wait, Step::Dial { host: position, process });
        }
    }

    pub(crate) fn send_heartbeat(&mut self, position: usize, session: u64) {
        let host = &self.hosts[position];
        if !host.connected || host.session != session {
            return;
        }
        if !host.welcomed && self.now >= host.dialled + NO_WELCOME {
            self.on_closed(position, session);
            return;
        }
        if host.welcomed {
            self.say(position, HostMessage::Heartbeat);
        }
        self.plan_step(HEARTBEAT, Step::Heartbeat { host: position, session });
    }
}
