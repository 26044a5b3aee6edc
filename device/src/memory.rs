//! Memory that is too much for a stack: statics that are handed out once.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

/// A value that someone else keeps the key to; see [`crate::Model`].
pub struct Memory<T: ?Sized>(UnsafeCell<T>);

// SAFETY: sharing it gives nothing but a pointer, and who follows that promises to be the only one.
unsafe impl<T: ?Sized + Send> Sync for Memory<T> {}

impl<T> Memory<T> {
    /// The value, out of reach.
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }
}

impl<T: ?Sized> Memory<T> {
    /// Where it lies.
    pub(crate) const fn get(&self) -> *mut T {
        self.0.get()
    }
}

/// Comes true once, until it is given back.
pub(crate) struct Key(AtomicBool);

impl Key {
    /// Nobody has it yet.
    pub(crate) const fn new() -> Self {
        Self(AtomicBool::new(true))
    }

    /// Whether the caller is the first since it was made or given back, also of several cores or interrupts.
    pub(crate) fn take(&self) -> bool {
        #[cfg(target_has_atomic = "8")]
        return self.0.swap(false, Ordering::Acquire);
        #[cfg(not(target_has_atomic = "8"))]
        critical_section::with(|_| {
            let is_there = self.0.load(Ordering::Relaxed);
            self.0.store(false, Ordering::Relaxed);
            is_there
        })
    }

    /// Makes it come true again: for who took it and is done with what it stands for.
    pub(crate) fn give_back(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A value for whoever comes first.
pub struct Once<T> {
    value: Memory<T>,
    key: Key,
}

impl<T> Once<T> {
    /// The value, to be taken.
    pub const fn new(value: T) -> Self {
        Self { value: Memory::new(value), key: Key::new() }
    }

    /// The value, for the first caller.
    #[expect(clippy::mut_from_ref, reason = "the key says so to one caller, ever")]
    pub fn take(&'static self) -> Option<&'static mut T> {
        // SAFETY: the key says so to one caller, ever.
        self.key.take().then(|| unsafe { &mut *self.value.get() })
    }
}
