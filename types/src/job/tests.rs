use super::*;

fn array(name: &str, inputs: Vec<Edge>) -> ArraySpec {
    ArraySpec {
        name: name.into(),
        source: ArraySource::Function { module: ModuleId([1; 32]), function: "f".into() },
        tasks: TaskCount::FromInputs,
        arguments: Arguments::Common(Vec::new()),
        inputs,
        outputs: 1,
        options: ArrayOptions::default(),
    }
}

fn job(arrays: Vec<ArraySpec>) -> JobSpec {
    JobSpec { name: "job".into(), arrays, open: false, deadline: None }
}

#[test]
fn a_graph_in_data_order_is_accepted() {
    let map = array("map", vec![]);
    let reduce = array("reduce", vec![Edge::Slice { array: ArrayIndex(0) }]);
    let top = array("top", vec![Edge::Fold { array: ArrayIndex(1), arity: 8 }]);
    assert_eq!(job(vec![map, reduce, top]).check(), Ok(()));
}

#[test]
fn a_cycle_is_refused_by_name() {
    let selfish = array("selfish", vec![Edge::Each { array: ArrayIndex(0), output: 0 }]);
    let error = job(vec![selfish]).check().unwrap_err();
    assert_eq!(error, SpecError::NotBefore { array: "selfish".into(), target: ArrayIndex(0) });
}

#[test]
fn a_dangling_reference_is_refused() {
    let lost = array("lost", vec![Edge::All { array: ArrayIndex(9), output: 0 }]);
    assert!(matches!(job(vec![lost]).check(), Err(SpecError::NotBefore { .. })));
}

#[test]
fn an_output_that_does_not_exist_is_refused() {
    let reader = array("reader", vec![Edge::Each { array: ArrayIndex(0), output: 1 }]);
    let error = job(vec![array("writer", vec![]), reader]).check().unwrap_err();
    assert_eq!(error.to_string(), "array \"reader\" reads output 1 of array 0, whose tasks have 1");
}

#[test]
fn counts_beyond_the_limits_are_refused_with_the_limit() {
    let mut wide = array("wide", vec![]);
    wide.outputs = MAX_OUTPUTS_PER_TASK + 1;
    assert!(matches!(job(vec![wide]).check(), Err(SpecError::TooMany { limit: 4_096, .. })));
    let mut none = array("none", vec![]);
    none.tasks = TaskCount::Fixed(0);
    assert!(matches!(job(vec![none]).check(), Err(SpecError::Zero { .. })));
}

#[test]
fn an_empty_job_must_be_open() {
    assert!(job(vec![]).check().is_err());
    assert_eq!(JobSpec { open: true, ..job(vec![]) }.check(), Ok(()));
}

#[test]
fn uploads_have_one_output_and_a_count() {
    let mut upload = array("data", vec![]);
    upload.source = ArraySource::Upload;
    assert!(matches!(job(vec![upload.clone()]).check(), Err(SpecError::Meaningless { .. })));
    upload.tasks = TaskCount::Fixed(3);
    assert_eq!(job(vec![upload]).check(), Ok(()));
}
