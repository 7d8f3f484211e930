//! Writes the fixture of the current format to the file named on the command line. Run it once for a new format
//! version, under a new name; a released fixture is never written again.

#[path = "../tests/support/mod.rs"]
mod support;

use std::error::Error;

use partita_store::{Position, encode_batch};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("give the file to write")?;
    let file = std::fs::File::create_new(path)?;
    std::io::Write::write_all(&mut &file, &encode_batch(Position(1), &support::one_of_each())?)?;
    Ok(())
}
