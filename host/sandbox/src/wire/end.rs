//! How the end of an attempt is written by an executor and read, with suspicion, by the daemon.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use partita_types::{ByteSize, Cause, Failure, FunctionInfo, LogLevel, LogLine};

use super::codec::{Malformed, Reader, Writer};
use crate::engine::BACKTRACE_FRAMES;
use crate::guest::{Ended, Written};
use crate::payload::PartitionFile;
use crate::text::shown;

/// First byte of a record in the shared page: the rest of it is the record.
pub(crate) const RECORD_HERE: u8 = 0;
/// The record is in the next `END` message.
pub(crate) const RECORD_IN_MESSAGE: u8 = 1;

const SUCCEEDED: u8 = 0;
const FAILED: u8 = 1;
const INLINE: u8 = 0;
const FILE: u8 = 1;

/// Longest texts that the daemon takes; the executor cuts earlier.
const MESSAGE_MAX: usize = 8192;
const LINE_MAX: usize = 8192;
const FRAME_MAX: usize = 512;
/// By how much a log may exceed its limit: the last line may begin within it, and escapes lengthen that line sixfold.
const LOG_SLACK: u64 = 32 << 10;
/// Log lines that the daemon adds to a failure.
const LOG_TAIL: usize = 10;

/// The end of an attempt, as the executor says.
#[derive(Debug)]
pub(crate) struct ClaimedEnd {
    pub(crate) cpu_ns: u64,
    pub(crate) peak_memory: ByteSize,
    pub(crate) result: Result<Vec<ClaimedOutput>, Failure>,
    pub(crate) log: Vec<LogLine>,
}

/// One output, as the executor says.
#[derive(Debug)]
pub(crate) enum ClaimedOutput {
    Inline(Bytes),
    File(PartitionFile),
}

/// What an honest executor never exceeds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    pub(crate) outputs: u32,
    pub(crate) output: ByteSize,
    pub(crate) log: ByteSize,
}

/// Writes the record of an end and hands out the files of its outputs, in order.
pub(crate) fn encode(ended: Ended, cpu_ns: u64, writer: &mut Writer) -> Vec<OwnedFd> {
    let mut files = Vec::new();
    writer.u64(cpu_ns);
    writer.u64(ended.peak_memory.0);
    match ended.result {
        Ok(outputs) => {
            writer.u8(SUCCEEDED);
            writer.count(outputs.len());
            for output in outputs {
                match output {
                    Written::Inline(bytes) => {
                        writer.u8(INLINE);
                        writer.bytes(&bytes);
                    }
                    Written::File(file) => {
                        writer.u8(FILE);
                        files.push(file);
                    }
                }
            }
        }
        Err(failure) => {
            writer.u8(FAILED);
            encode_failure(&failure, writer);
        }
    }
    writer.u32(ended.log_cut);
    writer.count(ended.log.len());
    for line in &ended.log {
        writer.u8(line.level as u8);
        writer.text(&line.text);
    }
    files
}

fn encode_failure(failure: &Failure, writer: &mut Writer) {
    writer.u8(failure.cause as u8);
    writer.text(&failure.message);
    writer.texts(&failure.backtrace);
}

/// Reads the record of an end. Files are taken from those that came over the socket.
pub(crate) fn decode(
    record: &[u8],
    files: &mut VecDeque<PartitionFile>,
    expected: &Expected,
) -> Result<ClaimedEnd, Malformed> {
    let mut reader = Reader::new(record);
    let cpu_ns = reader.u64()?;
    let peak_memory = ByteSize(reader.u64()?);
    let mut result = match reader.u8()? {
        SUCCEEDED => Ok(decode_outputs(&mut reader, files, expected)?),
        FAILED => Err(decode_failure(&mut reader)?),
        _ => return Err(Malformed("unknown kind of end")),
    };
    let log = decode_log(&mut reader, expected)?;
    reader.end()?;
    if let Err(failure) = &mut result {
        let from = log.len().saturating_sub(LOG_TAIL);
        failure.log_tail = log[from..].iter().map(|line| line.text.clone()).collect();
    }
    Ok(ClaimedEnd { cpu_ns, peak_memory, result, log })
}

fn decode_outputs(
    reader: &mut Reader<'_>,
    files: &mut VecDeque<PartitionFile>,
    expected: &Expected,
) -> Result<Vec<ClaimedOutput>, Malformed> {
    let count = reader.count(1)?;
    if count != expected.outputs as usize {
        return Err(Malformed("another number of outputs than asked for"));
    }
    let mut outputs = Vec::with_capacity(count);
    let mut total = ByteSize::ZERO;
    for _ in 0..count {
        let output = match reader.u8()? {
            INLINE => ClaimedOutput::Inline(Bytes::copy_from_slice(reader.bytes()?)),
            FILE => ClaimedOutput::File(files.pop_front().ok_or(Malformed("output without its file"))?),
            _ => return Err(Malformed("unknown kind of output")),
        };
        total = total.saturating_add(match &output {
            ClaimedOutput::Inline(bytes) => ByteSize(bytes.len() as u64),
            ClaimedOutput::File(file) => file.size(),
        });
        outputs.push(output);
    }
    if total > expected.output {
        return Err(Malformed("more output than the limit"));
    }
    Ok(outputs)
}

fn decode_failure(reader: &mut Reader<'_>) -> Result<Failure, Malformed> {
    let cause = *Cause::ALL.get(reader.u8()? as usize).ok_or(Malformed("unknown cause"))?;
    let message = shown(&reader.text()?, MESSAGE_MAX);
    let backtrace = reader.texts(BACKTRACE_FRAMES)?.iter().map(|frame| shown(frame, FRAME_MAX)).collect();
    Ok(Failure { cause, message, backtrace, log_tail: Vec::new() })
}

fn decode_log(reader: &mut Reader<'_>, expected: &Expected) -> Result<Vec<LogLine>, Malformed> {
    let cut = reader.u32()?;
    let count = reader.count(5)?;
    let most = expected.log.0.saturating_add(LOG_SLACK);
    let mut total = 0;
    let mut lines = Vec::with_capacity(count + usize::from(cut > 0));
    for _ in 0..count {
        let level = decode_level(reader.u8()?)?;
        let text = shown(&reader.text()?, LINE_MAX);
        total += text.len() as u64;
        if total > most {
            return Err(Malformed("more log than the limit"));
        }
        lines.push(LogLine { level, text });
    }
    if cut > 0 {
        let text = format!("{cut} more lines were cut, the log limit is {}", expected.log);
        lines.push(LogLine { level: LogLevel::Warn, text });
    }
    Ok(lines)
}

fn decode_level(number: u8) -> Result<LogLevel, Malformed> {
    Ok(match number {
        0 => LogLevel::Debug,
        1 => LogLevel::Info,
        2 => LogLevel::Warn,
        3 => LogLevel::Error,
        _ => return Err(Malformed("unknown log level")),
    })
}

/// Writes the answer to a question for functions.
pub(crate) fn encode_functions(answer: &Result<Vec<FunctionInfo>, Failure>, writer: &mut Writer) {
    match answer {
        Ok(functions) => {
            writer.u8(SUCCEEDED);
            writer.count(functions.len());
            for function in functions {
                writer.text(&function.name);
                writer.text(&function.doc);
                encode_option(function.inputs, writer);
                encode_option(function.outputs, writer);
            }
        }
        Err(failure) => {
            writer.u8(FAILED);
            encode_failure(failure, writer);
        }
    }
}

/// Reads the answer to a question for functions.
pub(crate) fn decode_functions(body: &[u8]) -> Result<Result<Vec<FunctionInfo>, Failure>, Malformed> {
    use crate::guest::{FUNCTION_DOC_MAX, FUNCTION_NAME_MAX, FUNCTIONS_MAX};
    let mut reader = Reader::new(body);
    if reader.u8()? != SUCCEEDED {
        return decode_failure(&mut reader).map(Err);
    }
    let count = reader.count(10)?;
    if count > FUNCTIONS_MAX {
        return Err(Malformed("too many functions"));
    }
    let mut functions = Vec::with_capacity(count);
    for _ in 0..count {
        functions.push(FunctionInfo {
            name: shown(&reader.text()?, FUNCTION_NAME_MAX),
            doc: shown(&reader.text()?, FUNCTION_DOC_MAX),
            inputs: decode_option(&mut reader)?,
            outputs: decode_option(&mut reader)?,
        });
    }
    reader.end()?;
    Ok(Ok(functions))
}

fn encode_option(value: Option<u32>, writer: &mut Writer) {
    writer.u8(u8::from(value.is_some()));
    if let Some(value) = value {
        writer.u32(value);
    }
}

fn decode_option(reader: &mut Reader<'_>) -> Result<Option<u32>, Malformed> {
    Ok(if reader.u8()? == 0 { None } else { Some(reader.u32()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: Expected = Expected { outputs: 2, output: ByteSize(100), log: ByteSize(100) };

    fn ended() -> Ended {
        Ended {
            result: Ok(vec![Written::Inline(b"one".to_vec()), Written::Inline(Vec::new())]),
            log: vec![LogLine { level: LogLevel::Error, text: "line".to_owned() }],
            log_cut: 3,
            peak_memory: ByteSize(5),
        }
    }

    fn encoded(ended: Ended) -> Vec<u8> {
        let mut writer = Writer::default();
        assert!(encode(ended, 7, &mut writer).is_empty());
        writer.into_bytes()
    }

    #[test]
    fn an_end_survives_the_way() {
        let end = decode(&encoded(ended()), &mut VecDeque::new(), &EXPECTED).unwrap();
        assert_eq!((end.cpu_ns, end.peak_memory), (7, ByteSize(5)));
        let outputs = end.result.unwrap();
        assert!(matches!(&outputs[0], ClaimedOutput::Inline(bytes) if bytes == "one"));
        let log: Vec<_> = end.log.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(log, ["line", "3 more lines were cut, the log limit is 100 B"]);
    }

    #[test]
    fn a_failure_survives_the_way_with_the_last_lines_of_the_log() {
        let failure = Failure { backtrace: vec!["f".to_owned()], ..Failure::new(Cause::Stack, "deep") };
        let end = decode(&encoded(Ended { result: Err(failure), ..ended() }), &mut VecDeque::new(), &EXPECTED);
        let failure = end.unwrap().result.unwrap_err();
        assert_eq!((failure.cause, failure.message.as_str()), (Cause::Stack, "deep"));
        assert_eq!((failure.backtrace, failure.log_tail.len()), (vec!["f".to_owned()], 2));
    }

    #[test]
    fn changed_bytes_never_do_worse_than_an_error() {
        let valid = encoded(ended());
        for position in 0..valid.len() {
            for value in [0, 1, 2, 0x7f, 0x80, 0xff] {
                let mut changed = valid.clone();
                changed[position] = value;
                if let Ok(end) = decode(&changed, &mut VecDeque::new(), &EXPECTED) {
                    assert!(end.result.is_err() || end.result.is_ok_and(|outputs| outputs.len() == 2));
                }
                let _ = decode_functions(&changed);
            }
        }
    }

    #[test]
    fn another_number_of_outputs_is_refused() {
        let fewer = Ended { result: Ok(vec![Written::Inline(Vec::new())]), ..ended() };
        assert!(decode(&encoded(fewer), &mut VecDeque::new(), &EXPECTED).is_err());
    }

    #[test]
    fn a_log_far_beyond_the_limit_is_refused() {
        let line = LogLine { level: LogLevel::Info, text: "x".repeat(4_000) };
        let flood = Ended { log: vec![line; 10], ..ended() };
        assert!(decode(&encoded(flood), &mut VecDeque::new(), &EXPECTED).is_err());
    }
}
