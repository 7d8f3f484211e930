//! Hosts that the journal knows, and which of them are waited for after a restart.
//!
//! What runs at hosts is not in the journal. So nothing is handed out after a restart before every host that was there
//! has shown what it goes on with, or [`HOST_TIMEOUT`] is over: as long as a host without session is waited for at any
//! other time.

use std::collections::{BTreeMap, BTreeSet};

use partita_types::{HostName, Timestamp};

use crate::Core;
use crate::action::Action;
use crate::record::Record;
use crate::timers::HOST_TIMEOUT;

/// The hosts of the cluster, by their names.
#[derive(Debug, Default)]
pub(crate) struct KnownHosts {
    /// Those that the journal has.
    journaled: BTreeSet<HostName>,
    /// Those that did not attach since a restart, and until when they are waited for.
    awaited: Option<(BTreeSet<HostName>, Timestamp)>,
    /// Those that are to be emptied, and since when. A host stays in it while it is away.
    draining: BTreeMap<HostName, Timestamp>,
}

impl KnownHosts {
    /// The effect of [`Record::HostJoined`].
    pub(crate) fn add(&mut self, name: &HostName) -> bool {
        self.journaled.insert(name.clone())
    }

    /// The effect of [`Record::HostLost`].
    pub(crate) fn remove(&mut self, name: &HostName) -> bool {
        self.journaled.remove(name)
    }

    /// The hosts that the journal has, in order.
    pub(crate) fn names(&self) -> Vec<HostName> {
        self.journaled.iter().cloned().collect()
    }

    /// The effect of [`Record::HostDraining`].
    pub(crate) fn set_draining(&mut self, name: &HostName, on: bool, at: Timestamp) -> bool {
        if on { self.draining.insert(name.clone(), at).is_none() } else { self.draining.remove(name).is_some() }
    }

    /// Since when a host is to be emptied, if it is.
    pub(crate) fn drains_since(&self, name: &HostName) -> Option<Timestamp> {
        self.draining.get(name).copied()
    }

    /// Hosts that are to be emptied, in order, and since when.
    pub(crate) fn draining(&self) -> impl Iterator<Item = (&HostName, Timestamp)> {
        self.draining.iter().map(|(name, since)| (name, *since))
    }

    /// Whether the journal has a host.
    pub(crate) fn is_known(&self, name: &HostName) -> bool {
        self.journaled.contains(name)
    }

    /// Waits for every host of the journal.
    pub(crate) fn await_all(&mut self, now: Timestamp) {
        if !self.journaled.is_empty() {
            self.awaited = Some((self.journaled.clone(), now.after(HOST_TIMEOUT)));
        }
    }

    /// Whether some hosts are waited for.
    pub(crate) fn are_awaited(&self) -> bool {
        self.awaited.is_some()
    }

    /// The hosts that are waited for, in order.
    pub(crate) fn awaited(&self) -> impl Iterator<Item = &HostName> {
        self.awaited.iter().flat_map(|(names, _)| names)
    }

    /// Until when they are.
    pub(crate) fn awaited_until(&self) -> Option<Timestamp> {
        self.awaited.as_ref().map(|(_, until)| *until)
    }

    /// Waits no longer than it was to. Returns whether it stops waiting.
    pub(crate) fn stop_waiting(&mut self, now: Timestamp) -> bool {
        let stops = self.awaited_until().is_some_and(|until| until <= now);
        if stops {
            self.awaited = None;
        }
        stops
    }

    fn arrived(&mut self, name: &HostName) {
        if let Some((names, _)) = &mut self.awaited {
            names.remove(name);
            if names.is_empty() {
                self.awaited = None;
            }
        }
    }
}

impl Core {
    /// A host attached, and what it goes on with was taken over.
    pub(crate) fn host_arrived(&mut self, name: &HostName) {
        self.known_hosts.arrived(name);
    }

    /// Writes down that there is a host, unless the journal knows.
    pub(crate) fn note_joined(&mut self, name: &HostName, actions: &mut Vec<Action>) {
        if !self.known_hosts.journaled.contains(name) {
            self.commit(Record::HostJoined { name: name.clone(), at: self.now }, actions);
        }
    }

    /// Writes down that a host was given up.
    pub(crate) fn note_lost(&mut self, name: HostName, actions: &mut Vec<Action>) {
        if self.known_hosts.journaled.contains(&name) {
            self.commit(Record::HostLost { name, at: self.now }, actions);
        }
    }

    /// Gives up hosts that did not attach in the time for recovery.
    pub(crate) fn give_up_absent(&mut self, actions: &mut Vec<Action>) {
        let absent = self.known_hosts.journaled.iter().filter(|name| !self.host_names.contains_key(*name));
        for name in absent.cloned().collect::<Vec<_>>() {
            self.note_lost(name, actions);
        }
    }
}
