//! The ring of receive buffers: the kernel takes one for each receive that has bytes, the driver
//! reads it and gives it back.
//!
//! Invariant: a buffer is either the kernel's (published in the ring) or the driver's (between its
//! completion and `give_back`); the driver reads only those that are its own.

use std::alloc::{Layout, alloc, handle_alloc_error};
use std::io::Error;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

/// The number under which receives name the ring.
pub(super) const BUFFER_GROUP: u16 = 0;
/// Buffers of a server. A turn's completions take a few hundred at most, and a receive that finds
/// none is armed again.
pub(super) const BUFFERS: u16 = 512;
/// Size of each: dozens of small packets. What is larger by far goes elsewhere (`Intake::Direct`).
const BUFFER_BYTES: usize = 4 << 10;
const PAGE_BYTES: usize = 4 << 10;

/// The buffers and their ring. The memory is never freed: it lives as long as the process.
pub(super) struct Buffers {
    ring: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    /// Number of buffers, a power of two.
    count: u16,
    /// Counts the buffers that were ever given to the kernel, modulo 2^16.
    tail: u16,
}

#[allow(unsafe_code)]
impl Buffers {
    /// Makes a ring of `count` buffers known to the kernel, all of them in it.
    pub(super) fn register(ring: &IoUring, count: u16) -> Result<Self, Error> {
        assert!(count.is_power_of_two(), "the ring's positions are masked");
        let entries = allocate::<BufRingEntry>(usize::from(count) * size_of::<BufRingEntry>());
        let memory = allocate::<u8>(usize::from(count) * BUFFER_BYTES);
        // SAFETY: `entries` has room for all entries, is aligned to a page and never freed.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                entries.as_ptr() as u64,
                count,
                BUFFER_GROUP,
                0,
            )?;
        }
        let mut buffers = Self { ring: entries, memory, count, tail: 0 };
        for buffer in 0..count {
            buffers.give_back(buffer);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// The first `bytes` bytes of a buffer that a completion has named.
    pub(super) fn bytes(&self, buffer: u16, bytes: usize) -> &[u8] {
        let bytes = bytes.min(BUFFER_BYTES);
        assert!(buffer < self.count, "the kernel knows no other buffers");
        // SAFETY: within `memory`; the kernel wrote to the buffer and won't before it is given
        // back, which takes the buffers mutably.
        unsafe {
            let start = self.memory.add(usize::from(buffer) * BUFFER_BYTES);
            std::slice::from_raw_parts(start.as_ptr(), bytes)
        }
    }

    /// Puts a buffer in the ring; the kernel sees it after `publish`.
    pub(super) fn give_back(&mut self, buffer: u16) {
        let at = usize::from(self.tail & (self.count - 1));
        // SAFETY: both are within their allocations. The kernel doesn't read entries beyond the
        // published tail.
        unsafe {
            let address = self.memory.add(usize::from(buffer) * BUFFER_BYTES);
            // Integers all, of which `set_*` writes each; the ring's tail, which lies in the first
            // entry, is neither of them.
            let entry = self.ring.add(at).as_mut();
            entry.set_addr(address.as_ptr() as u64);
            entry.set_len(u32::try_from(BUFFER_BYTES).unwrap_or(0));
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel what was given back.
    pub(super) fn publish(&mut self) {
        // SAFETY: the tail lies in the first entry, aligned for 16 bits, and only the kernel reads
        // it.
        unsafe {
            let tail = BufRingEntry::tail(self.ring.as_ptr()).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}

/// Whole pages, with nothing in them yet: memory is taken as the kernel writes to it.
fn allocate<T>(bytes: usize) -> NonNull<T> {
    let Ok(layout) = Layout::from_size_align(bytes.max(PAGE_BYTES), PAGE_BYTES) else {
        unreachable!("constants make a valid layout");
    };
    // SAFETY: the layout's size is not zero.
    #[allow(unsafe_code)]
    let memory = unsafe { alloc(layout) };
    NonNull::new(memory.cast()).unwrap_or_else(|| handle_alloc_error(layout))
}
