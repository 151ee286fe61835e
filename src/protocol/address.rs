//! Addresses as files and options write them: a word in, its parts or what to write instead out.
//!
//! An error completes a sentence. Looks at words only: hosts and paths needn't exist.

use std::net::Ipv6Addr;
use std::path::PathBuf;

/// Longest path of a Unix socket that the kernel takes, without the NUL behind it.
pub const UNIX_PATH_BYTES_MAX: usize = 107;

/// The path of a Unix socket, which stands behind `unix:`.
///
/// # Errors
/// What to write.
pub fn unix_path(path: &str) -> Result<PathBuf, String> {
    if path.starts_with("//") {
        return Err(format!("write unix:/{}", path.trim_start_matches('/')));
    }
    if !path.starts_with('/') || path.ends_with('/') {
        return Err("write unix: and the whole path, as in unix:/run/ringgear/g.sock".to_owned());
    }
    if path.len() > UNIX_PATH_BYTES_MAX || path.contains('\0') {
        return Err(format!(
            "give a path of at most {UNIX_PATH_BYTES_MAX} bytes, none of them NUL"
        ));
    }
    Ok(path.into())
}

/// Host and port of `HOST`, `HOST:PORT`, `[V6]`, `[V6]:PORT`, or an address of IPv6 with all its
/// colons. Neither is looked at; the host is empty in `:PORT`.
///
/// # Errors
/// What to write.
pub fn host_and_port(text: &str) -> Result<(&str, Option<&str>), String> {
    let brackets = || "write an address of IPv6 with a port as in [::1]:4730".to_owned();
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(brackets)?;
        return match rest.strip_prefix(':') {
            _ if !is_ipv6(host) => Err(brackets()),
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(brackets()),
        };
    }
    match text.split_once(':') {
        None => Ok((text, None)),
        Some((_, rest)) if rest.contains(':') => match is_ipv6(text) {
            true => Ok((text, None)),
            false => Err(brackets()),
        },
        Some((host, port)) => Ok((host, Some(port))),
    }
}

/// Whether this is an address of IPv6, perhaps with the interface that it belongs to.
fn is_ipv6(text: &str) -> bool {
    let (address, interface) = text.split_once('%').unwrap_or((text, "any"));
    address.parse::<Ipv6Addr>().is_ok() && !interface.is_empty()
}
