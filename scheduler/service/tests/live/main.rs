//! A live scheduler on loopback, with real TLS, clients, and a host that runs nothing.

mod access;
mod path;
mod revoked;
mod rights;
mod support;
