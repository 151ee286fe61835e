//! Why a TLS handshake failed, in a sentence with the remedy: the library's error in, words out.

use rustls::{AlertDescription, CertificateError, Error};

use crate::options::Options;

/// Cause and remedy, to stand behind the server's address.
pub(super) fn sentence(error: Option<&Error>, options: &Options) -> String {
    match error {
        None => "closed a connection in the middle of the TLS handshake: see that TLS is what \
                 that port speaks, or drop --tls; its log says why"
            .to_owned(),
        Some(Error::InvalidCertificate(error)) => of_certificate(error, options),
        Some(Error::AlertReceived(alert)) => of_alert(*alert, options),
        Some(Error::InvalidMessage(_) | Error::InappropriateMessage { .. }) => {
            "answers in something else than TLS: give --addr its TLS port, or drop --tls".to_owned()
        }
        Some(error) => format!(
            "can't be spoken to over TLS ({error}): see its log, and that it does TLS 1.2 or 1.3"
        ),
    }
}

fn of_certificate(error: &CertificateError, options: &Options) -> String {
    let ca = options.tls_ca.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
            "has a certificate that no CA in {ca} (--tls-ca) has issued: give the file with its \
             CA's certificate"
        ),
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "has a certificate for {}, not for {}: connect by a name that it has, or give that \
             as --tls-name",
            names(presented),
            expected.to_str()
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "has a certificate that has expired: renew it there, or set this host's clock"
                .to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "has a certificate that isn't valid yet: set this host's clock, or have it issued anew"
                .to_owned()
        }
        error => format!(
            "has a certificate that can't be accepted ({error}): have it issued anew, for a \
             server, as X.509 version 3"
        ),
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

/// The server ended the handshake.
fn of_alert(alert: AlertDescription, options: &Options) -> String {
    match (alert, &options.tls_cert) {
        (
            AlertDescription::HandshakeFailure
            | AlertDescription::ProtocolVersion
            | AlertDescription::InsufficientSecurity
            | AlertDescription::InternalError,
            _,
        ) => format!(
            "gave the TLS handshake up ({alert:?}): see its log, and that the port speaks TLS 1.2 \
             or 1.3"
        ),
        (_, None) => format!(
            "asks for a client certificate ({alert:?}): give --tls-cert and --tls-key, issued by \
             a CA that it trusts"
        ),
        (_, Some(certificate)) => format!(
            "refuses the client certificate in {} (--tls-cert; {alert:?}): give one that is still \
             valid, of X.509 version 3, and issued by a CA that it trusts; its log says why",
            certificate.display()
        ),
    }
}
