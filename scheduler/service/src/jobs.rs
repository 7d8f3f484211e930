//! Jobs: submitting, looking, cancelling. Streams of events and bytes are in `watch`, `result` and `upload`.

use std::pin::Pin;
use std::time::Duration;

use futures_util::Stream;
use partita_core::{IdempotencyKey, Reply, Request};
use partita_protocol::client::jobs_server::Jobs;
use partita_protocol::client::{
    Empty, ExplainRequest, ExplainResponse, ExtendRequest, Job, JobRequest, ListJobsRequest, ListJobsResponse,
    LogRequest, LogResponse, PutRequest, ResultChunk, ResultRequest, SubmitRequest, SubmitResponse, WatchRequest,
};
use partita_types::{ArrayIndex, ArraySpec, ByteSize, JobId, JobSpec};
use tokio_util::sync::CancellationToken;
use tonic::{Request as Call, Response, Status, Streaming};
use tracing::info;

use crate::audit::Object;
use crate::auth::{Caller, caller};
use crate::driver::Handle;
use crate::hub::Hub;
use crate::logs::{self, LogDesk};
use crate::relay::Relays;
use crate::result::{Outputs, Wanted};
use crate::space::Space;
use crate::status::{not_found, undecodable, unexpected};
use crate::upload::Upload;
use crate::watch::{self, Watcher};
use crate::{scope, wire};

/// Longest wait for a submission: a host may have to list a dataset first.
const SUBMISSION: Duration = Duration::from_secs(180);
/// Jobs in one listing; the latest are shown.
const LISTED: usize = 1_000;

/// The service of jobs.
pub(crate) struct JobService {
    pub(crate) handle: Handle,
    pub(crate) hub: std::sync::Arc<Hub>,
    pub(crate) relays: Relays,
    pub(crate) logs: LogDesk,
    pub(crate) metrics: crate::metrics::Metrics,
    pub(crate) space: Space,
    /// Cancelled when the scheduler stops.
    pub(crate) stop: CancellationToken,
}

impl JobService {
    /// The id of a job that the caller names; it may not exist.
    async fn job(&self, caller: &Caller, request: &JobRequest) -> Result<JobId, Status> {
        scope::job_id(&self.handle, caller, &request.tenant, request.job).await
    }

    async fn accept(&self, request: Request) -> Result<SubmitResponse, Status> {
        match self.handle.request(request, SUBMISSION).await? {
            Reply::Accepted { job, first, tasks } => {
                Ok(SubmitResponse { job: job.number, first_array: first.0, tasks })
            }
            other => Err(unexpected(&other)),
        }
    }
}

/// About what a submission takes in the journal.
fn encoded(request: &impl prost::Message) -> ByteSize {
    ByteSize(request.encoded_len() as u64)
}

/// A job as its caller names it.
fn named(request: &JobRequest) -> String {
    let JobRequest { job, tenant } = request;
    if tenant.is_empty() { format!("job {job}") } else { format!("job {job} of tenant {tenant:?}") }
}

fn key(bytes: &[u8]) -> Result<IdempotencyKey, Status> {
    let key = bytes.try_into().map_err(|_| {
        Status::invalid_argument(format!("the idempotency key has {} bytes, it must have 16", bytes.len()))
    });
    key.map(IdempotencyKey)
}

#[tonic::async_trait]
impl Jobs for JobService {
    async fn submit(&self, call: Call<SubmitRequest>) -> Result<Response<SubmitResponse>, Status> {
        let (caller, object) = (caller(&call)?, Object::of(&call));
        let tenant = scope::tenant_id(&self.handle, &caller.0.tenant).await?;
        let request = call.into_inner();
        self.space.check("job", encoded(&request))?;
        let key = key(&request.idempotency_key)?;
        let job = request.job.ok_or_else(|| Status::invalid_argument("the submission has no job"))?;
        let spec = JobSpec::try_from(job).map_err(|error| undecodable(&error))?;
        spec.check().map_err(|error| Status::invalid_argument(error.to_string()))?;
        let response = self.accept(Request::Submit { tenant, key, spec }).await?;
        object.is(format_args!("job {}", response.job));
        info!(tenant = %caller.0.tenant, subject = %caller.0.sub, job = response.job, "job submitted");
        Ok(Response::new(response))
    }

    async fn extend(&self, call: Call<ExtendRequest>) -> Result<Response<SubmitResponse>, Status> {
        let (caller, object) = (caller(&call)?, Object::of(&call));
        let request = call.into_inner();
        object.is(format_args!("job {}", request.job));
        self.space.check("extension of a job", encoded(&request))?;
        let job = scope::job_id(&self.handle, &caller, "", request.job).await?;
        let key = key(&request.idempotency_key)?;
        let arrays: Result<Vec<ArraySpec>, _> = request.arrays.into_iter().map(TryInto::try_into).collect();
        let arrays = arrays.map_err(|error| undecodable(&error))?;
        Ok(Response::new(self.accept(Request::Extend { job, key, arrays }).await?))
    }

    async fn close(&self, call: Call<JobRequest>) -> Result<Response<Empty>, Status> {
        let (caller, object) = (caller(&call)?, Object::of(&call));
        let request = call.into_inner();
        object.is(named(&request));
        let job = self.job(&caller, &request).await?;
        scope::done(&self.handle, Request::Close(job)).await?;
        Ok(Response::new(Empty {}))
    }

    async fn cancel(&self, call: Call<JobRequest>) -> Result<Response<Empty>, Status> {
        let (caller, object) = (caller(&call)?, Object::of(&call));
        let request = call.into_inner();
        object.is(named(&request));
        let job = self.job(&caller, &request).await?;
        scope::done(&self.handle, Request::Cancel(job)).await?;
        info!(tenant = %caller.0.tenant, subject = %caller.0.sub, job = job.number, "job cancelled");
        Ok(Response::new(Empty {}))
    }

    async fn release(&self, call: Call<JobRequest>) -> Result<Response<Empty>, Status> {
        let (caller, object) = (caller(&call)?, Object::of(&call));
        let request = call.into_inner();
        object.is(named(&request));
        let job = self.job(&caller, &request).await?;
        scope::done(&self.handle, Request::Release(job)).await?;
        info!(tenant = %caller.0.tenant, subject = %caller.0.sub, job = job.number, "job released");
        Ok(Response::new(Empty {}))
    }

    async fn list(&self, call: Call<ListJobsRequest>) -> Result<Response<ListJobsResponse>, Status> {
        let caller = caller(&call)?;
        let named = call.into_inner().tenant;
        let tenant = scope::tenant(&caller, &named, &format!("tenant {named:?}"))?;
        let tenant = scope::tenant_id(&self.handle, &tenant).await?;
        let jobs = self.handle.query(move |core| core.jobs(tenant).into_iter().take(LISTED).collect::<Vec<_>>());
        let jobs = jobs.await?.into_iter().map(wire::job).collect();
        Ok(Response::new(ListJobsResponse { jobs }))
    }

    async fn show(&self, call: Call<JobRequest>) -> Result<Response<Job>, Status> {
        let caller = caller(&call)?;
        let job = self.job(&caller, &call.into_inner()).await?;
        let view = scope::with_job(&self.handle, job, |_, view| view).await?;
        Ok(Response::new(wire::job(view)))
    }

    type WatchStream = watch::Events;

    async fn watch(&self, call: Call<WatchRequest>) -> Result<Response<watch::Events>, Status> {
        let caller = caller(&call)?;
        let WatchRequest { job, from, tenant } = call.into_inner();
        let job = scope::job_id(&self.handle, &caller, &tenant, job).await?;
        let hub = std::sync::Arc::clone(&self.hub);
        // The watcher is there from within the journal's thread on, which otherwise would not know that it shall hurry.
        let watcher = self
            .handle
            .query_then(
                move |core| core.job(job).is_some(),
                move |exists| exists.then(|| Watcher::new(job, hub.log(job))),
            )
            .await?
            .ok_or_else(|| not_found(format_args!("job {job}")))?;
        Ok(Response::new(watcher.events(from, self.stop.clone())))
    }

    async fn explain(&self, call: Call<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        let caller = caller(&call)?;
        let ExplainRequest { job, array, index, tenant } = call.into_inner();
        let job = scope::job_id(&self.handle, &caller, &tenant, job).await?;
        let explain = move |core: &partita_core::Core, _| core.explain(job, array.map(ArrayIndex), index);
        let explanations = scope::with_job(&self.handle, job, explain).await?;
        let explanations = explanations.into_iter().map(wire::explanation).collect();
        Ok(Response::new(ExplainResponse { explanations }))
    }

    async fn log(&self, call: Call<LogRequest>) -> Result<Response<LogResponse>, Status> {
        let caller = caller(&call)?;
        let LogRequest { job, array, index, tenant } = call.into_inner();
        let job = scope::job_id(&self.handle, &caller, &tenant, job).await?;
        scope::with_job(&self.handle, job, |_, _| ()).await?;
        let hosts = self.logs.read(&self.handle, logs::Wanted { job, array, index }).await?;
        Ok(Response::new(LogResponse { hosts }))
    }

    type ResultStream = Pin<Box<dyn Stream<Item = Result<ResultChunk, Status>> + Send>>;

    async fn result(&self, call: Call<ResultRequest>) -> Result<Response<Self::ResultStream>, Status> {
        let caller = caller(&call)?;
        let request = call.into_inner();
        let job = scope::job_id(&self.handle, &caller, &request.tenant, request.job).await?;
        let index = usize::try_from(request.array).unwrap_or(usize::MAX);
        let find = move |_: &partita_core::Core, view: partita_core::JobView| {
            view.arrays.get(index).map(|array| (wire::tasks(&array.counts), array.outputs))
        };
        let array = format!("array {} of job {job}", request.array);
        let found = scope::with_job(&self.handle, job, find).await?;
        let (tasks, outputs) = found.ok_or_else(|| not_found(&array))?;
        if request.output >= outputs {
            return Err(not_found(format_args!("output {} of {array}", request.output)));
        }
        let tasks = wire::result_tasks(&request, tasks).ok_or_else(|| {
            not_found(format_args!("task {} of {array}", request.first.saturating_add(request.count.max(1)) - 1))
        })?;
        let wanted = Wanted { job, array: ArrayIndex(request.array), output: request.output };
        let outputs = Outputs::new(self.handle.clone(), self.relays.clone(), self.metrics.clone(), wanted);
        Ok(Response::new(Box::pin(outputs.stream(tasks))))
    }

    async fn put(&self, call: Call<Streaming<PutRequest>>) -> Result<Response<Empty>, Status> {
        let caller = caller(&call)?;
        let upload = Upload::new(self.handle.clone(), self.relays.clone(), self.metrics.clone());
        upload.run(&caller, call.into_inner()).await?;
        Ok(Response::new(Empty {}))
    }
}
