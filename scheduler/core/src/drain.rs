//! Emptying a host, so that it can be stopped without loss.
//!
//! A host that is drained gets no more work. What waits there is asked back, what runs may end, and outputs that only it has
//! go to others, as `moves.rs` says. When nothing is left it says so, and stays so until it is taken back, even if the
//! scheduler or the host is started again: the decision is in the journal. Nothing of that counts as a failure of a task.
//!
//! What no other host has room for stays, and so does the host: it goes on as soon as there is room. Of hosts that are drained at
//! the same time none is a target of another, so nothing goes round in circles. (Dask's `RetireWorker` policy and the
//! decommissioning of HDFS data nodes do the same; the former gives up where this waits and says why.)

use partita_types::{ByteSize, HostId, HostName, Timestamp};

use crate::Core;
use crate::action::{Action, HostCommand, Refusal, Reply};
use crate::host::Host;
use crate::moves::Cursor;
use crate::record::Record;
use crate::task::Place;
use crate::view::{DrainView, LeftView};

/// Most arrays that are listed of what is left.
const LISTED_MAX: usize = 100;

/// How far the emptying of a host is.
#[derive(Debug, Clone)]
pub(crate) struct Drain {
    since: Timestamp,
    cursor: Option<Cursor>,
    /// Nothing is left, and nothing can come.
    done: bool,
    /// Why the rest stays, if it does.
    stuck: Option<String>,
    /// What went wrong with the last copy, if something did.
    problem: Option<String>,
}

impl Drain {
    pub(crate) fn new(since: Timestamp) -> Self {
        Self { since, cursor: None, done: false, stuck: None, problem: None }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    pub(crate) fn view(&self, host: &Host) -> DrainView {
        DrainView {
            since: self.since,
            done: self.done,
            tasks: host.assigned_tasks,
            partitions: host.stored_partitions,
            bytes: ByteSize(host.stored_bytes),
            stuck: self.stuck.clone(),
        }
    }
}

impl Core {
    pub(crate) fn on_drain(&mut self, name: HostName, on: bool, actions: &mut Vec<Action>) -> Result<Reply, Refusal> {
        let draining = self.known_hosts.drains_since(&name).is_some();
        if !self.host_names.contains_key(&name) && !draining && !self.known_hosts.is_known(&name) {
            return Err(Refusal::NotFound { what: format!("host {name}") });
        }
        if draining != on {
            self.commit(Record::HostDraining { name: name.clone(), on, at: self.now }, actions);
            if let Some(id) = self.host_names.get(&name).copied() {
                self.cancel_flights(|flight| if on { flight.to == id } else { flight.from == id }, actions);
            }
        }
        Ok(Reply::Done)
    }

    /// The effect of [`Record::HostDraining`].
    pub(crate) fn take_drain(&mut self, name: &HostName, on: bool, at: Timestamp) -> bool {
        if let Some(id) = self.host_names.get(name) {
            self.hosts[id.0 as usize].drain = on.then(|| Drain::new(at));
        }
        self.moves.wake();
        self.known_hosts.set_draining(name, on, at)
    }

    /// Whether a host is drained that has something left, and could do something about it.
    pub(crate) fn drains_go_on(&self) -> bool {
        let goes_on = |drain: &Drain| !drain.done;
        self.hosts.iter().any(|host| host.is_attached() && host.drain.as_ref().is_some_and(goes_on))
    }

    /// Takes the next steps for every host that is drained.
    pub(crate) fn drain_hosts(&mut self, actions: &mut Vec<Action>) {
        for position in 0..self.hosts.len() {
            let host = &self.hosts[position];
            if host.is_attached() && host.drain.as_ref().is_some_and(|drain| !drain.done) {
                let id = host.id;
                self.ask_back_all(id, actions);
                self.leave_to_others(id);
                self.move_out(id, actions);
            }
        }
    }

    /// Asks for every frame that may not have begun.
    fn ask_back_all(&mut self, id: HostId, actions: &mut Vec<Action>) {
        let slots = self.hosts[id.0 as usize].frames.iter();
        let frames = slots.filter_map(|slot| self.frames.get(*slot));
        let waiting = |frame: &&crate::frame::LiveFrame| {
            !frame.started && !frame.preempted && frame.stopping == 0 && frame.open as usize == frame.indexes.len()
        };
        let frames: Vec<_> = frames.filter(waiting).map(|frame| frame.id).collect();
        for frame in frames {
            if self.retractions.ask(frame, id) {
                actions.push(Action::Command { host: id, command: HostCommand::Retract(vec![frame]) });
            }
        }
    }

    /// What others have, too, is not needed here.
    fn leave_to_others(&mut self, id: HostId) {
        let takes_part = |host: HostId| self.hosts[host.0 as usize].takes_part();
        let others: Vec<_> = self
            .copies
            .iter()
            .filter(|(task, other, _)| takes_part(*other) && self.place_of(*task) == Some(Place::At(id)))
            .map(|(task, other, _)| (task, other))
            .collect();
        for (task, other) in others {
            if self.place_of(task) == Some(Place::At(id)) {
                let copy = self.copy_of(task, true);
                self.switch_place(task, other);
                copy.into_iter().for_each(|copy| self.add_copy(task, id, copy));
            }
        }
        let here: Vec<_> = self.copies.at(id).collect();
        here.into_iter().for_each(|task| self.let_go(task, id));
    }

    /// Sends what only this host has to others, as far as that is possible now.
    fn move_out(&mut self, id: HostId, actions: &mut Vec<Action>) {
        let Some(mut cursor) = self.hosts[id.0 as usize].drain.as_ref().map(|drain| drain.cursor) else { return };
        while self.may_send_more(id) {
            let Some(batch) = self.gather(id, &mut cursor) else { break };
            self.start_copy(id, batch, actions);
        }
        let at_end = cursor.is_none();
        let host = &self.hosts[id.0 as usize];
        let moves = self.moves.flights().any(|flight| flight.from == id || flight.to == id);
        let waits = moves || host.extra_partitions > 0 || self.uploads.any_to(id);
        let done = host.frames.is_empty() && host.stored.is_empty() && !waits;
        let stuck = (at_end && !moves && !host.stored.is_empty()).then(|| self.why_stuck(host));
        if let Some(drain) = &mut self.hosts[id.0 as usize].drain {
            drain.cursor = cursor;
            drain.done = done;
            if at_end || moves {
                drain.stuck = stuck;
            }
        }
    }

    /// Why what a host has goes nowhere.
    fn why_stuck(&self, host: &Host) -> String {
        let others = || self.hosts.iter().filter(|other| other.takes_part() && other.id != host.id);
        let Some(roomiest) = others().max_by_key(|other| other.free_storage()) else {
            return "there is no other attached host that is not drained itself".to_owned();
        };
        let problem = host.drain.as_ref().and_then(|drain| drain.problem.as_ref());
        match problem {
            Some(problem) => format!("the last copy failed: {problem}"),
            None => format!(
                "the roomiest other host, {}, has room for {} more, and {} are left here; it may also be that its isolation \
                 is too weak for the tenant",
                roomiest.name,
                ByteSize(roomiest.free_storage()),
                ByteSize(host.stored_bytes)
            ),
        }
    }

    /// A copy from a host failed.
    pub(crate) fn note_problem(&mut self, from: Option<HostId>, to: HostId, problem: Option<String>) {
        let to = self.hosts[to.0 as usize].name.clone();
        let Some(from) = from.and_then(|from| self.hosts.get_mut(from.0 as usize)) else { return };
        if let Some(drain) = &mut from.drain {
            drain.problem = problem.map(|problem| format!("host {to}: {problem}"));
        }
    }

    /// What is left at a host, array by array, as far as it fits into a list.
    #[must_use]
    pub fn left_at(&self, host: HostId) -> Vec<LeftView> {
        let Some(host) = self.hosts.get(host.0 as usize) else { return Vec::new() };
        let left = host.stored.iter().filter_map(|((id, position), tasks)| {
            let array = self.find_job(*id)?.array(*position);
            Some(LeftView {
                tenant: self.tenants.get(id.tenant.0 as usize)?.name.clone(),
                job: *id,
                array: array.name().to_owned(),
                tasks: *tasks,
                bytes: ByteSize(array.located_at(host.id)),
            })
        });
        left.take(LISTED_MAX).collect()
    }
}
