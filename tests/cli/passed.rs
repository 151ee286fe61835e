//! Sockets that systemd passes: what a server makes of LISTEN_FDS.

use std::fs;
use std::io::{BufRead as _, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use super::{DEADLINE, Server, at, directory, with_words};

/// Starts the server as systemd does: its descriptors 3 and 4 are these sockets.
const AS_SYSTEMD: &str = "exec 3<&0 4<&1 </dev/null >/dev/null; LISTEN_PID=$$ exec \"$@\"";

fn start(sockets: [OwnedFd; 2], line: &str) -> Server {
    start_named(sockets, "tcp:unix", line)
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
fn passed_sockets_are_served_and_told_apart() {
    for line in ["--io epoll", "--io epoll -t 3", "-t 3 -L 127.0.0.1:0", "--io auto"] {
        let (_guard, folder) = directory();
        let (path, list) = (folder.join("g.sock"), folder.join("access.toml"));
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let unix = UnixListener::bind(&path).unwrap();
        let rule = "[[rule]]\nwho = { listener = [\"fd:unix\"] }\nmay = [\"observe\"]\n";
        fs::write(&list, rule).unwrap();
        // They wait in the queues until the server is there.
        let mut early = TcpStream::connect(address).unwrap();
        let options = format!("--ring-entries=64 --access-file={} {line}", at(&list));
        let mut server = start([tcp.into(), unix.into()], &options);
        if line.contains("-L") {
            server.wait_for("listening on 127.0.0.1:");
        }
        server.wait_for(&format!("listening on {address} (fd:tcp)"));
        server.wait_for("listening on fd:unix");
        assert_eq!(
            ask(&mut early, "workers"),
            "ERR PERMISSION_DENIED 127.0.0.1+may+not+observe\r\n"
        );
        // Each core accepts from both.
        for _ in 0..12 {
            let mut stream = TcpStream::connect(address).unwrap();
            assert!(ask(&mut stream, "version").starts_with("OK "));
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
        "ringgeard: fd:tcp is no listening stream socket of TCP or Unix: give the socket unit \
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
