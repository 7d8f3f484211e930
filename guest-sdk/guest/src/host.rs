//! Whoever runs a task: the sandbox on `wasm32`, memory everywhere else. Nothing above this file knows which.
//!
//! [`Host`] is what a single invocation reads from and writes to. The functions of [`ambient`] need no invocation: they
//! can be called from anywhere in a guest.

use std::rc::Rc;

#[cfg_attr(target_arch = "wasm32", path = "host/ambient_wasm.rs")]
#[cfg_attr(not(target_arch = "wasm32"), path = "host/ambient_native.rs")]
pub(crate) mod ambient;
pub(crate) mod memory;
#[cfg(target_arch = "wasm32")]
pub(crate) mod sandbox;

/// Most bytes that one read or write may move.
pub(crate) const MAX_TRANSFER: usize = 1 << 20;

/// Inputs and outputs of an invocation, by numbers that only the host gives a meaning.
pub(crate) trait Host {
    /// Length of an input.
    fn size(&self, input: u32) -> u64;
    /// Up to `length` bytes from `offset` on, fewer only at the end. `length` is at most [`MAX_TRANSFER`].
    fn read(&self, input: u32, offset: u64, length: u32) -> Vec<u8>;
    /// Appends at most [`MAX_TRANSFER`] bytes.
    fn write(&self, output: u32, bytes: &[u8]);
}

/// One input of an invocation.
#[derive(Clone)]
pub(crate) struct Source {
    host: Rc<dyn Host>,
    input: u32,
}

impl Source {
    pub(crate) fn new(host: Rc<dyn Host>, input: u32) -> Self {
        Self { host, input }
    }

    pub(crate) fn size(&self) -> u64 {
        self.host.size(self.input)
    }

    /// As [`Host::read`], for any length: at most [`MAX_TRANSFER`] is asked for.
    pub(crate) fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let length = u32::try_from(length.min(MAX_TRANSFER)).unwrap_or(u32::MAX);
        self.host.read(self.input, offset, length)
    }
}

/// One output of an invocation.
#[derive(Clone)]
pub(crate) struct Sink {
    host: Rc<dyn Host>,
    output: u32,
}

impl Sink {
    pub(crate) fn new(host: Rc<dyn Host>, output: u32) -> Self {
        Self { host, output }
    }

    /// Appends all of `bytes`, in as many pieces as the host needs.
    pub(crate) fn write(&self, bytes: &[u8]) {
        for piece in bytes.chunks(MAX_TRANSFER) {
            self.host.write(self.output, piece);
        }
    }
}
