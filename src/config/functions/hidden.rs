//! Patterns that earlier ones leave no function to: patterns in, whether they are hidden out.
//!
//! A pattern covers another if it matches every name that the other does. Knows no policies and no
//! files.
//!
//! Invariant: a pattern that is told to be hidden is; a few that are aren't told.

use std::collections::HashMap;

use crate::engine::glob::Glob;

/// A part of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    /// `*`: any bytes.
    Any,
    /// `?`: one byte.
    Single,
    /// This byte.
    Byte(u8),
}

/// A pattern, with the `?` of each row of `*` and `?` before its one `*`, and behind it.
#[derive(Clone, Debug)]
struct Shape {
    single_first: Vec<Part>,
    any_first: Vec<Part>,
}

impl Shape {
    fn of(pattern: &Glob) -> Self {
        let pattern = pattern.to_string();
        let (mut single_first, mut any_first) = (Vec::new(), Vec::new());
        // The row of wildcards that is being read: number of `?`, and whether it has a `*`.
        let (mut singles, mut has_any) = (0, false);
        let mut end_row = |singles: &mut usize, has_any: &mut bool, byte: Option<u8>| {
            let any = std::mem::take(has_any).then_some(Part::Any);
            let singles = std::iter::repeat_n(Part::Single, std::mem::take(singles));
            single_first.extend(singles.clone().chain(any));
            any_first.extend(any.into_iter().chain(singles));
            single_first.extend(byte.map(Part::Byte));
            any_first.extend(byte.map(Part::Byte));
        };
        let mut bytes = pattern.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'*' => has_any = true,
                b'?' => singles += 1,
                b'\\' => end_row(&mut singles, &mut has_any, bytes.next()),
                byte => end_row(&mut singles, &mut has_any, Some(byte)),
            }
        }
        end_row(&mut singles, &mut has_any, None);
        Self { single_first, any_first }
    }

    /// Whether it matches a single name.
    fn is_name(&self) -> bool {
        self.any_first.iter().all(|part| matches!(part, Part::Byte(_)))
    }

    fn covers(&self, other: &Self) -> bool {
        covers(&self.single_first, &other.single_first) || covers(&self.any_first, &other.any_first)
    }
}

/// Whether a pattern matches another as if its wildcards were letters: `*` matches any, `?` each
/// but `*`.
fn covers(mut pattern: &[Part], mut other: &[Part]) -> bool {
    // What follows the last `*`, and the part of the other where it was tried last.
    let mut retry = None;
    loop {
        let next = match (pattern, other) {
            ([Part::Any, behind @ ..], _) => {
                retry = Some((behind, other));
                Some((behind, other))
            }
            ([], []) => return true,
            ([Part::Single, behind @ ..], [Part::Single | Part::Byte(_), others @ ..]) => {
                Some((behind, others))
            }
            ([Part::Byte(own), behind @ ..], [Part::Byte(byte), others @ ..]) if own == byte => {
                Some((behind, others))
            }
            _ => None,
        };
        (pattern, other) = match (next, retry) {
            (Some(next), _) => next,
            (None, Some((behind, [_, others @ ..]))) => {
                retry = Some((behind, others));
                (behind, others)
            }
            (None, _) => return false,
        };
    }
}

/// The patterns of the tables so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Those that match a single name, and the first table of each.
    names: HashMap<Vec<Part>, usize>,
    /// All others, and their tables.
    others: Vec<(usize, Shape)>,
    len: usize,
}

impl Seen {
    /// Number of patterns.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds the patterns of a table.
    pub(super) fn add(&mut self, table: usize, patterns: &[Glob]) {
        self.len += patterns.len();
        for shape in patterns.iter().map(Shape::of) {
            if shape.is_name() {
                self.names.entry(shape.any_first).or_insert(table);
            } else {
                self.others.push((table, shape));
            }
        }
    }

    /// The table that covers the first of these patterns, if earlier tables cover all of them.
    pub(super) fn hides(&self, patterns: &[Glob]) -> Option<usize> {
        let cover = |pattern: &Glob| {
            let shape = Shape::of(pattern);
            let mut others = self.others.iter().filter(|(_, earlier)| earlier.covers(&shape));
            let name = self.names.get(&shape.any_first).copied();
            name.or_else(|| others.next().map(|&(table, _)| table))
        };
        let tables: Option<Vec<usize>> = patterns.iter().map(cover).collect();
        tables?.first().copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_covered(earlier: &str, later: &str) -> bool {
        Shape::of(&Glob::new(earlier).unwrap()).covers(&Shape::of(&Glob::new(later).unwrap()))
    }

    #[test]
    fn a_pattern_covers_those_that_match_nothing_else() {
        for (earlier, later, expected) in [
            ("a", "a", true),
            ("a", "b", false),
            ("a", "*", false),
            ("*", "a", true),
            ("*", "*", true),
            ("*", "", true),
            ("", "*", false),
            ("mail-*", "mail-eu-*", true),
            ("mail-eu-*", "mail-*", false),
            ("mail-*", "mail-?", true),
            ("mail-?", "mail-*", false),
            ("?*", "*?", true),
            ("*?", "?*", true),
            ("*?a", "*ba", true),
            ("?*", "*", false),
            ("*a*", "*ba*", true),
            ("a?c", "abc", true),
            (r"\*", "*", false),
            ("*", r"\*", true),
            (r"\*", r"\*", true),
            (r"a\?", "a?", false),
        ] {
            assert_eq!(is_covered(earlier, later), expected, "{earlier} {later}");
        }
    }

    #[test]
    fn a_table_is_hidden_if_all_its_patterns_are() {
        let globs = |patterns: &[&str]| -> Vec<Glob> {
            patterns.iter().map(|pattern| Glob::new(pattern).unwrap()).collect()
        };
        let mut seen = Seen::default();
        seen.add(0, &globs(&["x"]));
        seen.add(1, &globs(&["a-*", "b"]));
        assert_eq!(seen.len(), 3);
        assert_eq!(seen.hides(&globs(&["a-1", "x"])), Some(1));
        assert_eq!(seen.hides(&globs(&["a-1", "c"])), None);
    }

    proptest! {
        #[test]
        fn a_covered_pattern_matches_no_name_that_the_other_does_not(
            earlier in "[ab*?]{0,5}",
            later in "[ab*?]{0,5}",
            names in prop::collection::vec("[ab]{0,6}", 40),
        ) {
            if is_covered(&earlier, &later) {
                let [earlier, later] = [earlier, later].map(|it| Glob::new(&it).unwrap());
                for name in names {
                    prop_assert!(
                        !later.matches(name.as_bytes()) || earlier.matches(name.as_bytes()),
                        "{earlier} {later} {name}"
                    );
                }
            }
        }
    }
}
