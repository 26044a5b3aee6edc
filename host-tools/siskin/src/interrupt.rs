//! Ctrl-C as a flag, for commands that stop cleanly.

use std::sync::atomic::AtomicBool;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on the first Ctrl-C (or a request to terminate) sets the returned flag; the next one ends the program at once.
#[cfg(unix)]
pub(crate) fn flag() -> &'static AtomicBool {
    use std::sync::atomic::Ordering;

    extern "C" fn on_signal(signal: libc::c_int) {
        INTERRUPTED.store(true, Ordering::Relaxed);
        // SAFETY: `signal` is async-signal-safe and resets a signal that the system has just delivered.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let handler = on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t;
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler only stores to an atomic and calls `signal`, both allowed in a signal handler.
        unsafe { libc::signal(signal, handler) };
    }
    &INTERRUPTED
}

/// Without Unix signals Ctrl-C ends the program at once; the last checkpoint can be resumed from.
#[cfg(not(unix))]
pub(crate) fn flag() -> &'static AtomicBool {
    &INTERRUPTED
}
