//! `module!`: the list of a crate's task functions, and the exports of the component on `wasm32`.

use std::collections::BTreeSet;

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt as _;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, Path, PathArguments, Result, Token};

use crate::task::constant_of;

/// Paths of task functions, separated by commas.
struct Functions(Punctuated<Path, Token![,]>);

impl Parse for Functions {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        Ok(Self(Punctuated::parse_terminated_with(input, Path::parse_mod_style)?))
    }
}

/// Expands `module!(…)`.
pub(crate) fn expand(input: TokenStream) -> Result<TokenStream> {
    let Functions(functions) = syn::parse2(input)?;
    if functions.is_empty() {
        return Err(Error::new(
            proc_macro2::Span::call_site(),
            "list the task functions of this module: `partita::module!(map, reduce);`",
        ));
    }
    let mut seen = BTreeSet::new();
    let mut constants = Vec::new();
    for path in functions {
        let constant = constant_path(&path)?;
        let name = path.segments.last().map(|segment| segment.ident.unraw().to_string()).unwrap_or_default();
        if !seen.insert(name.clone()) {
            return Err(Error::new_spanned(path, format!("two task functions of one module are called `{name}`")));
        }
        constants.push(constant);
    }
    Ok(definition(&constants))
}

/// `a::b::map` becomes `a::b::__partita_task_map`.
fn constant_path(path: &Path) -> Result<Path> {
    let mut constant = path.clone();
    match constant.segments.last_mut() {
        Some(last) if matches!(last.arguments, PathArguments::None) => last.ident = constant_of(&last.ident),
        _ => return Err(Error::new_spanned(path, "expected the path of a task function")),
    }
    Ok(constant)
}

/// The static `MODULE` and, on `wasm32`, the exports that use it.
fn definition(constants: &[Path]) -> TokenStream {
    let private = quote!(::partita::__private);
    quote! {
        /// The task functions of this crate.
        pub static MODULE: ::partita::Module = #private::module(&[#(#constants),*]);

        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, reason = "the exports of a component have fixed symbol names")]
        const _: () = {
            use #private::wit;

            #[unsafe(export_name = "describe")]
            extern "C" fn describe() -> &'static wit::Described {
                wit::describe(&MODULE)
            }

            #[unsafe(export_name = "run")]
            unsafe extern "C" fn run(
                name: *const u8,
                name_length: usize,
                arguments: *const u8,
                arguments_length: usize,
                inputs: *const wit::List<u32>,
                inputs_length: usize,
                outputs: *const u32,
                outputs_length: usize,
            ) -> &'static wit::Ended {
                let parameters = wit::Parameters {
                    name: (name, name_length),
                    arguments: (arguments, arguments_length),
                    inputs: (inputs, inputs_length),
                    outputs: (outputs, outputs_length),
                };
                // SAFETY: these are the parameters of this very call.
                unsafe { wit::run(&MODULE, parameters) }
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_of_inner_modules_are_found_by_their_paths() {
        let expanded = expand(quote!(map, text::top,)).unwrap().to_string();
        assert!(expanded.contains("__partita_task_map , text :: __partita_task_top"), "{expanded}");
    }

    #[test]
    fn an_empty_list_is_refused() {
        assert!(expand(TokenStream::new()).unwrap_err().to_string().contains("list the task functions"));
    }

    #[test]
    fn two_functions_of_one_name_are_refused() {
        let error = expand(quote!(map, other::map)).unwrap_err();
        assert!(error.to_string().contains("`map`"), "{error}");
    }

    #[test]
    fn what_is_not_a_path_is_refused() {
        assert!(expand(quote!(map, 7)).is_err());
        assert!(expand(quote!(map::<u8>)).is_err());
    }
}
