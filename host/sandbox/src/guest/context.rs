//! The host functions of `partita:task/context`, and the state of one attempt behind them.
//!
//! Inputs and outputs are numbers given out by us, so the guest's handles need no table on this side. Every function
//! checks what it is asked before it takes memory for it. What must end an attempt leaves its reason in the state and
//! returns an error, which wasmtime turns into a trap.

use std::sync::Arc;

use bytes::Bytes;
use partita_types::{ByteSize, Cause, LogLevel, TaskLimits, Timestamp};
use wasmtime::component::{HasSelf, Linker, Resource, ResourceTable};
use wasmtime::{Engine, Result, format_err};
use wasmtime_wasi::filesystem::WasiFilesystemCtx;

use super::limits::Limiter;
use super::log::Log;
use super::outputs::{Outputs, WriteError};
use crate::payload::Mapping;
use crate::text::shown;
use crate::wire::page::Page;

/// Most bytes that one call reads or writes.
pub(crate) const TRANSFER_MAX: u32 = 1 << 20;
/// Longest message of a panic or failure that is kept.
pub(crate) const MESSAGE_MAX: usize = 4096;
/// Handles of host-side tables that a guest can have, beside its inputs and outputs.
pub(crate) const HANDLES_MAX: usize = 1024;

/// Marks handles of inputs; their number is the position in [`State::inputs`].
#[derive(Debug)]
#[allow(unreachable_pub, reason = "the generated code re-exports it")]
pub struct InputHandle;
/// Marks handles of outputs; their number is the output's.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "the generated code re-exports it")]
pub struct OutputHandle;

pub(crate) mod bindings {
    //! Generated from the world's text.
    #![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]
    wasmtime::component::bindgen!({
        world: "task-module",
        path: "../../guest-sdk/wit",
        imports: { default: trappable },
        with: {
            "partita:task/context.input": super::InputHandle,
            "partita:task/context.output": super::OutputHandle,
        },
        require_store_data_send: true,
    });
}

use bindings::partita::task::{context, types};

/// The bytes of one input.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Inline(Bytes),
    File(Arc<Mapping>),
}

impl Source {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Inline(bytes) => bytes,
            Self::File(mapping) => mapping,
        }
    }
}

/// Why a host function ended the attempt.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) cause: Cause,
    pub(crate) message: String,
}

/// Everything that belongs to one attempt.
pub(crate) struct State {
    pub(crate) limiter: Limiter,
    pub(crate) log: Log,
    pub(crate) outputs: Outputs,
    pub(crate) end: Option<End>,
    pub(crate) inputs: Vec<Source>,
    pub(crate) limits: TaskLimits,
    /// The guest's clock, in nanoseconds since it started.
    pub(crate) clock_ns: u64,
    pub(crate) started_at: Timestamp,
    pub(crate) random: Option<blake3::OutputReader>,
    pub(crate) seed: [u8; 32],
    pub(crate) page: Option<Arc<Page>>,
    /// WASI's file system is linked, but there is nothing in it: no directory, so no descriptor can exist.
    pub(crate) no_files: WasiFilesystemCtx,
    pub(crate) table: ResourceTable,
}

impl State {
    /// Ends the attempt for `cause`. The first reason stands.
    pub(crate) fn fail(&mut self, cause: Cause, message: String) -> wasmtime::Error {
        let error = format_err!("{message}");
        self.end.get_or_insert(End { cause, message });
        error
    }

    fn input(&mut self, handle: &Resource<InputHandle>) -> Result<&Source> {
        if handle.rep() as usize >= self.inputs.len() {
            return Err(self.fail(Cause::SandboxLimit, format!("the guest has no input {}", handle.rep())));
        }
        Ok(&self.inputs[handle.rep() as usize])
    }
}

impl types::Host for State {}

impl context::HostInput for State {
    fn size(&mut self, handle: Resource<InputHandle>) -> Result<u64> {
        Ok(self.input(&handle)?.as_slice().len() as u64)
    }

    fn read(&mut self, handle: Resource<InputHandle>, offset: u64, length: u32) -> Result<Vec<u8>> {
        if length > TRANSFER_MAX {
            let message = format!("the guest read {length} bytes in one call, the limit is {TRANSFER_MAX}");
            return Err(self.fail(Cause::SandboxLimit, message));
        }
        let bytes = self.input(&handle)?.as_slice();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let end = start.saturating_add(length as usize).min(bytes.len());
        Ok(bytes[start..end].to_vec())
    }

    fn drop(&mut self, _handle: Resource<InputHandle>) -> Result<()> {
        // Guests only ever borrow inputs.
        Ok(())
    }
}

impl context::HostOutput for State {
    fn write(&mut self, handle: Resource<OutputHandle>, bytes: Vec<u8>) -> Result<()> {
        if bytes.len() > TRANSFER_MAX as usize {
            let message = format!("the guest wrote {} bytes in one call, the limit is {TRANSFER_MAX}", bytes.len());
            return Err(self.fail(Cause::SandboxLimit, message));
        }
        self.outputs.write(handle.rep(), &bytes).map_err(|error| match error {
            WriteError::Unknown => self.fail(Cause::SandboxLimit, format!("the guest has no output {}", handle.rep())),
            WriteError::Limit { wanted, limit } => {
                let (wanted, limit) = (ByteSize(wanted), ByteSize(limit));
                self.fail(Cause::OutputSize, format!("the guest wrote {wanted} of output, its limit is {limit}"))
            }
            WriteError::Storage(error) => self.fail(Cause::Storage, format!("no room for an output: {error}")),
        })
    }

    fn drop(&mut self, _handle: Resource<OutputHandle>) -> Result<()> {
        // Guests only ever borrow outputs.
        Ok(())
    }
}

impl context::Host for State {
    fn log(&mut self, level: types::Level, message: String) -> Result<()> {
        let level = match level {
            types::Level::Debug => LogLevel::Debug,
            types::Level::Info => LogLevel::Info,
            types::Level::Warn => LogLevel::Warn,
            types::Level::Error => LogLevel::Error,
        };
        self.log.add(level, &message);
        Ok(())
    }

    fn progress(&mut self, done: u64, total: u64) -> Result<()> {
        if let Some(page) = &self.page {
            page.progress(done, total);
        }
        Ok(())
    }

    fn remaining(&mut self) -> Result<context::Budget> {
        Ok(context::Budget {
            memory_bytes: self.limits.memory.0,
            cpu_time_us: self.limits.cpu_time.micros,
            wall_time_us: u64::try_from(self.limits.wall_time.as_micros()).unwrap_or(u64::MAX),
        })
    }

    fn panicked(&mut self, message: String, location: String) -> Result<()> {
        let mut text = shown(&message, MESSAGE_MAX);
        if !location.is_empty() {
            text.push_str(", at ");
            text.push_str(&shown(&location, MESSAGE_MAX / 4));
        }
        Err(self.fail(Cause::Panic, text))
    }
}

/// Links what a module may import: the context and the granted part of WASI. Nothing else can be linked anywhere.
pub(crate) fn linker(engine: &Engine) -> Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    types::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    context::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    super::wasi::add_to_linker(&mut linker)?;
    Ok(linker)
}
