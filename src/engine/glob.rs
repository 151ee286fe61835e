//! Globs over bytes: a pattern and a name in, whether they match out.
//!
//! `*` stands for any bytes, `?` for one byte, and `\` takes away the meaning of the byte behind
//! it. Knows nothing of what the names are.
//!
//! Invariant: takes at most as many steps as pattern and name have bytes, multiplied.

use std::fmt;

/// A pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Box<[u8]>);

/// A pattern that ends in the middle of an escape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ends with a backslash: write \\\\ for a backslash")]
pub struct LooseEscape;

impl Glob {
    /// A pattern.
    ///
    /// # Errors
    /// `LooseEscape`: the last backslash escapes nothing.
    pub fn new(pattern: &str) -> Result<Self, LooseEscape> {
        Self::of_bytes(pattern.as_bytes())
    }

    /// A pattern of any bytes.
    ///
    /// # Errors
    /// `LooseEscape`: the last backslash escapes nothing.
    pub fn of_bytes(pattern: &[u8]) -> Result<Self, LooseEscape> {
        let backslashes = pattern.iter().rev().take_while(|&&byte| byte == b'\\').count();
        if backslashes % 2 == 1 { Err(LooseEscape) } else { Ok(Self(pattern.into())) }
    }

    /// A pattern that matches just this name.
    #[must_use]
    pub fn exactly(name: &[u8]) -> Self {
        let escapes = |byte: &u8| matches!(byte, b'*' | b'?' | b'\\').then_some(b'\\');
        Self(name.iter().flat_map(|byte| escapes(byte).into_iter().chain([*byte])).collect())
    }

    /// The only name that it matches; `None` if it may match several.
    #[must_use]
    pub fn only_name(&self) -> Option<Vec<u8>> {
        let mut name = Vec::with_capacity(self.0.len());
        let mut bytes = self.0.iter();
        while let Some(&byte) = bytes.next() {
            match byte {
                b'*' | b'?' => return None,
                b'\\' => name.extend(bytes.next()),
                literal => name.push(literal),
            }
        }
        Some(name)
    }

    /// Its length in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    /// Whether it matches every name.
    #[must_use]
    pub fn matches_all(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|&byte| byte == b'*')
    }

    /// Whether it matches the whole name.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        let (mut pattern, mut rest) = (&*self.0, name);
        // What follows the last `*`, and the part of the name where it was tried last.
        let mut retry = None;
        loop {
            let next = match (pattern, rest) {
                ([b'*', behind @ ..], _) => {
                    retry = Some((behind, rest));
                    Some((behind, rest))
                }
                ([], []) => return true,
                ([b'?', behind @ ..], [_, others @ ..]) => Some((behind, others)),
                ([b'\\', escaped, behind @ ..], [byte, others @ ..]) if escaped == byte => {
                    Some((behind, others))
                }
                ([b'\\', ..], _) => None,
                ([literal, behind @ ..], [byte, others @ ..]) if literal == byte => {
                    Some((behind, others))
                }
                _ => None,
            };
            (pattern, rest) = match (next, retry) {
                (Some(next), _) => next,
                (None, Some((behind, [_, others @ ..]))) => {
                    retry = Some((behind, others));
                    (behind, others)
                }
                (None, _) => return false,
            };
        }
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_matches_the_whole_name() {
        for (pattern, name, matches) in [
            ("resize", "resize", true),
            ("resize", "resize2", false),
            ("resize", "", false),
            ("", "", true),
            ("", "x", false),
            ("*", "", true),
            ("*", "anything\n\0", true),
            ("mail-*", "mail-", true),
            ("mail-*", "mail", false),
            ("*-*", "a-b-c", true),
            ("*ab", "aab", true),
            ("*ab", "aba", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxcyyb", false),
            ("?", "", false),
            ("?", "x", true),
            ("f?", "f1", true),
            ("f?", "f12", false),
            ("*?", "", false),
            (r"\*", "*", true),
            (r"\*", "x", false),
            (r"\\", r"\", true),
            (r"a\?*", "a?b", true),
            (r"a\?*", "axb", false),
            (r"*\*", "xx*", true),
            (r"\x", "x", true),
            (r"\x", r"\x", false),
        ] {
            let glob = Glob::new(pattern).unwrap();
            assert_eq!(glob.matches(name.as_bytes()), matches, "{pattern:?} and {name:?}");
        }
        assert!(Glob::new("?").unwrap().matches(b"\xff"), "a byte, not a character");
    }

    #[test]
    fn a_pattern_without_wildcards_matches_one_name() {
        for (pattern, name) in [
            ("resize", Some("resize")),
            (r"a\*\\", Some(r"a*\")),
            ("", Some("")),
            ("a*", None),
            (r"\??", None),
        ] {
            let only = Glob::new(pattern).unwrap().only_name();
            assert_eq!(only.as_deref(), name.map(str::as_bytes), "{pattern:?}");
            let again = Glob::exactly(pattern.as_bytes());
            assert_eq!(again.only_name().as_deref(), Some(pattern.as_bytes()));
            assert!(again.matches(pattern.as_bytes()));
        }
        assert!(Glob::of_bytes(b"\xff*").unwrap().matches(b"\xffx"));
    }

    #[test]
    fn an_escape_escapes_something() {
        assert_eq!(Glob::new(r"a\"), Err(LooseEscape));
        assert_eq!(Glob::new(r"a\\\"), Err(LooseEscape));
        assert!(Glob::new(r"a\\").is_ok());
        assert!(Glob::new("**").unwrap().matches_all() && !Glob::new("").unwrap().matches_all());
        assert!(!Glob::new("*?").unwrap().matches_all());
    }
}
