//! Tickets: what the scheduler allows a host to fetch, and nothing else.

use std::num::NonZeroU32;
use std::time::Duration;

use partita_identity::ticket::{Claims, MAX_PARTITIONS, TicketError, TicketKey, mint, open};
use partita_types::{ArrayIndex, AttemptId, AttemptNumber, HostName, JobId, PartitionId, TaskId, TenantId, Timestamp};

const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

fn host(name: &str) -> HostName {
    HostName::new(name).expect("a host name")
}

fn partition(tenant: u32, index: u32, output: u32) -> PartitionId {
    let job = JobId { tenant: TenantId(tenant), number: 3 };
    let task = TaskId { job, array: ArrayIndex(1), index };
    PartitionId { attempt: AttemptId { task, number: AttemptNumber::FIRST }, output }
}

fn claims() -> Claims {
    Claims {
        tenant: TenantId(7),
        destination: host("host-b"),
        expires: NOW.after(Duration::from_secs(60)),
        partitions: vec![partition(7, 4, 0), partition(7, 2, 1), partition(7, 900_000, 0)],
    }
}

fn key() -> TicketKey {
    TicketKey([9; 32])
}

#[test]
fn a_ticket_says_what_it_was_made_for() {
    let mut opened = open(&key(), &mint(&key(), &claims()), NOW).unwrap();
    let mut expected = claims();
    opened.partitions.sort();
    expected.partitions.sort();
    assert_eq!(opened, expected);
}

#[test]
fn a_ticket_of_another_key_is_not_genuine() {
    let ticket = mint(&TicketKey::generate(), &claims());
    assert_eq!(open(&key(), &ticket, NOW), Err(TicketError::NotGenuine));
}

#[test]
fn no_bit_of_a_ticket_can_be_changed_and_no_byte_left_out() {
    let ticket = mint(&key(), &claims());
    for bit in 0..ticket.len() * 8 {
        let mut forged = ticket.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(open(&key(), &forged, NOW), Err(TicketError::NotGenuine), "bit {bit}");
    }
    for length in 0..ticket.len() {
        assert_eq!(open(&key(), &ticket[..length], NOW), Err(TicketError::NotGenuine), "length {length}");
    }
    let mut longer = ticket;
    longer.push(0);
    assert_eq!(open(&key(), &longer, NOW), Err(TicketError::NotGenuine));
}

#[test]
fn a_ticket_ends_at_its_time() {
    let ticket = mint(&key(), &claims());
    let expires = claims().expires;
    assert!(open(&key(), &ticket, Timestamp::from_micros(expires.micros - 1)).is_ok());
    assert!(matches!(open(&key(), &ticket, expires), Err(TicketError::Expired { .. })));
    let late = open(&key(), &ticket, expires.after(Duration::from_secs(90))).unwrap_err();
    assert_eq!(late.to_string(), "ticket expired 1 m 30 s ago");
}

#[test]
fn only_the_destination_may_use_it_and_only_for_what_is_on_it() {
    let opened = open(&key(), &mint(&key(), &claims()), NOW).unwrap();
    assert_eq!(opened.check(&host("host-b"), &[partition(7, 2, 1), partition(7, 4, 0)]), Ok(()));
    assert_eq!(
        opened.check(&host("host-c"), &[partition(7, 2, 1)]).unwrap_err().to_string(),
        "ticket is for host host-b, not for host-c"
    );
    for (other, what) in [
        (partition(7, 2, 0), "another output"),
        (partition(7, 3, 1), "another task"),
        (partition(8, 2, 1), "another tenant"),
    ] {
        assert_eq!(
            opened.check(&host("host-b"), &[partition(7, 4, 0), other]),
            Err(TicketError::NotAllowed { partition: other }),
            "{what}"
        );
    }
    let mut retried = partition(7, 2, 1);
    retried.attempt.number = AttemptNumber::FIRST.next();
    assert_eq!(opened.check(&host("host-b"), &[retried]), Err(TicketError::NotAllowed { partition: retried }));
}

#[test]
fn a_ticket_over_two_tenants_is_refused_even_if_it_is_genuine() {
    let mut mixed = claims();
    mixed.partitions.push(partition(8, 1, 0));
    assert_eq!(
        open(&key(), &mint(&key(), &mixed), NOW),
        Err(TicketError::ForeignPartition { tenant: TenantId(7), partition: partition(8, 1, 0) })
    );
}

#[test]
fn a_large_shuffle_takes_about_a_byte_for_each_partition() {
    let many = Claims { partitions: (0..10_000).map(|index| partition(7, index, 5)).collect(), ..claims() };
    let ticket = mint(&key(), &many);
    assert!(ticket.len() < 10_200, "{} bytes", ticket.len());
    assert_eq!(open(&key(), &ticket, NOW).unwrap().partitions, many.partitions);
}

#[test]
fn tickets_that_are_too_large_are_refused_before_memory_is_taken() {
    let too_many = u32::try_from(MAX_PARTITIONS).unwrap() + 1;
    let many = Claims { partitions: (0..too_many).map(|index| partition(7, index, 0)).collect(), ..claims() };
    assert_eq!(open(&key(), &mint(&key(), &many), NOW), Err(TicketError::Malformed { problem: "too many partitions" }));
    let most = Claims { partitions: many.partitions[..MAX_PARTITIONS].to_vec(), ..claims() };
    assert!(open(&key(), &mint(&key(), &most), NOW).is_ok());
    assert!(matches!(open(&key(), &vec![0; 3 << 20], NOW), Err(TicketError::TooLong { .. })));
}

#[test]
fn keys_never_print() {
    assert_eq!(format!("{:?}", TicketKey::generate()), "TicketKey([redacted])");
    assert_ne!(TicketKey::generate(), TicketKey::generate());
}

proptest::proptest! {
    /// Any set of partitions of one tenant survives the way through a ticket.
    #[test]
    fn any_claims_survive(
        ids in proptest::collection::vec((0_u32.., 0_u32..3, 0_u32.., 1_u32.., 0_u32..4), 0..40),
        expires in 1_u64..,
        tenant in 0_u32..,
    ) {
        let partitions = ids
            .into_iter()
            .map(|(number, array, index, attempt, output)| {
                let job = JobId { tenant: TenantId(tenant), number };
                let task = TaskId { job, array: ArrayIndex(array), index };
                let number = AttemptNumber(NonZeroU32::new(attempt).expect("attempts count from 1"));
                PartitionId { attempt: AttemptId { task, number }, output }
            })
            .collect();
        let mut expected = Claims {
            tenant: TenantId(tenant), destination: host("h"), expires: Timestamp::from_micros(expires), partitions,
        };
        let mut opened = open(&key(), &mint(&key(), &expected), Timestamp::from_micros(0)).unwrap();
        opened.partitions.sort();
        expected.partitions.sort();
        expected.partitions.dedup();
        assert_eq!(opened, expected);
    }

    /// Bytes that pass for genuine, as those of another version might, never make the reader panic.
    #[test]
    fn genuine_nonsense_is_refused_or_read(body in proptest::collection::vec(0_u8.., 0..120)) {
        let context = "partita 2026-11 ticket for partitions, version 1";
        let mac = blake3::keyed_hash(&blake3::derive_key(context, &key().0), &body);
        let ticket = [mac.as_bytes().as_slice(), &body].concat();
        assert_ne!(open(&key(), &ticket, NOW), Err(TicketError::NotGenuine));
    }
}
