//! Tokens: signed statements that somebody is a person or program of a tenant, or may join as a host.
//!
//! They are JWTs with one algorithm, EdDSA, which is fixed here and never taken from the token; those of other issuers
//! have the algorithm of their key. Access tokens and
//! join tokens have different audiences, so that neither can stand in for the other.

mod external;
mod signer;
mod strict;
mod verify;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use partita_types::{HostName, TenantName, Timestamp, format_duration};
use serde::{Deserialize, Serialize};

use crate::authority::AuthorityError;
use crate::file::FileError;

pub use external::{Algorithm, Issuer, IssuerConfig, IssuerError, Mapping, claimed_issuer};
pub use signer::{OldKeys, Signer};
pub use verify::{Verifier, inspect};

/// Longest token that is looked at.
pub const TOKEN_MAX: usize = 4 * 1024;

/// Longest life of any token; a tenant's policy may allow less.
pub const LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// How much the clocks of issuer and verifier may differ.
pub const LEEWAY: Duration = Duration::from_secs(5);

/// What the holder of a token is to its tenant. Which calls that allows is the service's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Looks at the tenant's jobs.
    Viewer,
    /// Submits and cancels jobs, too.
    Developer,
    /// Runs the cluster: sees all tenants, drains hosts.
    Operator,
    /// Changes policies and tokens, too.
    Admin,
    /// Reads the audit log, and nothing else.
    Auditor,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 5] = [Self::Viewer, Self::Developer, Self::Operator, Self::Admin, Self::Auditor];

    /// The name used in tokens and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Developer => "developer",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Auditor => "auditor",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Text that is not a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a role: use viewer, developer, operator, admin or auditor")]
pub struct RoleError {
    text: String,
}

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| RoleError { text: text.chars().take(40).collect() })
    }
}

/// What a verified access token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Who holds it: a person or a program.
    pub sub: String,
    /// For which tenant it speaks.
    pub tenant: TenantName,
    /// What the holder is to the tenant.
    pub role: Role,
    /// Its own id, for logs and revocation.
    pub jti: String,
    /// When it was issued.
    pub iat: Timestamp,
    /// From when it is valid.
    pub nbf: Timestamp,
    /// Until when it is valid.
    pub exp: Timestamp,
    /// Who issued it: `partita/<cluster>`.
    pub iss: String,
    /// For whom it is meant: `partita/<cluster>`.
    pub aud: String,
}

impl Claims {
    /// How long the token was made to live.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.exp.since(self.iat)
    }

    /// Whether the token lives no longer than its tenant's policy allows.
    ///
    /// # Errors
    /// [`TokenError::Lifetime`] if it lives longer.
    pub fn check_lifetime(&self, limit: Duration) -> Result<(), TokenError> {
        let lifetime = self.lifetime();
        if lifetime > limit { Err(TokenError::Lifetime { lifetime, limit }) } else { Ok(()) }
    }
}

/// What a verified join token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinClaims {
    /// The host that may join with it.
    pub host: HostName,
    /// Its own id: whoever accepts it remembers the id until `exp`, because it counts once.
    pub jti: String,
    /// Until when it is valid.
    pub exp: Timestamp,
    /// When it was issued.
    pub iat: Timestamp,
}

/// A token as text. Prints as `[redacted]`; [`Token::expose`] shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Wraps text that came from a file or the command line; whether it is a token is not checked.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// The token itself, for a header or a file that only its owner can read.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token([redacted])")
    }
}

/// Keys could not be made or read, or a token was not issued.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// A name that is not a cluster's.
    #[error("cannot make token keys")]
    Cluster(#[source] AuthorityError),
    /// A file could not be read or written.
    #[error("token keys are not usable")]
    File(#[from] FileError),
    /// A file holds something else.
    #[error("{path} is not {expected}")]
    Content {
        /// The file.
        path: String,
        /// What it should be.
        expected: &'static str,
    },
    /// The signing key is not among the public keys.
    #[error("the signing key is not listed in {path}")]
    Unlisted {
        /// The list of public keys.
        path: String,
    },
    /// A rotation too many.
    #[error("{limit} keys verify tokens already; wait until the tokens of the oldest have expired, or drop them all")]
    TooManyKeys {
        /// How many there may be.
        limit: usize,
    },
    /// Making a key failed.
    #[error("cannot make a signing key")]
    Generate(#[source] rcgen::Error),
    /// No token lives so long, or not at all.
    #[error("a token cannot live {}: the limit is {}", format_duration(*lifetime), format_duration(LIFETIME_MAX))]
    Lifetime {
        /// What was asked for.
        lifetime: Duration,
    },
    /// A subject that would not be accepted.
    #[error("subject {subject:?} is not valid: use 1 to 128 printable characters")]
    Subject {
        /// The subject, shortened.
        subject: String,
    },
    /// The signature failed.
    #[error("cannot sign a token")]
    Sign(#[source] jsonwebtoken::errors::Error),
}

/// A token that is refused. The text never contains the token, nor a part from which it could be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No token at all.
    #[error("token is empty")]
    Empty,
    /// Too long to be looked at.
    #[error("token has {size} bytes, the limit is {TOKEN_MAX}")]
    TooLong {
        /// Its size.
        size: usize,
    },
    /// Not a JWT.
    #[error("token is not a JWT: it must be three base64url parts joined by dots")]
    Form,
    /// A part is not a JSON object.
    #[error("the token's {part} must be a JSON object")]
    Json {
        /// Header or claims.
        part: &'static str,
    },
    /// A name appears twice, so that two readers could understand two things.
    #[error("the token's {part} must not have {name:?} twice")]
    Duplicate {
        /// Header or claims.
        part: &'static str,
        /// The name.
        name: String,
    },
    /// A header field that is not understood, among them embedded and remote keys.
    #[error("token header has the field {name:?}, which is not allowed (only alg, kid and typ are)")]
    HeaderField {
        /// The field, shortened.
        name: String,
    },
    /// A header field of the wrong type or value.
    #[error("token header field {name:?} is not {expected}")]
    HeaderValue {
        /// The field.
        name: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// Another algorithm.
    #[error("token is signed with {found:?}, only \"EdDSA\" is allowed")]
    Algorithm {
        /// What the header says, shortened.
        found: String,
    },
    /// Another algorithm than that of the key.
    #[error("token is signed with {found:?}, and its key is for {expected:?}")]
    KeyAlgorithm {
        /// That of the key.
        expected: &'static str,
        /// What the header says, shortened.
        found: String,
    },
    /// A claim that does not say just one tenant or role.
    #[error("token claim {claim:?} means {how} as a {what} of this cluster")]
    Unmapped {
        /// A tenant or a role.
        what: &'static str,
        /// The claim, shortened.
        claim: String,
        /// Nothing, or several things.
        how: &'static str,
    },
    /// A key that is not, or no longer, ours.
    #[error("token names the signing key {kid:?}, which this cluster does not have")]
    UnknownKey {
        /// The key's id, shortened.
        kid: String,
    },
    /// Not signed by that key, or changed since.
    #[error("token has a wrong signature")]
    Signature,
    /// Something that every token must say.
    #[error("token lacks the claim {claim:?}")]
    MissingClaim {
        /// Which.
        claim: &'static str,
    },
    /// A claim of the wrong type or form.
    #[error("token claim {claim:?} is not {expected}")]
    ClaimValue {
        /// Which.
        claim: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// Something that is not understood, and might have been meant to limit the token.
    #[error("token has the claim {claim:?}, which is not known")]
    UnknownClaim {
        /// Which, shortened.
        claim: String,
    },
    /// Of another issuer.
    #[error("token was issued by {found:?}, not by {expected:?}")]
    Issuer {
        /// Ours.
        expected: String,
        /// The token's, shortened.
        found: String,
    },
    /// Meant for somebody else, or a token of the other kind.
    #[error("token is meant for {found:?}, not for {expected:?}")]
    Audience {
        /// What is needed.
        expected: String,
        /// The token's, shortened.
        found: String,
    },
    /// Over.
    #[error("token expired {} ago", format_duration(*since))]
    Expired {
        /// How long ago.
        since: Duration,
    },
    /// Not yet.
    #[error("token is valid only in {}", format_duration(*wait))]
    NotYetValid {
        /// How long still.
        wait: Duration,
    },
    /// The issuer's clock is ahead, or the token is made up.
    #[error("token was issued {} in the future", format_duration(*ahead))]
    IssuedInFuture {
        /// By how much.
        ahead: Duration,
    },
    /// Made to live too long.
    #[error("token lives {}, the limit is {}", format_duration(*lifetime), format_duration(*limit))]
    Lifetime {
        /// How long.
        lifetime: Duration,
        /// What is allowed.
        limit: Duration,
    },
}

pub(crate) const ACCESS: &str = "partita";
pub(crate) const JOIN: &str = "partita-join";

/// `partita/<cluster>` or `partita-join/<cluster>`.
pub(crate) fn audience(kind: &str, cluster: &str) -> String {
    format!("{kind}/{cluster}")
}

/// Longest subject, in bytes.
const SUBJECT_MAX: usize = 128;

/// Whether `text` can be a subject: 1 to 128 printable characters.
pub(crate) fn is_subject(text: &str) -> bool {
    (1..=SUBJECT_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Checks that a token could name `text` as its holder.
///
/// # Errors
/// [`SignerError::Subject`] if not.
pub fn check_subject(text: &str) -> Result<(), SignerError> {
    if is_subject(text) { Ok(()) } else { Err(SignerError::Subject { subject: text.chars().take(80).collect() }) }
}
