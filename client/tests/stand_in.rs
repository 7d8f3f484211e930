//! The client against a stand-in for a scheduler: real TLS and gRPC, scripted answers, connections that break where the
//! script says. What a cluster decides is not tested here, only what a client makes of its answers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use partita_client::{Client, Code, Connection, Error, Function, JobBuilder, RetryPolicy, TaskEnd, Token};
use partita_identity::{Authority, serve, tls};
use partita_protocol::client as wire;
use partita_protocol::client::jobs_server::{Jobs, JobsServer};
use partita_types::ModuleId;
use tokio::task::JoinSet;
use tonic::{Request, Response, Status, Streaming};

const TOKEN: &str = "the-token";
/// Retries at once, so that no test waits.
const QUICK: RetryPolicy =
    RetryPolicy { attempts: 4, first_wait: Duration::from_millis(1), longest_wait: Duration::from_millis(1) };

/// What was asked of the stand-in, and how often it has to fail.
#[derive(Default)]
struct Script {
    /// Calls that are still to be answered with "unavailable".
    failures: u32,
    keys: Vec<Vec<u8>>,
    watched_from: Vec<u64>,
    /// Events that one watch sends before it breaks.
    per_watch: usize,
    events: Vec<wire::job_event::Event>,
    chunks: Vec<wire::ResultChunk>,
    /// Results that break before their first piece.
    broken_results: u32,
    uploaded: Vec<u8>,
    released: bool,
}

#[derive(Clone)]
struct StandIn(Arc<Mutex<Script>>);

impl StandIn {
    fn script<T>(&self, use_it: impl FnOnce(&mut Script) -> T) -> T {
        use_it(&mut self.0.lock().expect("no test panics with the script"))
    }

    fn fail_if_scripted(&self) -> Result<(), Status> {
        self.script(|script| match script.failures.checked_sub(1) {
            Some(left) => {
                script.failures = left;
                Err(Status::unavailable("the scheduler starts"))
            }
            None => Ok(()),
        })
    }
}

type Answers<T> = stream::BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl Jobs for StandIn {
    type WatchStream = Answers<wire::WatchResponse>;
    type ResultStream = Answers<wire::ResultChunk>;

    async fn submit(&self, request: Request<wire::SubmitRequest>) -> Result<Response<wire::SubmitResponse>, Status> {
        let bearer = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        if bearer != Some(&format!("Bearer {TOKEN}")) {
            return Err(Status::unauthenticated("the token is not one of ours"));
        }
        self.script(|script| script.keys.push(request.get_ref().idempotency_key.to_vec()));
        self.fail_if_scripted()?;
        Ok(Response::new(wire::SubmitResponse { job: 7, first_array: 0, tasks: vec![4] }))
    }

    async fn extend(&self, request: Request<wire::ExtendRequest>) -> Result<Response<wire::SubmitResponse>, Status> {
        // Somebody else added an array meanwhile.
        Ok(Response::new(wire::SubmitResponse { job: request.get_ref().job, first_array: 2, tasks: vec![1] }))
    }

    async fn close(&self, _: Request<wire::JobRequest>) -> Result<Response<wire::Empty>, Status> {
        Err(Status::failed_precondition("job 7 is not open"))
    }

    async fn cancel(&self, _: Request<wire::JobRequest>) -> Result<Response<wire::Empty>, Status> {
        Err(Status::not_found("there is no job 7"))
    }

    async fn release(&self, _: Request<wire::JobRequest>) -> Result<Response<wire::Empty>, Status> {
        // The first answer is lost on the way.
        if self.script(|script| std::mem::replace(&mut script.released, true)) {
            return Err(Status::not_found("there is no job 7"));
        }
        Err(Status::unavailable("gone"))
    }

    async fn list(&self, _: Request<wire::ListJobsRequest>) -> Result<Response<wire::ListJobsResponse>, Status> {
        let job = wire::Job { number: 1, state: 99, ..Default::default() };
        Ok(Response::new(wire::ListJobsResponse { jobs: vec![job] }))
    }

    async fn show(&self, _: Request<wire::JobRequest>) -> Result<Response<wire::Job>, Status> {
        Err(Status::permission_denied("role viewer may not do this"))
    }

    async fn watch(&self, request: Request<wire::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let from = request.get_ref().from;
        let events = self.script(|script| {
            script.watched_from.push(from);
            // One event more than asked for at the beginning, as after a hasty restart.
            let start = usize::try_from(from).expect("small").saturating_sub(1);
            let numbered = script.events.iter().cloned().enumerate().skip(start).take(script.per_watch);
            numbered
                .map(|(number, event)| wire::JobEvent { sequence: number as u64, event: Some(event) })
                .collect::<Vec<_>>()
        });
        let batches = events.chunks(2).map(|events| Ok(wire::WatchResponse { events: events.to_vec() }));
        let broken = std::iter::once(Err(Status::unavailable("the scheduler stops")));
        Ok(Response::new(stream::iter(batches.chain(broken).collect::<Vec<_>>()).boxed()))
    }

    async fn explain(&self, _: Request<wire::ExplainRequest>) -> Result<Response<wire::ExplainResponse>, Status> {
        Ok(Response::new(wire::ExplainResponse { explanations: Vec::new() }))
    }

    async fn log(&self, request: Request<wire::LogRequest>) -> Result<Response<wire::LogResponse>, Status> {
        let line = |level, text: &str| partita_protocol::job::LogLine { level, text: text.to_owned() };
        let log = |index, lines| partita_protocol::job::AttemptLog { array: 0, index, attempt: 1, lines };
        let host = |host: &str, logs| wire::HostLog { host: host.to_owned(), logs, ..Default::default() };
        assert_eq!(request.get_ref().index, None);
        let hosts = vec![
            wire::HostLog { cut: true, ..host("host-1", vec![log(0, vec![line(1, "a")]), log(2, vec![line(3, "c")])]) },
            host("host-2", vec![log(1, vec![line(2, "b")])]),
            wire::HostLog { silent: true, ..host("host-3", Vec::new()) },
        ];
        Ok(Response::new(wire::LogResponse { hosts }))
    }

    async fn result(&self, request: Request<wire::ResultRequest>) -> Result<Response<Self::ResultStream>, Status> {
        self.fail_if_scripted()?;
        let wire::ResultRequest { first, count, .. } = *request.get_ref();
        let wanted = move |piece: &wire::ResultPiece| count == 0 || (first..first + count).contains(&piece.index);
        if self.script(|script| script.broken_results.checked_sub(1).map(|left| script.broken_results = left).is_some())
        {
            return Ok(Response::new(stream::iter([Err(Status::unavailable("waited too long"))]).boxed()));
        }
        let chunks = self.script(|script| script.chunks.clone()).into_iter().map(move |mut chunk| {
            chunk.pieces.retain(wanted);
            Ok(chunk)
        });
        Ok(Response::new(stream::iter(chunks).boxed()))
    }

    async fn put(&self, request: Request<Streaming<wire::PutRequest>>) -> Result<Response<wire::Empty>, Status> {
        let mut parts = request.into_inner();
        let mut data = Vec::new();
        let mut announced = 0;
        while let Some(part) = parts.message().await? {
            match part.part {
                Some(wire::put_request::Part::Header(header)) => announced = header.size,
                Some(wire::put_request::Part::Chunk(chunk)) => data.extend_from_slice(&chunk),
                None => {}
            }
        }
        if data.len() as u64 != announced {
            return Err(Status::invalid_argument("the upload is not complete"));
        }
        self.fail_if_scripted()?;
        self.script(|script| script.uploaded = data);
        Ok(Response::new(wire::Empty {}))
    }
}

/// A stand-in that serves, and what is needed to speak to it.
struct Cluster {
    stand_in: StandIn,
    connection: Connection,
    _server: JoinSet<()>,
}

impl Cluster {
    fn start(script: Script) -> Self {
        let authority = Authority::create("test").expect("a stand-in can be set up");
        let identity = authority.issue_server(&["127.0.0.1".to_owned()]).expect("a stand-in can be set up");
        let config = tls::server_config(&identity, authority.certificate_pem()).expect("a stand-in can be set up");
        let listener =
            serve::bind("127.0.0.1:0".parse().expect("a stand-in can be set up")).expect("a stand-in can be set up");
        let address = listener.local_addr().expect("a stand-in can be set up").to_string();
        let incoming = serve::incoming(listener, config, serve::ConnectionLimits::default());
        let stand_in = StandIn(Arc::new(Mutex::new(script)));
        let service = JobsServer::new(stand_in.clone());
        let mut server = JoinSet::new();
        server.spawn(async move {
            serve::server().serve_with_incoming(service, incoming).await.expect("it serves");
        });
        let authority_pem = authority.certificate_pem().to_owned();
        let connection = Connection { address, authority_pem, token: Token::new(TOKEN) };
        Self { stand_in, connection, _server: server }
    }

    fn client(&self) -> Client {
        Client::connect(&self.connection).expect("a stand-in can be set up").with_retries(QUICK)
    }
}

fn job() -> JobBuilder {
    let mut job = JobBuilder::new("job").open();
    job.array("map", Function::new(ModuleId([1; 32]), "map")).tasks(4).add();
    job
}

fn added() -> wire::job_event::Event {
    let array = wire::Array { name: "map".into(), function: "map".into(), tasks: 4, outputs: 1, counts: None };
    wire::job_event::Event::ArraysAdded(wire::ArraysAdded { arrays: vec![array] })
}

fn ended(task: u32, end: wire::TaskEnd) -> wire::job_event::Event {
    let tasks = wire::TasksEnded { array: 0, end: end.into(), first: vec![task], count: vec![1] };
    wire::job_event::Event::TasksEnded(tasks)
}

fn finished(state: wire::JobState) -> wire::job_event::Event {
    wire::job_event::Event::JobEnded(wire::JobEnded { state: state.into() })
}

/// Four tasks that succeed in another order than that of their positions.
fn succeeding() -> Vec<wire::job_event::Event> {
    let ends = [2, 0, 3, 1].map(|task| ended(task, wire::TaskEnd::Succeeded));
    std::iter::once(added()).chain(ends).chain([finished(wire::JobState::Succeeded)]).collect()
}

fn piece(index: u32, data: &'static str, end: bool) -> wire::ResultPiece {
    wire::ResultPiece { index, data: data.as_bytes().into(), end }
}

/// Outputs "0" to "3", each doubled, in mixed order and in pieces.
fn mixed() -> Vec<wire::ResultChunk> {
    vec![
        wire::ResultChunk { pieces: vec![piece(1, "1", false), piece(3, "33", true)] },
        wire::ResultChunk { pieces: vec![piece(0, "0", false), piece(1, "1", true), piece(0, "0", true)] },
        wire::ResultChunk { pieces: vec![piece(2, "22", true)] },
    ]
}

#[tokio::test]
async fn a_submission_that_is_repeated_keeps_its_key() {
    let cluster = Cluster::start(Script { failures: 2, ..Script::default() });
    let handle = cluster.client().submit(job()).await.unwrap();
    assert_eq!(handle.number(), 7);
    let keys = cluster.stand_in.script(|script| script.keys.clone());
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| key.len() == 16 && *key == keys[0]), "{keys:?}");
    cluster.client().submit(job()).await.unwrap();
    assert_ne!(cluster.stand_in.script(|script| script.keys[3].clone()), keys[0], "another submission has another key");
}

#[tokio::test]
async fn retries_end() {
    let cluster = Cluster::start(Script { failures: 100, ..Script::default() });
    let error = cluster.client().submit(job()).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot submit the job: the scheduler starts");
    assert!(error.retryable());
    assert_eq!(cluster.stand_in.script(|script| script.keys.len()), 4);
}

#[tokio::test]
async fn a_watch_sees_every_event_once_over_many_connections() {
    let script = Script { events: succeeding(), per_watch: 2, ..Script::default() };
    let cluster = Cluster::start(script);
    let watch = cluster.client().watch(7, 0).with_retries(QUICK);
    let events: Vec<_> = watch.into_stream().try_collect().await.unwrap();
    let numbers: Vec<_> = events.iter().map(|event| event.sequence).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
    let from = cluster.stand_in.script(|script| script.watched_from.clone());
    assert_eq!(from, [0, 2, 3, 4, 5], "each connection asks for the first event not seen");
}

#[tokio::test]
async fn a_watch_without_progress_gives_up() {
    let cluster = Cluster::start(Script { events: vec![added()], per_watch: 1, ..Script::default() });
    let mut watch = cluster.client().watch(7, 0).with_retries(QUICK);
    assert_eq!(watch.next().await.unwrap().unwrap().sequence, 0);
    let error = watch.next().await.unwrap_err();
    assert_eq!(error.to_string(), "cannot watch the job: the scheduler stops");
    assert_eq!(watch.position(), 1);
}

#[tokio::test]
async fn tasks_and_arrays_are_futures_of_their_results() {
    let script = Script { events: succeeding(), per_watch: 3, chunks: mixed(), failures: 0, ..Script::default() };
    let cluster = Cluster::start(script);
    let mut builder = JobBuilder::new("job");
    let map = builder.array("map", Function::new(ModuleId([1; 32]), "map")).tasks(4).add();
    let handle = cluster.client().submit(builder).await.unwrap();
    let array = handle.array(&map);
    array.clone().await.unwrap();
    assert_eq!(array.last().await.unwrap(), "33");
    assert_eq!(handle.array_named("map").task(0).await.unwrap(), "00");
    assert_eq!(array.collect(0).await.unwrap(), ["00", "11", "22", "33"]);
    let order: Vec<_> = array.as_completed().try_collect().await.unwrap();
    assert_eq!(order, [2, 0, 3, 1].map(|task| (task, TaskEnd::Succeeded)));
    let pieces: Vec<_> = array.pieces(0).await.unwrap().try_collect().await.unwrap();
    assert_eq!(pieces.iter().flat_map(|piece| piece.data.to_vec()).collect::<Vec<_>>(), b"00112233");
    cluster.stand_in.script(|script| script.broken_results = 2);
    let pieces: Vec<_> = array.pieces(0).await.unwrap().try_collect().await.unwrap();
    assert_eq!(pieces.len(), 6, "a result that breaks before it begins is asked for again");
    let missing = array.task(9).await.unwrap_err();
    assert_eq!(missing.to_string(), "job 7 has no task 9 in array \"map\"");
}

#[tokio::test]
async fn a_failed_task_is_an_error_with_its_cause() {
    let failure = partita_protocol::job::Failure { cause: 2, message: "boom".into(), ..Default::default() };
    let failed = wire::TaskFailure { array: 0, index: 1, attempts: 3, failure: Some(failure) };
    let events = vec![
        added(),
        ended(0, wire::TaskEnd::Succeeded),
        wire::job_event::Event::AttemptFailed(failed),
        ended(1, wire::TaskEnd::Failed),
        finished(wire::JobState::Failed),
    ];
    let cluster = Cluster::start(Script { events, per_watch: 9, ..Script::default() });
    let handle = cluster.client().job(7);
    let error = handle.array_named("map").await.unwrap_err();
    assert_eq!(error.to_string(), "task 1 of array \"map\" of job 7 failed: panic: boom (3 attempts)");
    let error = handle.array_named("map").task(2).await.unwrap_err();
    assert_eq!(error.to_string(), "job 7 ended (failed) without task 2 of array 0");
    let error = handle.array_named("reduce").await.unwrap_err();
    assert_eq!(error.to_string(), "job 7 ended (failed) without array \"reduce\"");
}

#[tokio::test]
async fn uploads_arrive_whole_even_when_they_are_repeated() {
    let script = Script { events: vec![added()], per_watch: 1, failures: 1, ..Script::default() };
    let cluster = Cluster::start(script);
    let mut builder = JobBuilder::new("job");
    let data = builder.upload("map", 4);
    let handle = cluster.client().submit(builder).await;
    // The first failure of the script met the submission.
    let handle = handle.unwrap();
    cluster.stand_in.script(|script| script.failures = 1);
    let bytes: Vec<u8> = (0..600_000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
    handle.put(&data, 0, bytes.clone()).await.unwrap();
    assert!(cluster.stand_in.script(|script| script.uploaded == bytes));
    handle.put_reader(&data, 1, 5, &b"hello"[..]).await.unwrap();
    assert_eq!(cluster.stand_in.script(|script| script.uploaded.clone()), b"hello");
    let short = handle.put_reader(&data, 1, 6, &b"hello"[..]).await.unwrap_err();
    assert!(matches!(short, Error::LocalData { .. }), "{short:?}");
}

#[tokio::test]
async fn a_release_whose_answer_was_lost_has_happened() {
    let cluster = Cluster::start(Script::default());
    cluster.client().job(7).release().await.unwrap();
    let again = cluster.client().job(7).release().await.unwrap_err();
    assert_eq!(again.code(), Some(Code::NotFound));
}

#[tokio::test]
async fn arrays_that_somebody_else_added_meanwhile_are_noticed() {
    let cluster = Cluster::start(Script::default());
    let handle = cluster.client().submit(job()).await.unwrap();
    let mut more = handle.more().await.unwrap();
    more.array("next", Function::new(ModuleId([1; 32]), "next")).tasks(1).add();
    let error = handle.extend(more).await.unwrap_err();
    let source = std::error::Error::source(&error).expect("a job that is not valid has a reason");
    assert_eq!(
        source.to_string(),
        "job 7 has 2 arrays, but these were built to follow 1: build them again with `more`"
    );
}

#[tokio::test]
async fn refusals_keep_their_code_and_words() {
    let cluster = Cluster::start(Script::default());
    let client = cluster.client();
    let handle = client.job(7);
    let refused = |error: Error| (error.code(), error.to_string());
    let shown = refused(handle.status().await.unwrap_err());
    assert_eq!(shown, (Some(Code::PermissionDenied), "cannot show the job: role viewer may not do this".into()));
    let cancelled = refused(handle.cancel().await.unwrap_err());
    assert_eq!(cancelled, (Some(Code::NotFound), "cannot cancel the job: there is no job 7".into()));
    let closed = refused(handle.close().await.unwrap_err());
    assert_eq!(closed, (Some(Code::FailedPrecondition), "cannot close the job: job 7 is not open".into()));
    let listed = refused(client.jobs().await.unwrap_err());
    assert_eq!(
        listed,
        (None, "cannot list jobs: the answer of the cluster is not understood: 99 is not a state of a job".into())
    );
}

#[tokio::test]
async fn a_wrong_token_is_refused_and_not_retried() {
    let cluster = Cluster::start(Script { failures: 9, ..Script::default() });
    let connection = Connection { token: Token::new("another"), ..cluster.connection.clone() };
    let error = Client::connect(&connection).unwrap().submit(job()).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::Unauthenticated));
    assert!(!error.retryable());
}

#[tokio::test]
async fn a_cluster_of_another_authority_is_not_spoken_to() {
    let cluster = Cluster::start(Script::default());
    let authority_pem = Authority::create("test").unwrap().certificate_pem().to_owned();
    let connection = Connection { authority_pem, ..cluster.connection.clone() };
    let client = Client::connect(&connection).unwrap().with_retries(RetryPolicy::NEVER);
    let error = client.submit(job()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("TLS with"), "{error}");
    assert!(cluster.stand_in.script(|script| script.keys.is_empty()), "the token was sent to a stranger");
}

#[tokio::test]
async fn logs_of_several_hosts_come_in_the_order_of_the_tasks() {
    let cluster = Cluster::start(Script::default());
    let log = cluster.client().log(1, Some(0), None).await.unwrap();
    let lines: Vec<_> =
        log.attempts.iter().map(|log| (log.host.as_str(), log.lines[0].level, log.lines[0].text.as_str())).collect();
    assert_eq!(lines, [("host-1", "info", "a"), ("host-2", "warn", "b"), ("host-1", "error", "c")]);
    assert_eq!((log.cut, log.silent), (vec!["host-1".to_owned()], vec!["host-3".to_owned()]));
}
