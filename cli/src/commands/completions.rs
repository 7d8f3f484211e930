//! `partita completions`: scripts that complete command lines.

use std::io;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::outcome::Outcome;

const EXAMPLES: &str = "\
Examples:
  partita completions bash > ~/.local/share/bash-completion/completions/partita
  partita completions zsh > ~/.zfunc/_partita
  partita completions fish > ~/.config/fish/completions/partita.fish";

/// Write a completion script for a shell.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// For which shell.
    shell: Shell,
}

/// Writes the script to standard output.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    // Into memory first: the generator panics if it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut crate::arguments::Arguments::command(), "partita", &mut script);
    io::Write::write_all(&mut io::stdout().lock(), &script)?;
    Ok(Outcome::Done)
}
