//! Certificates of the tests: an authority, and what it issues and revokes.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber, date_time_ymd,
};

/// A certificate and its key, both in PEM form.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// An authority with a name of its own.
pub(crate) struct Authority {
    pub(crate) certificate: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut wanted = named(&[], &format!("authority {:x}", fastrand::u64(..)));
        wanted.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        wanted.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(wanted, KeyPair::generate().unwrap()).unwrap();
        Self { certificate: issuer.pem(), issuer }
    }

    /// A certificate for these names and addresses.
    pub(crate) fn issue(&self, names: &[&str]) -> Issued {
        self.sign(named(names, names[0]))
    }

    /// A certificate with this serial number.
    pub(crate) fn issue_numbered(&self, names: &[&str], number: u64) -> Issued {
        self.issue_with(names, |wanted| wanted.serial_number = Some(number.into()))
    }

    /// A certificate whose time is over.
    pub(crate) fn issue_expired(&self, names: &[&str]) -> Issued {
        self.issue_with(names, |wanted| wanted.not_after = date_time_ymd(2021, 1, 1))
    }

    /// A certificate whose time hasn't come.
    pub(crate) fn issue_early(&self, names: &[&str]) -> Issued {
        self.issue_with(names, |wanted| wanted.not_before = date_time_ymd(2095, 1, 1))
    }

    /// A certificate for these uses only.
    pub(crate) fn issue_for(&self, names: &[&str], uses: &[ExtendedKeyUsagePurpose]) -> Issued {
        self.issue_with(names, |wanted| wanted.extended_key_usages = uses.to_vec())
    }

    fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut wanted = named(names, names[0]);
        change(&mut wanted);
        self.sign(wanted)
    }

    fn sign(&self, wanted: CertificateParams) -> Issued {
        let key = KeyPair::generate().unwrap();
        let certificate = wanted.signed_by(&key, &self.issuer).unwrap().pem();
        Issued { certificate, key: key.serialize_pem() }
    }

    /// A list with the certificate of this number on it, which is to be renewed by this year.
    pub(crate) fn revoke(&self, number: u64, next_year: i32) -> String {
        let revoked = RevokedCertParams {
            serial_number: number.into(),
            revocation_time: date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2021, 1, 1),
            next_update: date_time_ymd(next_year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// A certificate that is marked as an authority's, as `openssl req -x509` makes them.
pub(crate) fn self_signed(names: &[&str]) -> Issued {
    let mut wanted = named(names, names[0]);
    wanted.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = wanted.self_signed(&key).unwrap().pem();
    Issued { certificate, key: key.serialize_pem() }
}

/// A certificate of X.509's first version, as `openssl x509 -req` makes them without extensions.
pub(crate) fn first_version() -> Issued {
    Issued { certificate: FIRST_VERSION.to_owned(), key: FIRST_VERSION_KEY.to_owned() }
}

fn named(names: &[&str], common_name: &str) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut wanted = CertificateParams::new(names).unwrap();
    wanted.distinguished_name.push(DnType::CommonName, common_name);
    wanted.not_before = date_time_ymd(2020, 1, 1);
    wanted
}

const FIRST_VERSION: &str = "\
-----BEGIN CERTIFICATE-----
MIIBJDCBywIUB6K0vpQEwS4UuMUr9OiPOjqAOwAwCgYIKoZIzj0EAwIwFDESMBAG
A1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyOTE3NDkzNFoYDzIxMjYxMTA1MTc0OTM0
WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AARLy2ADzqTQMCUw/zBf+D4/Ej5/L/qLFf/hAqwi0dOFoGnI5wlcm+91cFon81su
9DD+DOvbwpKukKjJ9JwLed52MAoGCCqGSM49BAMCA0gAMEUCIHj8T8e6BE2MdJ+F
9raBlCdXWR5w/LBo6GLc6A0OcA20AiEAyHtBoW9LJ8Wh2khrkjJ/ythVGF9X6R9Q
z5fZBCObJqw=
-----END CERTIFICATE-----
";
const FIRST_VERSION_KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgCLYiq9cbkh0F1a0y
JSMZlPuq7OxW8WATNN4DzXg92+GhRANCAARLy2ADzqTQMCUw/zBf+D4/Ej5/L/qL
Ff/hAqwi0dOFoGnI5wlcm+91cFon81su9DD+DOvbwpKukKjJ9JwLed52
-----END PRIVATE KEY-----
";
