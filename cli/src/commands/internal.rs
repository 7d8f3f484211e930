//! The helper processes of a host: `partita internal zygote` and `partita internal compiler`. Hosts start them; people
//! have no use for them, so the command line does not list them.

use std::process::ExitCode;

/// A role that this process was started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Forks confined executors.
    Zygote,
    /// Compiles one module.
    Compiler,
}

impl Role {
    /// Plays the role to its end.
    pub(crate) fn run(self) -> ExitCode {
        match self {
            Self::Zygote => partita_sandbox::zygote_main(),
            Self::Compiler => partita_sandbox::compiler_main(),
        }
    }
}

/// The role that the command line asks for, if it does. Must not do anything else: see `main`.
pub(crate) fn requested() -> Option<Role> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != "internal" {
        return None;
    }
    match arguments.next()?.to_str()? {
        "zygote" => Some(Role::Zygote),
        "compiler" => Some(Role::Compiler),
        _ => None,
    }
}
