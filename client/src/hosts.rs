//! Hosts of the cluster: how far the emptying of one is, and what it has that others do not.

use partita_protocol::client as wire;
use partita_types::ByteSize;
use serde::Serialize;

use crate::client::Client;
use crate::error::Error;
use crate::transport::{QUESTION, cluster};
use crate::view::HostStatus;

/// How far the emptying of a host is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostDrain {
    /// Nothing is left: it can be stopped, and nothing is lost with it.
    pub done: bool,
    /// Tasks that it still has.
    pub tasks: u32,
    /// Partitions that only it has.
    pub partitions: u64,
    /// Their size.
    pub bytes: ByteSize,
    /// Why what is left goes nowhere, if that is so.
    pub stuck: Option<String>,
}

/// Outputs of an array at a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostArray {
    /// Whose.
    pub tenant: String,
    /// The number of the job.
    pub job: u32,
    /// The name of the array.
    pub array: String,
    /// Tasks whose outputs are there.
    pub tasks: u32,
    /// Their size.
    pub bytes: ByteSize,
}

/// A host, and what it has of which job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostDetail {
    /// The host.
    #[serde(flatten)]
    pub host: HostStatus,
    /// What only it has, array by array, as far as it fits into a list. Empty for those who do not run the cluster.
    pub arrays: Vec<HostArray>,
}

impl Client {
    /// One host of the cluster.
    ///
    /// # Errors
    /// If there is none of this name, or the cluster cannot be reached.
    pub async fn host(&self, name: &str) -> Result<HostDetail, Error> {
        let request = wire::ShowHostRequest { host: name.to_owned() };
        let send = |channel, request| async move { cluster(channel).show_host(request).await };
        let answer = self.transport.call("show the host", QUESTION, request, send).await?;
        let host = answer.host.ok_or_else(|| Error::malformed("show the host", "there is no host in it"))?;
        let host = host.try_into().map_err(|fault| Error::malformed("show the host", fault))?;
        Ok(HostDetail { host, arrays: answer.arrays.into_iter().map(Into::into).collect() })
    }

    /// Begins to empty a host: it gets no more work, and what only it has goes to others. [`Client::host`] tells how far that is.
    ///
    /// # Errors
    /// If there is none of this name, the role does not allow it, or the cluster cannot be reached.
    pub async fn drain_host(&self, name: &str) -> Result<(), Error> {
        self.set_drain("drain the host", name, false).await
    }

    /// Lets a host take part again that was being emptied.
    ///
    /// # Errors
    /// As [`Client::drain_host`].
    pub async fn undrain_host(&self, name: &str) -> Result<(), Error> {
        self.set_drain("undrain the host", name, true).await
    }

    async fn set_drain(&self, operation: &'static str, name: &str, undo: bool) -> Result<(), Error> {
        let request = wire::DrainHostRequest { host: name.to_owned(), undo };
        let send = |channel, request| async move { cluster(channel).drain_host(request).await };
        self.transport.call(operation, QUESTION, request, send).await.map(|_| ())
    }
}

impl From<wire::HostDrain> for HostDrain {
    fn from(drain: wire::HostDrain) -> Self {
        Self {
            done: drain.done,
            tasks: drain.tasks,
            partitions: drain.partitions,
            bytes: ByteSize(drain.bytes),
            stuck: Some(drain.stuck).filter(|why| !why.is_empty()),
        }
    }
}

impl From<wire::HostArray> for HostArray {
    fn from(array: wire::HostArray) -> Self {
        let wire::HostArray { tenant, job, array, tasks, bytes } = array;
        Self { tenant, job, array, tasks, bytes: ByteSize(bytes) }
    }
}
