//! How a batch of records is written down: a version byte, a checksum, and the records in postcard.
//!
//! The checksum covers the position too, so that a batch in the wrong place is noticed.

use partita_core::Record;

use crate::Position;
use crate::error::{Damage, JournalError};

/// The version in which batches are written. Earlier ones stay readable; see `tests/fixtures`.
pub const FORMAT_VERSION: u8 = 1;

/// Version byte and BLAKE3.
const HEADER: usize = 1 + blake3::OUT_LEN;

fn checksum(position: Position, records: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[FORMAT_VERSION]).update(&position.0.to_be_bytes()).update(records);
    hasher.finalize()
}

/// The bytes of a batch at `position`.
///
/// # Errors
/// Only if a record cannot be serialised at all.
pub fn encode_batch(position: Position, records: &[Record]) -> Result<Vec<u8>, JournalError> {
    let bytes = postcard::to_extend(records, vec![0; HEADER])
        .map_err(|source| JournalError::Encode { records: records.len(), source })?;
    Ok(with_header(position, bytes))
}

fn with_header(position: Position, mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = checksum(position, &bytes[HEADER..]);
    bytes[0] = FORMAT_VERSION;
    bytes[1..HEADER].copy_from_slice(sum.as_bytes());
    bytes
}

/// The records of a batch that was written at `position`.
///
/// # Errors
/// What is wrong with it; nothing of it is interpreted then.
pub fn decode_batch(position: Position, bytes: &[u8]) -> Result<Vec<Record>, Damage> {
    let Some((header, body)) = bytes.split_at_checked(HEADER) else {
        return Err(Damage::Short(bytes.len()));
    };
    if header[0] > FORMAT_VERSION {
        return Err(Damage::Version(header[0]));
    }
    if header[0] != FORMAT_VERSION || checksum(position, body).as_bytes()[..] != header[1..] {
        return Err(Damage::Checksum);
    }
    let (records, rest) =
        postcard::take_from_bytes::<Vec<Record>>(body).map_err(|error| Damage::Undecodable(error.to_string()))?;
    if rest.is_empty() { Ok(records) } else { Err(Damage::Undecodable(format!("{} bytes too many", rest.len()))) }
}

#[cfg(test)]
mod tests {
    use partita_types::{JobId, TenantId};

    use super::*;

    fn batch() -> Vec<Record> {
        (1..4).map(|number| Record::JobReleased { job: JobId { tenant: TenantId(1), number } }).collect()
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let good = encode_batch(Position(7), &batch()).unwrap();
        assert_eq!(decode_batch(Position(7), &good).unwrap(), batch());
        for byte in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[byte] ^= 1 << bit;
                assert!(decode_batch(Position(7), &bad).is_err(), "bit {bit} of byte {byte}");
            }
        }
    }

    #[test]
    fn a_batch_in_another_place_is_refused() {
        let bytes = encode_batch(Position(7), &batch()).unwrap();
        assert_eq!(decode_batch(Position(8), &bytes), Err(Damage::Checksum));
    }

    #[test]
    fn a_cut_batch_is_refused_at_any_length() {
        let good = encode_batch(Position(1), &batch()).unwrap();
        for length in 0..good.len() {
            assert!(decode_batch(Position(1), &good[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut bytes = encode_batch(Position(1), &batch()).unwrap();
        bytes[0] = FORMAT_VERSION + 1;
        assert_eq!(decode_batch(Position(1), &bytes), Err(Damage::Version(FORMAT_VERSION + 1)));
    }

    #[test]
    fn right_checksums_over_nonsense_do_not_become_records() {
        let nonsense = with_header(Position(1), [vec![0; HEADER], vec![0xff; 20]].concat());
        assert!(matches!(decode_batch(Position(1), &nonsense), Err(Damage::Undecodable(_))));
    }
}
