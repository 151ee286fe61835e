//! TLS to PostgreSQL: words of the connection string in, ways to connect out.
//!
//! The words and modes are libpq's. Files are read at each connection, so that a renewed
//! certificate needs no restart. Unlike libpq, this looks for no files in the home folder, and a
//! file that was named has to be there. Knows no statements.
//!
//! Invariant: with `require` and the modes above it no byte but PostgreSQL's request for TLS goes
//! out unencrypted, and with `verify-ca` and above no password to an unverified server.

mod fault;
mod files;
mod verifier;

use std::path::PathBuf;

use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, SslNegotiation};
use tokio_postgres_rustls::MakeRustlsConnect;

pub(super) use self::fault::Fault;
use super::words::Words;
use crate::store::StoreError;
use crate::store::needs::Needs;

/// How much encryption is asked for, from none at all to a server whose name is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mode {
    /// Without TLS.
    Disable,
    /// With TLS only if the server refuses connections without it.
    Allow,
    /// With TLS if that works, else without.
    Prefer,
    /// With TLS; the certificate is verified if there are roots.
    Require,
    /// With a certificate that the roots vouch for.
    VerifyCa,
    /// With such a certificate for the host's name or address.
    VerifyFull,
}

impl Mode {
    const ALL: [Self; 6] =
        [Self::Disable, Self::Allow, Self::Prefer, Self::Require, Self::VerifyCa, Self::VerifyFull];

    /// libpq's word.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// One way to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// Without TLS.
    Plain,
    /// With TLS or not at all.
    Encrypted,
}

/// Certificates of the authorities that may vouch for the server.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Roots {
    /// In a file.
    File(PathBuf),
    /// The operating system's.
    System,
}

/// Files of the client's certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    certificate: PathBuf,
    key: PathBuf,
}

/// What the connection string and the environment say about TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tls {
    /// The mode.
    pub(super) mode: Mode,
    roots: Option<Roots>,
    identity: Option<Identity>,
    /// File with revocation lists.
    revoked: Option<PathBuf>,
    /// TLS from the first byte on, without PostgreSQL's request for it.
    is_direct: bool,
    /// Whether the password has to be bound to the server's certificate.
    is_bound: bool,
}

impl Tls {
    /// No TLS, as on Unix sockets.
    pub(super) const NONE: Self = Self {
        mode: Mode::Disable,
        roots: None,
        identity: None,
        revoked: None,
        is_direct: false,
        is_bound: false,
    };

    /// Adds the files that are read at each connection.
    pub(super) fn add_needs(&self, needs: &mut Needs) {
        match &self.roots {
            Some(Roots::File(path)) => needs.read.push(path.clone()),
            Some(Roots::System) => needs.reads_system_roots = true,
            None => {}
        }
        needs.read.extend(
            self.identity
                .iter()
                .flat_map(|Identity { certificate, key }| [certificate.clone(), key.clone()]),
        );
        needs.read.extend(self.revoked.clone());
    }

    /// Reads the words; `variable` returns the variable that counts where a word is missing.
    /// `config` has the words that the library knows.
    ///
    /// # Errors
    /// `StoreError::Unusable` for values that contradict each other or don't exist.
    pub(super) fn read(
        words: &Words,
        variable: impl Fn(&str) -> Option<String>,
        config: &Config,
    ) -> Result<Self, StoreError> {
        let value = |key: &str| {
            let given = words.get(key).map(str::to_owned);
            given.or_else(|| variable(&format!("PG{}", key.to_uppercase())))
        };
        let unusable = |sentence: String| Err(StoreError::Unusable(sentence));
        let roots = value("sslrootcert").map(|root| match &*root {
            "system" => Roots::System,
            _ => Roots::File(root.into()),
        });
        let is_system = roots == Some(Roots::System);
        let mode = match value("sslmode") {
            None if is_system => Mode::VerifyFull,
            None => Mode::Prefer,
            Some(name) => match Mode::ALL.into_iter().find(|mode| mode.name() == name) {
                Some(mode) => mode,
                None => {
                    let place =
                        if words.get("sslmode").is_some() { "sslmode" } else { "PGSSLMODE" };
                    let names = Mode::ALL.map(Mode::name).join(", ");
                    return unusable(format!("{place} can't be \"{name}\": give one of {names}"));
                }
            },
        };
        let name = mode.name();
        if mode == Mode::Disable {
            // As in libpq, the other words mean nothing then.
            return Ok(Self::NONE);
        }
        if is_system && mode != Mode::VerifyFull {
            return unusable(format!(
                "sslrootcert=system lets servers of every name in, unless their name is verified: \
                 write sslmode=verify-full in place of sslmode={name}"
            ));
        }
        if mode >= Mode::VerifyCa && roots.is_none() {
            return unusable(format!(
                "sslmode={name} needs sslrootcert: name the file with the certificate of the \
                 server's CA there, or write sslrootcert=system for the CAs of the operating system"
            ));
        }
        let is_direct = config.get_ssl_negotiation() == SslNegotiation::Direct;
        if is_direct && mode < Mode::Require {
            return unusable(format!(
                "sslnegotiation=direct can't do without TLS, as sslmode={name} may: write \
                 sslmode=require, verify-ca or verify-full"
            ));
        }
        let revoked = value("sslcrl").map(PathBuf::from);
        if revoked.is_some() && roots.is_none() {
            return unusable(
                "sslcrl has no effect while certificates aren't verified: add sslrootcert, or \
                 leave sslcrl out"
                    .to_owned(),
            );
        }
        let identity = match (value("sslcert"), value("sslkey")) {
            (Some(certificate), Some(key)) => {
                Some(Identity { certificate: certificate.into(), key: key.into() })
            }
            (None, None) => None,
            (certificate, _) => {
                let [given, missing] = match certificate {
                    Some(_) => ["sslcert", "sslkey"],
                    None => ["sslkey", "sslcert"],
                };
                return unusable(format!(
                    "{given} needs {missing}, as a certificate is of no use without its key: add \
                     {missing}, or leave {given} out"
                ));
            }
        };
        let is_bound = config.get_channel_binding() == ChannelBinding::Require;
        Ok(Self { mode, roots, identity, revoked, is_direct, is_bound })
    }

    /// The ways to connect, in order; the next is tried where one fails for the lack of TLS or its
    /// presence.
    pub(super) fn attempts(&self) -> &'static [Attempt] {
        match self.mode {
            Mode::Disable => &[Attempt::Plain],
            Mode::Allow => &[Attempt::Plain, Attempt::Encrypted],
            Mode::Prefer => &[Attempt::Encrypted, Attempt::Plain],
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => &[Attempt::Encrypted],
        }
    }

    /// Reads the files.
    ///
    /// # Errors
    /// `Fault::Failed` if one of them can't be used.
    pub(super) fn connector(&self) -> Result<MakeRustlsConnect, Fault> {
        files::client(self).map(MakeRustlsConnect::new).map_err(Fault::Failed)
    }

    /// What about TLS made a connection fail, if that is the reason.
    pub(super) fn fault(&self, error: &tokio_postgres::Error) -> Option<Fault> {
        fault::of(error, self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &str) -> Result<Tls, String> {
        Tls::read(&Words::read(words), |_| None, &Config::new()).map_err(|error| error.to_string())
    }

    fn refusal(words: &str) -> String {
        read(words).unwrap_err()
    }

    #[test]
    fn each_mode_has_its_ways_to_connect() {
        let modes = Mode::ALL.map(|mode| {
            let words = format!("sslmode={} sslrootcert=/ca.pem", mode.name());
            let tls = read(&words).unwrap();
            assert_eq!(tls.mode, mode);
            tls.attempts()
        });
        let [plain, encrypted] = [Attempt::Plain, Attempt::Encrypted];
        assert_eq!(modes[0], [plain]);
        assert_eq!(modes[1], [plain, encrypted]);
        assert_eq!(modes[2], [encrypted, plain]);
        assert_eq!(modes[3..], [[encrypted], [encrypted], [encrypted]]);
    }

    #[test]
    fn the_default_is_libpqs() {
        assert_eq!(read("").unwrap().mode, Mode::Prefer);
        assert_eq!(read("sslrootcert=/ca.pem").unwrap().mode, Mode::Prefer);
        assert_eq!(read("sslrootcert=system").unwrap().mode, Mode::VerifyFull);
    }

    #[test]
    fn variables_count_where_words_are_missing() {
        let variable = |name: &str| {
            let value = match name {
                "PGSSLMODE" => "verify-ca",
                "PGSSLROOTCERT" => "/ca.pem",
                "PGSSLCERT" => "/cert.pem",
                "PGSSLKEY" => "/key.pem",
                "PGSSLCRL" => "/crl.pem",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let read = |words| Tls::read(&Words::read(words), variable, &Config::new()).unwrap();
        let all = "sslmode=verify-ca sslrootcert=/ca.pem sslcert=/cert.pem sslkey=/key.pem \
                   sslcrl=/crl.pem";
        assert_eq!(read(""), tests::read(all).unwrap());
        assert_eq!(read("sslmode=disable"), Tls::NONE);
        let other = read("sslmode=require sslrootcert=/other.pem");
        assert_eq!(
            (other.mode, other.roots),
            (Mode::Require, Some(Roots::File("/other.pem".into())))
        );
        let wrong = |name: &str| (name == "PGSSLMODE").then(|| "verify".to_owned());
        let error = Tls::read(&Words::default(), wrong, &Config::new()).unwrap_err().to_string();
        assert!(
            error.starts_with("PGSSLMODE can't be \"verify\": give one of disable, "),
            "{error}"
        );
    }

    #[test]
    fn contradictions_are_refused_with_what_to_write() {
        for (words, cause) in [
            (
                "sslmode=on",
                "sslmode can't be \"on\": give one of disable, allow, prefer, require, ",
            ),
            ("sslmode=verify-ca", "sslmode=verify-ca needs sslrootcert"),
            ("sslmode=verify-full", "sslmode=verify-full needs sslrootcert"),
            ("sslmode=require sslrootcert=system", "write sslmode=verify-full in place of"),
            ("sslcert=/a", "sslcert needs sslkey"),
            ("sslkey=/a", "sslkey needs sslcert"),
            ("sslmode=require sslcrl=/a", "add sslrootcert"),
        ] {
            let sentence = refusal(words);
            assert!(sentence.contains(cause), "{words}: {sentence}");
        }
        let config = "sslnegotiation=direct".parse().unwrap();
        let direct = |words| Tls::read(&Words::read(words), |_| None, &config);
        assert!(direct("").unwrap_err().to_string().contains("write sslmode=require"));
        assert!(direct("sslmode=require").unwrap().is_direct);
    }
}
