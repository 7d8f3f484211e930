//! How the daemon and its helper processes speak: bytes, packets, shared memory and the messages made of them.

pub(crate) mod codec;
pub(crate) mod end;
pub(crate) mod frame;
pub(crate) mod page;
pub(crate) mod socket;
