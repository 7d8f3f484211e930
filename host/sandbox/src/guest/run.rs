//! One module, ready to be instantiated, and the attempts in it.

use std::sync::Arc;

use bytes::Bytes;
use partita_types::{ByteSize, Cause, Failure, FunctionInfo, LogLine, TaskLimits, Timestamp};
use wasmtime::component::{Component, Linker, Resource};
use wasmtime::{Engine, Error, Result, Store, Trap, WasmBacktrace};

use super::context::bindings::{TaskModulePre, partita::task::types};
use super::context::{MESSAGE_MAX, OutputHandle, Source, State};
use super::limits::Refusal;
use super::outputs::Written;
use super::store::{self, StoreRequest};
use crate::engine::BACKTRACE_FRAMES;
use crate::text::shown;
use crate::wire::page::Page;

/// Most functions that a module may describe.
pub(crate) const FUNCTIONS_MAX: usize = 1024;
/// Longest name of a function.
pub(crate) const FUNCTION_NAME_MAX: usize = 128;
/// Longest documentation of a function.
pub(crate) const FUNCTION_DOC_MAX: usize = 4096;
/// Longest line of a backtrace.
const FRAME_MAX: usize = 256;

/// What an attempt is given.
#[derive(Debug)]
pub(crate) struct AttemptInput {
    pub(crate) arguments: Bytes,
    /// Inputs per edge.
    pub(crate) inputs: Vec<Vec<Source>>,
    pub(crate) seed: [u8; 32],
    pub(crate) limits: TaskLimits,
    pub(crate) outputs: u32,
    pub(crate) started_at: Timestamp,
}

/// What an attempt leaves behind.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) result: std::result::Result<Vec<Written>, Failure>,
    pub(crate) log: Vec<LogLine>,
    pub(crate) log_cut: u32,
    pub(crate) peak_memory: ByteSize,
}

/// A loaded module.
pub(crate) struct Guest {
    engine: Engine,
    module: TaskModulePre<State>,
    page: Option<Arc<Page>>,
}

impl Guest {
    /// Resolves the imports of `component`.
    pub(crate) fn new(
        engine: &Engine,
        linker: &Linker<State>,
        component: &Component,
        page: Option<Arc<Page>>,
    ) -> Result<Self> {
        let module = TaskModulePre::new(linker.instantiate_pre(component)?)?;
        Ok(Self { engine: engine.clone(), module, page })
    }

    /// Runs one attempt in an instance of its own.
    pub(crate) fn run(&self, function: &str, input: AttemptInput) -> Ended {
        let mut inputs = Vec::new();
        let mut groups = Vec::with_capacity(input.inputs.len());
        for group in input.inputs {
            let first = inputs.len();
            inputs.extend(group);
            groups.push((first..inputs.len()).map(borrowed).collect::<Vec<_>>());
        }
        let outputs: Vec<Resource<OutputHandle>> = (0..input.outputs as usize).map(borrowed).collect();
        let mut store = self.store(&input.limits, input.outputs, inputs, input.seed, input.started_at);
        let result = self
            .module
            .instantiate(&mut store)
            .map_err(|error| instantiation_failure(&error, store.data()))
            .and_then(|instance| {
                instance
                    .call_run(&mut store, function, &input.arguments, &groups, &outputs)
                    .map_err(|error| call_failure(&error, store.data()))
            })
            .and_then(|returned| returned.map_err(guest_failure));
        finish(store, result)
    }

    /// Asks the module for its functions.
    pub(crate) fn describe(&self, limits: &TaskLimits) -> std::result::Result<Vec<FunctionInfo>, Failure> {
        let mut store = self.store(limits, 0, Vec::new(), [0; 32], Timestamp::default());
        let instance =
            self.module.instantiate(&mut store).map_err(|error| instantiation_failure(&error, store.data()))?;
        let functions = instance.call_describe(&mut store).map_err(|error| call_failure(&error, store.data()))?;
        if functions.len() > FUNCTIONS_MAX {
            let message = format!("the module describes {} functions, the limit is {FUNCTIONS_MAX}", functions.len());
            return Err(Failure::new(Cause::Module, message));
        }
        functions.into_iter().map(function_info).collect()
    }

    fn store(
        &self,
        limits: &TaskLimits,
        outputs: u32,
        inputs: Vec<Source>,
        seed: [u8; 32],
        started_at: Timestamp,
    ) -> Store<State> {
        let page = self.page.clone();
        store::new(&self.engine, StoreRequest { limits: *limits, outputs, inputs, seed, started_at, page })
    }
}

fn borrowed<T: 'static>(number: usize) -> Resource<T> {
    Resource::new_borrow(u32::try_from(number).unwrap_or(u32::MAX))
}

fn function_info(function: types::Function) -> std::result::Result<FunctionInfo, Failure> {
    let name = function.name;
    if name.is_empty() || name.len() > FUNCTION_NAME_MAX || shown(&name, FUNCTION_NAME_MAX) != name {
        let name = shown(&name, FUNCTION_NAME_MAX);
        let message =
            format!("the module describes a function {name:?}, whose name is empty, too long or not printable");
        return Err(Failure::new(Cause::Module, message));
    }
    let doc = shown(&function.doc, FUNCTION_DOC_MAX);
    Ok(FunctionInfo { name, doc, inputs: function.inputs, outputs: function.outputs })
}

/// Takes the store apart. Outputs count only if the guest succeeded.
fn finish(store: Store<State>, result: std::result::Result<(), Failure>) -> Ended {
    let state = store.into_data();
    let peak_memory = state.limiter.peak();
    let (log, log_cut) = state.log.finish();
    let result = result.and_then(|()| {
        let storage = |error| Failure::new(Cause::Storage, format!("no room for an output: {error}"));
        state.outputs.finish().map_err(storage)
    });
    Ended { result, log, log_cut, peak_memory }
}

/// The guest returned an error.
fn guest_failure(failure: types::Failure) -> Failure {
    let (cause, message) = match failure {
        types::Failure::Failed(message) => (Cause::Failed, message),
        types::Failure::Retry(message) => (Cause::Retry, message),
    };
    Failure::new(cause, shown(&message, MESSAGE_MAX))
}

/// The instance could not be made, or its start function trapped.
fn instantiation_failure(error: &Error, state: &State) -> Failure {
    if error.is::<Trap>() || state.end.is_some() || state.limiter.refused().is_some() {
        return call_failure(error, state);
    }
    Failure::new(Cause::Module, shown(&format!("the module cannot be instantiated: {error:#}"), MESSAGE_MAX))
}

/// The call did not return: finds the one cause.
fn call_failure(error: &Error, state: &State) -> Failure {
    let trap = error.downcast_ref::<Trap>();
    let (cause, message) = match (&state.end, trap, state.limiter.refused()) {
        (Some(end), _, _) => (end.cause, end.message.clone()),
        (None, Some(Trap::StackOverflow), _) => (Cause::Stack, "the guest's call stack is exhausted".to_owned()),
        (None, _, Some(refusal @ Refusal::Grows)) => (refusal.cause(), refusal.message()),
        (None, Some(trap), Some(refusal)) => (refusal.cause(), format!("{} ({trap})", refusal.message())),
        (None, None, Some(refusal)) => (refusal.cause(), refusal.message()),
        (None, Some(trap), None) => (Cause::Trap, trap.to_string()),
        (None, None, None) => untyped(error),
    };
    let backtrace = error.downcast_ref::<WasmBacktrace>().map(backtrace).unwrap_or_default();
    Failure { cause, message: shown(&message, MESSAGE_MAX), backtrace, log_tail: Vec::new() }
}

/// Errors of wasmtime that have no type of their own: its limits on handles and on copied bytes, and broken promises of
/// the component's binary interface.
fn untyped(error: &Error) -> (Cause, String) {
    let text = error.root_cause().to_string();
    let is_limit = text.contains("fuel allocated for hostcalls") || text.contains("store handle limit exceeded");
    (if is_limit { Cause::SandboxLimit } else { Cause::Trap }, text)
}

fn backtrace(backtrace: &WasmBacktrace) -> Vec<String> {
    let frames = backtrace.frames().iter().take(BACKTRACE_FRAMES);
    frames
        .map(|frame| {
            let symbol = frame.symbols().first();
            let name = symbol.and_then(|symbol| symbol.name()).or_else(|| frame.func_name());
            let name = name.map_or_else(|| format!("function {}", frame.func_index()), str::to_owned);
            let place = symbol.and_then(|symbol| Some(format!(" ({}:{})", symbol.file()?, symbol.line()?)));
            shown(&format!("{name}{}", place.unwrap_or_default()), FRAME_MAX)
        })
        .collect()
}
