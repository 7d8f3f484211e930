//! What a guest can ask for anywhere, from the sandbox.

use std::ffi::{c_int, c_void};
use std::time::Duration;

use crate::ambient::{Budget, Level};
use crate::wit::bindings::partita::task::{context, types};

pub(crate) fn log(level: Level, message: &str) {
    let level = match level {
        Level::Debug => types::Level::Debug,
        Level::Info => types::Level::Info,
        Level::Warn => types::Level::Warn,
        Level::Error => types::Level::Error,
    };
    context::log(level, message);
}

pub(crate) fn progress(done: u64, total: u64) {
    context::progress(done, total);
}

pub(crate) fn remaining() -> Budget {
    let left = context::remaining();
    Budget {
        memory: left.memory_bytes,
        cpu_time: Duration::from_micros(left.cpu_time_us),
        wall_time: Duration::from_micros(left.wall_time_us),
    }
}

#[allow(unsafe_code, reason = "wasi-libc's own entry to `wasi:random`, which spares guests a further crate")]
pub(crate) fn random_u64() -> u64 {
    unsafe extern "C" {
        fn getentropy(buffer: *mut c_void, length: usize) -> c_int;
    }
    let mut bytes = [0_u8; 8];
    // SAFETY: `bytes` is writable for the eight bytes that are announced. The call cannot fail for so few.
    unsafe { getentropy(bytes.as_mut_ptr().cast(), bytes.len()) };
    u64::from_le_bytes(bytes)
}

/// Makes a panic end the attempt with its message and place instead of a bare trap.
pub(crate) fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("the task panicked");
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        context::panicked(message, &location);
    }));
}
