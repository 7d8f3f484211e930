//! The messages between the daemon and one executor.
//!
//! ```text
//! daemon ──► FILES*  RUN(setup?, attempts)      executor ──► READY | REFUSED       once
//!            DESCRIBE(limits)                                FILES* END | CHUNK    per run
//!                                                            FUNCTIONS             per describe
//! ```
//! Ends of attempts that fit are left in the shared page; longer ones, and those with files, go over the socket before
//! the page points to them. A CHUNK message says that all attempts of one RUN message are through.

use std::time::Duration;

use bytes::Bytes;
use partita_types::{ByteSize, CpuTime, TaskLimits, Timestamp};

use super::codec::{Malformed, Reader, Writer};

/// Kinds of messages to an executor.
pub(crate) mod to_executor {
    /// Attempts to run.
    pub(crate) const RUN: u8 = 1;
    /// Input files of the attempts in the next `RUN`, in their order.
    pub(crate) const FILES: u8 = 2;
    /// Ask the module for its functions.
    pub(crate) const DESCRIBE: u8 = 3;
}

/// Kinds of messages from an executor.
pub(crate) mod from_executor {
    /// Confined and ready; the body is the isolation that was reached.
    pub(crate) const READY: u8 = 1;
    /// Not usable; the body says why.
    pub(crate) const REFUSED: u8 = 2;
    /// Output files of the next `END`, in their order.
    pub(crate) const FILES: u8 = 3;
    /// The end of an attempt that does not fit into the shared page.
    pub(crate) const END: u8 = 4;
    /// All attempts of a `RUN` are through.
    pub(crate) const CHUNK: u8 = 5;
    /// Answer to `DESCRIBE`.
    pub(crate) const FUNCTIONS: u8 = 6;
}

/// What the attempts of one batch have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setup {
    pub(crate) function: String,
    pub(crate) limits: TaskLimits,
    pub(crate) outputs: u32,
    pub(crate) submitted_at: Timestamp,
    pub(crate) common_arguments: Bytes,
}

impl Setup {
    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.text(&self.function);
        encode_limits(&self.limits, writer);
        writer.u32(self.outputs);
        writer.u64(self.submitted_at.micros);
        writer.bytes(&self.common_arguments);
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            function: reader.text()?,
            limits: decode_limits(reader)?,
            outputs: reader.u32()?,
            submitted_at: Timestamp::from_micros(reader.u64()?),
            common_arguments: Bytes::copy_from_slice(reader.bytes()?),
        })
    }
}

pub(crate) fn encode_limits(limits: &TaskLimits, writer: &mut Writer) {
    writer.u64(limits.memory.0);
    writer.u64(limits.cpu_time.micros);
    writer.u64(u64::try_from(limits.wall_time.as_micros()).unwrap_or(u64::MAX));
    writer.u64(limits.output.0);
    writer.u64(limits.log.0);
}

pub(crate) fn decode_limits(reader: &mut Reader<'_>) -> Result<TaskLimits, Malformed> {
    Ok(TaskLimits {
        memory: ByteSize(reader.u64()?),
        cpu_time: CpuTime::from_micros(reader.u64()?),
        wall_time: Duration::from_micros(reader.u64()?),
        output: ByteSize(reader.u64()?),
        log: ByteSize(reader.u64()?),
    })
}

/// One attempt as it is sent. Ranges are positions in the body of its message.
#[derive(Debug)]
pub(crate) struct SentAttempt {
    pub(crate) seed: [u8; 32],
    /// `None`: those of the setup.
    pub(crate) arguments: Option<Bytes>,
    pub(crate) inputs: Vec<Vec<SentInput>>,
}

/// One input as it is sent.
#[derive(Debug)]
pub(crate) enum SentInput {
    Inline(Bytes),
    /// The next file of the `FILES` messages.
    File,
}

/// Marks of inputs and arguments.
const ABSENT: u8 = 0;
const PRESENT: u8 = 1;
const INLINE: u8 = 0;
const FILE: u8 = 1;

/// Appends one attempt of which the caller gives the parts.
pub(crate) fn encode_attempt(
    writer: &mut Writer,
    seed: &[u8; 32],
    arguments: Option<&Bytes>,
    inputs: &[Vec<crate::Payload>],
) {
    writer.raw(seed);
    match arguments {
        None => writer.u8(ABSENT),
        Some(arguments) => {
            writer.u8(PRESENT);
            writer.bytes(arguments);
        }
    }
    writer.count(inputs.len());
    for group in inputs {
        writer.count(group.len());
        for input in group {
            match input {
                crate::Payload::Inline(bytes) => {
                    writer.u8(INLINE);
                    writer.bytes(bytes);
                }
                crate::Payload::File(_) => writer.u8(FILE),
            }
        }
    }
}

/// Takes the next attempt of `body`. Inline bytes share the body's memory.
pub(crate) fn decode_attempt(body: &Bytes, reader: &mut Reader<'_>) -> Result<SentAttempt, Malformed> {
    let seed = reader.array()?;
    let arguments = match reader.u8()? {
        ABSENT => None,
        _ => Some(shared(body, reader)?),
    };
    let groups = reader.count(4)?;
    let mut inputs = Vec::with_capacity(groups);
    for _ in 0..groups {
        let count = reader.count(1)?;
        let mut group = Vec::with_capacity(count);
        for _ in 0..count {
            group.push(match reader.u8()? {
                INLINE => SentInput::Inline(shared(body, reader)?),
                FILE => SentInput::File,
                _ => return Err(Malformed("unknown kind of input")),
            });
        }
        inputs.push(group);
    }
    Ok(SentAttempt { seed, arguments, inputs })
}

fn shared(body: &Bytes, reader: &mut Reader<'_>) -> Result<Bytes, Malformed> {
    let length = reader.bytes()?.len();
    let end = reader.position();
    Ok(body.slice(end - length..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setup_survives_the_way() {
        let setup = Setup {
            function: "count".to_owned(),
            limits: TaskLimits::default(),
            outputs: 3,
            submitted_at: Timestamp::from_micros(5),
            common_arguments: Bytes::from_static(b"{}"),
        };
        let mut writer = Writer::default();
        setup.encode(&mut writer);
        assert_eq!(Setup::decode(&mut Reader::new(writer.as_slice())), Ok(setup));
    }

    #[test]
    fn an_attempt_survives_the_way() {
        let mut writer = Writer::default();
        let inline = crate::Payload::Inline(Bytes::from_static(b"abc"));
        let arguments = Bytes::from_static(b"[1]");
        encode_attempt(&mut writer, &[7; 32], Some(&arguments), &[vec![inline], vec![]]);
        let body = Bytes::from(writer.into_bytes());
        let mut reader = Reader::new(&body);
        let attempt = decode_attempt(&body, &mut reader).unwrap();
        reader.end().unwrap();
        assert_eq!((attempt.seed, attempt.arguments), ([7; 32], Some(arguments)));
        let [first, second] = &attempt.inputs[..] else { panic!("two groups") };
        assert!(matches!(&first[..], [SentInput::Inline(bytes)] if bytes == "abc"));
        assert!(second.is_empty());
    }
}
