//! The states of a task and every way from one to another, in one table. It stands in `docs/SCHEDULING.md` as well, where a
//! test compares it, and whatever moves tasks between states is held to it in debug builds.
//!
//! `running` is no state of its own here: what is part of a frame at a host is `assigned`, and only the host knows which
//! attempt of a frame runs just now.

use crate::task::State;

/// One way: from, to, and what takes a task there.
pub(crate) type Transition = (State, State, &'static str);

/// Every way there is. The journal knows no frames, so a replay goes to an end from where the task waited for one.
pub(crate) const TRANSITIONS: [Transition; 29] = [
    (State::Waiting, State::Ready, "the last input that it waited for succeeded"),
    (State::Waiting, State::Assigned, "a host that came back holds an attempt of it; replay lacked what it reads"),
    (State::Waiting, State::Delayed, "replay: an attempt failed, and there will be another"),
    (State::Waiting, State::Succeeded, "an upload arrived; a returning host has the outputs; replay"),
    (State::Waiting, State::Failed, "its outputs were lost, and nothing can make them again; replay"),
    (State::Waiting, State::Cancelled, "its job was cancelled, failed or expired"),
    (State::Waiting, State::Aborted, "something that it depends on failed"),
    (State::Ready, State::Assigned, "a frame with it was handed to a host, or a host that came back holds one"),
    (State::Ready, State::Waiting, "outputs that it reads were lost"),
    (State::Ready, State::Delayed, "replay: an attempt failed, and there will be another"),
    (State::Ready, State::Succeeded, "a host that came back after a restart has the outputs; replay"),
    (State::Ready, State::Failed, "no host could run it, or no limit allowed it, for too long; replay"),
    (State::Ready, State::Cancelled, "its job was cancelled, failed or expired"),
    (State::Ready, State::Aborted, "outputs that it reads were lost, and nothing can make them again"),
    (State::Delayed, State::Ready, "its back-off is over"),
    (State::Delayed, State::Assigned, "a host that came back holds its next attempt"),
    (State::Delayed, State::Waiting, "its back-off is over, and outputs that it reads were lost meanwhile"),
    (State::Delayed, State::Succeeded, "replay: the next attempt succeeded"),
    (State::Delayed, State::Failed, "replay: the next attempt failed for good"),
    (State::Delayed, State::Cancelled, "its job was cancelled, failed or expired"),
    (State::Delayed, State::Aborted, "outputs that it reads were lost, and nothing can make them again"),
    (State::Assigned, State::Succeeded, "its host reported the outputs of the current attempt"),
    (State::Assigned, State::Ready, "the attempt ended without blame: its host was lost, or gave it back"),
    (State::Assigned, State::Waiting, "the same, and outputs that it reads were lost"),
    (State::Assigned, State::Delayed, "the attempt failed, and there will be another after a back-off"),
    (State::Assigned, State::Failed, "the attempt failed, and there will be no other"),
    (State::Assigned, State::Cancelled, "its job was cancelled, failed or expired; its host is told to stop it"),
    (State::Assigned, State::Aborted, "outputs that it reads were lost, and nothing can make them again"),
    (State::Succeeded, State::Waiting, "its outputs were lost and are needed: a new attempt makes them again"),
];

impl State {
    /// Whether the table has a way from here to there. To stay is no change.
    pub(crate) fn may_become(self, to: Self) -> bool {
        self == to || TRANSITIONS.iter().any(|(from, into, _)| (*from, *into) == (self, to))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const DOCUMENT: &str = include_str!("../../../docs/SCHEDULING.md");

    fn name(state: State) -> &'static str {
        if state == State::Delayed { "delayed" } else { state.name() }
    }

    /// I1: only the transitions of the table happen, and the table that people read is the one that is checked.
    #[test]
    fn the_table_in_the_document_is_the_one_in_the_code() {
        let row = |(from, to, why): &Transition| format!("| `{}` | `{}` | {why} |", name(*from), name(*to));
        let table: Vec<String> = TRANSITIONS.iter().map(row).collect();
        let known: BTreeSet<String> = State::ALL.iter().map(|state| format!("| `{}` | `", name(*state))).collect();
        let is_row = |line: &&str| known.iter().any(|start| line.starts_with(start.as_str()));
        let written: Vec<&str> = DOCUMENT.lines().filter(is_row).collect();
        assert_eq!(written, table, "docs/SCHEDULING.md has to have these rows:\n{}", table.join("\n"));
    }

    #[test]
    fn a_way_stands_in_the_table_once() {
        let ways: BTreeSet<(State, State)> = TRANSITIONS.iter().map(|(from, to, _)| (*from, *to)).collect();
        assert_eq!(ways.len(), TRANSITIONS.len());
    }

    #[test]
    fn only_the_loss_of_outputs_leads_out_of_a_final_state() {
        for (from, to, _) in TRANSITIONS.iter().filter(|(from, ..)| from.is_final()) {
            assert_eq!((*from, *to), (State::Succeeded, State::Waiting));
        }
        assert!(!State::Failed.may_become(State::Ready));
    }
}
