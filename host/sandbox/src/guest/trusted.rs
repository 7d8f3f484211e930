//! A small module of our own, of the right world: it warms up the zygote, and measures what an instance costs.

use std::time::Duration;

use bytes::Bytes;
use partita_types::{TaskLimits, Timestamp};
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Result};

use super::context::State;
use super::run::{AttemptInput, Guest};
use crate::clock;

/// The world's text, with a mark where the body of the module goes.
const WORLD: &str = include_str!("../world.wat");
/// Traps for a function without a name and succeeds for others.
const BODY: &str = r#"
(func (export "run") (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (if (i32.eqz (local.get 1)) (then unreachable))
  (call $done (local.get 4) (local.get 5) (local.get 6) (local.get 7)))
(func (export "describe") (result i32) (i32.const 8))
"#;

/// Names of functions that end in one way or the other.
pub(crate) const SUCCEEDS: &str = "succeed";
pub(crate) const TRAPS: &str = "";

/// Compiles and loads the module.
pub(crate) fn load(engine: &Engine, linker: &Linker<State>) -> Result<Guest> {
    let component = wat::parse_str(WORLD.replace(";;BODY", BODY)).map_err(wasmtime::Error::new)?;
    Guest::new(engine, linker, &Component::new(engine, component)?, None)
}

/// An attempt with nothing in it.
pub(crate) fn attempt() -> AttemptInput {
    AttemptInput {
        arguments: Bytes::new(),
        inputs: Vec::new(),
        seed: [0; 32],
        limits: TaskLimits::default(),
        outputs: 0,
        started_at: Timestamp::default(),
    }
}

/// Mean time to make a store and an instance, call a function that does nothing, and drop both, with the engine's settings
/// for executors but in this process. For benchmarks; it runs a module of this crate and nothing of any tenant.
///
/// # Errors
/// If the engine cannot be set up on this machine; the text says why.
pub fn measure_instance(rounds: u32) -> std::result::Result<Duration, String> {
    let measure = || -> Result<Duration> {
        let engine = crate::engine::for_running()?;
        let guest = load(&engine, &super::linker(&engine)?)?;
        let rounds = rounds.max(1);
        let started = clock::now();
        for _ in 0..rounds {
            if let Err(failure) = guest.run(SUCCEEDS, attempt()).result {
                wasmtime::bail!("the trusted module failed: {}", failure.message);
            }
        }
        Ok(started.elapsed() / rounds)
    };
    measure().map_err(|error| format!("{error:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trusted_module_is_of_the_world_that_is_checked() {
        let component = wat::parse_str(WORLD.replace(";;BODY", BODY)).unwrap();
        crate::process::inspect::inspect(&component).unwrap();
    }

    #[test]
    fn an_instance_can_be_measured() {
        assert!(measure_instance(10).unwrap() > Duration::ZERO);
    }
}
