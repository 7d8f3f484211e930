//! Every edge pattern: who waits for what, and who reads what.

use partita_core::{IdempotencyKey, JobEnd, Reply, Request};
use partita_testkit::{Cluster, Reference, all, array, each, fold, job, list, literal, policy, slice};
use partita_types::{ArrayIndex, ContentHash, OutputInfo, TaskId};

fn cluster() -> Cluster {
    Cluster::new().tenant(policy("acme")).host("one", 4)
}

#[test]
fn tasks_without_inputs_run_at_once() {
    let mut cluster = cluster();
    let id = cluster.submit("acme", job().with(array("alone").tasks(3)).spec());
    assert_eq!(cluster.tasks_at("one"), [(0, 0), (0, 1), (0, 2)]);
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
}

#[test]
fn each_waits_only_for_the_task_of_its_number() {
    let mut cluster = cluster();
    let spec = job().with(array("first").tasks(3)).with(array("second").reads(each(0))).spec();
    let id = cluster.submit("acme", spec);
    let run = cluster.take_run("one", 0, 1);
    cluster.succeed("one", &[run]);
    let second = cluster.counts(id, 1);
    assert_eq!((second.waiting, second.assigned), (2, 1));
    assert!(cluster.tasks_at("one").contains(&(1, 1)));
}

#[test]
fn all_waits_for_every_task_and_reads_them_in_order() {
    let mut cluster = cluster();
    let spec = job().with(array("parts").tasks(3)).with(array("whole").reads(all(0))).spec();
    let id = cluster.submit("acme", spec);
    for index in [2, 0] {
        let run = cluster.take_run("one", 0, index);
        cluster.succeed("one", &[run]);
        assert_eq!(cluster.counts(id, 1).waiting, 1);
    }
    cluster.run_frame("one");
    let whole = cluster.take_frame("one");
    let read: Vec<u32> = whole[0].inputs.iter().map(|(stored, _)| stored.id.attempt.task.index).collect();
    assert_eq!(read, [0, 1, 2]);
}

#[test]
fn slice_gives_each_task_its_part_of_every_source() {
    let mut cluster = cluster();
    let spec = job().with(array("map").tasks(2).outputs(3)).with(array("reduce").reads(slice(0))).spec();
    cluster.submit("acme", spec);
    cluster.run_frame("one");
    cluster.run_frame("one");
    let run = cluster.take_run("one", 1, 2);
    let read: Vec<_> = run.inputs.iter().map(|(stored, _)| (stored.id.attempt.task.index, stored.id.output)).collect();
    assert_eq!(read, [(0, 2), (1, 2)]);
}

#[test]
fn list_reads_what_is_listed_as_often_as_it_is_listed() {
    let mut cluster = cluster();
    let edge = list(&[&[(0, 1, 0), (0, 1, 0), (0, 0, 1)], &[(0, 0, 0)]]);
    let spec = job().with(array("source").tasks(2).outputs(2)).with(array("reader").reads(edge)).spec();
    let id = cluster.submit("acme", spec);
    let first = cluster.take_run("one", 0, 0);
    cluster.succeed("one", &[first]);
    let reader = cluster.counts(id, 1);
    assert_eq!((reader.waiting, reader.assigned), (1, 1), "only the second task has all it reads");
    cluster.run_frame("one");
    let run = cluster.take_run("one", 1, 0);
    let read: Vec<_> = run.inputs.iter().map(|(stored, _)| (stored.id.attempt.task.index, stored.id.output)).collect();
    assert_eq!(read, [(1, 0), (1, 0), (0, 1)]);
}

#[test]
fn a_fold_merges_level_by_level_and_its_last_task_has_the_result() {
    let mut cluster = cluster();
    let spec = job().with(array("leaves").tasks(10)).with(array("tree").reads(fold(0, 3))).spec();
    let id = cluster.submit("acme", spec.clone());
    assert_eq!(cluster.job(id).arrays[1].counts.waiting, 4 + 2 + 1);
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
    let results = cluster.results(id, 1);
    Reference::new(&spec).check(&results);
    assert!(results.contains_key(&(1, 6, 0)));
}

#[test]
fn literals_and_arguments_go_to_the_tasks_they_are_for() {
    let mut cluster = cluster();
    let arguments = vec![b"x".to_vec(), b"y".to_vec()];
    let spec =
        job().with(array("a").reads(literal(&["same"])).reads(literal(&["left", "right"])).arguments(arguments)).spec();
    let id = cluster.submit("acme", spec.clone());
    cluster.run_all();
    Reference::new(&spec).check(&cluster.results(id, 0));
}

#[test]
fn every_pattern_together_gives_the_right_results() {
    let mut cluster = Cluster::new().tenant(policy("acme")).host("one", 2).host("two", 3);
    let spec = job()
        .with(array("source").tasks(40).outputs(5))
        .with(array("same").reads(each(0)))
        .with(array("shuffle").reads(slice(0)))
        .with(array("tree").reads(fold(1, 4)))
        .with(array("mix").tasks(5).reads(each(2)).reads(all(1)).reads(list(&[
            &[(3, 0, 0)],
            &[],
            &[(1, 7, 0), (2, 1, 0)],
            &[(0, 39, 4)],
            &[(0, 0, 0)],
        ])))
        .with(array("end").reads(all(4)).reads(all(3)))
        .spec();
    let id = cluster.submit("acme", spec.clone());
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
    Reference::new(&spec).check(&cluster.results(id, 5));
}

#[test]
fn uploaded_data_feeds_tasks_once_it_is_there() {
    let mut cluster = cluster();
    let spec = job().with(array("data").tasks(1).upload()).with(array("work").reads(each(0))).spec();
    let id = cluster.submit("acme", spec);
    let task = TaskId { job: id, array: ArrayIndex(0), index: 0 };
    let reply = cluster.request(Request::Upload { task, size: partita_types::ByteSize(5) });
    let Reply::UploadTo { partition, .. } = reply else { panic!("{reply:?}") };
    assert_eq!(cluster.counts(id, 1).waiting, 1);
    let info = OutputInfo { size: partita_types::ByteSize(5), hash: ContentHash([3; 32]) };
    cluster.model("one").store.insert(partition, info);
    cluster.say("one", partita_core::HostMessage::UploadStored { partition, result: Ok(info) });
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
    let again = cluster.request(Request::Upload { task, size: partita_types::ByteSize(5) });
    assert!(matches!(again, Reply::Refused(refusal) if refusal.to_string().contains("complete already")));
}

#[test]
fn an_open_job_takes_arrays_that_read_earlier_results_and_ends_only_when_closed() {
    let mut cluster = cluster();
    let first = array("first").tasks(2);
    let id = cluster.submit("acme", job().open().with(first).spec());
    cluster.run_all();
    assert_eq!(cluster.job(id).end, None);
    let arrays = vec![array("second").reads(all(0)).spec()];
    let reply = cluster.request(Request::Extend { job: id, key: IdempotencyKey([9; 16]), arrays });
    assert_eq!(reply, Reply::Accepted { job: id, first: ArrayIndex(1), tasks: vec![1] });
    cluster.run_all();
    assert_eq!(cluster.job(id).end, None);
    assert_eq!(cluster.request(Request::Close(id)), Reply::Done);
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
}
