use serde_json::json;

use super::*;

fn event(event: wire::job_event::Event) -> Result<Event, Fault> {
    Event::try_from(wire::JobEvent { sequence: 5, event: Some(event) })
}

fn ended(first: Vec<u32>, count: Vec<u32>) -> wire::job_event::Event {
    wire::job_event::Event::TasksEnded(wire::TasksEnded {
        array: 1,
        end: wire::TaskEnd::Succeeded.into(),
        first,
        count,
    })
}

#[test]
fn events_are_json_with_their_kind_and_number() {
    let event = event(ended(vec![0, 4], vec![2, 1])).unwrap();
    assert_eq!(
        serde_json::to_value(event).unwrap(),
        json!({
            "sequence": 5,
            "event": "tasks-ended",
            "array": 1,
            "end": "succeeded",
            "tasks": [{ "start": 0, "end": 2 }, { "start": 4, "end": 5 }],
        })
    );
}

#[test]
fn ranges_that_make_no_sense_are_refused() {
    assert_eq!(event(ended(vec![0], vec![])).unwrap_err(), "1 ranges of tasks with 0 lengths");
    assert_eq!(event(ended(vec![u32::MAX], vec![2])).unwrap_err(), "tasks 4294967295 and 2 more");
    assert!(event(ended(vec![0], vec![MAX_TASKS_PER_ARRAY + 1])).is_err());
}

#[test]
fn an_array_larger_than_any_is_refused_before_anything_is_made_of_it() {
    let array = wire::Array { name: "a".into(), tasks: u32::MAX, ..Default::default() };
    let added = wire::job_event::Event::ArraysAdded(wire::ArraysAdded { arrays: vec![array] });
    assert_eq!(event(added).unwrap_err(), "array \"a\" has 4294967295 tasks");
}

#[test]
fn an_event_of_a_later_version_is_told_as_such() {
    let error = Event::try_from(wire::JobEvent { sequence: 5, event: None }).unwrap_err();
    assert_eq!(error, "event 5 is of an unknown kind");
}

#[test]
fn a_cause_that_this_version_does_not_know_leaves_the_message() {
    let failure = partita_protocol::job::Failure { cause: 999, message: "new kind".into(), ..Default::default() };
    let failure = TaskFailure::from(wire::TaskFailure { array: 0, index: 1, attempts: 2, failure: Some(failure) });
    assert_eq!(failure.to_string(), "new kind (2 attempts)");
}

#[test]
fn a_function_that_fails_speaks_for_itself() {
    let told = |cause: Cause| {
        let failure =
            partita_protocol::job::Failure { cause: cause as u32, message: "no luck".into(), ..Default::default() };
        TaskFailure::from(wire::TaskFailure { attempts: 1, failure: Some(failure), ..Default::default() }).to_string()
    };
    assert_eq!(told(Cause::Failed), "no luck");
    assert_eq!(told(Cause::Memory), "memory: no luck");
}

#[test]
fn a_module_is_json_with_its_id_in_hexadecimal() {
    let module = wire::Module {
        id: vec![0xAB; 32].into(),
        name: "m".into(),
        size: 3,
        functions: vec![partita_protocol::job::FunctionInfo { name: "f".into(), ..Default::default() }],
        pushed_at_us: 9,
        quarantine: "it crashed".to_owned(),
    };
    let shown = serde_json::to_value(ModuleStatus::try_from(module.clone()).unwrap()).unwrap();
    assert_eq!(shown["id"], "ab".repeat(32));
    assert_eq!((&shown["name"], &shown["size"], &shown["pushed_at_us"]), (&json!("m"), &json!(3), &json!(9)));
    assert_eq!(shown["functions"][0]["name"], "f");
    assert!(ModuleStatus::try_from(wire::Module { id: vec![1; 31].into(), ..module }).is_err());
}

#[test]
fn a_job_that_has_not_ended_has_no_end() {
    let totals = wire::JobTotals { cpu_us: 1_500_000, ..Default::default() };
    let state = wire::JobState::Running.into();
    let job = wire::Job { number: 1, state, submitted_at_us: 4, totals: Some(totals), ..Default::default() };
    let status = JobStatus::try_from(job).unwrap();
    let shown = serde_json::to_value(&status).unwrap();
    assert_eq!((&shown["submitted_at_us"], &shown["ended_at_us"]), (&json!(4), &json!(null)));
    assert_eq!(shown["totals"]["cpu_seconds"], 1.5);
    assert_eq!((status.state, status.ended_at), (JobState::Running, None));
    assert!(!status.state.is_final());
}
