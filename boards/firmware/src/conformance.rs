//! Tries every kernel that the board has: a `family` record with each family's number of cases, or an error at the first difference.

use siskin_conformance::FAMILIES;
use siskin_runtime::Kernels;

use crate::Memory;
use crate::failure::Failure;
use crate::host::Console;
use crate::record::Record;

/// Runs the cases.
pub fn respond(console: &mut Console, _: Memory) -> Result<(), Failure> {
    // A `main` runs once, and hands out its memory once: so does this.
    let memory = cases_memory();
    for kernels in Kernels::available() {
        Record::new(console, "kernels ").text(kernels.name()).send();
        for (name, family) in FAMILIES {
            let n_cases = family(kernels, memory).map_err(|mismatch| {
                let failure = Failure::new(mismatch.kernel);
                mismatch.case.into_iter().fold(failure, |failure, (what, value)| failure.with(what, value as u64))
            })?;
            Record::new(console, "family ").text(name).number(n_cases as u64).send();
        }
    }
    Ok(())
}

/// What the cases work in, too much for a stack.
fn cases_memory() -> &'static mut siskin_conformance::Memory {
    use core::cell::UnsafeCell;
    use core::sync::atomic::{AtomicBool, Ordering};

    struct Shared(UnsafeCell<siskin_conformance::Memory>, AtomicBool);
    // SAFETY: the flag lets one caller have the memory, ever.
    unsafe impl Sync for Shared {}
    static MEMORY: Shared = Shared(UnsafeCell::new(siskin_conformance::Memory::new()), AtomicBool::new(false));

    let is_taken = MEMORY.1.load(Ordering::Relaxed);
    MEMORY.1.store(true, Ordering::Relaxed);
    assert!(!is_taken, "the conformance cases run once");
    // SAFETY: nobody else has it or will; there is one core and no interrupt.
    unsafe { &mut *MEMORY.0.get() }
}
