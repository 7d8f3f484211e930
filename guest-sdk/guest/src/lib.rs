//! Write task functions for Partita.
//!
//! TUTORIAL
#![deny(rustdoc::broken_intra_doc_links)]

mod ambient;
mod call;
mod error;
mod host;
mod many;
mod partition;
mod reader;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod value;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod wit;
mod writer;

pub use ambient::{Budget, Level, Random, log, progress, random_u64, remaining};
pub use call::{Module, Task};
pub use error::{Context, Error, Result};
pub use many::Many;
pub use partita_guest_macros::{module, task};
pub use partition::{Outputs, Partitioned, partition_of};
pub use reader::Reader;
pub use value::{Args, Bytes, FromInput, Json, Postcard, Text, ToOutput};
pub use writer::{Writer, Writers, Written};

/// What task functions are written with: `use partita::prelude::*;`
pub mod prelude {
    pub use crate::{
        Args, Bytes, Context, Error, FromInput, Json, Many, Outputs, Partitioned, Postcard, Reader, Result, Text,
        ToOutput, Writer, Writers,
    };
}

/// What the macros expand to; not for use by hand, and free to change.
#[doc(hidden)]
pub mod __private {
    pub use crate::call::{Call, Claim, Module, Parameter, Return, Task, combine};
    #[cfg(target_arch = "wasm32")]
    pub use crate::wit;

    /// The module with these functions.
    #[must_use]
    pub const fn module(tasks: &'static [Task]) -> Module {
        Module::new(tasks)
    }
}
