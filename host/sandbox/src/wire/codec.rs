//! Little-endian numbers and length-prefixed bytes, for the frames between daemon and helper processes.
//!
//! The reader treats its input as hostile: every length is checked against what is really there before it is used, so
//! nothing is allocated that was not received.

use std::fmt;

/// Bytes that are not a message of the expected form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) struct Malformed(pub(crate) &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed message: {}", self.0)
    }
}

/// Appends values to a buffer.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// A number of things. More than fit into 32 bits cannot be in one process's message.
    pub(crate) fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// Bytes of a length that the reader knows.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    pub(crate) fn texts(&mut self, texts: &[String]) {
        self.count(texts.len());
        texts.iter().for_each(|text| self.text(text));
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Takes values from a buffer and remembers how far it is.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// Where in the buffer the next value starts.
    pub(crate) const fn position(&self) -> usize {
        self.position
    }

    /// The next `length` bytes.
    pub(crate) fn raw(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let end = self.position.checked_add(length).ok_or(Malformed("length overflows"))?;
        let taken = self.bytes.get(self.position..end).ok_or(Malformed("shorter than it says"))?;
        self.position = end;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.raw(N)?.try_into().map_err(|_| Malformed("shorter than it says"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number of things of which each takes at least `least` bytes, so that a `Vec` of that capacity is affordable.
    pub(crate) fn count(&mut self, least: usize) -> Result<usize, Malformed> {
        let count = self.u32()? as usize;
        let rest = self.bytes.len() - self.position;
        if count.checked_mul(least.max(1)).is_none_or(|bytes| bytes > rest) {
            return Err(Malformed("count exceeds the message"));
        }
        Ok(count)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.count(1)?;
        self.raw(length)
    }

    /// Text. What is not UTF-8 is replaced, because it is only ever shown to people.
    pub(crate) fn text(&mut self) -> Result<String, Malformed> {
        Ok(String::from_utf8_lossy(self.bytes()?).into_owned())
    }

    /// At most `most` texts.
    pub(crate) fn texts(&mut self, most: usize) -> Result<Vec<String>, Malformed> {
        let count = self.count(4)?;
        if count > most {
            return Err(Malformed("too many texts"));
        }
        (0..count).map(|_| self.text()).collect()
    }

    /// Nothing may follow the last value.
    pub(crate) const fn end(&self) -> Result<(), Malformed> {
        if self.position == self.bytes.len() { Ok(()) } else { Err(Malformed("longer than it says")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_in_order() {
        let mut writer = Writer::default();
        writer.u8(1);
        writer.u64(u64::MAX);
        writer.texts(&["a".to_owned(), String::new()]);
        writer.bytes(b"xyz");
        let bytes = writer.into_bytes();
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.u64(), Ok(u64::MAX));
        assert_eq!(reader.texts(2), Ok(vec!["a".to_owned(), String::new()]));
        assert_eq!(reader.bytes(), Ok(&b"xyz"[..]));
        assert_eq!(reader.end(), Ok(()));
    }

    #[test]
    fn a_length_beyond_the_end_is_an_error_and_not_an_allocation() {
        let mut reader = Reader::new(&[0xff, 0xff, 0xff, 0xff, 1]);
        assert_eq!(reader.bytes(), Err(Malformed("count exceeds the message")));
        let mut reader = Reader::new(&[0xff, 0xff, 0xff, 0x7f]);
        assert_eq!(reader.texts(usize::MAX), Err(Malformed("count exceeds the message")));
        assert_eq!(Reader::new(&[1]).u32(), Err(Malformed("shorter than it says")));
    }

    #[test]
    fn trailing_bytes_are_an_error() {
        assert_eq!(Reader::new(&[0]).end(), Err(Malformed("longer than it says")));
    }
}
