//! The project that `partita new` makes: its source compiles against this crate, and its own tests pass.

extern crate partita_guest as partita;

#[path = "../../template/src/lib.rs"]
mod project;

/// The placeholders that `partita new` fills in.
const PLACEHOLDERS: [&str; 3] = ["{{name}}", "{{sdk}}", "{{module}}"];

#[test]
fn the_template_has_no_placeholder_that_nobody_fills_in() {
    let files = [
        include_str!("../../template/Cargo.toml.in"),
        include_str!("../../template/src/lib.rs"),
        include_str!("../../template/job.toml"),
        include_str!("../../template/README.md"),
    ];
    for file in files {
        let rest = PLACEHOLDERS.iter().fold(file.to_owned(), |text, placeholder| text.replace(placeholder, ""));
        assert!(!rest.contains("{{"), "{rest}");
    }
    assert!(files[0].contains("path = \"{{sdk}}\"") && files[0].contains("name = \"{{name}}\""));
    assert!(files[2].contains("guest/{{module}}.wasm"));
}

#[test]
fn the_functions_of_the_template_are_listed() {
    let names: Vec<&str> = project::MODULE.tasks().iter().map(|task| task.name).collect();
    assert_eq!(names, ["count", "merge"]);
}
