//! The allocator of the program: the C library's, with a few free blocks kept at hand on shelves.
//!
//! musl's `malloc` has one lock. A click makes several hundred small blocks on five threads, which spent more time
//! waiting for it than deciding: with the shelves, the same processors take twice as many clicks
//! (`scripts/bench/run --only durable_clicks`). Several threads share a shelf, by where their stack is. Whoever finds it
//! taken goes to the C library instead of waiting, so no thread ever holds up another one here.
//!
//! One of two files with unsafe code; `copy` is the other.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::hint::black_box;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};

/// How many shelves there are; more than threads that run at once.
const SHELVES: usize = 16;
/// Bytes of the largest block that is kept.
const LARGEST: usize = 8192;
/// Up to this many bytes there is a size of blocks for each multiple of 16, beyond it there are two to a doubling.
const FINE: usize = 128;
/// How many sizes of blocks there are.
const SIZES: usize = FINE / 16 + 2 * (LARGEST / FINE).ilog2() as usize;
/// How many bytes of a size a shelf holds, at most: an approval that is dropped gives back more than a hundred blocks of
/// the smallest.
const BYTES: usize = 8192;
/// The alignment of every block of ours, in bytes.
const ALIGN: usize = 16;
/// Threads' stacks are further apart than that, in bits of an address.
const STACK_BITS: u32 = 16;

/// See the module.
pub struct Allocator {
    shelves: [Shelf; SHELVES],
}

/// Free blocks. It has a cache line to itself.
#[repr(align(64))]
struct Shelf {
    taken: AtomicBool,
    piles: UnsafeCell<[Pile; SIZES]>,
}

/// Free blocks of one size.
#[derive(Clone, Copy)]
struct Pile {
    count: usize,
    top: Option<NonNull<Free>>,
}

/// What a free block holds: the one below it.
struct Free(Option<NonNull<Free>>);

/// A size of blocks: its place among the sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size(usize);

// SAFETY: whoever looks at the piles has set `taken` before and clears it afterwards: see `Shelf::with`. The blocks
// belong to nobody, so it does not matter which thread made them.
unsafe impl Sync for Shelf {}

impl Size {
    /// The smallest that fits; `None` for what the C library is to have itself.
    fn of(layout: Layout) -> Option<Self> {
        let last = layout.size().checked_sub(1)?;
        if layout.align() > ALIGN || last >= LARGEST {
            return None;
        }
        Some(Self(if last < FINE {
            last / 16
        } else {
            let doubling = last.ilog2();
            let upper = last >> (doubling - 1) & 1;
            FINE / 16 + 2 * (doubling - FINE.ilog2()) as usize + upper
        }))
    }

    fn bytes(self) -> usize {
        match self.0.checked_sub(FINE / 16) {
            None => (self.0 + 1) * 16,
            Some(n) => (FINE << (n / 2)) / 2 * (3 + n % 2),
        }
    }

    fn layout(self) -> Layout {
        // SAFETY: the alignment is a power of two, and the size is far from the largest one.
        unsafe { Layout::from_size_align_unchecked(self.bytes(), ALIGN) }
    }

    /// How many of them a shelf holds.
    fn most(self) -> usize {
        BYTES / self.bytes()
    }
}

impl Shelf {
    const fn new() -> Self {
        let empty = Pile {
            count: 0,
            top: None,
        };
        Self {
            taken: AtomicBool::new(false),
            piles: UnsafeCell::new([empty; SIZES]),
        }
    }

    /// Does something with a pile, unless somebody is at the shelf. `act` must not allocate.
    fn with<T>(&self, size: Size, act: impl FnOnce(&mut Pile) -> Option<T>) -> Option<T> {
        if self.taken.swap(true, Ordering::Acquire) {
            return None;
        }
        // SAFETY: `taken` was clear, so nobody else is here until it is cleared again.
        let done = act(unsafe { &mut (*self.piles.get())[size.0] });
        self.taken.store(false, Ordering::Release);
        done
    }
}

impl Allocator {
    #[allow(
        clippy::new_without_default,
        clippy::large_stack_arrays,
        reason = "it is made once, as a constant"
    )]
    pub const fn new() -> Self {
        Self {
            shelves: [const { Shelf::new() }; SHELVES],
        }
    }

    /// The shelf of the thread that asks.
    fn shelf(&self) -> &Shelf {
        let here = 0_u8;
        let stack = black_box(&raw const here).addr() >> STACK_BITS;
        // Neighbouring stacks are a few of these units apart, whichever their number.
        &self.shelves[(stack ^ stack >> 4 ^ stack >> 8) % SHELVES]
    }
}

// SAFETY: a block is handed out by the C library, or was and has been given back to us; while it lies on a shelf it is
// nobody's. Which size it has follows from the layout's size and alignment alone, which are the same when it is given
// back, so it returns to the C library with the layout that it was made with.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(size) = Size::of(layout) else {
            // SAFETY: the caller's promise is passed on.
            return unsafe { System.alloc(layout) };
        };
        let kept = self.shelf().with(size, |pile| {
            let block = pile.top?;
            pile.count -= 1;
            // SAFETY: it was written when the block was laid there.
            pile.top = unsafe { block.as_ref() }.0;
            Some(block)
        });
        match kept {
            Some(block) => block.as_ptr().cast(),
            // SAFETY: no size of ours is zero.
            None => unsafe { System.alloc(size.layout()) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(size) = Size::of(layout) else {
            // SAFETY: `alloc` has had it from there, with this layout.
            return unsafe { System.dealloc(block, layout) };
        };
        let kept = self.shelf().with(size, |pile| {
            let block = NonNull::new(block)?.cast();
            (pile.count < size.most()).then(|| {
                // SAFETY: it is nobody's any more, and the smallest block is large enough.
                unsafe { block.write(Free(pile.top)) };
                pile.top = Some(block);
                pile.count += 1;
            })
        });
        if kept.is_none() {
            // SAFETY: `alloc` has had it from there, with the layout of this size.
            unsafe { System.dealloc(block, size.layout()) }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if Size::of(layout).is_none() {
            // SAFETY: the caller's promise is passed on. What the system gives anew is zero already.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: the same promise.
        let block = unsafe { self.alloc(layout) };
        if !block.is_null() {
            // SAFETY: the block has at least this size.
            unsafe { ptr::write_bytes(block, 0, layout.size()) };
        }
        block
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that this size makes a layout.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (Size::of(layout), Size::of(wanted)) {
            // SAFETY: it is the C library's, and stays it.
            (None, None) => unsafe { System.realloc(block, layout, size) },
            (old, new) if old == new => block,
            _ => {
                // SAFETY: as for any other block.
                let moved = unsafe { self.alloc(wanted) };
                if !moved.is_null() {
                    // SAFETY: both have at least so many bytes, and two blocks never overlap. The old one was ours.
                    unsafe {
                        ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                        self.dealloc(block, layout);
                    }
                }
                moved
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 1).unwrap()
    }

    #[test]
    fn every_request_gets_the_smallest_size_that_fits() {
        let mut sizes: Vec<usize> = (0..SIZES).map(|n| Size(n).bytes()).collect();
        assert!(sizes.is_sorted() && sizes.last() == Some(&LARGEST));
        for wanted in 1..=LARGEST {
            let size = Size::of(layout(wanted)).unwrap();
            let smallest = sizes.iter().position(|size| *size >= wanted);
            assert_eq!(Some(size.0), smallest, "{wanted}");
        }
        sizes.dedup();
        assert_eq!(sizes.len(), SIZES);
        let wide = Layout::from_size_align(64, 32).unwrap();
        assert_eq!(
            (Size::of(layout(LARGEST + 1)), Size::of(wide)),
            (None, None)
        );
    }

    /// Blocks of all sizes change hands between threads; each holds what was written to it.
    #[test]
    fn no_block_is_two_peoples_at_once() {
        static ALLOCATOR: Allocator = Allocator::new();
        struct Block(*mut u8, Layout);
        // SAFETY: it is this thread's or that one's, never both.
        unsafe impl Send for Block {}
        let check = |Block(block, layout): &Block| {
            let mark = u8::try_from(layout.size() % 251).unwrap();
            // SAFETY: the block has this size and was filled.
            let bytes = unsafe { std::slice::from_raw_parts(*block, layout.size()) };
            assert!(bytes.iter().all(|byte| *byte == mark));
        };
        let make = |size: usize| {
            let layout = layout(size);
            let mark = u8::try_from(size % 251).unwrap();
            // SAFETY: the size is not zero, and what is written is as long.
            unsafe {
                let block = if size.is_multiple_of(3) {
                    let block = ALLOCATOR.alloc_zeroed(layout);
                    assert_eq!((*block, *block.add(size - 1)), (0, 0));
                    block
                } else {
                    ALLOCATOR.alloc(layout)
                };
                block.write_bytes(mark, size);
                Block(block, layout)
            }
        };
        let grow = |Block(block, old): Block, size: usize| {
            let mark = u8::try_from(size % 251).unwrap();
            // SAFETY: the block is of this layout; what is kept of it is looked at, and then overwritten.
            unsafe {
                let moved = ALLOCATOR.realloc(block, old, size);
                let kept = std::slice::from_raw_parts(moved, old.size().min(size));
                let was = u8::try_from(old.size() % 251).unwrap();
                assert!(kept.iter().all(|byte| *byte == was));
                moved.write_bytes(mark, size);
                Block(moved, layout(size))
            }
        };
        thread::scope(|scope| {
            let (mut to, mut from) = std::sync::mpsc::channel::<Block>();
            for number in 1..=6_usize {
                let (next, received) = std::sync::mpsc::channel();
                let (to, from) = (
                    std::mem::replace(&mut to, next),
                    std::mem::replace(&mut from, received),
                );
                scope.spawn(move || {
                    for turn in 0..4000 {
                        let size = (turn * 7919 * number) % (LARGEST + 2000) + 1;
                        let block = grow(make(size), size * 5 % (LARGEST + 1000) + 1);
                        check(&block);
                        let _ = to.send(block);
                        if let Ok(block) = from.try_recv() {
                            check(&block);
                            // SAFETY: it is this thread's now.
                            unsafe { ALLOCATOR.dealloc(block.0, block.1) };
                        }
                    }
                });
            }
        });
    }
}
