//! The right of a host to fetch partitions from another one: one ticket per frame and source.

use std::collections::BTreeMap;
use std::time::Duration;

use partita_identity::ticket::{self, Claims, MAX_PARTITIONS, TicketKey};
use partita_types::{Frame, HostId, HostName, PartitionId, Source, StoredPartition};

/// How long a ticket is good: a frame waits at its host for as long as those before it take.
const LIFETIME: Duration = Duration::from_secs(6 * 3_600);
/// How long the ticket of an order to copy is good: a host begins with it at once.
const COPY_LIFETIME: Duration = Duration::from_secs(600);

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

    /// Gives the host called `destination` the right to fetch partitions from their source, all of one tenant.
    pub(crate) fn for_copy(&mut self, destination: &HostName, source: &mut Source, partitions: &[StoredPartition]) {
        let Some(first) = partitions.first() else { return };
        let mut ids: Vec<PartitionId> = partitions.iter().map(|partition| partition.id).collect();
        ids.sort_unstable();
        ids.truncate(MAX_PARTITIONS);
        let tenant = first.id.attempt.task.job.tenant;
        let expires = partita_identity::now().after(COPY_LIFETIME);
        let key = self.keys.entry(source.host).or_insert_with(TicketKey::generate);
        let claims = Claims { tenant, destination: destination.clone(), expires, partitions: ids };
        source.ticket = ticket::mint(key, &claims);
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
        TaskId, TenantId,
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
    fn a_ticket_to_copy_is_for_one_host_and_lists_what_it_shall_copy() {
        let mut tickets = Tickets::default();
        let (mut from, destination) = (source(1, "host-1"), HostName::new("host-2").unwrap());
        tickets.for_copy(&destination, &mut from, &[partition(4), partition(2)]);
        let claims = ticket::open(&tickets.key(HostId(1)), &from.ticket, partita_identity::now()).unwrap();
        assert_eq!(claims.check(&destination, &[partition(2).id, partition(4).id]), Ok(()));
        assert!(claims.check(&destination, &[partition(3).id]).is_err());
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
