//! The files of modules: `<hash>.wasm` in one directory, whole or not there.
//!
//! What arrives is written to a temporary file, counted and hashed on the way, and renamed only when it is what was
//! announced. Tenants that push the same bytes share a file, and each has to send all of them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use partita_types::{ByteSize, ModuleId, TenantId};
use sha2::{Digest, Sha256};
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;
use tonic::Status;
use tracing::{error, warn};

/// Beginning of the names of temporary files.
const INCOMING: &str = "incoming-";

/// The directory of modules.
#[derive(Debug, Clone)]
pub(crate) struct ModuleFiles {
    directory: Arc<Path>,
    /// Modules whose push is not decided, and by whom.
    held: Arc<Mutex<BTreeMap<(ModuleId, TenantId), u32>>>,
}

/// A module that is arriving. Dropping it removes what arrived.
#[derive(Debug)]
pub(crate) struct Receiving {
    files: ModuleFiles,
    path: PathBuf,
    file: File,
    size: u64,
    written: u64,
    hash: Sha256,
    kept: bool,
}

/// A module on disk about which the core has not decided.
#[derive(Debug)]
pub(crate) struct Held {
    files: ModuleFiles,
    id: ModuleId,
    tenant: TenantId,
}

fn failed(what: &str, path: &Path, source: &io::Error) -> Status {
    error!(error = %source, path = %path.display(), "cannot {what} a module");
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Status::resource_exhausted("the scheduler's disk is full; ask the cluster's administrator")
        }
        _ => Status::internal(format!("the scheduler cannot {what} the module")),
    }
}

impl ModuleFiles {
    /// Opens the directory, and removes what an earlier process left unfinished.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(INCOMING.as_bytes()) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(Self { directory: directory.into(), held: Arc::default() })
    }

    fn path(&self, id: ModuleId) -> PathBuf {
        self.directory.join(format!("{id}.wasm"))
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<(ModuleId, TenantId), u32>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `tenant` is pushing this module, so that a host may fetch it to examine it.
    pub(crate) fn is_held(&self, id: ModuleId, tenant: TenantId) -> bool {
        self.held().contains_key(&(id, tenant))
    }

    /// Opens a module for reading.
    pub(crate) async fn read(&self, id: ModuleId) -> io::Result<File> {
        File::open(self.path(id)).await
    }

    /// Begins to take a module of `size` bytes.
    pub(crate) async fn receive(&self, size: u64) -> Result<Receiving, Status> {
        let number = u64::from_be_bytes(partita_identity::random());
        let path = self.directory.join(format!("{INCOMING}{number:016x}"));
        let file = File::create_new(&path).await.map_err(|source| failed("store", &path, &source))?;
        Ok(Receiving { files: self.clone(), path, file, size, written: 0, hash: Sha256::new(), kept: false })
    }
}

impl Receiving {
    /// Takes a piece.
    pub(crate) async fn write(&mut self, piece: &[u8]) -> Result<(), Status> {
        self.written = self.written.saturating_add(piece.len() as u64);
        if self.written > self.size {
            return Err(Status::invalid_argument(format!(
                "the module is larger than the announced {} bytes",
                self.size
            )));
        }
        self.hash.update(piece);
        self.file.write_all(piece).await.map_err(|source| failed("store", &self.path, &source))
    }

    /// Ends the module: checks size and hash, makes it durable and gives it its name.
    pub(crate) async fn keep(mut self, id: ModuleId, tenant: TenantId) -> Result<Held, Status> {
        if self.written != self.size {
            return Err(Status::invalid_argument(format!(
                "the module has {}, {} were announced",
                ByteSize(self.written),
                ByteSize(self.size)
            )));
        }
        let found = ModuleId(self.hash.clone().finalize().into());
        if found != id {
            return Err(Status::invalid_argument(format!("the module's SHA-256 is {found}, {id} was announced")));
        }
        let target = self.files.path(id);
        *self.files.held().entry((id, tenant)).or_default() += 1;
        let held = Held { files: self.files.clone(), id, tenant };
        let store = async {
            self.file.flush().await?;
            self.file.sync_all().await?;
            fs::rename(&self.path, &target).await?;
            File::open(&self.files.directory).await?.sync_all().await
        };
        match store.await {
            Ok(()) => {
                self.kept = true;
                Ok(held)
            }
            Err(source) => Err(failed("store", &target, &source)),
        }
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        if !self.kept
            && let Err(source) = std::fs::remove_file(&self.path)
            && source.kind() != io::ErrorKind::NotFound
        {
            warn!(error = %source, path = %self.path.display(), "cannot remove an unfinished module");
        }
    }
}

impl Held {
    /// The core has decided. A module that nobody has and nobody else is pushing is removed.
    pub(crate) async fn release(self, wanted: bool) {
        let path = self.files.path(self.id);
        let others = {
            let held = self.files.held();
            held.range((self.id, TenantId(0))..=(self.id, TenantId(u32::MAX))).map(|(_, count)| *count).sum::<u32>()
        };
        if !wanted
            && others <= 1
            && let Err(source) = fs::remove_file(&path).await
        {
            warn!(error = %source, path = %path.display(), "cannot remove a refused module");
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.files.held();
        if let Some(count) = held.get_mut(&(self.id, self.tenant)) {
            *count -= 1;
            if *count == 0 {
                held.remove(&(self.id, self.tenant));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    const TENANT: TenantId = TenantId(1);

    fn id(bytes: &[u8]) -> ModuleId {
        ModuleId(Sha256::digest(bytes).into())
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    async fn receive(files: &ModuleFiles, bytes: &[u8], size: u64, id: ModuleId) -> Result<Held, Status> {
        let mut receiving = files.receive(size).await?;
        for piece in bytes.chunks(3) {
            receiving.write(piece).await?;
        }
        receiving.keep(id, TENANT).await
    }

    #[tokio::test]
    async fn only_what_was_announced_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let files = ModuleFiles::open(directory.path()).unwrap();
        let bytes = b"component";
        for (size, id) in [(8, id(bytes)), (10, id(bytes)), (9, id(b"other"))] {
            assert_eq!(receive(&files, bytes, size, id).await.unwrap_err().code(), Code::InvalidArgument);
            assert_eq!(names(directory.path()), [""; 0], "size {size}");
        }
        let held = receive(&files, bytes, 9, id(bytes)).await.unwrap();
        assert!(files.is_held(id(bytes), TENANT) && !files.is_held(id(bytes), TenantId(2)));
        assert_eq!(std::fs::read(files.path(id(bytes))).unwrap(), bytes);
        held.release(true).await;
        assert!(!files.is_held(id(bytes), TENANT));
        assert_eq!(names(directory.path()), [format!("{}.wasm", id(bytes))]);
    }

    #[tokio::test]
    async fn a_refused_module_is_removed_unless_somebody_else_pushes_it() {
        let directory = tempfile::tempdir().unwrap();
        let files = ModuleFiles::open(directory.path()).unwrap();
        let first = receive(&files, b"ab", 2, id(b"ab")).await.unwrap();
        let second = receive(&files, b"ab", 2, id(b"ab")).await.unwrap();
        first.release(false).await;
        assert_eq!(names(directory.path()).len(), 1);
        second.release(false).await;
        assert_eq!(names(directory.path()), [""; 0]);
    }

    #[test]
    fn leftovers_of_an_earlier_process_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("incoming-0001"), b"half").unwrap();
        ModuleFiles::open(directory.path()).unwrap();
        assert_eq!(names(directory.path()), [""; 0]);
    }
}
