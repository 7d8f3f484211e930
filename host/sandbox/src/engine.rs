//! The one place that configures wasmtime.

/// Names the configuration, so that artefacts of another one are never used.
pub(crate) fn fingerprint() -> String {
    format!("wasmtime 48.0.8, {}", std::env::consts::ARCH)
}
