//! The one place that makes a store: every limit is in force before the first instruction of the guest.

use std::sync::Arc;

use partita_types::{TaskLimits, Timestamp};
use wasmtime::component::ResourceTable;
use wasmtime::{Engine, Store};
use wasmtime_wasi::filesystem::WasiFilesystemCtx;

use super::context::{HANDLES_MAX, Source, State, TRANSFER_MAX};
use super::limits::Limiter;
use super::log::Log;
use super::outputs::Outputs;
use crate::wire::page::Page;

/// Bytes that one call may copy out of the guest: a largest write and what surrounds it.
const HOSTCALL_FUEL: usize = TRANSFER_MAX as usize + (256 << 10);

/// What distinguishes one attempt's store from another's.
#[derive(Debug)]
pub(crate) struct StoreRequest {
    pub(crate) limits: TaskLimits,
    pub(crate) outputs: u32,
    pub(crate) inputs: Vec<Source>,
    pub(crate) seed: [u8; 32],
    pub(crate) started_at: Timestamp,
    pub(crate) page: Option<Arc<Page>>,
}

/// A store for one attempt. It is dropped with the attempt, whatever its end.
pub(crate) fn new(engine: &Engine, request: StoreRequest) -> Store<State> {
    let handles = HANDLES_MAX + request.inputs.len() + request.outputs as usize;
    let mut table = ResourceTable::new();
    table.set_max_capacity(HANDLES_MAX);
    let state = State {
        limiter: Limiter::new(request.limits.memory),
        log: Log::new(request.limits.log),
        outputs: Outputs::new(request.outputs, request.limits.output),
        end: None,
        inputs: request.inputs,
        limits: request.limits,
        clock_ns: 0,
        started_at: request.started_at,
        random: None,
        seed: request.seed,
        page: request.page,
        no_files: WasiFilesystemCtx::default(),
        table,
    };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.limiter);
    store.set_hostcall_fuel(HOSTCALL_FUEL);
    store.set_max_component_handles(handles);
    store
}
