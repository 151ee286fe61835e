//! Packets on a blocking socket, for tests: written with the server's own encoder, read back whole.

use std::io::{Read, Write};
use std::net::TcpStream;

use ringgear::wire::{Command, HEADER_BYTES, Magic, encode, header};

/// The bytes of a request.
pub(crate) fn request(command: Command, arguments: &[&[u8]], payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes, Magic::Request, command, arguments, payload);
    bytes
}

/// Sends a request.
pub(crate) fn send(stream: &mut TcpStream, command: Command, arguments: &[&[u8]], payload: &[u8]) {
    stream.write_all(&request(command, arguments, payload)).expect("the server reads");
}

/// Reads one packet; `None` at the end of the connection.
pub(crate) fn receive(stream: &mut TcpStream) -> Option<(Command, Vec<u8>)> {
    let mut head = [0; HEADER_BYTES];
    stream.read_exact(&mut head).ok()?;
    let header = header(&head).expect("a header");
    assert_eq!(header.magic, Magic::Response);
    let mut body = vec![0; header.body_bytes as usize];
    stream.read_exact(&mut body).ok()?;
    Some((header.command, body))
}

/// Reads one packet that must be `command`; answers with its body.
pub(crate) fn expect(stream: &mut TcpStream, command: Command) -> Vec<u8> {
    let (got, body) = receive(stream).unwrap_or_else(|| panic!("closed before {command:?}"));
    assert_eq!(got, command, "{}", body.escape_ascii());
    body
}

/// Proves that the server has handled everything sent on this connection before.
pub(crate) fn echo(stream: &mut TcpStream, payload: &[u8]) {
    send(stream, Command::EchoReq, &[], payload);
    assert_eq!(expect(stream, Command::EchoRes), payload);
}
