//! The zygote process: a warm engine and nothing of any tenant. It forks executors on request and reports their deaths.
//!
//! It is single-threaded for its whole life, or fork would not be safe. It stays dumpable, because wasmtime opens
//! `/proc/self/pagemap` anew in every child, and it forks with the C library's `fork`, because that is what runs the
//! handler that does so.

use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use partita_types::{ByteSize, Isolation};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags};

use super::confine::{self, Allowance};
use super::executor::{self, Prepared, Request};
use crate::engine;
use crate::guest::trusted;
use crate::wire::codec::{Reader, Writer};
use crate::wire::socket::{Message, Packet, Socket};

/// Most executors alive at once.
const EXECUTORS_MAX: usize = 1024;

/// Kinds of messages to the zygote.
pub(crate) mod to_zygote {
    /// First message: the priority of executors.
    pub(crate) const START: u8 = 1;
    /// Fork an executor: request id and memory; socket, page and artefact beside it.
    pub(crate) const FORK: u8 = 2;
}

/// Kinds of messages from the zygote.
pub(crate) mod from_zygote {
    /// Ready; the body is the isolation that a throw-away child reached.
    pub(crate) const READY: u8 = 1;
    /// Not usable; the body says why.
    pub(crate) const REFUSED: u8 = 2;
    /// Request id and process id; a pidfd beside it.
    pub(crate) const FORKED: u8 = 3;
    /// Request id and why not.
    pub(crate) const NOT_FORKED: u8 = 4;
    /// Process id, wait status and CPU microseconds of an executor that ended.
    pub(crate) const ENDED: u8 = 5;
}

/// Runs the zygote until its connection, descriptor 0, closes.
pub(crate) fn main() -> ExitCode {
    let socket = super::own_socket();
    let result = start(&socket).and_then(|zygote| match zygote {
        Some(zygote) => zygote.serve(&socket),
        None => Ok(()),
    });
    if let Err(error) = result {
        // If the daemon cannot be told, it sees the connection close.
        let text = format!("{error:#}");
        if let Ok(packet) = Packet::new(from_zygote::REFUSED, text.as_bytes(), Vec::new()) {
            let _ = socket.send(&packet);
        }
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Gets ready; `None` if the daemon has gone meanwhile.
fn start(socket: &Socket) -> wasmtime::Result<Option<Zygote>> {
    close_inherited();
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    // Waiting for the first message also finds a parent that died before the line above.
    let Some(first) = socket.receive(&mut Vec::new())? else { return Ok(None) };
    let nice = first.body.first().copied().unwrap_or_default();
    confine::drop_privileges()?;
    let engine = engine::for_running()?;
    let linker = crate::guest::linker(&engine)?;
    let prepared = Prepared { engine, linker, filter: confine::filter().map_err(wasmtime::Error::new)?, nice };
    warm_up(&prepared)?;
    let zygote = Zygote { prepared, children: Vec::new(), pid: rustix::process::getpid() };
    let isolation = zygote.measure_isolation()?;
    socket.send(&Packet::new(from_zygote::READY, &[isolation as u8], Vec::new())?)?;
    Ok(Some(zygote))
}

/// Descriptors that the daemon forgot to mark must not reach an executor.
#[allow(unsafe_code, reason = "closing descriptors by number")]
fn close_inherited() {
    // SAFETY: at this point the process has opened nothing that it still uses beyond descriptor 2. A failure, on a kernel
    // without the call, leaves them open.
    unsafe { libc::close_range(3, u32::MAX, 0) };
}

/// Runs a trusted module, a trap included. The first call of a process and its first trap make system calls that an
/// executor may not make; what they set up is inherited.
fn warm_up(prepared: &Prepared) -> wasmtime::Result<()> {
    // The first look at a clock asks the kernel where its fast clocks are.
    executor::cpu_now_ns();
    let guest = trusted::load(&prepared.engine, &prepared.linker)?;
    for (function, succeeds) in [(trusted::SUCCEEDS, true), (trusted::TRAPS, false)].repeat(2) {
        if guest.run(function, trusted::attempt()).result.is_ok() != succeeds {
            wasmtime::bail!("the warm-up module did not behave as it must");
        }
    }
    Ok(())
}

struct Child {
    pid: Pid,
    process: OwnedFd,
}

struct Zygote {
    prepared: Prepared,
    children: Vec<Child>,
    pid: Pid,
}

impl Zygote {
    fn serve(mut self, socket: &Socket) -> wasmtime::Result<()> {
        let mut buffer = Vec::new();
        loop {
            let (readable, ended) = self.wait(socket)?;
            for index in ended.into_iter().rev() {
                let child = self.children.swap_remove(index);
                report_end(socket, child.pid)?;
            }
            if readable {
                match socket.receive(&mut buffer)? {
                    Some(message) if message.kind == to_zygote::FORK => self.fork(socket, message)?,
                    Some(message) => wasmtime::bail!("unknown message {}", message.kind),
                    None => return Ok(()),
                }
            }
        }
    }

    /// Waits for a message or for the end of children; returns whether there is a message, and who has ended.
    fn wait(&self, socket: &Socket) -> io::Result<(bool, Vec<usize>)> {
        let mut polled = Vec::with_capacity(self.children.len() + 1);
        polled.push(PollFd::new(socket, PollFlags::IN));
        polled.extend(self.children.iter().map(|child| PollFd::new(&child.process, PollFlags::IN)));
        while let Err(error) = rustix::event::poll(&mut polled, None) {
            if error != rustix::io::Errno::INTR {
                return Err(error.into());
            }
        }
        let happened = |polled: &PollFd<'_>| !polled.revents().is_empty();
        let ended = polled[1..].iter().enumerate().filter(|(_, polled)| happened(polled)).map(|(index, _)| index);
        Ok((happened(&polled[0]), ended.collect()))
    }

    fn fork(&mut self, socket: &Socket, message: Message) -> wasmtime::Result<()> {
        let mut reader = Reader::new(&message.body);
        let (id, memory) = (reader.u64()?, ByteSize(reader.u64()?));
        let mut writer = Writer::default();
        writer.u64(id);
        let forked = self.fork_executor(message.descriptors, memory);
        let packet = match forked {
            Ok(process) => {
                let pid = self.children.last().map_or(0, |child| child.pid.as_raw_pid());
                writer.u32(pid.cast_unsigned());
                Packet::new(from_zygote::FORKED, writer.as_slice(), vec![process])?
            }
            Err(error) => {
                writer.raw(error.to_string().as_bytes());
                Packet::new(from_zygote::NOT_FORKED, writer.as_slice(), Vec::new())?
            }
        };
        Ok(socket.send(&packet)?)
    }

    /// Forks an executor and returns a second descriptor of its process.
    fn fork_executor(&mut self, descriptors: Vec<OwnedFd>, memory: ByteSize) -> io::Result<OwnedFd> {
        let [socket, page, artefact]: [OwnedFd; 3] =
            descriptors.try_into().map_err(|_| io::Error::other("a fork needs three descriptors"))?;
        if self.children.len() >= EXECUTORS_MAX {
            return Err(io::Error::other(format!("there are {EXECUTORS_MAX} executors already")));
        }
        let request = Request { socket, page, artefact, memory };
        let Some(pid) = fork()? else {
            // Siblings are none of the executor's business.
            self.children.clear();
            let ending = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                executor::main(&self.prepared, request, self.pid).is_ok()
            }));
            super::exit_now(if matches!(ending, Ok(true)) { 0 } else { 1 });
        };
        drop(request);
        let process = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        let copy = process.try_clone()?;
        self.children.push(Child { pid, process });
        Ok(copy)
    }

    /// Lets a throw-away child confine itself, as executors will, and tell by its exit status how far it got.
    fn measure_isolation(&self) -> io::Result<Isolation> {
        let Some(pid) = fork()? else {
            let allowance =
                Allowance { data: None, address_space: None, file: ByteSize::ZERO, descriptors: 16, cpu_seconds: None };
            let isolation = confine::confine(&allowance, self.prepared.nice, &self.prepared.filter);
            super::exit_now(isolation.map_or(libc::EXIT_FAILURE, |isolation| PROBE_BASE + isolation as i32));
        };
        let (status, _) = wait_for(pid)?;
        isolation_from(status).ok_or_else(|| io::Error::other("a probe process could not be confined"))
    }
}

/// Exit status of the isolation probe that reached the weakest isolation.
const PROBE_BASE: i32 = 64;

fn isolation_from(status: i32) -> Option<Isolation> {
    let code = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status))?;
    [Isolation::Process, Isolation::Seccomp, Isolation::Full]
        .into_iter()
        .find(|isolation| PROBE_BASE + *isolation as i32 == code)
}

fn report_end(socket: &Socket, pid: Pid) -> wasmtime::Result<()> {
    let (status, cpu_us) = wait_for(pid)?;
    let mut writer = Writer::default();
    writer.u32(pid.as_raw_pid().cast_unsigned());
    writer.u32(status.cast_unsigned());
    writer.u64(cpu_us);
    Ok(socket.send(&Packet::new(from_zygote::ENDED, writer.as_slice(), Vec::new())?)?)
}

/// Forks this process; `None` in the child.
#[allow(unsafe_code, reason = "fork")]
fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: the process has one thread, so the child finds every lock free and may do anything.
    let pid = unsafe { libc::fork() };
    match pid {
        0 => Ok(None),
        pid => Pid::from_raw(pid).filter(|_| pid > 0).map(Some).ok_or_else(io::Error::last_os_error),
    }
}

/// Waits for a child and returns its wait status and CPU microseconds.
#[allow(unsafe_code, reason = "wait4, the only call that tells the CPU time")]
fn wait_for(pid: Pid) -> io::Result<(i32, u64)> {
    let mut status = 0;
    // SAFETY: all zeroes is a valid value of this plain structure.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live locals that the kernel fills.
    while unsafe { libc::wait4(pid.as_raw_pid(), &raw mut status, 0, &raw mut usage) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let micros = |time: libc::timeval| time.tv_sec.cast_unsigned() * 1_000_000 + time.tv_usec.cast_unsigned();
    Ok((status, micros(usage.ru_utime) + micros(usage.ru_stime)))
}
