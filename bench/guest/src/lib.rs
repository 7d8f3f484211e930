//! The guest of the measurements: functions that do as little as possible.

use std::io::Write as _;

use partita::prelude::*;

/// Does nothing.
#[partita::task]
fn noop() {}

/// Never ends by itself.
#[partita::task]
fn spin() {
    let mut rounds = 0_u64;
    loop {
        rounds = std::hint::black_box(rounds.wrapping_add(1));
    }
}

/// How much `produce` writes.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Amount {
    /// Bytes.
    pub bytes: usize,
}

/// Writes so many bytes that no two blocks are alike.
#[partita::task]
fn produce(amount: Args<Amount>, mut out: Writer) -> Result<()> {
    const BLOCK: usize = 64 << 10;
    let mut block: Vec<u8> = (0_u8..=255).cycle().take(BLOCK).collect();
    let mut left = amount.bytes;
    while left > 0 {
        let length = left.min(BLOCK);
        block[..8].copy_from_slice(&(left as u64).to_le_bytes());
        out.write_all(&block[..length])?;
        left -= length;
    }
    Ok(())
}

/// Takes any number of inputs, looks at none, and says how many bytes they have.
#[partita::task]
fn consume(inputs: Many<Reader>) -> Result<Json<u64>> {
    let mut bytes = 0;
    for input in inputs {
        bytes += input?.size();
    }
    Ok(Json(bytes))
}

partita::module!(noop, spin, produce, consume);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_is_written_as_asked_for() {
        let (out, written) = Writer::in_memory();
        produce(Args(Amount { bytes: 100_000 }), out).unwrap();
        assert_eq!(written.bytes(0).len(), 100_000);
    }
}
