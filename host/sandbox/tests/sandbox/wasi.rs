//! The granted part of WASI: lines into the log, frozen clocks, seeded randomness, nothing else.

use partita_types::Cause;

use crate::guests::{batch, executor, failure_of, importing, output, run, run_one};

/// Lowers one function of a WASI interface as `$wasi`.
fn using(interface: &str, function: &str, ty: &str, core: &str, instructions: &str) -> Vec<u8> {
    importing(
        &format!(
            r#"(import "wasi:{interface}" (instance $wasi (export "{function}" {ty})))
            (core func $wasi (canon lower (func $wasi "{function}") (memory $mem) (realloc (core func $allocate))))"#
        ),
        r#"(with "wasi" (instance (export "f" (func $wasi))))"#,
        &format!(r#"(import "wasi" "f" (func $wasi {core}))"#),
        instructions,
    )
}

#[test]
fn the_monotonic_clock_advances_by_a_fixed_step_per_call() {
    let clock = using(
        "clocks/monotonic-clock@0.2.6",
        "now",
        "(func (result u64))",
        "(result i64)",
        r"(i64.store (i32.const 64) (call $wasi)) (i64.store (i32.const 72) (call $wasi))
        (call $write (i32.load (local.get $outputs)) (i32.const 64) (i32.const 16))",
    );
    let (ends, _) = run(&mut executor(&clock), &batch(&[b"", b""]));
    let expected: Vec<u8> = [1_000_u64, 2_000].iter().flat_map(|n| n.to_le_bytes()).collect();
    assert_eq!(output(&ends[0]), expected);
    assert_eq!(output(&ends[1]), expected);
}

#[test]
fn the_wall_clock_stands_at_the_submission() {
    let clock = importing(
        r#"(import "wasi:clocks/wall-clock@0.2.0" (instance $wasi
            (type $datetime (record (field "seconds" u64) (field "nanoseconds" u32)))
            (export "datetime" (type $exported (eq $datetime)))
            (export "now" (func (result $exported)))))
        (core func $wasi (canon lower (func $wasi "now") (memory $mem)))"#,
        r#"(with "wasi" (instance (export "f" (func $wasi))))"#,
        r#"(import "wasi" "f" (func $wasi (param i32)))"#,
        r"(call $wasi (i32.const 64)) (call $write (i32.load (local.get $outputs)) (i32.const 64) (i32.const 12))",
    );
    let (end, _) = run_one(&clock, |_| {});
    let mut expected = 1_700_000_000_u64.to_le_bytes().to_vec();
    expected.extend(1_000_u32.to_le_bytes());
    assert_eq!(output(&end), expected);
}

#[test]
fn random_numbers_follow_from_the_seed_alone() {
    let random = using(
        "random/random@0.2.6",
        "get-random-u64",
        "(func (result u64))",
        "(result i64)",
        r"(i64.store (i32.const 64) (call $wasi)) (i64.store (i32.const 72) (call $wasi))
        (call $write (i32.load (local.get $outputs)) (i32.const 64) (i32.const 16))",
    );
    let mut batch = batch(&[b"", b"", b""]);
    batch.attempts[2].seed = [4; 32];
    let (ends, _) = run(&mut executor(&random), &batch);
    let numbers: Vec<_> = ends.iter().map(output).collect();
    assert_eq!(numbers[0], numbers[1]);
    assert_ne!(numbers[0], numbers[2]);
    assert_ne!(numbers[0][..8], numbers[0][8..]);
}

#[test]
fn too_many_random_bytes_at_once_end_the_attempt() {
    let greedy = using(
        "random/random@0.2.6",
        "get-random-bytes",
        r#"(func (param "len" u64) (result (list u8)))"#,
        "(param i64 i32)",
        "(call $wasi (i64.const 0x7fffffffffff) (i32.const 64))",
    );
    failure_of(&greedy, Cause::SandboxLimit);
}

#[test]
fn the_environment_is_empty() {
    let environment = using(
        "cli/environment@0.2.6",
        "get-environment",
        "(func (result (list (tuple string string))))",
        "(param i32)",
        r"(call $wasi (i32.const 64)) (call $write (i32.load (local.get $outputs)) (i32.const 68) (i32.const 4))",
    );
    let (end, _) = run_one(&environment, |_| {});
    assert_eq!(output(&end)[..], [0; 4]);
}

#[test]
fn exit_is_a_failure_and_not_the_end_of_the_executor() {
    let leaving = using(
        "cli/exit@0.2.6",
        "exit",
        r#"(func (param "status" (result)))"#,
        "(param i32)",
        "(call $wasi (i32.const 1))",
    );
    let failure = failure_of(&leaving, Cause::Trap);
    assert_eq!(failure.message, "the guest called exit with status 1");
}
