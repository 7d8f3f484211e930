//! A deterministic simulation of whole clusters in which everything goes wrong.
//!
//! A [`Plan`] says what is there, what clients want and what goes wrong when; [`run`] lets it happen and checks every
//! invariant after each event. The code that decides is the real one: [`partita_core::Core`], the queue of a host
//! ([`partita_host_logic`]), the session of a client ([`partita_client_logic`]) and the encoding of the journal. Time,
//! randomness, network, disk, processes and guests are the simulation's own. In the end everything heals; then each job
//! must end in time, each result must be what a naive reference executor says, and nothing may be left behind.
//!
//! The same plan always gives the same run. A plan that fails is cut down with [`shrink`], saved, and kept in `corpus/`.
//! That the simulation finds faults is tested by putting some in on purpose: see [`Plant`].

#![allow(clippy::cast_possible_truncation, reason = "the numbers here are small")]

mod campaign;
mod changes;
mod checks;
mod client;
mod compaction;
mod disk;
mod faults;
mod features;
mod generate;
mod guest;
mod host;
mod hub;
mod lanes;
mod ledger;
mod log;
mod moving;
mod network;
mod plan;
mod plant;
mod run;
mod scheduler;
mod shrink;
mod world;

pub use campaign::{Campaign, Found, Summary};
pub use partita_core::Violation;
pub use plan::{
    ArrayPlan, Change, EdgePlan, Fault, FaultKind, FeaturePlan, HostPlan, JobPlan, Moment, Plan, TenantPlan,
};
pub use plant::Plant;
pub use run::{Failed, Finished, Options, run};
pub use shrink::shrink;

/// Whether an invariant holds.
type Checked = Result<(), Violation>;

/// Fails with the name of an invariant unless it holds.
fn ensure(holds: bool, invariant: &'static str, detail: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(Violation { invariant, detail: detail() }) }
}
