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

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::collections::VecDeque;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result};
use io_uring::types::{BufRingEntry, Fd, Fixed};
use io_uring::{IoUring, cqueue, opcode, squeue};
use slab::Slab;

use super::Relay;

const SUBMISSIONS: u32 = 4096;
const COMPLETIONS: u32 = 16384;
/// Direct descriptors that the kernel lets a ring have.
const FILES_MAX: usize = 1 << 20;
const BUFFER_GROUP: u16 = 0;
const BUFFERS: u16 = 512;
const BUFFER_BYTES: usize = 4 << 10;
const PAGE_BYTES: usize = 4 << 10;

/// The low bits of a completion's user data; the rest is the connection's key.
const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1;
const SEND: u64 = 2;
const CLOSE: u64 = 3;
const SHUTDOWN: u64 = 4;
const OPERATION_BITS: u32 = 3;

struct Connection {
    file: Fixed,
    sending: Vec<u8>,
    sent: usize,
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
    /// Submissions that found the queue full.
    backlog: VecDeque<squeue::Entry>,
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
        backlog: VecDeque::new(),
    };
    uring.arm_accept();
    ready();
    let mut completions: Vec<cqueue::Entry> = Vec::new();
    loop {
        uring.submit_and_wait()?;
        completions.extend(uring.ring.completion());
        for completion in completions.drain(..) {
            uring.handle(&completion);
        }
        uring.buffers.publish();
        while let Some(conn) = uring.relay.next_dirty() {
            uring.send(conn);
        }
    }
}

impl Uring {
    fn submit(&mut self, entry: squeue::Entry, operation: u64, key: usize) {
        let entry = entry.user_data((key as u64) << OPERATION_BITS | operation);
        // SAFETY: an entry points to no memory but `sending` of its connection; see the module.
        if unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.backlog.push_back(entry);
        }
    }

    fn submit_and_wait(&mut self) -> Result<()> {
        while let Some(entry) = self.backlog.front() {
            // SAFETY: as in `submit`.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                self.backlog.pop_front();
            } else if self.ring.submit()? == 0 {
                break;
            }
        }
        match self.ring.submit_and_wait(1) {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn handle(&mut self, completion: &cqueue::Entry) {
        let data = completion.user_data();
        let key = usize::try_from(data >> OPERATION_BITS).unwrap_or(usize::MAX);
        match data & ((1 << OPERATION_BITS) - 1) {
            ACCEPT => self.handle_accepted(completion),
            RECEIVE => self.handle_received(key, completion),
            SEND => self.handle_sent(key, completion.result()),
            CLOSE => {
                self.connections.remove(key);
            }
            _ => {}
        }
    }

    fn arm_accept(&mut self) {
        let accept = opcode::AcceptMulti::new(self.listener).allocate_file_index(true).build();
        self.submit(accept, ACCEPT, 0);
    }

    fn handle_accepted(&mut self, completion: &cqueue::Entry) {
        if let Ok(file) = u32::try_from(completion.result()) {
            let conn = self.connections.insert(Connection {
                file: Fixed(file),
                sending: Vec::new(),
                sent: 0,
                is_sending: false,
                is_receiving: false,
                is_ending: false,
                is_closing: false,
            });
            self.relay.connect(conn);
            self.arm_receive(conn);
        }
        if !cqueue::more(completion.flags()) {
            self.arm_accept();
        }
    }

    fn arm_receive(&mut self, conn: usize) {
        let connection = &mut self.connections[conn];
        connection.is_receiving = true;
        let receive = opcode::RecvMulti::new(connection.file, BUFFER_GROUP).build();
        self.submit(receive, RECEIVE, conn);
    }

    fn handle_received(&mut self, conn: usize, completion: &cqueue::Entry) {
        let result = completion.result();
        if let Some(buffer) = cqueue::buffer_select(completion.flags()) {
            let bytes = self.buffers.bytes(buffer, usize::try_from(result).unwrap_or(0));
            let handled = self.relay.received(conn, bytes);
            self.buffers.give_back(buffer);
            if let Err(error) = handled {
                eprintln!("relay: {error}");
                self.connections[conn].is_ending = true;
            }
        }
        let connection = &mut self.connections[conn];
        connection.is_receiving = cqueue::more(completion.flags());
        let starved = result == -libc::ENOBUFS;
        connection.is_ending |= result <= 0 && !starved;
        if connection.is_ending {
            self.end(conn);
        } else if !connection.is_receiving {
            self.arm_receive(conn);
        }
    }

    fn send(&mut self, conn: usize) {
        let connection = &mut self.connections[conn];
        if connection.is_sending || connection.is_ending {
            return;
        }
        if connection.sent == connection.sending.len() {
            let emptied = std::mem::take(&mut connection.sending);
            connection.sending = self.relay.take(conn, emptied);
            connection.sent = 0;
            if connection.sending.is_empty() {
                return;
            }
        }
        connection.is_sending = true;
        let rest = &connection.sending[connection.sent..];
        let bytes = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        let send = opcode::Send::new(connection.file, rest.as_ptr(), bytes)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        self.submit(send, SEND, conn);
    }

    fn handle_sent(&mut self, conn: usize, result: i32) {
        let connection = &mut self.connections[conn];
        connection.is_sending = false;
        match usize::try_from(result) {
            Ok(bytes) => connection.sent += bytes,
            Err(_) => connection.is_ending = true,
        }
        if connection.is_ending {
            self.end(conn);
        } else {
            self.send(conn);
        }
    }

    /// Takes a step towards closing: what is in flight has to end first.
    fn end(&mut self, conn: usize) {
        let connection = &mut self.connections[conn];
        self.relay.disconnect(conn);
        let file = connection.file;
        if connection.is_receiving || connection.is_sending {
            self.submit(opcode::Shutdown::new(file, libc::SHUT_RDWR).build(), SHUTDOWN, conn);
        } else if !std::mem::replace(&mut connection.is_closing, true) {
            self.submit(opcode::Close::new(file).build(), CLOSE, conn);
        }
    }
}

/// The ring of receive buffers, whose memory lives as long as the process.
struct Buffers {
    ring: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    tail: u16,
}

impl Buffers {
    fn register(ring: &IoUring) -> Result<Self> {
        let entries = allocate(usize::from(BUFFERS) * size_of::<BufRingEntry>()).cast();
        let memory = allocate(usize::from(BUFFERS) * BUFFER_BYTES);
        // SAFETY: `entries` has room for all entries, is aligned to a page and never freed.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                entries.as_ptr() as u64,
                BUFFERS,
                BUFFER_GROUP,
                0,
            )?;
        }
        let mut buffers = Self { ring: entries, memory, tail: 0 };
        for buffer in 0..BUFFERS {
            buffers.give_back(buffer);
        }
        buffers.publish();
        Ok(buffers)
    }

    fn bytes(&self, buffer: u16, bytes: usize) -> &[u8] {
        assert!(buffer < BUFFERS && bytes <= BUFFER_BYTES, "the kernel was given no other buffers");
        // SAFETY: within `memory`; the kernel doesn't write before the buffer is given back, which
        // takes the buffers mutably.
        unsafe {
            let start = self.memory.add(usize::from(buffer) * BUFFER_BYTES);
            std::slice::from_raw_parts(start.as_ptr(), bytes)
        }
    }

    fn give_back(&mut self, buffer: u16) {
        let at = usize::from(self.tail & (BUFFERS - 1));
        // SAFETY: both are within their allocations; the kernel doesn't read entries beyond the
        // published tail.
        unsafe {
            let address = self.memory.add(usize::from(buffer) * BUFFER_BYTES);
            let entry = self.ring.add(at).as_mut();
            entry.set_addr(address.as_ptr() as u64);
            entry.set_len(u32::try_from(BUFFER_BYTES).unwrap_or(0));
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&mut self) {
        // SAFETY: the tail lies in the first entry, aligned for 16 bits, and only the kernel reads
        // it.
        unsafe {
            let tail = BufRingEntry::tail(self.ring.as_ptr()).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}

/// Zeroed pages.
fn allocate(bytes: usize) -> NonNull<u8> {
    let Ok(layout) = Layout::from_size_align(bytes, PAGE_BYTES) else {
        unreachable!("constants make a valid layout");
    };
    // SAFETY: the layout's size is not zero.
    let memory = unsafe { alloc_zeroed(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}
