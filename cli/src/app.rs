//! From arguments to an exit code: what every command shares.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use partita_client::Client;
use tokio::runtime::{Builder, Runtime};

use crate::arguments::{Arguments, Command};
use crate::commands::{
    account, audit, build, completions, dev, host, job, module, new, policy, run as run_job, scheduler, state, token,
};
use crate::config;
use crate::environment::Environment;
use crate::outcome::{Outcome, report};
use crate::output::Output;

/// What commands need besides their own arguments.
pub(crate) struct App {
    pub(crate) output: Output,
    pub(crate) environment: Environment,
    config: Option<PathBuf>,
    context: Option<String>,
}

impl App {
    /// A client for the context that was chosen.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let path = config::locate(self.config.as_deref(), &self.environment)?;
        let context = self.context.as_deref().or(self.environment.context.as_deref());
        Ok(Client::connect(&config::connection(&path, context)?)?)
    }
}

/// Runs the command of the command line.
pub(crate) fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help goes to standard output and is a success; if nobody reads it, nothing is lost.
            let _ = error.print();
            return if error.use_stderr() { Outcome::Usage.into() } else { Outcome::Done.into() };
        }
    };
    let environment = Environment::read();
    let output = Output::new(arguments.global.json, environment.no_color);
    let Arguments { global, command } = arguments;
    let app = App { output, environment, config: global.config, context: global.context };
    let outcome = execute(&app, command);
    outcome.unwrap_or_else(|error| report(&error, &app.output)).into()
}

fn execute(app: &App, command: Command) -> anyhow::Result<Outcome> {
    match command {
        Command::Scheduler(arguments) => server()?.block_on(scheduler::run(app, arguments)),
        Command::Host(arguments) => match arguments.wanted()? {
            host::Wanted::Process(process) => server()?.block_on(host::run(app, *process)),
            host::Wanted::Command(command) => client()?.block_on(host::ask(app, command)),
        },
        Command::Dev(arguments) => client()?.block_on(dev::run(app, arguments)),
        Command::Module(arguments) => client()?.block_on(module::run(app, arguments)),
        Command::Run(arguments) => client()?.block_on(run_job::run(app, arguments)),
        Command::Job(arguments) => client()?.block_on(job::run(app, arguments)),
        Command::Token(arguments) => client()?.block_on(token::run(app, arguments)),
        Command::Audit(arguments) => client()?.block_on(audit::run(app, arguments)),
        Command::Usage(arguments) => client()?.block_on(account::usage(app, arguments)),
        Command::Whoami(_) => client()?.block_on(account::who_am_i(app)),
        Command::New(arguments) => new::run(app, &arguments),
        Command::Build(arguments) => build::run(app, &arguments),
        Command::Policy(arguments) => policy::run(app, &arguments),
        Command::State(arguments) => state::run(app, &arguments),
        Command::Completions(arguments) => completions::run(&arguments),
    }
}

/// For the processes of a cluster.
fn server() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().enable_all().build()
}

/// For everything else. `dev` relies on it: its children end with the thread that started them, which is the only one.
fn client() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}
