//! Calls of task functions through bytes: what fits between a job and a function, and what is said when it does not.

extern crate partita_guest as partita;

use std::io::{BufRead as _, Write as _};

use partita::prelude::*;
use partita::testing;

partita::module!(
    nothing,
    reorder,
    concat,
    lines,
    tail,
    numbers,
    scatter,
    deal,
    short,
    busy,
    broken,
    inner::deeper,
    r#match
);

/// Does nothing at all.
#[partita::task]
fn nothing() {}

/// Takes parameters of all kinds in an odd order.
///
/// This paragraph is not part of the description.
#[partita::task]
fn reorder(first: Text, Args(sign): Args<char>, outputs: Outputs, second: Json<u32>) -> String {
    format!("{first}{sign}{second}/{}", outputs.count(), first = first.0, second = second.0)
}

/// Joins texts.
#[partita::task]
fn concat(texts: Many<Text>) -> Result<Text> {
    texts.map(|text| text.map(|text| text.0)).collect::<Result<String>>().map(Text)
}

/// Counts lines of many streams.
#[partita::task]
fn lines(streams: Many<Reader>) -> Result<Postcard<Vec<usize>>> {
    let mut counts = Vec::new();
    for stream in streams {
        counts.push(stream?.lines().count());
    }
    Ok(Postcard(counts))
}

/// Gives back all but the first byte.
#[partita::task]
fn tail(bytes: Bytes) -> Vec<u8> {
    bytes[1..].to_vec()
}

/// Writes numbers.
#[partita::task]
fn numbers(Args(count): Args<u32>, mut out: Writer) -> Result<()> {
    (0..count).try_for_each(|number| Ok(writeln!(out, "{number}")?))
}

/// Writes its number to each output.
#[partita::task]
fn scatter(mut outputs: Writers) -> Result<(), std::io::Error> {
    outputs.iter_mut().enumerate().try_for_each(|(number, out)| write!(out, "{number}"))
}

/// Gives each output its number.
#[partita::task]
fn deal(outputs: Outputs) -> Partitioned<Json<usize>> {
    Partitioned::with(outputs, Json)
}

/// Makes one output whatever was asked for.
#[partita::task]
fn short() -> Partitioned<String> {
    Partitioned::from(vec![String::new()])
}

/// Is not ready yet.
#[partita::task]
fn busy() -> Result<()> {
    Err(Error::retry("not yet"))
}

/// Fails with an error of the standard library.
#[partita::task]
fn broken() -> Result<String, std::num::ParseIntError> {
    "x".parse::<u8>().map(|number| number.to_string())
}

/// Has a name that is a keyword.
#[partita::task]
fn r#match() -> &'static str {
    "matched"
}

mod inner {
    /// Is not in the root of the crate.
    #[partita::task]
    pub(crate) fn deeper() -> &'static str {
        "deep"
    }
}

fn run(name: &str, arguments: &str, inputs: &[&[&[u8]]], outputs: usize) -> Result<Vec<Vec<u8>>> {
    let inputs = inputs.iter().map(|group| group.iter().map(|bytes| bytes.to_vec()).collect()).collect();
    testing::run(&MODULE, name, arguments, inputs, outputs)
}

fn message(name: &str, arguments: &str, inputs: &[&[&[u8]]], outputs: usize) -> String {
    run(name, arguments, inputs, outputs).expect_err("the call was accepted").to_string()
}

#[test]
fn parameters_are_recognised_by_type_in_any_order() {
    assert_eq!(run("reorder", "\"+\"", &[&[b"a"], &[b"7"]], 1).unwrap(), [b"a+7/1"]);
}

#[test]
fn every_form_of_input_and_output_goes_through_bytes() {
    assert_eq!(run("nothing", "", &[], 1).unwrap(), [b""]);
    assert_eq!(run("concat", "", &[&[b"a", b"", b"c"]], 1).unwrap(), [b"ac"]);
    assert_eq!(run("concat", "", &[&[]], 1).unwrap(), [b""]);
    assert_eq!(run("lines", "", &[&[b"a\nb", b""]], 1).unwrap(), [testing::postcard(&[2_usize, 0].to_vec()).unwrap()]);
    assert_eq!(run("tail", "", &[&[b"\xffab"]], 1).unwrap(), [b"ab"]);
    assert_eq!(run("numbers", "2", &[], 1).unwrap(), [b"0\n1\n"]);
    assert_eq!(run("scatter", "", &[], 3).unwrap(), [b"0", b"1", b"2"]);
    assert_eq!(run("deal", "", &[], 2).unwrap(), [b"0", b"1"]);
    assert_eq!(run("deeper", "", &[], 1).unwrap(), [b"deep"]);
    assert_eq!(run("match", "", &[], 1).unwrap(), [b"matched"]);
}

#[test]
fn functions_are_described() {
    let described: Vec<_> = MODULE.tasks().iter().map(|task| (task.name, task.inputs, task.outputs)).collect();
    assert_eq!(
        described[..4],
        [("nothing", 0, Some(1)), ("reorder", 2, Some(1)), ("concat", 1, Some(1)), ("lines", 1, Some(1))]
    );
    assert_eq!(described[6..9], [("scatter", 0, None), ("deal", 0, None), ("short", 0, None)]);
    assert_eq!(MODULE.tasks()[1].doc, "Takes parameters of all kinds in an odd order.");
}

#[test]
fn a_job_that_does_not_fit_is_told_what_the_function_takes() {
    assert_eq!(message("concat", "", &[], 1), "`concat` takes 1 input, but the job gives it 0");
    assert_eq!(message("concat", "", &[&[], &[]], 1), "`concat` takes 1 input, but the job gives it 2");
    assert_eq!(message("nothing", "", &[], 2), "`nothing` writes 1 output, but the job asks for 2");
    assert_eq!(message("short", "", &[], 2), "`short` made values for 1 outputs, but the job asks for 2");
    let none = message("tail", "", &[&[]], 1);
    assert_eq!(none, "input 1 (`bytes`) of `tail` takes one partition, but the job gives it 0: use `Many`");
    assert!(message("tail", "", &[&[b"a", b"b", b"c"]], 1).contains("gives it 3"));
    assert!(message("absent", "", &[], 1).starts_with("the module has no function `absent`; it has nothing, reorder"));
}

#[test]
fn what_cannot_be_decoded_is_named() {
    let second = message("reorder", "\"+\"", &[&[b"a"], &[b"x"]], 1);
    assert!(second.starts_with("input 2 (`second`) of `reorder`: decoding JSON: expected value"), "{second}");
    let arguments = message("reorder", "7", &[&[b"a"], &[b"1"]], 1);
    assert!(arguments.starts_with("the arguments of `reorder`: invalid type: integer `7`"), "{arguments}");
    assert!(message("concat", "", &[&[b"a", b"\xff"]], 1).starts_with("partition 2 of 2: not UTF-8 from byte 0 on"));
}

#[test]
fn failures_keep_their_message_and_their_wish_for_a_retry() {
    let busy = run("busy", "", &[], 1).unwrap_err();
    assert!(busy.is_retryable() && busy.to_string() == "not yet");
    let broken = run("broken", "", &[], 1).unwrap_err();
    assert!(!broken.is_retryable() && broken.to_string() == "invalid digit found in string");
}

#[test]
fn logging_and_progress_work_without_a_host() {
    partita::debug!("plain");
    partita::info!("{} of {}", 1, 2);
    partita::warn!("careful");
    partita::error!("bad");
    partita::progress(1, 2);
    assert!(partita::remaining().memory > 0);
}
