//! Quota and capability policy: what each tenant may use.
//!
//! Policies are TOML files that people write. They are parsed once into [`TenantPolicy`], whose values need no
//! further checks; every fault of every file is reported together, with its place. Apart from
//! [`PolicySet::load`], which reads a directory, everything is pure. Nothing here decides about a running job: the
//! scheduler's core does, with these numbers.
//!
//! The way of a file: `document` finds values and unknown keys in the TOML, `file` names the keys, `setting` reads
//! values and their units, `resolve` fills in defaults and checks what belongs together, `set` puts the tenants of
//! all files side by side.

mod document;
mod fault;
mod file;
mod quota;
mod resolve;
mod set;
mod setting;
mod share;

pub use fault::{PolicyErrors, PolicyFault, Problem};
pub use file::json_schema;
pub use quota::{Quota, TenantPolicy};
pub use set::{PolicySet, PolicyVersion};
pub use share::{Bounds, Resources, Share};
