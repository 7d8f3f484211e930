//! Measures Partita; see `cargo xtask bench`.
fn main() {}
