//! Who is who: the cluster's certificate authority, TLS on both sides, tokens of people and tickets of hosts.
//!
//! Every listener and every connection of Partita is made here, so that TLS 1.3, the bounds on connections and the
//! check of names cannot be forgotten elsewhere. Nothing here decides what a caller may do: this crate says who
//! called, the services say what that allows. It reads the wall clock ([`now`]) and the system's entropy
//! ([`random`]) for everybody else, and keeps no state besides the files it is told to write.

mod authority;
mod clock;
pub mod dial;
mod file;
mod identity;
mod principal;
mod provider;
mod random;
pub mod serve;
pub mod ticket;
pub mod tls;
pub mod token;

pub use authority::{
    Authority, AuthorityError, CertificateRequest, HOST_CERTIFICATE_LIFETIME, SERVER_CERTIFICATE_LIFETIME,
};
pub use clock::now;
pub use file::FileError;
pub use identity::{Identity, IdentityError};
pub use principal::{Principal, PrincipalError};
pub use random::random;
pub use rustls::pki_types::CertificateDer;
