//! Rings of receive buffers: the kernel takes a buffer for each receive that has bytes, the driver
//! reads it and gives it back. There is one ring of small buffers and one of large ones.
//!
//! Invariant: a buffer is owned by the kernel (while published in the ring) or by the driver (from
//! its completion to `give_back`); the driver reads only buffers that it owns.

use std::alloc::{Layout, alloc, handle_alloc_error};
use std::io::Error;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

/// Number and size of a ring's buffers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// The number by which receives refer to the ring.
    pub(super) group: u16,
    /// Number of buffers, a power of two.
    pub(super) count: u16,
    /// Size of each.
    pub(super) bytes: usize,
}

/// For most packets: dozens of small ones fit a buffer, and a turn's completions take a few hundred
/// buffers at most. A receive that finds none is armed again.
pub(super) const SMALL: Shape = Shape { group: 0, count: 512, bytes: 4 << 10 };
/// For connections that send more than fits a small one: few, so that they stay in the cache.
pub(super) const LARGE: Shape = Shape { group: 1, count: 16, bytes: 32 << 10 };
const PAGE_BYTES: usize = 4 << 10;

/// A ring and its buffers. The memory is never freed: it lives as long as the process.
pub(super) struct Buffers {
    ring: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    shape: Shape,
    /// Number of buffers given to the kernel so far, modulo 2^16.
    tail: u16,
}

// SAFETY: besides the kernel, which no thread owns, only this value points to its memory.
#[allow(unsafe_code)]
unsafe impl Send for Buffers {}

#[allow(unsafe_code)]
impl Buffers {
    /// Registers a ring with the kernel, with all buffers in it.
    pub(super) fn register(ring: &IoUring, shape: Shape) -> Result<Self, Error> {
        let Shape { group, count, bytes } = shape;
        assert!(count.is_power_of_two(), "the ring's positions are masked");
        let entries = allocate::<BufRingEntry>(usize::from(count) * size_of::<BufRingEntry>());
        let memory = allocate::<u8>(usize::from(count) * bytes);
        // SAFETY: `entries` holds `count` entries, is aligned to a page and never freed.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                entries.as_ptr() as u64,
                count,
                group,
                0,
            )?;
        }
        let mut buffers = Self { ring: entries, memory, shape, tail: 0 };
        for buffer in 0..count {
            buffers.give_back(buffer);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// The first `bytes` bytes of the buffer that a completion returned.
    pub(super) fn bytes(&self, buffer: u16, bytes: usize) -> &[u8] {
        let bytes = bytes.min(self.shape.bytes);
        assert!(buffer < self.shape.count, "the kernel was given no other buffers");
        // SAFETY: the range is within `memory`. The kernel doesn't write to the buffer before
        // `give_back`, which takes `self` mutably.
        unsafe {
            let start = self.memory.add(usize::from(buffer) * self.shape.bytes);
            std::slice::from_raw_parts(start.as_ptr(), bytes)
        }
    }

    /// Puts a buffer in the ring; the kernel sees it after `publish`.
    pub(super) fn give_back(&mut self, buffer: u16) {
        let at = usize::from(self.tail & (self.shape.count - 1));
        // SAFETY: the buffer and the entry are within their allocations, and the kernel doesn't
        // read entries beyond the published tail.
        unsafe {
            let address = self.memory.add(usize::from(buffer) * self.shape.bytes);
            // The setters write one integer each; the ring's tail, in the first entry, is another
            // one.
            let entry = self.ring.add(at).as_mut();
            entry.set_addr(address.as_ptr() as u64);
            entry.set_len(u32::try_from(self.shape.bytes).unwrap_or(0));
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Publishes to the kernel the buffers that were given back.
    pub(super) fn publish(&mut self) {
        // SAFETY: the tail is in the first entry, aligned for 16 bits, and only the kernel reads
        // it.
        unsafe {
            let tail = BufRingEntry::tail(self.ring.as_ptr()).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}

/// Allocates whole pages, uninitialised: they take memory only once the kernel writes to them.
fn allocate<T>(bytes: usize) -> NonNull<T> {
    let Ok(layout) = Layout::from_size_align(bytes.max(PAGE_BYTES), PAGE_BYTES) else {
        unreachable!("constants make a valid layout");
    };
    // SAFETY: the layout's size is not zero.
    #[allow(unsafe_code)]
    let memory = unsafe { alloc(layout) };
    NonNull::new(memory.cast()).unwrap_or_else(|| handle_alloc_error(layout))
}
