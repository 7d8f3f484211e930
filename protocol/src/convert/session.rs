//! What opens a session: the welcome, and what a host must know of tenants.

use std::time::Duration;

use partita_types::{DatasetGrant, DatasetName, HostId, HostTenant, MilliCpu, TenantId, TenantName, Welcome};

use super::{DecodeError, millis};
use crate::host as wire;

/// Length of a ticket key in bytes.
const TICKET_KEY: usize = 32;

impl From<Welcome> for wire::Welcome {
    fn from(welcome: Welcome) -> Self {
        Self {
            host: welcome.host.0,
            heartbeat_ms: millis(welcome.heartbeat),
            ticket_key: welcome.ticket_key.to_vec().into(),
            tenants: welcome.tenants.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::Welcome> for Welcome {
    type Error = DecodeError;

    fn try_from(welcome: wire::Welcome) -> Result<Self, DecodeError> {
        let ticket_key = <[u8; TICKET_KEY]>::try_from(&welcome.ticket_key[..]).map_err(|_| DecodeError::Columns {
            message: "a welcome",
            field: "ticket key bytes",
            found: welcome.ticket_key.len(),
            expected: TICKET_KEY,
        })?;
        Ok(Self {
            host: HostId(welcome.host),
            heartbeat: Duration::from_millis(welcome.heartbeat_ms),
            ticket_key,
            tenants: welcome.tenants.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}

impl From<HostTenant> for wire::TenantPolicy {
    fn from(tenant: HostTenant) -> Self {
        Self {
            tenant: tenant.id.0,
            name: tenant.name.into(),
            weight: u64::from(tenant.weight),
            datasets: tenant.datasets.into_iter().map(Into::into).collect(),
            cpu_milli: tenant.cpu.map_or(0, |cpu| cpu.0),
            guaranteed_cpu_milli: tenant.guaranteed.0,
        }
    }
}

impl TryFrom<wire::TenantPolicy> for HostTenant {
    type Error = DecodeError;

    fn try_from(tenant: wire::TenantPolicy) -> Result<Self, DecodeError> {
        let weight = u32::try_from(tenant.weight).ok().filter(|&weight| weight > 0);
        Ok(Self {
            id: TenantId(tenant.tenant),
            name: TenantName::new(&tenant.name)?,
            weight: weight.ok_or(DecodeError::Range {
                message: "a tenant's policy",
                field: "weight",
                value: tenant.weight,
            })?,
            datasets: tenant.datasets.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            cpu: Some(MilliCpu(tenant.cpu_milli)).filter(|cpu| cpu.0 > 0),
            guaranteed: MilliCpu(tenant.guaranteed_cpu_milli),
        })
    }
}

impl From<DatasetGrant> for wire::DatasetGrant {
    fn from(grant: DatasetGrant) -> Self {
        Self { name: grant.name.into(), location: grant.location, include: grant.include }
    }
}

impl TryFrom<wire::DatasetGrant> for DatasetGrant {
    type Error = DecodeError;

    fn try_from(grant: wire::DatasetGrant) -> Result<Self, DecodeError> {
        Ok(Self { name: DatasetName::new(&grant.name)?, location: grant.location, include: grant.include })
    }
}
