//! One file per group of commands: its arguments, and what it does.

pub(crate) mod account;
pub(crate) mod audit;
pub(crate) mod build;
pub(crate) mod completions;
pub(crate) mod dev;
pub(crate) mod host;
pub(crate) mod internal;
pub(crate) mod job;
pub(crate) mod log;
pub(crate) mod module;
pub(crate) mod new;
pub(crate) mod outputs;
pub(crate) mod policy;
pub(crate) mod run;
pub(crate) mod scheduler;
pub(crate) mod state;
pub(crate) mod token;
