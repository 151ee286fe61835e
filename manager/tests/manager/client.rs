//! A client: jobs in, what became of each out.

use std::collections::HashMap;
use std::net::SocketAddr;

use ringgear::wire::Command;

use crate::child::PATIENCE;
use crate::conn::{Conn, Item, readable};

/// How a job ended.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    Complete(Vec<u8>),
    Fail,
    Exception(Vec<u8>),
}

impl std::fmt::Debug for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Complete(result) => write!(f, "complete {}", readable(result)),
            Self::Fail => write!(f, "fail"),
            Self::Exception(text) => write!(f, "exception {}", readable(text)),
        }
    }
}

/// All that a client was told about a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) statuses: Vec<String>,
    pub(crate) data: Vec<u8>,
    pub(crate) warnings: Vec<u8>,
    pub(crate) ending: Option<Ending>,
}

/// A job's handle.
pub(crate) type Handle = Vec<u8>;

/// A connection that submits jobs and is told of exceptions.
pub(crate) struct Client {
    conn: Conn,
    told: HashMap<Handle, Told>,
    created: Vec<Handle>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let mut conn = Conn::open(address);
        conn.packet("OPTION_REQ", &[b"exceptions"]);
        assert!(matches!(conn.next(), Ok(Item::Packet(27, _))), "OPTION_RES");
        Self { conn, told: HashMap::new(), created: Vec::new() }
    }

    /// Runs a job to its end.
    pub(crate) fn run(&mut self, function: &str, payload: &[u8]) -> Told {
        let handle = self.submit(function, payload);
        self.wait(&handle)
    }

    /// Runs a job to its end; the end alone.
    pub(crate) fn ending(&mut self, function: &str, payload: &[u8]) -> Ending {
        self.run(function, payload).ending.unwrap()
    }

    pub(crate) fn submit(&mut self, function: &str, payload: &[u8]) -> Handle {
        self.submit_with("SUBMIT_JOB", function, "", payload)
    }

    /// Submits by a packet of this name, with a unique key.
    pub(crate) fn submit_with(
        &mut self,
        packet: &str,
        function: &str,
        unique: &str,
        payload: &[u8],
    ) -> Handle {
        self.send(packet, function, unique, payload);
        while self.created.is_empty() {
            self.receive();
        }
        self.created.remove(0)
    }

    /// Submits without waiting for the handle.
    pub(crate) fn send(&mut self, packet: &str, function: &str, unique: &str, payload: &[u8]) {
        self.conn.packet(packet, &[function.as_bytes(), unique.as_bytes(), payload]);
    }

    /// Waits for a job's end.
    pub(crate) fn wait(&mut self, handle: &[u8]) -> Told {
        loop {
            if self.told.get(handle).is_some_and(|told| told.ending.is_some()) {
                return self.told.remove(handle).unwrap();
            }
            self.receive();
        }
    }

    fn receive(&mut self) {
        let item = self.conn.next_within(2 * PATIENCE);
        let Ok(Item::Packet(number, body)) = item else {
            panic!("no packet: {item:?}; so far {:?}", self.told);
        };
        let mut parts = body.splitn(2, |&byte| byte == 0);
        let handle = parts.next().unwrap().to_vec();
        let rest = parts.next().unwrap_or_default();
        let command = Command::from_number(number);
        if command == Some(Command::JobCreated) {
            return self.created.push(handle);
        }
        let told = self.told.entry(handle).or_default();
        assert_eq!(told.ending, None, "{command:?} after the end");
        match command {
            Some(Command::WorkStatus) => {
                told.statuses.push(String::from_utf8_lossy(rest).replace('\0', "/"));
            }
            Some(Command::WorkData) => told.data.extend(rest),
            Some(Command::WorkWarning) => told.warnings.extend(rest),
            Some(Command::WorkComplete) => told.ending = Some(Ending::Complete(rest.to_vec())),
            Some(Command::WorkFail) => told.ending = Some(Ending::Fail),
            Some(Command::WorkException) => told.ending = Some(Ending::Exception(rest.to_vec())),
            other => panic!("{other:?} for a client"),
        }
    }
}
