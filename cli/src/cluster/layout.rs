//! Where the files of a local cluster are.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::files::private_directory;
use crate::outcome::usage;

/// The data directory of a local cluster. One process at a time uses it.
pub(crate) struct Layout {
    root: PathBuf,
    /// Held as long as the cluster runs; the system lets go of it however the process ends.
    _lock: File,
}

impl Layout {
    /// Makes the directory if it is not there, and takes it.
    pub(crate) fn open(root: &Path) -> anyhow::Result<Self> {
        private_directory(root)?;
        let root = root.canonicalize().with_context(|| format!("cannot find {}", root.display()))?;
        let path = root.join("lock");
        let lock = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        if let Err(error) = lock.try_lock() {
            return match error {
                std::fs::TryLockError::WouldBlock => Err(usage(format!(
                    "a cluster is running in {} already: stop it, or choose another directory with --data",
                    root.display()
                ))),
                std::fs::TryLockError::Error(error) => {
                    Err(error).with_context(|| format!("cannot lock {}", path.display()))
                }
            };
        }
        let layout = Self { root, _lock: lock };
        for directory in [layout.tokens(), layout.logs()] {
            private_directory(&directory)?;
        }
        Ok(layout)
    }

    /// The directory itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The scheduler's data directory.
    pub(crate) fn scheduler(&self) -> PathBuf {
        self.root.join("scheduler")
    }

    /// The certificate of the cluster's authority.
    pub(crate) fn authority(&self) -> PathBuf {
        self.scheduler().join("authority").join("ca.pem")
    }

    /// A host's data directory.
    pub(crate) fn host(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The tokens of the contexts.
    pub(crate) fn tokens(&self) -> PathBuf {
        self.root.join("tokens")
    }

    /// What the processes say.
    pub(crate) fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// The policies that `dev` writes.
    pub(crate) fn policies(&self) -> PathBuf {
        self.root.join("policies")
    }

    /// The configuration with the contexts.
    pub(crate) fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_used_by_one_cluster_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("new/cluster");
        let first = Layout::open(&root).unwrap();
        let error = Layout::open(&root).map(drop).unwrap_err();
        assert!(error.to_string().starts_with("a cluster is running in "), "{error}");
        drop(first);
        assert!(Layout::open(&root).is_ok());
    }
}
