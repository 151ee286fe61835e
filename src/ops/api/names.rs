//! Names as JSON: bytes in, text out where they are UTF-8, else `{"base64": "…"}`.
//!
//! Knows nothing of what the names are.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

/// A name, or other bytes that are text mostly.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name<'a>(pub(super) &'a [u8]);

impl Serialize for Name<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match str::from_utf8(self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("base64", &STANDARD.encode(self.0))?;
                map.end()
            }
        }
    }
}

/// Numbers by the names that they have in metrics.
#[derive(Clone, Copy, Debug)]
pub(super) struct Labelled<'a, T> {
    pub(super) names: &'a [(T, &'static str)],
    /// Null each where they aren't counted.
    pub(super) numbers: Option<&'a [u64]>,
}

impl<T> Serialize for Labelled<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let names = self.names.iter().map(|(_, name)| name).enumerate();
        let number = |at| self.numbers.and_then(|numbers| numbers.get(at));
        serializer.collect_map(names.map(|(at, name)| (name, number(at))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_keep_apart() {
        let json = |name: &[u8]| serde_json::to_string(&Name(name)).unwrap();
        assert_eq!(json(b"resize"), r#""resize""#);
        assert_eq!(json("größe".as_bytes()), r#""größe""#);
        assert_eq!(json(b"a\"b"), r#""a\"b""#);
        assert_eq!(json(b"a\xff"), r#"{"base64":"Yf8="}"#);
        assert_eq!(json(b""), r#""""#);
    }

    #[test]
    fn numbers_have_the_names_of_metrics() {
        let json = |numbers| {
            let labelled = Labelled { names: &[((), "fail"), ((), "lost")], numbers };
            serde_json::to_string(&labelled).unwrap()
        };
        assert_eq!(json(Some(&[1, 2])), r#"{"fail":1,"lost":2}"#);
        assert_eq!(json(None), r#"{"fail":null,"lost":null}"#);
    }
}
