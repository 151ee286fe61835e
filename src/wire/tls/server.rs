//! What all TLS connections of a server share: texts of PEM files in, the library's configuration
//! out.
//!
//! Errors are sentences that name the file and the remedy; remarks are sentences about what works
//! now and won't for long, or not for all. Opens no files.
//!
//! Invariant: sessions that were begun under other authorities or revocation lists can't be
//! resumed.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::{Error, RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate, X509Version};
use x509_parser::public_key::PublicKey;

use super::TlsFault;
use super::fault::date;
use super::verifier::{Verifier, subject};

/// A certificate that ends sooner is remarked on.
const CERTIFICATE_DAYS_LEFT: u64 = 14;
/// Likewise a revocation list.
const LIST_DAYS_LEFT: u64 = 1;
/// Shorter RSA keys are refused by the library.
const RSA_BITS_MIN: usize = 2048;
const DAY_S: u64 = 24 * 60 * 60;

/// Whether clients are asked for certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// No.
    #[default]
    Off,
    /// Yes; one that is shown is verified.
    Optional,
    /// Yes, and clients without one are refused.
    Required,
}

/// Which versions of TLS may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Versions {
    /// 1.2 and 1.3.
    #[default]
    From12,
    /// 1.3.
    From13,
}

impl Versions {
    fn supported(self) -> &'static [&'static SupportedProtocolVersion] {
        static BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
        match self {
            Self::From12 => &BOTH,
            Self::From13 => &BOTH[..1],
        }
    }
}

/// The content of a file in PEM form.
#[derive(Clone, Debug)]
pub struct PemFile {
    /// Where it is, for errors.
    pub path: String,
    /// What is in it.
    pub text: Vec<u8>,
}

/// What a server's TLS is made of.
#[derive(Clone, Debug)]
pub struct Files {
    /// The server's certificate, then those that lead from it to an authority.
    pub certificate: PemFile,
    /// Its key.
    pub key: PemFile,
    /// Certificates of authorities that clients are trusted by.
    pub authorities: Option<PemFile>,
    /// Their revocation lists.
    pub revocation_lists: Vec<PemFile>,
    /// Whether clients are asked for certificates.
    pub client_certificates: ClientCertificates,
    /// Which versions may be used.
    pub versions: Versions,
}

/// From when and until when something is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CertificateDates {
    /// The first second.
    from_s: u64,
    /// The last second.
    until_s: u64,
}

/// What all connections share.
#[derive(Debug)]
pub struct TlsServer {
    config: Arc<ServerConfig>,
    versions: Versions,
    /// If clients are asked for certificates.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    tickets: Arc<dyn ProducesTickets>,
    /// Of authorities and revocation lists: what sessions may be resumed under.
    trust: Vec<u8>,
    certificate: String,
    dates: CertificateDates,
    has_names: bool,
    /// The revocation lists' paths, and when each has to be renewed.
    renewals: Vec<(String, u64)>,
}

impl TlsServer {
    /// Reads the files. Sessions of `earlier` can be resumed, if clients are trusted by the same
    /// files.
    ///
    /// # Errors
    /// What is wrong with a file, in one sentence.
    pub fn new(files: &Files, earlier: Option<&Self>) -> Result<Self, String> {
        let provider = Arc::new(default_provider());
        let chain = certificates(&files.certificate)?;
        let key = private_key(&files.key)?;
        let verifier = match (files.client_certificates, &files.authorities) {
            (ClientCertificates::Off, _) => None,
            (_, None) => {
                return Err(
                    "--ssl-client-certificates needs --ssl-ca-file: name the file with the \
                            certificates of the authorities that clients are trusted by"
                        .to_owned(),
                );
            }
            (_, Some(authorities)) => Some(client_verifier(files, authorities, &provider)?),
        };
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(files.versions.supported())
            .map_err(|error| format!("there is no TLS in this build: {error}"))?;
        let builder = match &verifier {
            Some(verifier) => {
                builder.with_client_cert_verifier(Arc::new(Verifier::new(Arc::clone(verifier))))
            }
            None => builder.with_no_client_auth(),
        };
        let first = parsed(&files.certificate, chain.first())?;
        let path = &files.certificate.path;
        let anew = "issue it anew, as docs/coming-from-gearmand.md shows";
        if first.version() == X509Version::V1 {
            return Err(format!(
                "the certificate {path} is of X.509 version 1, as openssl x509 -req makes them: \
                 {anew}"
            ));
        }
        if rsa_bits(&first).is_some_and(|bits| bits < RSA_BITS_MIN) {
            return Err(format!(
                "the certificate {path} has an RSA key of less than {RSA_BITS_MIN} bits: {anew}"
            ));
        }
        let dates = dates(&first);
        let has_names = names_hosts(&first);
        drop(first);
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| of_certificate_and_key(files, &error))?;
        let trust = trust(files);
        let tickets = match earlier {
            Some(earlier) if earlier.trust == trust => Arc::clone(&earlier.tickets),
            _ => Ticketer::new().map_err(|error| {
                format!("no keys for session tickets: {error}; allow getrandom(2) to the server")
            })?,
        };
        config.ticketer = Arc::clone(&tickets);
        // Tickets alone: they work on all cores, and are thrown away with their keys.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // Early data can be replayed, and a job be submitted twice by it.
        config.max_early_data_size = 0;
        Ok(Self {
            config: Arc::new(config),
            versions: files.versions,
            verifier,
            tickets,
            trust,
            certificate: files.certificate.path.clone(),
            dates,
            has_names,
            renewals: renewals(&files.revocation_lists)?,
        })
    }

    pub(super) fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// The same for HTTP: sessions aren't resumed, so that each client's certificate is verified
    /// when it connects. `takes_all`: also clients without a certificate, if they are asked for one
    /// at all.
    ///
    /// # Errors
    /// The library's, if it knows none of the versions.
    pub fn for_http(&self, takes_all: bool) -> Result<Arc<ServerConfig>, Error> {
        let provider = Arc::clone(self.config.crypto_provider());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions.supported())?;
        let builder = match &self.verifier {
            Some(verifier) => {
                let verifier = Arc::clone(verifier);
                builder.with_client_cert_verifier(Arc::new(match takes_all {
                    true => Verifier::optional(verifier),
                    false => Verifier::new(verifier),
                }))
            }
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&self.config.cert_resolver));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Whether clients are asked for certificates.
    #[must_use]
    pub fn asks_for_certificates(&self) -> bool {
        self.verifier.is_some()
    }

    /// Whether clients without a certificate are refused.
    #[must_use]
    pub fn requires_certificates(&self) -> bool {
        self.verifier.as_ref().is_some_and(|verifier| verifier.client_auth_mandatory())
    }

    /// Whether clients with this chain are let in now: asked again where a session is resumed, and
    /// about open connections when files have changed.
    ///
    /// # Errors
    /// `TlsFault`: the certificate isn't accepted any more.
    pub fn verify(&self, chain: &[CertificateDer<'_>], unix_s: u64) -> Result<(), TlsFault> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        let Some((first, others)) = chain.split_first() else {
            return match verifier.client_auth_mandatory() {
                true => Err(TlsFault::of(&Error::NoCertificatesPresented)),
                false => Ok(()),
            };
        };
        let now = UnixTime::since_unix_epoch(Duration::from_secs(unix_s));
        match verifier.verify_client_cert(first, others, now) {
            Ok(_) => Ok(()),
            Err(error) => Err(TlsFault::of_certificate(&error, subject(first))),
        }
    }

    /// Until when the server's certificate is valid, in seconds since 1970.
    #[must_use]
    pub fn not_after_s(&self) -> u64 {
        self.dates.until_s
    }

    /// What an operator should know of the certificate and the revocation lists at this time; one
    /// sentence each.
    #[must_use]
    pub fn remarks(&self, unix_s: u64) -> Vec<String> {
        let CertificateDates { from_s, until_s } = self.dates;
        let certificate = format!("the server's certificate {}", self.certificate);
        let renew = "clients that verify it refuse it: renew it and send SIGHUP";
        let mut remarks = Vec::new();
        if until_s < unix_s {
            remarks.push(format!("{certificate} expired {}; {renew}", date(until_s)));
        } else if until_s - unix_s < CERTIFICATE_DAYS_LEFT * DAY_S {
            remarks.push(format!("{certificate} expires {}; from then on {renew}", date(until_s)));
        }
        if from_s > unix_s {
            let day = date(from_s);
            remarks.push(format!(
                "{certificate} isn't valid before {day}; clients that verify it refuse it until \
                 then: look at this host's clock"
            ));
        }
        if !self.has_names {
            remarks.push(format!(
                "{certificate} has no subjectAltName; clients that verify names refuse it: reissue \
                 it with subjectAltName=DNS:NAME"
            ));
        }
        for (path, until_s) in &self.renewals {
            let day = date(*until_s);
            let renew = "clients with certificates are refused: renew it and send SIGHUP";
            if *until_s < unix_s {
                remarks.push(format!("the revocation list {path} expired {day}; {renew}"));
            } else if until_s - unix_s < LIST_DAYS_LEFT * DAY_S {
                remarks.push(format!(
                    "the revocation list {path} expires {day}; from then on {renew}"
                ));
            }
        }
        remarks
    }
}

/// The certificates of a file, at least one.
fn certificates(file: &PemFile) -> Result<Vec<CertificateDer<'static>>, String> {
    let path = &file.path;
    let all: Vec<CertificateDer<'static>> = items(file)?;
    if !all.is_empty() {
        return Ok(all);
    }
    Err(match PrivateKeyDer::from_pem_slice(&file.text) {
        Ok(_) => format!(
            "{path} has no certificate (it has a private key: are the two options swapped?)"
        ),
        Err(_) => {
            format!("{path} has no certificate: name a file with -----BEGIN CERTIFICATE-----")
        }
    })
}

/// The private key of a file that has one.
fn private_key(file: &PemFile) -> Result<PrivateKeyDer<'static>, String> {
    let path = &file.path;
    let keys: Vec<PrivateKeyDer<'static>> = items(file)?;
    let mut keys = keys.into_iter();
    match (keys.next(), keys.next()) {
        (Some(key), None) => Ok(key),
        (Some(_), Some(_)) => Err(format!(
            "{path} has several private keys: leave the one in it that belongs to the certificate"
        )),
        (None, _) => Err(if contains(&file.text, b"ENCRYPTED") {
            format!("{path} is encrypted; decrypt it with openssl pkey -in {path} -out FILE")
        } else if contains(&file.text, b"BEGIN CERTIFICATE") {
            format!(
                "{path} has no private key (it has a certificate: are the two options swapped?)"
            )
        } else {
            format!("{path} has no private key: name a file with -----BEGIN PRIVATE KEY-----")
        }),
    }
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    memchr::memmem::find(text, word).is_some()
}

/// All items of a kind in a file.
fn items<T: PemObject>(file: &PemFile) -> Result<Vec<T>, String> {
    let items: Result<Vec<T>, pem::Error> = T::pem_slice_iter(&file.text).collect();
    items.map_err(|error| format!("{} is damaged: {error}; copy the PEM file anew", file.path))
}

fn parsed<'a>(
    file: &PemFile,
    certificate: Option<&'a CertificateDer<'_>>,
) -> Result<X509Certificate<'a>, String> {
    let bytes = certificate.map_or(&[][..], |it| it);
    let (_, parsed) = X509Certificate::from_der(bytes).map_err(|error| {
        format!("{} has a certificate that can't be read: {error}; issue it anew", file.path)
    })?;
    Ok(parsed)
}

fn dates(certificate: &X509Certificate<'_>) -> CertificateDates {
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    let validity = certificate.validity();
    CertificateDates { from_s: seconds(validity.not_before), until_s: seconds(validity.not_after) }
}

/// Bits of a certificate's RSA key.
fn rsa_bits(certificate: &X509Certificate<'_>) -> Option<usize> {
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => Some(key.key_size()),
        _ => None,
    }
}

/// Whether a certificate has names that clients look at.
fn names_hosts(certificate: &X509Certificate<'_>) -> bool {
    certificate.subject_alternative_name().is_ok_and(|names| names.is_some())
}

/// The verifier of clients' certificates.
fn client_verifier(
    files: &Files,
    authorities: &PemFile,
    provider: &Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let path = &authorities.path;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authorities)? {
        let authority = parsed(authorities, Some(&certificate))?;
        if !is_authority(&authority) {
            return Err(format!(
                "{path} has a certificate that isn't an authority's: {}; name the file with the \
                 certificate that has signed the clients'",
                authority.subject()
            ));
        }
        roots.add(certificate).map_err(|error| {
            format!("{path} has a certificate that can't be used: {error}; issue it anew")
        })?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    for file in &files.revocation_lists {
        let lists: Vec<CertificateRevocationListDer<'static>> = items(file)?;
        if lists.is_empty() {
            return Err(format!(
                "{} has no revocation list: name a file with -----BEGIN X509 CRL-----",
                file.path
            ));
        }
        builder = builder.with_crls(lists).enforce_revocation_expiration();
    }
    if files.client_certificates == ClientCertificates::Optional {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(|error| {
        let paths: Vec<&str> = files.revocation_lists.iter().map(|it| &*it.path).collect();
        format!(
            "{path} and the revocation lists ({}) can't be used: {error}; get the authority's list \
             anew",
            paths.join(", ")
        )
    })
}

/// Whether a certificate may sign others. Those of version 1 can't say.
fn is_authority(certificate: &X509Certificate<'_>) -> bool {
    certificate.version() == X509Version::V1
        || certificate.extensions().iter().any(|extension| {
            matches!(extension.parsed_extension(), ParsedExtension::BasicConstraints(it) if it.ca)
        })
}

/// When each revocation list has to be renewed.
fn renewals(files: &[PemFile]) -> Result<Vec<(String, u64)>, String> {
    let mut renewals = Vec::new();
    for file in files {
        for list in items::<CertificateRevocationListDer<'static>>(file)? {
            let (_, list) = CertificateRevocationList::from_der(&list).map_err(|error| {
                format!("{} can't be read: {error}; get the list anew", file.path)
            })?;
            if let Some(time) = list.next_update() {
                renewals.push((file.path.clone(), u64::try_from(time.timestamp()).unwrap_or(0)));
            }
        }
    }
    Ok(renewals)
}

fn of_certificate_and_key(files: &Files, error: &Error) -> String {
    let [certificate, key] = [&files.certificate, &files.key].map(|file| &file.path);
    match error {
        Error::InconsistentKeys(_) => format!(
            "the key {key} doesn't belong to the certificate {certificate}: name the two files \
             that were made together"
        ),
        error => format!(
            "the certificate {certificate} with the key {key} can't be used: {error}; issue it \
             anew, with an ECDSA, RSA or Ed25519 key"
        ),
    }
}

/// A digest of what clients are trusted by.
fn trust(files: &Files) -> Vec<u8> {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&[files.client_certificates as u8]);
    for file in files.authorities.iter().chain(&files.revocation_lists) {
        context.update(&file.text.len().to_le_bytes());
        context.update(&file.text);
    }
    context.finish().as_ref().to_vec()
}
