//! Peers that hold handshakes up, thousands of them, beside peers that work.
//!
//! gearmand's TLS spins on a single silent peer, and takes a whole core for it.

use std::io::Write as _;
use std::net::TcpStream;

use rustls::version::TLS13;

use super::Files;
use super::client::config;
use crate::conn::{Conn, Item};
use crate::harness::{Contender, each_ringgear, wait_until};

each_ringgear!(silent_peers_are_bounded_in_number_and_time_and_hold_nothing_else_up);

const SILENT: usize = 150;
const HALF_SAID: usize = 150;
const DRIBBLING: usize = 20;
/// What io_uring may have accepted when the last place is taken, for each core.
const ACCEPTS_IN_FLIGHT: usize = 32;

fn silent_peers_are_bounded_in_number_and_time_and_hold_nothing_else_up(contender: Contender) {
    if !contender.is_here() {
        return;
    }
    let files = Files::new();
    let (server, tls_address) = files.start_beside_plain(
        contender,
        &["--ssl-handshakes-max", "100", "--ssl-handshake-timeout", "1500"],
    );
    // The handshake of a client that says its first words and no more.
    let hello = [22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    let connect = || TcpStream::connect(tls_address).expect("the kernel accepts");
    let _silent: Vec<TcpStream> = (0..SILENT).map(|_| connect()).collect();
    let half_said: Vec<TcpStream> = (0..HALF_SAID).map(|_| connect()).collect();
    half_said.iter().for_each(|mut stream| drop(stream.write_all(&hello)));
    let dribbling: Vec<TcpStream> = (0..DRIBBLING).map(|_| connect()).collect();
    let mut client = Conn::open(server.address());
    let mut worker = Conn::open(server.address());
    worker.packet("CAN_DO", &[b"f"]);
    worker.sync().expect("it is served");
    let count = |name: &str| {
        let stats = server.admin("stats");
        let line = stats.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
        line.and_then(|value| value.parse::<usize>().ok()).expect(name)
    };
    let most = 100 * contender.cores();
    let mut is_over = false;
    while !is_over {
        dribbling.iter().for_each(|mut stream| drop(stream.write_all(&hello[..1])));
        assert!(count("tls_handshakes_open") <= most + contender.cores() * ACCEPTS_IN_FLIGHT);
        // Jobs go on as if nothing were.
        client.packet("SUBMIT_JOB", &[b"f", b"", b"x"]);
        assert!(matches!(client.next(), Ok(Item::Packet(8, _))));
        worker.packet("GRAB_JOB", &[]);
        let Ok(Item::Packet(11, body)) = worker.next() else { panic!("no job") };
        let handle = body.split(|&byte| byte == 0).next().expect("a handle").to_vec();
        worker.packet("WORK_COMPLETE", &[&handle, b"done"]);
        assert!(matches!(client.next(), Ok(Item::Packet(13, _))));
        is_over = count("tls_handshakes_timeout_total") >= SILENT + HALF_SAID;
    }
    let config = config(&files.authority.certificate, Some(&files.web1), &TLS13);
    let mut late = Conn::open_tls(tls_address, config, "jobs.example.com");
    late.sync().expect("it is served once others have gone");
    wait_until("no handshake is left", || (count("tls_handshakes_open") == 0).then_some(()));
    server.wait_for_log("the handshake took too long", |_| Some(()));
}
