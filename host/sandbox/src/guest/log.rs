//! The log of one attempt: whole lines, safe to show, up to a limit; what is beyond is counted.

use partita_types::{ByteSize, LogLevel, LogLine};

use crate::text::shown;

/// Longest line in bytes; the rest of it is cut.
pub(crate) const LINE_MAX: usize = 4096;
/// What a line costs beside its text, so that empty lines are not free.
pub(crate) const LINE_COST: usize = 16;

/// Which standard stream of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Output,
    Error,
}

impl Stream {
    const fn level(self) -> LogLevel {
        match self {
            Self::Output => LogLevel::Info,
            Self::Error => LogLevel::Warn,
        }
    }
}

/// Collects lines.
#[derive(Debug)]
pub(crate) struct Log {
    room: usize,
    lines: Vec<LogLine>,
    cut: u32,
    /// Begun lines of standard output and error.
    begun: [Vec<u8>; 2],
}

impl Log {
    pub(crate) fn new(limit: ByteSize) -> Self {
        let room = usize::try_from(limit.0).unwrap_or(usize::MAX);
        Self { room, lines: Vec::new(), cut: 0, begun: [Vec::new(), Vec::new()] }
    }

    /// Adds a message; line ends in it separate lines.
    pub(crate) fn add(&mut self, level: LogLevel, message: &str) {
        for line in message.lines() {
            self.add_line(level, line);
        }
    }

    fn add_line(&mut self, level: LogLevel, line: &str) {
        if self.room < LINE_COST {
            self.cut = self.cut.saturating_add(1);
            return;
        }
        let text = shown(line, LINE_MAX.min(self.room - LINE_COST));
        // Escapes may make a line longer than what is left: then nothing is left.
        self.room = self.room.saturating_sub(text.len() + LINE_COST);
        self.lines.push(LogLine { level, text });
    }

    /// Adds what the guest printed; lines end where the guest ends them.
    pub(crate) fn print(&mut self, stream: Stream, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.begin(stream, &bytes[..end]);
            self.end_line(stream);
            bytes = &bytes[end + 1..];
        }
        self.begin(stream, bytes);
    }

    fn begin(&mut self, stream: Stream, bytes: &[u8]) {
        let line = &mut self.begun[stream as usize];
        // One byte more than is shown, so that the cut is noted.
        let room = (LINE_MAX + 1).saturating_sub(line.len());
        line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end_line(&mut self, stream: Stream) {
        let mut line = std::mem::take(&mut self.begun[stream as usize]);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        self.add_line(stream.level(), &String::from_utf8_lossy(&line));
        line.clear();
        self.begun[stream as usize] = line;
    }

    /// All lines, those without an end included, and how many were cut.
    pub(crate) fn finish(mut self) -> (Vec<LogLine>, u32) {
        for stream in [Stream::Output, Stream::Error] {
            if !self.begun[stream as usize].is_empty() {
                self.end_line(stream);
            }
        }
        (self.lines, self.cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(log: Log) -> Vec<String> {
        log.finish().0.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn printed_pieces_become_whole_lines() {
        let mut log = Log::new(ByteSize::kib(1));
        log.print(Stream::Output, b"one\ntw");
        log.print(Stream::Error, b"other");
        log.print(Stream::Output, b"o\r\n");
        assert_eq!(texts(log), ["one", "two", "other"]);
    }

    #[test]
    fn lines_beyond_the_limit_are_counted() {
        let mut log = Log::new(ByteSize(100));
        for _ in 0..1000 {
            log.add(LogLevel::Info, "0123456789");
        }
        let (lines, cut) = log.finish();
        assert_eq!((lines.len(), cut), (4, 996));
    }

    #[test]
    fn a_line_without_end_takes_bounded_memory() {
        let mut log = Log::new(ByteSize::mib(1));
        for _ in 0..1000 {
            log.print(Stream::Output, &[b'x'; 1000]);
        }
        let [line] = &texts(log)[..] else { panic!("not one line") };
        assert!(line.len() < LINE_MAX + 40, "{}", line.len());
    }
}
