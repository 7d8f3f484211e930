//! The client: what a principal may ask of a cluster.

use bytes::Bytes;
use futures_util::stream;
use partita_client_logic::RetryPolicy;
use partita_identity::token::Token;
use partita_protocol::client as wire;
use partita_types::ModuleId;
use sha2::{Digest, Sha256};

use crate::audit::AuditPage;
use crate::builder::{JobBuilder, Module};
use crate::error::{ConnectError, Error};
use crate::job::JobHandle;
use crate::log::JobLog;
use crate::outputs::{OutputSelection, Outputs};
use crate::transport::{Connection, QUESTION, SUBMISSION, TRANSFER, Transport, cluster, jobs, modules};
use crate::view::{Explanation, HostStatus, JobStatus, ModuleStatus, Principal, TenantUsage};
use crate::watch::Watch;

/// Pieces of this size travel well: large enough to cost nothing each, small enough for flow control.
pub(crate) const CHUNK: usize = 256 << 10;

/// Speaks to one cluster as one principal. Cheap to clone; clones share a connection.
///
/// ```no_run
/// use partita_client::{Client, Connection, JobBuilder, Token};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::connect(&Connection {
///     address: "127.0.0.1:7600".into(),
///     authority_pem: std::fs::read_to_string("ca.pem")?,
///     token: Token::new(&std::fs::read_to_string("analytics.token")?),
/// })?;
/// let module = client.push_module("hello", std::fs::read("hello.wasm")?).await?;
/// let mut job = JobBuilder::new("hello");
/// let greet = job.array("greet", module.function("greet")).tasks(3).add();
/// let handle = client.submit(job).await?;
/// println!("{:?}", handle.array(&greet).task(1).await?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) transport: Transport,
    tenant: String,
}

impl Client {
    /// Prepares a client. The connection is made by the first call and made again when it breaks.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If address, authority or token cannot be used as they are.
    pub fn connect(connection: &Connection) -> Result<Self, ConnectError> {
        Ok(Self { transport: Transport::new(connection)?, tenant: String::new() })
    }

    /// Changes how often calls are repeated while the cluster cannot be reached.
    #[must_use]
    pub fn with_retries(mut self, policy: RetryPolicy) -> Self {
        self.transport.set_retry(policy);
        self
    }

    /// Looks at another tenant's objects. For operators and administrators; others are refused.
    #[must_use]
    pub fn on_behalf_of(mut self, tenant: &str) -> Self {
        tenant.clone_into(&mut self.tenant);
        self
    }

    /// Pushes a component and waits until a host has inspected it. Pushing the same bytes again is quick.
    ///
    /// # Errors
    /// If the module is refused, with the reason: not a component, of another world, importing what is not granted.
    pub async fn push_module(&self, name: &str, component: impl Into<Bytes>) -> Result<Module, Error> {
        let component: Bytes = component.into();
        let header = wire::PushModuleHeader {
            name: name.to_owned(),
            size: component.len() as u64,
            id: Bytes::copy_from_slice(&Sha256::digest(&component)),
        };
        let pushed = self
            .transport
            .repeat(|| {
                let parts = std::iter::once(wire::push_module_request::Part::Header(header.clone()))
                    .chain(chunks(&component).map(wire::push_module_request::Part::Chunk))
                    .map(|part| wire::PushModuleRequest { part: Some(part) });
                let request = self.transport.request(stream::iter(parts.collect::<Vec<_>>()));
                let mut client = modules(self.transport.channel());
                async move {
                    let call = client.push(request);
                    self.transport.once("push the module", TRANSFER, call).await
                }
            })
            .await?;
        let status = ModuleStatus::try_from(pushed).map_err(|fault| Error::malformed("push the module", fault))?;
        Ok(Module::new(status.info))
    }

    /// The id that a component has in any cluster: the SHA-256 of its bytes.
    #[must_use]
    pub fn module_id(component: &[u8]) -> ModuleId {
        ModuleId(Sha256::digest(component).into())
    }

    /// The tenant's modules.
    ///
    /// # Errors
    /// If the cluster refuses or cannot be reached.
    pub async fn modules(&self) -> Result<Vec<ModuleStatus>, Error> {
        const OPERATION: &str = "list modules";
        let send = |channel, request| async move { modules(channel).list(request).await };
        let answer = self.transport.call(OPERATION, QUESTION, wire::ListModulesRequest {}, send).await?;
        convert_all(OPERATION, answer.modules)
    }

    /// A module by id, by an unambiguous beginning of its id, or by name (then the latest).
    ///
    /// # Errors
    /// If there is no such module, or the cluster refuses or cannot be reached.
    pub async fn module(&self, reference: &str) -> Result<ModuleStatus, Error> {
        const OPERATION: &str = "look up the module";
        let request = wire::ShowModuleRequest { reference: reference.to_owned() };
        let send = |channel, request| async move { modules(channel).show(request).await };
        convert(OPERATION, self.transport.call(OPERATION, QUESTION, request, send).await?)
    }

    /// The same as a value that [`JobBuilder`] takes functions from.
    ///
    /// # Errors
    /// As [`Client::module`].
    pub async fn find_module(&self, reference: &str) -> Result<Module, Error> {
        self.module(reference).await.map(|status| Module::new(status.info))
    }

    /// Submits a job. It is on the cluster's disk when this returns, and belongs to the cluster from then on.
    ///
    /// # Errors
    /// If the job is not valid, is refused, or the cluster cannot be reached.
    pub async fn submit(&self, job: JobBuilder) -> Result<JobHandle, Error> {
        let parts = job.into_parts().map_err(Error::Job)?;
        let outputs = parts.arrays.iter().map(|array| array.outputs).collect();
        let spec = partita_types::JobSpec {
            name: parts.name,
            arrays: parts.arrays,
            open: parts.open,
            deadline: parts.deadline,
        };
        let request = wire::SubmitRequest { job: Some(spec.into()), idempotency_key: idempotency_key() };
        let send = |channel, request| async move { jobs(channel).submit(request).await };
        let answer = self.transport.call("submit the job", SUBMISSION, request, send).await?;
        Ok(JobHandle::submitted(self.transport.clone(), answer.job, parts.id, outputs))
    }

    /// A job that was submitted before, perhaps by another process. Whether it exists shows when it is used.
    #[must_use]
    pub fn job(&self, number: u32) -> JobHandle {
        JobHandle::found(self.transport.clone(), number, self.tenant.clone())
    }

    /// The jobs of the tenant.
    ///
    /// # Errors
    /// If the cluster refuses or cannot be reached.
    pub async fn jobs(&self) -> Result<Vec<JobStatus>, Error> {
        const OPERATION: &str = "list jobs";
        let request = wire::ListJobsRequest { tenant: self.tenant.clone() };
        let send = |channel, request| async move { jobs(channel).list(request).await };
        convert_all(OPERATION, self.transport.call(OPERATION, QUESTION, request, send).await?.jobs)
    }

    /// The events of a job from number `from` on; 0 is the beginning.
    #[must_use]
    pub fn watch(&self, job: u32, from: u64) -> Watch {
        Watch::new(self.transport.clone(), job, self.tenant.clone(), from)
    }

    /// Streams outputs, in the order in which they arrive.
    ///
    /// # Errors
    /// If they are not there and cannot be made, or the cluster refuses or cannot be reached.
    pub async fn outputs(&self, job: u32, selection: &OutputSelection) -> Result<Outputs, Error> {
        Outputs::open(&self.transport, job, &self.tenant, selection).await
    }

    /// Why the pending tasks of a job are pending: all arrays, or one task as (array, index).
    ///
    /// # Errors
    /// If there is no such job or task, or the cluster refuses or cannot be reached.
    pub async fn explain(&self, job: u32, task: Option<(u32, u32)>) -> Result<Vec<Explanation>, Error> {
        let request = wire::ExplainRequest {
            job,
            array: task.map(|(array, _)| array),
            index: task.map(|(_, index)| index),
            tenant: self.tenant.clone(),
        };
        let send = |channel, request| async move { jobs(channel).explain(request).await };
        let answer = self.transport.call("explain the job", QUESTION, request, send).await?;
        Ok(answer.explanations.into_iter().map(Into::into).collect())
    }

    /// What the tasks of a job have logged: all of them, those of one array, or one task as (array, index). Hosts keep
    /// logs of attempts that ended for a while, 16 MiB per tenant, and forget the oldest first.
    ///
    /// # Errors
    /// If there is no such job, or the cluster refuses or cannot be reached.
    pub async fn log(&self, job: u32, array: Option<u32>, index: Option<u32>) -> Result<JobLog, Error> {
        let request = wire::LogRequest { job, array, index, tenant: self.tenant.clone() };
        let send = |channel, request| async move { jobs(channel).log(request).await };
        self.transport.call("read the log of the job", QUESTION, request, send).await.map(Into::into)
    }

    /// Who the cluster takes this client for.
    ///
    /// # Errors
    /// If the cluster refuses or cannot be reached.
    pub async fn who_am_i(&self) -> Result<Principal, Error> {
        let send = |channel, request| async move { cluster(channel).who_am_i(request).await };
        self.transport.call("ask who I am", QUESTION, wire::Empty {}, send).await.map(Into::into)
    }

    /// The hosts of the cluster.
    ///
    /// # Errors
    /// If the cluster refuses or cannot be reached.
    pub async fn hosts(&self) -> Result<Vec<HostStatus>, Error> {
        let send = |channel, request| async move { cluster(channel).hosts(request).await };
        let answer = self.transport.call("list hosts", QUESTION, wire::Empty {}, send).await?;
        let hosts: Result<Vec<HostStatus>, _> = answer.hosts.into_iter().map(TryInto::try_into).collect();
        hosts.map_err(|fault| Error::malformed("list hosts", fault))
    }

    /// What the tenant uses and may use; for operators and administrators all tenants.
    ///
    /// # Errors
    /// If the cluster refuses or cannot be reached.
    pub async fn usage(&self) -> Result<Vec<TenantUsage>, Error> {
        let request = wire::UsageRequest { tenant: self.tenant.clone() };
        let send = |channel, request| async move { cluster(channel).usage(request).await };
        let answer = self.transport.call("read the usage", QUESTION, request, send).await?;
        Ok(answer.tenants.into_iter().map(Into::into).collect())
    }

    /// Lines of the cluster's audit log behind number `after`, at most `limit` and at most a thousand. For auditors and
    /// administrators.
    ///
    /// # Errors
    /// If the cluster refuses or cannot be reached.
    pub async fn audit(&self, after: u64, limit: u32) -> Result<AuditPage, Error> {
        let request = wire::AuditRequest { after, limit };
        let send = |channel, request| async move { cluster(channel).audit(request).await };
        let answer = self.transport.call("read the audit log", QUESTION, request, send).await?;
        let wire::AuditResponse { lines, more, last, hash } = answer;
        Ok(AuditPage { lines, more, last, hash })
    }

    /// Gives out a token for a principal of a tenant. For administrators.
    ///
    /// # Errors
    /// If the role or tenant is unknown or the policy forbids it, or the cluster refuses or cannot be reached.
    pub async fn issue_token(
        &self,
        tenant: &str,
        subject: &str,
        role: &str,
        lifetime: std::time::Duration,
    ) -> Result<Token, Error> {
        let request = wire::IssueTokenRequest {
            tenant: tenant.to_owned(),
            subject: subject.to_owned(),
            role: role.to_owned(),
            lifetime_s: lifetime.as_secs(),
        };
        let send = |channel, request| async move { cluster(channel).issue_token(request).await };
        let answer = self.transport.call("issue a token", QUESTION, request, send).await?;
        Ok(Token::new(&answer.token))
    }

    /// Revokes one token, by its id. For administrators.
    ///
    /// # Errors
    /// If the cluster refuses or cannot be reached.
    pub async fn revoke_token(&self, id: &str) -> Result<(), Error> {
        self.revoke(wire::RevokeTokensRequest { token: id.to_owned(), ..Default::default() }).await
    }

    /// Revokes every token of a tenant, or of one holder of it, that was issued until now. For administrators.
    ///
    /// # Errors
    /// If the cluster refuses or cannot be reached.
    pub async fn revoke_tokens_of(&self, tenant: &str, subject: Option<&str>) -> Result<(), Error> {
        let (tenant, subject) = (tenant.to_owned(), subject.unwrap_or_default().to_owned());
        self.revoke(wire::RevokeTokensRequest { tenant, subject, token: String::new() }).await
    }

    async fn revoke(&self, request: wire::RevokeTokensRequest) -> Result<(), Error> {
        let send = |channel, request| async move { cluster(channel).revoke_tokens(request).await };
        self.transport.call("revoke tokens", QUESTION, request, send).await.map(drop)
    }

    /// Gives out a token with which a host may join once. For administrators.
    ///
    /// # Errors
    /// If the name is not one of a host, or the cluster refuses or cannot be reached.
    pub async fn issue_join_token(&self, host: &str, lifetime: std::time::Duration) -> Result<Token, Error> {
        let request = wire::IssueJoinTokenRequest { host: host.to_owned(), lifetime_s: lifetime.as_secs() };
        let send = |channel, request| async move { cluster(channel).issue_join_token(request).await };
        let answer = self.transport.call("issue a join token", QUESTION, request, send).await?;
        Ok(Token::new(&answer.token))
    }
}

/// Sixteen random bytes that make a repeated submission the same submission.
pub(crate) fn idempotency_key() -> Bytes {
    Bytes::copy_from_slice(&partita_identity::random::<16>())
}

/// Cuts without copying.
pub(crate) fn chunks(data: &Bytes) -> impl Iterator<Item = Bytes> + Send + use<> {
    let data = data.clone();
    let count = data.len().div_ceil(CHUNK);
    (0..count).map(move |position| data.slice(position * CHUNK..data.len().min((position + 1) * CHUNK)))
}

pub(crate) fn convert<M, T: TryFrom<M, Error = String>>(operation: &'static str, message: M) -> Result<T, Error> {
    T::try_from(message).map_err(|fault| Error::malformed(operation, fault))
}

fn convert_all<M, T: TryFrom<M, Error = String>>(operation: &'static str, list: Vec<M>) -> Result<Vec<T>, Error> {
    list.into_iter().map(|message| convert(operation, message)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_the_data_in_order() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let data: Bytes = (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect::<Vec<_>>().into();
            let pieces: Vec<Bytes> = chunks(&data).collect();
            assert!(pieces.iter().all(|piece| !piece.is_empty() && piece.len() <= CHUNK));
            assert_eq!(pieces.concat(), data, "{length} bytes");
        }
    }

    #[test]
    fn keys_differ() {
        assert_ne!(idempotency_key(), idempotency_key());
        assert_eq!(idempotency_key().len(), 16);
    }
}
