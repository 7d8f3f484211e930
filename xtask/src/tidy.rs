//! `cargo xtask tidy`: the rules of the source tree that no compiler checks.

mod claims;
mod dependencies;
mod invariants;
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
    let (mut tables, mut tests) = (claims::TABLES.map(|_| String::new()), BTreeSet::new());
    let (mut invariants, mut names) = (String::new(), BTreeSet::new());
    for file in workspace.files()? {
        let bytes = std::fs::read(workspace.root.join(&file)).with_context(|| format!("cannot read {file}"))?;
        let Ok(content) = std::str::from_utf8(&bytes) else { continue };
        faults.extend(text::check(&file, content));
        for (table, found) in claims::TABLES.iter().zip(&mut tables) {
            if file == table.file {
                content.clone_into(found);
            }
        }
        if file == invariants::FILE {
            content.clone_into(&mut invariants);
        }
        if file.ends_with(".rs") {
            names.extend(invariants::names(content));
            tests.extend(claims::tests(content));
        }
        if file.ends_with(".md") {
            faults.extend(links::check(&workspace.root, &file, content));
        }
    }
    for (table, content) in claims::TABLES.into_iter().zip(&tables) {
        faults.extend(claims::check(table, content, &tests));
    }
    faults.extend(invariants::check(&invariants, &names));
    Ok(faults)
}
