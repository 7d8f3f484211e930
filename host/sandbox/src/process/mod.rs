//! The helper processes themselves: what runs after `zygote` or `compiler` was started, and after a fork.

pub(crate) mod compiler;
pub(crate) mod confine;
pub(crate) mod executor;
pub(crate) mod inspect;
pub(crate) mod world;
pub(crate) mod zygote;

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::wire::socket::Socket;

/// The connection to the parent: descriptor 0, where the parent has put it.
#[allow(unsafe_code, reason = "a descriptor by its number")]
pub(crate) fn own_socket() -> Socket {
    // SAFETY: helper processes are started with their socket as descriptor 0, use it for nothing else, and call this once.
    Socket::from_descriptor(unsafe { OwnedFd::from_raw_fd(confine::SOCKET) })
}

/// Makes `socket` descriptor 0 of a forked process. The connection of the parent, which was there, is closed by that.
#[allow(unsafe_code, reason = "a descriptor by its number")]
pub(crate) fn adopt_socket(socket: OwnedFd) -> io::Result<Socket> {
    // SAFETY: replaces a descriptor that the parent's code owns; in this process that code never runs again.
    if unsafe { libc::dup2(socket.as_raw_fd(), confine::SOCKET) } < 0 {
        return Err(io::Error::last_os_error());
    }
    drop(socket);
    Ok(own_socket())
}

/// Ends a confined process, or a child of the zygote. Regular ways to exit run handlers first, which make system calls
/// that the filter does not allow, or which are the zygote's own.
#[allow(unsafe_code, reason = "exit without handlers")]
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: ends the process; nothing runs afterwards.
    unsafe { libc::_exit(status) }
}

/// Confines the calling process as an executor is confined, does `action`, which must not work, and ends with exit
/// status 10 if it did, 11 if it was refused, 12 if the process could not be confined. For tests.
#[doc(hidden)]
pub fn probe(action: impl FnOnce() -> io::Result<()>) -> ! {
    let confine = || {
        let filter = confine::filter().map_err(io::Error::other)?;
        confine::confine(&executor::allowance(partita_types::ByteSize::mib(64)), 0, &filter)
    };
    if confine().is_err() {
        exit_now(12);
    }
    exit_now(if action().is_ok() { 10 } else { 11 })
}
