//! Text within arguments: C strings and decimal numbers as gearmand reads them.
//!
//! Bytes in, a slice or a number out. Knows no packets.
//!
//! Invariant: nothing here allocates or fails.

/// What C code sees of an argument: everything before its first NUL.
#[must_use]
pub fn c_string(text: &[u8]) -> &[u8] {
    memchr::memchr(0, text).and_then(|at| text.get(..at)).unwrap_or(text)
}

/// A number as C's `strtoll` reads it: leading blanks, a sign and digits; the rest is ignored, and
/// numbers out of range saturate.
#[must_use]
pub fn decimal(text: &[u8]) -> i64 {
    let text = text.trim_ascii_start();
    let (sign, digits) = match text.split_first() {
        Some((b'-', digits)) => (-1, digits),
        Some((b'+', digits)) => (1, digits),
        _ => (1, text),
    };
    digits.iter().take_while(|digit| digit.is_ascii_digit()).fold(0_i64, |number, &digit| {
        number.saturating_mul(10).saturating_add(sign * i64::from(digit - b'0'))
    })
}

/// Whether `decimal` saturates.
pub fn has_overflow(text: &[u8]) -> bool {
    matches!(decimal(text), i64::MAX | i64::MIN)
}
