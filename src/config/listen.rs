//! `--listen` and its like: a word in, where to listen out, or what to write instead.
//!
//! An error completes the sentence "OPTION can't be VALUE: …". Looks at words only: hosts and
//! services needn't exist.
//!
//! Invariant: a listener's name is the word as it was given.

use std::net::IpAddr;

use super::values;
use crate::io::{Endpoint, ListenSpec};
use crate::protocol::address::{self, unix_path};

/// What TLS is called before `://`.
const TLS_SCHEMES: [&str; 3] = ["tls", "ssl", "gearmans"];

/// Parses one `--listen`.
pub(super) fn listen_spec(text: &str) -> Result<ListenSpec, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        let endpoint = Endpoint::Unix(unix_path(path)?);
        return Ok(ListenSpec { name: Some(text.into()), endpoint, speaks_tls: false });
    }
    if text.starts_with(['/', '.']) {
        return Err(format!("write unix:{text} for a Unix socket"));
    }
    if text.contains(',') {
        return Err("give each address a --listen of its own, in TOML as a list".to_owned());
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let prefix = if TLS_SCHEMES.contains(&scheme) { "tls:" } else { "" };
        return Err(format!("write {prefix}{}", rest.trim_end_matches('/')));
    }
    let tls = text.strip_prefix("tls:");
    let (host, port) = host_and_port(tls.unwrap_or(text))?;
    if tls.is_some() && port.is_none() {
        return Err(tls_without_port(&host));
    }
    let endpoint = Endpoint::Host { host, port };
    Ok(ListenSpec { name: Some(text.into()), endpoint, speaks_tls: tls.is_some() })
}

/// Parses one `--http`: as `--listen`, but with a port.
pub(super) fn http_spec(text: &str) -> Result<ListenSpec, String> {
    let spec = listen_spec(text).map_err(|reason| reason.replace("--listen", "--http"))?;
    match &spec.endpoint {
        Endpoint::Host { port: None, host } => Err(match host.contains(':') {
            true => format!("write [{host}]:PORT, as there is no default port for HTTP"),
            false => format!("write {host}:PORT, as there is no default port for HTTP"),
        }),
        _ => Ok(spec),
    }
}

/// Checks one `--advertise`: a host and its port, as other hosts write them.
pub(super) fn advertised(text: &str) -> Result<String, String> {
    if text.contains('/') || text.starts_with("unix:") || text.starts_with("tls:") {
        return Err("give HOST:PORT alone, as in jobs1.example.com:4730".to_owned());
    }
    let (host, port) = address::host_and_port(text)?;
    let Some(port) = port else {
        return Err(match host {
            "" => "give HOST:PORT, or leave it out".to_owned(),
            host if host.contains(':') => format!("write [{host}]:PORT, with the port"),
            host => format!("write {host}:PORT, with the port"),
        });
    };
    let is_unspecified = host.parse::<IpAddr>().is_ok_and(|it| it.is_unspecified());
    if host.is_empty() || is_unspecified {
        return Err(format!("name the host that others reach, as in jobs1.example.com:{port}"));
    }
    // Texts and tables show it as it is.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:%".contains(&byte);
    if !host.bytes().all(is_plain) {
        return Err("give a host's name or address, of letters, digits, dots and dashes".to_owned());
    }
    match port.parse::<u16>() {
        Ok(1..) => Ok(text.to_owned()),
        _ => Err("give a number from 1 to 65535 behind the colon".to_owned()),
    }
}

fn tls_without_port(host: &str) -> String {
    let is_port = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_digit());
    let written = match host {
        "" => "tls:HOST:PORT".to_owned(),
        port if is_port => format!("tls:HOST:{port}"),
        address if address.contains(':') => format!("tls:[{address}]:PORT"),
        host => format!("tls:{host}:PORT"),
    };
    format!("write {written}, as --port is for listeners without TLS")
}

fn host_and_port(text: &str) -> Result<(String, Option<String>), String> {
    let (host, port) = address::host_and_port(text)?;
    let port = port.map(|port| {
        if host.is_empty() {
            return Err(format!(
                "write 0.0.0.0:{port} for all addresses of IPv4, [::]:{port} for those of IPv6"
            ));
        }
        values::port(port).map_err(|reason| format!("{reason}, behind the colon"))
    });
    Ok((host.to_owned(), port.transpose()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::address::UNIX_PATH_BYTES_MAX;

    #[test]
    fn words_say_where_to_listen() {
        for (text, host, port, speaks_tls) in [
            ("", "", None, false),
            ("localhost", "localhost", None, false),
            ("10.0.0.1", "10.0.0.1", None, false),
            ("10.0.0.1:4731", "10.0.0.1", Some("4731"), false),
            ("jobs.example.com:gearman", "jobs.example.com", Some("gearman"), false),
            ("localhost:0", "localhost", Some("0"), false),
            ("::1", "::1", None, false),
            ("::", "::", None, false),
            ("[::1]", "::1", None, false),
            ("[::1]:4731", "::1", Some("4731"), false),
            ("fe80::1%eth0", "fe80::1%eth0", None, false),
            ("[fe80::1%eth0]:1", "fe80::1%eth0", Some("1"), false),
            ("::ffff:10.0.0.1", "::ffff:10.0.0.1", None, false),
            ("tls:0.0.0.0:4731", "0.0.0.0", Some("4731"), true),
            ("tls:[::]:4731", "::", Some("4731"), true),
            ("tls", "tls", None, false),
        ] {
            let spec = listen_spec(text).unwrap_or_else(|reason| panic!("{text}: {reason}"));
            assert_eq!(spec.name.as_deref(), Some(text));
            let (host, port) = (host.to_owned(), port.map(str::to_owned));
            assert_eq!(
                (spec.endpoint, spec.speaks_tls),
                (Endpoint::Host { host, port }, speaks_tls)
            );
        }
    }

    #[test]
    fn a_path_is_a_unix_socket() {
        let spec = listen_spec("unix:/run/a,b:c.sock").unwrap();
        assert_eq!(spec.name.as_deref(), Some("unix:/run/a,b:c.sock"));
        assert_eq!(spec.endpoint, Endpoint::Unix("/run/a,b:c.sock".into()));
        assert!(listen_spec(&format!("unix:/{}", "x".repeat(UNIX_PATH_BYTES_MAX - 1))).is_ok());
    }

    #[test]
    fn other_words_are_refused_with_what_to_write() {
        let no_tls = "as --port is for listeners without TLS";
        for (text, reason) in [
            ("/run/g.sock", "write unix:/run/g.sock for a Unix socket"),
            ("unix:///run/g.sock", "write unix:/run/g.sock"),
            ("unix:g.sock", "write unix: and the whole path, as in unix:/run/ringgear/g.sock"),
            ("unix:/run/", "write unix: and the whole path, as in unix:/run/ringgear/g.sock"),
            (
                &format!("unix:/{}", "x".repeat(UNIX_PATH_BYTES_MAX)),
                "give a path of at most 107 bytes, none of them NUL",
            ),
            ("a,b", "give each address a --listen of its own, in TOML as a list"),
            ("tcp://0.0.0.0:4731", "write 0.0.0.0:4731"),
            ("tcp://0.0.0.0/", "write 0.0.0.0"),
            ("ssl://h:1", "write tls:h:1"),
            ("tls:", &format!("write tls:HOST:PORT, {no_tls}")),
            ("tls:jobs", &format!("write tls:jobs:PORT, {no_tls}")),
            ("tls:4731", &format!("write tls:HOST:4731, {no_tls}")),
            ("tls:::1", &format!("write tls:[::1]:PORT, {no_tls}")),
            ("tls:[::1]", &format!("write tls:[::1]:PORT, {no_tls}")),
            (":4731", "write 0.0.0.0:4731 for all addresses of IPv4, [::]:4731 for those of IPv6"),
            ("h:1:2", "write an address of IPv6 with a port as in [::1]:4730"),
            ("[::1", "write an address of IPv6 with a port as in [::1]:4730"),
            ("[::1]4731", "write an address of IPv6 with a port as in [::1]:4730"),
            ("[h]:1", "write an address of IPv6 with a port as in [::1]:4730"),
            (
                "h:70266",
                "give a number from 0 to 65535, or a name of /etc/services, behind the colon",
            ),
            ("h:", "give a number from 0 to 65535, or a name of /etc/services, behind the colon"),
        ] {
            assert_eq!(listen_spec(text), Err(reason.to_owned()), "{text}");
        }
    }

    #[test]
    fn an_advertised_address_is_one_that_others_reach() {
        for text in ["jobs1.example.com:4730", "10.0.0.1:1", "[2001:db8::1]:65535", "db_1-x:80"] {
            assert_eq!(advertised(text), Ok(text.to_owned()));
        }
        let brackets = "write an address of IPv6 with a port as in [::1]:4730";
        let number = "give a number from 1 to 65535 behind the colon";
        let alone = "give HOST:PORT alone, as in jobs1.example.com:4730";
        for (text, reason) in [
            ("", "give HOST:PORT, or leave it out"),
            ("jobs1", "write jobs1:PORT, with the port"),
            ("10.0.0.1", "write 10.0.0.1:PORT, with the port"),
            ("2001:db8::1", "write [2001:db8::1]:PORT, with the port"),
            ("[2001:db8::1]", "write [2001:db8::1]:PORT, with the port"),
            ("2001:db8:::4730", brackets),
            ("[2001:db8::1:4730", brackets),
            (":4730", "name the host that others reach, as in jobs1.example.com:4730"),
            ("0.0.0.0:4730", "name the host that others reach, as in jobs1.example.com:4730"),
            ("[::]:4731", "name the host that others reach, as in jobs1.example.com:4731"),
            ("jobs1:", number),
            ("jobs1:0", number),
            ("jobs1:65536", number),
            ("jobs1:gearman", number),
            ("tls:jobs1:4730", alone),
            ("unix:/run/g.sock", alone),
            ("tcp://jobs1:4730", alone),
            ("a\tb:4730", "give a host's name or address, of letters, digits, dots and dashes"),
        ] {
            assert_eq!(advertised(text), Err(reason.to_owned()), "{text}");
        }
    }
}
