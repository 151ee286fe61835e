//! A fuzzer's end of a connection: bytes in one write, what came, and the ways to end.
//!
//! Packets are cut by the server tests' `conn`, which is written from the protocol's text. Knows
//! nothing of jobs. Invariant: what `take` gives came before the answer to the last barrier.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::conn::{Conn, Item, PATIENCE};
use crate::operations::Bytes;

/// Packets that are no answers: a worker said something of a job.
const WORK: [u32; 6] = [12, 13, 14, 25, 28, 29];
const NOOP: u32 = 6;

/// What came on one connection, each kind in its order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received {
    /// Answers to requests, text lines, and the end.
    pub(crate) replies: Vec<Item>,
    /// WORK_* packets.
    pub(crate) works: Vec<Item>,
    /// How many NOOPs.
    pub(crate) noops: usize,
}

impl Received {
    /// Sorts what came by kind.
    pub(crate) fn of(items: Vec<Item>) -> Self {
        let mut received = Self::default();
        for item in items {
            match item {
                Item::Packet(NOOP, _) => received.noops += 1,
                Item::Packet(number, _) if WORK.contains(&number) => received.works.push(item),
                _ => received.replies.push(item),
            }
        }
        received
    }
}

/// One connection.
pub(crate) struct Connection {
    conn: Conn,
}

impl Connection {
    /// Connects; a server of several cores has to have all of them answer a barrier.
    pub(crate) fn open(address: SocketAddr, cores: usize) -> Self {
        let mut conn = Conn::open(address);
        conn.asks_all_cores = cores > 1;
        Self { conn }
    }

    /// Sends with one write.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.conn.send(bytes);
    }

    /// Waits until the server has dealt with all that was sent.
    pub(crate) fn barrier(&mut self) -> Result<(), String> {
        self.conn.sync()
    }

    /// What has come.
    pub(crate) fn take(&mut self) -> Vec<Item> {
        let mut items = Vec::new();
        while self.conn.unexpected().is_some() {
            items.extend(self.conn.next());
        }
        items
    }

    /// The next packet or line, waited for.
    pub(crate) fn next(&mut self) -> Result<Item, String> {
        self.conn.next().map_err(|_| "no answer".to_owned())
    }

    /// All that comes up to the end of the connection, and the end.
    pub(crate) fn read_to_end(&mut self) -> Result<Vec<Item>, String> {
        let mut items = Vec::new();
        loop {
            let next = self.conn.next();
            let item = next.map_err(|_| format!("no end of the connection, but {items:?}"))?;
            items.push(item);
            if items.last() == Some(&Item::End) {
                return Ok(items);
            }
        }
    }

    /// Asks for a list; its lines.
    pub(crate) fn list(&mut self, command: &str) -> Result<Vec<Bytes>, String> {
        self.send(&[command.as_bytes(), b"\n"].concat());
        let mut rows = Vec::new();
        loop {
            match self.next()? {
                Item::Line(line) if line == b".\n" => return Ok(rows),
                Item::Line(line) => rows.push(line),
                other => return Err(format!("{other:?} within a list")),
            }
        }
    }

    /// Asks for `workers` until the list has only this one and so many others.
    pub(crate) fn wait_until_gone(&mut self, others: usize) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while self.list("workers")?.len() > 1 + others {
            if Instant::now() > deadline {
                return Err("a connection that has ended stays in the list of workers".to_owned());
            }
        }
        Ok(())
    }

    /// Asks for `status`: functions with their jobs, those that run, and workers.
    pub(crate) fn status(&mut self) -> Result<Vec<(Bytes, [usize; 3])>, String> {
        let rows = self.list("status")?;
        rows.into_iter()
            .map(|row| parse(&row).ok_or_else(|| format!("{row:?} in `status`")))
            .collect()
    }

    /// FIN: nothing more will be sent.
    pub(crate) fn half_close(&mut self) {
        self.conn.half_close();
    }

    /// Closes; with `reset`, by RST.
    pub(crate) fn close(self, reset: bool) {
        if reset {
            let socket = socket2::SockRef::from(&self.conn.stream);
            socket.set_linger(Some(Duration::ZERO)).expect("a TCP option");
        }
    }
}

fn parse(row: &[u8]) -> Option<(Bytes, [usize; 3])> {
    let mut words = row.strip_suffix(b"\n")?.split(|&byte| byte == b'\t');
    let name = words.next()?.to_vec();
    let mut number = || std::str::from_utf8(words.next()?).ok()?.parse().ok();
    Some((name, [number()?, number()?, number()?]))
}
