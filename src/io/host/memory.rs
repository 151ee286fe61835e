//! The allocator of the server's process: mimalloc for small blocks, the C library for large ones.
//!
//! Measured with a million jobs of 64 bytes queued and drained (`results/2026-11-21-allocators`):
//! the C library alone keeps 87 MiB of 164, mimalloc gives all but 4 back, equally fast. Growing a
//! large block is the other way round: the C library remaps its pages, mimalloc copies them, and
//! a body of 1 GiB took 3.5 GiB instead of 2. mimalloc's huge pages are off (its feature
//! `no_thp`): clearing 2 MiB at a time is a pause, and made filling a queue slower. Blocks that
//! take pages begin in the middle of one; see `PLACE_BYTES`.
//!
//! Invariant: the size in the layout that `dealloc` is given decides which allocator owns the
//! block.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};

use libmimalloc_sys::{mi_malloc_aligned_at, mi_realloc_aligned_at, mi_zalloc_aligned_at};
use mimalloc::MiMalloc;

/// Blocks of this size and more are the C library's, which gives each a mapping of its own.
const LARGE_BYTES: usize = 1 << LARGE_BITS;
const LARGE_BITS: i32 = 17;
/// `purge_delay` in mimalloc's `mi_option_t`, for which the crate has no name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// Blocks of this size and more begin `PLACE_BYTES` behind the start of a page.
const PLACED_BYTES: usize = 32 << 10;
const PAGE_BYTES: usize = 4096;
/// Where in a page large payloads begin.
///
/// `rep movsb`, with which Linux copies between sockets and user memory, takes twelve times as long
/// on AMD's Zen 3 and 4 where the target begins 1 to 31 bytes behind the source, both modulo 4096.
/// Payloads lie that far from each other without this, or by chance: the kernel begins a message at
/// the start of a page, some bytes of header are before the payload, and the C library begins a
/// block at byte 16 of a page. In the middle of a page nothing of that comes near. Costs nothing
/// where half a page or more is left of the last one.
const PLACE_BYTES: usize = PAGE_BYTES / 2;
/// How far a large block begins behind the start of what the C library allocated for it.
const SHIFT_BYTES: usize = PLACE_BYTES - 16;

/// Makes freed memory return to the system at once; to be called before a second thread starts.
///
/// By default mimalloc looks for old pages when it is next asked for one: a server that has drained
/// its queue and is idle keeps them all. Measured: no job gets slower, as a page (64 KiB) holds
/// some hundreds. And glibc, once it has freed a block of up to 32 MiB, allocates blocks up to that
/// size in one heap, whose memory returns only from its end: of 1 GiB of bodies all stayed when one
/// in fifty did. musl's allocator gives each block of 128 KiB and more a mapping of its own anyway.
pub fn free_at_once() {
    // SAFETY: the option exists in this version, takes a number of milliseconds, and no other
    // thread reads or writes options meanwhile.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, 0) };
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) takes any size up to 32 MiB, and no other thread allocates meanwhile.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << LARGE_BITS);
    }
}

/// The `#[global_allocator]` of the server.
#[derive(Clone, Copy, Debug)]
pub struct Allocator;

const fn is_large(bytes: usize) -> bool {
    bytes >= LARGE_BYTES
}

/// Whether mimalloc is to place a block in the middle of a page.
const fn is_placed(bytes: usize, align: usize) -> bool {
    bytes >= PLACED_BYTES && align <= PLACE_BYTES
}

/// What is asked of the C library for a large block, and how far behind its start the block begins.
#[inline]
fn shifted(layout: Layout) -> (Layout, usize) {
    let bytes = layout.size().saturating_add(SHIFT_BYTES);
    match Layout::from_size_align(bytes, layout.align()) {
        // The C library aligns everything to 16 bytes.
        Ok(larger) if layout.align() <= 16 => (larger, SHIFT_BYTES),
        _ => (layout, 0),
    }
}

/// The block in an allocation that may have failed.
///
/// # Safety
/// The allocation has more than `shift` bytes.
#[inline]
unsafe fn block_in(allocation: *mut u8, shift: usize) -> *mut u8 {
    // SAFETY: asked of the caller.
    if allocation.is_null() { allocation } else { unsafe { allocation.add(shift) } }
}

// SAFETY: both allocators keep the contract, and each frees the blocks that it allocated: the
// layout given to `dealloc` is that of the allocation, or has the size of the last reallocation.
unsafe impl GlobalAlloc for Allocator {
    // SAFETY: asks of its caller what the trait asks.
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the trait's contract, which is what both ask for.
        unsafe {
            if is_large(layout.size()) {
                let (layout, shift) = shifted(layout);
                block_in(System.alloc(layout), shift)
            } else if is_placed(layout.size(), layout.align()) {
                mi_malloc_aligned_at(layout.size(), PAGE_BYTES, PLACE_BYTES).cast()
            } else {
                MiMalloc.alloc(layout)
            }
        }
    }

    // SAFETY: asks of its caller what the trait asks.
    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        unsafe {
            if is_large(layout.size()) {
                let (layout, shift) = shifted(layout);
                block_in(System.alloc_zeroed(layout), shift)
            } else if is_placed(layout.size(), layout.align()) {
                mi_zalloc_aligned_at(layout.size(), PAGE_BYTES, PLACE_BYTES).cast()
            } else {
                MiMalloc.alloc_zeroed(layout)
            }
        }
    }

    // SAFETY: asks of its caller what the trait asks.
    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block has this layout, whose size says which allocator owns it.
        unsafe {
            if is_large(layout.size()) {
                let (layout, shift) = shifted(layout);
                System.dealloc(block.sub(shift), layout);
            } else {
                MiMalloc.dealloc(block, layout);
            }
        }
    }

    // SAFETY: asks of its caller what the trait asks.
    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_bytes: usize) -> *mut u8 {
        // SAFETY: as in `dealloc`; a block that changes allocators is copied as far as both sizes
        // go, and the old one is freed only when there is a new one.
        unsafe {
            match (is_large(layout.size()), is_large(new_bytes)) {
                (true, true) => {
                    let (layout, shift) = shifted(layout);
                    let new_bytes = new_bytes.saturating_add(shift);
                    block_in(System.realloc(block.sub(shift), layout, new_bytes), shift)
                }
                (false, false) if is_placed(new_bytes, layout.align()) => {
                    mi_realloc_aligned_at(block.cast(), new_bytes, PAGE_BYTES, PLACE_BYTES).cast()
                }
                (false, false) => MiMalloc.realloc(block, layout, new_bytes),
                _ => {
                    let new_layout = Layout::from_size_align_unchecked(new_bytes, layout.align());
                    let new_block = self.alloc(new_layout);
                    if !new_block.is_null() {
                        let both = layout.size().min(new_bytes);
                        std::ptr::copy_nonoverlapping(block, new_block, both);
                        self.dealloc(block, layout);
                    }
                    new_block
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_keep_their_bytes_when_they_change_allocators() {
        let sizes = [
            [1, 100, PLACED_BYTES - 1, PLACED_BYTES, LARGE_BYTES - 1, LARGE_BYTES],
            [8 * LARGE_BYTES, LARGE_BYTES - 1, PLACED_BYTES, 3 * PLACED_BYTES, 100, 7],
        ];
        let sizes = sizes.as_flattened();
        for align in [1, 8, 64, 4096] {
            let mut layout = Layout::from_size_align(sizes[0], align).expect("a layout");
            // SAFETY: each block is used within its size, and freed once, with its last layout.
            unsafe {
                let mut block = Allocator.alloc(layout);
                let mut bytes = layout.size();
                block.write_bytes(0x5a, bytes);
                for &size in sizes {
                    block = Allocator.realloc(block, layout, size);
                    assert!(!block.is_null() && block.addr().is_multiple_of(align));
                    layout = Layout::from_size_align(size, align).expect("a layout");
                    bytes = bytes.min(size);
                    let kept = std::slice::from_raw_parts(block, bytes);
                    assert!(kept.iter().all(|&byte| byte == 0x5a), "{bytes} bytes of {size}");
                    bytes = size;
                    block.write_bytes(0x5a, bytes);
                }
                Allocator.dealloc(block, layout);
            }
        }
    }

    #[test]
    fn payloads_of_mimalloc_begin_in_the_middle_of_a_page_and_stay_there() {
        let layout = |bytes| Layout::from_size_align(bytes, 1).expect("a layout");
        for zeroed in [false, true] {
            let layouts = [PLACED_BYTES, 100 << 10, LARGE_BYTES - 1].map(layout);
            // SAFETY: the block isn't used, and freed once, with its last layout.
            unsafe {
                let of = |it| if zeroed { Allocator.alloc_zeroed(it) } else { Allocator.alloc(it) };
                let mut block = of(layouts[0]);
                for pair in layouts.windows(2) {
                    assert_eq!(block.addr() % PAGE_BYTES, PLACE_BYTES);
                    block = Allocator.realloc(block, pair[0], pair[1].size());
                }
                assert_eq!(block.addr() % PAGE_BYTES, PLACE_BYTES);
                Allocator.dealloc(block, layouts[2]);
                let small = layout(100);
                let block = Allocator.realloc(Allocator.alloc(small), small, PLACED_BYTES);
                assert_eq!(block.addr() % PAGE_BYTES, PLACE_BYTES);
                Allocator.dealloc(block, layouts[0]);
            }
        }
    }

    /// Of a size for which glibc always makes a mapping.
    #[cfg(target_env = "gnu")]
    #[test]
    fn large_blocks_begin_in_the_middle_of_a_page_and_stay_there() {
        let layout = |bytes| Layout::from_size_align(bytes, 1).expect("a layout");
        let [small, large] = [64 << 20, 80 << 20].map(layout);
        // SAFETY: the block isn't used, and freed once, with its last layout.
        unsafe {
            let block = Allocator.alloc(small);
            assert_eq!(block.addr() % PAGE_BYTES, PLACE_BYTES);
            let block = Allocator.realloc(block, small, large.size());
            assert_eq!(block.addr() % PAGE_BYTES, PLACE_BYTES);
            Allocator.dealloc(block, large);
        }
    }

    #[test]
    fn zeroed_blocks_are_zero_on_both_sides() {
        for size in [64, PLACED_BYTES, LARGE_BYTES] {
            let layout = Layout::from_size_align(size, 8).expect("a layout");
            // SAFETY: the block is used within its size and freed with its layout.
            unsafe {
                let block = Allocator.alloc_zeroed(layout);
                assert!(std::slice::from_raw_parts(block, size).iter().all(|&byte| byte == 0));
                Allocator.dealloc(block, layout);
            }
        }
    }
}
