//! The right of a host to fetch partitions from another one: one ticket per frame and source.

use std::collections::BTreeMap;
use std::time::Duration;

use partita_identity::ticket::{self, Claims, MAX_PARTITIONS, TicketKey};
use partita_types::{Frame, HostId, HostName, PartitionId};

/// How long a ticket is good: a frame waits at its host for as long as those before it take.
const LIFETIME: Duration = Duration::from_secs(6 * 3_600);

/// The ticket keys of all hosts of this process. A restart makes new ones; hosts learn theirs when they attach, and
/// frames from before are given out again.
#[derive(Debug, Default)]
pub(crate) struct Tickets {
    keys: BTreeMap<HostId, TicketKey>,
}

impl Tickets {
    /// The key of the tickets for what `host` stores.
    pub(crate) fn key(&mut self, host: HostId) -> TicketKey {
        self.keys.entry(host).or_insert_with(TicketKey::generate).clone()
    }

    /// Gives `frame`, which goes to `host`, its tickets. What the host itself has needs none.
    pub(crate) fn fill_in(&mut self, host: HostId, name: &HostName, frame: &mut Frame) {
        let expires = partita_identity::now().after(LIFETIME);
        let mut wanted: Vec<Vec<PartitionId>> = vec![Vec::new(); frame.sources.len()];
        for input in &frame.inputs {
            let position = usize::try_from(input.source).unwrap_or(usize::MAX);
            if let Some(list) = wanted.get_mut(position) {
                list.push(input.partition.id);
            }
        }
        for (source, mut partitions) in frame.sources.iter_mut().zip(wanted) {
            if source.host == host {
                source.address.clear();
                continue;
            }
            partitions.sort_unstable();
            partitions.dedup();
            // More than any frame has; a host that lacks a right reports the input as missing.
            partitions.truncate(MAX_PARTITIONS);
            let key = self.keys.entry(source.host).or_insert_with(TicketKey::generate);
            let claims = Claims { tenant: frame.job.tenant, destination: name.clone(), expires, partitions };
            source.ticket = ticket::mint(key, &claims);
        }
    }
}

#[cfg(test)]
mod tests {
    use partita_types::{
        ArrayIndex, AttemptId, AttemptNumber, ByteSize, ContentHash, FrameId, InputPartition, JobId, OutputInfo,
        Source, StoredPartition, TaskId, TenantId,
    };

    use super::*;

    const JOB: JobId = JobId { tenant: TenantId(4), number: 1 };

    fn partition(index: u32) -> StoredPartition {
        let task = TaskId { job: JOB, array: ArrayIndex(0), index };
        let attempt = AttemptId { task, number: AttemptNumber::FIRST };
        let info = OutputInfo { size: ByteSize(1), hash: ContentHash([0; 32]) };
        StoredPartition { id: PartitionId { attempt, output: 0 }, info }
    }

    fn source(host: u32, name: &str) -> Source {
        let name = HostName::new(name).unwrap();
        Source { host: HostId(host), name, address: "10.0.0.1:1".to_owned(), ticket: Vec::new() }
    }

    fn frame() -> Frame {
        let inputs = [(0, 0), (1, 1), (1, 1), (2, 1)];
        Frame {
            id: FrameId(1),
            job: JOB,
            array: ArrayIndex(1),
            indexes: vec![0],
            attempts: vec![AttemptNumber::FIRST],
            arguments: Vec::new(),
            literals: Vec::new(),
            input_counts: vec![4],
            inputs: inputs
                .into_iter()
                .map(|(index, source)| InputPartition { partition: partition(index), source })
                .collect(),
            sources: vec![source(1, "host-1"), source(2, "host-2")],
            memory: None,
            reuse: Vec::new(),
        }
    }

    #[test]
    fn a_ticket_lists_exactly_what_its_source_has_for_the_frame() {
        let mut tickets = Tickets::default();
        let mut frame = frame();
        let destination = HostName::new("host-1").unwrap();
        tickets.fill_in(HostId(1), &destination, &mut frame);
        assert!(frame.sources[0].ticket.is_empty() && frame.sources[0].address.is_empty());
        let claims = ticket::open(&tickets.key(HostId(2)), &frame.sources[1].ticket, partita_identity::now()).unwrap();
        assert_eq!(claims.partitions, [partition(1).id, partition(2).id]);
        assert_eq!(claims.check(&destination, &[partition(2).id]), Ok(()));
        assert!(claims.check(&HostName::new("host-3").unwrap(), &[partition(2).id]).is_err());
    }

    #[test]
    fn a_ticket_for_one_source_is_worthless_at_another() {
        let mut tickets = Tickets::default();
        let mut frame = frame();
        tickets.fill_in(HostId(3), &HostName::new("host-3").unwrap(), &mut frame);
        let other = tickets.key(HostId(1));
        assert!(ticket::open(&other, &frame.sources[1].ticket, partita_identity::now()).is_err());
    }
}
