//! Memory that the daemon shares with one executor: which attempt runs, and the ends of those that are done.
//!
//! Because it survives the executor, a kill is charged to exactly the attempt that ran, and no finished attempt is run
//! again. The daemon copies everything out before it looks at it and believes nothing: a hostile executor can write any
//! value at any time.
//!
//! Attempts of a batch use the slots in turn. A position never shares its slot with another one that is under way,
//! because the daemon hands out no position that is [`WINDOW`] or more ahead of the first one not yet collected.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags};

use crate::payload::memory_file;

/// Most attempts under way: handed to the executor and not yet collected.
pub(crate) const WINDOW: usize = 128;
/// 64-bit words of one slot: a header of two and the record.
const SLOT_WORDS: usize = 256;
/// Longest record that fits into a slot; a longer one goes over the socket.
pub(crate) const RECORD_MAX: usize = (SLOT_WORDS - 2) * 8;

/// What the executor says it is doing.
#[repr(C)]
#[derive(Debug)]
struct Layout {
    /// Position of the attempt that runs, plus one; 0 between attempts.
    running: AtomicU64,
    /// The executor's CPU clock when it began, in nanoseconds.
    cpu_start: AtomicU64,
    done: AtomicU64,
    total: AtomicU64,
    /// One bit per slot: the daemon asks to skip that attempt.
    skip: [AtomicU64; WINDOW / 64],
    /// Per slot: position plus one when the record is there, length, record.
    slots: [[AtomicU64; SLOT_WORDS]; WINDOW],
}

/// The attempt that runs, as the executor says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim {
    pub(crate) position: u64,
    pub(crate) cpu_start_ns: u64,
    pub(crate) done: u64,
    pub(crate) total: u64,
}

/// The shared memory, mapped in this process.
#[derive(Debug)]
pub(crate) struct Page {
    layout: NonNull<Layout>,
}

#[allow(unsafe_code, reason = "the memory may be used from any thread")]
// SAFETY: all access goes through atomics, and only the owner unmaps.
unsafe impl Send for Page {}
#[allow(unsafe_code, reason = "the memory may be used from any thread")]
// SAFETY: as for `Send`.
unsafe impl Sync for Page {}

impl Page {
    /// New, empty shared memory and the descriptor by which an executor gets at it.
    pub(crate) fn create() -> io::Result<(Self, OwnedFd)> {
        let file = memory_file("executor")?;
        rustix::fs::ftruncate(&file, size_of::<Layout>() as u64)?;
        // It must never shrink under this process; its content may change.
        rustix::fs::fcntl_add_seals(
            &file,
            rustix::fs::SealFlags::SHRINK | rustix::fs::SealFlags::GROW | rustix::fs::SealFlags::SEAL,
        )?;
        let page = Self::map(rustix::fd::AsFd::as_fd(&file))?;
        Ok((page, file))
    }

    /// Maps the memory that [`create`](Self::create) made, in another process.
    #[allow(unsafe_code, reason = "mapping memory is an unsafe call")]
    pub(crate) fn map(file: BorrowedFd<'_>) -> io::Result<Self> {
        let size = size_of::<Layout>();
        if rustix::fs::fstat(file)?.st_size.cast_unsigned() < size as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "shared memory is too small"));
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses touches no memory of ours.
        let start = unsafe { rustix::mm::mmap(std::ptr::null_mut(), size, access, MapFlags::SHARED, file, 0)? };
        NonNull::new(start.cast()).map(|layout| Self { layout }).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    #[allow(unsafe_code, reason = "a reference into shared memory")]
    fn layout(&self) -> &Layout {
        // SAFETY: points to a mapping of the size of `Layout`, aligned to a page, that lives as long as `self`. `Layout`
        // consists of atomics only, for which any bit pattern and any change by another process is legal.
        unsafe { self.layout.as_ref() }
    }

    // Executor's side.

    /// Says that the attempt at `position` begins. Whether it is to be skipped must be asked after this, so that the
    /// daemon, which asks first and looks second, cannot miss it.
    pub(crate) fn begin(&self, position: u64, cpu_now_ns: u64) {
        let layout = self.layout();
        layout.cpu_start.store(cpu_now_ns, Ordering::Relaxed);
        layout.done.store(0, Ordering::Relaxed);
        layout.total.store(0, Ordering::Relaxed);
        layout.running.store(position + 1, Ordering::SeqCst);
    }

    /// Whether the daemon asked to skip the attempt at `position`.
    pub(crate) fn is_skipped(&self, position: u64) -> bool {
        let (word, bit) = skip_bit(position);
        self.layout().skip[word].load(Ordering::SeqCst) & bit != 0
    }

    /// Passes on what the guest says about its progress.
    pub(crate) fn progress(&self, done: u64, total: u64) {
        self.layout().done.store(done, Ordering::Relaxed);
        self.layout().total.store(total, Ordering::Relaxed);
    }

    /// Leaves the end of the attempt at `position`. The record must not be longer than [`RECORD_MAX`].
    pub(crate) fn publish(&self, position: u64, record: &[u8]) {
        let [marker, length, words @ ..] = self.slot(position);
        let record = &record[..record.len().min(RECORD_MAX)];
        for (word, chunk) in words.iter().zip(record.chunks(8)) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        }
        length.store(record.len() as u64, Ordering::Relaxed);
        marker.store(position + 1, Ordering::Release);
    }

    /// Says that nothing runs.
    pub(crate) fn idle(&self) {
        self.layout().running.store(0, Ordering::SeqCst);
    }

    // Daemon's side.

    /// What the executor says is running.
    pub(crate) fn claim(&self) -> Option<Claim> {
        let layout = self.layout();
        let position = layout.running.load(Ordering::SeqCst).checked_sub(1)?;
        Some(Claim {
            position,
            cpu_start_ns: layout.cpu_start.load(Ordering::Relaxed),
            done: layout.done.load(Ordering::Relaxed),
            total: layout.total.load(Ordering::Relaxed),
        })
    }

    /// Asks to skip an attempt that has not begun.
    pub(crate) fn skip(&self, position: u64) {
        let (word, bit) = skip_bit(position);
        self.layout().skip[word].fetch_or(bit, Ordering::SeqCst);
    }

    /// Takes a copy of the record for `position` into `record`; `false` if it is not there yet.
    pub(crate) fn collect(&self, position: u64, record: &mut Vec<u8>) -> bool {
        let [marker, length, words @ ..] = self.slot(position);
        if marker.load(Ordering::Acquire) != position + 1 {
            return false;
        }
        let length = usize::try_from(length.load(Ordering::Relaxed)).unwrap_or(usize::MAX).min(RECORD_MAX);
        record.clear();
        for word in &words[..length.div_ceil(8)] {
            record.extend_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        record.truncate(length);
        true
    }

    /// Clears everything that the last batch left. Only while the executor is idle.
    pub(crate) fn reset(&self) {
        let layout = self.layout();
        layout.running.store(0, Ordering::SeqCst);
        layout.skip.iter().for_each(|word| word.store(0, Ordering::SeqCst));
        layout.slots.iter().for_each(|slot| slot[0].store(0, Ordering::Relaxed));
    }

    /// Makes the slot of a collected position ready for the position [`WINDOW`] further on.
    pub(crate) fn release(&self, position: u64) {
        let (word, bit) = skip_bit(position);
        self.layout().skip[word].fetch_and(!bit, Ordering::SeqCst);
        self.slot(position)[0].store(0, Ordering::Relaxed);
    }

    fn slot(&self, position: u64) -> &[AtomicU64; SLOT_WORDS] {
        &self.layout().slots[slot_index(position)]
    }
}

fn slot_index(position: u64) -> usize {
    // The remainder is below WINDOW, so it fits.
    usize::try_from(position % WINDOW as u64).unwrap_or(0)
}

fn skip_bit(position: u64) -> (usize, u64) {
    let slot = slot_index(position);
    (slot / 64, 1 << (slot % 64))
}

impl Drop for Page {
    #[allow(unsafe_code, reason = "unmapping memory is an unsafe call")]
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `map`; no reference into it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.layout.as_ptr().cast(), size_of::<Layout>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_seen_by_the_other_mapping_and_only_at_its_position() {
        let (daemon, file) = Page::create().unwrap();
        let executor = Page::map(rustix::fd::AsFd::as_fd(&file)).unwrap();
        let mut record = Vec::new();
        assert!(!daemon.collect(5, &mut record));
        executor.publish(5, b"thirteen bytes"[..13].as_ref());
        assert!(daemon.collect(5, &mut record));
        assert_eq!(record, b"thirteen byte");
        assert!(!daemon.collect(5 + WINDOW as u64, &mut record));
        daemon.release(5);
        assert!(!daemon.collect(5, &mut record));
    }

    #[test]
    fn a_length_beyond_the_slot_is_cut() {
        let (page, _file) = Page::create().unwrap();
        let [marker, length, ..] = page.slot(0);
        length.store(u64::MAX, Ordering::Relaxed);
        marker.store(1, Ordering::Relaxed);
        let mut record = Vec::new();
        assert!(page.collect(0, &mut record));
        assert_eq!(record.len(), RECORD_MAX);
    }

    #[test]
    fn a_skip_concerns_one_position_of_the_window() {
        let (page, _file) = Page::create().unwrap();
        page.skip(70);
        assert!(page.is_skipped(70));
        assert!(!page.is_skipped(71));
        page.release(70);
        assert!(!page.is_skipped(70 + WINDOW as u64));
    }
}
