//! Modules: taken when a host has looked into them.

use partita_types::{ByteSize, FunctionInfo, HostId, ModuleId, ModuleInfo, TenantId};

use crate::Core;
use crate::action::{Action, Refusal, Reply};
use crate::event::RequestId;
use crate::questions::{Inspection, Question};
use crate::record::Record;
use crate::tenant::Tenant;

impl Core {
    pub(crate) fn on_add_module(
        &mut self,
        request: RequestId,
        tenant: TenantId,
        module: ModuleId,
        name: String,
        size: ByteSize,
        actions: &mut Vec<Action>,
    ) -> Result<Option<Reply>, Refusal> {
        let owner = self.ready_tenant(tenant)?;
        if let Some((known, _)) = owner.module(module) {
            if known.name != name || owner.quarantined.contains_key(&module) {
                let info = ModuleInfo { name, ..known.clone() };
                self.commit(Record::ModuleAdded { tenant, info, at: self.now }, actions);
            }
            return Ok(Some(Reply::ModuleAdded));
        }
        check_quota(owner, size)?;
        self.ask(Question::Inspect(Inspection { request, tenant, module, name, size }), actions)?;
        Ok(None)
    }

    pub(crate) fn on_module_inspected(
        &mut self,
        host: HostId,
        request: RequestId,
        result: Result<Vec<FunctionInfo>, String>,
        actions: &mut Vec<Action>,
    ) {
        let Some(Question::Inspect(inspection)) = self.questions.answered(host, request) else {
            self.stale += 1;
            return;
        };
        let request = inspection.request;
        let reply = self.take_inspection(inspection, result, actions).unwrap_or_else(Reply::Refused);
        actions.push(Action::Reply { request, reply });
    }

    fn take_inspection(
        &mut self,
        inspection: Inspection,
        result: Result<Vec<FunctionInfo>, String>,
        actions: &mut Vec<Action>,
    ) -> Result<Reply, Refusal> {
        let Inspection { tenant, module, name, size, .. } = inspection;
        let functions = result.map_err(|reason| Refusal::Module { module, reason })?;
        let owner = self.ready_tenant(tenant)?;
        if owner.module(module).is_none() {
            check_quota(owner, size)?;
        }
        let info = ModuleInfo { id: module, name, size, functions };
        self.commit(Record::ModuleAdded { tenant, info, at: self.now }, actions);
        Ok(Reply::ModuleAdded)
    }

    /// A tenant whose policy is known.
    pub(crate) fn ready_tenant(&self, id: TenantId) -> Result<&Tenant, Refusal> {
        let tenant = self.tenants.get(id.0 as usize).filter(|tenant| tenant.policy.is_some());
        tenant.ok_or_else(|| Refusal::NotFound { what: "the policy of the tenant".to_owned() })
    }
}

fn check_quota(tenant: &Tenant, size: ByteSize) -> Result<(), Refusal> {
    let Some(quota) = tenant.policy.as_ref().map(|policy| policy.quota) else { return Ok(()) };
    let exceeded = |what, limit, value| Refusal::Quota { tenant: tenant.name.clone(), what, limit, value };
    if size > quota.module_size {
        return Err(exceeded("bytes of one module", quota.module_size.0, size.0));
    }
    let modules = tenant.modules.len() as u64 + 1;
    if modules > u64::from(quota.modules) {
        return Err(exceeded("modules", u64::from(quota.modules), modules));
    }
    Ok(())
}
