//! The procedural macros of `partita-guest`: `#[partita::task]` and `partita::module!`.
//!
//! They only describe functions; decoding, encoding and all that talks to a host is in `partita-guest`, which re-exports
//! both. Guest crates depend on that one, under the name `partita`, and never on this one.

mod module;
mod task;

use proc_macro::TokenStream;

/// Makes a plain function a task function that jobs can run.
///
/// The function itself stays as it is and can be called like any other. See the documentation of the crate
/// `partita-guest` for what its parameters and its return type can be.
#[proc_macro_attribute]
pub fn task(attribute: TokenStream, item: TokenStream) -> TokenStream {
    task::expand(attribute.into(), item.into()).unwrap_or_else(|error| error.into_compile_error()).into()
}

/// Lists the task functions of a module and makes the crate a component: `partita::module!(map, reduce, text::top);`
///
/// Goes once into the root of a crate. It defines `pub static MODULE: partita::Module`, which tests hand to
/// `partita::testing::run`, and on `wasm32` the exports of the component.
#[proc_macro]
pub fn module(input: TokenStream) -> TokenStream {
    module::expand(input.into()).unwrap_or_else(|error| error.into_compile_error()).into()
}
