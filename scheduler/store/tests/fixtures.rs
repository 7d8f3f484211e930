//! What earlier versions stored must be readable for ever.

mod support;

use partita_core::Record;
use partita_store::{Position, decode_batch};

#[test]
fn records_of_format_version_1_still_decode() {
    let stored = include_bytes!("fixtures/v1.batch");
    assert_eq!(decode_batch(Position(1), stored).unwrap(), support::one_of_each());
}

#[test]
fn the_fixture_has_every_kind_of_record() {
    let kinds = |record: &Record| match record {
        Record::TenantAdded { .. } => 0,
        Record::ModuleAdded { .. } => 1,
        Record::JobSubmitted { .. } => 2,
        Record::JobExtended { .. } => 3,
        Record::JobClosed { .. } => 4,
        Record::JobCancelled { .. } => 5,
        Record::JobReleased { .. } => 6,
        Record::Succeeded { .. } => 7,
        Record::AttemptFailed { .. } => 8,
        Record::Lost { .. } => 9,
        Record::Uploaded { .. } => 10,
        Record::ModuleQuarantined { .. } => 11,
        Record::JobExpired { .. } => 12,
        Record::HostJoined { .. } => 13,
        Record::HostLost { .. } => 14,
        Record::JobsForgotten { .. } => 15,
        Record::TenantUsed { .. } => 16,
        Record::LifeBegan { .. } => 17,
        Record::Unrunnable { .. } => 18,
        Record::Speculated { .. } => 19,
        Record::HostDraining { .. } => 20,
    };
    let found: Vec<u32> = support::one_of_each().iter().map(kinds).collect();
    assert_eq!(found, (0..21).collect::<Vec<u32>>());
}
