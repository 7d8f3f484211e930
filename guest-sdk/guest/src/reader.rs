//! One input as a stream, for what does not fit in memory or need not be in memory at once.

use std::io::{self, BufRead, Read, Seek, SeekFrom};

use crate::host::memory::Memory;
use crate::host::{MAX_TRANSFER, Source};
use crate::{Error, FromInput, Result};

/// How much is fetched at a time while streaming: few calls into the host, and little memory.
const PIECE: usize = 256 << 10;

/// One input, read piece by piece: [`Read`], [`BufRead`] and [`Seek`].
///
/// As a parameter it takes an input group of exactly one partition; `Many<Reader>` takes any number of them.
///
/// ```
/// # extern crate partita_guest as partita;
/// use std::io::BufRead as _;
/// use partita::prelude::*;
///
/// /// Counts the lines that are not empty.
/// #[partita::task]
/// fn lines(text: Reader) -> Result<Json<u64>> {
///     let mut count = 0;
///     for line in text.lines() {
///         count += u64::from(!line?.is_empty());
///     }
///     Ok(Json(count))
/// }
///
/// assert_eq!(lines(Reader::from("one\n\ntwo")).unwrap().0, 2);
/// ```
pub struct Reader {
    source: Source,
    /// Where the piece that is in memory starts.
    piece_start: u64,
    piece: Vec<u8>,
    /// How much of the piece was consumed.
    used: usize,
    /// Whether the piece is known to be the last one.
    last: bool,
}

impl Reader {
    pub(crate) fn new(source: Source) -> Self {
        Self { source, piece_start: 0, piece: Vec::new(), used: 0, last: false }
    }

    /// Length of the whole input in bytes.
    ///
    /// ```
    /// # extern crate partita_guest as partita;
    /// assert_eq!(partita::Reader::from("seven b").size(), 7);
    /// ```
    #[must_use]
    pub fn size(&self) -> u64 {
        self.source.size()
    }

    /// How many bytes lie before the next one to be read.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.piece_start + self.used as u64
    }

    /// The rest of the input, in memory at once.
    ///
    /// ```
    /// # extern crate partita_guest as partita;
    /// assert_eq!(partita::Reader::from("all of it").read_all().unwrap(), b"all of it");
    /// ```
    ///
    /// # Errors
    /// If there is not enough memory for it.
    pub fn read_all(self) -> Result<Vec<u8>> {
        let mut offset = self.position();
        let mut bytes = self.source.read(offset, MAX_TRANSFER);
        if bytes.len() < MAX_TRANSFER {
            return Ok(bytes);
        }
        let rest = self.source.size().saturating_sub(offset);
        let reserved = usize::try_from(rest).is_ok_and(|rest| bytes.try_reserve_exact(rest - bytes.len()).is_ok());
        if !reserved {
            return Err(Error::new(format!(
                "an input of {rest} bytes does not fit in the memory of the task: take it as a `Reader`, or raise the limit"
            )));
        }
        loop {
            offset += MAX_TRANSFER as u64;
            let piece = self.source.read(offset, MAX_TRANSFER);
            bytes.extend_from_slice(&piece);
            if piece.len() < MAX_TRANSFER {
                return Ok(bytes);
            }
        }
    }
}

impl FromInput for Reader {
    fn from_input(input: Reader) -> Result<Self> {
        Ok(input)
    }
}

impl From<Vec<u8>> for Reader {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(Memory::source(bytes))
    }
}

impl From<&[u8]> for Reader {
    fn from(bytes: &[u8]) -> Self {
        Self::from(bytes.to_vec())
    }
}

impl From<&str> for Reader {
    fn from(text: &str) -> Self {
        Self::from(text.as_bytes())
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Reader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.used == self.piece.len() && !self.last {
            self.piece_start += self.piece.len() as u64;
            // Given back before the next one is taken, so that only one is in memory.
            self.piece = Vec::new();
            self.piece = self.source.read(self.piece_start, PIECE);
            self.used = 0;
            self.last = self.piece.len() < PIECE;
        }
        Ok(&self.piece[self.used..])
    }

    fn consume(&mut self, amount: usize) {
        self.used = (self.used + amount).min(self.piece.len());
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(by) => self.position().checked_add_signed(by),
            SeekFrom::End(by) => self.size().checked_add_signed(by),
        };
        let Some(target) = target else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "seek to before the start of the input"));
        };
        match target.checked_sub(self.piece_start).and_then(|inside| usize::try_from(inside).ok()) {
            Some(inside) if inside <= self.piece.len() => self.used = inside,
            _ => {
                self.piece = Vec::new();
                self.piece_start = target;
                self.used = 0;
                self.last = false;
            }
        }
        Ok(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|index| u8::try_from((index * 7 + index / 251) % 256).unwrap()).collect()
    }

    #[test]
    fn every_length_around_the_borders_of_pieces_is_read_whole() {
        for length in
            [0, 1, PIECE - 1, PIECE, PIECE + 1, MAX_TRANSFER - 1, MAX_TRANSFER, 2 * MAX_TRANSFER, 2 * MAX_TRANSFER + 5]
        {
            let bytes = pattern(length);
            assert_eq!(Reader::from(bytes.clone()).read_all().unwrap(), bytes, "read_all of {length}");
            let mut streamed = Vec::new();
            Reader::from(bytes.clone()).read_to_end(&mut streamed).unwrap();
            assert_eq!(streamed, bytes, "stream of {length}");
        }
    }

    #[test]
    fn read_all_continues_where_reading_stopped() {
        let bytes = pattern(PIECE + 100);
        let mut reader = Reader::from(bytes.clone());
        let mut head = vec![0; PIECE + 10];
        reader.read_exact(&mut head).unwrap();
        assert_eq!(reader.position(), (PIECE + 10) as u64);
        assert_eq!(reader.read_all().unwrap(), &bytes[PIECE + 10..]);
    }

    #[test]
    fn seeking_finds_the_same_bytes_as_reading_through() {
        let bytes = pattern(3 * PIECE);
        let mut reader = Reader::from(bytes.clone());
        let last = bytes.len() - 1;
        for (to, expected) in [
            (SeekFrom::Start(5), 5),
            (SeekFrom::Start(2 * PIECE as u64 + 1), 2 * PIECE + 1),
            (SeekFrom::Current(-3), 2 * PIECE - 1),
            (SeekFrom::End(-1), last),
            (SeekFrom::Start(0), 0),
        ] {
            reader.seek(to).unwrap();
            let mut byte = [0];
            reader.read_exact(&mut byte).unwrap();
            assert_eq!(byte[0], bytes[expected], "{to:?}");
        }
        assert!(reader.seek(SeekFrom::Current(-100)).is_err());
    }

    #[test]
    fn behind_the_end_there_is_nothing() {
        let mut reader = Reader::from("abc");
        reader.seek(SeekFrom::Start(10)).unwrap();
        assert_eq!(reader.fill_buf().unwrap(), b"");
        reader.seek(SeekFrom::Start(1)).unwrap();
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "bc");
    }
}
