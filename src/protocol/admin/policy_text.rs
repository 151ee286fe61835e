//! A policy as lists show it: the values in, a line a key out, as the functions file writes them.
//!
//! Knows no file.
//!
//! Invariant: a key stands there only if it says something; a duration has the largest unit that
//! divides it.

use std::fmt::Write;

use crate::engine::function::Durability;
use crate::engine::policy::{Backoff, Policy, Retries};
use crate::engine::reason::Reason;
use crate::protocol::duration;

/// The keys of a policy and their values, a line each, with a tab between.
#[must_use]
pub fn policy_text(policy: &Policy) -> String {
    let Policy {
        patterns,
        retries,
        expiry,
        timeout_ms,
        timeout_max_ms,
        touch,
        queue_max,
        durability,
    } = policy;
    let mut lines = vec![("match", patterns_text(patterns))];
    if let Some(Retries { attempts, retried, backoff, foreground, dead }) = retries {
        let covered = Reason::ALL.into_iter().zip(retried).filter(|(_, is_retried)| **is_retried);
        let names: Vec<String> = covered.map(|(reason, _)| quoted(reason.name())).collect();
        lines.extend([
            ("attempts", attempts.to_string()),
            ("retry", format!("[{}]", names.join(", "))),
            ("backoff", backoff_text(backoff)),
            ("foreground", foreground.to_string()),
            ("dead", dead.to_string()),
        ]);
    }
    if let Some(expiry) = expiry {
        lines.push(("expire", quoted(&duration::text(expiry.after_ms))));
        lines.push(("expire-to", quoted(if expiry.dead { "dead" } else { "gone" })));
    }
    for (key, ms) in [("timeout", *timeout_ms), ("timeout-max", *timeout_max_ms)] {
        if ms > 0 {
            lines.push((key, quoted(&duration::text(ms.into()))));
        }
    }
    if *touch {
        lines.push(("touch", touch.to_string()));
    }
    if let Some([high, normal, low]) = queue_max {
        lines.push(("queue-max", format!("[{high}, {normal}, {low}]")));
    }
    if let Some(durability) = durability {
        let name = match durability {
            Durability::None => "none",
            Durability::Async => "async",
            Durability::Fsync => "fsync",
        };
        lines.push(("durability", quoted(name)));
    }
    let mut text = String::new();
    for (key, value) in lines {
        // Writing to a string doesn't fail.
        let _ = writeln!(text, "{key}\t{value}");
    }
    text
}

fn patterns_text(patterns: &[crate::engine::glob::Glob]) -> String {
    let quoted: Vec<String> = patterns.iter().map(|it| quoted(&it.to_string())).collect();
    match &quoted[..] {
        [only] => only.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

fn backoff_text(backoff: &Backoff) -> String {
    let Backoff { first_ms, factor, max_ms, jitter } = *backoff;
    let (first, max) = (quoted(&duration::text(first_ms)), quoted(&duration::text(max_ms)));
    format!("{{ first = {first}, factor = {factor:?}, max = {max}, jitter = {jitter:?} }}")
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            _ if character.is_control() => {
                // Writing to a string doesn't fail.
                let _ = write!(out, "\\u{:04X}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::glob::Glob;
    use crate::engine::policy::Expiry;

    #[test]
    fn durations_have_the_largest_unit_that_divides_them() {
        for (ms, text) in [
            (0, "0s"),
            (1, "1ms"),
            (1500, "1500ms"),
            (60_000, "1m"),
            (61_000, "61s"),
            (5_400_000, "90m"),
            (3_600_000, "1h"),
            (86_400_000, "1d"),
            (2_592_000_000, "30d"),
        ] {
            assert_eq!(duration::text(ms), text);
        }
    }

    #[test]
    fn only_keys_that_say_something_are_written_and_toml_reads_them() {
        let glob = |pattern: &str| Glob::new(pattern).unwrap();
        let policy = Policy { patterns: vec![glob("a*")], ..Policy::default() };
        assert_eq!(policy_text(&policy), "match\t\"a*\"\n");
        let policy = Policy {
            patterns: vec![glob("a\\\\\"\u{1}"), glob("b")],
            retries: Some(Retries { retried: [true, false, true, false], ..Retries::of(3) }),
            expiry: Some(Expiry { after_ms: 86_400_000, dead: true }),
            timeout_ms: 90_000,
            timeout_max_ms: 3_600_000,
            touch: true,
            queue_max: Some([1, 2, 3]),
            durability: Some(Durability::Fsync),
        };
        let text = policy_text(&policy);
        let expected = "match\t[\"a\\\\\\\\\\\"\\u0001\", \"b\"]\n\
                        attempts\t3\n\
                        retry\t[\"lost\", \"fail\"]\n\
                        backoff\t{ first = \"1s\", factor = 4.0, max = \"1h\", jitter = 0.5 }\n\
                        foreground\tfalse\n\
                        dead\ttrue\n\
                        expire\t\"1d\"\n\
                        expire-to\t\"dead\"\n\
                        timeout\t\"90s\"\n\
                        timeout-max\t\"1h\"\n\
                        touch\ttrue\n\
                        queue-max\t[1, 2, 3]\n\
                        durability\t\"fsync\"\n";
        assert_eq!(text, expected);
        let table: toml::Table = text.replace('\t', " = ").parse().unwrap();
        assert_eq!(table["match"][0].as_str(), Some("a\\\\\"\u{1}"));
    }
}
