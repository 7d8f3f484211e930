//! `cargo xtask tidy`: the rules of the source tree that no compiler checks.

mod behaviours;
mod dependencies;
mod links;
mod text;

use std::collections::BTreeSet;
use std::fmt;

use anyhow::Context as _;

use crate::workspace::Workspace;

/// One breach of a rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The file, relative to the root.
    file: String,
    /// The line, from 1; 0 where the file as a whole is meant.
    line: usize,
    /// What is wrong and what to do.
    text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.text),
            line => write!(f, "{}:{line}: {}", self.file, self.text),
        }
    }
}

/// Checks the tree.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<Vec<Fault>> {
    let mut faults = dependencies::check(&workspace.packages);
    let (mut table, mut tests) = (String::new(), BTreeSet::new());
    for file in workspace.files()? {
        let bytes = std::fs::read(workspace.root.join(&file)).with_context(|| format!("cannot read {file}"))?;
        let Ok(content) = std::str::from_utf8(&bytes) else { continue };
        faults.extend(text::check(&file, content));
        if file == behaviours::FILE {
            content.clone_into(&mut table);
        }
        if file.ends_with(".rs") {
            tests.extend(behaviours::tests(content));
        }
        if file.ends_with(".md") {
            faults.extend(links::check(&workspace.root, &file, content));
        }
    }
    faults.extend(behaviours::check(&table, &tests));
    Ok(faults)
}
