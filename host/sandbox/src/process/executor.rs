//! The executor process: loads one module, confines itself, and then runs attempts until its socket closes.
//!
//! It begins as a fork of the zygote. The order matters: what needs a path (loading the artefact) comes first, then the
//! process becomes undumpable, then it is confined, then it speaks. After that it makes no system call but those of
//! [`confine`](super::confine).

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use partita_types::{ByteSize, Cause, Failure, Isolation, TaskLimits};
use rustix::process::Pid;
use rustix::time::{ClockId, clock_gettime};
use seccompiler::BpfProgram;
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};

use super::confine::{self, Allowance};
use crate::guest::{AttemptInput, Ended, Guest, Source};
use crate::payload::{Mapping, PartitionFile};
use crate::wire::codec::{Reader, Writer};
use crate::wire::end::{self, RECORD_HERE, RECORD_IN_MESSAGE};
use crate::wire::frame::{SentAttempt, SentInput, Setup, decode_attempt, decode_limits, from_executor, to_executor};
use crate::wire::page::{Page, RECORD_MAX};
use crate::wire::socket::{DESCRIPTORS_MAX, Message, Packet, Socket};

/// What the process needs beside the guests' own memory: input buffers, and up to 64 KiB for each of 4,096 outputs.
const OWN_MEMORY: ByteSize = ByteSize::mib(320);
/// Longest output. The attempt's own limit is lower; this is for an executor that no longer counts.
const FILE_MAX: ByteSize = ByteSize::gib(16);
/// Most open descriptors: one per output, and those of a message.
const DESCRIPTORS: u64 = partita_types::MAX_OUTPUTS_PER_TASK as u64 + 128;

/// What the zygote has ready for every executor.
pub(crate) struct Prepared {
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<crate::guest::State>,
    pub(crate) filter: BpfProgram,
    pub(crate) nice: u8,
}

/// What the daemon sent for one executor.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) socket: OwnedFd,
    pub(crate) page: OwnedFd,
    pub(crate) artefact: OwnedFd,
    pub(crate) memory: ByteSize,
}

/// Why the process ends. Nobody reads it but a debugger: the daemon sees the socket close.
pub(crate) type Ending = Box<dyn std::error::Error>;

/// Everything from the fork to the end of the process.
pub(crate) fn main(prepared: &Prepared, request: Request, zygote: Pid) -> Result<(), Ending> {
    confine::die_with(zygote)?;
    let socket = super::adopt_socket(request.socket)?;
    match load(prepared, &request.page, request.artefact, request.memory) {
        Ok((executor, isolation)) => {
            socket.send(&Packet::new(from_executor::READY, &[isolation as u8], Vec::new())?)?;
            executor.serve(&socket)
        }
        Err(error) => {
            let text = format!("{error:#}");
            Ok(socket.send(&Packet::new(from_executor::REFUSED, text.as_bytes(), Vec::new())?)?)
        }
    }
}

fn load(
    prepared: &Prepared,
    page: &OwnedFd,
    artefact: OwnedFd,
    memory: ByteSize,
) -> wasmtime::Result<(Executor, Isolation)> {
    let page = Arc::new(Page::map(page.as_fd())?);
    let component = deserialize(&prepared.engine, &artefact)?;
    drop(artefact);
    let guest = Guest::new(&prepared.engine, &prepared.linker, &component, Some(page.clone()))?;
    let isolation = confine::confine(&allowance(memory), prepared.nice, &prepared.filter)?;
    Ok((Executor { guest, page, memory, setup: None, files: VecDeque::new(), writer: Writer::default() }, isolation))
}

/// What an executor may use whose guests may use `memory`.
pub(crate) fn allowance(memory: ByteSize) -> Allowance {
    Allowance {
        data: Some(memory.saturating_add(OWN_MEMORY)),
        address_space: None,
        file: FILE_MAX,
        descriptors: DESCRIPTORS,
        cpu_seconds: None,
    }
}

#[allow(unsafe_code, reason = "loading compiled code is as good as running it")]
fn deserialize(engine: &Engine, artefact: &OwnedFd) -> wasmtime::Result<Component> {
    let path = format!("/proc/self/fd/{}", artefact.as_raw_fd());
    // SAFETY: the daemon sends only artefacts that its own compiler process made: it has checked their MAC, or has just
    // received them, and sealed the bytes in memory, so that they cannot have changed since.
    unsafe { Component::deserialize_file(engine, path) }
}

struct Executor {
    guest: Guest,
    page: Arc<Page>,
    memory: ByteSize,
    setup: Option<Setup>,
    /// Input files of the next attempts.
    files: VecDeque<Arc<Mapping>>,
    writer: Writer,
}

impl Executor {
    fn serve(mut self, socket: &Socket) -> Result<(), Ending> {
        let mut buffer = Vec::new();
        while let Some(message) = socket.receive(&mut buffer)? {
            match message.kind {
                to_executor::RUN => self.run(socket, message.body)?,
                to_executor::FILES => self.take_files(message)?,
                to_executor::DESCRIBE => self.describe(socket, &message.body)?,
                kind => return Err(format!("unknown message {kind}").into()),
            }
        }
        Ok(())
    }

    /// Maps input files and closes their descriptors.
    fn take_files(&mut self, message: Message) -> Result<(), Ending> {
        for descriptor in message.descriptors {
            self.files.push_back(Arc::new(PartitionFile::from_sealed(descriptor)?.map()?));
        }
        Ok(())
    }

    fn describe(&mut self, socket: &Socket, body: &[u8]) -> Result<(), Ending> {
        let limits = self.cut(decode_limits(&mut Reader::new(body))?);
        self.page.begin(0, cpu_now_ns());
        let answer = self.guest.describe(&limits);
        self.page.idle();
        let mut writer = Writer::default();
        end::encode_functions(&answer, &mut writer);
        Ok(socket.send(&Packet::new(from_executor::FUNCTIONS, writer.as_slice(), Vec::new())?)?)
    }

    /// Runs the attempts of one message.
    fn run(&mut self, socket: &Socket, body: Vec<u8>) -> Result<(), Ending> {
        let mut cpu = cpu_now_ns();
        let body = Bytes::from(body);
        let mut reader = Reader::new(&body);
        if reader.u8()? != 0 {
            self.setup = Some(Setup::decode(&mut reader)?);
        }
        let setup = self.setup.take().ok_or("attempts without a setup")?;
        let first = reader.u64()?;
        let count = reader.count(1)? as u64;
        for position in first..first.saturating_add(count) {
            let sent = decode_attempt(&body, &mut reader)?;
            // Files are taken even for an attempt that is skipped, or the next one would get them.
            let input = self.input(&setup, sent)?;
            self.page.begin(position, cpu);
            let ended =
                if self.page.is_skipped(position) { cancelled() } else { self.guest.run(&setup.function, input) };
            let now = cpu_now_ns();
            self.report(socket, position, ended, now - cpu)?;
            cpu = now;
        }
        self.page.idle();
        self.setup = Some(setup);
        Ok(socket.send(&Packet::new(from_executor::CHUNK, &[], Vec::new())?)?)
    }

    fn input(&mut self, setup: &Setup, sent: SentAttempt) -> Result<AttemptInput, Ending> {
        let mut inputs = Vec::with_capacity(sent.inputs.len());
        for group in sent.inputs {
            let mut sources = Vec::with_capacity(group.len());
            for input in group {
                sources.push(match input {
                    SentInput::Inline(bytes) => Source::Inline(bytes),
                    SentInput::File => Source::File(self.files.pop_front().ok_or("input without its file")?),
                });
            }
            inputs.push(sources);
        }
        Ok(AttemptInput {
            arguments: sent.arguments.unwrap_or_else(|| setup.common_arguments.clone()),
            inputs,
            seed: sent.seed,
            limits: self.cut(setup.limits),
            outputs: setup.outputs,
            started_at: setup.submitted_at,
        })
    }

    /// The process has room for `memory`, whatever an array asks for.
    fn cut(&self, limits: TaskLimits) -> TaskLimits {
        TaskLimits { memory: limits.memory.min(self.memory), ..limits }
    }

    /// Leaves the end of an attempt where it survives this process: in the page, or in the socket.
    fn report(&mut self, socket: &Socket, position: u64, ended: Ended, cpu_ns: u64) -> Result<(), Ending> {
        let mut writer = std::mem::take(&mut self.writer);
        writer.clear();
        writer.u8(RECORD_HERE);
        let files = end::encode(ended, cpu_ns, &mut writer);
        if files.is_empty() && writer.len() <= RECORD_MAX {
            self.page.publish(position, writer.as_slice());
        } else {
            send_end(socket, position, &writer.as_slice()[1..], files)?;
            self.page.publish(position, &[RECORD_IN_MESSAGE]);
        }
        self.writer = writer;
        Ok(())
    }
}

fn send_end(socket: &Socket, position: u64, record: &[u8], files: Vec<OwnedFd>) -> Result<(), Ending> {
    let mut files = files.into_iter().peekable();
    while files.peek().is_some() {
        let some = files.by_ref().take(DESCRIPTORS_MAX - 1).collect();
        socket.send(&Packet::new(from_executor::FILES, &[], some)?)?;
    }
    let mut body = position.to_le_bytes().to_vec();
    body.extend_from_slice(record);
    Ok(socket.send(&Packet::new(from_executor::END, &body, Vec::new())?)?)
}

fn cancelled() -> Ended {
    Ended {
        result: Err(Failure::new(Cause::Cancelled, "cancelled before it started")),
        log: Vec::new(),
        log_cut: 0,
        peak_memory: ByteSize::ZERO,
    }
}

/// CPU time of this process in nanoseconds.
pub(super) fn cpu_now_ns() -> u64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}
