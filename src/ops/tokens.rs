//! Tokens of HTTP clients: a file's text in, the name of a token that a client shows out.
//!
//! The file has the SHA-256 of each token, so that reading it doesn't give the tokens away. Knows
//! no requests and no rules.
//!
//! Invariant: how long a look-up takes doesn't depend on how much of a token is right.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use foldhash::{HashSet, HashSetExt};

use crate::protocol::access::Fingerprint;

/// Most tokens of a file: each request looks at all of them.
const TOKENS_MAX: usize = 1000;
/// Longest name of a token, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// The tokens that clients may show.
#[derive(Default)]
pub struct Tokens(Vec<(Box<str>, Fingerprint)>);

/// A mistake in a file of tokens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}: {sentence}")]
pub struct TokenMistake {
    /// The line, from 1 on.
    pub line: usize,
    /// What is wrong and how to mend it, in one sentence.
    pub sentence: String,
}

/// Their names: nothing of the tokens goes to the log.
impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Tokens {
    /// Reads a file: lines with a name, a blank and the SHA-256 of a token in hexadecimal digits;
    /// `#` begins a comment. A name may have several tokens, so that they can be changed in turn.
    ///
    /// # Errors
    /// The first mistake.
    pub fn parse(text: &str) -> Result<Self, TokenMistake> {
        let (mut tokens, mut digests) = (Vec::new(), HashSet::new());
        for (at, line) in text.lines().enumerate() {
            let line = line.split_once('#').map_or(line, |(before, _)| before).trim();
            if line.is_empty() {
                continue;
            }
            let refuse = |sentence: String| TokenMistake { line: at + 1, sentence };
            let (name, digest) = entry(line).map_err(refuse)?;
            if !digests.insert(digest.0) {
                return Err(refuse(
                    "the token stands in an earlier line: leave one of them out".to_owned(),
                ));
            }
            if tokens.len() == TOKENS_MAX {
                return Err(refuse(format!(
                    "there are more than {TOKENS_MAX} tokens: remove some"
                )));
            }
            tokens.push((name.into(), digest));
        }
        Ok(Self(tokens))
    }

    /// The name of a token.
    #[must_use]
    pub fn name_of(&self, token: &[u8]) -> Option<&str> {
        let shown = digest(&SHA256, token);
        let is_shown =
            |digest: &Fingerprint| verify_slices_are_equal(&digest.0, shown.as_ref()).is_ok();
        // All are looked at, also behind the right one.
        let mut found = None;
        for (name, digest) in &self.0 {
            if is_shown(digest) {
                found = Some(&**name);
            }
        }
        found
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// The name and the digest of a line.
fn entry(line: &str) -> Result<(&str, Fingerprint), String> {
    let mut words = line.split_whitespace();
    let (Some(name), Some(digits), None) = (words.next(), words.next(), words.next()) else {
        return Err("a line has a name and the SHA-256 of a token, with a blank between them: \
                    printf %s TOKEN | sha256sum prints it"
            .to_owned());
    };
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("the name is longer than {NAME_BYTES_MAX} bytes: shorten it"));
    }
    // A sentence that repeats the word might give a token away.
    let digest = digits.parse().map_err(|_| {
        format!(
            "the word behind {name} is no SHA-256: write 64 hexadecimal digits, as \
             printf %s TOKEN | sha256sum prints them"
        )
    })?;
    Ok((name, digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of `abc`.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    /// Of nothing.
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_token_has_the_name_of_its_line() {
        let text = format!("# who may\n\nops {ABC} # since May\r\n\tdeploy\t{EMPTY}\n");
        let tokens = Tokens::parse(&text).unwrap();
        assert_eq!(tokens.count(), 2);
        assert_eq!(tokens.name_of(b"abc"), Some("ops"));
        assert_eq!(tokens.name_of(b""), Some("deploy"));
        for wrong in [&b"abd"[..], b"ABC", ABC.as_bytes(), b"ops"] {
            assert_eq!(tokens.name_of(wrong), None);
        }
        let upper = Tokens::parse(&format!("ops {}", ABC.to_uppercase())).unwrap();
        assert_eq!(upper.name_of(b"abc"), Some("ops"));
        assert_eq!(Tokens::parse("").unwrap().name_of(b"abc"), None);
    }

    #[test]
    fn mistakes_name_their_line_and_not_the_token() {
        let long = format!("{} {ABC}", "x".repeat(NAME_BYTES_MAX + 1));
        let many: String = (0..=TOKENS_MAX).map(|at| format!("n {at:064x}\n")).collect();
        for (text, start) in [
            ("ops", "1: a line has a name and the SHA-256 of a token"),
            ("\nops secret", "2: the word behind ops is no SHA-256: write 64 hexadecimal"),
            (&format!("ops {ABC} x"), "1: a line has a name and the SHA-256"),
            (&format!("a {ABC}\nb {ABC}"), "2: the token stands in an earlier line"),
            (&long, "1: the name is longer than 64 bytes: shorten it"),
            (&many, "1001: there are more than 1000 tokens: remove some"),
        ] {
            let mistake = Tokens::parse(text).unwrap_err().to_string();
            assert!(mistake.starts_with(start), "{mistake}");
            assert!(!mistake.contains("secret"), "{mistake}");
        }
    }
}
