//! Reading the bytes of one split.
//!
//! A part of a large file has the lines that *begin* between its two nominal cuts. Each cut moves forward to the first
//! byte after a line feed, by the same rule for the piece before it and for the piece behind it, so every byte is in
//! exactly one split. Where files meet within a split, a line feed is added if the file before does not end with one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use partita_sandbox::Payload;
use partita_types::ByteSize;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use super::{DatasetError, Listing, Part};
use crate::payload::PayloadBuilder;

/// Longest line at a cut: the search for its end stops here, so that a file without lines costs no more than this.
const MAX_LINE: ByteSize = ByteSize::mib(256);
/// Size of one read.
const STEP: usize = 256 << 10;

/// A part with its real borders and its open file.
struct Piece {
    file: File,
    path: String,
    from: u64,
    to: u64,
    /// Whether a line feed has to be added behind it.
    unterminated: bool,
}

/// Reads a split: all parts, one after the other.
pub(super) fn read(listing: &Listing, split: ByteSize, parts: &[Part]) -> Result<Payload, DatasetError> {
    let root =
        rustix::fs::openat(CWD, &listing.root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|source| read_error(&listing.root, source.into()))?;
    let mut size = 0_u64;
    // Only whole small files come in numbers, and they are opened one at a time in the second round as well.
    for (number, part) in parts.iter().enumerate() {
        let piece = open(&root, listing, *part)?;
        size += piece.to - piece.from + u64::from(piece.unterminated && number + 1 < parts.len());
    }
    let mut builder =
        PayloadBuilder::new(size).map_err(|source| DatasetError::Memory { size: ByteSize(size), source })?;
    let mut buffer = vec![0; STEP.min(usize::try_from(split.0).unwrap_or(STEP).max(4096))];
    for (number, part) in parts.iter().enumerate() {
        let piece = open(&root, listing, *part)?;
        copy(&piece, &mut buffer, &mut builder)?;
        if piece.unterminated && number + 1 < parts.len() {
            append(&mut builder, b"\n", &piece)?;
        }
    }
    let (payload, _) = builder.finish().map_err(|source| DatasetError::Memory { size: ByteSize(size), source })?;
    Ok(payload)
}

fn read_error(path: &Path, source: io::Error) -> DatasetError {
    DatasetError::Read { path: path.display().to_string(), source }
}

/// Opens the file of a part beneath `root` and finds the part's real borders.
fn open(root: &impl std::os::fd::AsFd, listing: &Listing, part: Part) -> Result<Piece, DatasetError> {
    let (Part::Whole { file: number, .. } | Part::Lines { file: number, .. }) = part;
    let entry = listing.files.get(number).ok_or_else(|| DatasetError::FileChanged { path: String::new() })?;
    let full = listing.root.join(&entry.path);
    // Not blocking: in place of the file there could be a pipe by now.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let descriptor = rustix::fs::openat2(root, &entry.path, flags, Mode::empty(), resolve)
        .map_err(|source| read_error(&full, source.into()))?;
    let file = File::from(descriptor);
    let path = full.display().to_string();
    let metadata = file.metadata().map_err(|source| read_error(&full, source))?;
    if !metadata.is_file() || metadata.len() != entry.size {
        return Err(DatasetError::FileChanged { path });
    }
    let (from, to) = match part {
        Part::Whole { size, .. } => (0, size),
        Part::Lines { from, to, .. } => {
            (border(&file, &path, from, entry.size)?, border(&file, &path, to, entry.size)?)
        }
    };
    let mut last = [b'\n'];
    if to > from {
        exact(&file, &mut last, to - 1, &path)?;
    }
    Ok(Piece { file, path, from, to, unterminated: last != [b'\n'] })
}

/// The first beginning of a line at or after `cut`.
fn border(file: &File, path: &str, cut: u64, size: u64) -> Result<u64, DatasetError> {
    if cut == 0 || cut >= size {
        return Ok(cut.min(size));
    }
    let mut buffer = vec![0; 4096];
    let mut offset = cut - 1;
    while offset < size {
        if offset - cut.min(offset) > MAX_LINE.0 {
            return Err(DatasetError::LongLine { path: path.to_owned(), offset: cut, limit: MAX_LINE });
        }
        let length = usize::try_from(size - offset).unwrap_or(usize::MAX).min(buffer.len());
        exact(file, &mut buffer[..length], offset, path)?;
        if let Some(found) = buffer[..length].iter().position(|byte| *byte == b'\n') {
            return Ok(offset + found as u64 + 1);
        }
        offset += length as u64;
        buffer.resize(STEP, 0);
    }
    Ok(size)
}

fn exact(file: &File, buffer: &mut [u8], offset: u64, path: &str) -> Result<(), DatasetError> {
    file.read_exact_at(buffer, offset).map_err(|source| match source.kind() {
        io::ErrorKind::UnexpectedEof => DatasetError::FileChanged { path: path.to_owned() },
        _ => DatasetError::Read { path: path.to_owned(), source },
    })
}

fn copy(piece: &Piece, buffer: &mut [u8], builder: &mut PayloadBuilder) -> Result<(), DatasetError> {
    let mut offset = piece.from;
    while offset < piece.to {
        let length = usize::try_from(piece.to - offset).unwrap_or(usize::MAX).min(buffer.len());
        exact(&piece.file, &mut buffer[..length], offset, &piece.path)?;
        append(builder, &buffer[..length], piece)?;
        offset += length as u64;
    }
    Ok(())
}

/// Appends; if more comes than was counted in the first round, the file is not what it was.
fn append(builder: &mut PayloadBuilder, bytes: &[u8], piece: &Piece) -> Result<(), DatasetError> {
    builder.write(bytes).map_err(|_| DatasetError::FileChanged { path: piece.path.clone() })
}
