//! Task functions for Partita: plain functions with plain types, run in a sandbox on a cluster, and by `cargo test` here.
//!
//! # A first module
//! A module is a crate of type `cdylib`, compiled for `wasm32-wasip2`:
//! ```toml
//! [lib]
//! crate-type = ["cdylib", "rlib"]
//!
//! [dependencies]
//! partita = { package = "partita-guest", version = "0.1" }
//! serde = { version = "1", features = ["derive"] }
//! ```
//! (`partita new` makes all that.) Its functions say by their types what they read and write; nothing else is needed but
//! the list of them:
//! ```
//! # extern crate partita_guest as partita;
//! use std::collections::BTreeMap;
//! use partita::prelude::*;
//!
//! partita::module!(map, reduce);
//!
//! type Counts = BTreeMap<String, u64>;
//!
//! #[derive(serde::Deserialize)]
//! struct Options {
//!     #[serde(default)]
//!     min_length: usize,
//! }
//!
//! /// Counts words; each output gets those that belong to it.
//! #[partita::task]
//! fn map(text: Text, Args(options): Args<Options>, outputs: Outputs) -> Partitioned<Postcard<Counts>> {
//!     let mut counts = Partitioned::<Postcard<Counts>>::new(outputs);
//!     for word in text.split_whitespace().filter(|word| word.len() >= options.min_length) {
//!         *counts.for_key(word.as_bytes()).entry(word.to_owned()).or_default() += 1;
//!     }
//!     counts
//! }
//!
//! /// Adds counts up.
//! #[partita::task]
//! fn reduce(parts: Many<Postcard<Counts>>) -> Result<Json<Counts>> {
//!     let mut sum = Counts::new();
//!     for part in parts {
//!         for (word, count) in part?.0 {
//!             *sum.entry(word).or_default() += count;
//!         }
//!     }
//!     Ok(Json(sum))
//! }
//!
//! # fn main() {
//! // The functions are still plain functions, so a test just calls them.
//! let counts = map(Text::from("a rose is a rose"), Args(Options { min_length: 2 }), Outputs::of(1));
//! let sum = reduce(counts.into_iter().collect()).unwrap();
//! assert_eq!(sum["rose"], 2);
//! assert!(!sum.contains_key("a"));
//! # }
//! ```
//! The first paragraph of a function's documentation is shown by `partita module show`.
//!
//! # Parameters
//! They are recognised by type. Each *input* stands for one input of the array in the job, in the same order; the others
//! may stand anywhere.
//!
//! | parameter | what it is |
//! | --- | --- |
//! | [`Text`], [`Bytes`], [`Json<T>`](Json), [`Postcard<T>`](Postcard) | an input of exactly one partition, in memory |
//! | [`Reader`] | an input of exactly one partition, as a stream |
//! | [`Many<X>`](Many) | an input of any number of partitions, each an `X`, read one by one |
//! | [`Args<T>`](Args) | the arguments of the task, from JSON |
//! | [`Outputs`] | how many outputs the job asks for |
//! | [`Writer`] | output 0, as a stream |
//! | [`Writers`] | all outputs, as streams |
//!
//! # Results
//! What a function returns is written to its outputs: `()`, [`Text`], [`String`], `&'static str`, [`Bytes`], `Vec<u8>`,
//! [`Json<T>`](Json) and [`Postcard<T>`](Postcard) to output 0, [`Partitioned<X>`](Partitioned) to all of them, and
//! [`Result`] of any of these. Own forms implement [`FromInput`] and [`ToOutput`].
//!
//! # Failures
//! `?` takes any error. A failure is final unless it was made by [`Error::retry`]; [`Context`] says what was being done. A
//! panic ends the attempt with its message and place.
//!
//! # What else a task can do
//! Log by [`debug!`], [`info!`], [`warn!`] and [`error!`] (standard output and error go to the same log), tell its
//! [`progress`], ask what is [`remaining`] of its limits, and get random numbers from the host by [`random_u64`] or
//! [`Random`]. Natively lines go to standard error and nothing is limited.
//!
//! Tasks are deterministic by default: clocks stand still but for a small step per call, and random numbers, the order of
//! a `HashMap` included, follow from the task's identity.
//!
//! # Tests
//! Call the functions with values: `Text::from("…")`, `Many::from(vec![…])`, `Args(…)`, [`Writers::in_memory`]. To test
//! decoding and encoding too, hand bytes to [`testing::run`], which does what the sandbox does.
//!
//! # What the compiler says
//! Types that are neither inputs nor results are refused by name:
//! ```compile_fail
//! # extern crate partita_guest as partita;
//! #[partita::task]
//! fn wrong(number: u64) {}
//! ```
//! and so are two writers of one output:
//! ```compile_fail
//! # extern crate partita_guest as partita;
//! # use partita::prelude::*;
//! #[partita::task]
//! fn twice(out: Writer) -> Text {
//!     Text::from("which of them?")
//! }
//! ```
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
