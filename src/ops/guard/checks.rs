//! Which requests are handled: those that are meant for this server, and changes that no page of
//! another site has sent; and what all answers say.
//!
//! Heads of requests in, errors out. A page elsewhere can have an operator's browser send requests
//! here, also by a name of its own that leads to this host; it can neither choose the Host header
//! nor add a header that this server hasn't allowed. Knows no endpoint and no peer.
//!
//! Invariant: each answer has the headers of `finish`.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::permit::{PERMITS, Permit};
use crate::ops::app::App;
use crate::ops::error::ApiError;
use crate::ops::listen::activity::Activity;

/// The header that changes need: browsers send it for pages of this server alone.
const OWN: HeaderName = HeaderName::from_static("x-ringgear");
/// What browsers say of the page that sends a request.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Endpoints that are never refused for load.
const HEALTH: [&str; 2] = ["/healthz", "/readyz"];

/// Decides about a request whose path and method are known, and has it handled.
pub(in crate::ops) async fn admit(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    let hosts = &app.settings().hosts;
    let checked = check_host(request.uri(), request.headers(), hosts)
        .and_then(|()| check_site(request.method(), request.headers()));
    if let Err(error) = checked {
        return error.into_response();
    }
    if HEALTH.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let connection = request.extensions().get::<Arc<Activity>>().cloned();
    let Some(permit) = Permit::take(app.permits(), connection) else {
        return busy().into_response();
    };
    request.extensions_mut().insert(permit.clone());
    let response = next.run(request).await;
    permit.give_back();
    response
}

/// As many requests are at work as may.
pub(in crate::ops) fn busy() -> ApiError {
    let message = format!("{PERMITS} requests are at work, which is the most");
    let (status, remedy) = (StatusCode::SERVICE_UNAVAILABLE, "try again later");
    ApiError::new(status, "BUSY", message, remedy).retry_after(1)
}

/// Refuses requests for other hosts.
fn check_host(uri: &Uri, headers: &HeaderMap, hosts: &[String]) -> Result<(), ApiError> {
    let mut given = headers.get_all(HOST).iter();
    let (Some(host), None) = (given.next(), given.next()) else {
        let message = "a request has one Host header";
        let remedy = "send Host once, as HTTP/1.1 asks for";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "BAD_HOST", message, remedy));
    };
    let is_own = |host: &str| is_own(host, hosts);
    // What stands in the first line counts as well.
    let in_line = uri.authority().map(|authority| authority.as_str());
    if host.to_str().is_ok_and(is_own) && in_line.is_none_or(is_own) {
        return Ok(());
    }
    let message = "the Host header names another host";
    let remedy = "ask by address, or let the server know the name with --http-host";
    Err(ApiError::new(StatusCode::MISDIRECTED_REQUEST, "MISDIRECTED", message, remedy))
}

/// Whether a host, perhaps with a port, is an address, localhost or one of `hosts`.
fn is_own(host: &str, hosts: &[String]) -> bool {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, rest)) = rest.split_once(']') else { return false };
        let has_end = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
        return has_end && address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    is_port(port)
        && (name.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || hosts.iter().any(|own| own.eq_ignore_ascii_case(name)))
}

/// Refuses changes that a page of another site may have sent.
fn check_site(method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let refuse = |message: &str, remedy: &str| {
        Err(ApiError::new(StatusCode::FORBIDDEN, "CROSS_SITE", message, remedy))
    };
    if headers.get(OWN).is_none_or(|value| value != "1") {
        return refuse("a change needs the header X-Ringgear", "send X-Ringgear: 1");
    }
    let mut sites = headers.get_all(FETCH_SITE).iter();
    if sites.all(|site| site == "same-origin" || site == "none") {
        return Ok(());
    }
    refuse("a page of another site has sent the request", "use this server's own page")
}

/// Adds what all answers say, and makes errors of the library's what all errors are.
pub(in crate::ops) async fn finish(request: Request, next: Next) -> Response {
    let connection = request.extensions().get::<Arc<Activity>>().cloned();
    let mut response = next.run(request).await;
    let is_json = |response: &Response| {
        response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json")
    };
    let status = response.status();
    if connection.is_some_and(|connection| connection.take_slow()) {
        response = slow().into_response();
    } else if status.is_client_error() && !is_json(&response) {
        response = as_api_error(response).await;
    }
    let headers = response.headers_mut();
    for (name, value) in [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

fn slow() -> ApiError {
    let message = "no byte of the body has come for too long";
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "SLOW_BODY", message, "send the body at once")
}

/// An error that an extractor of the library gave, with its headers.
async fn as_api_error(response: Response) -> Response {
    let (parts, body) = response.into_parts();
    let (code, remedy) = match parts.status {
        StatusCode::PAYLOAD_TOO_LARGE => ("TOO_LARGE", "send a shorter body"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            ("UNSUPPORTED_MEDIA_TYPE", "send Content-Type: application/json")
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            ("METHOD_NOT_ALLOWED", "use a method that the header Allow names")
        }
        _ => ("BAD_REQUEST", "see docs/http.md for the endpoints"),
    };
    let text = axum::body::to_bytes(body, 4096).await.unwrap_or_default();
    let message = match &text[..] {
        b"" => parts.status.canonical_reason().unwrap_or("the request is refused").to_owned(),
        text => String::from_utf8_lossy(text).into_owned(),
    };
    let json = serde_json::json!({
        "error": {"code": code, "message": message, "remedy": remedy}
    });
    let mut response = (parts.status, Json(json)).into_response();
    for (name, value) in &parts.headers {
        let is_of_body = name == CONTENT_TYPE || name == axum::http::header::CONTENT_LENGTH;
        if !is_of_body {
            response.headers_mut().append(name, value.clone());
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_addresses_localhost_and_names_that_are_allowed() {
        let hosts = ["Jobs.example.com".to_owned()];
        for (host, expected) in [
            ("127.0.0.1", true),
            ("127.0.0.1:4780", true),
            ("10.1.2.3:80", true),
            ("[::1]", true),
            ("[fd00::1]:4780", true),
            ("LocalHost:1", true),
            ("jobs.EXAMPLE.com:443", true),
            ("jobs.example.com", true),
            ("evil.example", false),
            ("jobs.example.com.evil.example", false),
            ("evil.example:127.0.0.1", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("[::1].evil.example", false),
            ("[evil.example]", false),
            ("[::1", false),
            ("::1", false),
            ("127.0.0.1:x", false),
            ("", false),
        ] {
            assert_eq!(is_own(host, &hosts), expected, "{host}");
        }
    }

    #[test]
    fn a_request_has_one_host() {
        let check = |uri: &str, given: &[&str]| {
            let mut headers = HeaderMap::new();
            for host in given {
                headers.append(HOST, host.parse().unwrap());
            }
            let result = check_host(&uri.parse().unwrap(), &headers, &[]);
            result.map_or_else(|error| error.into_response().status().as_u16(), |()| 200)
        };
        assert_eq!(check("/", &["127.0.0.1"]), 200);
        assert_eq!(check("/", &[]), 400);
        assert_eq!(check("/", &["127.0.0.1", "127.0.0.1"]), 400);
        assert_eq!(check("/", &["evil.example"]), 421);
        assert_eq!(check("http://127.0.0.1/", &["127.0.0.1"]), 200);
        assert_eq!(check("http://evil.example/", &["127.0.0.1"]), 421);
    }

    #[test]
    fn changes_come_from_no_other_site() {
        let check = |method: Method, given: &[(&str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in given {
                let name: HeaderName = name.parse().unwrap();
                headers.append(name, value.parse().unwrap());
            }
            check_site(&method, &headers).is_ok()
        };
        let own = ("x-ringgear", "1");
        assert!(check(Method::GET, &[("sec-fetch-site", "cross-site")]));
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            assert!(check(method.clone(), &[own]));
            assert!(check(method.clone(), &[own, ("sec-fetch-site", "same-origin")]));
            assert!(check(method.clone(), &[own, ("sec-fetch-site", "none")]));
            assert!(!check(method.clone(), &[]));
            assert!(!check(method.clone(), &[("x-ringgear", "0")]));
            for site in ["cross-site", "same-site", ""] {
                assert!(!check(method.clone(), &[own, ("sec-fetch-site", site)]), "{site}");
            }
        }
    }
}
