//! Addresses in the file: a word in, where to connect or to listen out, or what to write instead.
//!
//! Looks at words only: hosts and paths needn't exist.
//!
//! Invariant: what `Display` writes is read as the same.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ringgear::protocol::address::{host_and_port, unix_path};

/// What stands before the path of a Unix socket.
const UNIX: &str = "unix:";

/// A job server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Server {
    /// A host name or address, without brackets, and a port.
    Tcp {
        /// Name or address.
        host: String,
        /// Port, by default 4730.
        port: u16,
    },
    /// A Unix socket, `unix:/PATH` in the file.
    Unix(PathBuf),
}

impl Server {
    /// The port where none is given.
    pub const PORT: u16 = 4730;

    /// Reads `HOST`, `HOST:PORT`, `[V6]:PORT` or `unix:/PATH`.
    ///
    /// # Errors
    /// What to write, for the end of a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix(UNIX) {
            return unix_path(path).map(Self::Unix);
        }
        if text.starts_with(['/', '.']) {
            return Err(format!("write unix:{text} for a Unix socket"));
        }
        if let Some((_, rest)) = text.split_once("://") {
            return Err(format!("write {}", rest.trim_end_matches('/')));
        }
        if text.contains(',') {
            return Err("write each server in quotes of its own".to_owned());
        }
        let (host, port) = host_and_port(text)?;
        let port = port.map_or(Ok(Self::PORT), port_number)?;
        let is_name = |c: char| !c.is_whitespace() && !c.is_control() && c != '/';
        if host.is_empty() || !host.chars().all(is_name) {
            return Err("write HOST or HOST:PORT, as in 127.0.0.1:4730".to_owned());
        }
        Ok(Self::Tcp { host: host.to_owned(), port })
    }

    /// Reads servers with commas between, as in the variable `GEARMAN_SERVERS`.
    ///
    /// # Errors
    /// What to write, for the end of a sentence.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, String> {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        words.map(Self::parse).collect()
    }

    /// Servers with commas between. Unix sockets, which other programs don't understand, are left
    /// out unless there is nothing else.
    #[must_use]
    pub fn list_text(servers: &[Self]) -> String {
        let is_tcp = |server: &&Self| matches!(server, Self::Tcp { .. });
        let texts = |servers: Vec<&Self>| {
            servers.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        match servers.iter().any(|server| is_tcp(&server)) {
            true => texts(servers.iter().filter(is_tcp).collect()),
            false => texts(servers.iter().collect()),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// Where `/metrics` and `/healthz` are served: to this machine alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpAddress {
    /// An address of the loopback interface, and a port.
    Tcp(SocketAddr),
    /// A Unix socket, `unix:/PATH` in the file.
    Unix(PathBuf),
}

impl HttpAddress {
    /// Reads `ADDRESS:PORT`, `localhost:PORT` or `unix:/PATH`.
    ///
    /// # Errors
    /// What to write, for the end of a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix(UNIX) {
            return unix_path(path).map(Self::Unix);
        }
        let example = "as in 127.0.0.1:4781";
        let (host, port) = host_and_port(text)?;
        let Some(port) = port else {
            return Err(format!("give a port, too, {example}"));
        };
        let port = port_number(port)?;
        let address = match host {
            "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            host => host.parse().ok(),
        };
        match address {
            Some(address) if address.is_loopback() => Ok(Self::Tcp((address, port).into())),
            _ => Err(format!(
                "there are no passwords, so give an address that only this machine reaches, \
                 {example}, or unix:/PATH"
            )),
        }
    }
}

impl fmt::Display for HttpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

fn port_number(text: &str) -> Result<u16, String> {
    let number = text.parse().ok().filter(|&number| number > 0);
    number.ok_or_else(|| "give a port from 1 to 65535 behind the colon".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_have_a_host_and_perhaps_a_port() {
        for (text, shown) in [
            ("127.0.0.1:4730", "127.0.0.1:4730"),
            ("jobs.example.com", "jobs.example.com:4730"),
            ("::1", "[::1]:4730"),
            ("[::1]", "[::1]:4730"),
            ("[fe80::1%eth0]:4731", "[fe80::1%eth0]:4731"),
            ("unix:/run/g.sock", "unix:/run/g.sock"),
        ] {
            let server = Server::parse(text).unwrap_or_else(|reason| panic!("{text}: {reason}"));
            assert_eq!(server.to_string(), shown);
            assert_eq!(Server::parse(shown), Ok(server));
        }
        let list = Server::parse_list("a:1, b ,,unix:/s").expect("a list");
        assert_eq!(
            list.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["a:1", "b:4730", "unix:/s"]
        );
        assert_eq!(Server::list_text(&list), "a:1,b:4730");
        assert_eq!(Server::list_text(&list[2..]), "unix:/s");
    }

    #[test]
    fn other_words_are_refused_with_what_to_write() {
        let host = "write HOST or HOST:PORT, as in 127.0.0.1:4730";
        let port = "give a port from 1 to 65535 behind the colon";
        for (text, reason) in [
            ("", host),
            (":4730", host),
            ("a b", host),
            ("a:0", port),
            ("a:", port),
            ("a:gearman", port),
            ("a:65536", port),
            ("a:1:2", "write an address of IPv6 with a port as in [::1]:4730"),
            ("a,b", "write each server in quotes of its own"),
            ("tcp://a:1/", "write a:1"),
            ("/run/g.sock", "write unix:/run/g.sock for a Unix socket"),
        ] {
            assert_eq!(Server::parse(text), Err(reason.to_owned()), "{text}");
        }
    }

    #[test]
    fn http_is_for_this_machine() {
        for (text, shown) in [
            ("127.0.0.1:4781", "127.0.0.1:4781"),
            ("localhost:1", "127.0.0.1:1"),
            ("[::1]:1", "[::1]:1"),
            ("unix:/run/m.sock", "unix:/run/m.sock"),
        ] {
            assert_eq!(HttpAddress::parse(text).map(|it| it.to_string()), Ok(shown.to_owned()));
        }
        let exposed = "there are no passwords, so give an address that only this machine reaches, \
                       as in 127.0.0.1:4781, or unix:/PATH";
        for (text, reason) in [
            ("4781", "give a port, too, as in 127.0.0.1:4781"),
            ("127.0.0.1", "give a port, too, as in 127.0.0.1:4781"),
            ("0.0.0.0:4781", exposed),
            ("example.com:4781", exposed),
            (":4781", exposed),
        ] {
            assert_eq!(HttpAddress::parse(text), Err(reason.to_owned()), "{text}");
        }
    }
}
