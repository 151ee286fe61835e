//! What a request asks for: its path and its query in, names and values out.
//!
//! Names are percent-encoded bytes and need not be UTF-8. Knows no endpoint.
//!
//! Invariant: a parameter that an endpoint doesn't know, or that is there twice, is refused.

use axum::extract::FromRequestParts;
use axum::http::Uri;
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;

use super::super::error::ApiError;

/// Where the name is in a path, by segment: `/api/v1/functions/NAME`.
const NAME_AT: usize = 4;
/// Most rows of a list.
const LIMIT_MAX: usize = 1000;
/// Rows of a list unless the request says how many.
const LIMIT: usize = 100;

/// The function or handle that a path names.
#[derive(Debug)]
pub(super) struct Named(pub(super) Vec<u8>);

impl<S: Sync> FromRequestParts<S> for Named {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(Self(name_in(&parts.uri)))
    }
}

fn name_in(uri: &Uri) -> Vec<u8> {
    let segment = uri.path().split('/').nth(NAME_AT).unwrap_or_default();
    percent_decode_str(segment).collect()
}

/// The parameters of a query.
#[derive(Debug, Default)]
pub(super) struct Params(Vec<(String, Vec<u8>)>);

impl Params {
    /// The parameters of a query that may have these.
    ///
    /// # Errors
    /// `ApiError` for another one, and for one that is there twice.
    pub(super) fn of(uri: &Uri, known: &[&str]) -> Result<Self, ApiError> {
        let mut params: Vec<(String, Vec<u8>)> = Vec::new();
        let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        for pair in pairs {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = percent_decode_str(name).decode_utf8_lossy().into_owned();
            if !known.contains(&&*name) {
                let remedy = match known {
                    [] => "leave it out: there are none here".to_owned(),
                    known => format!("there are: {}", known.join(", ")),
                };
                return Err(ApiError::bad_parameter(&name, remedy));
            }
            if params.iter().any(|(other, _)| *other == name) {
                return Err(ApiError::bad_parameter(&name, "give it once"));
            }
            let value = value.replace('+', " ");
            params.push((name, percent_decode_str(&value).collect()));
        }
        Ok(Self(params))
    }

    /// The value of a parameter. One that is empty counts as given.
    pub(super) fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// The same as text.
    ///
    /// # Errors
    /// `ApiError` for what isn't UTF-8.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, ApiError> {
        let text = self.bytes(name).map(str::from_utf8).transpose();
        text.map_err(|_| ApiError::bad_parameter(name, "write it as UTF-8"))
    }

    /// The value of a parameter that has a few names.
    ///
    /// # Errors
    /// `ApiError` for any other value.
    pub(super) fn choice<T: Copy>(
        &self,
        name: &str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.bytes(name) else { return Ok(None) };
        let found = choices.iter().find(|(choice, _)| choice.as_bytes() == value);
        found.map(|&(_, choice)| Some(choice)).ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|&(name, _)| name).collect();
            ApiError::bad_parameter(name, format!("it is one of: {}", names.join(", ")))
        })
    }

    /// How many rows are wanted.
    ///
    /// # Errors
    /// `ApiError` for what is no number from 1 to 1000.
    pub(super) fn limit(&self) -> Result<usize, ApiError> {
        let bad = || ApiError::bad_parameter("limit", format!("a number from 1 to {LIMIT_MAX}"));
        let Some(text) = self.text("limit").map_err(|_| bad())? else { return Ok(LIMIT) };
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        let limit = text.parse().ok().filter(|limit| is_number && (1..=LIMIT_MAX).contains(limit));
        limit.ok_or_else(bad)
    }

    /// Whether rows come in descending order.
    ///
    /// # Errors
    /// `ApiError` for any other order.
    pub(super) fn is_descending(&self) -> Result<bool, ApiError> {
        Ok(self.choice("order", &[("asc", false), ("desc", true)])?.unwrap_or(false))
    }

    /// Whether a parameter that is 0 or 1 is 1.
    ///
    /// # Errors
    /// `ApiError` for any other value.
    pub(super) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        Ok(self.choice(name, &[("0", false), ("1", true)])?.unwrap_or(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bytes() {
        for (path, name) in [
            ("/api/v1/functions/resize", &b"resize"[..]),
            ("/api/v1/functions/a%2Fb/jobs", b"a/b"),
            ("/api/v1/functions/%ff%00+", b"\xff\0+"),
            ("/api/v1/functions/", b""),
            ("/api/v1/functions//jobs", b""),
            ("/api/v1/jobs/H:host:7?payload=1", b"H:host:7"),
        ] {
            assert_eq!(name_in(&path.parse().unwrap()), name, "{path}");
        }
    }

    fn params(query: &str) -> Result<Params, ApiError> {
        let uri = format!("/x?{query}").parse().unwrap();
        Params::of(&uri, &["function", "limit", "order"])
    }

    #[test]
    fn values_are_bytes_and_each_parameter_comes_once() {
        let found = params("function=a+b%2b%ff&limit=7&&order=desc").unwrap();
        assert_eq!(found.bytes("function"), Some(&b"a b+\xff"[..]));
        assert!(found.text("function").is_err());
        assert_eq!(found.limit().unwrap(), 7);
        assert!(found.is_descending().unwrap());
        assert_eq!(params("function").unwrap().bytes("function"), Some(&b""[..]));
        for query in ["func=x", "function=x&function=x"] {
            assert!(params(query).is_err(), "{query}");
        }
        for limit in ["", "0", "1001", "+7", "-1", "x", "99999999999999999999", "%ff"] {
            let found = params(&format!("limit={limit}")).unwrap();
            assert!(found.limit().is_err(), "{limit}");
        }
        assert!(params("order=up").unwrap().is_descending().is_err());
        assert_eq!(params("").unwrap().limit().unwrap(), LIMIT);
    }
}
