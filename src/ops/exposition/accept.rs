//! What a client takes: the headers Accept and Accept-Encoding in, a format and a coding out.
//!
//! By RFC 9110, 12.5: the most specific range counts, then the highest quality. Knows no metric.
//!
//! Invariant: nothing is chosen that has the quality 0.

use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, ACCEPT_ENCODING, AsHeaderName};

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The server's preference first.
    const ALL: [Self; 2] = [Self::Text, Self::OpenMetrics];

    /// Type, subtype and version.
    fn media_type(self) -> [&'static str; 3] {
        match self {
            Self::Text => ["text", "plain", "0.0.4"],
            Self::OpenMetrics => ["application", "openmetrics-text", "1.0.0"],
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The format that a client likes best; `None` if it takes none.
    pub(super) fn accepted(headers: &HeaderMap) -> Option<Self> {
        let ranges = elements(headers, ACCEPT);
        if ranges.is_empty() {
            return Some(Self::Text);
        }
        best(Self::ALL, |format| {
            let matching = ranges.iter().filter_map(|it| Some((format.matches(it)?, it.quality)));
            // The highest of those that are equally specific.
            matching.max().map_or(0, |(_, quality)| quality)
        })
    }

    /// How specific a range is that this format is in; `None` if it isn't.
    fn matches(self, range: &Element) -> Option<u8> {
        let [kind, subtype, version] = self.media_type();
        match range.value.split_once('/')? {
            ("*", "*") => Some(0),
            (it, "*") if it == kind => Some(1),
            found if found == (kind, subtype) => match &range.version {
                None => Some(2),
                Some(wanted) => (wanted == version).then_some(3),
            },
            _ => None,
        }
    }
}

/// How an answer is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// Compressed by gzip.
    Gzip,
    /// As it is.
    Identity,
}

impl Coding {
    /// The coding that a client likes best; `None` if it takes none.
    pub(super) fn accepted(headers: &HeaderMap) -> Option<Self> {
        let codings = elements(headers, ACCEPT_ENCODING);
        let of = |names: &[&str]| {
            let named = codings.iter().filter(|it| names.contains(&it.value.as_str()));
            named.map(|it| it.quality).max()
        };
        let gzip = of(&["gzip", "x-gzip"]).or_else(|| of(&["*"])).unwrap_or(0);
        // What isn't mentioned may be left as it is, but what is asked for comes first.
        let identity = of(&["identity"]).unwrap_or_else(|| u16::from(of(&["*"]) != Some(0)));
        best([Self::Gzip, Self::Identity], |coding| match coding {
            Self::Gzip => gzip,
            Self::Identity => identity,
        })
    }
}

/// The first of `all` with the highest quality.
fn best<T: Copy, const N: usize>(all: [T; N], quality: impl Fn(T) -> u16) -> Option<T> {
    let wanted = all.into_iter().filter(|&it| quality(it) > 0);
    // The last of equals is the greatest.
    wanted.rev().max_by_key(|&it| quality(it))
}

/// An element of a list, in lower case.
#[derive(Debug)]
struct Element {
    value: String,
    version: Option<String>,
    /// In thousandths.
    quality: u16,
}

/// The elements of a list, which may be in several headers; those whose quality makes no sense are
/// left out.
fn elements(headers: &HeaderMap, name: impl AsHeaderName) -> Vec<Element> {
    let lists = headers.get_all(name).into_iter().filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).filter_map(element).collect()
}

fn element(text: &str) -> Option<Element> {
    let mut parts = text.split(';').map(|part| part.trim().to_ascii_lowercase());
    let value = parts.next().filter(|value| !value.is_empty())?;
    let mut element = Element { value, version: None, quality: 1000 };
    for part in parts {
        let Some((name, value)) = part.split_once('=') else { continue };
        match name.trim_end() {
            "q" => element.quality = thousandths(value.trim_start())?,
            "version" => element.version = Some(value.trim_start().trim_matches('"').to_owned()),
            _ => {}
        }
    }
    Some(element)
}

/// A quality; `None` if it makes no sense.
fn thousandths(text: &str) -> Option<u16> {
    let quality: f32 = text.parse().ok().filter(|it| (0.0..=1.0).contains(it))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 1000")]
    Some((quality * 1000.0).round() as u16)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(name: HeaderName, values: &[&str]) -> HeaderMap {
        let values = values.iter().map(|value| HeaderValue::from_str(value).expect("a value"));
        values.map(|value| (name.clone(), value)).collect()
    }

    #[test]
    fn the_format_that_is_liked_best() {
        use Format::{OpenMetrics, Text};
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let table: &[(&[&str], Option<Format>)] = &[
            (&[], Some(Text)),
            (&[""], Some(Text)),
            (&["*/*"], Some(Text)),
            (&["text/*"], Some(Text)),
            (&["application/*"], Some(OpenMetrics)),
            (&["text/plain"], Some(Text)),
            (&["application/openmetrics-text"], Some(OpenMetrics)),
            (&["Application/OpenMetrics-Text; Version=1.0.0"], Some(OpenMetrics)),
            (&["application/openmetrics-text; version=\"1.0.0\""], Some(OpenMetrics)),
            (&[prometheus], Some(OpenMetrics)),
            (&["application/openmetrics-text;version=0.0.1,text/plain;version=0.0.4;q=0.5"], {
                Some(Text)
            }),
            (&["application/openmetrics-text;q=0.5", "text/plain;q=0.6"], Some(Text)),
            (&["application/openmetrics-text;q=0.6", "text/plain;q=0.5"], Some(OpenMetrics)),
            (&["text/plain, application/openmetrics-text"], Some(Text)),
            (&["text/plain;q=0, */*"], Some(OpenMetrics)),
            (&["*/*;q=1, text/plain;q=0.1, application/openmetrics-text;q=0"], Some(Text)),
            (&["*/*;q=0"], None),
            (&["text/plain;q=0"], None),
            (&["text/plain;q=0.000, application/openmetrics-text;q=0"], None),
            (&["application/json"], None),
            (&["text/plain;q=2"], Some(Text)),
        ];
        for &(accept, format) in table {
            assert_eq!(Format::accepted(&headers(ACCEPT, accept)), format, "{accept:?}");
        }
    }

    #[test]
    fn the_coding_that_is_liked_best() {
        use Coding::{Gzip, Identity};
        let table: &[(&[&str], Option<Coding>)] = &[
            (&[], Some(Identity)),
            (&[""], Some(Identity)),
            (&["gzip"], Some(Gzip)),
            (&["X-GZIP"], Some(Gzip)),
            (&["deflate, gzip;q=0.3, br"], Some(Gzip)),
            (&["*"], Some(Gzip)),
            (&["br"], Some(Identity)),
            (&["gzip;q=0"], Some(Identity)),
            (&["gzip;q=0, *"], Some(Identity)),
            (&["gzip;q=0.5, identity"], Some(Identity)),
            (&["gzip;q=0.5", "identity;q=0.4"], Some(Gzip)),
            (&["identity;q=0"], None),
            (&["gzip, identity;q=0"], Some(Gzip)),
            (&["*;q=0"], None),
            (&["identity, *;q=0"], Some(Identity)),
        ];
        for &(accept, coding) in table {
            assert_eq!(Coding::accepted(&headers(ACCEPT_ENCODING, accept)), coding, "{accept:?}");
        }
    }
}
