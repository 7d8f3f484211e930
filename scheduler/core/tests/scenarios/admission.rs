//! What is accepted, what is refused and in which words, and that a refusal leaves no trace.

use partita_core::{HostCommand, IdempotencyKey, Refusal, Reply, Request};
use partita_testkit::{Cluster, HostModel, MODULE, all, array, dataset, each, fold, job, list, policy, slice};
use partita_types::{ByteSize, CpuTime, DatasetGrant, DatasetName, JobSpec, ModuleId};

fn cluster() -> Cluster {
    Cluster::new().tenant(policy("acme")).host("one", 1)
}

fn refused(cluster: &mut Cluster, spec: JobSpec) -> String {
    let before = (cluster.usage("acme"), cluster.journal.len());
    let refusal = cluster.try_submit("acme", spec).unwrap_err();
    assert_eq!((cluster.usage("acme"), cluster.journal.len()), before, "a refusal leaves no trace");
    refusal.to_string()
}

#[test]
fn a_reference_forward_or_to_oneself_is_refused_as_a_cycle() {
    let text = refused(&mut cluster(), job().with(array("a").tasks(2).reads(each(0))).spec());
    assert!(text.contains("\"a\" reads from array 0") && text.contains("no cycles"), "{text}");
}

#[test]
fn lengths_that_disagree_are_refused_with_both_numbers() {
    let mut cluster = cluster();
    let wrong = job().with(array("a").tasks(3)).with(array("b").tasks(4).reads(each(0))).spec();
    assert_eq!(refused(&mut cluster, wrong), "array \"b\" has 4 tasks, but its each edge asks for 3");
    let wrong = job().with(array("a").tasks(3).outputs(2)).with(array("b").reads(each(0)).reads(slice(0))).spec();
    assert_eq!(refused(&mut cluster, wrong), "array \"b\" has 3 tasks, but its slice edge asks for 2");
    let wrong = job().with(array("a").tasks(2).arguments(vec![Vec::new(); 3])).spec();
    assert_eq!(refused(&mut cluster, wrong), "array \"a\" has 2 tasks, but its list of arguments asks for 3");
}

#[test]
fn references_to_tasks_that_do_not_exist_are_refused() {
    let wrong = job().with(array("a").tasks(2)).with(array("b").reads(list(&[&[(0, 2, 0)]]))).spec();
    assert_eq!(refused(&mut cluster(), wrong), "array \"b\" reads from task 2 of array 0, which has 2 tasks");
}

#[test]
fn a_task_cannot_read_more_than_fits_into_a_frame() {
    let wrong = job().with(array("a").tasks(70_000)).with(array("b").reads(all(0))).spec();
    assert!(refused(&mut cluster(), wrong).contains("number of inputs of a task of array \"b\" is 70000"));
}

#[test]
fn unknown_functions_and_wrong_signatures_are_refused_with_what_there_is() {
    let mut cluster = cluster();
    let text = refused(&mut cluster, job().with(array("a").tasks(1).calls("wrok")).spec());
    assert!(text.contains("\"wrok\"") && text.contains("it has: work, pair"), "{text}");
    let text = refused(&mut cluster, job().with(array("a").tasks(1).calls("pair")).spec());
    assert_eq!(text, "array \"a\" gives function \"pair\" 0 inputs, and it takes 2");
    let two = array("b").calls("pair").outputs(2).reads(each(0)).reads(each(0));
    let text = refused(&mut cluster, job().with(array("a").tasks(1)).with(two).spec());
    assert_eq!(text, "array \"b\" gives function \"pair\" 2 outputs, and it takes 1");
}

#[test]
fn another_tenants_module_does_not_exist() {
    let mut cluster = cluster();
    let mut spec = job().with(array("a").tasks(1)).spec();
    let foreign = ModuleId([7; 32]);
    spec.arrays[0].source = partita_types::ArraySource::Function { module: foreign, function: "work".to_owned() };
    assert_eq!(refused(&mut cluster, spec), format!("module {foreign} does not exist"));
}

#[test]
fn limits_above_the_policy_are_refused_and_open_ones_filled_in() {
    let mut cluster = cluster();
    let text = refused(&mut cluster, job().with(array("a").tasks(1).memory(ByteSize::gib(5))).spec());
    assert_eq!(text, "array \"a\" asks for 5 GiB of memory per task, and the policy of tenant acme allows 4 GiB");
    let long =
        |options: &mut partita_types::ArrayOptions| options.limits.cpu_time = Some(CpuTime::from_micros(61_000_000));
    assert!(refused(&mut cluster, job().with(array("a").tasks(1).options(long)).spec()).contains("of CPU time"));
    cluster.submit("acme", job().with(array("a").tasks(1)).spec());
    let header = cluster.model("one").headers.values().next().unwrap();
    assert_eq!(header.limits.memory, ByteSize::mib(64), "the default of the policy");
}

#[test]
fn quotas_on_jobs_and_tasks_hold_at_the_door() {
    let mut small = policy("acme");
    small.quota.running_jobs = 2;
    small.quota.queued_tasks = 10;
    let mut cluster = Cluster::new().tenant(small).host("one", 1);
    let tasks = |count| job().with(array("a").tasks(count)).spec();
    cluster.submit("acme", tasks(6));
    let text = refused(&mut cluster, tasks(5));
    assert_eq!(text, "tenant acme has a quota of 10 for tasks that have not ended, and this would make 11");
    cluster.submit("acme", tasks(4));
    assert!(refused(&mut cluster, tasks(1)).contains("quota of 2 for jobs that have not ended"));
    cluster.run_all();
    cluster.submit("acme", tasks(10));
}

#[test]
fn the_same_key_gives_the_same_job() {
    let mut cluster = cluster();
    let tenant = cluster.tenant_id("acme");
    let spec = job().with(array("a").tasks(3)).with(array("b").reads(fold(0, 2))).spec();
    let submit = || Request::Submit { tenant, key: IdempotencyKey([5; 16]), spec: spec.clone() };
    let first = cluster.request(submit());
    let again = cluster.request(submit());
    assert_eq!(first, again);
    assert_eq!(cluster.core.jobs(tenant).len(), 1);
    cluster.restart_scheduler();
    assert_eq!(cluster.request(submit()), first, "after a restart, too");
}

fn with_dataset() -> Cluster {
    let mut policy = policy("acme");
    let name = DatasetName::new("logs").unwrap();
    policy.datasets.push(DatasetGrant { name, location: "/logs".to_owned(), include: Vec::new() });
    Cluster::new().tenant(policy)
}

fn reader(name: &str) -> JobSpec {
    job().with(array("read").reads(dataset(name))).spec()
}

fn ask(cluster: &mut Cluster, name: &str) -> partita_core::RequestId {
    let tenant = cluster.tenant_id("acme");
    cluster.ask(Request::Submit { tenant, key: IdempotencyKey([8; 16]), spec: reader(name) })
}

#[test]
fn a_dataset_becomes_one_task_per_split() {
    let mut cluster = with_dataset();
    let mut host = HostModel::new("one", 8);
    host.datasets.insert(DatasetName::new("logs").unwrap(), 7);
    cluster.attach_new(host);
    let id = cluster.submit("acme", reader("logs"));
    let view = cluster.job(id);
    assert_eq!(view.arrays[0].counts.assigned, 7);
    assert_eq!(view.totals.dataset_files, 7);
}

#[test]
fn datasets_that_are_not_granted_or_cannot_be_read_are_refused_by_name() {
    let mut cluster = with_dataset().host("one", 1);
    let text = cluster.try_submit("acme", reader("secrets")).unwrap_err().to_string();
    assert_eq!(text, "dataset secrets of array \"read\": the tenant's policy does not grant it; it grants: logs");
    let text = cluster.try_submit("acme", reader("logs")).unwrap_err().to_string();
    assert_eq!(text, "dataset logs of array \"read\": directory of logs does not exist");
}

#[test]
fn another_host_is_asked_when_the_first_goes_away_and_repeated_submissions_wait_together() {
    let mut cluster = with_dataset();
    let mut silent = HostModel::new("silent", 1);
    silent.answers = false;
    cluster.attach_new(silent);
    cluster.advance(std::time::Duration::from_secs(6));
    let (first, again) = (ask(&mut cluster, "logs"), ask(&mut cluster, "logs"));
    assert_eq!(cluster.answer(first), None);
    let mut other = HostModel::new("other", 1);
    other.datasets.insert(DatasetName::new("logs").unwrap(), 2);
    cluster.attach_new(other);
    cluster.detach("silent");
    let replies = (cluster.answer(first).unwrap(), cluster.answer(again).unwrap());
    assert!(matches!(&replies.0, Reply::Accepted { tasks, .. } if *tasks == [2]), "{replies:?}");
    assert_eq!(replies.0, replies.1);
}

#[test]
fn without_a_host_that_could_answer_a_question_is_refused() {
    let mut cluster = with_dataset();
    cluster.advance(std::time::Duration::from_secs(6));
    let tenant = cluster.tenant_id("acme");
    let request = ask(&mut cluster, "logs");
    let reply = cluster.answer(request).unwrap();
    assert_eq!(reply, Reply::Refused(Refusal::NoHost { what: "list a dataset" }));
    let add = Request::AddModule { tenant, module: ModuleId([2; 32]), name: "m".to_owned(), size: ByteSize(1) };
    assert_eq!(cluster.request(add), Reply::Refused(Refusal::NoHost { what: "inspect a module" }));
}

#[test]
fn an_abandoned_submission_is_forgotten() {
    let mut cluster = with_dataset();
    let mut silent = HostModel::new("silent", 1);
    silent.answers = false;
    cluster.attach_new(silent);
    cluster.advance(std::time::Duration::from_secs(6));
    let request = ask(&mut cluster, "logs");
    cluster.apply(partita_core::Event::Abandoned(request));
    let mut other = HostModel::new("other", 1);
    other.datasets.insert(DatasetName::new("logs").unwrap(), 2);
    cluster.attach_new(other);
    cluster.detach("silent");
    assert_eq!(cluster.answer(request), None);
    assert!(cluster.core.jobs(cluster.tenant_id("acme")).is_empty());
}

#[test]
fn a_module_is_taken_after_inspection_and_refused_with_what_the_host_said() {
    let mut cluster = cluster();
    let tenant = cluster.tenant_id("acme");
    cluster.model("one").functions = Err("it imports wasi:sockets, which is not granted".to_owned());
    let add = |id, size| Request::AddModule { tenant, module: ModuleId([id; 32]), name: "m".to_owned(), size };
    let reply = cluster.request(add(3, ByteSize(1)));
    assert!(matches!(&reply, Reply::Refused(why) if why.to_string().contains("imports wasi:sockets")), "{reply:?}");
    let reply = cluster.request(add(3, ByteSize::mib(2)));
    assert!(matches!(&reply, Reply::Refused(Refusal::Quota { what: "bytes of one module", .. })), "{reply:?}");
    assert_eq!(cluster.core.modules(tenant).len(), 1);
    let renamed = Request::AddModule { tenant, module: MODULE, name: "newer".to_owned(), size: ByteSize::kib(1) };
    assert_eq!(cluster.request(renamed), Reply::ModuleAdded, "a known module needs no inspection");
    assert_eq!(cluster.core.module(tenant, MODULE).unwrap().0.name, "newer");
    assert!(!cluster.commands.iter().any(|(_, command)| matches!(command, HostCommand::InspectModule { .. })));
}

#[test]
fn jobs_of_other_tenants_and_jobs_that_never_were_are_refused_in_the_same_words() {
    let mut cluster = Cluster::new().tenant(policy("acme")).tenant(policy("other")).host("one", 1);
    let theirs = cluster.submit("acme", job().with(array("a").tasks(1)).spec());
    let foreign = partita_types::JobId { tenant: cluster.tenant_id("other"), number: theirs.number };
    let reply = cluster.request(Request::Cancel(foreign));
    assert_eq!(reply, Reply::Refused(Refusal::NotFound { what: format!("job {}", theirs.number) }));
}

#[test]
fn a_policy_that_is_lowered_while_datasets_are_listed_fills_in_its_own_limits() {
    let mut cluster = with_dataset();
    let mut silent = HostModel::new("silent", 1);
    silent.answers = false;
    cluster.attach_new(silent);
    let request = ask(&mut cluster, "logs");
    assert_eq!(cluster.answer(request), None);
    let mut lower = cluster.usage("acme").policy;
    lower.task_maxima.memory = partita_types::ByteSize::mib(100);
    cluster.define(lower);
    let mut other = HostModel::new("other", 1);
    other.datasets.insert(DatasetName::new("logs").unwrap(), 2);
    cluster.attach_new(other);
    cluster.detach("silent");
    let reply = cluster.answer(request).unwrap();
    assert!(matches!(&reply, Reply::Accepted { .. }), "the client asked for no memory at all: {reply:?}");
}
