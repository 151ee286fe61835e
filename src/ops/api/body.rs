//! Bodies of requests that change something: JSON in, values out.
//!
//! Knows no endpoint.
//!
//! Invariant: a member that an endpoint doesn't know is refused and named.

use axum::body::{Body, to_bytes};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderMap};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Error as _};

use super::super::error::ApiError;

/// Largest body of a request that isn't a job.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Reads a body. `form` shows what it looks like. An empty one stands for `{}`.
///
/// # Errors
/// `ApiError` for what isn't JSON of that form, and for a body that is too large.
pub(super) async fn read<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    form: &str,
) -> Result<T, ApiError> {
    let kind = headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes());
    let essence = |kind: &[u8]| {
        let essence = kind.split(|&byte| byte == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
    };
    if !kind.is_none_or(essence) {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED_MEDIA_TYPE",
            "the body isn't JSON",
            format!("send application/json: {form}"),
        ));
    }
    let bytes = to_bytes(body, BODY_BYTES_MAX).await.map_err(|_| {
        ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "TOO_LARGE",
            format!("the body has more than {BODY_BYTES_MAX} bytes"),
            format!("send {form}"),
        )
    })?;
    let json = if bytes.is_empty() { b"{}" } else { &bytes[..] };
    serde_json::from_slice(json).map_err(|error| bad(&error.to_string(), &format!("send {form}")))
}

/// A body makes no sense.
pub(super) fn bad(why: &str, remedy: &str) -> ApiError {
    let message = format!("the body makes no sense: {why}");
    ApiError::new(StatusCode::BAD_REQUEST, "BAD_BODY", message, remedy)
}

/// Bytes as JSON has them: text, or `{"base64": "…"}`.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Written")]
pub(super) struct Bytes(pub(super) Vec<u8>);

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Base64 { base64: String },
}

impl TryFrom<Written> for Bytes {
    type Error = serde_json::Error;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        match written {
            Written::Text(text) => Ok(Self(text.into_bytes())),
            Written::Base64 { base64 } => {
                STANDARD.decode(base64).map(Self).map_err(Self::Error::custom)
            }
        }
    }
}
