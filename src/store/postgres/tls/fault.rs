//! Why TLS to PostgreSQL failed, in a sentence with the remedy.
//!
//! Errors of the library in, faults out. Knows the words about TLS, to name files and modes.
//!
//! Invariant: an error that TLS has no part in is no fault, nor is a broken connection.

use std::error::Error as _;
use std::io;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error};
use tokio_postgres::error::SqlState;

use super::verifier::{is_first_version, is_marked_as_ca};
use super::{Mode, Roots, Tls};

/// The library's words for an answer to PostgreSQL's request for TLS that isn't "yes".
const NO_TLS: &str = "server does not support TLS";

/// A failure for which TLS is the reason.
#[derive(Debug)]
pub(in crate::store::postgres) enum Fault {
    /// The server has no TLS, and the mode asks for it.
    Absent(Mode),
    /// TLS didn't work: cause and remedy.
    Failed(String),
}

impl Fault {
    /// Cause and remedy.
    pub(in crate::store::postgres) fn sentence(self) -> String {
        match self {
            Self::Absent(mode) => format!(
                "the server has no TLS, which sslmode={} asks for; switch ssl on in its \
                 postgresql.conf, or write sslmode=prefer to do without",
                mode.name()
            ),
            Self::Failed(sentence) => sentence,
        }
    }
}

/// The fault behind an error of a connection that was to be encrypted.
pub(super) fn of(error: &tokio_postgres::Error, tls: &Tls) -> Option<Fault> {
    if let Some(said) = error.as_db_error() {
        if said.code() != &SqlState::INVALID_AUTHORIZATION_SPECIFICATION {
            return None;
        }
        // PostgreSQL has one code for all that its pg_hba.conf refuses.
        let remedy = of_identity(said.message(), tls)?;
        return Some(Fault::Failed(format!("{}; {remedy}", said.message())));
    }
    let cause = error.source()?;
    let cause_io = cause.downcast_ref::<io::Error>();
    let inner = cause_io.and_then(io::Error::get_ref);
    if let Some(error) = inner.and_then(|inner| inner.downcast_ref::<Error>()) {
        return Some(Fault::Failed(sentence(error, tls)));
    }
    (cause.to_string() == NO_TLS).then_some(Fault::Absent(tls.mode))
}

/// What to do if PostgreSQL's refusal is about the client's certificate.
fn of_identity(said: &str, tls: &Tls) -> Option<String> {
    if !said.contains("certificate") {
        return None;
    }
    Some(match &tls.identity {
        None => "name a certificate in sslcert and its key in sslkey that the CA in the server's \
                 ssl_ca_file has issued"
            .to_owned(),
        Some(identity) => format!(
            "see that the common name in {} (sslcert) is the database user's, or map it in the \
             server's pg_ident.conf",
            identity.certificate.display()
        ),
    })
}

fn sentence(error: &Error, tls: &Tls) -> String {
    match error {
        error if is_first_version(error) => "the server's certificate is of X.509 version 1; have \
                                             it issued as version 3, with a subjectAltName: \
                                             openssl x509 -req needs -extfile for that"
            .to_owned(),
        error if is_marked_as_ca(error) => format!(
            "the server's certificate is marked as a CA's and isn't in {}; put it there if it is \
             self-signed, or have one issued for the server",
            roots(tls)
        ),
        Error::InvalidCertificate(error) => of_certificate(error, tls),
        Error::AlertReceived(alert) => of_alert(*alert, tls),
        Error::InvalidCertRevocationList(error) => format!(
            "the revocation list in sslcrl can't be used: {error:?}; get the CA's list \
             anew"
        ),
        Error::PeerIncompatible(_) => format!(
            "there is no TLS that the server and ringgeard both know: {error}; let the server do \
             TLS 1.2 or 1.3 (ssl_max_protocol_version, ssl_ciphers)"
        ),
        error => format!(
            "the TLS handshake failed: {error}; see the server's log, and that PostgreSQL is what \
             answers there"
        ),
    }
}

fn of_certificate(error: &CertificateError, tls: &Tls) -> String {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
            "the server's certificate was issued by none of {}; name the file with its CA's \
             certificate in sslrootcert, or have the server send the certificates between",
            roots(tls)
        ),
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "the server's certificate is for {}, not for {}; connect by a name that it has, or \
             have it issued with this name as a subjectAltName",
            names(presented),
            expected.to_str()
        ),
        CertificateError::ExpiredContext { time, not_after } => format!(
            "the server's certificate expired {} ago; renew it there, or set this host's clock",
            days(*not_after, *time)
        ),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "the server's certificate is valid only in {}; set this host's clock, or have it \
             issued anew",
            days(*time, *not_before)
        ),
        CertificateError::Revoked => "the server's certificate is revoked, says the list in \
                                      sslcrl; give the server another one"
            .to_owned(),
        CertificateError::UnknownRevocationStatus => {
            "sslcrl has no list of the CA that issued the \
                                                      server's certificate; add it to the file"
                .to_owned()
        }
        CertificateError::ExpiredRevocationListContext { time, next_update } => format!(
            "a list in sslcrl should have been renewed {} ago; get it from the CA anew",
            days(*next_update, *time)
        ),
        error => format!(
            "the server's certificate can't be accepted: {error}; have it issued anew, for a \
             server, as X.509 version 3"
        ),
    }
}

/// The certificates that may vouch for the server's.
fn roots(tls: &Tls) -> String {
    match &tls.roots {
        Some(Roots::File(path)) => format!("{} (sslrootcert)", path.display()),
        Some(Roots::System) | None => "the operating system's CAs".to_owned(),
    }
}

/// The names of a certificate, which the library shows as in `DnsName("localhost")`.
fn names(presented: &[String]) -> String {
    let bare = |name: &String| {
        let name = name.split_once('(').map_or(&**name, |(_, name)| name);
        name.trim_end_matches(')').trim_matches('"').to_owned()
    };
    match presented {
        [] => "no host at all".to_owned(),
        names => names.iter().map(bare).collect::<Vec<_>>().join(", "),
    }
}

fn days(from: UnixTime, to: UnixTime) -> String {
    let hours = to.as_secs().saturating_sub(from.as_secs()) / 3600;
    if hours < 48 { format!("{hours} hours") } else { format!("{} days", hours / 24) }
}

/// The server ended the handshake.
fn of_alert(alert: AlertDescription, tls: &Tls) -> String {
    let file = tls.identity.as_ref().map(|identity| identity.certificate.display());
    match (alert, file) {
        (
            AlertDescription::HandshakeFailure
            | AlertDescription::ProtocolVersion
            | AlertDescription::InsufficientSecurity
            | AlertDescription::InternalError
            | AlertDescription::NoApplicationProtocol,
            _,
        ) => format!(
            "the server gave the TLS handshake up: {alert:?}; see its log, and let it do TLS 1.2 \
             or 1.3 (ssl_max_protocol_version, ssl_ciphers)"
        ),
        (_, None) => format!(
            "the server asks for a client certificate: {alert:?}; name one in sslcert and its key \
             in sslkey that the CA in the server's ssl_ca_file has issued"
        ),
        (_, Some(file)) => format!(
            "the server refuses the client certificate in {file} (sslcert): {alert:?}; name one \
             that is still valid and that the CA in the server's ssl_ca_file has issued"
        ),
    }
}
