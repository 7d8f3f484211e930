//! The environment of the process. This is the only file that reads it.

use std::path::PathBuf;

/// What the environment says, as far as this program listens to it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    /// `HOME`: where the configuration and the state of `partita dev` are by default.
    pub(crate) home: Option<PathBuf>,
    /// `PARTITA_CONFIG`: the configuration file, unless `--config` names one.
    pub(crate) config: Option<PathBuf>,
    /// `PARTITA_CONTEXT`: the context, unless `--context` names one.
    pub(crate) context: Option<String>,
    /// `PARTITA_LOG`: what the processes log, unless `--log` says it.
    pub(crate) log: Option<String>,
    /// `NO_COLOR` is set, to whatever.
    pub(crate) no_color: bool,
}

impl Environment {
    /// Reads it.
    pub(crate) fn read() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            home: variable("HOME").map(PathBuf::from),
            config: variable("PARTITA_CONFIG").map(PathBuf::from),
            context: variable("PARTITA_CONTEXT"),
            log: variable("PARTITA_LOG"),
            no_color: variable("NO_COLOR").is_some(),
        }
    }

    /// The configuration file that is used if none is named.
    pub(crate) fn default_config(&self) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(".config/partita/config.toml"))
    }

    /// Where this program keeps what is neither configuration nor a user's data.
    pub(crate) fn state(&self) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(".local/state/partita"))
    }
}
