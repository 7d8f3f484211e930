//! Compiles modules, each in a process of its own that dies afterwards.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use partita_types::{ByteSize, CpuTime};

use crate::Program;

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
        Err(CompileError::Unavailable(io::Error::other(format!("{:?} has no compiler yet", self.program.path))))
    }
}

/// Entry point of the compiler process.
#[must_use]
pub fn compiler_main() -> ExitCode {
    ExitCode::FAILURE
}
