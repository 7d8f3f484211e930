//! Compiled modules: kept on disk under a keyed hash, handed to executors as sealed descriptors.
//!
//! Loading compiled code is as good as running it, so nothing is loaded that this host did not compile itself: a file
//! counts only if it carries a MAC made with the host's key over the module's id and the engine's configuration.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use partita_types::{ByteSize, ModuleId};

use crate::payload::PartitionFile;

/// Largest artefact: the largest module grows about fivefold.
pub const ARTEFACT_MAX: ByteSize = ByteSize::mib(512);

/// First bytes of a file, so that a later form is not mistaken for this one.
const MAGIC: &[u8; 16] = b"partita-artefact";
/// Length of the MAC that follows the magic.
const MAC_LENGTH: usize = 32;

/// A compiled module: verified, and sealed in memory so that it stays what was verified.
#[derive(Debug, Clone)]
pub struct Artefact {
    file: Arc<PartitionFile>,
}

impl Artefact {
    /// Copies compiled code that this host made into a sealed file.
    fn seal(code: &[u8]) -> io::Result<Self> {
        let mut writer = PartitionFile::create_as("artefact", ByteSize(code.len() as u64))?;
        writer.write_all(code)?;
        Ok(Self { file: Arc::new(writer.finish()?) })
    }

    /// Size of the compiled code.
    #[must_use]
    pub fn size(&self) -> ByteSize {
        self.file.size()
    }
}

impl AsFd for Artefact {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A directory of compiled modules that only the holder of its key can add to.
#[derive(Debug)]
pub struct ArtefactCache {
    directory: PathBuf,
    key: [u8; 32],
}

impl ArtefactCache {
    /// Opens or creates the directory. `key` is the host's own secret.
    ///
    /// # Errors
    /// If the directory cannot be created.
    pub fn open(directory: &Path, key: [u8; 32]) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        // Artefacts of another engine configuration must not even be looked at.
        let key = *blake3::keyed_hash(&key, crate::engine::fingerprint().as_bytes()).as_bytes();
        Ok(Self { directory: directory.to_owned(), key })
    }

    /// The compiled form of `module`, if it is here and authentic. A file that is not is removed.
    #[must_use]
    pub fn get(&self, module: ModuleId) -> Option<Artefact> {
        let path = self.path(module);
        let file = fs::File::open(&path).ok()?;
        let mut content = Vec::new();
        file.take(ARTEFACT_MAX.0 + 1).read_to_end(&mut content).ok()?;
        match self.verify(module, &content) {
            Some(code) => Artefact::seal(code).ok(),
            None => {
                let _ = fs::remove_file(&path);
                None
            }
        }
    }

    /// Keeps compiled code that the compiler process made for `module`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn insert(&self, module: ModuleId, code: &[u8]) -> io::Result<Artefact> {
        let path = self.path(module);
        // The name of the temporary file is this process's own, so that two daemons do not write into each other.
        let temporary = path.with_extension(format!("new-{}", std::process::id()));
        let mut file = fs::File::create(&temporary)?;
        file.write_all(MAGIC)?;
        file.write_all(self.mac(module, code).as_bytes())?;
        file.write_all(code)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        Artefact::seal(code)
    }

    fn verify<'a>(&self, module: ModuleId, content: &'a [u8]) -> Option<&'a [u8]> {
        let (mac, code) = content.strip_prefix(MAGIC)?.split_first_chunk::<MAC_LENGTH>()?;
        // `blake3::Hash` compares in constant time.
        (self.mac(module, code) == blake3::Hash::from_bytes(*mac)).then_some(code)
    }

    fn mac(&self, module: ModuleId, code: &[u8]) -> blake3::Hash {
        blake3::Hasher::new_keyed(&self.key).update(&module.0).update(code).finalize()
    }

    fn path(&self, module: ModuleId) -> PathBuf {
        self.directory.join(format!("{module}.artefact"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULE: ModuleId = ModuleId([3; 32]);

    #[test]
    fn what_was_inserted_is_found_by_the_holder_of_the_key_only() {
        let directory = tempfile::tempdir().unwrap();
        let cache = ArtefactCache::open(directory.path(), [1; 32]).unwrap();
        cache.insert(MODULE, b"code").unwrap();
        assert_eq!(&*cache.get(MODULE).unwrap().file.map().unwrap(), b"code");
        assert!(cache.get(ModuleId([4; 32])).is_none());
        let stranger = ArtefactCache::open(directory.path(), [2; 32]).unwrap();
        assert!(stranger.get(MODULE).is_none());
    }

    #[test]
    fn any_flipped_byte_makes_an_artefact_unusable() {
        let directory = tempfile::tempdir().unwrap();
        let cache = ArtefactCache::open(directory.path(), [1; 32]).unwrap();
        let length = MAGIC.len() + MAC_LENGTH + b"code".len();
        for position in 0..length {
            cache.insert(MODULE, b"code").unwrap();
            let path = cache.path(MODULE);
            let mut content = fs::read(&path).unwrap();
            content[position] ^= 1;
            fs::write(&path, &content).unwrap();
            assert!(cache.get(MODULE).is_none(), "byte {position}");
            assert!(!path.exists(), "byte {position}");
        }
    }

    #[test]
    fn an_artefact_of_one_module_does_not_pass_for_another() {
        let directory = tempfile::tempdir().unwrap();
        let cache = ArtefactCache::open(directory.path(), [1; 32]).unwrap();
        cache.insert(MODULE, b"code").unwrap();
        let other = ModuleId([5; 32]);
        fs::copy(cache.path(MODULE), cache.path(other)).unwrap();
        assert!(cache.get(other).is_none());
    }
}
