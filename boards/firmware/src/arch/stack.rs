//! The stack, which the start-up code fills with a pattern.

use core::ops::Range;

unsafe extern "C" {
    static _stack_start: u32;
    static _stack_end: u32;
}

/// What the start-up code fills the stack with.
#[cfg(target_arch = "arm")]
pub const PAINT: u32 = cortex_m_rt::STACK_PAINT_VALUE;
/// What the start-up code fills the stack with.
#[cfg(not(target_arch = "arm"))]
pub const PAINT: u32 = 0xcccc_cccc;

/// Its addresses, from the end that it grows towards.
pub fn addresses() -> Range<usize> {
    (&raw const _stack_end).addr()..(&raw const _stack_start).addr()
}

/// Bytes of stack used so far at the deepest: those that the start-up code painted and something has overwritten since.
pub fn used_bytes() -> usize {
    let (top, end) = (&raw const _stack_start, &raw const _stack_end);
    let mut word = end;
    // SAFETY: `word` stays between the linker's bounds of the stack; a volatile read of a live frame is just a number.
    while word < top && unsafe { word.read_volatile() } == PAINT {
        word = word.wrapping_add(1);
    }
    top.addr() - word.addr()
}
