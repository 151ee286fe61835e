//! The identity of a peer: what is known of a connection's other end, by which rules are chosen,
//! and the name that replies and the log use for it.
//!
//! Facts in, a name out; or the words of `--access-check` in, a peer out. Knows no sockets and no
//! rules.
//!
//! Invariant: what isn't known of a peer matches no pattern.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

/// What is known of a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its address; none on a Unix socket.
    pub address: Option<IpAddr>,
    /// The listener that it came to, as `--listen` or `--http` names it.
    pub listener: Option<Arc<str>>,
    /// Its certificate, if it has shown one that was verified.
    pub certificate: Option<Arc<Certificate>>,
    /// Its user, on a Unix socket.
    pub user: Option<User>,
    /// The name of the token that it has shown.
    pub token: Option<Box<str>>,
}

/// What a certificate says of its owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// Common names of the subject.
    pub common: Vec<Box<str>>,
    /// DNS names.
    pub dns: Vec<Box<str>>,
    /// URIs.
    pub uri: Vec<Box<str>>,
    /// SHA-256 of the whole certificate.
    pub sha256: Option<Fingerprint>,
}

/// A user of the host; one of both is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// By its number.
    Id(u32),
    /// By its name.
    Name(Box<str>),
    /// By both.
    Both(u32, Box<str>),
}

/// SHA-256 of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

/// Text that is no fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no SHA-256: 64 hexadecimal digits, as openssl x509 -fingerprint -sha256 prints them")]
pub struct NoFingerprint;

/// 64 hexadecimal digits, in pairs with a colon between them or without.
impl FromStr for Fingerprint {
    type Err = NoFingerprint;

    fn from_str(text: &str) -> Result<Self, NoFingerprint> {
        let digits: Vec<u32> = text
            .chars()
            .filter(|&letter| letter != ':')
            .map(|letter| letter.to_digit(16).ok_or(NoFingerprint))
            .collect::<Result<_, _>>()?;
        let mut bytes = [0; 32];
        if digits.len() != 2 * bytes.len() {
            return Err(NoFingerprint);
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let value = pair.iter().fold(0, |value, digit| value * 16 + digit);
            *byte = u8::try_from(value).map_err(|_| NoFingerprint)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Peer {
    /// A peer of which the address is known.
    #[must_use]
    pub fn at(address: IpAddr) -> Self {
        Self { address: Some(address.to_canonical()), ..Self::default() }
    }
}

impl Certificate {
    /// What replies and the log call its owner.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        let first = |kind: &str, names: &[Box<str>]| {
            names.first().map(|name| format!("{kind}:{}", name.escape_default()))
        };
        first("cn", &self.common)
            .or_else(|| first("dns", &self.dns))
            .or_else(|| first("uri", &self.uri))
            .or_else(|| self.sha256.map(|sha256| format!("sha256:{sha256}")))
    }
}

/// What replies and the log call it: by its certificate, token, user or address.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, listener, certificate, user, token } = self;
        if let Some(name) = certificate.as_ref().and_then(|certificate| certificate.name()) {
            return f.write_str(&name);
        }
        match (token, user, address, listener) {
            (Some(token), ..) => write!(f, "token:{}", token.escape_default()),
            (None, Some(User::Name(name) | User::Both(_, name)), ..) => {
                write!(f, "user:{}", name.escape_default())
            }
            (None, Some(User::Id(id)), ..) => write!(f, "user:{id}"),
            (None, None, Some(address), _) => write!(f, "{address}"),
            (None, None, None, Some(listener)) => write!(f, "listener:{listener}"),
            (None, None, None, None) => f.write_str("a peer without a name"),
        }
    }
}

/// The words of `--access-check` for a peer, with commas between them.
impl FromStr for Peer {
    type Err = String;

    fn from_str(words: &str) -> Result<Self, String> {
        let (mut peer, mut certificate) = (Self::default(), Certificate::default());
        for word in words.split(',') {
            let (kind, value) = match word.split_once(':') {
                // An IPv6 address has colons.
                Some(parts) if word.parse::<IpAddr>().is_err() => parts,
                _ => ("network", word),
            };
            match kind {
                "network" => {
                    let address = value.parse::<IpAddr>();
                    let address = address.map_err(|_| {
                        format!("\"{value}\" is no address: write it like 192.0.2.7 or ::1")
                    })?;
                    peer.address = Some(address.to_canonical());
                }
                "cn" => certificate.common.push(value.into()),
                "dns" => certificate.dns.push(value.into()),
                "uri" => certificate.uri.push(value.into()),
                "sha256" => {
                    let sha256 = value.parse();
                    let sha256 =
                        sha256.map_err(|error: NoFingerprint| format!("\"{value}\" {error}"))?;
                    certificate.sha256 = Some(sha256);
                }
                "user" => {
                    let name = || User::Name(value.into());
                    peer.user = Some(value.parse().map_or_else(|_| name(), User::Id));
                }
                "token" => peer.token = Some(value.into()),
                "listener" => peer.listener = Some(value.into()),
                _ => {
                    return Err(format!(
                        "\"{word}\" names no peer: network:, cn:, dns:, uri:, sha256:, user:, \
                         token: or listener: and its value, or an address"
                    ));
                }
            }
        }
        if certificate != Certificate::default() {
            peer.certificate = Some(Arc::new(certificate));
        }
        Ok(peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_make_a_peer_and_name_it() {
        for (words, name) in [
            ("10.0.0.7", "10.0.0.7"),
            ("::1", "::1"),
            ("network:::1", "::1"),
            ("::ffff:10.0.0.7", "10.0.0.7"),
            ("cn:web1,network:10.0.0.7", "cn:web1"),
            ("dns:a.example.com,user:www-data", "dns:a.example.com"),
            ("uri:spiffe://a/b", "uri:spiffe://a/b"),
            ("user:www-data,listener:unix:/run/g.sock", "user:www-data"),
            ("user:33", "user:33"),
            ("token:ops,10.0.0.7", "token:ops"),
            ("listener:unix:/run/g.sock", "listener:unix:/run/g.sock"),
        ] {
            assert_eq!(words.parse::<Peer>().unwrap().to_string(), name, "{words}");
        }
        let digits = "9f".repeat(32);
        let peer: Peer = format!("sha256:{}", digits.to_uppercase()).parse().unwrap();
        assert_eq!(peer.to_string(), format!("sha256:{digits}"));
    }

    #[test]
    fn other_words_are_refused_with_what_is_meant() {
        for (words, part) in [
            ("", "\"\" is no address: write it like 192.0.2.7 or ::1"),
            ("host", "\"host\" is no address"),
            ("network:10.0.0.0/8", "\"10.0.0.0/8\" is no address"),
            ("name:x", "\"name:x\" names no peer: network:, cn:"),
            ("cn:web1,", "\"\" is no address"),
            ("sha256:9f86", "\"9f86\" is no SHA-256: 64 hexadecimal digits"),
            ("sha256:xx", "\"xx\" is no SHA-256"),
        ] {
            let error = words.parse::<Peer>().unwrap_err();
            assert!(error.starts_with(part), "{words}: {error}");
        }
    }
}
