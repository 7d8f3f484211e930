use super::*;

const MODULE: ModuleId = ModuleId([1; 32]);

fn function(name: &str) -> Function {
    Function::new(MODULE, name)
}

#[test]
fn every_edge_pattern_arrives_in_the_specification() {
    let mut job = JobBuilder::new("all edges");
    let data = job.upload("data", 3);
    let map = job.array("map", function("map")).each(&data).outputs(4).add();
    let reduce = job.array("reduce", function("reduce")).slice(&map).add();
    let top = job.array("top", function("top")).fold(&reduce, 8).add();
    job.array("rest", function("rest"))
        .all(map.output(2))
        .list([vec![map.task(0), reduce.task(1)], vec![top.task_output(0, 0)]])
        .dataset_up_to("crates", ByteSize::mib(8), ByteSize::gib(1))
        .literal("x")
        .literals(["a", "b"])
        .add();
    let spec = job.build().unwrap();
    let at = ArrayIndex;
    let output = |array, index| OutputRef { array: at(array), index, output: 0 };
    assert_eq!(spec.arrays[0].source, ArraySource::Upload);
    assert_eq!(spec.arrays[1].inputs, [Edge::Each { array: at(0), output: 0 }]);
    assert_eq!(spec.arrays[2].inputs, [Edge::Slice { array: at(1) }]);
    assert_eq!(spec.arrays[3].inputs, [Edge::Fold { array: at(2), arity: 8 }]);
    assert_eq!(
        spec.arrays[4].inputs,
        [
            Edge::All { array: at(1), output: 2 },
            Edge::List { tasks: vec![vec![output(1, 0), output(2, 1)], vec![output(3, 0)]] },
            Edge::Dataset {
                dataset: DatasetName::new("crates").unwrap(),
                split: ByteSize::mib(8),
                limit: Some(ByteSize::gib(1))
            },
            Edge::Literal { values: vec![b"x".to_vec()] },
            Edge::Literal { values: vec![b"a".to_vec(), b"b".to_vec()] },
        ]
    );
}

#[test]
fn options_not_given_are_left_to_the_policy() {
    let mut job = JobBuilder::new("options");
    job.array("plain", function("f")).tasks(2).add();
    job.array("tuned", function("f"))
        .memory(ByteSize::mib(64))
        .cpu_time(Duration::from_secs(3))
        .retries(0)
        .priority(-5)
        .keep()
        .nondeterministic()
        .add();
    let arrays = job.build().unwrap().arrays;
    assert_eq!(arrays[0].options, ArrayOptions::default());
    assert_eq!(arrays[0].tasks, TaskCount::Fixed(2));
    let tuned = &arrays[1].options;
    assert_eq!(tuned.limits.memory, Some(ByteSize::mib(64)));
    assert_eq!(tuned.limits.cpu_time, Some(CpuTime::from_micros(3_000_000)));
    assert_eq!(tuned.limits.wall_time, None);
    assert_eq!((tuned.retries, tuned.priority, tuned.keep, tuned.deterministic), (0, -5, true, false));
}

#[test]
fn arguments_per_task_say_how_many_tasks_there_are() {
    let mut job = JobBuilder::new("args");
    job.array("a", function("f")).args_per_task([1, 2, 3]).unwrap().add();
    let array = job.build().unwrap().arrays.remove(0);
    assert_eq!(array.tasks, TaskCount::Fixed(3));
    assert_eq!(array.arguments, Arguments::PerTask(vec![b"1".to_vec(), b"2".to_vec(), b"3".to_vec()]));
}

#[test]
fn a_reference_to_another_job_is_refused_by_name() {
    let mut other = JobBuilder::new("other");
    let theirs = other.array("theirs", function("f")).add();
    let mut job = JobBuilder::new("mine");
    job.array("mine", function("f")).each(&theirs).add();
    let error = job.build().unwrap_err();
    assert_eq!(error.to_string(), "array \"mine\" reads from array \"theirs\", which was added to another job");
}

#[test]
fn the_first_fault_is_the_one_that_is_told() {
    let mut job = JobBuilder::new("faults");
    job.array("a", function("f")).dataset("No Such", ByteSize::mib(1)).add();
    job.array("a", function("f")).add();
    let error = job.build().unwrap_err();
    assert!(matches!(error, BuildError::Dataset { .. }), "{error}");
}

#[test]
fn two_arrays_of_one_name_are_refused() {
    let mut job = JobBuilder::new("twins");
    job.array("a", function("f")).add();
    job.array("a", function("g")).add();
    assert_eq!(job.build().unwrap_err().to_string(), "there are two arrays called \"a\"");
}

#[test]
fn an_empty_job_must_be_open() {
    assert!(matches!(JobBuilder::new("empty").build(), Err(BuildError::Spec(SpecError::Empty { .. }))));
    assert!(JobBuilder::new("empty").open().build().is_ok());
}

#[test]
fn arrays_added_later_count_on_and_may_read_earlier_ones() {
    let mut first = JobBuilder::new("open").open();
    let map = first.array("map", function("f")).outputs(2).add();
    let id = map.builder;
    let mut more = JobBuilder::continuing(id, vec![2]);
    let next = more.array("next", function("f")).each(map.output(1)).add();
    assert_eq!(next.index(), ArrayIndex(1));
    assert!(more.into_parts().is_ok());
    let mut wrong = JobBuilder::continuing(id, vec![2]);
    wrong.array("next", function("f")).each(map.output(2)).add();
    assert!(matches!(wrong.into_parts(), Err(BuildError::Spec(SpecError::NoSuchOutput { .. }))));
}

#[test]
fn arguments_that_are_not_json_are_refused_with_the_array() {
    let mut job = JobBuilder::new("bad args");
    let keys = std::collections::BTreeMap::from([((1, 2), 3)]);
    let error = job.array("a", function("f")).args(&keys).unwrap_err();
    assert_eq!(error.to_string(), "the arguments of array \"a\" cannot be written as JSON");
}
