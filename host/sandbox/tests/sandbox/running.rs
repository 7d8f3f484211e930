//! Attempts that end as they should: inputs, outputs, arguments, fresh instances, long batches.

use bytes::Bytes;
use partita_sandbox::{BatchAttempt, Payload, RunControl, RunEnd};
use partita_types::{ByteSize, Isolation};

use crate::guests::{
    NO_FUNCTIONS, RUN, attempt, batch, component, executor, guest, guest_with_functions, limits, output, payload, run,
    run_one, until, zygote,
};

/// Writes its arguments to its first output.
const ECHO: &str = "(call $write (i32.load (local.get $outputs)) (local.get $args) (local.get $args-length))";

/// Copies the only input to the first output, in pieces of at most 1 MiB.
const COPY: &str = r"
  (local $at i64) (local $size i64) (local $input i32) (local $piece i32)
  (local.set $input (i32.load (i32.load (local.get $inputs))))
  (local.set $size (call $size (local.get $input)))
  (block $end (loop $more
    (br_if $end (i64.ge_u (local.get $at) (local.get $size)))
    (call $read (local.get $input) (local.get $at) (i32.const 0x100000) (i32.const 64))
    (local.set $piece (i32.load (i32.const 68)))
    (call $write (i32.load (local.get $outputs)) (i32.load (i32.const 64)) (local.get $piece))
    (local.set $at (i64.add (local.get $at) (i64.extend_i32_u (local.get $piece))))
    (br $more)))";

#[test]
fn executors_are_fully_confined_here() {
    assert_eq!(zygote().isolation(), Isolation::Full);
    assert_eq!(executor(&guest("")).isolation(), Isolation::Full);
}

#[test]
fn arguments_reach_the_guest_and_its_output_comes_back_with_the_hosts_hash() {
    let (ends, end) = run(&mut executor(&guest(ECHO)), &batch(&[b"one", b"", b"three"]));
    assert_eq!(end, RunEnd::Complete);
    let positions: Vec<_> = ends.iter().map(|end| end.position).collect();
    assert_eq!(positions, [0, 1, 2]);
    let outputs: Vec<_> = ends.iter().map(output).collect();
    assert_eq!(outputs, [&b"one"[..], b"", b"three"]);
}

#[test]
fn an_attempt_without_arguments_of_its_own_gets_the_common_ones() {
    let mut batch = batch(&[b"own"]);
    batch.common_arguments = Bytes::from(vec![5; 200_000]);
    batch.attempts.push(attempt());
    let (ends, _) = run(&mut executor(&guest(ECHO)), &batch);
    assert_eq!(output(&ends[0]), "own");
    assert_eq!(output(&ends[1]), batch.common_arguments);
}

#[test]
fn inputs_inline_and_in_files_can_be_read_whole() {
    let mut executor = executor(&guest(COPY));
    for size in [0, 1, 65_535, 65_536, 3_000_000] {
        let bytes: Vec<u8> = (0..251_u8).cycle().take(size).collect();
        let input = payload(bytes.clone());
        assert_eq!(matches!(input, Payload::File(_)), size >= 65_536);
        let mut batch = batch(&[]);
        batch.attempts = vec![BatchAttempt { inputs: vec![vec![input]], ..attempt() }];
        let (ends, end) = run(&mut executor, &batch);
        assert_eq!(end, RunEnd::Complete);
        assert!(output(&ends[0]) == bytes, "{size} bytes came back changed");
        let outputs = ends[0].result.as_ref().unwrap();
        assert_eq!(matches!(outputs[0].payload, Payload::File(_)), size >= 65_536);
    }
}

#[test]
fn many_files_for_one_attempt_arrive_in_order() {
    // Writes the first byte of each input of its only group.
    let firsts = guest(
        r"(local $n i32) (local $list i32)
        (local.set $list (i32.load (local.get $inputs)))
        (block $end (loop $more
          (br_if $end (i32.ge_u (local.get $n) (i32.load offset=4 (local.get $inputs))))
          (call $read (i32.load (i32.add (local.get $list) (i32.mul (local.get $n) (i32.const 4))))
            (i64.const 0) (i32.const 1) (i32.const 64))
          (call $write (i32.load (local.get $outputs)) (i32.load (i32.const 64)) (i32.const 1))
          (local.set $n (i32.add (local.get $n) (i32.const 1)))
          (br $more)))",
    );
    let inputs: Vec<_> = (0..=255_u8).cycle().take(300).map(|n| payload(vec![n; 65_536])).collect();
    let mut batch = batch(&[]);
    batch.attempts = (0..3).map(|_| BatchAttempt { inputs: vec![inputs.clone()], ..attempt() }).collect();
    let (ends, end) = run(&mut executor(&firsts), &batch);
    assert_eq!(end, RunEnd::Complete);
    let expected: Vec<u8> = (0..=255_u8).cycle().take(300).collect();
    for end in &ends {
        assert_eq!(output(end), expected);
    }
}

#[test]
fn every_attempt_starts_in_an_instance_that_was_never_used() {
    // Writes a byte of memory, a global and a table entry as found, then changes all of them.
    let counting = guest_with_functions(
        r"(global $seen (mut i32) (i32.const 0)) (table $t 1 funcref) (elem declare func $f) (func $f)",
        r"
        (i32.store8 (i32.const 100) (i32.add (i32.load8_u (i32.const 100)) (i32.const 1)))
        (global.set $seen (i32.add (global.get $seen) (i32.const 1)))
        (i32.store8 (i32.const 101) (global.get $seen))
        (i32.store8 (i32.const 102) (i32.eqz (ref.is_null (table.get $t (i32.const 0)))))
        (table.set $t (i32.const 0) (ref.func $f))
        (i32.store8 (i32.const 103) (memory.grow (i32.const 1)))
        (call $write (i32.load (local.get $outputs)) (i32.const 100) (i32.const 4))",
    );
    let (ends, end) = run(&mut executor(&counting), &batch(&[b"", b"", b"", b""]));
    assert_eq!(end, RunEnd::Complete);
    for end in &ends {
        assert_eq!(&output(end)[..], [1, 1, 0, 1]);
    }
}

#[test]
fn a_batch_longer_than_the_window_is_complete_and_in_order() {
    let arguments: Vec<_> = (0..1000_u32).map(u32::to_le_bytes).collect();
    let slices: Vec<_> = arguments.iter().map(|bytes| &bytes[..]).collect();
    let mut executor = executor(&guest(ECHO));
    for _ in 0..2 {
        let (ends, end) = run(&mut executor, &batch(&slices));
        assert_eq!((ends.len(), end), (1000, RunEnd::Complete));
        for (position, end) in ends.iter().enumerate() {
            assert_eq!((end.position, &output(end)[..]), (position, slices[position]));
        }
    }
}

#[test]
fn large_arguments_and_results_in_a_long_batch_do_not_block() {
    let large = vec![9_u8; 60_000];
    let arguments: Vec<_> = (0..300).map(|_| &large[..]).collect();
    let mut batch = batch(&arguments);
    batch.limits.output = ByteSize::mib(1);
    let (ends, end) = run(&mut executor(&guest(ECHO)), &batch);
    assert_eq!((ends.len(), end), (300, RunEnd::Complete));
    assert!(ends.iter().all(|end| output(end) == large));
}

#[test]
fn outputs_are_separate_and_as_many_as_asked_for() {
    // Writes the arguments to the last output only.
    let last = guest(
        r"(call $write
            (i32.load (i32.add (local.get $outputs)
              (i32.mul (i32.sub (local.get $output-count) (i32.const 1)) (i32.const 4))))
            (local.get $args) (local.get $args-length))",
    );
    let mut batch = batch(&[b"x"]);
    batch.outputs = 500;
    let (ends, _) = run(&mut executor(&last), &batch);
    let outputs = ends[0].result.as_ref().unwrap();
    assert_eq!(outputs.len(), 500);
    assert_eq!(outputs.iter().map(|output| output.info.size.0).sum::<u64>(), 1);
    assert_eq!(outputs[499].payload.bytes().unwrap(), "x");
}

#[test]
fn the_remaining_budget_is_constant() {
    let budget = guest(
        r"(call $remaining (i32.const 64))
        (call $write (i32.load (local.get $outputs)) (i32.const 64) (i32.const 24))",
    );
    let (end, _) = run_one(&budget, |_| {});
    let expected: Vec<u8> =
        [limits().memory.0, limits().cpu_time.micros, 20_000_000].iter().flat_map(|n| n.to_le_bytes()).collect();
    assert_eq!(output(&end), expected);
}

#[test]
fn usage_is_what_the_attempt_took() {
    // 4 MiB of memory, and some 50 ms of counting.
    let busy = guest(
        r"(local $n i64) (drop (memory.grow (i32.const 63)))
        (local.set $n (i64.const 100000000))
        (loop $more (br_if $more (i64.ne (i64.const 0) (local.tee $n (i64.sub (local.get $n) (i64.const 1))))))",
    );
    let (end, _) = run_one(&busy, |batch| batch.limits.cpu_time.micros = 20_000_000);
    assert!(end.result.is_ok(), "{end:?}");
    assert_eq!(end.usage.peak_memory, ByteSize::mib(4));
    assert!(end.usage.cpu.micros > 10_000, "{}", end.usage.cpu);
}

#[test]
fn describe_lists_the_functions_of_the_module() {
    // One function: name "count", doc "Counts.", 2 inputs, any number of outputs.
    let body = format!(
        r#"(data (i32.const 200) "countCounts.")
        (data (i32.const 300) "\40\01\00\00\01\00\00\00")
        (data (i32.const 320) "\c8\00\00\00\05\00\00\00\cd\00\00\00\07\00\00\00\01\00\00\00\02\00\00\00\00\00\00\00\00\00\00\00")
        {RUN} unreachable) (func (export "describe") (result i32) (i32.const 300))"#
    );
    let mut executor = executor(&component(&body));
    for _ in 0..2 {
        let functions = executor.describe().unwrap();
        let [function] = &functions[..] else { panic!("{functions:?}") };
        assert_eq!((function.name.as_str(), function.doc.as_str()), ("count", "Counts."));
        assert_eq!((function.inputs, function.outputs), (Some(2), None));
    }
}

#[test]
fn an_error_of_the_guest_is_a_failure_with_its_text() {
    for (kind, cause) in [(0, partita_types::Cause::Failed), (1, partita_types::Cause::Retry)] {
        // The result: 1 for error, its kind, pointer and length of the text.
        let body = format!(
            r#"(data (i32.const 200) "no\1b[31m luck") {RUN}
            (drop {done}
            (i32.store (i32.const 500) (i32.const 1)) (i32.store (i32.const 504) (i32.const {kind}))
            (i32.store (i32.const 508) (i32.const 200)) (i32.store (i32.const 512) (i32.const 12))
            (i32.const 500)) {NO_FUNCTIONS}"#,
            done = crate::guests::DONE,
        );
        let (end, alive) = run_one(&component(&body), |_| {});
        let failure = end.result.unwrap_err();
        assert_eq!((failure.cause, failure.message.as_str()), (cause, "no\\u{1b}[31m luck"));
        assert!(alive);
    }
}

#[test]
fn the_log_has_lines_of_all_levels_and_the_failure_its_last_ones() {
    let body = format!(
        r#"(data (i32.const 200) "first\nsecond\1b") {RUN}
        (call $log (i32.const 1) (i32.const 200) (i32.const 13)) (call $log (i32.const 3) (i32.const 200) (i32.const 5))
        unreachable) {NO_FUNCTIONS}"#
    );
    let (end, _) = run_one(&component(&body), |_| {});
    let lines: Vec<_> = end.log.iter().map(|line| (line.level.as_str(), line.text.as_str())).collect();
    assert_eq!(lines, [("info", "first"), ("info", "second\\u{1b}"), ("error", "first")]);
    assert_eq!(end.result.unwrap_err().log_tail, ["first", "second\\u{1b}", "first"]);
}

#[test]
fn progress_can_be_seen_from_outside_while_the_attempt_runs() {
    let spinning = guest("(call $progress (i64.const 3) (i64.const 7)) (loop $ever (br $ever))");
    let control = RunControl::new().unwrap();
    let seen = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| until(&control, |running| running.total > 0));
        let _ = crate::guests::run_with(&mut executor(&spinning), &batch(&[b""]), &control);
        watcher.join().unwrap()
    });
    assert_eq!((seen.position, seen.done, seen.total), (0, 3, 7));
}
