//! Sockets that systemd passes: what a server makes of LISTEN_FDS.

use std::fs;
use std::io::{BufRead as _, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use super::authority::Authority;
use super::{DEADLINE, Server, at, directory, has_rings_for, with_words};

/// Starts the server as systemd does: its descriptors 3 and 4 are these sockets.
const AS_SYSTEMD: &str = "exec 3<&0 4<&1 </dev/null >/dev/null; LISTEN_PID=$$ exec \"$@\"";

pub(super) fn start(sockets: [OwnedFd; 2], line: &str) -> Server {
    start_named(sockets, "gearman:gearman", line)
}

/// The same, with the sockets' names.
fn start_named(sockets: [OwnedFd; 2], names: &str, line: &str) -> Server {
    let mut command = Command::new("sh");
    command.args(["-c", AS_SYSTEMD, "sh", env!("CARGO_BIN_EXE_ringgeard")]);
    let mut command = with_words(command, line);
    command.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", names);
    let [first, second] = sockets;
    command.stdin(Stdio::from(first)).stdout(Stdio::from(second));
    Server::start(command)
}

/// The first line of the answer to a line of text.
fn ask(stream: &mut TcpStream, line: &str) -> String {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(format!("{line}\n").as_bytes()).unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    answer
}

#[test]
fn passed_sockets_are_served_and_told_from_others() {
    for line in ["--io epoll", "-t 3 -L 127.0.0.1:0", "--io auto", "--io glommio -t 2"] {
        if !has_rings_for(line) {
            continue;
        }
        let (_guard, folder) = directory();
        let (path, list) = (folder.join("g.sock"), folder.join("access.toml"));
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let unix = UnixListener::bind(&path).unwrap();
        let rule = "[[rule]]\nwho = { listener = [\"fd:gearman\"] }\nmay = [\"observe\"]\n";
        fs::write(&list, rule).unwrap();
        // They wait in the queues until the server is there.
        let mut early = TcpStream::connect(address).unwrap();
        let options = format!("--ring-entries=64 --access-file={} {line}", at(&list));
        let mut server = start([tcp.into(), unix.into()], &options);
        server.wait_for(&format!("listening on {address} (fd:gearman)"));
        server.wait_for("listening on fd:gearman");
        assert!(!ask(&mut early, "workers").starts_with("ERR"), "it may observe");
        if line.contains("-L") {
            let mut other = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
            assert_eq!(
                ask(&mut other, "workers"),
                "ERR PERMISSION_DENIED 127.0.0.1+may+not+observe\r\n"
            );
        }
        // Each core accepts from both.
        for _ in 0..12 {
            let mut stream = TcpStream::connect(address).unwrap();
            assert!(!ask(&mut stream, "workers").starts_with("ERR"), "it may observe");
            let unix = UnixStream::connect(&path).unwrap();
            let mut stream = TcpStream::from(OwnedFd::from(unix));
            assert!(!ask(&mut stream, "workers").starts_with("ERR"), "it may observe");
        }
        let said = server.said.matches("listening on").count();
        assert_eq!(said, if line.contains("-L") { 3 } else { 2 }, "{}", server.said);
        assert!(server.end(Signal::SIGTERM).success());
        assert!(path.exists(), "it is systemd's");
    }
}

#[test]
fn a_passed_socket_that_does_not_listen_is_refused() {
    let (one, other) = UnixStream::pair().unwrap();
    let mut server = start([one.into(), other.into()], "--io epoll");
    server.wait_for(
        "ringgeard: fd:gearman is no listening stream socket of TCP or Unix: give the socket unit \
         ListenStream= and Accept=no only",
    );
}

#[test]
fn a_passed_socket_for_http_turns_http_on() {
    let (_guard, folder) = directory();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let http = tcp.local_addr().unwrap();
    let unix = UnixListener::bind(folder.join("g.sock")).unwrap();
    let mut server = start_named([tcp.into(), unix.into()], "http:gearman", "--io epoll");
    // Two threads say so, in any order.
    let parts = [format!("HTTP on {http} (fd:http)"), "listening on fd:gearman".to_owned()];
    while !parts.iter().all(|part| server.said.contains(part)) {
        server.wait_for("");
    }
    let mut stream = TcpStream::connect(http).unwrap();
    let answer = ask(&mut stream, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r");
    assert_eq!(answer, "HTTP/1.1 200 OK\r\n");
    assert!(server.end(Signal::SIGTERM).success());
    let exposed = TcpListener::bind("0.0.0.0:0").unwrap();
    let unix = UnixListener::bind(folder.join("h.sock")).unwrap();
    let mut server = start_named([exposed.into(), unix.into()], "http:gearman", "--io epoll");
    server.wait_for("can be reached and read along by other hosts");
}

/// A configuration that names the address needn't be changed for the socket unit.
#[test]
fn a_passed_socket_may_have_an_address_that_listen_names() {
    let (_guard, folder) = directory();
    let path = folder.join("g.sock");
    for host in ["127.0.0.1", "0.0.0.0"] {
        let _ = fs::remove_file(&path);
        let tcp = TcpListener::bind((host, 0)).unwrap();
        let port = tcp.local_addr().unwrap().port();
        let unix = UnixListener::bind(&path).unwrap();
        let also = format!("-L 127.0.0.1:{port} -L unix:{} -L 127.0.0.1:0", at(&path));
        let mut server = start([tcp.into(), unix.into()], &format!("--io epoll -t 2 {also}"));
        // It is the last one.
        server.wait_for("listening on fd:gearman");
        let other = server.port();
        assert_ne!(other, port);
        assert_eq!(server.said.matches("listening on").count(), 3, "{}", server.said);
        for port in [port, other] {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            assert!(ask(&mut stream, "version").starts_with("OK "));
        }
        assert!(server.end(Signal::SIGTERM).success());
        assert!(path.exists(), "it is systemd's");
    }
}

#[test]
fn a_passed_socket_without_tls_is_no_place_for_a_listener_with_tls() {
    let (_guard, folder) = directory();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = format!("tls:{}", tcp.local_addr().unwrap());
    let unix = UnixListener::bind(folder.join("g.sock")).unwrap();
    let mut server = start([tcp.into(), unix.into()], &format!("--io epoll -L {place}"));
    server.wait_for(&format!(
        "ringgeard: --listen {place} and the passed socket fd:gearman have the same address, and \
         only one of them speaks TLS: write FileDescriptorName=tls in the socket unit for TLS, or \
         leave --listen out"
    ));
}

#[test]
fn names_of_passed_sockets_say_what_they_are_for() {
    let (_guard, folder) = directory();
    let unix = |name: &str| UnixListener::bind(folder.join(name)).unwrap();
    let certificate = folder.join("server.pem");
    for (at_place, names, sentence) in [
        // What systemd calls a socket whose unit has no name for it.
        (
            0,
            "ringgeard.socket:gearman",
            "a passed socket is called \"ringgeard.socket\", which says nothing of its use: write \
             FileDescriptorName=gearman, FileDescriptorName=tls or FileDescriptorName=http in the \
             socket unit (LISTEN_FDNAMES without systemd)"
                .to_owned(),
        ),
        (
            1,
            "gearman:tls",
            "fd:tls is a Unix socket, and these are never encrypted: write \
             FileDescriptorName=gearman in its socket unit"
                .to_owned(),
        ),
        (
            2,
            "tls:gearman",
            format!(
                "cannot read the certificate {}: no such file; name it with --ssl-certificate; \
                 docs/security.md tells how to make one",
                at(&certificate)
            ),
        ),
    ] {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let sockets = [tcp.into(), unix(&format!("{at_place}.sock")).into()];
        let options = format!("--io epoll --ssl-certificate={}", at(&certificate));
        let mut server = start_named(sockets, names, &options);
        server.wait_for(&format!("ringgeard: {sentence}"));
    }
}

#[test]
fn a_passed_socket_for_tls_speaks_nothing_else() {
    let (_guard, folder) = directory();
    let (certificate, key) = (folder.join("server.pem"), folder.join("server.key"));
    let issued = Authority::new().issue(&["127.0.0.1"]);
    fs::write(&certificate, issued.certificate).unwrap();
    fs::write(&key, issued.key).unwrap();
    for options in ["--io epoll -t 2", "--io auto"] {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let plain = TcpListener::bind("127.0.0.1:0").unwrap();
        let plain_address = plain.local_addr().unwrap();
        let options = format!(
            "{options} --ring-entries=64 --ssl-certificate={} --ssl-key={}",
            at(&certificate),
            at(&key)
        );
        let mut server = start_named([tcp.into(), plain.into()], "tls:gearman", &options);
        server.wait_for(&format!("listening on tls:{address} (fd:tls)"));
        server.wait_for(&format!("listening on {plain_address} (fd:gearman)"));
        let mut stream = TcpStream::connect(address).unwrap();
        assert!(ask(&mut stream, "version").starts_with("ERR TLS_REQUIRED"));
        let mut stream = TcpStream::connect(plain_address).unwrap();
        assert!(ask(&mut stream, "version").starts_with("OK "));
        assert!(server.end(Signal::SIGTERM).success());
    }
}
