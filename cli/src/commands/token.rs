//! `partita token`: give out tokens, revoke them, and look into them.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use partita_client::{IssuedToken, Token};
use partita_identity::token::{OldKeys, Role, Signer, inspect};
use partita_scheduler::{Issued, Revoked, issued_path, note_issued, note_offline, revoked_path};
use partita_types::{HostName, ParseUnitError, TenantName, format_duration, parse_duration};
use serde_json::json;

use crate::app::App;
use crate::outcome::{Outcome, usage};
use crate::output::{Align, Table, clean};

/// Largest token that is read.
const TOKEN_MAX: u64 = 64 << 10;

/// Give out tokens, revoke them, and look into them.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    Issue(Issue),
    Revoke(Revoke),
    /// List the tokens that were issued and have not expired. The tokens themselves are kept nowhere.
    #[command(
        after_help = "Examples:\n  partita --context admin token list\n  partita --context admin token list --tenant analytics"
    )]
    List {
        /// Only those of this tenant.
        #[arg(long)]
        tenant: Option<TenantName>,
    },
    RotateKey(RotateKey),
    /// Show what a token says, without checking it.
    #[command(after_help = "Examples:\n  partita token inspect ann.token\n  partita token inspect - < ann.token")]
    Inspect {
        /// The file with the token; - is standard input.
        file: PathBuf,
    },
}

const EXAMPLES: &str = "\
Examples:
  partita --context admin token issue --tenant analytics --subject ann > ann.token
  partita token issue --data /var/lib/partita --tenant ops --subject ann --role admin > admin.token
  partita --context admin token issue --join host-3 > join.token";

/// Give out a token: asks the cluster as an administrator, or signs with the keys in a scheduler's data directory.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct Issue {
    /// Sign with the keys in this scheduler's data directory, without asking anybody.
    #[arg(long, value_name = "DIRECTORY")]
    data: Option<PathBuf>,
    /// A token with which the host of this name may join the cluster, once.
    #[arg(long, value_name = "HOST", conflicts_with_all = ["tenant", "subject", "role"])]
    join: Option<HostName>,
    /// The tenant that the holder belongs to.
    #[arg(long, required_unless_present = "join")]
    tenant: Option<TenantName>,
    /// Who holds it: a person or a program.
    #[arg(long, required_unless_present = "join")]
    subject: Option<String>,
    /// What the holder may do: viewer, developer, operator, admin or auditor.
    #[arg(long, default_value = "developer", value_parser = role)]
    role: Role,
    /// How long it lives, at most 24h [default: 12h, or 1h to join].
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    lifetime: Option<Duration>,
}

const REVOKE_EXAMPLES: &str = "\
Examples:
  partita --context admin token revoke cb51b0b0e647389332a30a7558b3e596
  partita --context admin token revoke --tenant analytics --subject ann
  partita --context admin token revoke --host host-3
  partita token revoke --data /var/lib/partita --tenant analytics

`partita token inspect` shows the id of a token as jti. Tokens of a tenant or holder that are issued later, from the next
second on, are not meant.";

/// Make tokens worthless before they expire: one, or all that a tenant or one of its holders has.
#[derive(Debug, Args)]
#[command(after_help = REVOKE_EXAMPLES)]
struct Revoke {
    /// The id of the token.
    #[arg(required_unless_present_any = ["tenant", "host"], conflicts_with_all = ["tenant", "host"])]
    id: Option<String>,
    /// The tenant whose tokens are meant.
    #[arg(long)]
    tenant: Option<TenantName>,
    /// Only those of this holder.
    #[arg(long, requires = "tenant")]
    subject: Option<String>,
    /// The host whose certificates and join tokens are meant.
    #[arg(long, value_name = "HOST", conflicts_with = "tenant")]
    host: Option<HostName>,
    /// Write it into this scheduler's data directory, without asking anybody.
    #[arg(long, value_name = "DIRECTORY")]
    data: Option<PathBuf>,
}

const ROTATE_EXAMPLES: &str = "\
Examples:
  partita --context admin token rotate-key
  partita token rotate-key --data /var/lib/partita --drop-old

A scheduler that runs uses the new key at once, or within a second if it was changed with --data. Tokens of before are good
until they expire, unless --drop-old is given: do that if the old key may be in other hands.";

/// Sign tokens with a new key from now on.
#[derive(Debug, Args)]
#[command(after_help = ROTATE_EXAMPLES)]
struct RotateKey {
    /// Every token that was signed before counts for nothing, your own among them.
    #[arg(long)]
    drop_old: bool,
    /// Change the key in this scheduler's data directory, without asking anybody.
    #[arg(long, value_name = "DIRECTORY")]
    data: Option<PathBuf>,
}

fn lifetime(text: &str) -> Result<Duration, ParseUnitError> {
    parse_duration(text)
}

fn role(text: &str) -> Result<Role, String> {
    let found = Role::ALL.into_iter().find(|role| role.as_str() == text);
    let names = Role::ALL.map(Role::as_str).join(", ");
    found.ok_or_else(|| format!("it is not one of {names}"))
}

/// Does what the arguments say.
pub(crate) async fn run(app: &App, arguments: Arguments) -> anyhow::Result<Outcome> {
    match arguments.command {
        TokenCommand::Issue(issue) => {
            let token = issue_token(app, &issue).await?;
            if app.output.json {
                app.output.json_line(&json!({ "token": token.expose() }))?;
            } else {
                app.output.line(token.expose())?;
            }
        }
        TokenCommand::Revoke(revoke) => revoke_tokens(app, revoke).await?,
        TokenCommand::List { tenant } => list(app, tenant.as_ref()).await?,
        TokenCommand::RotateKey(rotate) => rotate_key(app, &rotate).await?,
        TokenCommand::Inspect { file } => show(app, &file)?,
    }
    Ok(Outcome::Done)
}

async fn issue_token(app: &App, issue: &Issue) -> anyhow::Result<Token> {
    const HOUR: Duration = Duration::from_secs(3600);
    let lifetime = issue.lifetime.unwrap_or(if issue.join.is_some() { HOUR } else { 12 * HOUR });
    let now = partita_identity::now();
    let (token, what) = match (&issue.join, &issue.tenant, &issue.subject, &issue.data) {
        (Some(host), _, _, None) => return Ok(app.client()?.issue_join_token(host.as_str(), lifetime).await?),
        (None, Some(tenant), Some(subject), None) => {
            let role = issue.role.as_str();
            return Ok(app.client()?.issue_token(tenant.as_str(), subject, role, lifetime).await?);
        }
        (Some(host), _, _, Some(data)) => {
            (load_signer(data)?.issue_join(host, lifetime, now)?, format!("join token for host {host}"))
        }
        (None, Some(tenant), Some(subject), Some(data)) => (
            load_signer(data)?.issue(tenant, subject, issue.role, lifetime, now)?,
            format!("token for {subject:?} of tenant {tenant}, {}", issue.role),
        ),
        (None, ..) => return Err(usage("give --tenant and --subject, or --join")),
    };
    if let Some(data) = &issue.data {
        let issued = Issued::of(&load_signer(data)?, &token, now, "offline".to_owned())?;
        note_issued(&issued_path(data), &issued)?;
        let action = if issue.join.is_some() { "Cluster/IssueJoinToken" } else { "Cluster/IssueToken" };
        note_offline(data, action, format!("{what}, id {}", issued.id), now)?;
    }
    Ok(token)
}

async fn revoke_tokens(app: &App, revoke: Revoke) -> anyhow::Result<()> {
    let Revoke { id, tenant, subject, host, data } = revoke;
    let revoked = match (id, tenant, host) {
        (Some(id), _, _) => Revoked::Token(id),
        (None, Some(tenant), _) => Revoked::Holder { tenant, subject },
        (None, None, Some(host)) => Revoked::Host(host),
        (None, None, None) => return Err(usage("give the id of a token, --tenant or --host")),
    };
    if let Some(data) = data {
        return revoke_in(&data, revoked);
    }
    let client = app.client()?;
    match revoked {
        Revoked::Token(id) => client.revoke_token(&id).await?,
        Revoked::Holder { tenant, subject } => client.revoke_tokens_of(tenant.as_str(), subject.as_deref()).await?,
        Revoked::Host(host) => client.revoke_host(host.as_str()).await?,
    }
    Ok(())
}

fn revoke_in(data: &Path, revoked: Revoked) -> anyhow::Result<()> {
    load_signer(data)?;
    let (now, what) = (partita_identity::now(), revoked.to_string());
    partita_scheduler::revoke(&revoked_path(data), revoked, now)?;
    Ok(note_offline(data, "Cluster/RevokeTokens", what, now)?)
}

async fn rotate_key(app: &App, rotate: &RotateKey) -> anyhow::Result<()> {
    let key = if let Some(data) = &rotate.data {
        let old = if rotate.drop_old { OldKeys::Drop } else { OldKeys::Verify };
        let now = partita_identity::now();
        let fresh = load_signer(data)?.rotate(&data.join("tokens"), old, now)?;
        let what = if rotate.drop_old { "old keys dropped" } else { "old keys still verify" };
        note_offline(data, "Cluster/RotateKey", format!("key {}, {what}", fresh.key_id()), now)?;
        fresh.key_id().to_owned()
    } else {
        app.client()?.rotate_key(rotate.drop_old).await?
    };
    if app.output.json {
        app.output.json_line(&json!({ "key": key }))?;
    } else {
        app.output.line(&format!("tokens are signed with key {key} from now on"))?;
    }
    Ok(())
}

async fn list(app: &App, tenant: Option<&TenantName>) -> anyhow::Result<()> {
    let (tokens, more) = app.client()?.issued_tokens(tenant.map(TenantName::as_str)).await?;
    let now = partita_identity::now().micros / 1_000_000;
    app.output.list(&tokens, |tokens| listing(tokens, now))?;
    if more {
        app.output.note("there are more; these are the latest");
    }
    Ok(())
}

fn listing(tokens: &[IssuedToken], now: u64) -> Table {
    let columns = ["ID", "TENANT", "SUBJECT", "ROLE", "EXPIRES IN", "STATE", "ISSUED BY"];
    let mut table = Table::new(&columns.map(|name| (name, Align::Left)));
    for token in tokens {
        let left = Duration::from_secs(token.expires_at_s.saturating_sub(now));
        table.row([
            token.id.clone(),
            if token.tenant.is_empty() { "-".to_owned() } else { token.tenant.clone() },
            token.subject.clone(),
            token.role.clone(),
            format_duration(left),
            if token.revoked { "revoked" } else { "good" }.to_owned(),
            token.by.clone(),
        ]);
    }
    table
}

fn load_signer(data: &Path) -> anyhow::Result<Signer> {
    Signer::load(&data.join("tokens"))
        .with_context(|| format!("{} is not the data directory of a scheduler that was started", data.display()))
}

fn show(app: &App, file: &Path) -> anyhow::Result<()> {
    let text = read(file).with_context(|| format!("cannot read the token {}", file.display()))?;
    let (header, claims) =
        inspect(text.trim()).map_err(|error| usage(format!("{} holds no token: {error}", file.display())))?;
    if app.output.json {
        app.output.json_line(&json!({ "header": header, "claims": claims, "verified": false }))?;
        return Ok(());
    }
    app.output.line(&format!("header  {}", clean(&header.to_string())))?;
    app.output.line(&format!("claims  {}", clean(&claims.to_string())))?;
    if let Some(expires) = claims.get("exp").and_then(serde_json::Value::as_u64) {
        app.output.line(&validity(expires, partita_identity::now().micros / 1_000_000))?;
    }
    app.output.note("nothing of this was checked: only the cluster can");
    Ok(())
}

fn validity(expires: u64, now: u64) -> String {
    match expires.checked_sub(now) {
        Some(left) if left > 0 => format!("expires in {}", format_duration(Duration::from_secs(left))),
        _ => format!("expired {} ago", format_duration(Duration::from_secs(now.saturating_sub(expires)))),
    }
}

fn read(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().lock().take(TOKEN_MAX).read_to_string(&mut text)?;
    } else {
        std::fs::File::open(file)?.take(TOKEN_MAX).read_to_string(&mut text)?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_told_for_people() {
        assert_eq!(validity(1_000, 400), "expires in 10 m 00 s");
        assert_eq!(validity(1_000, 1_000), "expired 0 µs ago");
        assert_eq!(validity(1_000, 4_600), "expired 1 h 00 m ago");
    }

    #[test]
    fn roles_are_named_as_in_tokens() {
        assert_eq!(role("admin"), Ok(Role::Admin));
        assert_eq!(role("root"), Err("it is not one of viewer, developer, operator, admin, auditor".into()));
    }
}
