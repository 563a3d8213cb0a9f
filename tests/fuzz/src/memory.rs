//! How much memory something holds at most.
#![expect(unsafe_code, reason = "an allocator that counts; all work is the system's")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes held now by what this thread has allocated, and the most since [`peak`] began. Neither has a destructor, so
    /// they can be used until the thread's last allocation.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: isize) {
    HELD.with(|held| {
        held.set(held.get() + bytes);
        MOST.with(|most| most.set(most.get().max(held.get())));
    });
}

fn signed(size: usize) -> isize {
    isize::try_from(size).unwrap_or(isize::MAX)
}

// SAFETY: every call goes on to the system's allocator with the caller's own arguments, and its answer is given back.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(signed(layout.size()));
        // SAFETY: the caller's promise is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-signed(layout.size()));
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(signed(size) - signed(layout.size()));
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}

/// Runs, and gives the most bytes that this thread has held meanwhile beyond those that it held before.
pub fn peak<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.with(Cell::get);
    MOST.with(|most| most.set(before));
    let result = run();
    let most = MOST.with(Cell::get) - before;
    (result, usize::try_from(most).unwrap_or(0))
}

/// Runs, and panics where that took more than `limit` bytes.
#[track_caller]
pub fn within<T>(limit: usize, run: impl FnOnce() -> T) -> T {
    let (result, most) = peak(run);
    assert!(most <= limit, "{most} bytes of memory, {limit} are allowed");
    result
}
