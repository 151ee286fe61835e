//! A worker on a thread: it ends with its server.

use std::net::SocketAddr;

use crate::conn::{Conn, Item};

const FUNCTIONS: [&str; 5] = ["reverse", "fail", "throw", "parts", "break-off"];

/// Starts it. `reverse` returns its payload the other way round, `fail` and `throw` fail, `parts`
/// sends data, a warning and more data before its result, `break-off` sends data and fails.
pub(super) fn start(address: SocketAddr) {
    let mut worker = Conn::open(address);
    for function in FUNCTIONS {
        worker.packet("CAN_DO", &[function.as_bytes()]);
    }
    worker.sync().expect("registered");
    std::thread::spawn(move || while work(&mut worker) {});
}

/// Runs a job, or waits for one; `false` once the server is gone or has none for long.
fn work(worker: &mut Conn) -> bool {
    worker.packet("GRAB_JOB", &[]);
    let body = loop {
        match worker.next() {
            Ok(Item::Packet(11, body)) => break body,
            Ok(Item::Packet(10, _)) => worker.packet("PRE_SLEEP", &[]),
            Ok(Item::Packet(6, _)) => return true,
            _ => return false,
        }
    };
    let mut parts = body.splitn(3, |&byte| byte == 0);
    let mut part = || parts.next().expect("a part").to_vec();
    let (handle, function, mut payload) = (part(), part(), part());
    let mut say = |name: &str, text: &[u8]| worker.packet(name, &[&handle, text]);
    match &function[..] {
        b"reverse" => {
            payload.reverse();
            say("WORK_COMPLETE", &payload);
        }
        b"throw" => say("WORK_EXCEPTION", b"no such \"file\""),
        b"parts" => {
            say("WORK_DATA", b"one ");
            say("WORK_WARNING", b"careful");
            say("WORK_DATA", b"two ");
            say("WORK_COMPLETE", b"three");
        }
        b"break-off" => {
            say("WORK_DATA", b"one ");
            worker.packet("WORK_FAIL", &[&handle]);
        }
        _ => worker.packet("WORK_FAIL", &[&handle]),
    }
    true
}
