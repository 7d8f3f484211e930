//! Encodes a core module built for `wasm32-wasip1` as a component: `xtask-componentize CORE COMPONENT`.
//!
//! Only the way over Debian's packages needs it (see `cargo xtask setup`), so it is a program of its own that `xtask`
//! does not have to be built with. The adapter turns the calls of WASI preview 1 into those of WASI 0.2.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wit_component::ComponentEncoder;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [core, component] = arguments.as_slice() else { bail!("usage: xtask-componentize CORE COMPONENT") };
    let (core, component) = (Path::new(core), Path::new(component));
    let module = fs::read(core).with_context(|| format!("cannot read {}", core.display()))?;
    let bytes = encode(&module).with_context(|| format!("cannot make a component of {}", core.display()))?;
    fs::write(component, bytes).with_context(|| format!("cannot write {}", component.display()))
}

fn encode(module: &[u8]) -> anyhow::Result<Vec<u8>> {
    ComponentEncoder::default()
        .validate(true)
        .module(module)?
        .adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER)?
        .encode()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A core module without imports and exports.
    const EMPTY: &[u8] = b"\0asm\x01\0\0\0";

    #[test]
    fn the_result_is_a_component() {
        let component = encode(EMPTY).expect("an empty module can be encoded");
        assert_eq!(component.get(..8), Some(b"\0asm\x0d\0\x01\0".as_slice()));
    }

    #[test]
    fn what_is_not_a_module_is_refused() {
        assert!(encode(b"not a module").is_err());
    }
}
