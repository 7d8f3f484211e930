use std::time::Duration;

use partita_types::{Arguments, ArrayIndex, CpuTime, DatasetName, OutputRef, TaskCount};

use super::*;

const WORDFREQ: &str = r#"
name = "wordfreq"
deadline = "1h"
[modules]
wordfreq = { path = "wordfreq.wasm" }
[[array]]
name = "map"
function = "wordfreq.map"
outputs = 8
args = { min_length = 1 }
inputs = [ { dataset = "crates", split = "4MiB", limit = "256MiB" } ]
memory = "128MiB"
cpu_time = "90s"
retries = 0
memory_max = "1GiB"
speculate = false
[[array]]
name = "reduce"
function = "wordfreq.reduce"
inputs = [ { slice = "map" } ]
[[array]]
name = "top"
function = "wordfreq.top"
args = { n = 20 }
inputs = [ { fold = "reduce", arity = 4 } ]
"#;

fn parse(text: &str) -> Result<JobFile, JobFileError> {
    JobFile::parse(text, Path::new("jobs/job.toml"))
}

/// The error of a file with one module `m` and these arrays, which begin at line 4.
fn error_of(arrays: &str) -> String {
    let text = format!("name = \"j\"\n[modules]\nm = {{ name = \"m\" }}\n{arrays}");
    parse(&text).expect_err("a faulty file was accepted").to_string()
}

fn array(name: &str, rest: &str) -> String {
    format!("[[array]]\nname = \"{name}\"\nfunction = \"m.f\"\n{rest}\n")
}

#[test]
fn the_example_of_the_documentation_becomes_the_job_that_it_says() {
    let file = parse(WORDFREQ).unwrap();
    assert_eq!(file.modules()["wordfreq"], ModuleSource::Path(PathBuf::from("jobs/wordfreq.wasm")));
    let id = ModuleId([9; 32]);
    let spec = file.spec(&BTreeMap::from([("wordfreq".to_owned(), id)])).unwrap();
    assert_eq!(spec.name, "wordfreq");
    let map = &spec.arrays[0];
    assert_eq!(map.source, ArraySource::Function { module: id, function: "map".into() });
    assert_eq!((map.outputs, map.tasks), (8, TaskCount::FromInputs));
    assert_eq!(map.arguments, Arguments::Common(br#"{"min_length":1}"#.to_vec()));
    assert_eq!(
        map.inputs,
        [Edge::Dataset {
            dataset: DatasetName::new("crates").unwrap(),
            split: ByteSize::mib(4),
            limit: Some(ByteSize::mib(256))
        }]
    );
    assert_eq!(map.options.limits.memory, Some(ByteSize::mib(128)));
    assert_eq!(map.options.limits.cpu_time, Some(CpuTime::from(Duration::from_secs(90))));
    assert_eq!(map.options.limits.wall_time, None);
    assert_eq!((map.options.retries, map.options.memory_max), (0, Some(ByteSize::gib(1))));
    assert_eq!((map.options.speculate, spec.arrays[1].options.speculate), (false, true));
    assert_eq!(spec.deadline, Some(Duration::from_secs(3_600)));
    assert_eq!(spec.arrays[1].inputs, [Edge::Slice { array: ArrayIndex(0) }]);
    assert_eq!(spec.arrays[2].inputs, [Edge::Fold { array: ArrayIndex(1), arity: 4 }]);
}

#[test]
fn every_kind_of_input_can_be_written() {
    let mut text = "name = \"j\"\nmodules.m = { name = \"m\" }\n".to_owned();
    text += &array("a", "tasks = 5\noutputs = 2");
    text += &array("b", "inputs = [{ each = \"a\", output = 1 }, { all = \"a\" }, { literal = \"x\" }]");
    text += &array("c", "inputs = [{ list = [[\"a[3]\", \"a[4].1\"], []] }, { literals = [\"p\", \"q\"] }]");
    text += &array("d", "args_per_task = [1, \"two\", { three = 3.5, since = 2026-01-02 }]");
    let spec = parse(&text).unwrap().spec(&BTreeMap::from([("m".to_owned(), ModuleId([1; 32]))])).unwrap();
    let a = ArrayIndex(0);
    assert_eq!(
        spec.arrays[1].inputs,
        [
            Edge::Each { array: a, output: 1 },
            Edge::All { array: a, output: 0 },
            Edge::Literal { values: vec![b"x".to_vec()] }
        ]
    );
    let output = |index, output| OutputRef { array: a, index, output };
    assert_eq!(
        spec.arrays[2].inputs,
        [
            Edge::List { tasks: vec![vec![output(3, 0), output(4, 1)], vec![]] },
            Edge::Literal { values: vec![b"p".to_vec(), b"q".to_vec()] }
        ]
    );
    assert_eq!(spec.arrays[3].tasks, TaskCount::Fixed(3));
    let Arguments::PerTask(list) = &spec.arrays[3].arguments else { panic!("not per task") };
    assert_eq!(list[2], br#"{"since":"2026-01-02","three":3.5}"#);
}

#[test]
fn unknown_keys_are_named_with_file_and_line() {
    let error = error_of(&array("a", "outputz = 3"));
    assert!(error.starts_with("jobs/job.toml:7: unknown key `outputz`, expected one of `name`, `function`"), "{error}");
    let error = parse("name = \"j\"\n\nmodule = 1\n").unwrap_err().to_string();
    assert!(error.starts_with("jobs/job.toml:3: unknown key `module`, expected"), "{error}");
    let error = error_of(&array("a", "inputs = [{ slize = \"b\" }]"));
    assert!(error.starts_with("jobs/job.toml:7: unknown key `slize`, expected one of `each`"), "{error}");
}

#[test]
fn missing_keys_are_named() {
    let error = error_of("[[array]]\nname = \"a\"\n");
    assert_eq!(error, "jobs/job.toml:4: missing key `function`");
}

#[test]
fn unknown_modules_and_arrays_are_named_with_what_there_is() {
    assert_eq!(
        error_of("[[array]]\nname = \"a\"\nfunction = \"n.f\"\n"),
        "jobs/job.toml:6: array \"a\" calls \"n.f\", but [modules] has no \"n\"; there are \"m\""
    );
    assert_eq!(
        error_of(&(array("a", "") + &array("b", "inputs = [{ each = \"c\" }]"))),
        "jobs/job.toml:11: array \"b\" reads from \"c\", which does not exist; there are \"a\", \"b\""
    );
    assert_eq!(
        error_of("[[array]]\nname = \"a\"\nfunction = \"f\"\n"),
        "jobs/job.toml:6: array \"a\": \"f\" is not a function: write `module.function`"
    );
}

#[test]
fn cycles_are_refused_by_name() {
    assert_eq!(
        error_of(&(array("a", "inputs = [{ each = \"b\" }]") + &array("b", "inputs = [{ each = \"a\" }]"))),
        "jobs/job.toml:7: array \"a\" reads from \"b\", which comes after it: list arrays in the order of their data; \
         a job has no cycles"
    );
    assert_eq!(
        error_of(&array("a", "inputs = [{ all = \"a\" }]")),
        "jobs/job.toml:7: array \"a\" reads from itself: a job has no cycles"
    );
}

#[test]
fn keys_of_different_inputs_do_not_mix() {
    let first = array("a", "");
    assert_eq!(
        error_of(&(first.clone() + &array("b", "inputs = [{ slice = \"a\", arity = 3 }]"))),
        "jobs/job.toml:11: array \"b\": `arity` does not go with the other keys of this input"
    );
    assert_eq!(
        error_of(&(first.clone() + &array("b", "inputs = [{ slice = \"a\", each = \"a\" }]"))),
        "jobs/job.toml:11: array \"b\": `slice` does not go with the other keys of this input"
    );
    let error = error_of(&(first + &array("b", "inputs = [{ output = 1 }]")));
    assert!(error.starts_with("jobs/job.toml:11: array \"b\": an input needs one of `each`"), "{error}");
}

#[test]
fn amounts_without_meaning_are_refused_at_their_line() {
    assert_eq!(
        error_of(&array("a", "memory = \"12 parrots\"")),
        "jobs/job.toml:7: \"12 parrots\" is not a size such as \"512MiB\" (B, KiB, MiB, GiB, TiB)"
    );
    assert_eq!(
        error_of(&array("a", "wall_time = \"10\"")),
        "jobs/job.toml:7: \"10\" is not a time such as \"250ms\", \"10s\" or \"5m\" (us, ms, s, m, h, d)"
    );
    assert_eq!(error_of(&array("a", "memory = -1")), "jobs/job.toml:7: a size is not negative");
}

#[test]
fn bounds_are_told_at_the_line_of_the_array() {
    let two = array("a", "") + &array("b", "outputs = 0");
    assert_eq!(error_of(&two), "jobs/job.toml:9: the number of outputs of array \"b\" is 0; give at least 1");
    let two = array("a", "tasks = 2") + &array("b", "inputs = [{ each = \"a\", output = 1 }]");
    assert_eq!(error_of(&two), "jobs/job.toml:9: array \"b\" reads output 1 of array 0, whose tasks have 1");
    assert_eq!(error_of(""), "jobs/job.toml:1: job \"j\" has no arrays and is not open");
}

#[test]
fn a_module_has_exactly_one_source() {
    let error = parse("name = \"j\"\nmodules.m = { path = \"a\", name = \"b\" }\n").unwrap_err();
    assert_eq!(error.to_string(), "jobs/job.toml:2: module \"m\" needs exactly one of `path`, `name`, `id`");
    let error = parse("name = \"j\"\nmodules.m = { id = \"12\" }\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "jobs/job.toml:2: module \"m\": \"12\" is not a module id: expected 64 hexadecimal digits"
    );
}

#[test]
fn list_entries_have_one_form() {
    for bad in ["a", "a[", "a[x]", "a[1]0", "a[1].", "a[-1]", "a[1].x"] {
        let arrays = array("a", "tasks = 2") + &array("b", &format!("inputs = [{{ list = [[\"{bad}\"]] }}]"));
        let expected = format!("array \"b\": {bad:?} is not an output: write `map[3]` or `map[3].1`");
        assert_eq!(error_of(&arrays), format!("jobs/job.toml:11: {expected}"));
    }
}

#[test]
fn args_and_args_per_task_exclude_each_other() {
    assert_eq!(
        error_of(&array("a", "args = 1\nargs_per_task = [1]")),
        "jobs/job.toml:8: array \"a\" has both `args` and `args_per_task`: give one of them"
    );
    assert_eq!(
        error_of(&array("a", "args = nan")),
        "jobs/job.toml:7: array \"a\": arguments are JSON, which has no inf or nan"
    );
}

#[test]
fn a_limit_from_outside_is_set_on_every_dataset() {
    let mut file = parse(WORDFREQ).unwrap();
    file.limit_datasets(ByteSize::mib(1));
    let spec = file.spec(&BTreeMap::from([("wordfreq".to_owned(), ModuleId([1; 32]))])).unwrap();
    assert!(matches!(spec.arrays[0].inputs[0], Edge::Dataset { limit: Some(limit), .. } if limit == ByteSize::mib(1)));
}

#[test]
fn a_module_that_was_not_looked_up_is_named() {
    let error = parse(WORDFREQ).unwrap().spec(&BTreeMap::new()).unwrap_err();
    assert_eq!(error.to_string(), "jobs/job.toml: the id of module \"wordfreq\" is not known");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = JobFile::read(Path::new("no/such/job.toml")).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the job file no/such/job.toml");
}
