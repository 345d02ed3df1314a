//! What the process has allocated and not freed. What the system counts as its memory is more: an allocator keeps pages that
//! were used at a peak, so that only this figure tells whether anything is forgotten.

use cap::Cap;
use mimalloc::MiMalloc;

/// The usual allocator, counted.
#[global_allocator]
static ALLOCATOR: Cap<MiMalloc> = Cap::new(MiMalloc, usize::MAX);

/// Bytes allocated and not freed.
pub(crate) fn allocated() -> usize {
    ALLOCATOR.allocated()
}
