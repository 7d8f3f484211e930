//! A whole cluster on one machine, as `partita dev` runs it: where its files are, its processes, its identities.

pub(crate) mod child;
pub(crate) mod credentials;
pub(crate) mod demo_policy;
pub(crate) mod layout;
pub(crate) mod machine;
