//! Bytes as they arrive in, whole lines out.
//!
//! Knows neither what lines mean nor where bytes come from.
//!
//! Invariant: keeps no more than the longest line, however long a line is.

use memchr::memchr;

/// What has arrived of a line that isn't whole yet.
#[derive(Debug)]
pub(super) struct LineBuffer {
    kept: Vec<u8>,
    max: usize,
    /// The rest of the line that is arriving is dropped.
    is_cut: bool,
}

/// A line without its line feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// Its bytes, at most the buffer's limit.
    pub(super) text: &'a [u8],
    /// Whether it was longer than the limit.
    pub(super) is_cut: bool,
}

impl LineBuffer {
    /// A buffer for lines of at most `max` bytes; what is beyond is dropped.
    pub(super) fn new(max: usize) -> Self {
        Self { kept: Vec::new(), max, is_cut: false }
    }

    /// Takes bytes, and gives each line that is whole with them to `each`.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(Line<'_>)) {
        while let Some(end) = memchr(b'\n', bytes) {
            let (line, rest) = bytes.split_at(end);
            if self.kept.is_empty() && line.len() <= self.max {
                each(Line { text: line, is_cut: false });
            } else {
                self.keep(line);
                self.flush(&mut each);
            }
            bytes = rest.get(1..).unwrap_or_default();
        }
        self.keep(bytes);
    }

    /// Gives a last line that has no line feed to `each`, if there is one.
    pub(super) fn finish(&mut self, mut each: impl FnMut(Line<'_>)) {
        if !self.kept.is_empty() {
            self.flush(&mut each);
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = self.max - self.kept.len();
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.kept.extend_from_slice(taken);
        self.is_cut |= taken.len() < bytes.len();
    }

    fn flush(&mut self, each: &mut impl FnMut(Line<'_>)) {
        each(Line { text: &self.kept, is_cut: self.is_cut });
        self.kept.clear();
        self.is_cut = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(chunks: &[&str]) -> Vec<(String, bool)> {
        let mut buffer = LineBuffer::new(5);
        let mut lines = Vec::new();
        let mut take = |line: Line<'_>| {
            lines.push((String::from_utf8_lossy(line.text).into_owned(), line.is_cut));
        };
        for chunk in chunks {
            buffer.push(chunk.as_bytes(), &mut take);
            assert!(buffer.kept.len() <= 5);
        }
        buffer.finish(&mut take);
        lines
    }

    fn whole(lines: &[&str]) -> Vec<(String, bool)> {
        lines.iter().map(|&line| (line.to_owned(), false)).collect()
    }

    #[test]
    fn lines_are_put_together_from_any_pieces() {
        assert_eq!(lines_of(&["ab\ncd\n\nef"]), whole(&["ab", "cd", "", "ef"]));
        assert_eq!(lines_of(&["a", "b\nc", "d", "\n", "\nef\n"]), whole(&["ab", "cd", "", "ef"]));
        assert_eq!(lines_of(&["", "12345\n"]), whole(&["12345"]));
    }

    #[test]
    fn what_is_beyond_the_limit_of_a_line_is_dropped() {
        let cut = ("12345".to_owned(), true);
        assert_eq!(lines_of(&["123456\nab\n"]), [cut.clone(), ("ab".to_owned(), false)]);
        assert_eq!(lines_of(&["1234", "5", "6", "7\nab"]), [cut.clone(), ("ab".to_owned(), false)]);
        assert_eq!(lines_of(&["123456789"]), [cut]);
    }
}
