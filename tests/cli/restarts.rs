//! Restarts that no client notices: a socket that outlives the servers, `--drain`, and a store.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::{Condvar, Mutex};

use nix::sys::signal::Signal;

use super::passed::start;
use super::{DEADLINE, at, directory, has_rings_for};

const RESTARTS: usize = 10;
/// Clients at a time, and how many come one after another in each restart: 1000 in all.
const CLIENTS: usize = 50;
const VISITS: usize = 2;

const SUBMIT_JOB_BG: u32 = 18;
const JOB_CREATED: u32 = 8;
const CAN_DO: u32 = 1;
const GRAB_JOB: u32 = 9;
const NO_JOB: u32 = 10;
const WORK_COMPLETE: u32 = 13;

fn packet(kind: u32, body: &[u8]) -> Vec<u8> {
    let bytes = u32::try_from(body.len()).unwrap();
    [b"\0REQ", &kind.to_be_bytes()[..], &bytes.to_be_bytes(), body].concat()
}

/// The kind and the body of the next packet.
fn receive(stream: &mut TcpStream) -> std::io::Result<(u32, Vec<u8>)> {
    let mut header = [0; 12];
    stream.read_exact(&mut header)?;
    let number = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
    let mut body = vec![0; number(8) as usize];
    stream.read_exact(&mut body)?;
    Ok((number(4), body))
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("no connection is refused");
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Comes, submits a job, and leaves once it is accepted.
fn submit(address: SocketAddr, payload: &str) {
    let mut stream = connect(address);
    let body = [b"f\0\0", payload.as_bytes()].concat();
    stream.write_all(&packet(SUBMIT_JOB_BG, &body)).expect("no connection is reset");
    let (kind, _) = receive(&mut stream).expect("what came to a server is answered");
    assert_eq!(kind, JOB_CREATED);
}

/// The payloads of all jobs.
fn work_off(address: SocketAddr) -> Vec<String> {
    let mut worker = connect(address);
    worker.write_all(&packet(CAN_DO, b"f")).unwrap();
    let mut payloads = Vec::new();
    loop {
        worker.write_all(&packet(GRAB_JOB, b"")).unwrap();
        let (kind, body) = receive(&mut worker).unwrap();
        if kind == NO_JOB {
            return payloads;
        }
        let mut fields = body.splitn(3, |&byte| byte == 0);
        let (handle, payload) = (fields.next().unwrap(), fields.nth(1).unwrap());
        payloads.push(String::from_utf8(payload.to_vec()).unwrap());
        worker.write_all(&packet(WORK_COMPLETE, &[handle, b"\0"].concat())).unwrap();
    }
}

fn no_client_notices(line: &str) {
    let (_guard, folder) = directory();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let unix = UnixListener::bind(folder.join("g.sock")).unwrap();
    let address = tcp.local_addr().unwrap();
    let store = folder.join("jobs.db");
    let line = format!("--ring-entries=64 --drain 20 --store=sqlite:{} {line}", at(&store));
    let serve = || {
        let sockets = [tcp.try_clone().unwrap().into(), unix.try_clone().unwrap().into()];
        let mut server = start(sockets, &line);
        server.wait_for("listening on fd:gearman");
        server
    };
    // How many restarts have begun: some visits belong to each.
    let (begun, has_begun) = (Mutex::new(0), Condvar::new());
    let visit = |client: usize| {
        let mut payloads = Vec::new();
        for restart in 1..=RESTARTS {
            drop(has_begun.wait_while(begun.lock().unwrap(), |begun| *begun < restart).unwrap());
            for at in 0..VISITS {
                let payload = format!("{client}-{restart}-{at}");
                submit(address, &payload);
                payloads.push(payload);
            }
        }
        payloads
    };
    let (server, accepted) = std::thread::scope(|scope| {
        let visit = &visit;
        let mut server = serve();
        let clients: Vec<_> =
            (0..CLIENTS).map(|client| scope.spawn(move || visit(client))).collect();
        for restart in 1..=RESTARTS {
            *begun.lock().unwrap() = restart;
            has_begun.notify_all();
            assert!(server.end(Signal::SIGTERM).success());
            server = serve();
        }
        let payloads = clients.into_iter().map(|client| client.join().expect("it went on"));
        (server, payloads.flatten().collect::<Vec<_>>())
    });
    assert_eq!(accepted.len(), CLIENTS * RESTARTS * VISITS);
    let done = work_off(address);
    assert_eq!(done.len(), accepted.len(), "no job is lost, and none is there twice");
    assert_eq!(done.iter().collect::<BTreeSet<_>>(), accepted.iter().collect::<BTreeSet<_>>());
    assert!(server.end(Signal::SIGTERM).success());
}

#[test]
fn no_client_notices_ten_restarts_with_epoll() {
    no_client_notices("--io epoll");
}

#[test]
fn no_client_notices_ten_restarts_with_several_cores() {
    no_client_notices("--io epoll -t 3");
}

#[test]
fn no_client_notices_ten_restarts_with_rings() {
    // Where the kernel refuses them it is epoll.
    no_client_notices("--io auto -t 2");
}

#[test]
fn no_client_notices_ten_restarts_with_glommio() {
    let line = "--io glommio -t 2";
    if has_rings_for(line) {
        no_client_notices(line);
    }
}
