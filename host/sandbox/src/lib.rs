//! Runs guests of tenants in confined processes.
//!
//! The daemon links this crate and drives it from ordinary threads; there is no async here and no network.
//!
//! ```text
//! daemon: Compiler ──► compiler process, one per module          ArtefactCache (keyed hash, sealed descriptors)
//!         Zygote   ──► zygote process ──fork──► executor processes, each with one module of one tenant
//!         Executor::run: frames of attempts over a socket, results in shared memory, limits watched from outside
//! ```
//!
//! Wasmtime is not the boundary between tenants; the process is. An executor is single-threaded, runs one attempt at a
//! time in a fresh instance, and is confined by seccomp, Landlock, rlimits and the loss of every capability. Whatever it
//! says is checked here as if a stranger had said it. Time limits are enforced from outside, by the kernel's CPU clock of
//! the process and SIGKILL, so guest code carries no instrumentation.

mod artefact;
mod batch;
mod clock;
mod compiler;
mod control;
mod engine;
mod executor;
mod guest;
mod lane;
mod payload;
mod process;
mod program;
mod text;
mod wire;
mod zygote;

pub use artefact::{ARTEFACT_MAX, Artefact, ArtefactCache};
pub use batch::{AttemptEnd, Batch, BatchAttempt, Output, RunEnd};
pub use compiler::{CompileError, CompileLimits, Compiler, compiler_main};
pub use control::{RunControl, Running};
pub use executor::{Executor, ExecutorHandle};
pub use guest::trusted::measure_instance;
pub use payload::{INLINE_MAX, Mapping, PartitionFile, PartitionWriter, Payload};
#[doc(hidden)]
pub use process::probe;
pub use program::Program;
pub use zygote::{ForkError, StartError, Zygote, ZygoteConfig, zygote_main};
