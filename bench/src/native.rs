//! The parts of the native count: which files, which words, how often.

pub(crate) mod files;
pub(crate) mod table;
pub(crate) mod words;
