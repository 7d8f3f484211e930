//! Inside an executor: the engine's side of the sandbox. Everything here runs in the confined process.

mod context;
pub(crate) mod limits;
mod log;
mod outputs;
mod run;
mod store;
pub(crate) mod trusted;
mod wasi;

pub(crate) use context::{Source, State, linker};
pub(crate) use outputs::Written;
pub(crate) use run::{AttemptInput, Ended, FUNCTION_DOC_MAX, FUNCTION_NAME_MAX, FUNCTIONS_MAX, Guest};
