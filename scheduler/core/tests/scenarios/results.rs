//! Which outputs are kept, which are given up, and where clients find them.

use std::time::Duration;

use partita_core::{HOST_TIMEOUT, JobEnd, Reply, Request};
use partita_testkit::{Cluster, HostModel, Reference, all, array, each, job, policy};
use partita_types::{ArrayIndex, Cause, JobId};

fn cluster() -> Cluster {
    Cluster::new().tenant(policy("acme")).host("one", 4)
}

fn locate(job: JobId, array: u32, tasks: std::ops::Range<u32>) -> Request {
    Request::Locate { job, array: ArrayIndex(array), tasks, output: 0 }
}

fn refusal(reply: &Reply) -> String {
    match reply {
        Reply::Refused(refusal) => refusal.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn consumed_outputs_are_dropped_and_results_are_kept() {
    let mut cluster = cluster();
    let spec = job()
        .with(array("a").tasks(4))
        .with(array("kept").reads(each(0)).options(|options| options.keep = true))
        .with(array("b").reads(all(1)))
        .spec();
    let id = cluster.submit("acme", spec.clone());
    cluster.run_all();
    assert_eq!(cluster.model("one").store.len(), 4 + 1);
    assert_eq!(cluster.usage("acme").stored.0, 500);
    let reply = cluster.request(locate(id, 0, 0..1));
    assert!(refusal(&reply).contains("consumed"), "{reply:?}");
    let reference = Reference::new(&spec);
    reference.check(&cluster.results(id, 1));
    reference.check(&cluster.results(id, 2));
}

#[test]
fn an_answer_has_at_most_1024_outputs_and_the_next_question_gets_the_rest() {
    let mut cluster = cluster();
    let id = cluster.submit("acme", job().with(array("a").tasks(1500)).spec());
    cluster.run_all();
    let reply = cluster.request(locate(id, 0, 0..1500));
    assert!(matches!(&reply, Reply::Located(found) if found.len() == 1024));
    assert_eq!(cluster.results(id, 0).len(), 1500);
}

#[test]
fn results_of_what_has_not_ended_or_failed_are_refused_with_the_reason() {
    let mut cluster = cluster();
    let id = cluster.submit("acme", job().with(array("a").tasks(2)).with(array("b").reads(all(0))).spec());
    let reply = cluster.request(locate(id, 1, 0..1));
    assert!(refusal(&reply).contains("has not ended"));
    let run = cluster.take_run("one", 0, 0);
    cluster.fail("one", &run, Cause::Failed);
    let reply = cluster.request(locate(id, 0, 0..1));
    assert!(refusal(&reply).ends_with("failed"));
    let reply = cluster.request(locate(id, 1, 0..1));
    assert!(refusal(&reply).contains("aborted"));
    let reply = cluster.request(locate(id, 0, 0..9));
    assert!(refusal(&reply).ends_with("does not exist"));
}

#[test]
fn a_lost_result_is_rebuilt_when_somebody_asks_for_it() {
    let mut cluster = cluster();
    let spec = job().with(array("a").tasks(3)).with(array("b").reads(all(0))).spec();
    let id = cluster.submit("acme", spec.clone());
    cluster.run_all();
    cluster.detach("one");
    cluster.attach_new(HostModel::new("two", 2));
    cluster.advance(HOST_TIMEOUT + Duration::from_secs(1));
    assert!(cluster.tasks_at("two").is_empty(), "nobody asked yet");
    let request = cluster.ask(locate(id, 1, 0..1));
    assert_eq!(cluster.answer(request), None);
    cluster.run_all();
    assert!(matches!(cluster.answer(request), Some(Reply::Located(found)) if found.len() == 1));
    Reference::new(&spec).check(&cluster.results(id, 1));
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded), "it had ended, and stays so");
    assert_eq!(cluster.model("two").store.len(), 1, "what was rebuilt on the way is dropped again");
    cluster.request(Request::Release(id));
    assert_eq!(cluster.usage("acme").queued_tasks, 0);
}

#[test]
fn a_result_at_a_detached_host_is_waited_for() {
    let mut cluster = cluster();
    let id = cluster.submit("acme", job().with(array("a").tasks(1)).spec());
    cluster.run_all();
    cluster.detach("one");
    let request = cluster.ask(locate(id, 0, 0..1));
    assert_eq!(cluster.answer(request), None);
    cluster.attach("one");
    assert!(matches!(cluster.answer(request), Some(Reply::Located(_))));
}

/// B29
#[test]
fn a_lost_upload_fails_its_job_with_the_chain_of_causes_and_nothing_that_needs_it_runs() {
    let mut cluster = cluster();
    let spec = job()
        .with(array("data").tasks(1).upload())
        .with(array("slow").tasks(1))
        .with(array("b").reads(all(0)).reads(all(1)));
    let id = cluster.submit("acme", spec.spec());
    let task = partita_types::TaskId { job: id, array: ArrayIndex(0), index: 0 };
    let Reply::UploadTo { partition, .. } = cluster.request(Request::Upload { task, size: partita_types::ByteSize(1) })
    else {
        panic!("refused")
    };
    let info =
        partita_types::OutputInfo { size: partita_types::ByteSize(1), hash: partita_types::ContentHash([1; 32]) };
    cluster.say("one", partita_core::HostMessage::UploadStored { partition, result: Ok(info) });
    cluster.say("one", partita_core::HostMessage::Lost(vec![partition]));
    let view = cluster.job(id);
    assert_eq!(view.end, Some(JobEnd::Failed));
    let (lost, _, failure) = view.failure.unwrap();
    assert_eq!((lost, failure.cause), (task, partita_types::Cause::DataLost));
    let chain = [partition.to_string(), "host one".to_owned(), "uploaded by the client".to_owned()];
    assert!(chain.iter().all(|part| failure.message.contains(part)), "{}", failure.message);
    assert!(failure.message.contains("of array \"b\" needs it"), "{}", failure.message);
    assert_eq!((cluster.counts(id, 2).aborted, cluster.tasks_at("one").len()), (1, 0));
}

#[test]
fn the_only_copy_of_an_upload_is_not_given_up_because_a_reader_could_not_fetch_it() {
    let mut cluster = cluster();
    let reader = array("b").reads(all(0)).options(|options| options.retries = 0);
    let id = cluster.submit("acme", job().with(array("data").tasks(1).upload()).with(reader).spec());
    let task = partita_types::TaskId { job: id, array: ArrayIndex(0), index: 0 };
    let reply = cluster.request(Request::Upload { task, size: partita_types::ByteSize(5) });
    let Reply::UploadTo { partition, .. } = reply else { panic!("{reply:?}") };
    let info =
        partita_types::OutputInfo { size: partita_types::ByteSize(5), hash: partita_types::ContentHash([3; 32]) };
    cluster.model("one").store.insert(partition, info);
    cluster.say("one", partita_core::HostMessage::UploadStored { partition, result: Ok(info) });
    let run = cluster.take_frame("one");
    let report = cluster.model("one").fail(&run[0], Cause::Input, vec![partition]);
    cluster.say("one", partita_core::HostMessage::Report(report));
    assert_eq!(cluster.job(id).end, None);
    assert_eq!(cluster.model("one").store.get(&partition), Some(&info));
    cluster.advance(Duration::from_secs(1));
    cluster.run_all();
    assert_eq!(cluster.job(id).end, Some(JobEnd::Succeeded));
}

#[test]
fn an_open_job_keeps_everything_that_may_still_be_read() {
    let mut cluster = cluster();
    let id = cluster.submit("acme", job().open().with(array("a").tasks(2)).with(array("b").reads(all(0))).spec());
    cluster.run_all();
    assert_eq!(cluster.model("one").store.len(), 3);
    cluster.request(Request::Close(id));
    assert_eq!(cluster.model("one").store.len(), 1);
}
