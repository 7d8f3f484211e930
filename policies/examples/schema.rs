//! Prints the JSON schema of policy files: `cargo run -p partita-policy --example schema > policies/schema.json`.

fn main() {
    print!("{}", partita_policy::json_schema());
}
