//! Why a TLS connection failed: errors of the library in, a reason, a remedy and a result to count
//! out.
//!
//! The words are for the operator's log; the peer gets the alert that TLS has for it. Knows no
//! connection.
//!
//! Invariant: every fault has a reason and a remedy.

use rustls::{AlertDescription, CertificateError, Error};

use super::verifier;

/// How a handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeResult {
    /// With an exchange of keys and certificates.
    Full,
    /// With a session of an earlier connection.
    Resumed,
    /// It took too long.
    Timeout,
    /// The peer spoke without TLS.
    PlainBytes,
    /// The peer has shown no certificate, and had to.
    NoCertificate,
    /// The peer's certificate was refused.
    BadCertificate,
    /// The peer did something else that TLS doesn't allow, or refused itself.
    Protocol,
}

impl HandshakeResult {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Full,
        Self::Resumed,
        Self::Timeout,
        Self::PlainBytes,
        Self::NoCertificate,
        Self::BadCertificate,
        Self::Protocol,
    ];

    /// What counters call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
            Self::Timeout => "timeout",
            Self::PlainBytes => "plain_bytes",
            Self::NoCertificate => "no_certificate",
            Self::BadCertificate => "bad_certificate",
            Self::Protocol => "protocol",
        }
    }
}

/// Why a connection failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; {remedy}")]
pub struct TlsFault {
    /// For the counter.
    pub result: HandshakeResult,
    /// What happened.
    pub reason: String,
    /// What helps.
    pub remedy: &'static str,
    /// The subject of the certificate that was refused.
    pub subject: Option<String>,
}

/// What helps against most of what peers do wrong.
const LOOK_AT_THE_PEER: &str = "look whether the program at that address speaks TLS 1.2 or 1.3";

impl TlsFault {
    /// The handshake wasn't finished in time.
    #[must_use]
    pub fn timeout() -> Self {
        Self::new(
            HandshakeResult::Timeout,
            "the handshake took too long",
            "if the peer is only slow, raise --ssl-handshake-timeout",
        )
    }

    /// The peer sends on and on before its handshake is finished.
    pub(super) fn too_long() -> Self {
        let reason = "the peer has sent too much before the end of its handshake";
        Self::new(HandshakeResult::Protocol, reason, LOOK_AT_THE_PEER)
    }

    /// The peer spoke without TLS.
    #[must_use]
    pub fn plain_bytes() -> Self {
        Self::new(
            HandshakeResult::PlainBytes,
            "the peer speaks without TLS",
            "switch TLS on in that client; Debian's libgearman has none, whatever its options say",
        )
    }

    /// The peer speaks TLS, where the server doesn't.
    #[must_use]
    pub fn unexpected() -> Self {
        Self::new(
            HandshakeResult::Protocol,
            "the peer speaks TLS to a listener without",
            "give that client http:// in place of https://, or the listener tls: in front",
        )
    }

    /// An open connection's certificate, or that of the session which is resumed, is accepted no
    /// more.
    #[must_use]
    pub(super) fn of_certificate(error: &Error, subject: Option<String>) -> Self {
        Self { subject, ..Self::of(error) }
    }

    /// By the library's error, in the thread that it came in.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        let subject = verifier::take_refused();
        let fault = match error {
            Error::NoCertificatesPresented => Self::new(
                HandshakeResult::NoCertificate,
                "the client has shown no certificate",
                "give that client a certificate, or have --ssl-client-certificates say optional",
            ),
            Error::InvalidCertificate(cause) => {
                let (reason, remedy) = of_client_certificate(cause);
                Self { result: HandshakeResult::BadCertificate, reason, remedy, subject: None }
            }
            Error::AlertReceived(alert) => {
                let (reason, remedy) = of_alert(*alert);
                Self { result: HandshakeResult::Protocol, reason, remedy, subject: None }
            }
            Error::PeerIncompatible(_) => Self::new(
                HandshakeResult::Protocol,
                "the peer knows neither TLS 1.2 nor 1.3, or no cipher that the server knows",
                "let that client use TLS 1.2 or 1.3",
            ),
            error => Self::new(
                HandshakeResult::Protocol,
                &format!("the peer's bytes are refused: {error}"),
                LOOK_AT_THE_PEER,
            ),
        };
        Self { subject, ..fault }
    }

    fn new(result: HandshakeResult, reason: &str, remedy: &'static str) -> Self {
        Self { result, reason: reason.to_owned(), remedy, subject: None }
    }
}

/// Reason and remedy where the server refuses the client's certificate.
fn of_client_certificate(error: &CertificateError) -> (String, &'static str) {
    use CertificateError as C;
    const REISSUE: &str = "reissue it";
    let named = |text: &str| format!("client certificate {text}");
    match error {
        C::ExpiredContext { not_after, .. } => {
            (named(&format!("expired {}", date(not_after.as_secs()))), REISSUE)
        }
        C::Expired => (named("expired"), REISSUE),
        C::NotValidYetContext { not_before, .. } => {
            let reason = named(&format!("isn't valid before {}", date(not_before.as_secs())));
            (reason, "wait until then, or set the clocks of both hosts")
        }
        C::NotValidYet => {
            (named("isn't valid yet"), "wait until it is, or set the clocks of both hosts")
        }
        C::Revoked => (named("is revoked"), "issue another one for another key"),
        C::UnknownIssuer | C::BadSignature => (
            named("is of an authority that isn't in --ssl-ca-file"),
            "sign it with that authority, or add its own to the file",
        ),
        C::UnknownRevocationStatus => (
            named("can't be looked up: no list of --ssl-crl-file is its authority's"),
            "name that authority's list with --ssl-crl-file, too",
        ),
        C::ExpiredRevocationListContext { next_update, .. } => (
            format!("the revocation list expired {}", date(next_update.as_secs())),
            "put the authority's new list at --ssl-crl-file and send SIGHUP",
        ),
        C::ExpiredRevocationList => (
            "the revocation list expired".to_owned(),
            "put the authority's new list at --ssl-crl-file and send SIGHUP",
        ),
        C::InvalidPurpose | C::InvalidPurposeContext { .. } => (
            named("isn't for clients"),
            "reissue it with extendedKeyUsage=clientAuth, or without extendedKeyUsage",
        ),
        // The library has no case of its own for it.
        C::Other(other) if other.0.to_string() == "UnsupportedCertVersion" => (
            named("is of X.509 version 1, which openssl x509 -req makes"),
            "reissue it with extensions, as docs/security.md shows",
        ),
        error => (named(&format!("is refused: {error}")), REISSUE),
    }
}

/// Reason and remedy where the client refuses.
fn of_alert(alert: AlertDescription) -> (String, &'static str) {
    use AlertDescription as A;
    let name = format!("{alert:?}");
    match alert {
        A::UnknownCA
        | A::BadCertificate
        | A::CertificateUnknown
        | A::UnsupportedCertificate
        | A::CertificateExpired
        | A::CertificateRevoked
        | A::AccessDenied => (
            format!("the client refuses the server's certificate: {name}"),
            "give that client the authority's certificate, and have it use a name that the \
             server's certificate has",
        ),
        A::ProtocolVersion | A::HandshakeFailure | A::InsufficientSecurity => (
            format!("the client can't agree on a version or a cipher: {name}"),
            "let that client use TLS 1.2 or 1.3",
        ),
        A::CloseNotify | A::UserCanceled => {
            (format!("the client broke the handshake off: {name}"), LOOK_AT_THE_PEER)
        }
        _ => (format!("the client refuses: {name}"), LOOK_AT_THE_PEER),
    }
}

/// A day, as `2026-11-29`, of seconds since 1970.
pub(super) fn date(unix_s: u64) -> String {
    let unix_s = i64::try_from(unix_s).unwrap_or(i64::MAX);
    x509_parser::time::ASN1Time::from_timestamp(unix_s).map_or_else(
        |_| unix_s.to_string(),
        |time| {
            let time = time.to_datetime();
            format!("{:04}-{:02}-{:02}", time.year(), u8::from(time.month()), time.day())
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_written_as_days() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(1_796_000_000), "2026-11-30");
    }
}
