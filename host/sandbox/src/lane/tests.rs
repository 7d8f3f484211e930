//! Executors that misbehave on purpose. The daemon's side must end them, blame one attempt, and stay calm.

use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::thread;

use bytes::Bytes;
use partita_types::{Cause, TaskLimits, Timestamp};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::*;
use crate::BatchAttempt;
use crate::payload::memory_file;
use crate::wire::page::Page;
use crate::wire::socket::Socket;
use crate::zygote::{Grave, Process};

const LIMITS: TaskLimits = TaskLimits {
    memory: ByteSize::mib(1),
    cpu_time: CpuTime::from_micros(60_000_000),
    wall_time: Duration::from_millis(200),
    output: ByteSize::kib(64),
    log: ByteSize::kib(4),
};

/// An executor whose part is played by `act`, in a thread; a sleeping process stands for it to be killed.
fn actor(act: impl FnOnce(&Socket, &Page) + Send + 'static) -> Executor {
    let mut sleeper = Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = sleeper.id();
    let pidfd = pidfd_open(Pid::from_child(&sleeper), PidfdFlags::empty()).unwrap();
    let grave = Arc::<Grave>::default();
    let told = grave.clone();
    thread::spawn(move || {
        let status = sleeper.wait().unwrap().into_raw();
        told.tell(Death { status, cpu: CpuTime::from_micros(1_000) });
    });
    let (socket, theirs) = Socket::pair().unwrap();
    let (page, file) = Page::create().unwrap();
    thread::spawn(move || {
        let page = Page::map(file.as_fd()).unwrap();
        theirs.send(&Packet::new(from_executor::READY, &[0], Vec::new()).unwrap()).unwrap();
        // The first chunk: an executor knows nothing before it.
        theirs.receive(&mut Vec::new()).unwrap();
        act(&theirs, &page);
        // An executor that has nothing more to say stays connected until it is killed.
        let _ = theirs.receive(&mut Vec::new());
    });
    let process = Process { pid, pidfd, grave };
    Executor::connect(process, socket, page, LIMITS.memory, Duration::from_secs(10)).unwrap()
}

fn batch(attempts: usize) -> Batch {
    Batch {
        function: "f".to_owned(),
        limits: LIMITS,
        outputs: 1,
        submitted_at: Timestamp::default(),
        common_arguments: Bytes::new(),
        attempts: vec![BatchAttempt { seed: [0; 32], arguments: None, inputs: Vec::new() }; attempts],
    }
}

fn run(executor: &mut Executor, attempts: usize) -> (Vec<AttemptEnd>, RunEnd) {
    let mut ends = Vec::new();
    let end = executor.run(&batch(attempts), &RunControl::new().unwrap(), &mut |end| ends.push(end));
    (ends, end)
}

/// The first of three attempts must be blamed with this cause.
fn expect_blame(cause: Cause, act: impl FnOnce(&Socket, &Page) + Send + 'static) -> Failure {
    let mut executor = actor(act);
    let (mut ends, end) = run(&mut executor, 3);
    assert_eq!(end, RunEnd::ExecutorLost { next: 1 });
    assert_eq!(ends.len(), 1);
    assert!(!executor.handle().is_alive());
    let failure = ends.remove(0).result.unwrap_err();
    assert_eq!(failure.cause, cause, "{failure:?}");
    failure
}

fn send(socket: &Socket, kind: u8, body: &[u8]) {
    let _ = socket.send(&Packet::new(kind, body, Vec::new()).unwrap());
}

/// The record of an attempt that succeeded with one output.
fn record(cpu_ns: u64, peak: u64, output: &[u8]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.u8(RECORD_HERE);
    writer.u64(cpu_ns);
    writer.u64(peak);
    writer.u8(0);
    writer.count(1);
    writer.u8(0);
    writer.bytes(output);
    writer.u32(0);
    writer.count(0);
    writer.into_bytes()
}

#[test]
fn an_unknown_message_ends_the_executor() {
    for kind in [0, 99, from_executor::READY, from_executor::FUNCTIONS] {
        expect_blame(Cause::Crash, move |socket, _| send(socket, kind, b"?"));
    }
}

#[test]
fn the_end_of_a_chunk_that_was_never_sent_ends_the_executor() {
    let failure = expect_blame(Cause::Crash, |socket, _| {
        for _ in 0..3 {
            send(socket, from_executor::CHUNK, &[]);
        }
    });
    assert!(failure.message.contains("the end of no chunk"), "{failure:?}");
}

#[test]
fn a_record_that_is_no_record_ends_the_executor() {
    let valid = record(0, 0, b"x");
    for length in 0..valid.len() {
        let cut = valid[..length].to_vec();
        expect_blame(Cause::Crash, move |_, page| page.publish(0, &cut));
    }
    let mut longer = valid;
    longer.push(0);
    expect_blame(Cause::Crash, move |_, page| page.publish(0, &longer));
}

#[test]
fn an_end_that_never_comes_over_the_socket_ends_the_executor() {
    let failure = expect_blame(Cause::Crash, |_, page| page.publish(0, &[RECORD_IN_MESSAGE]));
    assert!(failure.message.contains("an end is missing"), "{failure:?}");
}

#[test]
fn the_end_of_another_attempt_ends_the_executor() {
    expect_blame(Cause::Crash, |socket, page| {
        send(socket, from_executor::END, &[7; 100]);
        page.publish(0, &[RECORD_IN_MESSAGE]);
    });
}

#[test]
fn a_flood_of_messages_is_bounded() {
    expect_blame(Cause::Crash, |socket, _| {
        for _ in 0..WINDOW + 1 {
            send(socket, from_executor::END, &[0; 64]);
        }
    });
}

#[test]
fn an_output_file_that_could_still_change_ends_the_executor() {
    let failure = expect_blame(Cause::Crash, |socket, _| {
        let file = memory_file("open").unwrap();
        let _ = socket.send(&Packet::new(from_executor::FILES, &[], vec![file]).unwrap());
    });
    assert!(failure.message.contains("not sealed"), "{failure:?}");
    let failure = expect_blame(Cause::Crash, |socket, _| {
        let file = std::fs::File::open("/").unwrap().into();
        let _ = socket.send(&Packet::new(from_executor::FILES, &[], vec![file]).unwrap());
    });
    assert!(failure.message.contains("not acceptable"), "{failure:?}");
}

#[test]
fn more_output_than_the_limit_ends_the_executor() {
    let mut too_much = Writer::default();
    too_much.u64(0);
    too_much.raw(&record(0, 0, &vec![0; (64 << 10) + 1])[1..]);
    let body = too_much.into_bytes();
    let failure = expect_blame(Cause::Crash, move |socket, page| {
        send(socket, from_executor::END, &body);
        page.publish(0, &[RECORD_IN_MESSAGE]);
    });
    assert!(failure.message.contains("more output than the limit"), "{failure:?}");
}

#[test]
fn an_executor_that_claims_to_run_nothing_is_held_to_its_wall_time() {
    expect_blame(Cause::WallTime, |_, _| {});
}

#[test]
fn an_executor_that_claims_to_run_the_impossible_is_held_to_its_wall_time() {
    for position in [3, 1_000_000, u64::MAX - 1] {
        expect_blame(Cause::WallTime, move |_, page| page.begin(position, u64::MAX));
    }
}

#[test]
fn an_executor_that_skips_an_attempt_is_blamed_for_losing_it() {
    let failure = expect_blame(Cause::Crash, |_, page| page.begin(2, 0));
    assert!(failure.message.contains("lost the end"), "{failure:?}");
}

#[test]
fn claimed_usage_is_bounded_by_the_kernel_and_the_limit() {
    let mut executor = actor(|socket, page| {
        page.publish(0, &record(u64::MAX, u64::MAX, b"x"));
        send(socket, from_executor::CHUNK, &[]);
    });
    let (ends, end) = run(&mut executor, 1);
    assert_eq!(end, RunEnd::Complete);
    assert!(ends[0].usage.cpu <= CpuTime::from_micros(100_000), "{:?}", ends[0].usage);
    assert_eq!(ends[0].usage.peak_memory, LIMITS.memory);
}

#[test]
fn a_closed_connection_is_a_crash_even_if_the_process_lives() {
    expect_blame(Cause::Crash, |socket, _| {
        rustix::net::shutdown(socket, rustix::net::Shutdown::Both).unwrap();
    });
}

#[test]
fn what_was_finished_before_the_misbehaviour_counts() {
    let mut executor = actor(|_, page| {
        page.publish(0, &record(0, 0, b"one"));
        page.begin(1, 0);
    });
    let (ends, end) = run(&mut executor, 3);
    assert_eq!(end, RunEnd::ExecutorLost { next: 2 });
    assert_eq!(ends[0].result.as_ref().unwrap()[0].payload.bytes().unwrap(), "one");
    assert_eq!(ends[1].result.as_ref().unwrap_err().cause, Cause::WallTime);
}

#[test]
fn nobody_is_blamed_when_everything_was_finished() {
    let mut executor = actor(|socket, page| {
        page.publish(0, &record(0, 0, b"one"));
        rustix::net::shutdown(socket, rustix::net::Shutdown::Both).unwrap();
    });
    let (ends, end) = run(&mut executor, 1);
    assert_eq!((ends.len(), end), (1, RunEnd::ExecutorLost { next: 1 }));
    assert!(ends[0].result.is_ok());
}

#[test]
fn an_executor_that_never_ends_its_chunk_is_ended() {
    let mut executor = actor(|_, page| page.publish(0, &record(0, 0, b"one")));
    let (ends, end) = run(&mut executor, 1);
    assert_eq!((ends.len(), end), (1, RunEnd::ExecutorLost { next: 1 }));
    assert!(!executor.handle().is_alive());
}

#[test]
fn an_executor_that_is_paused_before_it_ends_its_chunk_is_not_blamed() {
    let mut executor = actor(|socket, page| {
        page.publish(0, &record(0, 0, b"one"));
        // Nobody hangs up, though it takes longer than the end of a chunk may.
        let longer = Timespec::try_from(CHUNK_END_LIMIT * 2).unwrap();
        let hung_up = rustix::event::poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&longer)).unwrap();
        assert_eq!(hung_up, 0);
        send(socket, from_executor::CHUNK, &[]);
    });
    let control = RunControl::new().unwrap();
    control.set_paused(true);
    let mut ends = Vec::new();
    let end = executor.run(&batch(1), &control, &mut |end| ends.push(end));
    assert_eq!((ends.len(), end), (1, RunEnd::Complete));
}
