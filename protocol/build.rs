//! Compiles the `.proto` files without `protoc`.

use std::error::Error;

const FILES: [&str; 4] = [
    "partita/job/v1/job.proto",
    "partita/client/v1/client.proto",
    "partita/host/v1/session.proto",
    "partita/peer/v1/peer.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES.map(|file| format!("proto/{file}")), ["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
