//! What is refused before it runs, and in which words.

use std::time::Duration;

use partita_sandbox::{ArtefactCache, CompileError, CompileLimits, Compiler};
use partita_types::{ByteSize, Cause, CpuTime, ModuleId};

use crate::guests::{
    NO_FUNCTIONS, RUN, compile, component, failure_of, guest, guest_with_functions, importing, program,
};

fn refusal(component: &[u8]) -> String {
    compile(component).expect_err("it must be refused").to_string()
}

#[test]
fn what_is_not_a_component_is_refused() {
    for bytes in [&b""[..], b"\0asm", b"#!/bin/sh", &[0xff; 1000]] {
        assert!(matches!(compile(bytes), Err(CompileError::NotAComponent { .. })), "{bytes:?}");
    }
    let text = refusal(&wat::parse_str("(module)").unwrap());
    assert!(text.contains("it is a core module; build for the target wasm32-wasip2"), "{text}");
    let mut truncated = guest("");
    truncated.truncate(truncated.len() / 2);
    assert!(matches!(compile(&truncated), Err(CompileError::Invalid(_))));
}

#[test]
fn a_component_of_another_world_is_refused_by_the_missing_export() {
    let text = refusal(&wat::parse_str("(component)").unwrap());
    assert!(text.contains("export \"describe\" is missing"), "{text}");
    let other = wat::parse_str(
        r#"(component
          (core module $m (func (export "f") (result i32) i32.const 0)) (core instance $m (instantiate $m))
          (func (export "describe") (result u32) (canon lift (core func $m "f"))))"#,
    );
    let text = refusal(&other.unwrap());
    assert!(
        text.contains("export \"describe\" is func() -> u32, expected func() -> list<record{name: string"),
        "{text}"
    );
}

#[test]
fn an_import_that_is_not_granted_is_refused_by_name() {
    for name in ["wasi:sockets/tcp@0.2.6", "wasi:http/outgoing-handler@0.2.6", "acme:secrets/read@1.0.0"] {
        let asking = importing(&format!(r#"(import "{name}" (instance))"#), "", "", "");
        assert_eq!(refusal(&asking), format!("component imports \"{name}\", which is not granted"));
    }
    let function = importing(r#"(import "read-file" (func (param "path" string)))"#, "", "", "");
    assert!(matches!(compile(&function), Err(CompileError::ForbiddenImport { name }) if name == "read-file"));
}

#[test]
fn a_mere_name_for_a_type_is_not_an_import_that_must_be_granted() {
    // Components made from Rust have these at the outermost level.
    assert!(compile(&importing(r#"(import "failure" (type (eq $failure)))"#, "", "", "")).is_ok());
    let resource = importing(r#"(import "secret" (type (sub resource)))"#, "", "", "");
    assert!(matches!(compile(&resource), Err(CompileError::ForbiddenImport { name }) if name == "secret"));
}

#[test]
fn a_function_that_the_context_does_not_have_is_refused_by_name() {
    let text = include_str!("../../src/world.wat")
        .replace(";;BODY", &format!("{RUN} unreachable) {NO_FUNCTIONS}"))
        .replace(r#"(export "progress" (func (param"#, r#"(export "escape" (func)) (export "progress" (func (param"#);
    let text = refusal(&wat::parse_str(text).unwrap());
    assert_eq!(text, "component imports \"partita:task/context@0.1.0#escape\", which is not granted");
}

#[test]
fn an_oversized_component_is_refused_without_a_process() {
    let limits = CompileLimits { component: ByteSize(100), ..CompileLimits::default() };
    let nowhere = partita_sandbox::Program { path: "/nonexistent".into(), args: Vec::new() };
    let error = Compiler::new(nowhere, limits).compile(&[0; 101]).unwrap_err();
    assert_eq!(error.to_string(), "component is 101, the limit is 100");
}

#[test]
fn oversized_parts_are_refused_before_compilation() {
    let functions = "(func)".repeat(50_001);
    let locals = format!("(func (local {}))", "i32 ".repeat(10_001));
    let blocks = format!("(func {} {})", "(block ".repeat(1_001), ")".repeat(1_001));
    let body = format!("(func {})", "(drop (i32.const 123456))".repeat(60_000));
    let types = (0..10_001).map(|n| format!("(type (func {}))", "(param i32) ".repeat(n % 7))).collect::<String>();
    for (what, definitions) in [
        ("the number of functions", functions),
        ("the number of locals", locals),
        ("the nesting depth of blocks", blocks),
        ("the size of a function body", body),
        ("the number of types", types),
    ] {
        let text = refusal(&guest_with_functions(&definitions, ""));
        assert!(text.contains(what), "{what}: {text}");
    }
}

#[test]
fn custom_sections_are_bounded_and_only_what_backtraces_need_is_kept() {
    let with = |name: &str, bytes: usize| {
        guest_with_functions(&format!(r#"(@custom "{name}" "{}")"#, "x".repeat(bytes)), "unreachable")
    };
    let plain = compile(&with("junk", 1)).unwrap().len();
    for name in ["junk", "producers", "sourceMappingURL", "linking"] {
        let padded = compile(&with(name, 4 << 20)).unwrap().len();
        assert!(padded < plain + (64 << 10), "{name}: {padded} bytes instead of {plain}");
    }
    let text = refusal(&with("junk", 33 << 20));
    assert!(text.contains("the size of custom sections"), "{text}");
    // What looks like debug information is read after a trap only, inside the executor, and may be anything.
    for name in [".debug_info", ".debug_line", ".debug_str", ".debug_abbrev", "name"] {
        failure_of(&with(name, 1 << 20), Cause::Trap);
    }
}

#[test]
fn deeply_nested_components_are_refused() {
    let nested = format!("{}{}", "(component ".repeat(50), ")".repeat(50));
    let text = refusal(&wat::parse_str(nested).unwrap());
    assert!(text.contains("the nesting depth of components"), "{text}");
}

#[test]
fn every_disabled_proposal_is_refused() {
    for (proposal, definitions) in [
        ("threads", "(memory $shared 1 1 shared)"),
        ("atomics", "(func (drop (i32.atomic.load (i32.const 0))))"),
        ("memory64", "(memory $wide i64 1)"),
        ("multi-memory", "(memory $second 1)"),
        ("gc", "(type $s (struct (field i32)))"),
        ("function references", "(func (param (ref func)))"),
        ("exceptions", "(tag $t) (func (throw $t))"),
        ("tail calls", "(func $f (return_call $f))"),
        ("relaxed SIMD", "(func (drop (f32x4.relaxed_min (v128.const i64x2 0 0) (v128.const i64x2 0 0))))"),
        ("wide arithmetic", "(func (drop (drop (i64.mul_wide_u (i64.const 1) (i64.const 1)))))"),
        ("custom page sizes", "(memory $small 1 (pagesize 1))"),
        ("stack switching", "(type $f (func)) (type $c (cont $f))"),
    ] {
        match compile(&guest_with_functions(definitions, "")) {
            Err(CompileError::Invalid(_)) => {}
            other => panic!("{proposal}: {:?}", other.map(|code| code.len())),
        }
    }
}

#[test]
fn a_compilation_that_takes_too_long_is_ended() {
    let impatient = CompileLimits { wall_time: Duration::from_millis(1), ..CompileLimits::default() };
    let error = Compiler::new(program(), impatient).compile(&guest("")).unwrap_err();
    assert!(matches!(error, CompileError::TimedOut { .. }), "{error}");
}

#[test]
fn a_compilation_that_computes_too_much_is_ended() {
    // Functions that the optimiser has to look at: together minutes of work, each within the limits of a part.
    let body = "(local.set 0 (i64.mul (i64.add (local.get 0) (local.get 1)) (i64.xor (local.get 0) (i64.const 7))))";
    let function = format!("(func (param i64 i64) {})", body.repeat(6_000));
    let bomb = guest_with_functions(&function.repeat(300), "");
    let limits = CompileLimits { cpu_time: CpuTime::from_micros(1_000_000), ..CompileLimits::default() };
    let error = Compiler::new(program(), limits).compile(&bomb).unwrap_err();
    assert!(matches!(&error, CompileError::TimedOut { limit } if limit == "1.0 s of CPU time"), "{error}");
}

#[test]
fn a_compiler_that_cannot_start_says_nothing_about_the_module() {
    let nowhere = partita_sandbox::Program { path: "/nonexistent".into(), args: Vec::new() };
    let error = Compiler::new(nowhere, CompileLimits::default()).compile(&guest("")).unwrap_err();
    assert!(error.worth_retrying(), "{error}");
}

#[test]
fn compiled_code_that_this_host_did_not_make_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let ours = ArtefactCache::open(directory.path(), [1; 32]).unwrap();
    let module = ModuleId([9; 32]);
    ours.insert(module, &compile(&guest("")).unwrap()).unwrap();
    assert!(ours.get(module).is_some());
    let path = directory.path().join(format!("{module}.artefact"));
    let mut content = std::fs::read(&path).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(&path, content).unwrap();
    assert!(ours.get(module).is_none());
}

#[test]
fn a_description_with_an_unprintable_name_is_refused() {
    // One function whose name is an escape character.
    let body = format!(
        r#"(data (i32.const 200) "\1b") (data (i32.const 300) "\40\01\00\00\01\00\00\00")
        (data (i32.const 320) "\c8\00\00\00\01\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00")
        {RUN} unreachable) (func (export "describe") (result i32) (i32.const 300))"#
    );
    let failure = crate::guests::executor(&component(&body)).describe().unwrap_err();
    assert_eq!(failure.cause, partita_types::Cause::Module);
    assert!(failure.message.contains("not printable"), "{failure:?}");
}
