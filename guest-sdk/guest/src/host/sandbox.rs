//! The sandbox as host: inputs and outputs are handles that the component was given for the time of its `run`.
//!
//! The handles are borrowed, and a task function is not a place for lifetimes, so they are kept as plain numbers. A
//! number that is used too late cannot do harm: the component model checks every handle and would trap.

use std::mem::ManuallyDrop;

use super::Host;
use crate::wit::bindings::partita::task::context::{Input, Output};

/// The sandbox that this component runs in. Inputs and outputs are numbered by their handles.
pub(crate) struct Sandbox;

impl Sandbox {
    /// The input with this handle, which stays the caller's.
    #[allow(unsafe_code, reason = "making a borrowed handle usable without its lifetime")]
    fn input(handle: u32) -> ManuallyDrop<Input> {
        // SAFETY: `from_handle` asks that the handle be owned, because the value drops it; this value never does.
        ManuallyDrop::new(unsafe { Input::from_handle(handle) })
    }

    /// The output with this handle, which stays the caller's.
    #[allow(unsafe_code, reason = "making a borrowed handle usable without its lifetime")]
    fn output(handle: u32) -> ManuallyDrop<Output> {
        // SAFETY: as in `input`.
        ManuallyDrop::new(unsafe { Output::from_handle(handle) })
    }
}

impl Host for Sandbox {
    fn size(&self, input: u32) -> u64 {
        Self::input(input).size()
    }

    fn read(&self, input: u32, offset: u64, length: u32) -> Vec<u8> {
        Self::input(input).read(offset, length)
    }

    fn write(&self, output: u32, bytes: &[u8]) {
        Self::output(output).write(bytes);
    }
}
