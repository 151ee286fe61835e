//! The words of a refusal: peer, right and function in, the text of a reply out.
//!
//! Knows neither rules nor connections.
//!
//! Invariant: a text line has no blanks behind its code, as all errors of the text protocol.

use super::right::Right;

/// What a peer wanted and may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial<'a> {
    /// What the peer is called.
    pub peer: &'a str,
    /// The right that it lacks.
    pub right: Right,
    /// The function that it named, if it named one.
    pub function: Option<&'a [u8]>,
}

impl Denial<'_> {
    /// The text of the packet ERROR: `cn:web1 may not submit secret`.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let mut text = format!("{} may not {}", self.peer, self.right).into_bytes();
        if let Some(function) = self.function {
            text.push(b' ');
            text.extend_from_slice(function);
        }
        text
    }

    /// The line of the text protocol.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        let mut line = b"ERR PERMISSION_DENIED ".to_vec();
        let text = self.text();
        line.extend(text.iter().map(|&byte| if byte == b' ' { b'+' } else { byte }));
        line.extend_from_slice(b"\r\n");
        line
    }
}
