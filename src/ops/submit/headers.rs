//! What a submission's headers ask for: headers in, `Wishes` out, or an error that names one.
//!
//! Knows no jobs and no cores.
//!
//! Invariant: a header that is understood is obeyed or refused; a preference may be ignored.

use std::time::Duration;

use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::engine::UNIQUE_BYTES_MAX;
use crate::ops::error::ApiError;
use crate::wire::Priority;

const PRIORITY: &str = "Ringgear-Priority";
const RUN_AT: &str = "Ringgear-Run-At";
const UNIQUE: &str = "Ringgear-Unique";
const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
const BATCH: &str = "Ringgear-Batch";
const PREFER: &str = "Prefer";
/// Longest time that a client may wait for its result.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// What a client asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    pub(super) priority: Option<Priority>,
    /// The unique key; empty = none.
    pub(super) unique: Vec<u8>,
    /// Earliest start in seconds since 1970.
    pub(super) run_at: Option<u64>,
    /// Whether it doesn't wait for the result.
    pub(super) is_background: bool,
    /// How long it waits at most, if it says so.
    pub(super) wait: Option<Duration>,
}

/// Reads the headers of a submission.
///
/// # Errors
/// `ApiError` that names the header.
pub(super) fn wishes(headers: &HeaderMap) -> Result<Wishes, ApiError> {
    check_encoding(headers)?;
    if headers.contains_key(BATCH) {
        return Err(bad_header(BATCH, "leave it out: a request submits one job"));
    }
    let priority = match single(headers, PRIORITY)? {
        None => None,
        Some(text) => Some(priority(text).ok_or_else(|| {
            bad_header(PRIORITY, "write high, normal or low, or leave it out for normal")
        })?),
    };
    let run_at = match single(headers, RUN_AT)? {
        None => None,
        Some(text) => Some(moment(text).ok_or_else(|| {
            bad_header(RUN_AT, "write seconds since 1970, or a time as in 2030-01-31T08:00:00Z")
        })?),
    };
    if run_at.is_some() && priority.is_some_and(|it| it != Priority::Normal) {
        let remedy = "leave it out: jobs with Ringgear-Run-At have the normal priority";
        return Err(bad_header(PRIORITY, remedy));
    }
    let (is_background, wait) = preferences(headers)?;
    Ok(Wishes { priority, unique: unique(headers)?, run_at, is_background, wait })
}

/// A body that is compressed would reach the worker as it is.
fn check_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    let is_plain = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(CONTENT_ENCODING).iter().all(is_plain) {
        return Ok(());
    }
    let error = ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "CONTENT_ENCODING",
        "the body has a content encoding, and a payload reaches its worker as it is",
        "send it without Content-Encoding; what is compressed for the worker needs no such header",
    );
    Err(error.with_header(ACCEPT_ENCODING, HeaderValue::from_static("identity")))
}

fn bad_header(name: &str, remedy: impl Into<String>) -> ApiError {
    let message = format!("the header {name} makes no sense");
    ApiError::new(StatusCode::BAD_REQUEST, "BAD_HEADER", message, remedy)
}

/// The value of a header that may be there once.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a [u8]>, ApiError> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().map(|value| value.as_bytes().trim_ascii());
    match values.next() {
        None => Ok(value),
        Some(_) => Err(bad_header(name, "send it once")),
    }
}

/// A priority by its name.
pub(in crate::ops) fn priority(name: &[u8]) -> Option<Priority> {
    let names: [(&[u8], Priority); 3] =
        [(b"high", Priority::High), (b"normal", Priority::Normal), (b"low", Priority::Low)];
    names.into_iter().find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, priority)| priority)
}

/// The unique key, of either header.
fn unique(headers: &HeaderMap) -> Result<Vec<u8>, ApiError> {
    let (ours, alias) = (single(headers, UNIQUE)?, single(headers, IDEMPOTENCY_KEY)?);
    if ours.is_some() && alias.is_some() && ours != alias {
        return Err(bad_header(IDEMPOTENCY_KEY, "leave it out, as Ringgear-Unique is there"));
    }
    let name = if ours.is_some() { UNIQUE } else { IDEMPOTENCY_KEY };
    checked_unique(name, ours.or(alias).unwrap_or_default())
}

/// A unique key that isn't too long.
pub(in crate::ops) fn checked_unique(name: &str, key: &[u8]) -> Result<Vec<u8>, ApiError> {
    if key.len() > UNIQUE_BYTES_MAX {
        let remedy = format!("shorten it to {UNIQUE_BYTES_MAX} bytes, by a hash for instance");
        return Err(bad_header(name, remedy));
    }
    Ok(key.to_vec())
}

/// Seconds since 1970, rounded up, so that no job starts early.
fn moment(text: &[u8]) -> Option<u64> {
    let text = str::from_utf8(text).ok()?;
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse::<i64>().ok()?.try_into().ok();
    }
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let started = i64::from(time.nanosecond() > 0);
    Some(u64::try_from(time.unix_timestamp() + started).unwrap_or(0))
}

/// What `Prefer` says of waiting: whether not at all, and how long at most. Of a preference that is
/// there several times the first counts.
fn preferences(headers: &HeaderMap) -> Result<(bool, Option<Duration>), ApiError> {
    let (mut is_background, mut wait) = (false, None);
    let values = headers.get_all(PREFER).iter();
    for preference in values.flat_map(|value| value.as_bytes().split(|&byte| byte == b',')) {
        let preference = preference.split(|&byte| byte == b';').next().unwrap_or_default();
        let mut parts = preference.splitn(2, |&byte| byte == b'=').map(<[u8]>::trim_ascii);
        let (name, value) = (parts.next().unwrap_or_default(), parts.next());
        if name.eq_ignore_ascii_case(b"respond-async") {
            is_background = true;
        } else if name.eq_ignore_ascii_case(b"wait") {
            let seconds = value.and_then(seconds).ok_or_else(|| {
                bad_header(PREFER, "write wait=SECONDS, from 0 to 3600, or respond-async")
            })?;
            wait = wait.or_else(|| Some(Duration::from_secs(seconds).min(WAIT_MAX)));
        }
    }
    Ok((is_background, wait))
}

/// A number, perhaps in quotes.
fn seconds(text: &[u8]) -> Option<u64> {
    let inner = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\""));
    let text = inner.unwrap_or(text);
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // Too many digits are more than any limit.
    Some(str::from_utf8(text).ok()?.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn read(lines: &[(&'static str, &str)]) -> Result<Wishes, ApiError> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::try_from(*name).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        wishes(&headers)
    }

    #[test]
    fn headers_say_what_is_submitted() {
        assert_eq!(read(&[]).unwrap(), Wishes::default());
        let high = read(&[(PRIORITY, "High")]).unwrap();
        assert_eq!(high.priority, Some(Priority::High));
        for name in [UNIQUE, IDEMPOTENCY_KEY] {
            assert_eq!(read(&[(name, "k 1")]).unwrap().unique, b"k 1");
        }
        assert_eq!(read(&[(UNIQUE, "k"), (IDEMPOTENCY_KEY, "k")]).unwrap().unique, b"k");
    }

    #[test]
    fn moments_are_seconds_or_rfc_3339() {
        let at = |text: &str| read(&[(RUN_AT, text)]).unwrap().run_at;
        assert_eq!(at("1900000000"), Some(1_900_000_000));
        assert_eq!(at("1970-01-01T00:01:00Z"), Some(60));
        assert_eq!(at("1970-01-01T02:01:00.5+02:00"), Some(61));
        assert_eq!(at("1960-01-01T00:00:00Z"), Some(0));
    }

    #[test]
    fn preferences_are_those_of_rfc_7240() {
        let of = |lines: &[(&'static str, &str)]| {
            let wishes = read(lines).unwrap();
            (wishes.is_background, wishes.wait.map(|wait| wait.as_secs()))
        };
        assert_eq!(of(&[(PREFER, "respond-async")]), (true, None));
        assert_eq!(of(&[(PREFER, "handling=lenient, WAIT = \"7\"; foo")]), (false, Some(7)));
        assert_eq!(of(&[(PREFER, "wait=5"), (PREFER, "wait=9, respond-async")]), (true, Some(5)));
        assert_eq!(of(&[(PREFER, "wait=99999999999999999999")]), (false, Some(3600)));
        assert_eq!(of(&[(PREFER, "return=minimal")]), (false, None));
    }

    #[test]
    fn headers_without_sense_are_named() {
        for lines in [
            &[(PRIORITY, "urgent")][..],
            &[(PRIORITY, "low"), (PRIORITY, "high")],
            &[(RUN_AT, "tomorrow")],
            &[(RUN_AT, "-5")],
            &[(RUN_AT, "9223372036854775808")],
            &[(RUN_AT, "")],
            &[(PRIORITY, "low"), (RUN_AT, "5")],
            &[(UNIQUE, "x23456789-x23456789-x23456789-x23456789-x23456789-x23456789-x2345")],
            &[(IDEMPOTENCY_KEY, "a"), (UNIQUE, "b")],
            &[(PREFER, "wait=soon")],
            &[(PREFER, "wait")],
            &[(PREFER, "wait=-1")],
            &[(BATCH, "1")],
        ] {
            let error = format!("{:?}", read(lines).unwrap_err());
            assert!(error.contains(lines[0].0) && error.contains("400"), "{error}");
        }
        let error = format!("{:?}", read(&[("content-encoding", "gzip")]).unwrap_err());
        assert!(error.contains("415"), "{error}");
        assert!(read(&[("content-encoding", "identity")]).is_ok());
    }
}
