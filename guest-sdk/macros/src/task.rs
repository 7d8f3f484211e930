//! `#[task]`: leaves the function alone and puts a hidden constant beside it that says how to call it.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::{Attribute, Error, Expr, ExprLit, FnArg, Ident, ItemFn, Lit, Meta, Pat, Result, ReturnType, Signature, Type};

/// The name of the constant that describes the task function `function`.
pub(crate) fn constant_of(function: &Ident) -> Ident {
    format_ident!("__partita_task_{}", function.unraw(), span = function.span())
}

/// Expands `#[task]` on `item`.
pub(crate) fn expand(attribute: TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !attribute.is_empty() {
        return Err(Error::new_spanned(attribute, "`#[partita::task]` takes no arguments"));
    }
    let function: ItemFn = syn::parse2(item).map_err(|error| {
        Error::new(error.span(), format!("`#[partita::task]` goes on a free function with a body: {error}"))
    })?;
    check(&function.sig)?;
    let description = describe(&function)?;
    Ok(quote! {
        #function
        #description
    })
}

/// Refuses what a host could not call, all faults at once.
fn check(signature: &Signature) -> Result<()> {
    let mut faults: Vec<Error> = Vec::new();
    if let Some(token) = &signature.asyncness {
        faults.push(Error::new_spanned(
            token,
            "a task function cannot be async: a task runs alone in its instance, so reading and writing simply wait",
        ));
    }
    if let Some(token) = &signature.unsafety {
        faults.push(Error::new_spanned(token, "a task function cannot be unsafe: the host calls it with any input"));
    }
    if let Some(token) = &signature.abi {
        faults.push(Error::new_spanned(token, "a task function is a plain Rust function, without `extern`"));
    }
    if let Some(token) = &signature.variadic {
        faults.push(Error::new_spanned(token, "a task function cannot take a variable number of arguments"));
    }
    if !signature.generics.params.is_empty() {
        faults.push(Error::new_spanned(
            &signature.generics,
            "a task function cannot be generic: a job names it, and nobody is left to choose the types",
        ));
    }
    faults.extend(signature.inputs.iter().filter_map(fault_of_parameter));
    match faults.into_iter().reduce(|mut all, fault| {
        all.combine(fault);
        all
    }) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// What is wrong with one parameter, if anything is.
fn fault_of_parameter(parameter: &FnArg) -> Option<Error> {
    match parameter {
        FnArg::Receiver(receiver) => {
            Some(Error::new_spanned(receiver, "a task function cannot have a `self`: write it as a free function"))
        }
        FnArg::Typed(typed) => match &*typed.ty {
            Type::Reference(reference) => Some(Error::new_spanned(
                reference,
                "a task function takes its parameters by value: `Text` instead of `&str`, `Bytes` instead of `&[u8]`",
            )),
            Type::ImplTrait(any) => Some(Error::new_spanned(any, "a task function cannot be generic: name the type")),
            _ => None,
        },
    }
}

/// The hidden constant of type `Task`.
fn describe(function: &ItemFn) -> Result<TokenStream> {
    let visibility = &function.vis;
    let ident = &function.sig.ident;
    let constant = constant_of(ident);
    let name = ident.unraw().to_string();
    let doc = first_paragraph(&function.attrs);
    let conditions: Vec<&Attribute> =
        function.attrs.iter().filter(|attribute| attribute.path().is_ident("cfg")).collect();
    let private = quote!(::partita::__private);

    let mut types = Vec::new();
    let mut labels = Vec::new();
    for parameter in &function.sig.inputs {
        let FnArg::Typed(typed) = parameter else {
            return Err(Error::new(parameter.span(), "a task function cannot have a `self`"));
        };
        types.push(&*typed.ty);
        labels.push(label(&typed.pat));
    }
    let values: Vec<Ident> = (0..types.len()).map(|number| format_ident!("parameter_{number}")).collect();
    let returned = match &function.sig.output {
        ReturnType::Default => quote!(()),
        ReturnType::Type(_, ty) => quote!(#ty),
    };
    Ok(quote! {
        #(#conditions)*
        #[doc(hidden)]
        #[allow(non_upper_case_globals, reason = "the name is made from that of the function")]
        #visibility const #constant: #private::Task = {
            const CLAIM: #private::Claim = #private::combine(&[
                #(<#types as #private::Parameter>::CLAIM,)*
                <#returned as #private::Return>::CLAIM,
            ]);
            fn __partita_call(call: &mut #private::Call) -> ::partita::Result<()> {
                #(let #values = <#types as #private::Parameter>::take(call, #labels)?;)*
                #[allow(clippy::unit_arg, reason = "the function may return nothing")]
                <#returned as #private::Return>::finish(#ident(#(#values),*), call)
            }
            #private::Task {
                name: #name,
                doc: #doc,
                inputs: 0 #(+ <#types as #private::Parameter>::INPUTS)*,
                outputs: CLAIM.outputs(),
                call: __partita_call,
            }
        };
    })
}

/// How messages call a parameter: by its name, or as it is written if it is taken apart by a pattern.
fn label(pattern: &Pat) -> String {
    match pattern {
        Pat::Ident(ident) => ident.ident.unraw().to_string(),
        Pat::TupleStruct(tuple) if tuple.elems.len() == 1 => tuple.elems.first().map(label).unwrap_or_default(),
        other => quote!(#other).to_string(),
    }
}

/// The first paragraph of the documentation, on one line.
fn first_paragraph(attributes: &[Attribute]) -> String {
    let mut paragraph = String::new();
    for text in attributes.iter().filter_map(doc_text) {
        for line in text.lines().map(str::trim).chain(text.is_empty().then_some("")) {
            match (line.is_empty(), paragraph.is_empty()) {
                (true, true) => {}
                (true, false) => return paragraph,
                (false, empty) => {
                    if !empty {
                        paragraph.push(' ');
                    }
                    paragraph.push_str(line);
                }
            }
        }
    }
    paragraph
}

/// The text of a `#[doc = "…"]`, which is what `///` becomes.
fn doc_text(attribute: &Attribute) -> Option<String> {
    match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(item: TokenStream) -> String {
        match expand(TokenStream::new(), item) {
            Ok(tokens) => panic!("accepted as {tokens}"),
            Err(error) => error.into_iter().map(|fault| fault.to_string()).collect::<Vec<_>>().join("\n"),
        }
    }

    #[test]
    fn the_function_itself_is_left_as_it_was() {
        let item = quote! { pub fn map(text: Text) -> Json<u64> { Json(1) } };
        let expanded = expand(TokenStream::new(), item.clone()).unwrap().to_string();
        assert!(expanded.starts_with(&item.to_string()), "{expanded}");
        assert!(expanded.contains("pub const __partita_task_map"), "{expanded}");
    }

    #[test]
    fn what_a_host_cannot_call_is_refused() {
        assert!(refusal(quote! { async fn a() {} }).contains("cannot be async"));
        assert!(refusal(quote! { unsafe fn a() {} }).contains("cannot be unsafe"));
        assert!(refusal(quote! { extern "C" fn a() {} }).contains("without `extern`"));
        assert!(refusal(quote! { fn a<T>(x: T) {} }).contains("cannot be generic"));
        assert!(refusal(quote! { fn a(x: impl Read) {} }).contains("cannot be generic"));
        assert!(refusal(quote! { fn a(&self) {} }).contains("`self`"));
        assert!(refusal(quote! { fn a(x: &str) {} }).contains("by value"));
        assert!(refusal(quote! { struct A; }).contains("free function"));
    }

    #[test]
    fn all_faults_of_a_function_are_reported_together() {
        let text = refusal(quote! { async fn a<T>(x: T, y: &str) {} });
        assert_eq!(text.lines().count(), 3, "{text}");
    }

    #[test]
    fn the_attribute_takes_no_arguments() {
        assert!(expand(quote!(name = "x"), quote! { fn a() {} }).is_err());
    }

    #[test]
    fn the_first_paragraph_of_the_documentation_is_kept() {
        let function: ItemFn = syn::parse_quote! {
            /// Counts words
            /// in a text.
            ///
            /// Everything else.
            fn map() {}
        };
        assert_eq!(first_paragraph(&function.attrs), "Counts words in a text.");
        let block: ItemFn = syn::parse_quote! {
            #[doc = "\n Sums.\n\n More."]
            fn sum() {}
        };
        assert_eq!(first_paragraph(&block.attrs), "Sums.");
        let none: ItemFn = syn::parse_quote! { fn bare() {} };
        assert_eq!(first_paragraph(&none.attrs), "");
    }

    #[test]
    fn parameters_are_called_by_their_names() {
        let function: ItemFn =
            syn::parse_quote! { fn f(text: Text, mut out: Writer, Args(range): Args<R>, _: Bytes) {} };
        let labels: Vec<String> = function
            .sig
            .inputs
            .iter()
            .map(|parameter| match parameter {
                FnArg::Typed(typed) => label(&typed.pat),
                FnArg::Receiver(_) => panic!("no receiver was written"),
            })
            .collect();
        assert_eq!(labels, ["text", "out", "range", "_"]);
    }
}
