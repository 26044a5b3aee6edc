//! Memory that is too much for a stack: a `static` that is handed out once.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

/// A value for whoever comes first.
pub struct Once<T> {
    value: UnsafeCell<T>,
    is_taken: AtomicBool,
}

// SAFETY: the flag lets one caller have the value, ever; there is one core and no interrupt.
unsafe impl<T: Send> Sync for Once<T> {}

impl<T> Once<T> {
    /// The value, to be taken.
    pub const fn new(value: T) -> Self {
        Self { value: UnsafeCell::new(value), is_taken: AtomicBool::new(false) }
    }

    /// The value, for the first caller.
    pub fn take(&'static self) -> Option<&'static mut T> {
        // Not a swap: ARMv6-M has none.
        let is_taken = self.is_taken.load(Ordering::Relaxed);
        self.is_taken.store(true, Ordering::Relaxed);
        // SAFETY: nobody else has it or will.
        (!is_taken).then(|| unsafe { &mut *self.value.get() })
    }
}
