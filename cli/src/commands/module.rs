//! `partita module`: push, list and show modules.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use partita_client::{Client, Code, Error, Module, ModuleStatus};
use partita_types::ByteSize;

use crate::app::App;
use crate::outcome::{Outcome, usage};
use crate::output::{Align, Output, Table};

/// Largest component that is read; no policy allows more.
const COMPONENT_MAX: u64 = 256 << 20;
/// Hexadecimal digits of an id that tables show; any unambiguous beginning is accepted.
const SHORT_ID: usize = 12;

/// Push, list and show modules.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: ModuleCommand,
}

#[derive(Debug, Subcommand)]
enum ModuleCommand {
    /// Push a component; a host inspects it and lists its functions.
    #[command(after_help = "Example:\n  partita module push target/wasm32-wasip2/release/hello.wasm --name hello")]
    Push {
        /// The component, a .wasm file.
        file: PathBuf,
        /// What to call it [default: the file's name].
        #[arg(long)]
        name: Option<String>,
    },
    /// List the modules of the tenant.
    #[command(after_help = "Example:\n  partita module list")]
    List,
    /// Show a module and its functions.
    #[command(after_help = "Examples:\n  partita module show hello\n  partita module show 5f3a")]
    Show {
        /// Its name (then the latest), its id, or the beginning of its id.
        module: String,
    },
}

/// Does what the arguments say.
pub(crate) async fn run(app: &App, arguments: Arguments) -> anyhow::Result<Outcome> {
    let client = app.client()?;
    match arguments.command {
        ModuleCommand::Push { file, name } => {
            let name = match &name {
                Some(name) => name,
                None => name_of(&file)?,
            };
            let module = push(&client, &app.output, name, &file, Quarantined::Release).await?;
            let status = client.module(&module.id().to_string()).await?;
            show(app, &status)?;
        }
        ModuleCommand::List => app.output.list(&client.modules().await?, listing)?,
        ModuleCommand::Show { module } => show(app, &client.module(&module).await?)?,
    }
    Ok(Outcome::Done)
}

fn name_of(file: &Path) -> anyhow::Result<&str> {
    let stem = file.file_stem().and_then(|stem| stem.to_str());
    stem.ok_or_else(|| usage(format!("{} has no name that a module could have: give one with --name", file.display())))
}

/// What to do with a module that the cluster has in quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quarantined {
    /// Leave it there: nobody has looked into it.
    Keep,
    /// Push it again, which takes it out.
    Release,
}

/// Pushes a file, unless the cluster has it already.
pub(crate) async fn push(
    client: &Client,
    output: &Output,
    name: &str,
    file: &Path,
    quarantined: Quarantined,
) -> anyhow::Result<Module> {
    let metadata = std::fs::metadata(file).with_context(|| format!("cannot read the module {}", file.display()))?;
    if metadata.len() > COMPONENT_MAX {
        let (size, limit) = (ByteSize(metadata.len()), ByteSize(COMPONENT_MAX));
        return Err(usage(format!("the module {} has {size}, more than {limit}", file.display())));
    }
    let component = std::fs::read(file).with_context(|| format!("cannot read the module {}", file.display()))?;
    let id = Client::module_id(&component).to_string();
    match client.module(&id).await {
        Ok(known) if known.info.name == name && (known.quarantine.is_none() || quarantined == Quarantined::Keep) => {
            return Ok(client.find_module(&id).await?);
        }
        Ok(_) => {}
        Err(Error::Refused { code: Code::NotFound, .. }) => {}
        Err(error) => return Err(error.into()),
    }
    if !output.json {
        output.note(&format!("pushing module {name} ({})", ByteSize(metadata.len())));
    }
    let pushed = client.push_module(name, component).await;
    pushed.with_context(|| format!("cannot use {} as a module", file.display()))
}

fn listing(modules: &[ModuleStatus]) -> Table {
    let mut table = Table::new(&[
        ("NAME", Align::Left),
        ("ID", Align::Left),
        ("SIZE", Align::Right),
        ("STATE", Align::Left),
        ("FUNCTIONS", Align::Left),
    ]);
    for ModuleStatus { info, quarantine, .. } in modules {
        let functions: Vec<_> = info.functions.iter().map(|function| function.name.as_str()).collect();
        let id = info.id.to_string().chars().take(SHORT_ID).collect();
        let state = if quarantine.is_some() { "quarantined" } else { "ready" };
        table.row([info.name.clone(), id, info.size.to_string(), state.to_owned(), functions.join(", ")]);
    }
    table
}

fn show(app: &App, module: &ModuleStatus) -> anyhow::Result<()> {
    if app.output.json {
        return Ok(app.output.json_line(module)?);
    }
    let mut head = Table::pairs();
    head.pair("name", &module.info.name);
    head.pair("id", module.info.id);
    head.pair("size", module.info.size);
    if let Some(reason) = &module.quarantine {
        head.pair("quarantined", reason);
    }
    app.output.table(&head)?;
    app.output.line("")?;
    let mut table = Table::new(&[
        ("FUNCTION", Align::Left),
        ("INPUTS", Align::Right),
        ("OUTPUTS", Align::Right),
        ("DESCRIPTION", Align::Left),
    ]);
    let number = |count: Option<u32>| count.map_or_else(|| "any".to_owned(), |count| count.to_string());
    for function in &module.info.functions {
        let description = function.doc.lines().next().unwrap_or_default().to_owned();
        table.row([function.name.clone(), number(function.inputs), number(function.outputs), description]);
    }
    Ok(app.output.table(&table)?)
}
