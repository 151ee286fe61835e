//! Durations as files and lists write them: milliseconds in, a number with a unit out, and back.
//!
//! Knows neither keys nor options.
//!
//! Invariant: what `text` writes `parse` reads as the same number.

/// Units and their milliseconds, the largest first.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Longest duration that a file or an option may give, in milliseconds: ten years.
pub const MS_MAX: u64 = 3650 * 86_400_000;

/// A duration with the largest unit that divides it, as in `500ms`, `90s` and `1h`.
#[must_use]
pub fn text(ms: u64) -> String {
    let divides = |&&(_, unit_ms): &&(&str, u64)| ms.is_multiple_of(unit_ms);
    match UNITS.iter().find(divides) {
        Some((unit, unit_ms)) if ms > 0 => format!("{}{unit}", ms / unit_ms),
        _ => format!("{}s", ms / 1000),
    }
}

/// Reads a whole number with a unit, in milliseconds; `u64::MAX` stands for longer ones.
///
/// # Errors
/// What to write, for the end of a sentence.
pub fn parse(text: &str) -> Result<u64, String> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(unit_at);
    let unit_ms = UNITS.iter().find(|&&(name, _)| name == unit).map(|&(_, unit_ms)| unit_ms);
    match unit_ms {
        Some(unit_ms) if !digits.is_empty() => {
            // A number that doesn't fit is longer than any.
            let number = digits.parse::<u64>().unwrap_or(u64::MAX);
            Ok(number.saturating_mul(unit_ms))
        }
        _ if !digits.is_empty() && unit.is_empty() => Err(format!(
            "give it a unit, as in {text}s: ms, s, m, h or d stand for milliseconds to days"
        )),
        _ => Err("give a whole number and ms, s, m, h or d, as in 90s".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_the_largest_unit_that_divides_it() {
        for (ms, expected) in [
            (0, "0s"),
            (1, "1ms"),
            (999, "999ms"),
            (1000, "1s"),
            (1500, "1500ms"),
            (64_000, "64s"),
            (90_000, "90s"),
            (1_024_000, "1024s"),
            (1_800_000, "30m"),
            (3_600_000, "1h"),
            (86_400_000, "1d"),
            (2_592_000_000, "30d"),
            (u64::MAX, "18446744073709551615ms"),
        ] {
            assert_eq!(text(ms), expected);
            assert_eq!(parse(expected), Ok(ms));
        }
    }

    #[test]
    fn a_duration_has_a_unit() {
        for word in ["", "s", "1.5s", "-1s", "+1s", "1 s", " 1s", "1h30m", "1S", "1w", "1min", "é"]
        {
            let usage = "give a whole number and ms, s, m, h or d, as in 90s".to_owned();
            assert_eq!(parse(word), Err(usage), "{word}");
        }
        assert!(parse("90").is_err_and(|reason| reason.starts_with("give it a unit, as in 90s: ")));
        for word in ["99999999999999999999ms", "18446744073709551615d"] {
            assert_eq!(parse(word), Ok(u64::MAX), "{word}");
        }
    }
}
