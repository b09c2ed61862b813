//! A global allocator that counts, for tests with a process of their own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

struct Counting;

static CALLS: AtomicUsize = AtomicUsize::new(0);
static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn add(size: usize) {
    CALLS.fetch_add(1, Relaxed);
    PEAK.fetch_max(NOW.fetch_add(size, Relaxed) + size, Relaxed);
}

#[allow(unsafe_code)]
// SAFETY: every call is passed on to the system allocator unchanged; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller's promises are the system allocator's own.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // While it moves, both are there.
        add(size);
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes held now.
#[allow(dead_code, reason = "not every test asks")]
pub fn held() -> usize {
    NOW.load(Relaxed)
}

/// Allocations during a call, by any thread.
#[allow(dead_code, reason = "not every test asks")]
pub fn allocations(body: impl FnOnce()) -> usize {
    let before = CALLS.load(Relaxed);
    body();
    CALLS.load(Relaxed) - before
}

/// Bytes held at most during a call, above those held before it.
#[allow(dead_code, reason = "not every test asks")]
pub fn peak<T>(body: impl FnOnce() -> T) -> (T, usize) {
    let before = held();
    PEAK.store(before, Relaxed);
    let result = body();
    (result, PEAK.load(Relaxed) - before)
}
