//! Every limit, and the guest that runs into it.

use std::time::Duration;

use partita_sandbox::RunEnd;
use partita_types::{ByteSize, Cause, CpuTime};

use crate::guests::{
    NO_FUNCTIONS, RUN, batch, compile, component, executor, failure_of, guest, guest_with_functions, importing, output,
    run, run_one, zygote,
};

/// Never ends.
const SPIN: &str = "(loop $ever (br $ever))";

#[test]
fn an_endless_loop_ends_by_its_cpu_time() {
    let (end, alive) = run_one(&guest(SPIN), |_| {});
    let failure = end.result.unwrap_err();
    assert_eq!((failure.cause, alive), (Cause::CpuTime, false), "{failure:?}");
    assert_eq!(failure.message, "the attempt used its 300.0 ms of CPU time");
    let used = end.usage.cpu.micros;
    assert!((290_000..600_000).contains(&used), "{used} us charged");
}

#[test]
fn an_endless_start_function_ends_by_its_cpu_time() {
    failure_of(&guest_with_functions(&format!("(func $start {SPIN}) (start $start)"), ""), Cause::CpuTime);
}

#[test]
fn an_endless_describe_ends_by_its_cpu_time() {
    let body = format!(r#"{RUN} unreachable) (func (export "describe") (result i32) {SPIN} unreachable)"#);
    let failure = executor(&component(&body)).describe().unwrap_err();
    assert_eq!(failure.cause, Cause::CpuTime, "{failure:?}");
}

#[test]
fn a_loop_of_bulk_operations_is_killed_in_their_middle() {
    let filling = guest(
        r"(drop (memory.grow (i32.const 4094)))
        (loop $ever (memory.fill (i32.const 4096) (i32.const 7) (i32.const 0xff00000)) (br $ever))",
    );
    let (end, _) = run_one(&filling, |batch| batch.limits.memory = ByteSize::mib(256));
    assert_eq!(end.result.unwrap_err().cause, Cause::CpuTime);
}

#[test]
fn waiting_ends_by_the_wall_time() {
    // A guest cannot wait, so the process is stopped from outside, as for a preemption: it uses no CPU time.
    let mut executor = executor(&guest(SPIN));
    let handle = executor.handle();
    handle.stop();
    let mut batch = batch(&[b"", b""]);
    batch.limits.wall_time = Duration::from_millis(100);
    let (ends, end) = run(&mut executor, &batch);
    assert_eq!(end, RunEnd::ExecutorLost { next: 1 });
    let failure = ends[0].result.as_ref().unwrap_err();
    assert_eq!(failure.cause, Cause::WallTime);
    assert_eq!(failure.message, "the attempt took its 100.0 ms of wall time");
}

#[test]
fn memory_beyond_the_limit_is_refused_and_the_guest_may_go_on() {
    // Grows by 100 pages as often as it can, and writes how often that was.
    let growing = guest(
        r"(block $refused (loop $more
          (br_if $refused (i32.eq (memory.grow (i32.const 100)) (i32.const -1)))
          (i32.store (i32.const 100) (i32.add (i32.load (i32.const 100)) (i32.const 1)))
          (br $more)))
        (call $write (i32.load (local.get $outputs)) (i32.const 100) (i32.const 4))",
    );
    let (end, alive) = run_one(&growing, |_| {});
    // 16 MiB are 256 pages; one is there from the beginning.
    assert_eq!(&output(&end)[..], 2_u32.to_le_bytes());
    assert!(alive);
    assert_eq!(end.usage.peak_memory, ByteSize(201 << 16));
}

#[test]
fn a_trap_after_refused_memory_is_blamed_on_the_memory() {
    let failure = failure_of(&guest("(drop (memory.grow (i32.const 1000))) unreachable"), Cause::Memory);
    assert!(failure.message.contains("its limit is 16 MiB"), "{failure:?}");
}

#[test]
fn a_module_that_needs_more_memory_than_the_limit_cannot_start() {
    let mut big = batch(&[b""]);
    big.limits.memory = ByteSize(65_535);
    let (ends, end) = run(&mut executor(&guest("")), &big);
    assert_eq!(ends[0].result.as_ref().unwrap_err().cause, Cause::Memory);
    assert_eq!(end, RunEnd::Complete);
}

#[test]
fn an_executor_grants_no_more_memory_than_it_was_forked_for() {
    let artefact = crate::guests::artefact(&guest("(drop (memory.grow (i32.const 100))) unreachable"));
    let mut executor = zygote().fork(&artefact, ByteSize::mib(2)).unwrap();
    let mut batch = batch(&[b""]);
    batch.limits.memory = ByteSize::gib(1);
    let (ends, _) = run(&mut executor, &batch);
    let failure = ends[0].result.as_ref().unwrap_err();
    assert!(failure.message.contains("its limit is 2 MiB"), "{failure:?}");
}

#[test]
fn deep_recursion_exhausts_the_stack_and_nothing_else() {
    failure_of(&guest_with_functions("(func $deeper (call $deeper))", "(call $deeper)"), Cause::Stack);
}

#[test]
fn an_illegal_operation_is_a_trap_with_a_backtrace() {
    let failure = failure_of(&guest_with_functions("(func $culprit unreachable)", "(call $culprit)"), Cause::Trap);
    assert!(failure.message.contains("unreachable"), "{failure:?}");
    assert!(failure.backtrace.iter().any(|frame| frame.contains("culprit")), "{failure:?}");
    for bad in ["(drop (i32.div_u (i32.const 1) (i32.const 0)))", "(drop (i32.load (i32.const -4)))"] {
        failure_of(&guest(bad), Cause::Trap);
    }
}

#[test]
fn a_trapped_attempt_leaves_nothing_to_the_next_one() {
    // Traps if the arguments say so, after dirtying memory; writes what it found there.
    let dirty = guest(
        r"(call $write (i32.load (local.get $outputs)) (i32.const 100) (i32.const 1))
        (i32.store8 (i32.const 100) (i32.const 9))
        (if (local.get $args-length) (then unreachable))",
    );
    let (ends, end) = run(&mut executor(&dirty), &batch(&[b"", b"trap", b"", b"trap", b""]));
    assert_eq!(end, RunEnd::Complete);
    for position in [0, 2, 4] {
        assert_eq!(&output(&ends[position])[..], [0]);
    }
    for position in [1, 3] {
        assert_eq!(ends[position].result.as_ref().unwrap_err().cause, Cause::Trap);
    }
}

#[test]
fn a_panic_arrives_with_message_and_place() {
    let panicking = guest_with_functions(
        r#"(data (i32.const 200) "boomsrc/lib.rs:7")"#,
        "(call $panicked (i32.const 200) (i32.const 4) (i32.const 204) (i32.const 12))",
    );
    assert_eq!(failure_of(&panicking, Cause::Panic).message, "boom, at src/lib.rs:7");
}

#[test]
fn output_beyond_the_limit_ends_the_attempt() {
    let bomb =
        guest(r"(loop $ever (call $write (i32.load (local.get $outputs)) (i32.const 0) (i32.const 65536)) (br $ever))");
    let failure = failure_of(&bomb, Cause::OutputSize);
    assert!(failure.message.contains("its limit is 4 MiB"), "{failure:?}");
}

#[test]
fn a_write_or_read_of_too_much_at_once_ends_the_attempt() {
    let grown = "(drop (memory.grow (i32.const 40)))";
    let write =
        guest(&format!("{grown} (call $write (i32.load (local.get $outputs)) (i32.const 0) (i32.const 0x100001))"));
    failure_of(&write, Cause::SandboxLimit);
    let much =
        guest(&format!("{grown} (call $write (i32.load (local.get $outputs)) (i32.const 0) (i32.const 0x200000))"));
    failure_of(&much, Cause::SandboxLimit);
}

#[test]
fn a_log_beyond_the_limit_is_cut_and_counted_and_the_task_goes_on() {
    let bomb = guest_with_functions(
        r#"(data (i32.const 200) "0123456789")"#,
        r"(local $n i32) (local.set $n (i32.const 10000))
        (loop $more (call $log (i32.const 0) (i32.const 200) (i32.const 10))
          (br_if $more (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))",
    );
    let (end, alive) = run_one(&bomb, |_| {});
    assert!(end.result.is_ok() && alive);
    let (last, lines) = end.log.split_last().unwrap();
    assert_eq!(last.text, format!("{} more lines were cut, the log limit is 16 KiB", 10_000 - lines.len()));
    assert!(lines.iter().map(|line| line.text.len()).sum::<usize>() <= 16 << 10);
}

#[test]
fn one_huge_log_line_is_cut() {
    let (end, _) = run_one(
        &guest("(drop (memory.grow (i32.const 16))) (call $log (i32.const 0) (i32.const 1024) (i32.const 0x80000))"),
        |batch| batch.limits.log = ByteSize::mib(1),
    );
    assert!(end.result.is_ok(), "{end:?}");
    assert!(end.log[0].text.len() < 10_000);
}

#[test]
fn a_table_bomb_is_refused_and_a_trap_after_it_is_blamed_on_it() {
    let definitions = "(table $t 1 funcref)";
    let growing = "(drop (table.grow $t (ref.null func) (i32.const 1000000)))";
    let (end, _) = run_one(&guest_with_functions(definitions, growing), |_| {});
    assert!(end.result.is_ok(), "{end:?}");
    let trapping = guest_with_functions(definitions, &format!("{growing} unreachable"));
    failure_of(&trapping, Cause::SandboxLimit);
}

#[test]
fn a_handle_bomb_ends_the_attempt() {
    let bomb = importing(
        "(type $thing (resource (rep i32))) (core func $new (canon resource.new $thing))",
        r#"(with "own" (instance (export "new" (func $new))))"#,
        r#"(import "own" "new" (func $new (param i32) (result i32)))"#,
        "(loop $ever (drop (call $new (i32.const 1))) (br $ever))",
    );
    failure_of(&bomb, Cause::SandboxLimit);
}

#[test]
fn endless_requests_to_grow_end_the_attempt() {
    let bomb = guest("(loop $ever (drop (memory.grow (i32.const 60000))) (br $ever))");
    let (end, alive) = run_one(&bomb, |batch| batch.limits.cpu_time = CpuTime::from_micros(20_000_000));
    assert_eq!((end.result.unwrap_err().cause, alive), (Cause::SandboxLimit, true));
}

#[test]
fn an_invalid_string_is_a_trap() {
    let invalid = guest_with_functions(
        r#"(data (i32.const 200) "\ff\fe")"#,
        "(call $log (i32.const 0) (i32.const 200) (i32.const 2))",
    );
    failure_of(&invalid, Cause::Trap);
}

#[test]
fn pointers_and_numbers_out_of_range_are_traps() {
    for bad in [
        "(call $log (i32.const 0) (i32.const -16) (i32.const 64))",
        "(call $log (i32.const 9) (i32.const 0) (i32.const 0))",
        "(call $write (i32.const 77) (i32.const 0) (i32.const 1))",
        "(call $drop-output (i32.load (local.get $outputs))) (call $write (i32.load (local.get $outputs)) (i32.const 0) (i32.const 1))",
        "(call $remaining (i32.const 0x10000))",
        "(call $remaining (i32.const 1))",
    ] {
        let (end, alive) = run_one(&guest(bad), |_| {});
        let failure = end.result.expect_err(bad);
        assert!(matches!(failure.cause, Cause::Trap | Cause::SandboxLimit), "{bad}: {failure:?}");
        assert!(alive, "{bad}");
    }
    let result = component(&format!("{RUN} (i32.const 0xfffff0)) {NO_FUNCTIONS}"));
    failure_of(&result, Cause::Trap);
}

#[test]
fn an_allocator_that_never_returns_ends_by_the_cpu_time() {
    // Arguments are copied through the guest's allocator, before `run` is called: make that one spin.
    let text =
        include_str!("../../src/world.wat").replace(";;BODY", &format!("{RUN} unreachable) {NO_FUNCTIONS}")).replace(
            "(local $start i32) (local $missing i32)",
            "(local $start i32) (local $missing i32) (loop $ever (br $ever))",
        );
    failure_of(&wat::parse_str(text).unwrap(), Cause::CpuTime);
}

#[test]
fn an_allocator_that_lies_is_a_trap() {
    for lie in ["(i32.const -8)", "(i32.const 3)"] {
        let text = include_str!("../../src/world.wat")
            .replace(";;BODY", &format!("{RUN} unreachable) {NO_FUNCTIONS}"))
            .replace(
                "(local $start i32) (local $missing i32)",
                &format!("(local $start i32) (local $missing i32) (return {lie})"),
            );
        let (end, alive) = run_one(&wat::parse_str(text).unwrap(), |batch| {
            batch.attempts[0].inputs = vec![vec![crate::guests::payload(vec![1])]];
        });
        assert_eq!((end.result.unwrap_err().cause, alive), (Cause::Trap, true), "{lie}");
    }
}

#[test]
fn a_gigabyte_can_be_filled_and_freed_within_the_limit() {
    let code = compile(&guest(
        "(drop (memory.grow (i32.const 16383))) (memory.fill (i32.const 4096) (i32.const 7) (i32.const 0x3ff00000))",
    ));
    let directory = tempfile::tempdir().unwrap();
    let cache = partita_sandbox::ArtefactCache::open(directory.path(), [7; 32]).unwrap();
    let artefact = cache.insert(partita_types::ModuleId([1; 32]), &code.unwrap()).unwrap();
    let mut executor = zygote().fork(&artefact, ByteSize::gib(1)).unwrap();
    let mut batch = batch(&[b"", b""]);
    batch.limits.memory = ByteSize::gib(1);
    batch.limits.cpu_time = CpuTime::from_micros(20_000_000);
    let (ends, end) = run(&mut executor, &batch);
    assert_eq!(end, RunEnd::Complete, "{ends:?}");
    assert!(ends.iter().all(|end| end.usage.peak_memory == ByteSize::gib(1)));
}
