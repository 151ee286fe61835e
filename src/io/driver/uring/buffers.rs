//! Rings of receive buffers: the kernel takes a buffer for each receive that has bytes, the driver
//! reads it and gives it back. There is one ring of small buffers and one of large ones.
//!
//! The kernel takes buffers in turns, so all that circulate are in use, in memory and in the cache:
//! as many as turns need (`circulation`). The memory of the others goes back to the system.
//!
//! Invariant: a buffer is owned by the kernel (while published in the ring), by the driver (from
//! its completion to `give_back`), or is withheld; the driver reads only buffers that it owns.

use std::alloc::{Layout, alloc, handle_alloc_error};
use std::io::Error;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;
use tracing::debug;

use super::circulation::Circulation;

/// Number and size of a ring's buffers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// The number by which receives refer to the ring.
    pub(super) group: u16,
    /// Most buffers, a power of two.
    pub(super) count: u16,
    /// Fewest that circulate.
    pub(super) circulating_min: u16,
    /// Size of each, whole pages.
    pub(super) bytes: usize,
}

/// For most packets: dozens of small ones fit a buffer. A multishot receive takes 32 buffers at
/// most before others have their turn. A turn's completions take a few hundred, where the kernel
/// hands over as many at once; newer ones stop at 20 or so. A receive that finds none is armed
/// again.
pub(super) const SMALL: Shape = Shape { group: 0, count: 512, circulating_min: 32, bytes: 4 << 10 };
/// For connections that send more than fits a small one: few, so that they stay in the cache.
pub(super) const LARGE: Shape = Shape { group: 1, count: 16, circulating_min: 4, bytes: 32 << 10 };
const PAGE_BYTES: usize = 4 << 10;

/// A ring and its buffers. The addresses are never freed: they live as long as the process.
pub(super) struct Buffers {
    ring: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    shape: Shape,
    /// Number of buffers given to the kernel so far, modulo 2^16.
    tail: u16,
    circulation: Circulation,
    /// Buffers that circulate.
    circulating: u16,
    /// All others: the last one withheld circulates first.
    withheld: Vec<u16>,
    /// Buffers given back in this turn.
    given_back: u16,
}

// SAFETY: besides the kernel, which no thread owns, only this value points to its memory.
#[allow(unsafe_code)]
unsafe impl Send for Buffers {}

#[allow(unsafe_code)]
impl Buffers {
    /// Registers a ring with the kernel, with the fewest buffers in it.
    pub(super) fn register(ring: &IoUring, shape: Shape) -> Result<Self, Error> {
        let Shape { group, count, circulating_min, bytes } = shape;
        assert!(count.is_power_of_two(), "the ring's positions are masked");
        assert!(bytes.is_multiple_of(PAGE_BYTES), "the memory goes back by pages");
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
        let mut buffers = Self {
            ring: entries,
            memory,
            shape,
            tail: 0,
            circulation: Circulation::new(circulating_min, count),
            circulating: 0,
            withheld: (0..count).rev().collect(),
            given_back: 0,
        };
        buffers.end_turn();
        Ok(buffers)
    }

    /// Whether all buffers circulate.
    pub(super) fn all_circulate(&self) -> bool {
        self.withheld.is_empty()
    }

    /// A receive found no buffer: from the end of this turn on more circulate, if there are more.
    pub(super) fn starved(&mut self) {
        self.circulation.starved();
    }

    /// The first `bytes` bytes of the buffer that a completion returned.
    pub(super) fn bytes(&self, buffer: u16, bytes: usize) -> &[u8] {
        let bytes = bytes.min(self.shape.bytes);
        // SAFETY: the range is within the buffer. The kernel doesn't write to the buffer before
        // `give_back`, which takes `self` mutably.
        unsafe { std::slice::from_raw_parts(self.address(buffer).as_ptr(), bytes) }
    }

    /// Gives a buffer back that the driver owns; the kernel sees it after `end_turn`.
    pub(super) fn give_back(&mut self, buffer: u16) {
        self.given_back += 1;
        if self.circulating > self.circulation.wanted() {
            self.withhold(buffer);
        } else {
            self.put(buffer);
        }
    }

    /// Publishes to the kernel the buffers that were given back, and further ones if more are to
    /// circulate.
    pub(super) fn end_turn(&mut self) {
        let wanted = self.circulation.end_turn(std::mem::take(&mut self.given_back));
        if self.circulating < wanted {
            self.put_withheld(wanted);
        }
        // SAFETY: the tail is in the first entry, aligned for 16 bits, and only the kernel reads
        // it.
        unsafe {
            let tail = BufRingEntry::tail(self.ring.as_ptr()).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }

    /// Has buffers that were withheld circulate, until so many do.
    #[cold]
    fn put_withheld(&mut self, wanted: u16) {
        debug!(bytes = self.shape.bytes, count = wanted, "receive buffers");
        while self.circulating < wanted
            && let Some(buffer) = self.withheld.pop()
        {
            self.circulating += 1;
            self.put(buffer);
        }
    }

    /// Puts a buffer in the ring.
    fn put(&mut self, buffer: u16) {
        let at = usize::from(self.tail & (self.shape.count - 1));
        let address = self.address(buffer);
        // SAFETY: the entry is within its allocation, and the kernel doesn't read entries beyond
        // the published tail.
        unsafe {
            // The setters write one integer each; the ring's tail, in the first entry, is another
            // one.
            let entry = self.ring.add(at).as_mut();
            entry.set_addr(address.as_ptr() as u64);
            entry.set_len(u32::try_from(self.shape.bytes).unwrap_or(0));
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Keeps a buffer from circulating, and gives its memory to the system.
    #[cold]
    fn withhold(&mut self, buffer: u16) {
        self.circulating -= 1;
        self.withheld.push(buffer);
        let address = self.address(buffer);
        // SAFETY: these are whole pages of private memory that only this value knows of; they may
        // read as zeros afterwards, as `bytes` isn't asked for a buffer before its next completion.
        let result = unsafe {
            libc::madvise(address.as_ptr().cast(), self.shape.bytes, libc::MADV_DONTNEED)
        };
        if result != 0 {
            debug!(error = %Error::last_os_error(), "a buffer keeps its memory");
        }
    }

    fn address(&self, buffer: u16) -> NonNull<u8> {
        assert!(buffer < self.shape.count, "there are no other buffers");
        // SAFETY: the buffer is within `memory`.
        unsafe { self.memory.add(usize::from(buffer) * self.shape.bytes) }
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use io_uring::types::Fd;
    use io_uring::{cqueue, opcode, squeue};

    use super::*;

    const SHAPE: Shape = Shape { group: 0, count: 4, circulating_min: 1, bytes: PAGE_BYTES };

    /// A ring with buffers, and connections that bytes wait on: their own number, a few times.
    struct Setup {
        ring: IoUring,
        buffers: Buffers,
        connections: Vec<(UnixStream, UnixStream)>,
    }

    impl Setup {
        /// `None`: this host has no such rings.
        fn new(connections: usize) -> Option<Self> {
            let registered = IoUring::new(16).and_then(|ring| {
                let buffers = Buffers::register(&ring, SHAPE)?;
                Ok((ring, buffers))
            });
            let (ring, buffers) = match registered {
                Ok(registered) => registered,
                Err(error) => {
                    eprintln!("no ring here: {error}");
                    return None;
                }
            };
            let connections = (0..connections).map(|_| UnixStream::pair().unwrap()).collect();
            Some(Self { ring, buffers, connections })
        }

        /// Has something sent to these connections and receives it, one buffer each; returns which
        /// connections got which buffer. All results are checked, and no buffer is given back.
        fn receive(&mut self, connections: &[u8]) -> Vec<Option<u16>> {
            for &at in connections {
                let (socket, peer) = &mut self.connections[usize::from(at)];
                peer.write_all(&[at + 1; 100]).unwrap();
                let socket = Fd(socket.as_raw_fd());
                let receive = opcode::Recv::new(socket, std::ptr::null_mut(), 0)
                    .buf_group(SHAPE.group)
                    .build()
                    .flags(squeue::Flags::BUFFER_SELECT)
                    .user_data(at.into());
                // SAFETY: the entry points to no memory, and the buffers are never freed.
                #[allow(unsafe_code)]
                let pushed = unsafe { self.ring.submission().push(&receive) };
                pushed.unwrap();
            }
            self.ring.submit_and_wait(connections.len()).unwrap();
            let mut taken = vec![None; connections.len()];
            for completion in self.ring.completion() {
                let at = u8::try_from(completion.user_data()).unwrap();
                let place = connections.iter().position(|&it| it == at).unwrap();
                let buffer = cqueue::buffer_select(completion.flags());
                if let Some(buffer) = buffer {
                    let bytes = usize::try_from(completion.result()).unwrap();
                    assert!(bytes >= 100 && bytes.is_multiple_of(100), "all that waited");
                    assert!(self.buffers.bytes(buffer, bytes).iter().all(|&byte| byte == at + 1));
                } else {
                    assert_eq!(completion.result(), -libc::ENOBUFS);
                    self.buffers.starved();
                }
                taken[place] = buffer;
            }
            taken
        }

        /// The same, and ends the turn.
        fn turn(&mut self, connections: &[u8]) -> usize {
            let taken = self.receive(connections);
            taken.iter().flatten().for_each(|&buffer| self.buffers.give_back(buffer));
            self.buffers.end_turn();
            taken.iter().flatten().count()
        }
    }

    #[test]
    fn starved_receives_find_buffers_in_later_turns() {
        let Some(mut setup) = Setup::new(6) else { return };
        let all = [0, 1, 2, 3, 4, 5];
        let mut counts = [0; 5].map(|_| setup.turn(&all));
        assert_eq!(counts, [1, 2, 4, 4, 4], "as many as circulate");
        assert!(setup.buffers.all_circulate());
        // The same buffers again and again.
        counts = [0; 5].map(|_| setup.turn(&[3]));
        assert_eq!(counts, [1; 5]);
    }

    #[test]
    fn a_buffer_in_use_is_given_to_no_other_receive() {
        let Some(mut setup) = Setup::new(3) else { return };
        (0..2).for_each(|_| _ = setup.turn(&[0, 1, 2]));
        let first = setup.receive(&[0])[0].unwrap();
        setup.buffers.end_turn();
        let others = setup.receive(&[1, 2]);
        assert!(!others.contains(&Some(first)));
        assert!(setup.buffers.bytes(first, 100).iter().all(|&byte| byte == 1), "it is unchanged");
    }

    #[test]
    fn buffers_that_are_not_needed_any_more_give_their_memory_back() {
        let Some(mut setup) = Setup::new(6) else { return };
        (0..3).for_each(|_| _ = setup.turn(&[0, 1, 2, 3, 4, 5]));
        assert_eq!(setup.buffers.circulating, SHAPE.count);
        // Two spans without use: those that circulate too many are withheld as they come back.
        while setup.buffers.circulation.wanted() > SHAPE.circulating_min {
            setup.buffers.end_turn();
        }
        let mut buffers = Vec::new();
        for _ in 0..6 {
            let taken = setup.receive(&[0])[0].unwrap();
            setup.buffers.give_back(taken);
            setup.buffers.end_turn();
            buffers.push(taken);
        }
        assert_eq!(setup.buffers.circulating, SHAPE.circulating_min);
        assert_eq!(buffers[3..], [buffers[3]; 3], "of all that there were one is left");
        for &withheld in &setup.buffers.withheld {
            assert!(setup.buffers.bytes(withheld, PAGE_BYTES).iter().all(|&byte| byte == 0));
        }
    }
}
