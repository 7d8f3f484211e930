//! The command line: what can be written there. What it does is in `commands`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands::{
    account, audit, build, completions, dev, host, job, module, new, policy, run, scheduler, state, token,
};

const EXAMPLES: &str = "\
Examples:
  partita dev --hosts 2                 a whole cluster on this machine
  partita new hello && cd hello         a project with a task function
  partita build                         its WebAssembly component
  partita run job.toml                  run a job and wait for it
  partita job result 1 greet            what it wrote

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused by the cluster, 4 cluster unreachable.";

/// Runs task functions of many teams on one cluster, each task in its own WebAssembly sandbox.
#[derive(Debug, Parser)]
#[command(name = "partita", version, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Write lines of JSON instead of text for people.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Configuration with the contexts [default: $PARTITA_CONFIG, ~/.config/partita/config.toml, or a running `dev`].
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Which context of the configuration [default: $PARTITA_CONTEXT, or its `current`].
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Dev(dev::Arguments),
    Scheduler(scheduler::Arguments),
    Host(host::Arguments),
    New(new::Arguments),
    Build(build::Arguments),
    Module(module::Arguments),
    Run(run::Arguments),
    Job(job::Arguments),
    State(state::Arguments),
    Token(token::Arguments),
    Policy(policy::Arguments),
    Audit(audit::Arguments),
    Usage(account::UsageArguments),
    Whoami(account::WhoAmIArguments),
    Completions(completions::Arguments),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_has_a_description_and_the_useful_ones_examples() {
        for command in Arguments::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{} says nothing", command.get_name());
            if !command.has_subcommands() {
                assert!(command.get_after_help().is_some(), "{} has no example", command.get_name());
            }
        }
    }
}
