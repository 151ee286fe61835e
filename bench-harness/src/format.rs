//! Figures without a unit as readers see them: three digits that count.

/// Three digits that count, thousands apart.
pub(crate) fn number(value: f64) -> String {
    let decimals = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    let text = format!("{value:.decimals$}");
    let whole = text.split('.').next().map_or(0, str::len);
    let mut out = String::new();
    for (at, digit) in text.chars().enumerate() {
        if at > 0 && at < whole && (whole - at).is_multiple_of(3) && whole > 4 {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// A round number, short: 10 k, 1 M.
pub(crate) fn short(number: u64) -> String {
    match number {
        1_000_000.. => format!("{} M", number / 1_000_000),
        1000.. => format!("{} k", number / 1000),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_that_count() {
        let numbers = [0.123, 1.234, 12.34, 123.4, 1234.0, 12345.6, 1_234_567.0];
        let texts = numbers.map(|value| number(value).replace('\u{202f}', "_"));
        assert_eq!(texts, ["0.12", "1.23", "12.3", "123", "1234", "12_346", "1_234_567"]);
        assert_eq!([short(500), short(10_000), short(1_000_000)], ["500", "10 k", "1 M"]);
    }
}
