//! Compiles modules, each in a process of its own that dies afterwards.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitCode, ExitStatus};
use std::time::Duration;

use partita_types::{ByteSize, CpuTime};
use rustix::event::{PollFd, PollFlags};

use crate::Program;
use crate::clock::{self, signal_name};
use crate::payload::{PartitionFile, memory_file};
use crate::process::compiler::{Allowed, COMPILE, COMPILED, REFUSED, decode_error};
use crate::wire::codec::{Reader, Writer};
use crate::wire::socket::{Message, Packet, Socket};

/// What one compilation may use.
#[derive(Debug, Clone, Copy)]
pub struct CompileLimits {
    /// Largest component.
    pub component: ByteSize,
    /// Largest artefact.
    pub artefact: ByteSize,
    /// CPU time of the compiler process.
    pub cpu_time: CpuTime,
    /// Time from start to end.
    pub wall_time: Duration,
    /// Address space of the compiler process.
    pub memory: ByteSize,
}

impl Default for CompileLimits {
    /// 64 MiB in, 512 MiB out, 20 s of CPU, 30 s in all, 2 GiB of memory.
    fn default() -> Self {
        Self {
            component: ByteSize::mib(64),
            artefact: crate::ARTEFACT_MAX,
            cpu_time: CpuTime::from_micros(20_000_000),
            wall_time: Duration::from_secs(30),
            memory: ByteSize::gib(2),
        }
    }
}

/// Why a module cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The bytes are something else.
    #[error("not a WebAssembly component: {detail}")]
    NotAComponent {
        /// What they are instead.
        detail: String,
    },
    /// An export of the world is missing or has another type.
    #[error("component does not implement the world partita:task/task-module@0.1.0: export {export:?} {problem}")]
    WrongWorld {
        /// The export.
        export: String,
        /// What is wrong with it.
        problem: String,
    },
    /// It imports something that is not granted.
    #[error("component imports {name:?}, which is not granted")]
    ForbiddenImport {
        /// The import.
        name: String,
    },
    /// Some part exceeds a limit.
    #[error("{what} is {size}, the limit is {limit}")]
    TooLarge {
        /// Which part.
        what: String,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// It takes too long.
    #[error("compilation takes more than {limit}")]
    TimedOut {
        /// The limit that was reached.
        limit: String,
    },
    /// The compiler died.
    #[error("compiler process died: {detail}")]
    Crashed {
        /// How.
        detail: String,
    },
    /// It is not valid WebAssembly, or uses a feature that is switched off.
    #[error("component is not valid: {0}")]
    Invalid(String),
    /// The compiler process could not be started. Nothing is known about the module.
    #[error("cannot run a compiler process")]
    Unavailable(#[source] io::Error),
}

impl CompileError {
    /// Whether the same bytes may compile at another time.
    #[must_use]
    pub const fn worth_retrying(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// Compiles modules.
#[derive(Debug, Clone)]
pub struct Compiler {
    program: Program,
    limits: CompileLimits,
}

impl Compiler {
    /// A compiler that starts `program` for each module.
    #[must_use]
    pub const fn new(program: Program, limits: CompileLimits) -> Self {
        Self { program, limits }
    }

    /// Compiles `component` and checks its world and imports. Blocks until the compiler process has ended.
    ///
    /// # Errors
    /// If the component is refused or the process fails.
    pub fn compile(&self, component: &[u8]) -> Result<Vec<u8>, CompileError> {
        let limit = self.limits.component.0;
        if component.len() as u64 > limit {
            return Err(CompileError::TooLarge { what: "component".to_owned(), size: component.len() as u64, limit });
        }
        let mut job = Job::start(&self.program, &self.limits, component).map_err(CompileError::Unavailable)?;
        let answer = job.wait(self.limits.wall_time);
        let died = job.end();
        match answer {
            Ok(Some(message)) => self.open(&job, &message),
            Ok(None) => Err(self.died(died)),
            Err(Waiting::TimedOut) => {
                Err(CompileError::TimedOut { limit: partita_types::format_duration(self.limits.wall_time) })
            }
            Err(Waiting::Failed(error)) => Err(CompileError::Crashed { detail: error.to_string() }),
        }
    }

    fn open(&self, job: &Job, message: &Message) -> Result<Vec<u8>, CompileError> {
        let garbage = |text: String| CompileError::Crashed { detail: text };
        match message.kind {
            COMPILED => {
                let length = Reader::new(&message.body).u64().map_err(|error| garbage(error.to_string()))?;
                if length > self.limits.artefact.0 {
                    return Err(CompileError::TooLarge {
                        what: "compiled code".to_owned(),
                        size: length,
                        limit: self.limits.artefact.0,
                    });
                }
                job.read_output(length).map_err(|error| garbage(format!("its output cannot be read: {error}")))
            }
            REFUSED => Err(decode_error(&message.body).unwrap_or_else(|error| garbage(error.to_string()))),
            kind => Err(garbage(format!("it sent an unknown message {kind}"))),
        }
    }

    /// The process ended without an answer.
    fn died(&self, status: io::Result<ExitStatus>) -> CompileError {
        let signal = status.as_ref().ok().and_then(ExitStatusExt::signal);
        match signal {
            Some(libc::SIGXCPU | libc::SIGKILL) => {
                CompileError::TimedOut { limit: format!("{} of CPU time", self.limits.cpu_time) }
            }
            Some(signal) => CompileError::Crashed { detail: format!("by {}", signal_name(signal)) },
            None => CompileError::Crashed { detail: status.map_or_else(|error| error.to_string(), |s| s.to_string()) },
        }
    }
}

/// Why there is no answer yet.
enum Waiting {
    TimedOut,
    Failed(io::Error),
}

/// One compiler process.
struct Job {
    child: Child,
    socket: Socket,
    output: OwnedFd,
}

impl Job {
    fn start(program: &Program, limits: &CompileLimits, component: &[u8]) -> io::Result<Self> {
        let mut input = PartitionFile::create_as("module", ByteSize(component.len() as u64))?;
        input.write_all(component)?;
        let input = rustix::io::fcntl_dupfd_cloexec(input.finish()?.as_fd(), 0)?;
        let output = memory_file("artefact")?;
        let (socket, theirs) = Socket::pair()?;
        let allowed = Allowed { cpu_time: limits.cpu_time, memory: limits.memory, artefact: limits.artefact };
        let mut body = Writer::default();
        allowed.encode(&mut body);
        socket.send(&Packet::new(COMPILE, body.as_slice(), vec![input, output.try_clone()?])?)?;
        let child = program.start("compiler", theirs.into_descriptor())?;
        Ok(Self { child, socket, output })
    }

    /// Waits for the answer; `None` if the process ended without one.
    fn wait(&self, limit: Duration) -> Result<Option<Message>, Waiting> {
        let deadline = clock::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(clock::now());
            if left.is_zero() {
                return Err(Waiting::TimedOut);
            }
            let mut polled = [PollFd::new(&self.socket, PollFlags::IN)];
            let timeout = rustix::event::Timespec::try_from(left).ok();
            match rustix::event::poll(&mut polled, timeout.as_ref()) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return self.socket.receive(&mut Vec::new()).map_err(Waiting::Failed),
                Err(error) => return Err(Waiting::Failed(error.into())),
            }
        }
    }

    /// Kills the process, whether it has ended or not, and reaps it. Nobody can write the output any more.
    fn end(&mut self) -> io::Result<ExitStatus> {
        // An answer may be followed by the regular end; killing is harmless then.
        let status = self.child.try_wait();
        let _ = self.child.kill();
        match status {
            Ok(Some(status)) => Ok(status),
            _ => self.child.wait(),
        }
    }

    fn read_output(&self, length: u64) -> io::Result<Vec<u8>> {
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut code = Vec::with_capacity(length);
        let mut chunk = vec![0; 1 << 20];
        while code.len() < length {
            let want = chunk.len().min(length - code.len());
            let count = rustix::io::pread(&self.output, &mut chunk[..want], code.len() as u64)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            code.extend_from_slice(&chunk[..count]);
        }
        Ok(code)
    }
}

/// Entry point of the compiler process. Call it before any thread is started. It ends the process itself.
#[must_use]
pub fn compiler_main() -> ExitCode {
    crate::process::compiler::main()
}
