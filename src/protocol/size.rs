//! Sizes as files and options write them: a text in, a number of bytes out, and back.
//!
//! Units are powers of 1024. Knows neither keys nor options.
//!
//! Invariant: what `text` writes `parse` reads as the same number.

/// Units and their bytes, the largest first.
const UNITS: [(&str, u64); 4] = [("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)];

/// A number of bytes with the largest unit that divides it, as in `256M`.
#[must_use]
pub fn text(bytes: u64) -> String {
    let divides = |&&(_, unit): &&(&str, u64)| bytes.is_multiple_of(unit);
    match UNITS.iter().find(divides) {
        Some((name, unit)) if bytes > 0 => format!("{}{name}", bytes / unit),
        _ => bytes.to_string(),
    }
}

/// Reads a number of bytes, perhaps with a unit.
///
/// # Errors
/// What to write, for the end of a sentence.
pub fn parse(text: &str) -> Result<u64, String> {
    let parsed = parse_size::Config::new().with_binary().parse_size(text);
    parsed.map_err(|_| "give a number of bytes, or with k, m or g behind it, as in 512m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_the_largest_unit_that_divides_it() {
        for (bytes, expected) in
            [(0, "0"), (1, "1"), (1000, "1000"), (1024, "1K"), (64 << 20, "64M"), (3 << 30, "3G")]
        {
            assert_eq!(text(bytes), expected);
            assert_eq!(parse(expected), Ok(bytes));
        }
        assert_eq!(parse("256m"), Ok(256 << 20));
        assert!(parse("many").is_err_and(|reason| reason.starts_with("give a number of bytes")));
    }
}
