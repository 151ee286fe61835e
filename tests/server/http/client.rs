//! A client of HTTP/1.1 that sends what a test says, right or wrong: a request in, an answer out.
//!
//! Works on any stream, so that it speaks TLS and Unix sockets, too. Adds `Host` and the length of
//! the body, unless the headers have them.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::harness::PATIENCE;

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// In the order of the answer, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The first header of a name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of an error, which has a message and a remedy besides.
    pub(crate) fn code(&self) -> String {
        let json = self.json();
        let error = &json["error"];
        for part in ["message", "remedy"] {
            assert!(error[part].as_str().is_some_and(|text| !text.is_empty()), "{self:?}");
        }
        error["code"].as_str().expect("a code").to_owned()
    }
}

/// A connection that gives up waiting after `PATIENCE`.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("an option");
    stream
}

/// A GET on a connection of its own.
pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, "GET", path, &[], b"")
}

/// A request on a connection of its own.
pub(crate) fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut stream = connect(address);
    exchange(&mut stream, method, path, headers, body).expect("an answer")
}

/// A request on a connection, which stays open.
pub(crate) fn exchange(
    stream: &mut (impl Read + Write),
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer, Error> {
    stream.write_all(&head(method, path, headers, body.len()))?;
    stream.write_all(body)?;
    stream.flush()?;
    read_answer(stream, method == "HEAD")
}

/// The head of a request.
pub(crate) fn head(method: &str, path: &str, headers: &[(&str, &str)], bytes: usize) -> Vec<u8> {
    let has = |name: &str| headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !has("host") {
        head.push_str("Host: localhost\r\n");
    }
    if !["GET", "HEAD"].contains(&method) && !has("content-length") && !has("transfer-encoding") {
        head.push_str(&format!("Content-Length: {bytes}\r\n"));
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// Reads an answer, and nothing behind it.
pub(crate) fn read_answer(stream: &mut impl Read, is_head: bool) -> Result<Answer, Error> {
    // One byte at a time: what follows is the next answer's.
    let mut lines = BufReader::with_capacity(1, stream);
    let first = line(&mut lines)?;
    let status = first.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.ok_or_else(|| Error::new(ErrorKind::InvalidData, first))?;
    let mut headers = Vec::new();
    loop {
        let line = line(&mut lines)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').expect("a header");
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut answer = Answer { status, headers, body: Vec::new() };
    if is_head || status == 204 {
        return Ok(answer);
    }
    if answer.header("transfer-encoding") == Some("chunked") {
        loop {
            let size = line(&mut lines)?;
            let size = usize::from_str_radix(&size, 16).expect("a size");
            let mut chunk = vec![0; size];
            lines.read_exact(&mut chunk)?;
            line(&mut lines)?;
            if size == 0 {
                break;
            }
            answer.body.extend(chunk);
        }
    } else if let Some(length) = answer.header("content-length") {
        answer.body = vec![0; length.parse().expect("a length")];
        lines.read_exact(&mut answer.body)?;
    } else {
        lines.read_to_end(&mut answer.body)?;
    }
    Ok(answer)
}

/// The next line, without its end.
fn line(lines: &mut impl BufRead) -> Result<String, Error> {
    let mut line = Vec::new();
    if lines.read_until(b'\n', &mut line)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    while line.last().is_some_and(|byte| b"\r\n".contains(byte)) {
        line.pop();
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}
