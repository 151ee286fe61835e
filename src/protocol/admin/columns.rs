//! Values in the columns of lists: names, moments and ages in, their text out.
//!
//! gearmand's own lists write names as they are; lists of ringgear's escape what would break a row.
//! Knows no list.
//!
//! Invariant: what `name` writes has no tab and no line end, and is never empty.

/// What stands for a value that there isn't.
const NONE: &[u8] = b"-";

/// Appends texts as they are.
pub fn text(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Appends a number.
pub fn number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends numbers separated by tabs, and a line end.
pub fn numbers(out: &mut Vec<u8>, numbers: &[u32]) {
    for (at, &value) in numbers.iter().enumerate() {
        if at > 0 {
            out.push(b'\t');
        }
        number(out, value);
    }
    out.push(b'\n');
}

/// Appends a name: UTF-8 as it is, but for control characters and backslashes, which are escaped as
/// in Rust; other bytes as `\xff`.
pub fn name(out: &mut Vec<u8>, name: &[u8]) {
    if name.is_empty() {
        return out.extend_from_slice(NONE);
    }
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() || character == '\\' {
                out.extend(character.escape_default().map(|escape| escape as u8));
            } else {
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        out.extend(chunk.invalid().escape_ascii());
    }
}

/// Appends a moment, given in milliseconds since 1970, in whole seconds.
pub fn moment(out: &mut Vec<u8>, unix_ms: Option<u64>) {
    match unix_ms {
        Some(unix_ms) => number(out, unix_ms / 1000),
        None => out.extend_from_slice(NONE),
    }
}

/// Appends an age, given in milliseconds, in seconds with one decimal.
pub fn age(out: &mut Vec<u8>, age_ms: Option<u64>) {
    match age_ms {
        Some(age_ms) => {
            number(out, age_ms / 1000);
            out.push(b'.');
            number(out, age_ms % 1000 / 100);
        }
        None => out.extend_from_slice(NONE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_column() {
        for (given, expected) in [
            (&b"resize"[..], "resize"),
            ("größe".as_bytes(), "größe"),
            (b"", "-"),
            (b"a\tb\nc\\d", "a\\tb\\nc\\\\d"),
            (b"\x00\x7f", "\\u{0}\\u{7f}"),
            (b"a\xff\xc3(", "a\\xff\\xc3("),
        ] {
            let mut out = Vec::new();
            name(&mut out, given);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn moments_are_whole_seconds_and_ages_have_one_decimal() {
        let text = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(&|out| moment(out, Some(1_700_000_000_999))), "1700000000");
        assert_eq!(text(&|out| moment(out, None)), "-");
        assert_eq!(text(&|out| age(out, Some(61_990))), "61.9");
        assert_eq!(text(&|out| age(out, Some(0))), "0.0");
        assert_eq!(text(&|out| age(out, None)), "-");
    }
}
