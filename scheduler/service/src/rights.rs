//! Who may call what: the one table. `docs/ROLES.md` shows it to people, and a test keeps the two alike.

use partita_identity::token::Role;

/// What a call does, as far as rights go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// Learn who one is.
    KnowSelf,
    /// See jobs, their events, and why tasks wait.
    ReadJobs,
    /// Submit, extend and close jobs, and upload their data.
    SubmitJobs,
    /// Cancel jobs.
    CancelJobs,
    /// Give up results.
    ReleaseJobs,
    /// Read the bytes of results, and what tasks logged.
    ReadResults,
    /// See modules.
    ReadModules,
    /// Push modules.
    PushModules,
    /// See hosts.
    ReadHosts,
    /// See what is used.
    ReadUsage,
    /// Make tokens for people, and revoke them.
    IssueTokens,
    /// Make tokens for hosts.
    EnrolHosts,
    /// See who changed what.
    ReadAudit,
    /// Empty hosts, and let them take part again.
    DrainHosts,
    /// See which tokens were issued.
    ReadTokens,
    /// Change the key that signs tokens.
    RotateKeys,
    /// Make certificates of hosts worthless.
    RevokeHosts,
}

/// What a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// A token whose role has this verb.
    Verb(Verb),
    /// The certificate of a host.
    Host,
    /// A join token in the message, checked by its handler.
    JoinToken,
}

impl Verb {
    /// Whether it changes something.
    #[must_use]
    pub const fn changes(self) -> bool {
        match self {
            Self::SubmitJobs
            | Self::CancelJobs
            | Self::ReleaseJobs
            | Self::PushModules
            | Self::IssueTokens
            | Self::EnrolHosts
            | Self::DrainHosts
            | Self::RotateKeys
            | Self::RevokeHosts => true,
            Self::KnowSelf
            | Self::ReadJobs
            | Self::ReadResults
            | Self::ReadModules
            | Self::ReadHosts
            | Self::ReadUsage
            | Self::ReadAudit
            | Self::ReadTokens => false,
        }
    }
}

impl Needs {
    /// Whether a call changes something that somebody has to answer for. Hosts that fetch or pass on bytes do not.
    #[must_use]
    pub fn changes(self, path: &str) -> bool {
        match self {
            Self::Verb(verb) => verb.changes(),
            Self::Host => path.ends_with("/Attach") || path.ends_with("/Renew"),
            Self::JoinToken => true,
        }
    }
}

/// Every call there is. A path that is not here does not exist.
pub const CALLS: [(&str, Needs); 33] = [
    ("/partita.client.v1.Modules/Push", Needs::Verb(Verb::PushModules)),
    ("/partita.client.v1.Modules/List", Needs::Verb(Verb::ReadModules)),
    ("/partita.client.v1.Modules/Show", Needs::Verb(Verb::ReadModules)),
    ("/partita.client.v1.Jobs/Submit", Needs::Verb(Verb::SubmitJobs)),
    ("/partita.client.v1.Jobs/Extend", Needs::Verb(Verb::SubmitJobs)),
    ("/partita.client.v1.Jobs/Close", Needs::Verb(Verb::SubmitJobs)),
    ("/partita.client.v1.Jobs/Cancel", Needs::Verb(Verb::CancelJobs)),
    ("/partita.client.v1.Jobs/Release", Needs::Verb(Verb::ReleaseJobs)),
    ("/partita.client.v1.Jobs/List", Needs::Verb(Verb::ReadJobs)),
    ("/partita.client.v1.Jobs/Show", Needs::Verb(Verb::ReadJobs)),
    ("/partita.client.v1.Jobs/Watch", Needs::Verb(Verb::ReadJobs)),
    ("/partita.client.v1.Jobs/Explain", Needs::Verb(Verb::ReadJobs)),
    ("/partita.client.v1.Jobs/Log", Needs::Verb(Verb::ReadResults)),
    ("/partita.client.v1.Jobs/Result", Needs::Verb(Verb::ReadResults)),
    ("/partita.client.v1.Jobs/Put", Needs::Verb(Verb::SubmitJobs)),
    ("/partita.client.v1.Cluster/WhoAmI", Needs::Verb(Verb::KnowSelf)),
    ("/partita.client.v1.Cluster/Hosts", Needs::Verb(Verb::ReadHosts)),
    ("/partita.client.v1.Cluster/Usage", Needs::Verb(Verb::ReadUsage)),
    ("/partita.client.v1.Cluster/Audit", Needs::Verb(Verb::ReadAudit)),
    ("/partita.client.v1.Cluster/IssueToken", Needs::Verb(Verb::IssueTokens)),
    ("/partita.client.v1.Cluster/RevokeTokens", Needs::Verb(Verb::IssueTokens)),
    ("/partita.client.v1.Cluster/IssueJoinToken", Needs::Verb(Verb::EnrolHosts)),
    ("/partita.client.v1.Cluster/ShowHost", Needs::Verb(Verb::ReadHosts)),
    ("/partita.client.v1.Cluster/DrainHost", Needs::Verb(Verb::DrainHosts)),
    ("/partita.client.v1.Cluster/ListTokens", Needs::Verb(Verb::ReadTokens)),
    ("/partita.client.v1.Cluster/RotateKey", Needs::Verb(Verb::RotateKeys)),
    ("/partita.client.v1.Cluster/RevokeHost", Needs::Verb(Verb::RevokeHosts)),
    ("/partita.host.v1.Enrollment/Join", Needs::JoinToken),
    ("/partita.host.v1.Sessions/Renew", Needs::Host),
    ("/partita.host.v1.Sessions/Attach", Needs::Host),
    ("/partita.host.v1.Sessions/Module", Needs::Host),
    ("/partita.host.v1.Sessions/SendResult", Needs::Host),
    ("/partita.host.v1.Sessions/ReceiveUpload", Needs::Host),
];

const VIEWER: &[Verb] = &[Verb::KnowSelf, Verb::ReadJobs, Verb::ReadModules, Verb::ReadHosts, Verb::ReadUsage];
const DEVELOPER: &[Verb] = &[
    Verb::KnowSelf,
    Verb::ReadJobs,
    Verb::ReadModules,
    Verb::ReadHosts,
    Verb::ReadUsage,
    Verb::SubmitJobs,
    Verb::CancelJobs,
    Verb::ReleaseJobs,
    Verb::ReadResults,
    Verb::PushModules,
];
/// Runs the cluster, and has no business in what tenants compute.
const OPERATOR: &[Verb] = &[
    Verb::KnowSelf,
    Verb::ReadJobs,
    Verb::ReadModules,
    Verb::ReadHosts,
    Verb::ReadUsage,
    Verb::CancelJobs,
    Verb::EnrolHosts,
    Verb::DrainHosts,
    Verb::RevokeHosts,
];
const ADMIN: &[Verb] = &[
    Verb::KnowSelf,
    Verb::ReadJobs,
    Verb::ReadModules,
    Verb::ReadHosts,
    Verb::ReadUsage,
    Verb::SubmitJobs,
    Verb::CancelJobs,
    Verb::ReleaseJobs,
    Verb::ReadResults,
    Verb::PushModules,
    Verb::IssueTokens,
    Verb::EnrolHosts,
    Verb::ReadAudit,
    Verb::DrainHosts,
    Verb::ReadTokens,
    Verb::RotateKeys,
    Verb::RevokeHosts,
];
/// Sees who did what, and does nothing.
const AUDITOR: &[Verb] = &[Verb::KnowSelf, Verb::ReadAudit];

/// What a role may do.
#[must_use]
pub const fn verbs(role: Role) -> &'static [Verb] {
    match role {
        Role::Viewer => VIEWER,
        Role::Developer => DEVELOPER,
        Role::Operator => OPERATOR,
        Role::Admin => ADMIN,
        Role::Auditor => AUDITOR,
    }
}

/// Whether a role has a verb.
#[must_use]
pub fn may(role: Role, verb: Verb) -> bool {
    verbs(role).contains(&verb)
}

/// The roles that have a verb, for people.
#[must_use]
pub fn roles_with(verb: Verb) -> String {
    let roles: Vec<&str> = Role::ALL.into_iter().filter(|role| may(*role, verb)).map(Role::as_str).collect();
    roles.join(", ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Path and needs of every method in the sources of the protocol.
    #[test]
    fn the_table_has_every_call_of_the_protocol_once() {
        let sources = [
            ("partita.client.v1", include_str!("../../../protocol/proto/partita/client/v1/client.proto")),
            ("partita.host.v1", include_str!("../../../protocol/proto/partita/host/v1/session.proto")),
        ];
        let mut expected = BTreeSet::new();
        for (package, source) in sources {
            let mut service = "";
            for line in source.lines().map(str::trim) {
                if let Some(rest) = line.strip_prefix("service ") {
                    service = rest.trim_end_matches([' ', '{']);
                } else if let Some(rest) = line.strip_prefix("rpc ") {
                    let method = rest.split('(').next().unwrap();
                    expected.insert(format!("/{package}.{service}/{method}"));
                }
            }
        }
        let table: BTreeSet<String> = CALLS.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(table, expected);
        assert_eq!(table.len(), CALLS.len(), "a path stands twice");
    }

    /// The rows of the table in `docs/ROLES.md`.
    fn rows() -> String {
        let mut text = String::from("| call | verb | changes something |");
        Role::ALL.iter().for_each(|role| text.push_str(&format!(" {role} |")));
        text.push_str("\n| --- | --- | --- |");
        Role::ALL.iter().for_each(|_| text.push_str(" --- |"));
        text.push('\n');
        for (path, needs) in CALLS {
            let call = path.rsplit('.').next().unwrap();
            let verb = match needs {
                Needs::Verb(verb) => format!("{verb:?}"),
                Needs::Host => "certificate of a host".to_owned(),
                Needs::JoinToken => "join token".to_owned(),
            };
            let changes = if needs.changes(path) { "yes" } else { "" };
            text.push_str(&format!("| `{call}` | {verb} | {changes} |"));
            for role in Role::ALL {
                let allowed = matches!(needs, Needs::Verb(verb) if may(role, verb));
                text.push_str(if allowed { " yes |" } else { " |" });
            }
            text.push('\n');
        }
        text
    }

    #[test]
    fn the_table_of_the_documentation_is_this_one() {
        let documented = include_str!("../../../docs/ROLES.md");
        let rows = rows();
        assert!(documented.contains(&rows), "docs/ROLES.md must contain\n{rows}");
    }
}
