//! Jobs as TOML files, for the command line and for everything else that wants to read them.
//!
//! ```toml
//! name = "wordfreq"
//! [modules]
//! wordfreq = { path = "wordfreq.wasm" }   # or { name = "wordfreq" }, or { id = "64 hexadecimal digits" }
//! [[array]]
//! name = "map"
//! function = "wordfreq.map"
//! outputs = 8
//! args = { min_length = 1 }
//! inputs = [ { dataset = "crates", split = "8MiB", limit = "256MiB" } ]
//! [[array]]
//! name = "reduce"
//! function = "wordfreq.reduce"
//! inputs = [ { slice = "map" } ]
//! ```
//!
//! Reading is strict: a key that is not known, a reference to an array that is not there or comes later, a size without
//! meaning are errors that name file, line and key. Modules are only named here; whoever submits the job looks them up
//! or pushes them, and gives their ids to [`JobFile::spec`].

mod raw;
mod resolve;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use partita_types::{ArraySource, ArraySpec, ByteSize, Edge, JobSpec, ModuleId};

/// Largest job file. Arguments and literals count; what is larger belongs into an upload or a dataset.
const FILE_MAX: u64 = 16 << 20;

/// Why a file is not a job.
#[derive(Debug, thiserror::Error)]
pub enum JobFileError {
    /// It cannot be read.
    #[error("cannot read the job file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is larger than a job file can be.
    #[error("the job file {} has {size}, more than {}: move literals into a dataset", path.display(), ByteSize(FILE_MAX))]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: ByteSize,
    },
    /// Something in it is wrong.
    #[error("{}:{line}: {message}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// A module of the file was not looked up.
    #[error("{}: the id of module {alias:?} is not known", path.display())]
    Unresolved {
        /// The file.
        path: PathBuf,
        /// What the file calls the module.
        alias: String,
    },
}

/// Where a module of a job file comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModuleSource {
    /// A component to push; the path is resolved against the directory of the job file.
    Path(PathBuf),
    /// The latest module of that name in the cluster.
    Name(String),
    /// A module of the cluster.
    Id(ModuleId),
}

/// A job file that was read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFile {
    path: PathBuf,
    name: String,
    deadline: Option<std::time::Duration>,
    modules: BTreeMap<String, ModuleSource>,
    arrays: Vec<FileArray>,
}

/// An array and the name of the module that its function is in. The id in `spec` is a placeholder until then.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FileArray {
    alias: String,
    spec: ArraySpec,
}

impl JobFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// If it cannot be read or is not a job; the message names file, line and key.
    pub fn read(path: &Path) -> Result<Self, JobFileError> {
        let fault = |source| JobFileError::Read { path: path.to_owned(), source };
        let size = std::fs::metadata(path).map_err(fault)?.len();
        if size > FILE_MAX {
            return Err(JobFileError::TooLarge { path: path.to_owned(), size: ByteSize(size) });
        }
        Self::parse(&std::fs::read_to_string(path).map_err(fault)?, path)
    }

    /// Checks the text of a file. `path` names it in errors, and module paths are relative to its directory.
    ///
    /// # Errors
    /// If it is not a job; the message names file, line and key.
    ///
    /// ```
    /// use partita_client::jobfile::JobFile;
    ///
    /// let text = r#"
    /// name = "hello"
    /// modules.hello = { path = "hello.wasm" }
    /// array = [{ name = "greet", function = "hello.greet", task = 3 }]
    /// "#;
    /// let error = JobFile::parse(text, "job.toml".as_ref()).unwrap_err();
    /// assert!(error.to_string().starts_with("job.toml:4: unknown key `task`"), "{error}");
    /// ```
    pub fn parse(text: &str, path: &Path) -> Result<Self, JobFileError> {
        resolve::file(text, path).map_err(|fault| JobFileError::Content {
            path: path.to_owned(),
            line: line_of(text, fault.at),
            message: fault.message,
        })
    }

    /// The name of the job.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The modules by the names that the file gives them.
    #[must_use]
    pub fn modules(&self) -> &BTreeMap<String, ModuleSource> {
        &self.modules
    }

    /// Reads at most about `limit` of every dataset, whatever the file says.
    pub fn limit_datasets(&mut self, limit: ByteSize) {
        let edges = self.arrays.iter_mut().flat_map(|array| &mut array.spec.inputs);
        for edge in edges {
            if let Edge::Dataset { limit: own, .. } = edge {
                *own = Some(limit);
            }
        }
    }

    /// The job, with the ids of its modules by the names that the file gives them.
    ///
    /// # Errors
    /// If a module is missing in `modules`.
    pub fn spec(&self, modules: &BTreeMap<String, ModuleId>) -> Result<JobSpec, JobFileError> {
        let arrays = self.arrays.iter().map(|array| {
            let id = modules
                .get(&array.alias)
                .copied()
                .ok_or_else(|| JobFileError::Unresolved { path: self.path.clone(), alias: array.alias.clone() })?;
            let mut spec = array.spec.clone();
            if let ArraySource::Function { module, .. } = &mut spec.source {
                *module = id;
            }
            Ok(spec)
        });
        Ok(JobSpec {
            name: self.name.clone(),
            arrays: arrays.collect::<Result<_, _>>()?,
            open: false,
            deadline: self.deadline,
        })
    }
}

/// The line of a byte position, from 1.
fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}
