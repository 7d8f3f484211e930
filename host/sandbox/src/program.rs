//! The program that plays the helper processes.
//!
//! Zygote, executors and compilers are the daemon's own program started with another subcommand, so that one file is
//! deployed and all parts always agree about the frames they exchange.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// How to start a helper process: `path args.. zygote` or `path args.. compiler`.
#[derive(Debug, Clone)]
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// Arguments in front of the role, such as `internal`.
    pub args: Vec<OsString>,
}

impl Program {
    /// Starts the program in `role`. Its descriptor 0 is `socket`; it has no environment and no standard output.
    pub(crate) fn start(&self, role: &str, socket: OwnedFd) -> io::Result<Child> {
        Command::new(&self.path)
            .args(&self.args)
            .arg(role)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(socket))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
    }
}
