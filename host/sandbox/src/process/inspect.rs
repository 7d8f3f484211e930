//! Looks at a component before it is compiled: size of its parts, imports, exports, validity.
//!
//! The sizes come first, by a scan that only counts and does not recurse, because what follows (validation, compilation)
//! has costs that grow faster than the input.

use std::ops::Range;

use wasmparser::{ComponentTypeRef, Encoding, Parser, Payload, TypeBounds, Validator, WasmFeatures};

use super::world;
use crate::CompileError;

/// Most functions of one core module.
const FUNCTIONS_MAX: u64 = 50_000;
/// Longest function body. Interpreter loops of real languages reach 100 KiB and more.
const BODY_MAX: u64 = 256 << 10;
/// Most locals of one function.
const LOCALS_MAX: u64 = 10_000;
/// Most types, imports or exports of one module or component.
const ITEMS_MAX: u64 = 10_000;
/// Most nested blocks in one function.
const BLOCKS_MAX: u64 = 1_000;
/// Most components and core modules inside the component.
const PARTS_MAX: u64 = 64;
/// Deepest nesting of components.
const NESTING_MAX: u64 = 8;
/// Bytes of custom sections, together: names and debug information.
const CUSTOM_MAX: u64 = 32 << 20;

/// What guests may use; the parser's names for what the engine's profile switches on.
fn features() -> WasmFeatures {
    WasmFeatures::MUTABLE_GLOBAL
        | WasmFeatures::SATURATING_FLOAT_TO_INT
        | WasmFeatures::SIGN_EXTENSION
        | WasmFeatures::REFERENCE_TYPES
        | WasmFeatures::MULTI_VALUE
        | WasmFeatures::BULK_MEMORY
        | WasmFeatures::SIMD
        | WasmFeatures::EXTENDED_CONST
        | WasmFeatures::FLOATS
        | WasmFeatures::GC_TYPES
        | WasmFeatures::COMPONENT_MODEL
}

/// Checks everything that can be known without compiling.
pub(crate) fn inspect(component: &[u8]) -> Result<(), CompileError> {
    if !Parser::is_component(component) {
        let detail = if Parser::is_core_wasm(component) {
            "it is a core module; build for the target wasm32-wasip2, or wrap it as a component"
        } else {
            "it does not begin as one"
        };
        return Err(CompileError::NotAComponent { detail: detail.to_owned() });
    }
    Scan::default().scan(component)?;
    let types = Validator::new_with_features(features()).validate_all(component).map_err(invalid)?;
    world::check(&types.as_ref())
}

fn invalid(error: wasmparser::BinaryReaderError) -> CompileError {
    CompileError::Invalid(crate::text::shown(&error.to_string(), 1024))
}

fn at_most(what: &str, size: u64, limit: u64) -> Result<(), CompileError> {
    if size <= limit { Ok(()) } else { Err(CompileError::TooLarge { what: what.to_owned(), size, limit }) }
}

/// Counts what is in a component, part by part.
#[derive(Debug, Default)]
struct Scan {
    parts: u64,
    custom: u64,
    /// Open components and modules, outermost first; `true` for components.
    open: Vec<bool>,
}

impl Scan {
    fn scan(mut self, bytes: &[u8]) -> Result<(), CompileError> {
        for payload in Parser::new(0).parse_all(bytes) {
            self.payload(payload.map_err(invalid)?, bytes)?;
        }
        Ok(())
    }

    fn payload(&mut self, payload: Payload<'_>, bytes: &[u8]) -> Result<(), CompileError> {
        match payload {
            Payload::Version { encoding, .. } => self.enter(encoding == Encoding::Component),
            Payload::End(_) => {
                self.open.pop();
                Ok(())
            }
            Payload::TypeSection(section) => items("types", section.count()),
            Payload::ImportSection(section) => items("imports", section.count()),
            Payload::ExportSection(section) => items("exports", section.count()),
            Payload::ComponentTypeSection(section) => items("types", section.count()),
            Payload::ComponentImportSection(section) => self.imports(section),
            Payload::ComponentExportSection(section) => items("exports", section.count()),
            Payload::ComponentInstanceSection(section) => items("component instances", section.count()),
            Payload::InstanceSection(section) => items("core instances", section.count()),
            Payload::ComponentAliasSection(section) => items("aliases", section.count()),
            Payload::ComponentCanonicalSection(section) => items("lifted and lowered functions", section.count()),
            Payload::FunctionSection(section) => {
                at_most("the number of functions", u64::from(section.count()), FUNCTIONS_MAX)
            }
            Payload::CodeSectionEntry(body) => function(&body),
            Payload::CustomSection(section) => {
                self.custom = self.custom.saturating_add(length(&section.range(), bytes));
                at_most("the size of custom sections", self.custom, CUSTOM_MAX)
            }
            _ => Ok(()),
        }
    }

    fn enter(&mut self, component: bool) -> Result<(), CompileError> {
        self.parts += 1;
        self.open.push(component);
        at_most("the number of components and modules in the component", self.parts, PARTS_MAX)?;
        at_most("the nesting depth of components", self.open.len() as u64, NESTING_MAX)
    }

    /// Refuses forbidden imports of the outermost component by name, whatever else is wrong with it.
    fn imports(&self, section: wasmparser::ComponentImportSectionReader<'_>) -> Result<(), CompileError> {
        items("imports", section.count())?;
        if self.open.len() > 1 {
            return Ok(());
        }
        for import in section {
            let import = import.map_err(invalid)?;
            // A name for a type that is defined elsewhere grants nothing.
            if !matches!(import.ty, ComponentTypeRef::Type(TypeBounds::Eq(_))) {
                world::check_import(import.name.name)?;
            }
        }
        Ok(())
    }
}

fn length(range: &Range<u64>, bytes: &[u8]) -> u64 {
    range.end.saturating_sub(range.start).min(bytes.len() as u64)
}

fn items(what: &str, count: u32) -> Result<(), CompileError> {
    at_most(&format!("the number of {what} in one section"), u64::from(count), ITEMS_MAX)
}

/// Checks the size of one function. Blocks are counted without recursion.
fn function(body: &wasmparser::FunctionBody<'_>) -> Result<(), CompileError> {
    let range = body.range();
    at_most("the size of a function body", range.end.saturating_sub(range.start), BODY_MAX)?;
    let mut locals = 0_u64;
    for group in body.get_locals_reader().map_err(invalid)? {
        locals = locals.saturating_add(u64::from(group.map_err(invalid)?.0));
        at_most("the number of locals of a function", locals, LOCALS_MAX)?;
    }
    let mut depth = 0_u64;
    for operator in body.get_operators_reader().map_err(invalid)? {
        use wasmparser::Operator::{Block, End, If, Loop, TryTable};
        match operator.map_err(invalid)? {
            Block { .. } | Loop { .. } | If { .. } | TryTable { .. } => {
                depth += 1;
                at_most("the nesting depth of blocks in a function", depth, BLOCKS_MAX)?;
            }
            End => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}
