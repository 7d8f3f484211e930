//! The one place that configures wasmtime. No other code sets a knob.
//!
//! The profile: Cranelift only; code without fuel and without epochs, because time is limited from outside the process;
//! 4 GiB reservations with guard pages instead of bounds checks; canonical NaNs; every Wasm proposal switched on or off by
//! name, so that a new release of wasmtime does not change what guests may do. Parallel compilation, the threads proposal
//! and async components are not even compiled in.

use std::num::NonZeroUsize;

use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, ModuleVersionStrategy, OptLevel, PoolingAllocationConfig,
    Result, Strategy, WasmBacktraceDetails, WasmFeatures,
};

use crate::guest::limits::{INSTANCES_MAX, MEMORIES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX};

/// Most frames of a backtrace.
pub(crate) const BACKTRACE_FRAMES: usize = 32;
/// The guest's call stack. What is left of the thread's stack belongs to host functions.
const GUEST_STACK: usize = 512 << 10;
/// Memory and table bytes that stay resident between attempts: resetting them costs less than faulting them in again.
const KEEP_MEMORY: usize = 2 << 20;
const KEEP_TABLES: usize = 64 << 10;
/// Largest linear memory that can exist: all of 32 bits. The limit of an attempt is the limiter's business.
const MEMORY_MAX: usize = 1 << 32;
/// Bookkeeping of one instance.
const INSTANCE_BYTES_MAX: usize = 1 << 20;

/// The release of wasmtime that the workspace pins, and this profile's own version: raise it with any change that
/// matters to compiled code.
const PROFILE: &str = "wasmtime 48.0.8, partita profile 1";

/// Every proposal of WebAssembly that the engine knows, and whether guests may use it.
const PROPOSALS: [(WasmFeatures, bool); 33] = [
    (WasmFeatures::MUTABLE_GLOBAL, true),
    (WasmFeatures::SATURATING_FLOAT_TO_INT, true),
    (WasmFeatures::SIGN_EXTENSION, true),
    (WasmFeatures::REFERENCE_TYPES, true),
    (WasmFeatures::MULTI_VALUE, true),
    (WasmFeatures::BULK_MEMORY, true),
    (WasmFeatures::SIMD, true),
    (WasmFeatures::EXTENDED_CONST, true),
    (WasmFeatures::FLOATS, true),
    (WasmFeatures::COMPONENT_MODEL, true),
    (WasmFeatures::RELAXED_SIMD, false),
    (WasmFeatures::THREADS, false),
    (WasmFeatures::SHARED_EVERYTHING_THREADS, false),
    (WasmFeatures::TAIL_CALL, false),
    (WasmFeatures::MULTI_MEMORY, false),
    (WasmFeatures::EXCEPTIONS, false),
    (WasmFeatures::LEGACY_EXCEPTIONS, false),
    (WasmFeatures::MEMORY64, false),
    (WasmFeatures::MEMORY_CONTROL, false),
    (WasmFeatures::CUSTOM_PAGE_SIZES, false),
    (WasmFeatures::FUNCTION_REFERENCES, false),
    (WasmFeatures::GC, false),
    (WasmFeatures::STACK_SWITCHING, false),
    (WasmFeatures::WIDE_ARITHMETIC, false),
    (WasmFeatures::CM_VALUES, false),
    (WasmFeatures::CM_NESTED_NAMES, false),
    (WasmFeatures::CM_ASYNC, false),
    (WasmFeatures::CM_ASYNC_STACKFUL, false),
    (WasmFeatures::CM_MORE_ASYNC_BUILTINS, false),
    (WasmFeatures::CM_THREADING, false),
    (WasmFeatures::CM_ERROR_CONTEXT, false),
    (WasmFeatures::CM_FIXED_LENGTH_LISTS, false),
    (WasmFeatures::CM_GC, false),
];

/// Names the configuration and the processor, so that artefacts made for another are never used.
pub(crate) fn fingerprint() -> String {
    format!("{PROFILE}, {} {}", std::env::consts::ARCH, processor())
}

/// The processor's features that the compiler makes use of.
#[cfg(target_arch = "x86_64")]
fn processor() -> String {
    macro_rules! detected {
        ($($feature:tt)*) => {
            [$(($feature, std::arch::is_x86_feature_detected!($feature))),*]
        };
    }
    let features = detected!("sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "avx" "avx2" "fma" "bmi1" "bmi2" "lzcnt"
        "avx512f" "avx512dq" "avx512vl" "avx512vbmi" "avx512bitalg" "cmpxchg16b");
    let names: Vec<_> = features.into_iter().filter_map(|(name, present)| present.then_some(name)).collect();
    names.join(" ")
}

#[cfg(not(target_arch = "x86_64"))]
fn processor() -> String {
    String::new()
}

/// An engine that only compiles.
pub(crate) fn for_compiling() -> Result<Engine> {
    Engine::new(&config()?)
}

/// An engine that runs guests, one attempt at a time.
///
/// Where the kernel cannot tell which pages a guest touched (PAGEMAP_SCAN, Linux 6.7), nothing is kept resident: clearing
/// the whole kept part for each attempt would cost more than it saves.
pub(crate) fn for_running() -> Result<Engine> {
    let with_scan = config().and_then(|mut config| {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(true)));
        Engine::new(&config)
    });
    with_scan.or_else(|_| {
        let mut config = config()?;
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(false)));
        Engine::new(&config)
    })
}

fn config() -> Result<Config> {
    let mut config = Config::new();
    for (proposal, enabled) in PROPOSALS {
        config.wasm_features(proposal, enabled);
    }
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        .cranelift_nan_canonicalization(true)
        .epoch_interruption(false)
        .consume_fuel(false)
        .concurrency_support(false)
        .shared_memory(false)
        .max_wasm_stack(GUEST_STACK)
        .memory_init_cow(true)
        .table_lazy_init(true)
        .debug_info(false)
        .wasm_backtrace_details(WasmBacktraceDetails::Enable)
        .wasm_backtrace_max_frames(NonZeroUsize::new(BACKTRACE_FRAMES))
        .module_version(ModuleVersionStrategy::Custom(PROFILE.to_owned()))?;
    Ok(config)
}

/// Room for what one attempt may have.
fn pool(pagemap_scan: bool) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(2)
        .total_core_instances(INSTANCES_MAX)
        .total_memories(MEMORIES_MAX)
        .total_tables(TABLES_MAX)
        .total_stacks(1)
        .total_gc_heaps(1)
        .max_core_instances_per_component(INSTANCES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_memories_per_module(1)
        .max_tables_per_module(TABLES_MAX)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_memory_size(MEMORY_MAX)
        .max_core_instance_size(INSTANCE_BYTES_MAX)
        .max_component_instance_size(INSTANCE_BYTES_MAX)
        .decommit_batch_size(1)
        .max_unused_warm_slots(MEMORIES_MAX)
        .linear_memory_keep_resident(if pagemap_scan { KEEP_MEMORY } else { 0 })
        .table_keep_resident(if pagemap_scan { KEEP_TABLES } else { 0 })
        .pagemap_scan(if pagemap_scan { Enabled::Yes } else { Enabled::No });
    pool
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_names_the_release_that_is_linked() {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
        let manifest = std::fs::read_to_string(manifest).unwrap();
        let release = PROFILE.split([' ', ',']).nth(1).unwrap();
        assert!(manifest.contains(&format!("wasmtime = {{ version = \"={release}\"")), "profile names {release}");
    }

    #[test]
    fn every_proposal_that_the_engine_knows_is_decided() {
        let decided = PROPOSALS.iter().fold(WasmFeatures::empty(), |all, (proposal, _)| all | *proposal);
        // On by default in the parser, harmless, and without a meaning of their own: encodings, and the types that
        // reference types need.
        let encodings = WasmFeatures::GC_TYPES | WasmFeatures::CALL_INDIRECT_OVERLONG | WasmFeatures::BULK_MEMORY_OPT;
        let undecided = WasmFeatures::default() - decided - encodings;
        assert!(undecided.is_empty(), "undecided: {undecided:?}");
    }
}
