//! The wire: generated messages and services, and the only conversions between them and `partita-types`.
//!
//! Generated types stay in the modules [`client`], [`host`], [`peer`] and [`job`]. Whoever receives a message turns it
//! into types at once, with `From` and `TryFrom`; what cannot be turned is refused there with a [`DecodeError`], so inner
//! code never checks again. Lists of partitions and attempts travel in columns and have methods of their own.

mod convert;

mod generated {
    #![allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        clippy::allow_attributes_without_reason,
        clippy::cast_possible_truncation,
        clippy::unwrap_used,
        reason = "generated from the .proto files, which carry the documentation"
    )]
    pub mod partita {
        pub mod job {
            pub mod v1 {
                tonic::include_proto!("partita.job.v1");
            }
        }
        pub mod client {
            pub mod v1 {
                tonic::include_proto!("partita.client.v1");
            }
        }
        pub mod host {
            pub mod v1 {
                tonic::include_proto!("partita.host.v1");
            }
        }
        pub mod peer {
            pub mod v1 {
                tonic::include_proto!("partita.peer.v1");
            }
        }
    }
}

/// Partitions in one message at most. With sizes and hashes that is about 6 MiB, well below what a message may have.
pub const PARTITIONS_PER_MESSAGE: usize = 100_000;

pub use convert::{DecodeError, features_from_wire, features_to_wire};
pub use generated::partita::client::v1 as client;
pub use generated::partita::host::v1 as host;
pub use generated::partita::job::v1 as job;
pub use generated::partita::peer::v1 as peer;
