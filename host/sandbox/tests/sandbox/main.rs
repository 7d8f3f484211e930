//! The sandbox as a whole: real processes, hostile guests in WebAssembly text.

mod confinement;
mod control;
mod guests;
mod limits;
mod modules;
mod running;
mod wasi;
