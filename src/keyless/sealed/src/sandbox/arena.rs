//! The heap: a piece of the program's own memory, so that a sealed process never asks the kernel for any.

use std::alloc::{GlobalAlloc, Layout};
use std::arch::asm;
use std::cell::{Cell, UnsafeCell};
use std::ptr;

/// The global allocator. What is freed is cleared at once; what grows leaves no old copy; when it is used up the
/// process ends.
#[repr(C, align(64))]
pub struct Arena {
    memory: UnsafeCell<[u8; SIZE]>,
    /// Bytes handed out from the front, ever.
    used: Cell<usize>,
    /// For each power of two the first free block of that size, as offset plus one; each holds the next one's.
    free: [Cell<usize>; CLASSES],
}

// SAFETY: the process has one thread: nothing starts another before the sandbox is closed, and nothing can after.
unsafe impl Sync for Arena {}

impl Arena {
    /// All of it free.
    pub const fn new() -> Self {
        Self { memory: UnsafeCell::new([0; SIZE]), used: Cell::new(0), free: [const { Cell::new(0) }; CLASSES] }
    }

    /// Where it begins, and how much was ever in use.
    pub(super) fn extent(&self) -> (*mut u8, usize) {
        (self.memory.get().cast(), self.used.get())
    }

    /// A block of `1 << class` bytes that is all zeros, at this alignment.
    fn take(&self, class: usize, align: usize) -> *mut u8 {
        let base: *mut u8 = self.memory.get().cast();
        let first = self.free[class].get();
        if first != 0 && align <= SMALLEST {
            // SAFETY: free lists hold offsets of whole blocks inside `memory`, each block at least a `usize` long and
            // aligned to `SMALLEST`, and nobody else has them.
            unsafe {
                let block = base.add(first - 1);
                self.free[class].set(block.cast::<usize>().read());
                block.cast::<usize>().write(0);
                return block;
            }
        }
        let start = self.used.get().next_multiple_of(align.max(SMALLEST));
        let Some(end) = start.checked_add(1 << class).filter(|end| *end <= SIZE) else {
            super::vanish(super::Exit::OutOfMemory);
        };
        self.used.set(end);
        // SAFETY: `start..end` lies within `memory` and was never handed out.
        unsafe { base.add(start) }
    }
}

impl Default for Arena {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: blocks are within `memory`, at least as long as the layout says, aligned to it (the arena itself to 64), and
// in nobody's hands twice: a block leaves a free list when it is handed out and enters one when it is returned. It does
// not unwind.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match class(layout) {
            Some(class) if layout.align() <= 64 => self.take(class, layout.align()),
            _ => super::vanish(super::Exit::OutOfMemory),
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's layout. Blocks are zeros when they are handed out.
        unsafe { self.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(class) = class(layout) else { return };
        // SAFETY: the caller returns a block of `alloc`, which is `1 << class` bytes long, and uses it no more.
        unsafe { clear(block, 1 << class) };
        if layout.align() > SMALLEST {
            return; // rare, and not worth a list of its own
        }
        let offset = block.addr() - self.memory.get().addr();
        // SAFETY: as above; every block is aligned to `SMALLEST`, and so for a `usize`.
        unsafe { block.cast::<usize>().write(self.free[class].get()) };
        self.free[class].set(offset + 1);
    }
}

/// Clears memory, whether or not anybody looks at it again.
///
/// # Safety
/// `length` bytes from `start` must be valid for writes.
unsafe fn clear(start: *mut u8, length: usize) {
    // SAFETY: the caller's promise.
    unsafe { ptr::write_bytes(start, 0, length) };
    // SAFETY: no instruction at all; it tells the compiler that somebody reads what was written.
    unsafe { asm!("/* {0} */", in(reg) start, options(nostack, preserves_flags)) };
}

fn class(layout: Layout) -> Option<usize> {
    let size = layout.size().max(SMALLEST).checked_next_power_of_two()?;
    let class = usize::try_from(size.trailing_zeros()).ok()?;
    (class < CLASSES).then_some(class)
}

/// What a whole store of roots, the longest answer and TLS need, twice over; pages that are never used cost nothing.
const SIZE: usize = 4 << 20;
const CLASSES: usize = 22;
/// The smallest block, and what every block is aligned to.
const SMALLEST: usize = 16;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_freed_is_cleared_and_handed_out_again() {
        static ARENA: Arena = Arena::new();
        let layout = Layout::from_size_align(1000, 8).unwrap();
        // SAFETY: a block is used within its layout and returned once.
        unsafe {
            let first = ARENA.alloc(layout);
            ptr::write_bytes(first, 0xaa, 1000);
            ARENA.dealloc(first, layout);
            let bytes = std::slice::from_raw_parts(first, 1024);
            assert!(bytes.iter().all(|byte| *byte == 0), "cleared when freed, and the list is empty behind it");
            let second = ARENA.alloc(layout);
            assert_eq!(first, second);
            let third = ARENA.alloc(layout);
            assert!(third.addr() >= second.addr() + 1000);
        }
    }

    #[test]
    fn what_grows_leaves_no_old_copy() {
        static ARENA: Arena = Arena::new();
        let layout = Layout::from_size_align(64, 1).unwrap();
        // SAFETY: as above; the old block is looked at only to see that it was cleared.
        unsafe {
            let block = ARENA.alloc(layout);
            ptr::write_bytes(block, 0xaa, 64);
            let grown = ARENA.realloc(block, layout, 4000);
            assert_ne!(block, grown);
            assert!(std::slice::from_raw_parts(block, 64).iter().all(|byte| *byte != 0xaa));
            assert!(std::slice::from_raw_parts(grown, 64).iter().all(|byte| *byte == 0xaa));
        }
    }

    #[test]
    fn blocks_are_aligned_and_apart() {
        static ARENA: Arena = Arena::new();
        let mut end = 0;
        for (size, align) in [(1, 1), (3, 2), (17, 64), (40, 32), (16, 16), (5000, 8), (1, 64)] {
            // SAFETY: the block is only looked at.
            let block = unsafe { ARENA.alloc(Layout::from_size_align(size, align).unwrap()) }.addr();
            assert!(block.is_multiple_of(align) && block >= end, "{size} at {align}");
            end = block + size;
        }
    }
}
