//! What a cluster says about callers, hosts and tenants.

use partita_protocol::client as wire;
use partita_protocol::features_from_wire;
use partita_types::{ByteSize, CpuTime, Features, Timestamp};
use serde::Serialize;

use super::{Fault, seconds, timestamp};
use crate::hosts::HostDrain;

/// Who the cluster takes the client for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Principal {
    /// Whom the token names.
    pub subject: String,
    /// The tenant.
    pub tenant: String,
    /// What it may do.
    pub role: String,
    /// The token's own id.
    pub token_id: String,
    /// When the token expires, seconds since 1970.
    pub expires_at_s: u64,
    /// The cluster.
    pub cluster: String,
}

/// A host of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostStatus {
    /// Its name.
    pub name: String,
    /// Whether it is attached.
    pub state: String,
    /// Core leases that it offers.
    pub cores: u32,
    /// Memory for guests.
    #[serde(rename = "memory_bytes")]
    pub memory: ByteSize,
    /// Memory for partitions.
    #[serde(rename = "partition_budget_bytes")]
    pub partition_budget: ByteSize,
    /// Tasks that it has.
    pub assigned_tasks: u32,
    /// Partitions that it stores.
    pub stored_partitions: u64,
    /// Their size.
    #[serde(rename = "stored_bytes")]
    pub stored: ByteSize,
    /// How strongly it confines executors.
    pub isolation: String,
    /// Where other hosts reach it.
    pub address: String,
    /// When it attached, microseconds since 1970.
    #[serde(rename = "attached_at_us", serialize_with = "timestamp")]
    pub attached_at: Timestamp,
    /// What it has beyond its size.
    pub features: Features,
    /// How far it is with being emptied, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<HostDrain>,
}

/// What a tenant uses and may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TenantUsage {
    /// The tenant.
    pub tenant: String,
    /// Its weight among the others.
    pub weight: u64,
    /// Jobs that have not ended.
    pub running_jobs: u32,
    /// Tasks that have not ended.
    pub queued_tasks: u64,
    /// How many there may be.
    pub queued_tasks_limit: u64,
    /// Tasks with hosts.
    pub assigned_tasks: u64,
    /// Their memory limits together.
    #[serde(rename = "assigned_memory_bytes")]
    pub assigned_memory: ByteSize,
    /// Partitions stored.
    #[serde(rename = "stored_bytes")]
    pub stored: ByteSize,
    /// CPU time so far.
    #[serde(rename = "cpu_seconds", serialize_with = "seconds")]
    pub cpu: CpuTime,
    /// Most memory of one attempt.
    #[serde(rename = "peak_memory_bytes")]
    pub peak_memory: ByteSize,
}

impl From<wire::Principal> for Principal {
    fn from(principal: wire::Principal) -> Self {
        Self {
            subject: principal.subject,
            tenant: principal.tenant,
            role: principal.role,
            token_id: principal.token_id,
            expires_at_s: principal.expires_at_s,
            cluster: principal.cluster,
        }
    }
}

impl TryFrom<wire::Host> for HostStatus {
    type Error = Fault;

    fn try_from(host: wire::Host) -> Result<Self, Fault> {
        let features = features_from_wire(host.labels, host.resources).map_err(|error| error.to_string())?;
        Ok(Self {
            name: host.name,
            state: host.state,
            cores: host.cores,
            memory: ByteSize(host.memory_bytes),
            partition_budget: ByteSize(host.partition_budget_bytes),
            assigned_tasks: host.assigned_tasks,
            stored_partitions: host.stored_partitions,
            stored: ByteSize(host.stored_bytes),
            isolation: host.isolation,
            address: host.address,
            attached_at: Timestamp::from_micros(host.attached_at_us),
            features,
            drain: host.drain.map(Into::into),
        })
    }
}

impl From<wire::TenantUsage> for TenantUsage {
    fn from(usage: wire::TenantUsage) -> Self {
        Self {
            tenant: usage.tenant,
            weight: usage.weight,
            running_jobs: usage.running_jobs,
            queued_tasks: usage.queued_tasks,
            queued_tasks_limit: usage.queued_tasks_limit,
            assigned_tasks: usage.assigned_tasks,
            assigned_memory: ByteSize(usage.assigned_memory_bytes),
            stored: ByteSize(usage.stored_bytes),
            cpu: CpuTime::from_micros(usage.cpu_us),
            peak_memory: ByteSize(usage.peak_memory_bytes),
        }
    }
}
