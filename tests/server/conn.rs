//! A test's own end of a connection: sends bytes, cuts what comes back into packets and text lines.
//!
//! Written from the protocol text and not from the server's code, so that a mistake made there
//! isn't made twice. `sync` is how a test knows that the server has dealt with everything sent
//! before.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);

const MAGIC_REQ: &[u8; 4] = b"\0REQ";
const MAGIC_RES: &[u8; 4] = b"\0RES";
const HEADER_BYTES: usize = 12;

/// Packet names by type number.
pub(crate) const NAMES: [&str; 43] = [
    "TEXT",
    "CAN_DO",
    "CANT_DO",
    "RESET_ABILITIES",
    "PRE_SLEEP",
    "UNUSED",
    "NOOP",
    "SUBMIT_JOB",
    "JOB_CREATED",
    "GRAB_JOB",
    "NO_JOB",
    "JOB_ASSIGN",
    "WORK_STATUS",
    "WORK_COMPLETE",
    "WORK_FAIL",
    "GET_STATUS",
    "ECHO_REQ",
    "ECHO_RES",
    "SUBMIT_JOB_BG",
    "ERROR",
    "STATUS_RES",
    "SUBMIT_JOB_HIGH",
    "SET_CLIENT_ID",
    "CAN_DO_TIMEOUT",
    "ALL_YOURS",
    "WORK_EXCEPTION",
    "OPTION_REQ",
    "OPTION_RES",
    "WORK_DATA",
    "WORK_WARNING",
    "GRAB_JOB_UNIQ",
    "JOB_ASSIGN_UNIQ",
    "SUBMIT_JOB_HIGH_BG",
    "SUBMIT_JOB_LOW",
    "SUBMIT_JOB_LOW_BG",
    "SUBMIT_JOB_SCHED",
    "SUBMIT_JOB_EPOCH",
    "SUBMIT_REDUCE_JOB",
    "SUBMIT_REDUCE_JOB_BACKGROUND",
    "GRAB_JOB_ALL",
    "JOB_ASSIGN_ALL",
    "GET_STATUS_UNIQUE",
    "STATUS_RES_UNIQUE",
];

/// The number of a packet that is named, or given as a number.
pub(crate) fn packet_type(name: &str) -> Option<u32> {
    match NAMES.iter().position(|&known| known == name) {
        Some(number) => u32::try_from(number).ok(),
        None => name.parse().ok(),
    }
}

/// A packet to the server.
pub(crate) fn request(packet_type: u32, body: &[u8]) -> Vec<u8> {
    encode(*MAGIC_REQ, packet_type, body)
}

/// A packet to the server that claims to come from one.
pub(crate) fn response(packet_type: u32, body: &[u8]) -> Vec<u8> {
    encode(*MAGIC_RES, packet_type, body)
}

/// A named packet with its arguments separated by NUL.
pub(crate) fn named(name: &str, arguments: &[&[u8]]) -> Vec<u8> {
    request(packet_type(name).expect("a packet's name"), &arguments.join(&0))
}

fn encode(magic: [u8; 4], packet_type: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    bytes.extend(packet_type.to_be_bytes());
    bytes.extend(u32::try_from(body.len()).expect("bodies are under 4 GiB").to_be_bytes());
    bytes.extend(body);
    bytes
}

/// What the server sent.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// A packet: type number and body.
    Packet(u32, Vec<u8>),
    /// A line of text with its line end.
    Line(Vec<u8>),
    /// The connection has ended, or was reset.
    End,
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packet(number, body) => {
                let name = usize::try_from(*number).ok().and_then(|at| NAMES.get(at));
                write!(f, "{} {}", name.unwrap_or(&"?"), readable(body))
            }
            Self::Line(line) => write!(f, "text {}", readable(line)),
            Self::End => write!(f, "end of the connection"),
        }
    }
}

/// Bytes for people: NUL as `|`, what doesn't print escaped, the middle of much left out.
pub(crate) fn readable(bytes: &[u8]) -> String {
    let text = |part: &[u8]| part.escape_ascii().to_string().replace("\\x00", "|");
    match bytes.len() {
        0..=400 => text(bytes),
        len => format!("{}…({len} bytes)…{}", text(&bytes[..100]), text(&bytes[len - 100..])),
    }
}

/// Why nothing came.
#[derive(Debug)]
pub(crate) struct Silence;

/// One connection to a server.
pub(crate) struct Conn {
    pub(crate) stream: TcpStream,
    /// Whether what it sends and receives is in TLS records.
    tls: Option<ClientConnection>,
    unread: Vec<u8>,
    arrived: VecDeque<Item>,
    ended: bool,
    half_closed: bool,
    syncs: u32,
    /// Send every byte by itself.
    pub(crate) byte_by_byte: bool,
    /// The server has several cores: `sync` asks something that each of them has to answer.
    pub(crate) asks_all_cores: bool,
}

impl Conn {
    pub(crate) fn open(address: SocketAddr) -> Self {
        Self::try_open(address, PATIENCE).expect("the server accepts")
    }

    /// A connection to a server that may not accept it, or not within `patience`.
    pub(crate) fn try_open(address: SocketAddr, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            tls: None,
            unread: Vec::new(),
            arrived: VecDeque::new(),
            ended: false,
            half_closed: false,
            syncs: 0,
            byte_by_byte: false,
            asks_all_cores: false,
        })
    }

    /// A connection to a listener that speaks TLS, whose certificate is for `name`.
    pub(crate) fn open_tls(address: SocketAddr, config: Arc<ClientConfig>, name: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut tls = ClientConnection::new(config, name).expect("a configuration that fits");
        tls.set_buffer_limit(None);
        let mut conn = Self::open(address);
        conn.stream.set_read_timeout(Some(PATIENCE)).expect("a TCP option");
        while tls.is_handshaking() {
            tls.complete_io(&mut conn.stream).expect("a handshake");
        }
        Self { tls: Some(tls), ..conn }
    }

    /// Sends; a connection that the server has closed shows it when read from.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let records = self.tls.as_mut().map(|tls| {
            tls.writer().write_all(bytes).expect("memory");
            records_of(tls)
        });
        let bytes = records.as_deref().unwrap_or(bytes);
        let pieces = if self.byte_by_byte { 1 } else { bytes.len().max(1) };
        for piece in bytes.chunks(pieces) {
            if self.stream.write_all(piece).is_err() {
                return;
            }
        }
    }

    pub(crate) fn packet(&mut self, name: &str, arguments: &[&[u8]]) {
        self.send(&named(name, arguments));
    }

    pub(crate) fn half_close(&mut self) {
        self.half_closed = true;
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let records = records_of(tls);
            self.stream.write_all(&records).ok();
        }
        self.stream.shutdown(Shutdown::Write).ok();
    }

    /// Neither side has closed it, as far as is known.
    pub(crate) fn is_open(&self) -> bool {
        !self.ended && !self.half_closed
    }

    /// The next packet or line.
    pub(crate) fn next(&mut self) -> Result<Item, Silence> {
        self.next_within(PATIENCE)
    }

    pub(crate) fn next_within(&mut self, patience: Duration) -> Result<Item, Silence> {
        match self.arrived.pop_front() {
            Some(item) => Ok(item),
            None => self.receive(Instant::now() + patience),
        }
    }

    /// Has the server deal with all that was sent before; what comes meanwhile is kept for `next`.
    pub(crate) fn sync(&mut self) -> Result<(), String> {
        self.syncs += 1;
        let token = format!("sync-{}", self.syncs).into_bytes();
        // What the cores have written to each other before arrives before this.
        let status = [&token[..], b"\x000\x000\x000\x000\x000"].concat();
        if self.asks_all_cores {
            self.packet("GET_STATUS_UNIQUE", &[&token]);
        }
        self.packet("ECHO_REQ", &[&token]);
        let deadline = Instant::now() + PATIENCE;
        let (status, answer) = (Item::Packet(42, status), Item::Packet(17, token));
        loop {
            match self.receive(deadline) {
                Ok(item) if item == answer => return Ok(()),
                Ok(item) if item == status => {}
                Ok(Item::End) => return Err("end of the connection".to_owned()),
                Ok(item) => self.arrived.push_back(item),
                Err(Silence) => return Err("no answer to ECHO_REQ".to_owned()),
            }
        }
    }

    /// What has come in and hasn't been asked for.
    pub(crate) fn unexpected(&self) -> Option<&Item> {
        self.arrived.front()
    }

    fn receive(&mut self, deadline: Instant) -> Result<Item, Silence> {
        loop {
            if let Some(item) = cut(&mut self.unread) {
                return Ok(item);
            }
            if self.ended {
                return Ok(Item::End);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Silence);
            }
            self.stream.set_read_timeout(Some(left)).expect("a TCP option");
            let mut bytes = [0; 65536];
            match self.stream.read(&mut bytes) {
                Ok(0) => self.ended = true,
                Ok(n) => match &mut self.tls {
                    Some(tls) => self.ended |= open_records(tls, &bytes[..n], &mut self.unread),
                    None => self.unread.extend(&bytes[..n]),
                },
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.ended = true,
            }
        }
    }
}

/// What the client's side of TLS has to send.
fn records_of(tls: &mut ClientConnection) -> Vec<u8> {
    let mut records = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut records).expect("memory");
    }
    records
}

/// Appends what is in records to `unread`; whether the server has said that it was the last.
fn open_records(tls: &mut ClientConnection, mut records: &[u8], unread: &mut Vec<u8>) -> bool {
    let mut has_ended = false;
    while !records.is_empty() && !has_ended {
        tls.read_tls(&mut records).expect("memory");
        has_ended = tls.process_new_packets().expect("the server's records").peer_has_closed();
        // Without an end it would block now.
        tls.reader().read_to_end(unread).ok();
    }
    has_ended
}

fn cut(unread: &mut Vec<u8>) -> Option<Item> {
    if unread.first()? != &0 {
        let end = unread.iter().position(|&byte| byte == b'\n')? + 1;
        return Some(Item::Line(unread.drain(..end).collect()));
    }
    let header = unread.get(..HEADER_BYTES)?;
    assert_eq!(&header[..4], MAGIC_RES, "the server's packets begin with its magic");
    let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("4 bytes"));
    let (packet_type, len) = (word(4), usize::try_from(word(8)).expect("64 bits"));
    let body = unread.get(HEADER_BYTES..HEADER_BYTES + len)?.to_vec();
    unread.drain(..HEADER_BYTES + len);
    Some(Item::Packet(packet_type, body))
}
