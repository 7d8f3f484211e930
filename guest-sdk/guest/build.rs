//! Encodes the contract in `guest-sdk/wit` for the linker, which turns a guest's core module into a component of that
//! world. See `src/wit.rs` for why the bindings generator does not do this here.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use wit_component::StringEncoding;
use wit_parser::Resolve;

const CONTRACT: &str = "../wit";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={CONTRACT}");
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(Path::new(CONTRACT))?;
    let world = resolve.select_world(&[package], Some("task-module"))?;
    let section = wit_component::metadata::encode(&resolve, world, StringEncoding::UTF8, None)?;
    let directory = env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR for build scripts")?;
    fs::write(PathBuf::from(directory).join("task-module.component-type"), section)?;
    Ok(())
}
