//! Large payloads there and back, streamed by the test so that the memory counted is the server's.
//!
//! The bytes are a pattern with a counter every 64 KiB, so one that is lost, doubled or moved is
//! noticed. A gigabyte goes only where the machine has the memory for it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::conn::{Conn, Item, NAMES, named, packet_type, request};
use crate::harness::{Contender, Server, each_contender};
use crate::skips::skip;

const BLOCK: usize = 64 * 1024;
const HEADER: usize = 12;
const MIB: u64 = 1024 * 1024;
const STREAM_PATIENCE: Duration = Duration::from_secs(60);

each_contender!(
    a_payload_of_256_mib_goes_there_and_its_result_back,
    a_thousand_pipelined_echoes_of_two_kilobytes_come_back_to_a_late_reader,
    a_megabyte_goes_to_a_worker_that_reads_late,
);

fn a_payload_of_256_mib_goes_there_and_its_result_back(contender: Contender) {
    let Some(server) = Server::start(contender) else { return };
    there_and_back(&server, 256 * MIB);
}

#[test]
fn a_payload_of_one_gib_goes_there_and_its_result_back() {
    let needed = 4 * 1024 * MIB;
    let contender = Contender::RinggearUring;
    if memory_available_bytes() < needed {
        skip(&format!("not {needed} bytes of free memory"));
    } else if contender.is_here() {
        let server = Server::start(contender).expect("ours is here");
        there_and_back(&server, 1024 * MIB);
    }
}

/// gearmand's own test-suite does this; a server that waits for its reader dead-locks.
fn a_thousand_pipelined_echoes_of_two_kilobytes_come_back_to_a_late_reader(contender: Contender) {
    let Some(server) = Server::start(contender) else { return };
    let mut conn = Conn::open(server.address());
    let payloads: Vec<Vec<u8>> = (0..1000).map(|n: u32| n.to_be_bytes().repeat(512)).collect();
    for payload in &payloads {
        conn.packet("ECHO_REQ", &[payload]);
    }
    for payload in payloads {
        assert!(conn.next().expect("an answer") == Item::Packet(17, payload));
    }
}

fn a_megabyte_goes_to_a_worker_that_reads_late(contender: Contender) {
    let Some(server) = Server::start(contender) else { return };
    let (mut client, mut worker) = (Conn::open(server.address()), Conn::open(server.address()));
    worker.packet("CAN_DO", &[b"f"]);
    worker.sync().expect("registered");
    let payload = vec![7; 1024 * 1024];
    for _ in 0..50 {
        client.packet("SUBMIT_JOB_BG", &[b"f", b"", &payload]);
        assert!(matches!(client.next(), Ok(Item::Packet(8, _))));
        worker.packet("GRAB_JOB", &[]);
    }
    // Another connection is served while fifty megabytes wait for the worker to read.
    client.sync().expect("the server isn't held up");
    for _ in 0..50 {
        let Ok(Item::Packet(11, body)) = worker.next() else { panic!("no JOB_ASSIGN") };
        assert!(body.ends_with(&payload));
    }
}

fn there_and_back(server: &Server, size: u64) {
    a_large_job(&mut stream(server), &mut stream(server), size);
    assert!(server.admin("status").contains("large\t0\t0\t1\n"));
}

/// A foreground job of that size, whose worker answers with as much.
pub(crate) fn a_large_job<S: Read + Write + Send>(client: &mut S, worker: &mut S, size: u64) {
    write(worker, &named("CAN_DO", &[b"large"]));
    send_large(client, "SUBMIT_JOB", b"large\0\0", size);
    let (number, len) = receive_header(client);
    assert_eq!(number, packet_type("JOB_CREATED").expect("its name"));
    let handle = receive(client, len);

    write(worker, &named("GRAB_JOB", &[]));
    let before = [handle.as_slice(), b"\0large\0"].concat();
    receive_large(worker, "JOB_ASSIGN", &before, size);

    let before = [handle.as_slice(), b"\0"].concat();
    std::thread::scope(|scope| {
        scope.spawn(|| send_large(worker, "WORK_COMPLETE", &before, size));
        receive_large(client, "WORK_COMPLETE", &before, size);
    });
}

fn stream(server: &Server) -> TcpStream {
    let stream = server.connect();
    stream.set_read_timeout(Some(STREAM_PATIENCE)).expect("a TCP option");
    stream.set_write_timeout(Some(STREAM_PATIENCE)).expect("a TCP option");
    stream
}

fn write(stream: &mut impl Write, bytes: &[u8]) {
    stream.write_all(bytes).expect("the server reads");
}

/// The counter stands at a block's start; the rest is the same in all.
fn block(at: u64, block: &mut [u8]) {
    block[..8].copy_from_slice(&at.to_be_bytes());
}

fn empty_block() -> Vec<u8> {
    (0..=255).cycle().take(BLOCK).collect()
}

fn send_large(stream: &mut impl Write, name: &str, before: &[u8], size: u64) {
    let len = u32::try_from(before.len() as u64 + size).expect("under 4 GiB");
    let mut header = request(packet_type(name).expect("a packet's name"), before);
    header[8..HEADER].copy_from_slice(&len.to_be_bytes());
    write(stream, &header);
    let mut bytes = empty_block();
    for at in 0..size / BLOCK as u64 {
        block(at, &mut bytes);
        write(stream, &bytes);
    }
}

fn receive_large(stream: &mut impl Read, name: &str, before: &[u8], size: u64) {
    let (number, len) = receive_header(stream);
    let got = usize::try_from(number).ok().and_then(|at| NAMES.get(at));
    assert_eq!(got, Some(&name));
    assert_eq!(len as u64, before.len() as u64 + size);
    assert_eq!(receive(stream, before.len()), before);
    let (mut expected, mut bytes) = (empty_block(), vec![0; BLOCK]);
    for at in 0..size / BLOCK as u64 {
        block(at, &mut expected);
        stream.read_exact(&mut bytes).expect("the payload goes on");
        assert!(bytes == expected, "block {at} of {name} isn't what was sent");
    }
}

fn receive_header(stream: &mut impl Read) -> (u32, usize) {
    let header = receive(stream, HEADER);
    assert_eq!(&header[..4], b"\0RES");
    let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("4 bytes"));
    (word(4), usize::try_from(word(8)).expect("64 bits"))
}

fn receive(stream: &mut impl Read, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).expect("the server answers");
    bytes
}

fn memory_available_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("a Linux kernel");
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.expect("a number of KiB") * 1024
}
