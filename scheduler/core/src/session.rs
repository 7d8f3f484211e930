//! How hosts come, go, and come back.
//!
//! A host goes on with what it was given while it has no session. When it attaches again it says what it stores, what it
//! goes on with and what ended meanwhile; `reattach.rs` takes that over.

use partita_types::{Cause, Failure, HostId, Incarnation, Timestamp};

use crate::Core;
use crate::action::{Action, HostCommand};
use crate::drain::Drain;
use crate::event::HostHello;
use crate::host::{Host, Presence};
use crate::planted::Bug;
use crate::timers::HOST_TIMEOUT;

impl Core {
    pub(crate) fn on_host_attached(&mut self, hello: HostHello, actions: &mut Vec<Action>) {
        let id = match self.host_names.get(&hello.name) {
            Some(id) if hello.incarnation < self.hosts[id.0 as usize].incarnation => {
                self.stale += 1;
                return;
            }
            Some(id) => *id,
            None => self.add_host(&hello),
        };
        if self.hosts[id.0 as usize].is_attached() {
            actions.push(Action::Disconnect { host: id, reason: "a newer session of it was opened" });
        }
        self.open_session(id, &hello);
        let tenants = self.tenants.iter().filter_map(|tenant| tenant.for_host(id)).collect();
        actions.push(Action::Command { host: id, command: HostCommand::Welcome { tenants } });
        self.moves.returning = self.forget_copies_at(id);
        let mut gone = self.unlocate_host(id);
        let HostHello { name, inventory, held, ended, .. } = hello;
        self.note_joined(&name, actions);
        gone.extend(self.take_unheard_failures(id, ended.failed, actions));
        let drops = self.adopt(id, inventory, &ended.succeeded, actions);
        self.moves.returning.clear();
        self.send_drops(id, &drops, actions);
        self.reconcile(id, held, actions);
        self.host_arrived(&name);
        self.divide_all_rates();
        self.rebuild_needed(gone, Some(id), actions);
        self.ask_again(id, actions);
    }

    fn add_host(&mut self, hello: &HostHello) -> HostId {
        let id = HostId(u32::try_from(self.hosts.len()).unwrap_or(u32::MAX));
        self.hosts.push(Host::new(id, hello, self.now));
        self.host_names.insert(hello.name.clone(), id);
        id
    }

    fn open_session(&mut self, id: HostId, hello: &HostHello) {
        if self.hosts[id.0 as usize].is_detached() {
            self.set_outputs_away(id, false);
        }
        let now = self.now;
        let host = &mut self.hosts[id.0 as usize];
        host.presence = Presence::Attached;
        host.incarnation = hello.incarnation;
        host.capacity = hello.capacity;
        host.isolation = hello.isolation;
        host.address.clone_from(&hello.address);
        host.features.clone_from(&hello.features);
        (host.attached, host.heard) = (now, now);
        host.sent.clear();
        host.drain = self.known_hosts.drains_since(&hello.name).map(Drain::new);
        self.moves.wake();
        self.forget_flights_to(id);
        self.retractions.forget_host(id);
        self.uploads.forget_host(id);
    }

    /// Gives everything out again that a host had.
    fn take_back_all(&mut self, id: HostId, why: &str, actions: &mut Vec<Action>) {
        let failure = Failure::new(Cause::HostLost, format!("host {}: {why}", self.hosts[id.0 as usize].name));
        let slots: Vec<u32> = self.hosts[id.0 as usize].frames.iter().copied().collect();
        for slot in slots {
            self.take_back(slot, &failure, actions);
        }
    }

    pub(crate) fn on_host_detached(&mut self, id: HostId, incarnation: Incarnation, actions: &mut Vec<Action>) {
        let current = self.hosts.get(id.0 as usize).is_some_and(|host| host.incarnation == incarnation);
        if !current || !self.hosts[id.0 as usize].is_attached() {
            self.stale += 1;
            return;
        }
        self.detach(id, self.now.after(HOST_TIMEOUT));
        self.ask_again(id, actions);
    }

    /// Notes that a host has no session; it may come back until then.
    pub(crate) fn detach(&mut self, id: HostId, until: Timestamp) {
        self.prefer_other_copies(id);
        self.forget_flights_to(id);
        self.hosts[id.0 as usize].presence = Presence::Detached { until };
        self.divide_all_rates();
        self.set_outputs_away(id, true);
        self.retractions.forget_host(id);
        self.uploads.forget_host(id);
    }

    /// Gives a detached host up.
    pub(crate) fn declare_lost(&mut self, id: HostId, actions: &mut Vec<Action>) {
        self.set_outputs_away(id, false);
        self.hosts[id.0 as usize].presence = Presence::Lost;
        self.divide_all_rates();
        self.forget_copies_at(id);
        let gone = self.unlocate_host(id);
        self.take_back_all(id, "it was lost", actions);
        if self.has(Bug::LostOutputsForgotten) {
            return;
        }
        self.rebuild_needed(gone, Some(id), actions);
        self.note_lost(self.hosts[id.0 as usize].name.clone(), actions);
    }
}
