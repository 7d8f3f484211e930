//! Bytes of partitions: inline while they are small, else a sealed memory file that processes share without copying.

use std::io::{self, Write};
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use bytes::Bytes;
use partita_types::ByteSize;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

/// From this size on, bytes live in a memory file. Below it, copying is cheaper than a descriptor.
pub const INLINE_MAX: usize = 64 << 10;

/// What makes a memory file immutable.
const SEALED: SealFlags = SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::SEAL);

/// The bytes of one partition.
#[derive(Debug, Clone)]
pub enum Payload {
    /// Few bytes, in this process.
    Inline(Bytes),
    /// Many bytes, in a sealed memory file.
    File(Arc<PartitionFile>),
}

impl Payload {
    /// Keeps `bytes` inline below [`INLINE_MAX`] and copies them to a memory file from there on.
    ///
    /// # Errors
    /// If the memory file cannot be made.
    pub fn new(bytes: Bytes) -> io::Result<Self> {
        if bytes.len() < INLINE_MAX {
            return Ok(Self::Inline(bytes));
        }
        let mut writer = PartitionFile::create(ByteSize(bytes.len() as u64))?;
        writer.write_all(&bytes)?;
        Ok(Self::File(Arc::new(writer.finish()?)))
    }

    /// How many bytes.
    #[must_use]
    pub fn size(&self) -> ByteSize {
        match self {
            Self::Inline(bytes) => ByteSize(bytes.len() as u64),
            Self::File(file) => file.size(),
        }
    }

    /// The bytes, without copying them: a file is mapped for as long as the result or a slice of it lives.
    ///
    /// # Errors
    /// If the file cannot be mapped.
    pub fn bytes(&self) -> io::Result<Bytes> {
        match self {
            Self::Inline(bytes) => Ok(bytes.clone()),
            Self::File(file) => file.bytes(),
        }
    }
}

/// A sealed memory file: nobody, this process included, can change it any more.
#[derive(Debug)]
pub struct PartitionFile {
    descriptor: OwnedFd,
    size: ByteSize,
}

impl PartitionFile {
    /// Starts a file of exactly `size` bytes.
    ///
    /// # Errors
    /// If the kernel gives no memory file.
    pub fn create(size: ByteSize) -> io::Result<PartitionWriter> {
        Self::create_as("partition", size)
    }

    /// The same for bytes that are no partition; the kernel shows the name among the descriptors of a process.
    pub(crate) fn create_as(name: &str, size: ByteSize) -> io::Result<PartitionWriter> {
        Ok(PartitionWriter { descriptor: memory_file(name)?, size, written: 0 })
    }

    /// Takes over a descriptor from elsewhere, such as an executor.
    ///
    /// # Errors
    /// If it is not a memory file, or not sealed against every change.
    pub fn from_sealed(descriptor: OwnedFd) -> io::Result<Self> {
        // Only memory files have seals; other files answer EINVAL.
        let seals = rustix::fs::fcntl_get_seals(&descriptor)?;
        if !seals.contains(SEALED) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "memory file is not sealed"));
        }
        let size = u64::try_from(rustix::fs::fstat(&descriptor)?.st_size).unwrap_or(0);
        Ok(Self { descriptor, size: ByteSize(size) })
    }

    /// How many bytes.
    #[must_use]
    pub const fn size(&self) -> ByteSize {
        self.size
    }

    /// Maps the file. The view stays valid when the file is dropped.
    ///
    /// # Errors
    /// If there is no address space left.
    pub fn map(&self) -> io::Result<Mapping> {
        Mapping::new(&self.descriptor, self.size)
    }

    /// The mapped file as shared bytes.
    ///
    /// # Errors
    /// As [`map`](Self::map).
    pub fn bytes(&self) -> io::Result<Bytes> {
        Ok(Bytes::from_owner(self.map()?))
    }
}

impl AsFd for PartitionFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// A [`PartitionFile`] that is being written.
#[derive(Debug)]
pub struct PartitionWriter {
    descriptor: OwnedFd,
    size: ByteSize,
    written: u64,
}

impl PartitionWriter {
    /// Seals the file.
    ///
    /// # Errors
    /// If fewer bytes were written than announced.
    pub fn finish(self) -> io::Result<PartitionFile> {
        if self.written != self.size.0 {
            let text = format!("partition has {} bytes, not {}", self.written, self.size.0);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        seal(&self.descriptor)?;
        Ok(PartitionFile { descriptor: self.descriptor, size: self.size })
    }
}

impl Write for PartitionWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.size.0 - self.written {
            let text = format!("partition has more than the announced {} bytes", self.size.0);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let count = rustix::io::write(&self.descriptor, bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Read-only view of a sealed memory file.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

impl Mapping {
    /// Maps `size` bytes of a descriptor that the caller knows to be sealed and at least that long.
    #[allow(unsafe_code, reason = "mapping memory is an unsafe call")]
    fn new(descriptor: &OwnedFd, size: ByteSize) -> io::Result<Self> {
        let length = usize::try_from(size.0).map_err(|_| io::ErrorKind::OutOfMemory)?;
        if length == 0 {
            return Ok(Self { start: NonNull::dangling(), length });
        }
        // SAFETY: a new mapping at an address that the kernel chooses touches no memory of ours.
        let start = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), length, ProtFlags::READ, MapFlags::SHARED, descriptor, 0)?
        };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, length })
    }
}

impl Deref for Mapping {
    type Target = [u8];

    #[allow(unsafe_code, reason = "a slice over mapped memory")]
    fn deref(&self) -> &[u8] {
        // SAFETY: `start` is the start of a readable mapping of `length` bytes that lives as long as `self`, or dangling
        // with a length of 0. The file is sealed against writing and shrinking, so the bytes neither change nor vanish.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

#[allow(unsafe_code, reason = "a read-only mapping may be used from any thread")]
// SAFETY: the memory is only read, never changes, and is unmapped only by the owner.
unsafe impl Send for Mapping {}
#[allow(unsafe_code, reason = "a read-only mapping may be used from any thread")]
// SAFETY: as for `Send`.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    #[allow(unsafe_code, reason = "unmapping memory is an unsafe call")]
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: exactly the mapping made in `new`; no slice of it outlives `self`.
            let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.length) };
        }
    }
}

/// An empty memory file that can be sealed.
pub(crate) fn memory_file(name: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?)
}

/// Makes a memory file immutable.
pub(crate) fn seal(descriptor: &OwnedFd) -> io::Result<()> {
    Ok(rustix::fs::fcntl_add_seals(descriptor, SEALED)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_bytes_stay_inline_and_large_ones_are_sealed() {
        let small = Payload::new(Bytes::from(vec![7; INLINE_MAX - 1])).unwrap();
        assert!(matches!(small, Payload::Inline(_)));
        let large = Payload::new(Bytes::from(vec![7; INLINE_MAX])).unwrap();
        let Payload::File(file) = &large else { panic!("kept inline") };
        assert!(rustix::io::write(file.as_fd(), b"x").is_err());
        assert_eq!(large.bytes().unwrap(), vec![7; INLINE_MAX]);
    }

    #[test]
    fn a_file_has_exactly_the_announced_size() {
        let mut writer = PartitionFile::create(ByteSize(3)).unwrap();
        assert!(writer.write_all(b"four").is_err());
        writer.write_all(b"ab").unwrap();
        let error = writer.finish().unwrap_err();
        assert_eq!(error.to_string(), "partition has 2 bytes, not 3");
    }

    #[test]
    fn a_descriptor_that_can_still_change_is_refused() {
        assert!(PartitionFile::from_sealed(memory_file("open").unwrap()).is_err());
        let directory = std::fs::File::open("/").unwrap();
        assert!(PartitionFile::from_sealed(directory.into()).is_err());
    }

    #[test]
    fn an_empty_file_can_be_mapped() {
        let file = PartitionFile::create(ByteSize::ZERO).unwrap().finish().unwrap();
        assert!(file.map().unwrap().is_empty());
    }
}
