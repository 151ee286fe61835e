//! The relay on `io_uring`: submitted as the server's driver does, without what a relay doesn't
//! need.
//!
//! One ring; accepted sockets are direct descriptors; each has one multishot receive into a ring of
//! buffers, and at most one send in flight. All sends of a turn leave with the wait for the next.
//!
//! Invariant: bytes that the kernel may read are in `Connection::sending`, which isn't touched
//! until the send has completed; a connection's number is given away when nothing of it is in
//! flight.
#![allow(unsafe_code)]

use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result};
use io_uring::types::{BufRingEntry, Fd, Fixed};
use io_uring::{IoUring, cqueue, opcode, squeue};
use slab::Slab;

use super::{Outgoing, Relay};

const SUBMISSIONS: u32 = 4096;
const COMPLETIONS: u32 = 16384;
/// Direct descriptors that the kernel lets a ring have.
const FILES_MAX: usize = 1 << 20;
const BUFFER_GROUP: u16 = 0;
const BUFFERS: u16 = 512;
const BUFFER_BYTES: usize = 4 << 10;

/// The low bits of a completion's user data; the rest is the connection's key.
const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1;
const SEND: u64 = 2;
const CLOSE: u64 = 3;
const SHUTDOWN: u64 = 4;
const OPERATION_BITS: u32 = 3;

struct Connection {
    file: Fixed,
    sending: Outgoing,
    is_sending: bool,
    is_receiving: bool,
    is_ending: bool,
    is_closing: bool,
}

struct Uring {
    ring: IoUring,
    listener: Fd,
    relay: Relay,
    connections: Slab<Connection>,
    buffers: Buffers,
}

/// Serves as many connections as there may be `descriptors`.
pub(super) fn run(
    listener: &TcpListener,
    relay: Relay,
    descriptors: usize,
    ready: impl FnOnce(),
) -> Result<()> {
    let ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .setup_cqsize(COMPLETIONS)
        .build(SUBMISSIONS)
        .context("io_uring")?;
    let files = u32::try_from(descriptors.min(FILES_MAX))?;
    ring.submitter().register_files_sparse(files).context("direct descriptors")?;
    let buffers = Buffers::register(&ring).context("ring of buffers")?;
    let mut uring = Uring {
        ring,
        listener: Fd(listener.as_raw_fd()),
        relay,
        connections: Slab::new(),
        buffers,
    };
    uring.arm_accept()?;
    ready();
    let mut completions: Vec<cqueue::Entry> = Vec::new();
    loop {
        match uring.ring.submit_and_wait(1) {
            Err(error) if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY)) => {
                return Err(error.into());
            }
            _ => completions.extend(uring.ring.completion()),
        }
        for completion in completions.drain(..) {
            uring.handle(&completion)?;
        }
        uring.buffers.publish();
        while let Some(conn) = uring.relay.next_dirty() {
            uring.send(conn)?;
        }
    }
}

impl Uring {
    fn submit(&mut self, entry: squeue::Entry, operation: u64, key: usize) -> Result<()> {
        let entry = entry.user_data((key as u64) << OPERATION_BITS | operation);
        // SAFETY: an entry points to no memory but `sending` of its connection; see the module.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.ring.submit()?;
        }
        Ok(())
    }

    fn handle(&mut self, completion: &cqueue::Entry) -> Result<()> {
        let data = completion.user_data();
        let key = usize::try_from(data >> OPERATION_BITS)?;
        match data & ((1 << OPERATION_BITS) - 1) {
            ACCEPT => self.handle_accepted(completion),
            RECEIVE => self.handle_received(key, completion),
            SEND => self.handle_sent(key, completion.result()),
            CLOSE => {
                self.connections.remove(key);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn arm_accept(&mut self) -> Result<()> {
        let accept = opcode::AcceptMulti::new(self.listener).allocate_file_index(true).build();
        self.submit(accept, ACCEPT, 0)
    }

    fn handle_accepted(&mut self, completion: &cqueue::Entry) -> Result<()> {
        if let Ok(file) = u32::try_from(completion.result()) {
            let conn = self.connections.insert(Connection {
                file: Fixed(file),
                sending: Outgoing::default(),
                is_sending: false,
                is_receiving: false,
                is_ending: false,
                is_closing: false,
            });
            self.relay.connect(conn);
            self.arm_receive(conn)?;
        }
        if cqueue::more(completion.flags()) { Ok(()) } else { self.arm_accept() }
    }

    fn arm_receive(&mut self, conn: usize) -> Result<()> {
        let connection = &mut self.connections[conn];
        connection.is_receiving = true;
        let receive = opcode::RecvMulti::new(connection.file, BUFFER_GROUP).build();
        self.submit(receive, RECEIVE, conn)
    }

    fn handle_received(&mut self, conn: usize, completion: &cqueue::Entry) -> Result<()> {
        let result = completion.result();
        let connection = &mut self.connections[conn];
        if let Some(buffer) = cqueue::buffer_select(completion.flags()) {
            let bytes = self.buffers.bytes(buffer, usize::try_from(result).unwrap_or(0));
            if let Err(error) = self.relay.received(conn, bytes) {
                eprintln!("relay: {error}");
                connection.is_ending = true;
            }
            self.buffers.give_back(buffer);
        }
        connection.is_receiving = cqueue::more(completion.flags());
        connection.is_ending |= result <= 0 && result != -libc::ENOBUFS;
        match (connection.is_ending, connection.is_receiving) {
            (true, _) => self.end(conn),
            (false, false) => self.arm_receive(conn),
            (false, true) => Ok(()),
        }
    }

    fn send(&mut self, conn: usize) -> Result<()> {
        let connection = &mut self.connections[conn];
        if connection.is_sending || connection.is_ending {
            return Ok(());
        }
        let rest = connection.sending.rest(conn, &mut self.relay);
        if rest.is_empty() {
            return Ok(());
        }
        connection.is_sending = true;
        let bytes = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        let send = opcode::Send::new(connection.file, rest.as_ptr(), bytes)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        self.submit(send, SEND, conn)
    }

    fn handle_sent(&mut self, conn: usize, result: i32) -> Result<()> {
        let connection = &mut self.connections[conn];
        connection.is_sending = false;
        match usize::try_from(result) {
            Ok(bytes) => connection.sending.sent += bytes,
            Err(_) => connection.is_ending = true,
        }
        if connection.is_ending { self.end(conn) } else { self.send(conn) }
    }

    /// Takes a step towards closing: what is in flight has to end first.
    fn end(&mut self, conn: usize) -> Result<()> {
        self.relay.disconnect(conn);
        let connection = &mut self.connections[conn];
        let file = connection.file;
        if connection.is_receiving || connection.is_sending {
            self.submit(opcode::Shutdown::new(file, libc::SHUT_RDWR).build(), SHUTDOWN, conn)
        } else if !std::mem::replace(&mut connection.is_closing, true) {
            self.submit(opcode::Close::new(file).build(), CLOSE, conn)
        } else {
            Ok(())
        }
    }
}

#[repr(C, align(4096))]
#[derive(Clone)]
struct Page([u8; BUFFER_BYTES]);

/// The ring of receive buffers, which live as long as the process.
struct Buffers {
    ring: Vec<Page>,
    memory: Vec<Page>,
    tail: u16,
}

impl Buffers {
    fn register(ring: &IoUring) -> Result<Self> {
        let pages = |bytes: usize| vec![Page([0; BUFFER_BYTES]); bytes.div_ceil(BUFFER_BYTES)];
        let entries = pages(usize::from(BUFFERS) * size_of::<BufRingEntry>());
        let memory = pages(usize::from(BUFFERS) * BUFFER_BYTES);
        let mut buffers = Self { ring: entries, memory, tail: 0 };
        let address = buffers.ring.as_mut_ptr() as u64;
        // SAFETY: there is room for all entries, aligned to a page and never moved or freed.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(address, BUFFERS, BUFFER_GROUP, 0)?;
        }
        (0..BUFFERS).for_each(|buffer| buffers.give_back(buffer));
        buffers.publish();
        Ok(buffers)
    }

    /// What the kernel has written into a buffer, which it doesn't touch until it is given back.
    fn bytes(&self, buffer: u16, bytes: usize) -> &[u8] {
        &self.memory[usize::from(buffer)].0[..bytes]
    }

    fn give_back(&mut self, buffer: u16) {
        let address = self.memory[usize::from(buffer)].0.as_mut_ptr() as u64;
        let at = usize::from(self.tail & (BUFFERS - 1));
        // SAFETY: `ring` has room for all entries, and the kernel doesn't read those beyond the
        // published tail.
        let entry = unsafe { &mut *self.ring.as_mut_ptr().cast::<BufRingEntry>().add(at) };
        entry.set_addr(address);
        entry.set_len(u32::try_from(BUFFER_BYTES).unwrap_or(0));
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&mut self) {
        // SAFETY: the tail lies in the first entry, aligned for 16 bits, and only the kernel reads
        // it.
        unsafe {
            let tail = BufRingEntry::tail(self.ring.as_ptr().cast()).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}
