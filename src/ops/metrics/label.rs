//! Names of functions as values of labels, which are UTF-8.
//!
//! A name in, its label out. Knows no metric; quotes and line ends are the encoder's business.
//!
//! Invariant: distinct names have distinct labels.

use std::borrow::Cow;
use std::fmt::Write;

/// The label of a name: the name itself, if it is UTF-8; else with `\xff` for each byte that isn't,
/// and `\x5c` for each backslash. A name that could be taken for such a label is escaped, too.
pub(super) fn label(name: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = str::from_utf8(name)
        && !has_escape(name)
    {
        return Cow::Borrowed(text);
    }
    let mut label = String::new();
    for chunk in name.utf8_chunks() {
        label.push_str(&chunk.valid().replace('\\', r"\x5c"));
        for byte in chunk.invalid() {
            // A string takes everything.
            let _ = write!(label, r"\x{byte:02x}");
        }
    }
    Cow::Owned(label)
}

/// Whether a name has something in it that looks like an escape.
fn has_escape(name: &[u8]) -> bool {
    let mut windows = name.windows(4);
    windows.any(|it| it.starts_with(br"\x") && it[2..].iter().all(u8::is_ascii_hexdigit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_is_its_own_label() {
        for name in ["resize", "", "größe", "a\"b\nc", r"back\slash", r"\x", r"\xg0", "\r\t\u{1}"]
        {
            assert_eq!(label(name.as_bytes()), name);
        }
    }

    #[test]
    fn bytes_are_escaped() {
        assert_eq!(label(b"a\xffb"), r"a\xffb");
        assert_eq!(label(b"\\\xc3"), r"\x5c\xc3");
        assert_eq!(label(br"a\xffb"), r"a\x5cxffb", "it is text that looks like the first");
    }

    /// What a label was made of.
    fn name_of(label: &str) -> Vec<u8> {
        if !has_escape(label.as_bytes()) {
            return label.into();
        }
        let mut name = Vec::new();
        let mut rest = label.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            if let (b'\\', Some((hex, after))) =
                (byte, after.get(1..).and_then(|it| it.split_at_checked(2)))
            {
                let hex = str::from_utf8(hex).expect("digits");
                name.push(u8::from_str_radix(hex, 16).expect("digits"));
                rest = after;
            } else {
                name.push(byte);
                rest = after;
            }
        }
        name
    }

    /// What escapes are made of, bytes that aren't UTF-8, and a character of two bytes.
    const BYTES: &[u8] = b"\\xf5c\xff\xc3\xa4";

    proptest! {
        #[test]
        fn a_label_tells_its_name(
            name in prop::collection::vec(prop::sample::select(BYTES), 0..12)
        ) {
            prop_assert_eq!(name_of(&label(&name)), name);
        }
    }
}
