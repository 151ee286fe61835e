//! Unix sockets and several listeners of a real server, on each event loop: what peers see, and
//! what becomes of a socket's file.

use std::fs;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};
use ringgear::wire::Command;
use tempfile::TempDir;

use crate::harness::{Contender, PATIENCE, Server, each_ringgear, wait_until};
use crate::wire::{echo, expect, receive, send};

each_ringgear!(
    jobs_pass_between_unix_and_tcp_peers,
    a_list_tells_users_of_unix_sockets_apart,
    the_file_of_a_socket_is_there_as_long_as_its_server,
    each_listener_has_a_port_of_its_own,
);

#[test]
fn jobs_pass_between_unix_and_tcp_peers_on_glommio() {
    for contender in [Contender::RinggearGlommio, Contender::RinggearGlommio2] {
        if contender.is_here() {
            jobs_pass_between_unix_and_tcp_peers(contender);
        }
    }
}

#[test]
fn a_list_tells_users_of_unix_sockets_apart_on_glommio() {
    if Contender::RinggearGlommio.is_here() {
        a_list_tells_users_of_unix_sockets_apart(Contender::RinggearGlommio);
    }
}

const FUNCTIONS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
/// More than a ring has accepts in flight on one core.
const CONNECTIONS: usize = 40;

fn socket() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder for the socket");
    let path = folder.path().join("g.sock");
    (folder, path)
}

/// A server that listens on a Unix socket, too.
fn start(contender: Contender, path: &Path, options: &[&str]) -> Option<Server> {
    let listen = format!("unix:{}", path.display());
    let listeners = ["--listen", "127.0.0.1", "--listen", &listen, "--verbose", "DEBUG"];
    Server::start_with(contender, &[&listeners, options].concat())
}

/// A connection by a Unix socket. A stream is a stream.
fn connect(path: &Path) -> TcpStream {
    let stream = UnixStream::connect(path).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    TcpStream::from(OwnedFd::from(stream))
}

/// Grabs a job, sleeping until there is one, and answers it with its payload backwards.
fn work(worker: &mut TcpStream) {
    loop {
        send(worker, Command::GrabJob, &[], b"");
        match receive(worker).expect("an answer") {
            (Command::NoJob, _) => {
                send(worker, Command::PreSleep, &[], b"");
                expect(worker, Command::Noop);
            }
            (Command::JobAssign, body) => {
                let mut parts = body.splitn(3, |&byte| byte == 0);
                let handle = parts.next().expect("a handle").to_vec();
                let mut payload = parts.nth(1).expect("a payload").to_vec();
                payload.reverse();
                return send(worker, Command::WorkComplete, &[&handle], &payload);
            }
            (command, _) => panic!("{command:?} for a grab"),
        }
    }
}

fn jobs_pass_between_unix_and_tcp_peers(contender: Contender) {
    let (_folder, path) = socket();
    let Some(server) = start(contender, &path, &[]) else { return };
    let mut streams: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect(&path)).collect();
    for (at, stream) in streams.iter_mut().enumerate() {
        // It moves to the core of its function.
        send(stream, Command::CanDo, &[format!("idle-{at}").as_bytes()], b"");
        send(stream, Command::GrabJob, &[], b"");
        expect(stream, Command::NoJob);
        send(stream, Command::PreSleep, &[], b"");
        echo(stream, b"asleep");
    }
    // Each function has a worker, which moves to its core: half of them by the Unix socket.
    let mut workers: Vec<TcpStream> = Vec::new();
    for (at, function) in FUNCTIONS.iter().enumerate() {
        let mut worker = if at % 2 == 0 { connect(&path) } else { server.connect() };
        send(&mut worker, Command::CanDo, &[function.as_bytes()], b"");
        send(&mut worker, Command::GrabJob, &[], b"");
        expect(&mut worker, Command::NoJob);
        send(&mut worker, Command::PreSleep, &[], b"");
        workers.push(worker);
    }
    let (mut unix, mut tcp) = (connect(&path), server.connect());
    for (at, size) in [10, 70_000, 300_000].into_iter().enumerate() {
        for (function, worker) in FUNCTIONS.iter().zip(&mut workers) {
            for client in [&mut unix, &mut tcp] {
                let mut payload = format!("{at} {function} ").into_bytes();
                payload.resize(size, b'x');
                send(client, Command::SubmitJob, &[function.as_bytes(), b""], &payload);
                let handle = expect(client, Command::JobCreated);
                expect(worker, Command::Noop);
                work(worker);
                payload.reverse();
                let result = expect(client, Command::WorkComplete);
                assert!(result == [&handle[..], b"\0", &payload].concat());
                // Asleep again before the next one comes.
                send(worker, Command::GrabJob, &[], b"");
                expect(worker, Command::NoJob);
                send(worker, Command::PreSleep, &[], b"");
                echo(worker, b"asleep");
            }
        }
    }
    let list = server.admin("workers");
    for (at, function) in FUNCTIONS.iter().enumerate() {
        let address = if at % 2 == 0 { "unix" } else { "127.0.0.1" };
        assert!(list.contains(&format!(" {address} - : {function}\n")), "{list}");
    }
    if contender.cores() > 1 {
        let log = server.log();
        let mut moved = log.lines().filter(|line| line.contains(" moved in "));
        assert!(moved.any(|line| line.contains("unix:")), "{log}");
    }
    let uid = Uid::effective();
    let list = server.admin("show connections");
    assert_eq!(list.matches(&format!("\tunix:{uid}\t")).count(), CONNECTIONS + 4, "{list}");
    drop((streams, unix));
    wait_until("their ends", || {
        let list = server.admin("show connections");
        (list.matches("\tunix:").count() == 3).then_some(())
    });
    server.stop();
}

fn a_list_tells_users_of_unix_sockets_apart(contender: Contender) {
    let (folder, path) = socket();
    let list = folder.path().join("access.toml");
    let own = User::from_uid(Uid::effective()).ok().flatten().expect("a user with a name");
    let rule = |user: &str| {
        let text = format!("[[rule]]\nwho = {{ user = [{user}] }}\nmay = [\"submit\"]\n");
        fs::write(&list, text).expect("the folder is writable");
    };
    let option = format!("--access-file={}", list.display());
    let (name, number) = (format!("{:?}", own.name), own.uid.to_string());
    let other = (own.uid.as_raw() + 1).to_string();
    for (user, is_allowed) in [(&name, true), (&number, true), (&other, false)] {
        rule(user);
        let Some(server) = start(contender, &path, &[&option]) else { return };
        let submit = |mut client: TcpStream| {
            send(&mut client, Command::SubmitJobBg, &[b"f", b""], b"x");
            receive(&mut client).expect("an answer")
        };
        let (command, body) = submit(connect(&path));
        if is_allowed {
            assert_eq!(command, Command::JobCreated, "{user}");
        } else {
            let text = format!("PERMISSION_DENIED\0user:{} may not submit f", own.name);
            assert_eq!((command, &*String::from_utf8_lossy(&body)), (Command::Error, &*text));
        }
        let (command, _) = submit(server.connect());
        assert_eq!(command, Command::Error, "TCP has no users");
    }
}

fn the_file_of_a_socket_is_there_as_long_as_its_server(contender: Contender) {
    let (_folder, path) = socket();
    let mode_of = |path: &Path| {
        let found = fs::symlink_metadata(path).expect("it is there");
        assert!(found.file_type().is_socket());
        found.permissions().mode() & 0o777
    };
    let Some(server) = start(contender, &path, &[]) else { return };
    assert_eq!(mode_of(&path), 0o660);
    let own = format!("{}:{}", Uid::effective(), nix::unistd::Gid::effective());
    let (driver, _) = contender.driver();
    let listen = format!("unix:{}", path.display());
    let second = Server::launch(driver, 0, &["--listen", &listen]);
    let sentence = second.wait_for_failure();
    assert!(sentence.starts_with("cannot listen on unix:"), "{sentence}");
    assert!(sentence.contains(": another server listens there; stop that one"), "{sentence}");
    echo(&mut connect(&path), b"untouched");
    server.kill();
    assert!(path.exists());
    let options = ["--unix-mode", "0622", "--unix-owner", &own];
    let server = start(contender, &path, &options).expect("it started before");
    assert_eq!(mode_of(&path), 0o622);
    echo(&mut connect(&path), b"replaced");
    server.stop();
    assert!(!path.exists());
}

fn each_listener_has_a_port_of_its_own(contender: Contender) {
    let listeners = ["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"];
    let Some(server) = Server::start_with(contender, &listeners) else { return };
    let ports = wait_until("both ports", || {
        let log = server.log();
        let after = log.split("listening on 127.0.0.1:").skip(1);
        let digits = after.map(|rest| rest.split(|it: char| !it.is_ascii_digit()).next());
        let ports: Vec<u16> = digits.map(|it| it?.parse().ok()).collect::<Option<_>>()?;
        (ports.len() == 2 && log.ends_with('\n')).then_some(ports)
    });
    assert_ne!(ports[0], ports[1]);
    for port in ports {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        echo(&mut stream, b"here");
    }
}
