//! HTTP: a server with `--http` in, what clients of `client` get out.

mod access;
pub(crate) mod client;
mod limits;
mod ready;
mod refused;
mod tls;

use std::net::SocketAddr;

use crate::harness::{Contender, Server};

/// A server with HTTP on a free port, and where that is.
pub(crate) fn start(contender: Contender, more: &[&str]) -> (Server, SocketAddr) {
    let options = [&["--http", "127.0.0.1:0"], more].concat();
    let server = Server::start_with(contender, &options).expect("this project's own");
    let address = address(&server);
    (server, address)
}

/// Where a server has HTTP.
pub(crate) fn address(server: &Server) -> SocketAddr {
    server.wait_for_log("HTTP on ", |place| {
        let place = place.strip_prefix("tls:").unwrap_or(place);
        place.split_whitespace().next()?.parse().ok()
    })
}
