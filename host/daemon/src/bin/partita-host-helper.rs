//! The helper program of this crate's own tests: `zygote` and `compiler`. Deployed hosts use the main program instead.

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("zygote") => partita_sandbox::zygote_main(),
        Some("compiler") => partita_sandbox::compiler_main(),
        _ => {
            eprintln!("usage: partita-host-helper zygote|compiler");
            ExitCode::FAILURE
        }
    }
}
