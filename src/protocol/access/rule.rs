//! One rule of an access list: which peers it is for, and what they may or may not.
//!
//! Patterns and facts in, whether they match out. Knows no file and no other rules.
//!
//! Invariant: a rule is for a peer if of each key that it has a value matches.

use std::fmt;

use ipnet::IpNet;

use super::peer::{Certificate, Fingerprint, Peer, User};
use super::right::{Right, Rights};
use crate::engine::glob::Glob;

/// Something that a certificate says.
#[derive(Clone, Debug, PartialEq)]
pub enum CertificatePattern {
    /// A common name.
    Common(Glob),
    /// A DNS name.
    Dns(Glob),
    /// A URI.
    Uri(Glob),
    /// The certificate itself.
    Sha256(Fingerprint),
}

/// A user of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserPattern {
    /// By its number.
    Id(u32),
    /// By its name.
    Name(Box<str>),
}

/// The peers that a rule is for; a key without values is for all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Who {
    /// Networks.
    pub network: Vec<IpNet>,
    /// Certificates.
    pub certificate: Vec<CertificatePattern>,
    /// Users of Unix sockets.
    pub user: Vec<UserPattern>,
    /// Listeners, as `--listen` and `--http` name them.
    pub listener: Vec<Box<str>>,
    /// Names of tokens that HTTP clients show.
    pub token: Vec<Box<str>>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The line of the file that it begins at, from 1 on.
    pub line: usize,
    /// Which peers it is for.
    pub who: Who,
    /// Whether it allows or refuses.
    pub allows: bool,
    /// The rights that it names.
    pub rights: Rights,
    /// The functions that it is for; `None` = all.
    pub functions: Option<Vec<Glob>>,
}

impl Rule {
    /// Whether it decides about a right.
    #[must_use]
    pub fn is_about(&self, right: Right) -> bool {
        // A refusal of admin refuses nothing else.
        let rights = if self.allows { self.rights.with_implied() } else { self.rights };
        rights.contains(right)
    }

    /// Whether it is for a function.
    #[must_use]
    pub fn is_for(&self, function: &[u8]) -> bool {
        let globs = self.functions.as_ref();
        globs.is_none_or(|globs| globs.iter().any(|glob| glob.matches(function)))
    }

    /// The functions that it is for, as the file writes them; nothing for all.
    pub fn functions(&self) -> impl Iterator<Item = &Glob> {
        self.functions.iter().flatten()
    }
}

impl Who {
    /// Whether it is this peer.
    #[must_use]
    pub fn includes(&self, peer: &Peer) -> bool {
        let Self { network, certificate, user, listener, token } = self;
        let has = |is_empty: bool, found: bool| is_empty || found;
        has(
            network.is_empty(),
            peer.address.is_some_and(|address| network.iter().any(|it| it.contains(&address))),
        ) && has(
            certificate.is_empty(),
            peer.certificate.as_ref().is_some_and(|of| certificate.iter().any(|it| it.is_in(of))),
        ) && has(
            user.is_empty(),
            peer.user.as_ref().is_some_and(|of| user.iter().any(|it| it.is(of))),
        ) && has(
            listener.is_empty(),
            peer.listener.as_ref().is_some_and(|of| listener.iter().any(|it| **it == **of)),
        ) && has(token.is_empty(), peer.token.as_ref().is_some_and(|of| token.contains(of)))
    }
}

impl CertificatePattern {
    fn is_in(&self, certificate: &Certificate) -> bool {
        let any = |glob: &Glob, names: &[Box<str>]| {
            names.iter().any(|name| glob.matches(name.as_bytes()))
        };
        match self {
            Self::Common(glob) => any(glob, &certificate.common),
            Self::Dns(glob) => any(glob, &certificate.dns),
            Self::Uri(glob) => any(glob, &certificate.uri),
            Self::Sha256(sha256) => certificate.sha256 == Some(*sha256),
        }
    }
}

impl UserPattern {
    fn is(&self, user: &User) -> bool {
        match (self, user) {
            (Self::Id(id), User::Id(of) | User::Both(of, _)) => id == of,
            (Self::Name(name), User::Name(of) | User::Both(_, of)) => name == of,
            (Self::Id(_), User::Name(_)) | (Self::Name(_), User::Id(_)) => false,
        }
    }
}

impl fmt::Display for CertificatePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Common(glob) => write!(f, "cn:{glob}"),
            Self::Dns(glob) => write!(f, "dns:{glob}"),
            Self::Uri(glob) => write!(f, "uri:{glob}"),
            Self::Sha256(sha256) => write!(f, "sha256:{sha256}"),
        }
    }
}

/// Its values, each with its key before it; `*` for all peers.
impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { network, certificate, user, listener, token } = self;
        let mut words: Vec<String> = network.iter().map(|it| format!("network:{it}")).collect();
        words.extend(certificate.iter().map(ToString::to_string));
        words.extend(user.iter().map(|user| match user {
            UserPattern::Id(id) => format!("user:{id}"),
            UserPattern::Name(name) => format!("user:{name}"),
        }));
        words.extend(listener.iter().map(|it| format!("listener:{it}")));
        words.extend(token.iter().map(|it| format!("token:{it}")));
        f.write_str(if words.is_empty() { "*" } else { "" })?;
        f.write_str(&words.join(" "))
    }
}
