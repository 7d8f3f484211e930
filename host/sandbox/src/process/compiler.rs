//! The compiler process: takes one component, leaves its compiled form in the file it was given, and ends.

use std::os::fd::OwnedFd;

use partita_types::{ByteSize, CpuTime};

use super::confine::{self, Allowance};
use super::inspect::inspect;
use crate::CompileError;
use crate::engine;
use crate::payload::PartitionFile;
use crate::wire::codec::{Malformed, Reader, Writer};
use crate::wire::socket::{Packet, Socket, write_all_at};

/// The only message to the compiler: its limits; component and empty output file beside it.
pub(crate) const COMPILE: u8 = 1;
/// Kinds of answers.
pub(crate) const COMPILED: u8 = 1;
pub(crate) const REFUSED: u8 = 2;

/// What a compiler process may use, as the daemon tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowed {
    pub(crate) cpu_time: CpuTime,
    pub(crate) memory: ByteSize,
    pub(crate) artefact: ByteSize,
}

impl Allowed {
    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.u64(self.cpu_time.micros);
        writer.u64(self.memory.0);
        writer.u64(self.artefact.0);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            cpu_time: CpuTime::from_micros(reader.u64()?),
            memory: ByteSize(reader.u64()?),
            artefact: ByteSize(reader.u64()?),
        })
    }
}

/// Runs the compiler on the one job that comes through descriptor 0.
pub(crate) fn main() -> ! {
    let socket = super::own_socket();
    super::exit_now(match serve(&socket) {
        Ok(()) => libc::EXIT_SUCCESS,
        Err(error) => {
            // The daemon sees that no answer came; its log has the reason.
            eprintln!("partita compiler: {error}");
            libc::EXIT_FAILURE
        }
    })
}

fn serve(socket: &Socket) -> Result<(), Box<dyn std::error::Error>> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    // A parent that died before the line above shows as the end of the connection.
    let Some(message) = socket.receive(&mut Vec::new())? else { return Ok(()) };
    let allowed = Allowed::decode(&mut Reader::new(&message.body))?;
    let [component, output]: [OwnedFd; 2] = message.descriptors.try_into().map_err(|_| "a job has two files")?;
    let component = PartitionFile::from_sealed(component)?.map()?;
    let engine = engine::for_compiling()?;
    let allowance = Allowance {
        data: None,
        address_space: Some(allowed.memory),
        file: allowed.artefact,
        descriptors: 16,
        cpu_seconds: Some(allowed.cpu_time.micros.div_ceil(1_000_000).max(1)),
    };
    confine::confine(&allowance, 5, &confine::filter()?)?;
    let answer = match compile(&engine, &component, allowed.artefact) {
        Ok(code) => {
            write_all_at(&output, &code, 0)?;
            Packet::new(COMPILED, &(code.len() as u64).to_le_bytes(), Vec::new())?
        }
        Err(error) => {
            let mut writer = Writer::default();
            encode_error(&error, &mut writer);
            Packet::new(REFUSED, writer.as_slice(), Vec::new())?
        }
    };
    Ok(socket.send(&answer)?)
}

fn compile(engine: &wasmtime::Engine, component: &[u8], most: ByteSize) -> Result<Vec<u8>, CompileError> {
    inspect(component)?;
    let code = engine
        .precompile_component(component)
        .map_err(|error| CompileError::Invalid(crate::text::shown(&format!("{error:#}"), 1024)))?;
    if code.len() as u64 > most.0 {
        return Err(CompileError::TooLarge {
            what: "compiled code".to_owned(),
            size: code.len() as u64,
            limit: most.0,
        });
    }
    Ok(code)
}

const NOT_A_COMPONENT: u8 = 1;
const WRONG_WORLD: u8 = 2;
const FORBIDDEN_IMPORT: u8 = 3;
const TOO_LARGE: u8 = 4;
const INVALID: u8 = 5;

fn encode_error(error: &CompileError, writer: &mut Writer) {
    match error {
        CompileError::NotAComponent { detail } => {
            writer.u8(NOT_A_COMPONENT);
            writer.text(detail);
        }
        CompileError::WrongWorld { export, problem } => {
            writer.u8(WRONG_WORLD);
            writer.text(export);
            writer.text(problem);
        }
        CompileError::ForbiddenImport { name } => {
            writer.u8(FORBIDDEN_IMPORT);
            writer.text(name);
        }
        CompileError::TooLarge { what, size, limit } => {
            writer.u8(TOO_LARGE);
            writer.text(what);
            writer.u64(*size);
            writer.u64(*limit);
        }
        CompileError::Invalid(text) => {
            writer.u8(INVALID);
            writer.text(text);
        }
        // What only the daemon can find does not come from here; if it did, its text would do.
        other @ (CompileError::TimedOut { .. } | CompileError::Crashed { .. } | CompileError::Unavailable(_)) => {
            writer.u8(INVALID);
            writer.text(&other.to_string());
        }
    }
}

/// Reads a refusal. The compiler has seen the component, so what it says is only shown, never trusted.
pub(crate) fn decode_error(body: &[u8]) -> Result<CompileError, Malformed> {
    let mut reader = Reader::new(body);
    let kind = reader.u8()?;
    let mut text = || reader.text().map(|text| crate::text::shown(&text, 2048));
    Ok(match kind {
        NOT_A_COMPONENT => CompileError::NotAComponent { detail: text()? },
        WRONG_WORLD => CompileError::WrongWorld { export: text()?, problem: text()? },
        FORBIDDEN_IMPORT => CompileError::ForbiddenImport { name: text()? },
        TOO_LARGE => CompileError::TooLarge { what: text()?, size: reader.u64()?, limit: reader.u64()? },
        INVALID => CompileError::Invalid(text()?),
        _ => return Err(Malformed("unknown refusal")),
    })
}
