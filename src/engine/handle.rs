//! Job numbers in, job handles out, and back: `prefix:number`, as clients and workers see them.
//!
//! Knows the prefix, but no jobs. Formatting needs no allocation.
//!
//! Invariant: a handle has one spelling. Text that `text` would not write is no handle.

use thiserror::Error;

/// Longest handle: libgearman stores handles in 64 bytes, the terminating NUL included.
pub const HANDLE_BYTES_MAX: usize = 63;

/// Digits of the largest number.
const NUMBER_DIGITS_MAX: usize = 20;

/// Longest prefix with which the colon and any number fit a handle.
pub const PREFIX_BYTES_MAX: usize = HANDLE_BYTES_MAX - NUMBER_DIGITS_MAX - 1;

/// Low bits of a job's number that contain its function's slot. Slots are distributed over the
/// cores, so a number determines the job's core for any number of cores, also after a restart.
pub const SLOT_BITS: u32 = 8;

/// Largest sequence number that fits a job number beside the slot.
pub const SEQUENCE_MAX: u64 = u64::MAX >> SLOT_BITS;

/// The slot of a function. Must stay the same in every version, as the numbers of durable jobs
/// contain it.
#[inline]
#[must_use]
pub fn slot(function: &[u8]) -> u8 {
    // FNV-1a (Fowler, Noll, Vo; draft-eastlake-fnv), folded: it spreads short names well over 256
    // slots. It needs no seed: a client that crowds functions into one slot loads one core only.
    let hash = function.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let [low, .., high] = (hash ^ (hash >> 32)).to_le_bytes();
    low ^ high
}

/// The number of the job of this function that is the `sequence`th of its core.
#[inline]
#[must_use]
pub fn job_number(sequence: u64, slot: u8) -> u64 {
    sequence << SLOT_BITS | u64::from(slot)
}

/// The slot in a job's number.
#[inline]
#[must_use]
pub fn slot_of(number: u64) -> u8 {
    let [slot, ..] = number.to_le_bytes();
    slot
}

/// A prefix that can't start a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PrefixError {
    /// Handles would not fit libgearman's buffers.
    #[error("the job handle prefix is longer than {PREFIX_BYTES_MAX} bytes")]
    TooLong,
    /// Handles are words of the admin protocol.
    #[error("the job handle prefix has a space or a control character")]
    NotAWord,
}

/// Writes and reads handles.
#[derive(Clone, Debug)]
pub struct Handles {
    prefix: Box<[u8]>,
}

impl Default for Handles {
    /// Handles that start with `H:test`.
    fn default() -> Self {
        Self { prefix: (*b"H:test").into() }
    }
}

/// A handle as text.
#[derive(Clone, Copy, Debug)]
pub struct HandleText {
    bytes: [u8; HANDLE_BYTES_MAX + 1],
    len: u8,
}

impl AsRef<[u8]> for HandleText {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl Handles {
    /// Handles that start with `prefix` and a colon.
    ///
    /// # Errors
    /// `PrefixError`: see there.
    pub fn new(prefix: &[u8]) -> Result<Self, PrefixError> {
        if prefix.len() > PREFIX_BYTES_MAX {
            return Err(PrefixError::TooLong);
        }
        if prefix.iter().any(|&byte| byte <= b' ' || byte == 0x7f) {
            return Err(PrefixError::NotAWord);
        }
        Ok(Self { prefix: prefix.into() })
    }

    /// What they start with, without the colon.
    #[must_use]
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// The handle of job `number`.
    #[inline]
    #[must_use]
    pub fn text(&self, number: u64) -> HandleText {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(number).as_bytes();
        let mut text = HandleText { bytes: [0; HANDLE_BYTES_MAX + 1], len: 0 };
        for part in [&*self.prefix, b":", digits] {
            let at = usize::from(text.len);
            if let Some(room) = text.bytes.get_mut(at..at + part.len()) {
                room.copy_from_slice(part);
                // `HANDLE_BYTES_MAX` bounds it.
                text.len += u8::try_from(part.len()).unwrap_or(0);
            }
        }
        text
    }

    /// The number in a handle; `None` for text that this server never wrote.
    #[inline]
    #[must_use]
    pub fn number(&self, text: &[u8]) -> Option<u64> {
        let digits = text.strip_prefix(&*self.prefix)?.strip_prefix(b":")?;
        if digits.is_empty() || digits.len() > NUMBER_DIGITS_MAX || digits.starts_with(b"0") {
            return None;
        }
        digits.iter().try_fold(0_u64, |number, &digit| {
            let digit = char::from(digit).to_digit(10)?;
            number.checked_mul(10)?.checked_add(u64::from(digit))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reads_what_it_writes(number in 1u64.., prefix in "[!-~]{0,42}") {
            let handles = Handles::new(prefix.as_bytes()).unwrap();
            let text = handles.text(number);
            prop_assert!(text.as_ref().len() <= HANDLE_BYTES_MAX);
            let expected = format!("{prefix}:{number}");
            prop_assert_eq!(text.as_ref(), expected.as_bytes());
            prop_assert_eq!(handles.number(text.as_ref()), Some(number));
        }
    }

    #[test]
    fn other_spellings_name_no_job() {
        let handles = Handles::new(b"H:host").unwrap();
        assert_eq!(handles.number(b"H:host:7"), Some(7));
        for text in [
            "H:host:07",
            "H:host:+7",
            "H:host:",
            "H:host",
            "H:hose:7",
            "7",
            "H:host:7 ",
            "H:host:18446744073709551616",
            "h:host:7",
            "H:host:0",
        ] {
            assert_eq!(handles.number(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn prefixes_that_would_break_clients_are_refused() {
        assert_eq!(Handles::new(&[b'x'; 43]).unwrap_err(), PrefixError::TooLong);
        assert_eq!(Handles::new(b"H:a b").unwrap_err(), PrefixError::NotAWord);
        assert_eq!(Handles::new(b"H:a\n").unwrap_err(), PrefixError::NotAWord);
    }
}
