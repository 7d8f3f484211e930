//! Which tokens were issued: who holds them and until when, never the tokens themselves.
//!
//! One line for each, on disk before anybody gets the token. A line is of no use when its token has expired; the next
//! start drops it.

use std::path::{Path, PathBuf};

use partita_identity::token::{Role, Signer, Token, TokenError};
use partita_types::{HostName, TenantName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::lines::{self, LinesError};

/// A token that was issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issued {
    /// Its id.
    pub id: String,
    /// For whom.
    pub holder: TokenHolder,
    /// Microseconds since 1970.
    pub issued_us: u64,
    /// Microseconds since 1970.
    pub expires_us: u64,
    /// Who asked for it.
    pub by: String,
}

/// For whom a token is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TokenHolder {
    /// Somebody of a tenant.
    Person {
        /// The tenant.
        tenant: TenantName,
        /// The holder.
        subject: String,
        /// What the holder is to the tenant.
        role: Role,
    },
    /// A host that may join once.
    Host {
        /// The host.
        host: HostName,
    },
}

impl Issued {
    /// What `token`, which `signer` issued just now, says about itself. `by` is who asked for it.
    ///
    /// # Errors
    /// If it is no such token.
    pub fn of(signer: &Signer, token: &Token, now: Timestamp, by: String) -> Result<Self, TokenError> {
        let verifier = signer.verifier();
        if let Ok(claims) = verifier.verify_join(token.expose(), now) {
            let holder = TokenHolder::Host { host: claims.host };
            let (issued_us, expires_us) = (claims.iat.micros, claims.exp.micros);
            return Ok(Self { id: claims.jti, holder, issued_us, expires_us, by });
        }
        let claims = verifier.verify(token.expose(), now)?;
        let holder = TokenHolder::Person { tenant: claims.tenant, subject: claims.sub, role: claims.role };
        Ok(Self { id: claims.jti, holder, issued_us: claims.iat.micros, expires_us: claims.exp.micros, by })
    }
}

/// Notes an issued token in the file at `path`. Durable when this returns. Blocks.
///
/// # Errors
/// If the file cannot be written.
pub fn note_issued(path: &Path, issued: &Issued) -> Result<(), LinesError> {
    lines::append(path, issued)
}

/// All issued tokens. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct IssuedTokens {
    path: std::sync::Arc<PathBuf>,
}

impl IssuedTokens {
    /// Drops what has expired.
    pub(crate) fn open(path: &Path, now: Timestamp) -> Result<Self, LinesError> {
        lines::retain(path, |issued: &Issued| issued.expires_us > now.micros)?;
        Ok(Self { path: std::sync::Arc::new(path.to_owned()) })
    }

    /// Notes one. Durable when this returns. Blocks.
    pub(crate) fn note(&self, issued: &Issued) -> Result<(), LinesError> {
        note_issued(&self.path, issued)
    }

    /// Those that have not expired, the latest first. Blocks.
    pub(crate) fn list(&self, now: Timestamp) -> Result<Vec<Issued>, LinesError> {
        let mut all: Vec<Issued> = lines::read(&self.path)?;
        all.retain(|issued| issued.expires_us > now.micros);
        all.reverse();
        Ok(all)
    }
}
