//! Killing and cancelling in the middle of a batch: exact blame, nothing twice, nothing lost.

use partita_sandbox::{RunControl, RunEnd, Zygote, ZygoteConfig};
use partita_types::{ByteSize, Cause};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::guests::{artefact, batch, executor, guest, output, program, run, run_with, until};

/// Echoes its arguments; without arguments it never ends.
const ECHO_OR_SPIN: &str = r"
  (if (i32.eqz (local.get $args-length)) (then (call $progress (i64.const 1) (i64.const 1)) (loop $ever (br $ever))))
  (call $write (i32.load (local.get $outputs)) (local.get $args) (local.get $args-length))";

/// Waits until the attempt at `position` has begun to spin.
fn until_spinning(control: &RunControl, position: usize) {
    until(control, |running| running.position == position && running.total == 1);
}

#[test]
fn a_kill_in_the_middle_blames_exactly_the_attempt_that_ran() {
    for culprit in [0, 1, 63, 64, 100] {
        let arguments: Vec<&[u8]> = (0..150).map(|n| if n == culprit { &b""[..] } else { b"x" }).collect();
        let (ends, end) = run(&mut executor(&guest(ECHO_OR_SPIN)), &batch(&arguments));
        assert_eq!(end, RunEnd::ExecutorLost { next: culprit + 1 });
        assert_eq!(ends.len(), culprit + 1);
        for end in &ends[..culprit] {
            assert_eq!(output(end), "x");
        }
        assert_eq!(ends[culprit].result.as_ref().unwrap_err().cause, Cause::CpuTime);
    }
}

#[test]
fn cancelling_the_running_attempt_ends_it_at_once() {
    let control = RunControl::new().unwrap();
    let mut batch = batch(&[b"x", b"", b"y"]);
    batch.limits.cpu_time.micros = 60_000_000;
    let (ends, end) = std::thread::scope(|scope| {
        scope.spawn(|| {
            until_spinning(&control, 1);
            control.cancel(1);
        });
        run_with(&mut executor(&guest(ECHO_OR_SPIN)), &batch, &control)
    });
    assert_eq!(end, RunEnd::ExecutorLost { next: 2 });
    assert_eq!(output(&ends[0]), "x");
    assert_eq!(ends[1].result.as_ref().unwrap_err().cause, Cause::Cancelled);
    assert_eq!(ends.len(), 2);
    assert!(ends[1].usage.cpu.micros < 30_000_000, "{}", ends[1].usage.cpu);
}

#[test]
fn cancelling_what_has_not_started_spares_the_executor() {
    let control = RunControl::new().unwrap();
    control.cancel(1);
    control.cancel(200);
    control.cancel(9_999);
    let arguments: Vec<&[u8]> = (0..300).map(|n| if [1, 200].contains(&n) { &b""[..] } else { b"x" }).collect();
    let (ends, end) = run_with(&mut executor(&guest(ECHO_OR_SPIN)), &batch(&arguments), &control);
    assert_eq!((ends.len(), end), (300, RunEnd::Complete));
    for (position, end) in ends.iter().enumerate() {
        match &end.result {
            Ok(_) => assert_eq!(output(end), "x"),
            Err(failure) => assert!([1, 200].contains(&position) && failure.cause == Cause::Cancelled, "{failure:?}"),
        }
    }
}

#[test]
fn cancelling_one_that_waits_behind_a_running_one_skips_it() {
    let control = RunControl::new().unwrap();
    let mut executor = executor(&guest(ECHO_OR_SPIN));
    let (ends, end) = std::thread::scope(|scope| {
        scope.spawn(|| {
            until_spinning(&control, 0);
            control.cancel(1);
        });
        run_with(&mut executor, &batch(&[b"", b"x", b"y"]), &control)
    });
    // The first one reaches its CPU limit; the second is handed on, to be cancelled where it would run.
    assert_eq!(end, RunEnd::ExecutorLost { next: 1 });
    assert_eq!(ends.len(), 1);
}

#[test]
fn cancelling_everything_reports_every_attempt() {
    let control = RunControl::new().unwrap();
    let mut batch = batch(&[b"x", b"", b"y", b"z"]);
    batch.limits.cpu_time.micros = 60_000_000;
    let (ends, end) = std::thread::scope(|scope| {
        scope.spawn(|| {
            until_spinning(&control, 1);
            control.cancel_all();
        });
        run_with(&mut executor(&guest(ECHO_OR_SPIN)), &batch, &control)
    });
    assert_eq!((ends.len(), end), (4, RunEnd::ExecutorLost { next: 4 }));
    assert_eq!(output(&ends[0]), "x");
    for end in &ends[1..] {
        assert_eq!(end.result.as_ref().unwrap_err().cause, Cause::Cancelled);
    }
}

#[test]
fn an_executor_that_is_killed_from_outside_is_a_crash_that_names_the_signal() {
    let control = RunControl::new().unwrap();
    let mut executor = executor(&guest(ECHO_OR_SPIN));
    let handle = executor.handle();
    let (ends, end) = std::thread::scope(|scope| {
        scope.spawn(|| {
            until_spinning(&control, 1);
            handle.kill();
        });
        run_with(&mut executor, &batch(&[b"x", b"", b"y"]), &control)
    });
    assert_eq!(end, RunEnd::ExecutorLost { next: 2 });
    let failure = ends[1].result.as_ref().unwrap_err();
    assert_eq!((failure.cause, failure.message.as_str()), (Cause::Crash, "the executor died, killed by SIGKILL"));
    assert!(!executor.handle().is_alive());
}

#[test]
fn a_lost_executor_says_so_and_blames_one_attempt_at_most() {
    let mut executor = executor(&guest(ECHO_OR_SPIN));
    let _ = run(&mut executor, &batch(&[b""]));
    let (ends, end) = run(&mut executor, &batch(&[b"x", b"y"]));
    assert_eq!(ends.len(), 1);
    assert_eq!(end, RunEnd::ExecutorLost { next: 1 });
    assert_eq!(executor.describe().unwrap_err().cause, Cause::Crash);
}

#[test]
fn stopping_takes_no_cpu_time_and_resuming_goes_on() {
    let control = RunControl::new().unwrap();
    let mut executor = executor(&guest(ECHO_OR_SPIN));
    let handle = executor.handle();
    let (ends, _) = std::thread::scope(|scope| {
        scope.spawn(|| {
            until_spinning(&control, 0);
            for _ in 0..20 {
                handle.stop();
                handle.resume();
            }
        });
        run_with(&mut executor, &batch(&[b""]), &control)
    });
    assert_eq!(ends[0].result.as_ref().unwrap_err().cause, Cause::CpuTime);
}

#[test]
fn executors_end_with_their_zygote_and_it_can_be_replaced() {
    let artefact = artefact(&guest(ECHO_OR_SPIN));
    let zygote = Zygote::start(&program(), ZygoteConfig::default()).unwrap();
    let mut executor = zygote.fork(&artefact, ByteSize::mib(16)).unwrap();
    let control = RunControl::new().unwrap();
    let mut batch = batch(&[b""]);
    batch.limits.cpu_time.micros = 60_000_000;
    let ends = std::thread::scope(|scope| {
        scope.spawn(|| {
            until_spinning(&control, 0);
            drop(zygote);
        });
        run_with(&mut executor, &batch, &control).0
    });
    assert_eq!(ends[0].result.as_ref().unwrap_err().cause, Cause::Crash);
    let zygote = Zygote::start(&program(), ZygoteConfig::default()).unwrap();
    assert!(zygote.is_alive());
    assert!(zygote.fork(&artefact, ByteSize::mib(16)).is_ok());
}

#[test]
fn a_stopped_executor_ends_with_its_zygote() {
    let zygote = Zygote::start(&program(), ZygoteConfig::default()).unwrap();
    let executor = zygote.fork(&artefact(&guest(ECHO_OR_SPIN)), ByteSize::mib(16)).unwrap();
    let pid = Pid::from_raw(executor.pid().cast_signed()).unwrap();
    let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    executor.handle().stop();
    drop(zygote);
    // The descriptor becomes readable when the process has ended, and not before.
    let patience = rustix::event::Timespec { tv_sec: 30, tv_nsec: 0 };
    let polled = rustix::event::poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&patience)).unwrap();
    assert_eq!(polled, 1, "the process lives");
}
