//! Links in documents lead somewhere: those to files of this tree are looked up, others are not followed.

use std::path::Path;

use super::Fault;

/// Checks the links of one document.
pub(super) fn check(root: &Path, file: &str, content: &str) -> Vec<Fault> {
    let directory = Path::new(file).parent().unwrap_or(Path::new(""));
    let mut faults = Vec::new();
    for (number, line) in content.lines().enumerate() {
        for target in targets(line) {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || target.contains("://") || root.join(directory).join(path).exists() {
                continue;
            }
            let text = format!("the link to {target:?} leads nowhere");
            faults.push(Fault { file: file.to_owned(), line: number + 1, text });
        }
    }
    faults
}

/// The targets of `[text](target)` in a line.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_links_to_missing_files_are_faults() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let text = "[a](Cargo.toml) [b](https://example.org) [c](#part) [d](src/main.rs#L1)\n[e](missing.md)\n";
        let faults = check(root, "README.md", text);
        assert_eq!(faults.len(), 1);
        assert_eq!(faults.first().map(|fault| fault.line), Some(2));
    }
}
