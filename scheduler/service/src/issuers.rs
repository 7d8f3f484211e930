//! The file that says which other issuers of tokens are believed, and about what.
//!
//! ```toml
//! [[issuer]]
//! issuer = "https://login.example.org/"
//! audience = "partita"
//! jwks = "login.jwks.json"      # beside this file, or an absolute path
//! algorithms = ["RS256"]
//! tenant = { claim = "department", values = { "Data Science" = "analytics" } }
//! role = { claim = "groups", values = { "cluster-users" = "developer", "cluster-admins" = "admin" } }
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use partita_identity::token::{
    Algorithm, Claims, Issuer, IssuerConfig, IssuerError, Mapping, Role, TokenError, claimed_issuer,
};
use partita_types::{TenantName, Timestamp};
use serde::Deserialize;
use tokio::time::MissedTickBehavior;
use tracing::{error, info};

use crate::audit::Auditor;

/// How often the files are looked at.
const POLL: Duration = Duration::from_secs(1);
/// Most issuers, and the largest file that names them.
const ISSUERS: usize = 16;
const FILE: u64 = 256 << 10;

/// Why other issuers cannot be believed.
#[derive(Debug, thiserror::Error)]
pub enum IssuersError {
    /// The file cannot be read.
    #[error("cannot read the issuers in {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what it must be.
    #[error("{path} does not name issuers")]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// What it says cannot be.
    #[error("{path}: {what}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What cannot be.
        what: String,
    },
    /// The keys of an issuer cannot be used.
    #[error("{path} names an issuer that cannot be believed")]
    Issuer {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: IssuerError,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    issuer: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    issuer: String,
    audience: String,
    jwks: PathBuf,
    algorithms: Vec<Algorithm>,
    tenant: Table<TenantName>,
    role: Table<Role>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table<T> {
    claim: String,
    values: BTreeMap<String, T>,
}

impl<T> From<Table<T>> for Mapping<T> {
    fn from(Table { claim, values }: Table<T>) -> Self {
        Self { claim, values }
    }
}

/// What the files look like: names, times and sizes.
type Seen = Vec<(PathBuf, Option<(SystemTime, u64)>)>;

#[derive(Debug, Default)]
struct Current {
    issuers: BTreeMap<String, Arc<Issuer>>,
    seen: Seen,
}

/// The issuers that are believed beside the cluster itself. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Issuers {
    path: Option<Arc<Path>>,
    current: Arc<RwLock<Current>>,
}

impl Issuers {
    /// Reads the file and the keys that it names. Without a file there are none.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, IssuersError> {
        let current = path.map(read).transpose()?.unwrap_or_default();
        Ok(Self { path: path.map(Into::into), current: Arc::new(RwLock::new(current)) })
    }

    /// Checks a token that names another issuer; `None` if that is not one of these.
    pub(crate) fn verify(&self, token: &str, now: Timestamp) -> Option<Result<Claims, TokenError>> {
        let issuer = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            if current.issuers.is_empty() {
                return None;
            }
            Arc::clone(current.issuers.get(&claimed_issuer(token)?)?)
        };
        Some(issuer.verify(token, now))
    }

    fn names(&self) -> String {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let names: Vec<&str> = current.issuers.keys().map(String::as_str).collect();
        format!("issuers {}", names.join(", "))
    }

    /// Reads the files again if one looks different; false if not. Blocks.
    fn reload(&self) -> Result<bool, IssuersError> {
        let Some(path) = &self.path else { return Ok(false) };
        {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            if current.seen.iter().all(|(path, seen)| look(path) == *seen) {
                return Ok(false);
            }
        }
        let fresh = read(path)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(true)
    }

    /// Reads the files whenever one changes, for ever. With a fault, what was read before stays in force.
    pub(crate) async fn follow(self, auditor: Auditor) {
        let mut timer = tokio::time::interval(POLL);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = String::new();
        loop {
            timer.tick().await;
            let issuers = self.clone();
            match tokio::task::spawn_blocking(move || issuers.reload()).await {
                Ok(Ok(true)) => {
                    info!("the issuers of tokens were read again");
                    told.clear();
                    // If that cannot be noted, the scheduler stops.
                    let _ = auditor.own("Issuers/Read", self.names(), "ok").await;
                }
                Ok(Ok(false)) | Err(_) => {}
                Ok(Err(fault)) => {
                    let fault = crate::chain(&fault);
                    if fault != told {
                        error!(error = %fault, "issuers of tokens cannot be read; those read before are believed");
                        let _ = auditor.own("Issuers/Read", fault.clone(), "refused").await;
                        told = fault;
                    }
                }
            }
        }
    }
}

fn look(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn read(path: &Path) -> Result<Current, IssuersError> {
    // Looked at before they are read: what changes in between is read again.
    let mut seen = vec![(path.to_owned(), look(path))];
    let mut issuers = BTreeMap::new();
    for config in parse(path)? {
        seen.push((config.jwks.clone(), look(&config.jwks)));
        let issuer = Issuer::load(config).map_err(|source| IssuersError::Issuer { path: path.to_owned(), source })?;
        issuers.insert(issuer.name().to_owned(), Arc::new(issuer));
    }
    Ok(Current { issuers, seen })
}

fn parse(path: &Path) -> Result<Vec<IssuerConfig>, IssuersError> {
    let failed = |source| IssuersError::Io { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(failed)?.len() > FILE {
        return Err(failed(std::io::Error::other("the file is larger than 256 KiB")));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let document: Document = toml::from_str(&text)
        .map_err(|source| IssuersError::Form { path: path.to_owned(), source: Box::new(source) })?;
    let content = |what: String| IssuersError::Content { path: path.to_owned(), what };
    if document.issuer.len() > ISSUERS {
        return Err(content(format!("it names {} issuers, {ISSUERS} are the most", document.issuer.len())));
    }
    let mut configs: Vec<IssuerConfig> = Vec::new();
    for entry in document.issuer {
        let name = entry.issuer;
        let wrong = |what: &str| Err(content(format!("issuer {name:?} {what}")));
        if name.is_empty() || name.starts_with("partita/") {
            return wrong("has no name, or that of a cluster");
        }
        if entry.audience.is_empty() || entry.algorithms.is_empty() {
            return wrong("has no audience, or no algorithms");
        }
        if entry.tenant.values.is_empty() || entry.role.values.is_empty() {
            return wrong("has no values that mean a tenant, or none that mean a role");
        }
        if configs.iter().any(|config| config.issuer == name) {
            return wrong("stands twice");
        }
        let directory = path.parent().unwrap_or(Path::new("."));
        configs.push(IssuerConfig {
            issuer: name,
            audience: entry.audience,
            jwks: directory.join(entry.jwks),
            algorithms: entry.algorithms,
            tenants: entry.tenant.into(),
            roles: entry.role.into(),
        });
    }
    Ok(configs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[[issuer]]\nissuer = \"idp\"\naudience = \"us\"\njwks = \"keys.json\"\nalgorithms = [\"ES256\"]\n\
                        tenant = { claim = \"t\", values = { \"a b\" = \"team\" } }\n\
                        role = { claim = \"r\", values = { dev = \"developer\" } }\n";

    #[test]
    fn an_issuer_is_believed_as_the_file_says_and_mistakes_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("issuers.toml");
        let parsed = |text: &str| {
            std::fs::write(&path, text).unwrap();
            parse(&path).map_err(|error| crate::chain(&error))
        };
        let good = parsed(GOOD).unwrap().remove(0);
        assert_eq!((good.issuer.as_str(), good.audience.as_str()), ("idp", "us"));
        assert_eq!(good.jwks, directory.path().join("keys.json"));
        assert_eq!(good.algorithms, [Algorithm::Es256]);
        assert_eq!(good.tenants.values.get("a b"), Some(&TenantName::new("team").unwrap()));
        assert_eq!(good.roles.values.get("dev"), Some(&Role::Developer));
        for (from, to, told) in [
            ("ES256", "HS256", "HS256"),
            ("ES256", "none", "none"),
            ("[\"ES256\"]", "[]", "no algorithms"),
            ("developer", "owner", "owner"),
            ("\"team\"", "\"../team\"", "issuers.toml"),
            ("audience", "audiance", "audiance"),
            ("\"us\"", "\"\"", "no audience"),
            ("\"idp\"", "\"partita/test\"", "that of a cluster"),
            ("{ dev = \"developer\" }", "{}", "none that mean a role"),
        ] {
            let error = parsed(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.contains(told), "{to}: {error}");
        }
        assert!(parsed(&format!("{GOOD}{GOOD}")).unwrap_err().contains("stands twice"));
        let missing = Issuers::open(Some(&path)).unwrap_err();
        assert!(missing.to_string().contains("issuers.toml"), "{missing}");
    }

    /// What the issuer of [`GOOD`] signed at [`SIGNED`], and the two halves of its public key.
    const TOKEN: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6IjEifQ.\
        eyJpc3MiOiJpZHAiLCJhdWQiOiJ1cyIsInN1YiI6ImFubiIsImp0aSI6IjEiLCJpYXQiOjE4MDAwMDAwMDAsImV4cCI6MTgwMDAwMDYwMCwidCI6\
        ImEgYiIsInIiOiJkZXYifQ.\
        sVFN1rmG6bVNzzs-9AXjiGyHPbzF0k1DwTFPm6rp4pnBaNEstwGo658c_SNmaPq_uxdcv-BLRDaxABThAkaVuA";
    const SIGNED: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);
    const X: &str = "MpeqDL69CIh6RLLH7hQskNYSlCETtuif_yIrD72nBCw";
    const Y: &str = "vKX-0Gs4rAtQaqXXgFNdzgVjnuHpuxByImXmn2qjSGo";

    fn key_set(kid: &str) -> String {
        format!(r#"{{"keys":[{{"kty":"EC","crv":"P-256","kid":"{kid}","x":"{X}","y":"{Y}"}}]}}"#)
    }

    #[test]
    fn keys_and_mappings_change_without_a_restart_and_a_fault_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (path, keys) = (directory.path().join("issuers.toml"), directory.path().join("keys.json"));
        std::fs::write(&path, GOOD).unwrap();
        std::fs::write(&keys, key_set("1")).unwrap();
        let issuers = Issuers::open(Some(&path)).unwrap();
        let role = || issuers.verify(TOKEN, SIGNED).unwrap().map(|claims| claims.role);
        assert_eq!(role(), Ok(Role::Developer));
        assert!(!issuers.reload().unwrap(), "nothing changed");
        std::fs::write(&keys, key_set("second")).unwrap();
        assert!(issuers.reload().unwrap());
        assert!(matches!(role(), Err(TokenError::UnknownKey { .. })));
        std::fs::write(&keys, "[]").unwrap();
        assert!(issuers.reload().is_err() && issuers.reload().is_err());
        assert!(matches!(role(), Err(TokenError::UnknownKey { .. })), "what was read before counts");
        std::fs::write(&keys, key_set("1")).unwrap();
        std::fs::write(&path, GOOD.replace("developer", "viewer")).unwrap();
        assert!(issuers.reload().unwrap());
        assert_eq!(role(), Ok(Role::Viewer));
        std::fs::write(&path, GOOD.replace("idp", "another one")).unwrap();
        assert!(issuers.reload().unwrap());
        assert!(issuers.verify(TOKEN, SIGNED).is_none(), "it is left to the cluster's own keys, which refuse it");
    }
}
