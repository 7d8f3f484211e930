//! Contexts: which clusters there are and who the user is there, so that nobody pastes tokens.
//!
//! ```toml
//! current = "analytics"
//! [context.analytics]
//! address = "127.0.0.1:7600"
//! authority = "authority/ca.pem"      # paths are relative to this file
//! token = "tokens/analytics.token"
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use partita_client::{Connection, Token};
use serde::{Deserialize, Serialize};

use crate::environment::Environment;

/// Largest configuration, certificate or token that is read.
const FILE_MAX: u64 = 1 << 20;

/// Why there is no connection to use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// No file was named and none is where it would be looked for.
    #[error("no cluster is configured")]
    Nothing,
    /// A file cannot be read.
    #[error("cannot read {what} {}", path.display())]
    Read {
        /// What it is.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A configuration has something that is not understood.
    #[error("{}:{line}: {message}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// No context of that name.
    #[error("there is no context {name:?} in {}; it has {}", path.display(), listed(known))]
    Unknown {
        /// The name.
        name: String,
        /// The file.
        path: PathBuf,
        /// The contexts that it has.
        known: Vec<String>,
    },
    /// Several contexts, and none is chosen.
    #[error("{} has several contexts and no `current`: choose one of {} with --context", path.display(), listed(known))]
    Undecided {
        /// The file.
        path: PathBuf,
        /// The contexts that it has.
        known: Vec<String>,
    },
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// A configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The context that is used if none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    /// All contexts.
    #[serde(default)]
    pub(crate) context: BTreeMap<String, Context>,
}

/// One cluster, as one principal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// `host:port` of the scheduler.
    pub(crate) address: String,
    /// The certificate of the cluster's authority, PEM.
    pub(crate) authority: PathBuf,
    /// The token.
    pub(crate) token: PathBuf,
}

impl Config {
    /// Parses the text of the file at `path`.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            let message =
                error.message().replace("unknown field", "unknown key").replace("missing field", "missing key");
            ConfigError::Content { path: path.to_owned(), line, message }
        })
    }

    /// The context of that name, or the current one, or the only one.
    fn select(&self, name: Option<&str>, path: &Path) -> Result<&Context, ConfigError> {
        let known = || self.context.keys().cloned().collect();
        let only = || if self.context.len() == 1 { self.context.keys().next() } else { None };
        let Some(name) = name.or(self.current.as_deref()).or_else(|| only().map(String::as_str)) else {
            return Err(ConfigError::Undecided { path: path.to_owned(), known: known() });
        };
        let unknown = || ConfigError::Unknown { name: name.to_owned(), path: path.to_owned(), known: known() };
        self.context.get(name).ok_or_else(unknown)
    }
}

/// The file to use: the one named, the one of the environment, the user's own, that of a running `partita dev`.
pub(crate) fn locate(named: Option<&Path>, environment: &Environment) -> Result<PathBuf, ConfigError> {
    if let Some(path) = named.or(environment.config.as_deref()) {
        return Ok(path.to_owned());
    }
    let own = environment.default_config().filter(|path| path.exists());
    let running = || {
        let pointer = fs::read_to_string(running_cluster(environment)?).ok()?;
        Some(PathBuf::from(pointer.trim_end())).filter(|path| path.exists())
    };
    own.or_else(running).ok_or(ConfigError::Nothing)
}

/// Where a running `partita dev` writes the path of its configuration.
pub(crate) fn running_cluster(environment: &Environment) -> Option<PathBuf> {
    environment.state().map(|state| state.join("running"))
}

/// Reads a context and the files that it names.
pub(crate) fn connection(path: &Path, context: Option<&str>) -> Result<Connection, ConfigError> {
    let config = Config::parse(&read("the configuration", path)?, path)?;
    let context = config.select(context, path)?;
    let directory = path.parent().unwrap_or(Path::new(""));
    Ok(Connection {
        address: context.address.clone(),
        authority_pem: read("the certificate of the cluster's authority", &directory.join(&context.authority))?,
        token: Token::new(&read("the token", &directory.join(&context.token))?),
    })
}

fn read(what: &'static str, path: &Path) -> Result<String, ConfigError> {
    let bounded = || {
        if fs::metadata(path)?.len() > FILE_MAX {
            return Err(std::io::Error::other("it is larger than 1 MiB"));
        }
        fs::read_to_string(path)
    };
    bounded().map_err(|source| ConfigError::Read { what, path: path.to_owned(), source })
}

/// The text of a configuration that a program wrote.
pub(crate) fn to_text(config: &Config, comment: &str) -> anyhow::Result<String> {
    let text = toml::to_string(config).context("cannot write the configuration as TOML")?;
    Ok(format!("# {comment}\n{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "current = \"b\"\n[context.a]\naddress = \"h:1\"\nauthority = \"ca.pem\"\ntoken = \"a.token\"\n\
                       [context.b]\naddress = \"h:2\"\nauthority = \"ca.pem\"\ntoken = \"b.token\"\n";

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("c.toml"))
    }

    fn selected(config: &Config, name: Option<&str>) -> Result<String, String> {
        let context = config.select(name, Path::new("c.toml"));
        context.map(|context| context.address.clone()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_named_context_wins_over_the_current_one() {
        let config = parse(TWO).unwrap();
        assert_eq!(selected(&config, None), Ok("h:2".into()));
        assert_eq!(selected(&config, Some("a")), Ok("h:1".into()));
        assert_eq!(selected(&config, Some("c")), Err("there is no context \"c\" in c.toml; it has a, b".into()));
    }

    #[test]
    fn without_a_choice_only_a_single_context_is_taken() {
        let mut config = parse(TWO).unwrap();
        config.current = None;
        assert_eq!(
            selected(&config, None),
            Err("c.toml has several contexts and no `current`: choose one of a, b with --context".into())
        );
        config.context.remove("a");
        assert_eq!(selected(&config, None), Ok("h:2".into()));
    }

    #[test]
    fn faults_are_named_with_their_line() {
        let error = parse("current = \"a\"\n[context.a]\nadress = \"h:1\"\n").unwrap_err().to_string();
        assert_eq!(error, "c.toml:3: unknown key `adress`, expected one of `address`, `authority`, `token`");
        let error = parse("[context.a]\naddress = \"h:1\"\ntoken = \"t\"\n").unwrap_err().to_string();
        assert_eq!(error, "c.toml:1: missing key `authority`");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let config = parse(TWO).unwrap();
        assert_eq!(parse(&to_text(&config, "a comment").unwrap()).unwrap(), config);
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [("c.toml", TWO), ("ca.pem", "PEM"), ("a.token", " secret \n")] {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let connection = connection(&directory.path().join("c.toml"), Some("a")).unwrap();
        assert_eq!((connection.address.as_str(), connection.authority_pem.as_str()), ("h:1", "PEM"));
        assert_eq!(connection.token.expose(), "secret");
        let missing = super::connection(&directory.path().join("c.toml"), Some("b")).unwrap_err();
        assert!(missing.to_string().starts_with("cannot read the token "), "{missing}");
    }

    #[test]
    fn the_file_is_the_named_one_then_the_environments_then_the_users_then_a_running_clusters() {
        let directory = tempfile::tempdir().unwrap();
        let mut environment = Environment { home: Some(directory.path().to_owned()), ..Environment::default() };
        assert!(matches!(locate(None, &environment), Err(ConfigError::Nothing)));
        let running = directory.path().join("cluster.toml");
        fs::write(&running, "").unwrap();
        fs::create_dir_all(environment.state().unwrap()).unwrap();
        fs::write(running_cluster(&environment).unwrap(), format!("{}\n", running.display())).unwrap();
        assert_eq!(locate(None, &environment).unwrap(), running);
        let own = environment.default_config().unwrap();
        fs::create_dir_all(own.parent().unwrap()).unwrap();
        fs::write(&own, "").unwrap();
        assert_eq!(locate(None, &environment).unwrap(), own);
        environment.config = Some("environment.toml".into());
        assert_eq!(locate(None, &environment).unwrap(), Path::new("environment.toml"));
        assert_eq!(locate(Some(Path::new("named.toml")), &environment).unwrap(), Path::new("named.toml"));
    }
}
