//! How bytes are copied where the C library is musl: in its stead we define `memcpy` and `memmove`, which everything calls.
//!
//! musl's versions for this processor have microcode copy (`rep movsq`), which takes its time to begin. A click copies
//! hundreds of pieces of a few bytes, most of them when its JSON is written, and spent a tenth of the processor on
//! that. With these, the same processors take 10 % more clicks (`scripts/bench/run --only durable_clicks`).
#![allow(unsafe_code)]
#![allow(
    clippy::inline_always,
    reason = "a call for each block would undo it, and the size is what the compiler minds"
)]

use std::arch::asm;
use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_storeu_si128};

/// Bytes of a [`Block`].
const BLOCK: usize = size_of::<Block>();
/// From so many bytes on, microcode is faster.
const LONG: usize = 1024;

/// What one instruction copies.
type Block = __m128i;

/// What the C standard says of `memcpy`.
///
/// # Safety
///
/// There are `count` bytes at both places, and the two do not overlap.
#[cfg_attr(target_env = "musl", unsafe(no_mangle))]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        if count > LONG {
            asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _,
                options(nostack, preserves_flags));
        } else if count > BLOCK {
            forwards(to, from, count);
        } else {
            short(to, from, count);
        }
    }
    to
}

/// What the C standard says of `memmove`.
///
/// # Safety
///
/// There are `count` bytes at both places. The two may overlap.
#[cfg_attr(target_env = "musl", unsafe(no_mangle))]
pub unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    let ahead = to.addr().wrapping_sub(from.addr());
    // SAFETY: the caller's promise is passed on. Both ways copy what overlaps before it is overwritten.
    unsafe {
        if ahead >= count && from.addr().wrapping_sub(to.addr()) >= count {
            return memcpy(to, from, count);
        }
        if count <= BLOCK {
            short(to, from, count);
        } else if ahead >= count {
            forwards(to, from, count);
        } else {
            backwards(to, from, count);
        }
    }
    to
}

/// Copies more than a block, from the beginning on. The last one is read before anything is written.
#[inline(always)]
unsafe fn forwards(to: *mut u8, from: *const u8, count: usize) {
    let end = count - BLOCK;
    // SAFETY: all blocks lie within the `count` bytes.
    unsafe {
        let last = load(from.add(end));
        let mut at = 0;
        while at < end {
            store(to.add(at), load(from.add(at)));
            at += BLOCK;
        }
        store(to.add(end), last);
    }
}

/// Copies more than a block, from the end on. The first one is read before anything is written.
#[inline(always)]
unsafe fn backwards(to: *mut u8, from: *const u8, count: usize) {
    let mut at = count - BLOCK;
    // SAFETY: all blocks lie within the `count` bytes.
    unsafe {
        let first = load(from);
        while at > 0 {
            store(to.add(at), load(from.add(at)));
            at = at.saturating_sub(BLOCK);
        }
        store(to, first);
    }
}

/// Copies up to a block. All is read before anything is written.
#[inline(always)]
unsafe fn short(to: *mut u8, from: *const u8, count: usize) {
    // SAFETY: the pieces at the beginning and at the end lie within the `count` bytes; together they are all of them.
    unsafe {
        match count {
            0 => {}
            1 => *to = *from,
            2..4 => ends::<u16>(to, from, count),
            4..8 => ends::<u32>(to, from, count),
            8..BLOCK => ends::<u64>(to, from, count),
            _ => store(to, load(from)),
        }
    }
}

/// Copies the first piece and the last one, which may overlap.
#[inline(always)]
unsafe fn ends<T>(to: *mut u8, from: *const u8, count: usize) {
    let end = count - size_of::<T>();
    // SAFETY: the caller sees to it that a `T` is not longer than `count` bytes, and any bytes are one.
    unsafe {
        let first = from.cast::<T>().read_unaligned();
        let last = from.add(end).cast::<T>().read_unaligned();
        to.cast::<T>().write_unaligned(first);
        to.add(end).cast::<T>().write_unaligned(last);
    }
}

#[inline(always)]
unsafe fn load(from: *const u8) -> Block {
    // SAFETY: the caller knows that a block is there; it need not be aligned.
    unsafe { _mm_loadu_si128(from.cast()) }
}

#[inline(always)]
unsafe fn store(to: *mut u8, block: Block) {
    // SAFETY: the caller knows that there is room for a block; it need not be aligned.
    unsafe { _mm_storeu_si128(to.cast(), block) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every length up to beyond the long ones, and every way to overlap around a block.
    #[test]
    fn what_is_copied_is_what_was_there_and_nothing_beside_it_changes() {
        let bytes: Vec<u8> = (0..=250).cycle().take(2 * LONG + 200).collect();
        let expect = |to: usize, from: usize, count: usize| {
            let mut expected = bytes.clone();
            expected.copy_within(from..from + count, to);
            expected
        };
        for count in (0..200).chain(LONG - 20..LONG + 20) {
            let (from, to) = (3, LONG + 50);
            let mut apart = bytes.clone();
            // SAFETY: both places are within, and apart.
            unsafe { memcpy(apart.as_mut_ptr().add(to), apart.as_ptr().add(from), count) };
            assert!(apart == expect(to, from, count), "{count} bytes");
            for shift in (0..70).chain([count, count + 1]) {
                for (to, from) in [(20 + shift, 20), (20, 20 + shift)] {
                    let mut moved = bytes.clone();
                    // SAFETY: both places are within.
                    unsafe { memmove(moved.as_mut_ptr().add(to), moved.as_ptr().add(from), count) };
                    let expected = expect(to, from, count);
                    assert!(moved == expected, "{count} bytes, {from} to {to}");
                }
            }
        }
    }
}
