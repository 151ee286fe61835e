//! What a certificate says of its owner: its bytes in, names and fingerprint out.
//!
//! Verifies nothing: the certificate is one that was verified.
//!
//! Invariant: a name that can't be read is left out, and so matches no rule.

use aws_lc_rs::digest::{SHA256, digest};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Certificate, Fingerprint};

impl Certificate {
    /// The names in a certificate in DER form, and its SHA-256.
    #[must_use]
    pub fn read(der: &[u8]) -> Self {
        let fingerprint = <[u8; 32]>::try_from(digest(&SHA256, der).as_ref()).ok();
        let mut names = Self { sha256: fingerprint.map(Fingerprint), ..Self::default() };
        let Ok((_, certificate)) = X509Certificate::from_der(der) else { return names };
        let common = certificate.subject().iter_common_name();
        names.common.extend(common.filter_map(|name| name.as_str().ok()).map(Box::from));
        let alternative = certificate.subject_alternative_name().ok().flatten();
        for name in alternative.iter().flat_map(|it| &it.value.general_names) {
            match name {
                GeneralName::DNSName(name) => names.dns.push((*name).into()),
                GeneralName::URI(name) => names.uri.push((*name).into()),
                _ => {}
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use rcgen::string::Ia5String;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn names_and_fingerprint_are_read() {
        let mut params = CertificateParams::new(["a.example.com".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "web1");
        let uri = Ia5String::try_from("spiffe://example/web".to_owned()).unwrap();
        params.subject_alt_names.push(SanType::URI(uri));
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let names = Certificate::read(certificate.der());
        assert_eq!(*names.common, ["web1".into()]);
        assert_eq!(*names.dns, ["a.example.com".into()]);
        assert_eq!(*names.uri, ["spiffe://example/web".into()]);
        let sha256 = digest(&SHA256, certificate.der());
        assert_eq!(names.sha256.unwrap().0, sha256.as_ref());
    }

    #[test]
    fn what_cannot_be_read_has_a_fingerprint_alone() {
        let names = Certificate::read(b"nonsense");
        assert!(names.common.is_empty() && names.dns.is_empty() && names.uri.is_empty());
        assert!(names.sha256.is_some());
    }
}
