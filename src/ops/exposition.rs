//! Numbers as text for Prometheus and others: families of numbers and a request's headers in, an
//! answer out, in the format and coding that the client takes.
//!
//! The encoder of the formats is a crate's. Knows no numbers but those of the process, and serves
//! `ringgear-manager`, too.
//!
//! Invariant: nothing is answered in a format or coding that the client refuses.

mod accept;
mod families;
mod process;

use std::fmt::{Debug, Error};
use std::io::Write;

use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::registry::Registry;

use self::accept::Coding;
pub use self::accept::Format;
pub use self::families::{Families, Histogram, Labels, PLAIN};
pub use self::process::ProcessNumbers;
use super::error::ApiError;

/// Numbers of one moment.
pub trait Numbers: Debug + Send + Sync + 'static {
    /// Writes all families.
    ///
    /// # Errors
    /// If what the families are written to fails, which a string doesn't.
    fn encode(&self, families: &mut Families<'_>) -> Result<(), Error>;
}

/// Numbers, and the format that they are told in.
#[derive(Debug)]
struct Told<N>(N, Format);

impl<N: Numbers> Collector for Told<N> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Self(numbers, format) = self;
        numbers.encode(&mut Families { encoder, format: *format })
    }
}

/// Numbers as text.
///
/// # Errors
/// If the numbers' `encode` fails.
pub fn text(numbers: impl Numbers, format: Format) -> Result<String, Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Told(numbers, format)));
    let mut out = String::new();
    match format {
        Format::Text => prometheus_text::encode(&mut out, &registry)?,
        Format::OpenMetrics => text::encode(&mut out, &registry)?,
    }
    Ok(out)
}

/// What a client takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Accepted(Format, Coding);

impl Accepted {
    /// What the headers of a request say.
    pub(super) fn by(headers: &HeaderMap) -> Result<Self, ApiError> {
        let format = Format::accepted(headers).ok_or_else(|| {
            not_acceptable(
                "text/plain; version=0.0.4 and application/openmetrics-text; version=1.0.0",
            )
        })?;
        let coding = Coding::accepted(headers)
            .ok_or_else(|| not_acceptable("the codings gzip and identity"))?;
        Ok(Self(format, coding))
    }

    /// The answer with these numbers.
    pub(super) fn answer(self, numbers: impl Numbers) -> Result<Response, ApiError> {
        let Self(format, coding) = self;
        let text = text(numbers, format).map_err(|_| unwritten())?;
        let mut response = match coding {
            Coding::Identity => text.into_response(),
            Coding::Gzip => {
                let zipped = gzip(text.as_bytes()).map_err(|_| unwritten())?;
                let mut response = zipped.into_response();
                response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                response
            }
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        Ok(response)
    }
}

/// The answer with these numbers to a request with these headers.
pub fn answer(headers: &HeaderMap, numbers: impl Numbers) -> Response {
    let answer = Accepted::by(headers).and_then(|accepted| accepted.answer(numbers));
    answer.unwrap_or_else(ApiError::into_response)
}

fn gzip(text: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text)?;
    encoder.finish()
}

fn not_acceptable(offer: &str) -> ApiError {
    let remedy = format!("there are {offer}; leave the header out to get the first");
    let message = "the request takes nothing that there is";
    ApiError::new(StatusCode::NOT_ACCEPTABLE, "NOT_ACCEPTABLE", message, remedy)
        .with_header(VARY, HeaderValue::from_static("Accept-Encoding"))
}

/// Strings take all that is written to them.
fn unwritten() -> ApiError {
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    ApiError::new(status, "INTERNAL", "the numbers could not be written", "report this")
}
