//! Which service a call goes to. Behind the gate, so every path here is one of its table.

use std::convert::Infallible;
use std::task::{Context, Poll};

use http::{Request, Response};
use partita_protocol::client::cluster_server::{self, ClusterServer};
use partita_protocol::client::jobs_server::{self, JobsServer};
use partita_protocol::client::modules_server::{self, ModulesServer};
use partita_protocol::host::enrollment_server::{self, EnrollmentServer};
use partita_protocol::host::sessions_server::{self, SessionsServer};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tower::Service;

use crate::cluster::ClusterService;
use crate::enrollment::EnrollmentService;
use crate::jobs::JobService;
use crate::modules::ModuleService;
use crate::sessions::SessionService;

/// Largest message of a client with jobs in it: a submission, or a piece of an upload.
const JOB_MESSAGE: usize = 32 << 20;
/// Largest piece of a module.
const MODULE_MESSAGE: usize = 1 << 20;
/// Largest message without bulk.
const SMALL_MESSAGE: usize = 64 << 10;
/// Largest message of a host: a part of its hello with 100,000 of the partitions that it stores takes about 7 MB, and its
/// hello has the ends of attempts that it could not report before, too.
const HOST_MESSAGE: usize = 64 << 20;

/// All services. Compression is off, so a message is as large as it looks.
#[derive(Clone)]
pub(crate) struct Router {
    modules: ModulesServer<ModuleService>,
    jobs: JobsServer<JobService>,
    cluster: ClusterServer<ClusterService>,
    enrollment: EnrollmentServer<EnrollmentService>,
    sessions: SessionsServer<SessionService>,
}

impl Router {
    pub(crate) fn new(
        modules: ModuleService,
        jobs: JobService,
        cluster: ClusterService,
        enrollment: EnrollmentService,
        sessions: SessionService,
    ) -> Self {
        Self {
            modules: ModulesServer::new(modules).max_decoding_message_size(MODULE_MESSAGE),
            jobs: JobsServer::new(jobs).max_decoding_message_size(JOB_MESSAGE),
            cluster: ClusterServer::new(cluster).max_decoding_message_size(SMALL_MESSAGE),
            enrollment: EnrollmentServer::new(enrollment).max_decoding_message_size(SMALL_MESSAGE),
            sessions: SessionsServer::new(sessions).max_decoding_message_size(HOST_MESSAGE),
        }
    }
}

impl Service<Request<Body>> for Router {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match request.uri().path().split('/').nth(1) {
            Some(modules_server::SERVICE_NAME) => self.modules.call(request),
            Some(jobs_server::SERVICE_NAME) => self.jobs.call(request),
            Some(cluster_server::SERVICE_NAME) => self.cluster.call(request),
            Some(enrollment_server::SERVICE_NAME) => self.enrollment.call(request),
            Some(sessions_server::SERVICE_NAME) => self.sessions.call(request),
            Some(_) | None => Box::pin(async { Ok(Status::unimplemented("there is no such service").into_http()) }),
        }
    }
}
