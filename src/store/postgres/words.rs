//! Takes the words about TLS, which the library doesn't know, out of a connection string.
//!
//! A connection string in; the string without these words, and their values, out. Both of libpq's
//! forms are known: `key=value` words and addresses. Knows no meaning of a word.
//!
//! Invariant: all other words stay as they are, and so does text that can't be read, which the
//! library reports.

use percent_encoding::percent_decode_str;

/// Words that are taken out.
const KEYS: [&str; 5] = ["sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl"];

/// A connection string in two parts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    /// The string without the words about TLS.
    pub(super) rest: String,
    tls: Vec<(&'static str, String)>,
}

impl Words {
    /// Takes the words about TLS out of `conninfo`.
    pub(super) fn read(conninfo: &str) -> Self {
        let is_address = ["postgres://", "postgresql://"].iter().any(|it| conninfo.starts_with(it));
        if is_address { Self::of_address(conninfo) } else { Self::of_pairs(conninfo) }
    }

    /// The value of a word; `None` if it is missing or empty. As in libpq, the last value counts.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let value = self.tls.iter().rev().find(|(found, _)| *found == key).map(|(_, value)| value);
        value.map(String::as_str).filter(|value| !value.is_empty())
    }

    fn of_address(conninfo: &str) -> Self {
        // The library takes all text before the first @ for user and password.
        let authority = conninfo.find('@').unwrap_or_default();
        let Some(query) = conninfo[authority..].find('?').map(|at| authority + at) else {
            return Self { rest: conninfo.to_owned(), tls: Vec::new() };
        };
        let mut words = Self { rest: conninfo[..query].to_owned(), tls: Vec::new() };
        let mut separator = '?';
        for pair in conninfo[query + 1..].split('&') {
            if let Some((key, value)) = pair.split_once('=')
                && let Some(key) = known(key)
            {
                words.tls.push((key, percent_decode_str(value).decode_utf8_lossy().into_owned()));
            } else {
                words.rest.push(separator);
                words.rest.push_str(pair);
                separator = '&';
            }
        }
        words
    }

    fn of_pairs(conninfo: &str) -> Self {
        let mut words = Self::default();
        let mut text = conninfo;
        while let Some((key, value, rest)) = pair(text) {
            match known(key) {
                Some(key) => words.tls.push((key, value)),
                None => words.rest.push_str(&text[..text.len() - rest.len()]),
            }
            text = rest;
        }
        words.rest.push_str(text);
        words
    }
}

fn known(key: &str) -> Option<&'static str> {
    KEYS.into_iter().find(|known| *known == key)
}

/// Key and value of the first word, and the text behind it.
fn pair(text: &str) -> Option<(&str, String, &str)> {
    let text = text.trim_start();
    let (key, rest) = text.split_at(text.find(|c: char| c == '=' || c.is_whitespace())?);
    let rest = rest.trim_start().strip_prefix('=')?.trim_start();
    let (is_quoted, rest) = rest.strip_prefix('\'').map_or((false, rest), |rest| (true, rest));
    let mut value = String::new();
    let mut characters = rest.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\'' if is_quoted => return Some((key, value, &rest[at + 1..])),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            blank if !is_quoted && blank.is_whitespace() => return Some((key, value, &rest[at..])),
            other => value.push(other),
        }
    }
    (!is_quoted).then_some((key, value, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_about_tls_are_taken_out_of_both_forms() {
        for (conninfo, rest) in [
            ("host=a sslmode=require sslrootcert='/a b/\\'ca' dbname=x", "host=a dbname=x"),
            ("sslrootcert=/a\\ b/\\'ca  sslmode = require", ""),
            ("user='sslmode=x' sslrootcert='/a b/\\'ca' sslmode=require", "user='sslmode=x'"),
            (
                "postgres://u:p?@h/x?sslmode=require&user=y&sslrootcert=/a%20b/'ca",
                "postgres://u:p?@h/x?user=y",
            ),
            ("postgresql:///x?sslrootcert=/a%20b/%27ca&sslmode=require", "postgresql:///x"),
        ] {
            let words = Words::read(conninfo);
            assert_eq!(words.rest, rest, "{conninfo}");
            assert_eq!(words.get("sslmode"), Some("require"), "{conninfo}");
            assert_eq!(words.get("sslrootcert"), Some("/a b/'ca"), "{conninfo}");
            assert_eq!(words.get("sslkey"), None, "{conninfo}");
        }
    }

    #[test]
    fn the_last_value_counts_and_an_empty_value_is_none() {
        let words = Words::read("sslmode=disable sslmode=require sslcert=a sslcert='' host=b");
        assert_eq!(words.rest, " host=b");
        assert_eq!((words.get("sslmode"), words.get("sslcert")), (Some("require"), None));
    }

    #[test]
    fn text_without_such_words_stays_as_it_is() {
        for conninfo in [
            "",
            "nonsense",
            "host=a  user='it''s",
            "host",
            "host=a sslsni=1 = b",
            "postgres://",
            "postgres://u@h/x?a&b=c&",
            "postgres://u@h?",
        ] {
            let words = Words::read(conninfo);
            assert_eq!(words, Words { rest: conninfo.to_owned(), tls: Vec::new() });
        }
    }
}
