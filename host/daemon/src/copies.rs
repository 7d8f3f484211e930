//! Copies of partitions of other hosts, kept for a while because every frame of an array reads a broadcast input.
//!
//! Nobody else knows of them, so nobody says when they are not needed any more: they go when nothing has asked for them for
//! [`LIFE`], or when newer ones need their place. So little by little a host has nothing left of a job that was released.
//! Time is an argument.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use partita_sandbox::Payload;
use partita_types::{ByteSize, PartitionId, Timestamp};

/// How long a copy is kept that nobody asks for. Fetching again at most this often costs less than a tenth of the time: a
/// budget's worth of bytes moves in a fraction of a second.
pub(crate) const LIFE: Duration = Duration::from_secs(3);
/// What a copy costs besides its bytes.
const OVERHEAD: u64 = 256;

#[derive(Debug)]
struct Copy {
    payload: Payload,
    used: Timestamp,
}

/// Copies within a budget.
#[derive(Debug)]
pub(crate) struct Copies {
    copies: HashMap<PartitionId, Copy>,
    /// Each copy once, in about the order of use: with the time of a use that may not be its last. Ids of forgotten ones
    /// linger until it is their turn.
    order: VecDeque<(Timestamp, PartitionId)>,
    bytes: u64,
    budget: u64,
}

impl Copies {
    /// None yet; up to `budget` bytes of them later.
    pub(crate) fn new(budget: ByteSize) -> Self {
        Self { copies: HashMap::new(), order: VecDeque::new(), bytes: 0, budget: budget.0 }
    }

    /// The copy of a partition, if it is here.
    pub(crate) fn get(&mut self, id: PartitionId, now: Timestamp) -> Option<Payload> {
        let copy = self.copies.get_mut(&id)?;
        copy.used = now;
        Some(copy.payload.clone())
    }

    /// Keeps a copy, if it fits at all; those that were used longest ago make room.
    pub(crate) fn insert(&mut self, id: PartitionId, payload: Payload, now: Timestamp) {
        let cost = cost(&payload);
        if cost > self.budget || self.copies.contains_key(&id) {
            return;
        }
        while self.bytes + cost > self.budget {
            let Some((_, oldest)) = self.order.pop_front() else { break };
            self.forget(oldest);
        }
        self.bytes += cost;
        self.order.push_back((now, id));
        self.copies.insert(id, Copy { payload, used: now });
    }

    /// Forgets a copy.
    pub(crate) fn forget(&mut self, id: PartitionId) {
        if let Some(copy) = self.copies.remove(&id) {
            self.bytes -= cost(&copy.payload);
        }
    }

    /// Forgets what nobody asked for since [`LIFE`]. Costs nothing while nothing is due.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        while let Some((seen, id)) = self.order.front().copied() {
            if now.since(seen) < LIFE {
                return;
            }
            self.order.pop_front();
            match self.copies.get(&id).map(|copy| copy.used) {
                Some(used) if now.since(used) < LIFE => self.order.push_back((used, id)),
                Some(_) => self.forget(id),
                None => {}
            }
        }
    }
}

fn cost(payload: &Payload) -> u64 {
    payload.size().0.saturating_add(OVERHEAD)
}

#[cfg(test)]
mod tests {
    use partita_types::{ArrayIndex, AttemptId, AttemptNumber, JobId, TaskId, TenantId};

    use super::*;

    fn id(index: u32) -> PartitionId {
        let task = TaskId { job: JobId { tenant: TenantId(1), number: 1 }, array: ArrayIndex(0), index };
        PartitionId { attempt: AttemptId { task, number: AttemptNumber::FIRST }, output: 0 }
    }

    fn payload(length: usize) -> Payload {
        Payload::new(vec![7; length].into()).unwrap()
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_micros(1_000_000 + millis * 1_000)
    }

    #[test]
    fn a_copy_that_nobody_asks_for_goes_after_a_while() {
        let mut copies = Copies::new(ByteSize::mib(1));
        copies.insert(id(0), payload(100_000), at(0));
        copies.insert(id(1), payload(100), at(0));
        assert!(copies.get(id(1), at(2_000)).is_some());
        copies.expire(at(2_999));
        assert_eq!(copies.copies.len(), 2);
        copies.expire(at(3_000));
        assert!(copies.get(id(0), at(3_000)).is_none());
        assert!(copies.copies.contains_key(&id(1)), "it was used meanwhile");
        copies.expire(at(5_000));
        assert_eq!((copies.copies.len(), copies.order.len(), copies.bytes), (0, 0, 0));
    }

    #[test]
    fn copies_stay_within_their_budget_and_the_oldest_goes_first() {
        let mut copies = Copies::new(ByteSize(3 * (100 + OVERHEAD)));
        for index in 0..4 {
            copies.insert(id(index), payload(100), at(u64::from(index)));
        }
        copies.insert(id(9), payload(2_000), at(9));
        let mut here = |index| copies.get(id(index), at(10)).is_some();
        assert_eq!([0, 1, 2, 3, 9].map(&mut here), [false, true, true, true, false]);
    }

    #[test]
    fn a_forgotten_copy_gives_its_bytes_back_once() {
        let mut copies = Copies::new(ByteSize::mib(1));
        copies.insert(id(0), payload(100), at(0));
        copies.forget(id(0));
        copies.forget(id(0));
        copies.insert(id(0), payload(100), at(1));
        copies.expire(at(3_000));
        assert!(copies.get(id(0), at(3_000)).is_some(), "the second copy is younger");
        assert_eq!(copies.bytes, 100 + OVERHEAD);
    }
}
