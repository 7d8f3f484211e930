//! One guest for all tests. The first letter of the function's name decides what it does.

use partita_types::ModuleId;
use sha2::{Digest, Sha256};

const WORLD: &str = include_str!("../../../sandbox/src/world.wat");

/// `echo` writes its arguments, `copy` its first input, `big` half a MiB, `spin` nothing, for ever; `work` counts for some
/// milliseconds.
const BODY: &str = r#"
  (func (export "run") (param $name i32) (param $name-length i32) (param $args i32) (param $args-length i32)
    (param $inputs i32) (param $input-groups i32) (param $outputs i32) (param $output-count i32) (result i32)
    (local $does i32) (local $output i32) (local $input i32) (local $at i64)
    (local.set $does (i32.load8_u (local.get $name)))
    (local.set $output (i32.load (local.get $outputs)))
    (if (i32.eq (local.get $does) (i32.const 0x65))
      (then (call $write (local.get $output) (local.get $args) (local.get $args-length))))
    (if (i32.eq (local.get $does) (i32.const 0x62)) (then
      (drop (memory.grow (i32.const 16)))
      (call $write (local.get $output) (i32.const 0) (i32.const 0x80000))))
    (if (i32.eq (local.get $does) (i32.const 0x63)) (then
      (local.set $input (i32.load (i32.load (local.get $inputs))))
      (loop $more
        (call $read (local.get $input) (local.get $at) (i32.const 0x10000) (i32.const 64))
        (call $write (local.get $output) (i32.load (i32.const 64)) (i32.load (i32.const 68)))
        (local.set $at (i64.add (local.get $at) (i64.extend_i32_u (i32.load (i32.const 68)))))
        (br_if $more (i64.lt_u (local.get $at) (call $size (local.get $input)))))))
    (if (i32.eq (local.get $does) (i32.const 0x73)) (then (loop $ever (br $ever))))
    (if (i32.eq (local.get $does) (i32.const 0x77)) (then (loop $count
      (local.set $at (i64.add (local.get $at) (i64.const 1)))
      (br_if $count (i64.lt_u (local.get $at) (i64.const 10000000))))))
    (call $done (local.get $inputs) (local.get $input-groups) (local.get $outputs) (local.get $output-count)))
  (func (export "describe") (result i32) (i32.const 8))"#;

/// The bytes of the guest.
pub(crate) fn guest() -> Vec<u8> {
    wat::parse_str(WORLD.replace(";;BODY", BODY)).expect("the test's guest is valid text")
}

/// The name of a module.
pub(crate) fn id(module: &[u8]) -> ModuleId {
    ModuleId(Sha256::digest(module).into())
}
