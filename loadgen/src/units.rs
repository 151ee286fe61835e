//! Figures for people: numbers in, words with a unit out.
//!
//! Every text of this program and of bench-harness writes times, bytes and rates with these.
//! Programs get plain numbers in one unit for each field. Knows nothing of what the figures mean.

/// Steps of times, in µs: the unit and how many µs it has.
const TIMES: [(f64, &str); 3] = [(1e6, "s"), (1e3, "ms"), (1.0, "µs")];
/// Steps of sizes, in bytes.
const SIZES: [(f64, &str); 4] =
    [(1_073_741_824.0, "GiB"), (1_048_576.0, "MiB"), (1024.0, "KiB"), (1.0, "B")];
/// Steps of counts by time.
const RATES: [(f64, &str); 3] = [(1e6, " M"), (1e3, " k"), (1.0, "")];

/// `193 ms` for 193 069 µs: three digits and the unit that fits.
#[must_use]
pub fn time(us: f64) -> String {
    scaled(us, &TIMES, 3, " ")
}

/// `11.9 MiB`.
#[must_use]
pub fn bytes(size: f64) -> String {
    scaled(size, &SIZES, 3, " ")
}

/// `105.1 k jobs/s` for 105 140 `jobs`.
#[must_use]
pub fn rate(per_second: f64, jobs: &str) -> String {
    format!("{} {jobs}/s", scaled(per_second, &RATES, 4, ""))
}

/// `1 234 567`: an exact number, its digits in groups of three.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// A value with so many significant digits in the largest unit of which there is at least one; the
/// units are sorted by size, the largest first.
fn scaled(value: f64, units: &[(f64, &str)], digits: i32, space: &str) -> String {
    // What would be rounded up to one of a unit has that unit.
    let least = 1.0 - 0.5 * 0.1_f64.powi(digits);
    let fits = units.iter().find(|(unit, _)| value >= unit * least);
    let Some((unit, name)) = fits.or_else(|| units.last()) else { return value.to_string() };
    let scaled = value / unit;
    let decimals = match scaled {
        _ if scaled.fract() == 0.0 => 0,
        ..10.0 => digits - 1,
        ..100.0 => digits - 2,
        _ => digits - 3,
    };
    let decimals = usize::try_from(decimals).unwrap_or_default();
    format!("{scaled:.decimals$}{space}{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_unit_that_fits() {
        let cases = [
            (0.0, "0 µs"),
            (0.347, "0.35 µs"),
            (45.31, "45.3 µs"),
            (999.4, "999 µs"),
            (999.6, "1.00 ms"),
            (193_069.0, "193 ms"),
            (2_050_000.0, "2.05 s"),
            (75_000_000.0, "75 s"),
        ];
        for (us, expected) in cases {
            assert_eq!(time(us), expected);
        }
    }

    #[test]
    fn sizes_are_binary() {
        let cases = [(64.0, "64 B"), (1536.0, "1.50 KiB"), (12_478_054.0, "11.9 MiB")];
        for (size, expected) in cases {
            assert_eq!(bytes(size), expected);
        }
        assert_eq!(bytes(f64::from(u32::MAX)), "4.00 GiB");
    }

    #[test]
    fn rates_count_thousands() {
        let cases = [
            (0.5, "0.500 jobs/s"),
            (794.0, "794 jobs/s"),
            (105_140.0, "105.1 k jobs/s"),
            (999_990.0, "1.000 M jobs/s"),
            (1_933_961.0, "1.934 M jobs/s"),
        ];
        for (per_second, expected) in cases {
            assert_eq!(rate(per_second, "jobs"), expected);
        }
    }

    #[test]
    fn digits_are_grouped_from_the_right() {
        assert_eq!(count(7), "7");
        assert_eq!(count(1_234), "1 234");
        assert_eq!(count(1_234_567), "1 234 567");
    }
}
