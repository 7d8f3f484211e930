//! The policies of all tenants, from all files of a directory.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use partita_types::TenantName;

use crate::document;
use crate::fault::{Faults, PolicyErrors, PolicyFault, Problem};
use crate::file::PolicyFile;
use crate::quota::TenantPolicy;
use crate::resolve::resolve;

/// Most files of a directory.
const FILES_MAX: usize = 1024;

/// Largest file: thousands of tenants.
const FILE_MAX: u64 = 1 << 20;

/// Lies beside the samples in the source tree, and is no policy.
const MANIFEST: &str = "Cargo.toml";

/// The policies of all tenants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySet {
    tenants: BTreeMap<TenantName, TenantPolicy>,
    version: PolicyVersion,
}

/// Names the exact text of a set of policies. Decisions are logged with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PolicyVersion([u8; 8]);

impl fmt::Display for PolicyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(self.0))
    }
}

impl PolicySet {
    /// Reads all files `*.toml` of `directory`, in the order of their names. Subdirectories are not searched, and
    /// a file `Cargo.toml` is passed over.
    ///
    /// # Errors
    /// If the directory or a file cannot be read, or anything in any file is wrong: all faults at once.
    pub fn load(directory: &Path) -> Result<Self, PolicyErrors> {
        let paths = policy_files(directory)?;
        let mut faults = Vec::new();
        let mut files = Vec::new();
        for path in paths {
            let name = path.display().to_string();
            match read(&path) {
                Ok(text) => files.push((name, text)),
                Err(error) => faults.push(PolicyFault::Unreadable { path: name, error }),
            }
        }
        let parsed = Self::parse(&files);
        if faults.is_empty() {
            return parsed;
        }
        faults.extend(parsed.err().into_iter().flat_map(|errors| errors.0));
        Err(PolicyErrors(faults))
    }

    /// Parses files, given as name and text.
    ///
    /// # Errors
    /// If anything in any file is wrong, or a tenant stands in two: all faults at once.
    pub fn parse<N: AsRef<str>, T: AsRef<str>>(files: &[(N, T)]) -> Result<Self, PolicyErrors> {
        let mut tenants: BTreeMap<TenantName, (TenantPolicy, Place)> = BTreeMap::new();
        let mut all_faults = Vec::new();
        for (file, text) in files {
            let (file, text) = (file.as_ref(), text.as_ref());
            let mut faults = Faults::new(file, text);
            let parsed = PolicyFile::read(&document::parse(text, &mut faults), &mut faults);
            for (name, tenant) in &parsed.tenant {
                let policy = match TenantName::new(name) {
                    Ok(name) => resolve(name, tenant, &mut faults),
                    Err(error) => {
                        faults.add(tenant.at, error.into());
                        continue;
                    }
                };
                match tenants.entry(policy.name.clone()) {
                    Entry::Occupied(other) => faults.add(tenant.at, other.get().1.duplicate(other.key())),
                    Entry::Vacant(place) => {
                        let (line, column) = faults.position(tenant.at);
                        place.insert((policy, Place { file: file.to_owned(), line, column }));
                    }
                }
            }
            all_faults.extend(faults.finish());
        }
        if !all_faults.is_empty() {
            return Err(PolicyErrors(all_faults));
        }
        let tenants = tenants.into_iter().map(|(name, (policy, _))| (name, policy)).collect();
        Ok(Self { tenants, version: version(files) })
    }

    /// The policy of `tenant`; without one a tenant may do nothing.
    #[must_use]
    pub fn get(&self, tenant: &TenantName) -> Option<&TenantPolicy> {
        self.tenants.get(tenant)
    }

    /// All policies, in the order of the tenants' names.
    pub fn iter(&self) -> impl Iterator<Item = &TenantPolicy> {
        self.tenants.values()
    }

    /// Names the exact text from which this set was made.
    #[must_use]
    pub fn version(&self) -> PolicyVersion {
        self.version
    }
}

/// Where a tenant is defined.
struct Place {
    file: String,
    line: usize,
    column: usize,
}

impl Place {
    fn duplicate(&self, tenant: &TenantName) -> Problem {
        let Self { file, line, column } = self;
        Problem::DuplicateTenant { tenant: tenant.to_string(), file: file.clone(), line: *line, column: *column }
    }
}

fn version<N: AsRef<str>, T: AsRef<str>>(files: &[(N, T)]) -> PolicyVersion {
    let mut hasher = blake3::Hasher::new();
    for (_, text) in files {
        // The length first, so that text cannot move between files unnoticed.
        hasher.update(&(text.as_ref().len() as u64).to_le_bytes());
        hasher.update(text.as_ref().as_bytes());
    }
    let mut version = [0; 8];
    hasher.finalize_xof().fill(&mut version);
    PolicyVersion(version)
}

fn policy_files(directory: &Path) -> Result<Vec<PathBuf>, PolicyErrors> {
    let path = || directory.display().to_string();
    let unreadable = |error| PolicyErrors(vec![PolicyFault::Unreadable { path: path(), error }]);
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        let is_policy = file.extension().is_some_and(|extension| extension == "toml")
            && file.file_name().is_some_and(|name| name != MANIFEST);
        if !is_policy {
            continue;
        }
        if files.len() == FILES_MAX {
            return Err(PolicyErrors(vec![PolicyFault::TooManyFiles { path: path(), limit: FILES_MAX }]));
        }
        files.push(file);
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(FILE_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is larger than 1 MiB"));
    }
    Ok(text)
}
