//! What the tests share: guests around a given body, a zygote, and short ways to run attempts.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use partita_sandbox::{
    Artefact, ArtefactCache, AttemptEnd, Batch, BatchAttempt, CompileError, CompileLimits, Compiler, Executor, Payload,
    Program, RunControl, RunEnd, Running, Zygote, ZygoteConfig,
};
use partita_types::{ByteSize, Cause, CpuTime, Failure, ModuleId, TaskLimits, Timestamp};

const WORLD: &str = include_str!("../../src/world.wat");

/// The parameters and the result of `run`.
pub(crate) const RUN: &str = r#"(func (export "run") (param $name i32) (param $name-length i32) (param $args i32)
    (param $args-length i32) (param $inputs i32) (param $input-groups i32) (param $outputs i32)
    (param $output-count i32) (result i32)"#;
/// Ends a `run` that succeeded.
pub(crate) const DONE: &str =
    "(call $done (local.get $inputs) (local.get $input-groups) (local.get $outputs) (local.get $output-count)))";
/// A `describe` that lists no functions.
pub(crate) const NO_FUNCTIONS: &str = r#"(func (export "describe") (result i32) (i32.const 8))"#;

/// A component whose `run` does `instructions` and then succeeds.
pub(crate) fn guest(instructions: &str) -> Vec<u8> {
    guest_with_functions("", instructions)
}

/// As [`guest`], with further definitions in its module.
pub(crate) fn guest_with_functions(definitions: &str, instructions: &str) -> Vec<u8> {
    component(&format!("{definitions} {RUN} {instructions} {DONE} {NO_FUNCTIONS}"))
}

/// A component around the module fields `body`.
pub(crate) fn component(body: &str) -> Vec<u8> {
    wat::parse_str(WORLD.replace(";;BODY", body)).expect("the test's guest is valid text")
}

/// A component that imports more than our own context.
pub(crate) fn importing(component: &str, with: &str, fields: &str, instructions: &str) -> Vec<u8> {
    let text = WORLD
        .replace(";;BODY", &format!("{RUN} {instructions} {DONE} {NO_FUNCTIONS}"))
        .replace(";;COMPONENT", component)
        .replace(";;WITH", with)
        .replace(";;FIELDS", fields);
    wat::parse_str(text).expect("the test's guest is valid text")
}

pub(crate) fn program() -> Program {
    Program { path: env!("CARGO_BIN_EXE_partita-sandbox-helper").into(), args: Vec::new() }
}

pub(crate) fn compile(component: &[u8]) -> Result<Vec<u8>, CompileError> {
    Compiler::new(program(), CompileLimits::default()).compile(component)
}

pub(crate) fn artefact(component: &[u8]) -> Artefact {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let cache = ArtefactCache::open(directory.path(), [7; 32]).expect("a cache");
    let code = compile(component).expect("the test's guest compiles");
    cache.insert(ModuleId([1; 32]), &code).expect("an artefact")
}

/// One zygote for all tests. It ends with the test process.
pub(crate) fn zygote() -> &'static Zygote {
    static ZYGOTE: OnceLock<Zygote> = OnceLock::new();
    ZYGOTE.get_or_init(|| Zygote::start(&program(), ZygoteConfig::default()).expect("a zygote"))
}

pub(crate) fn executor(component: &[u8]) -> Executor {
    zygote().fork(&artefact(component), ByteSize::mib(256)).expect("an executor")
}

/// Limits that a test guest meets soon.
pub(crate) fn limits() -> TaskLimits {
    TaskLimits {
        memory: ByteSize::mib(16),
        cpu_time: CpuTime::from_micros(300_000),
        wall_time: Duration::from_secs(20),
        output: ByteSize::mib(4),
        log: ByteSize::kib(16),
    }
}

pub(crate) fn attempt() -> BatchAttempt {
    BatchAttempt { seed: [3; 32], arguments: None, inputs: Vec::new() }
}

/// Attempts that differ only in their arguments.
pub(crate) fn batch(arguments: &[&[u8]]) -> Batch {
    let with = |bytes: &&[u8]| BatchAttempt { arguments: Some(Bytes::copy_from_slice(bytes)), ..attempt() };
    Batch {
        function: "f".to_owned(),
        limits: limits(),
        outputs: 1,
        submitted_at: Timestamp::from_micros(1_700_000_000_000_000),
        common_arguments: Bytes::new(),
        attempts: arguments.iter().map(with).collect(),
    }
}

pub(crate) fn run(executor: &mut Executor, batch: &Batch) -> (Vec<AttemptEnd>, RunEnd) {
    run_with(executor, batch, &RunControl::new().expect("a control"))
}

pub(crate) fn run_with(executor: &mut Executor, batch: &Batch, control: &RunControl) -> (Vec<AttemptEnd>, RunEnd) {
    let mut ends = Vec::new();
    let end = executor.run(batch, control, &mut |end| ends.push(end));
    (ends, end)
}

/// Runs one attempt of a guest and returns its end, and whether the executor lives on.
pub(crate) fn run_one(component: &[u8], change: impl FnOnce(&mut Batch)) -> (AttemptEnd, bool) {
    let mut batch = batch(&[b""]);
    change(&mut batch);
    let (mut ends, end) = run(&mut executor(component), &batch);
    assert_eq!(ends.len(), 1, "one end for one attempt");
    (ends.remove(0), end == RunEnd::Complete)
}

/// The failure of a single attempt, which must have this cause.
pub(crate) fn failure_of(component: &[u8], cause: Cause) -> Failure {
    let (end, alive) = run_one(component, |_| {});
    let failure = end.result.expect_err("the attempt must fail");
    assert_eq!(failure.cause, cause, "{failure:?}");
    let killed = matches!(cause, Cause::CpuTime | Cause::WallTime | Cause::Crash);
    assert_eq!(alive, !killed, "executor after {cause}: {failure:?}");
    failure
}

/// The only output of an attempt that succeeded.
pub(crate) fn output(end: &AttemptEnd) -> Bytes {
    let outputs = end.result.as_ref().unwrap_or_else(|failure| panic!("attempt failed: {failure:?}"));
    let [output] = &outputs[..] else { panic!("{} outputs", outputs.len()) };
    let bytes = output.payload.bytes().expect("the output can be read");
    assert_eq!(output.info.size.0, bytes.len() as u64);
    assert_eq!(output.info.hash.0, *blake3::hash(&bytes).as_bytes());
    bytes
}

pub(crate) fn payload(bytes: Vec<u8>) -> Payload {
    Payload::new(Bytes::from(bytes)).expect("a payload")
}

/// Waits until the attempt that runs is as wanted. Gives up after a time that no test needs, so that a test whose guest
/// does something else fails rather than hangs.
pub(crate) fn until(control: &RunControl, wanted: impl Fn(&Running) -> bool) -> Running {
    #[expect(clippy::disallowed_methods, reason = "a bound for a test that goes wrong")]
    let now = Instant::now;
    let deadline = now() + Duration::from_secs(30);
    while now() < deadline {
        match control.running() {
            Some(running) if wanted(&running) => return running,
            _ => std::thread::yield_now(),
        }
    }
    panic!("no attempt came to run as wanted, now: {:?}", control.running());
}
