//! Is a component of our world? Which imports are granted, and which exports must be there with which types.

use wasmparser::component_types::{
    ComponentDefinedType, ComponentEntityType, ComponentFuncTypeId, ComponentInstanceTypeId, ComponentValType,
};
use wasmparser::types::TypesRef;

use crate::CompileError;

/// Our own interfaces.
const CONTEXT: &str = "partita:task/context@0.1.0";
const OWN: [&str; 2] = [CONTEXT, "partita:task/types@0.1.0"];

/// What is granted of WASI 0.2: what standard libraries import, and the empty file system that adapters of WASI 0.1 add.
const WASI: [&str; 20] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
];

/// The types of the world's exports.
const EXPORTS: [(&str, &str); 2] = [
    ("describe", "func() -> list<record{name: string, doc: string, inputs: option<u32>, outputs: option<u32>}>"),
    (
        "run",
        "func(name: string, args: list<u8>, inputs: list<list<borrow>>, outputs: list<borrow>) \
         -> result<_, variant{failed(string), retry(string)}>",
    ),
];

/// The types of the functions that [`CONTEXT`] has.
const CONTEXT_FUNCTIONS: [(&str, &str); 7] = [
    ("[method]input.read", "func(self: borrow, offset: u64, length: u32) -> list<u8>"),
    ("[method]input.size", "func(self: borrow) -> u64"),
    ("[method]output.write", "func(self: borrow, bytes: list<u8>)"),
    ("log", "func(level: enum{debug, info, warn, error}, message: string)"),
    ("panicked", "func(message: string, location: string)"),
    ("progress", "func(done: u64, total: u64)"),
    ("remaining", "func() -> record{memory-bytes: u64, cpu-time-us: u64, wall-time-us: u64}"),
];

/// Longest name that an error quotes.
const NAME_MAX: usize = 128;
/// Deepest type that is written out; no type of the world is that deep.
const DEPTH_MAX: u32 = 8;

/// Refuses an import that is not granted.
pub(super) fn check_import(name: &str) -> Result<(), CompileError> {
    let granted = OWN.contains(&name)
        || name.split_once("@0.2.").is_some_and(|(interface, patch)| {
            WASI.contains(&interface) && !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit())
        });
    if granted { Ok(()) } else { Err(CompileError::ForbiddenImport { name: crate::text::shown(name, NAME_MAX) }) }
}

/// Checks the exports of a valid component, and the types of what it imports from us.
pub(super) fn check(types: &TypesRef<'_>) -> Result<(), CompileError> {
    for (name, expected) in EXPORTS {
        let Some(item) = types.component_item_for_export(name) else {
            return Err(wrong(name, "is missing".to_owned()));
        };
        let ComponentEntityType::Func(function) = item.ty else {
            return Err(wrong(name, "is not a function".to_owned()));
        };
        let found = function_text(types, function);
        if found != expected {
            return Err(wrong(name, format!("is {found}, expected {expected}")));
        }
    }
    match types.component_item_for_import(CONTEXT).map(|item| item.ty) {
        Some(ComponentEntityType::Instance(context)) => check_context(types, context),
        Some(_) => Err(CompileError::Invalid(format!("import {CONTEXT:?} is not an interface"))),
        None => Ok(()),
    }
}

fn check_context(types: &TypesRef<'_>, context: ComponentInstanceTypeId) -> Result<(), CompileError> {
    for (name, item) in &types[context].exports {
        let ComponentEntityType::Func(function) = item.ty else { continue };
        let found = function_text(types, function);
        let shown = crate::text::shown(name, NAME_MAX);
        match CONTEXT_FUNCTIONS.iter().find(|(known, _)| known == name) {
            None => return Err(CompileError::ForbiddenImport { name: format!("{CONTEXT}#{shown}") }),
            Some((_, expected)) if found != *expected => {
                let text = format!("import {CONTEXT}#{shown} is {found}, expected {expected}");
                return Err(CompileError::Invalid(text));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn wrong(export: &str, problem: String) -> CompileError {
    CompileError::WrongWorld { export: export.to_owned(), problem: crate::text::shown(&problem, 1024) }
}

fn function_text(types: &TypesRef<'_>, id: ComponentFuncTypeId) -> String {
    let function = &types[id];
    let params = function.params.iter().map(|(name, ty)| format!("{name}: {}", type_text(types, *ty, DEPTH_MAX)));
    let params = params.collect::<Vec<_>>().join(", ");
    let result = function.result.map(|ty| format!(" -> {}", type_text(types, ty, DEPTH_MAX))).unwrap_or_default();
    let kind = if function.async_ { "async func" } else { "func" };
    format!("{kind}({params}){result}")
}

/// Writes a type out. Resources appear without names: which one is meant follows from the place.
fn type_text(types: &TypesRef<'_>, ty: ComponentValType, depth: u32) -> String {
    let id = match ty {
        ComponentValType::Primitive(primitive) => return primitive.to_string(),
        ComponentValType::Type(id) => id,
    };
    let Some(depth) = depth.checked_sub(1) else { return "…".to_owned() };
    let text = |ty: &ComponentValType| type_text(types, *ty, depth);
    let optional = |ty: &Option<ComponentValType>| ty.as_ref().map_or_else(|| "_".to_owned(), text);
    match &types[id] {
        ComponentDefinedType::Primitive(primitive) => primitive.to_string(),
        ComponentDefinedType::Record(record) => {
            let fields = record.fields.iter().map(|(name, ty)| format!("{name}: {}", text(ty)));
            format!("record{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        ComponentDefinedType::Variant(variant) => {
            let case = |payload: &Option<ComponentValType>| payload.as_ref().map(|ty| format!("({})", text(ty)));
            let cases =
                variant.cases.iter().map(|(name, item)| format!("{name}{}", case(&item.ty).unwrap_or_default()));
            format!("variant{{{}}}", cases.collect::<Vec<_>>().join(", "))
        }
        ComponentDefinedType::List { element, .. } => format!("list<{}>", text(element)),
        ComponentDefinedType::Tuple(tuple) => {
            format!("tuple<{}>", tuple.types.iter().map(text).collect::<Vec<_>>().join(", "))
        }
        ComponentDefinedType::Enum(names) => {
            format!("enum{{{}}}", names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        }
        ComponentDefinedType::Flags(names) => {
            format!("flags{{{}}}", names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        }
        ComponentDefinedType::Option { ty, .. } => format!("option<{}>", text(ty)),
        ComponentDefinedType::Result { ok, err, .. } => format!("result<{}, {}>", optional(ok), optional(err)),
        ComponentDefinedType::Own(_) => "own".to_owned(),
        ComponentDefinedType::Borrow(_) => "borrow".to_owned(),
        // None of these is in the world, so their parts do not matter.
        ComponentDefinedType::Map { .. } => "map".to_owned(),
        ComponentDefinedType::FixedLengthList { .. } => "fixed-length list".to_owned(),
        ComponentDefinedType::Future { .. } => "future".to_owned(),
        ComponentDefinedType::Stream { .. } => "stream".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_granted_interfaces_may_be_imported() {
        for good in ["partita:task/context@0.1.0", "wasi:io/streams@0.2.6", "wasi:cli/stdout@0.2.0"] {
            assert!(check_import(good).is_ok(), "{good}");
        }
        for bad in
            ["wasi:sockets/tcp@0.2.6", "wasi:io/streams@0.3.0", "wasi:io/streams@0.2.", "wasi:io/streams", "env", ""]
        {
            assert!(matches!(check_import(bad), Err(CompileError::ForbiddenImport { name }) if name == bad), "{bad}");
        }
    }
}
