//! The identities of a local cluster: an administrator, one developer for each tenant, and a join token for each host.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use partita_identity::token::{Role, Signer};
use partita_policy::PolicySet;
use partita_types::{HostName, TenantName};

use crate::cluster::layout::Layout;
use crate::config::{Config, Context, to_text};
use crate::files::{Readers, private_directory, replace};

/// The name of the administrator's context.
const ADMIN: &str = "admin";
/// Tokens live so long at most, unless a policy wants less.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// A join token is used within seconds.
const JOIN_LIFETIME: Duration = Duration::from_secs(600);

/// Gives out the tokens of a local cluster.
pub(crate) struct Credentials {
    signer: Signer,
    /// Tenants and how long their tokens may live.
    tenants: Vec<(TenantName, Duration)>,
}

impl Credentials {
    /// Uses the keys that the scheduler made at its first start.
    pub(crate) fn load(layout: &Layout, policies: &PolicySet) -> anyhow::Result<Self> {
        let signer = Signer::load(&layout.scheduler().join("tokens")).context("cannot read the keys of the cluster")?;
        let tenant = |policy: &partita_policy::TenantPolicy| (policy.name.clone(), policy.token_lifetime.min(LIFETIME));
        Ok(Self { signer, tenants: policies.iter().map(tenant).collect() })
    }

    /// How often to write the tokens again, so that none expires.
    pub(crate) fn renewal(&self) -> Duration {
        let shortest = self.tenants.iter().map(|(_, lifetime)| *lifetime).min().unwrap_or(LIFETIME);
        (shortest / 2).max(Duration::from_secs(10))
    }

    /// The names of the contexts; the first is the current one.
    pub(crate) fn contexts(&self) -> Vec<&str> {
        let tenants = self.tenants.iter().map(|(name, _)| name.as_str()).filter(|name| *name != ADMIN);
        tenants.chain(std::iter::once(ADMIN)).collect()
    }

    /// Writes a token for each context.
    pub(crate) fn write_tokens(&self, layout: &Layout) -> anyhow::Result<()> {
        let now = partita_identity::now();
        for (tenant, lifetime) in self.tenants.iter().filter(|(name, _)| name.as_str() != ADMIN) {
            let token = self.signer.issue(tenant, "dev", Role::Developer, *lifetime, now)?;
            replace(&token_path(layout, tenant.as_str()), token.expose(), Readers::Owner)?;
        }
        // An administrator belongs to a tenant like everybody, and may look at all.
        let fallback = (TenantName::new(ADMIN)?, LIFETIME);
        let (tenant, lifetime) = self.tenants.first().unwrap_or(&fallback);
        let token = self.signer.issue(tenant, ADMIN, Role::Admin, *lifetime, now)?;
        replace(&token_path(layout, ADMIN), token.expose(), Readers::Owner)
    }

    /// Writes the configuration with the contexts.
    pub(crate) fn write_config(&self, layout: &Layout, address: &str) -> anyhow::Result<()> {
        let relative = |path: PathBuf| path.strip_prefix(layout.root()).map(Path::to_owned).unwrap_or(path);
        let context = |name: &&str| {
            let context = Context {
                address: address.to_owned(),
                authority: relative(layout.authority()),
                token: relative(token_path(layout, name)),
            };
            ((*name).to_owned(), context)
        };
        let names = self.contexts();
        let contexts: BTreeMap<_, _> = names.iter().map(context).collect();
        let config = Config { current: names.first().map(|name| (*name).to_owned()), context: contexts };
        let text = to_text(&config, "Written by `partita dev` at every start.")?;
        replace(&layout.config(), &text, Readers::Everybody)
    }

    /// Writes a token with which a host may join, and says where.
    pub(crate) fn write_join_token(&self, layout: &Layout, host: &HostName) -> anyhow::Result<PathBuf> {
        let token = self.signer.issue_join(host, JOIN_LIFETIME, partita_identity::now())?;
        let directory = layout.host(host.as_str());
        private_directory(&directory)?;
        let path = directory.join("join.token");
        replace(&path, token.expose(), Readers::Owner)?;
        Ok(path)
    }
}

fn token_path(layout: &Layout, name: &str) -> PathBuf {
    layout.tokens().join(format!("{name}.token"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::connection;

    fn credentials(layout: &Layout, policy: &str) -> Credentials {
        let directory = layout.scheduler().join("tokens");
        private_directory(&directory).unwrap();
        Signer::create("dev").unwrap().save(&directory).unwrap();
        Credentials::load(layout, &PolicySet::parse(&[("p.toml", policy)]).unwrap()).unwrap()
    }

    #[test]
    fn every_tenant_gets_a_context_with_a_token_that_the_cluster_accepts() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::open(directory.path()).unwrap();
        let credentials = credentials(&layout, "[tenant.b]\ntoken_lifetime = \"1h\"\n[tenant.a]\n");
        credentials.write_tokens(&layout).unwrap();
        credentials.write_config(&layout, "127.0.0.1:1").unwrap();
        private_directory(layout.authority().parent().unwrap()).unwrap();
        std::fs::write(layout.authority(), "PEM").unwrap();
        assert_eq!(credentials.contexts(), ["a", "b", "admin"]);
        assert_eq!(credentials.renewal(), Duration::from_secs(1800));
        let verifier = credentials.signer.verifier();
        let claims = |context| {
            let connection = connection(&layout.config(), context).unwrap();
            verifier.verify(connection.token.expose(), partita_identity::now()).unwrap()
        };
        assert_eq!((claims(None).tenant.as_str(), claims(None).role), ("a", Role::Developer));
        assert_eq!(claims(Some("b")).lifetime(), Duration::from_secs(3600));
        assert_eq!(claims(Some("admin")).role, Role::Admin);
    }

    #[test]
    fn a_join_token_is_for_one_host() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::open(directory.path()).unwrap();
        let credentials = credentials(&layout, "[tenant.a]\n");
        let host = HostName::new("host-1").unwrap();
        let path = credentials.write_join_token(&layout, &host).unwrap();
        let token = std::fs::read_to_string(path).unwrap();
        let claims = credentials.signer.verifier().verify_join(&token, partita_identity::now()).unwrap();
        assert_eq!(claims.host, host);
    }
}
