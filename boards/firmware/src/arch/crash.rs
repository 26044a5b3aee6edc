//! How the program ends when it panics or faults.

use core::panic::PanicInfo;

use super::stack;
use crate::host::{self, Console};
use crate::record::Record;

unsafe extern "C" {
    static __stext: u8;
    static __etext: u8;
}

/// Exit code of a panic or a fault; a plain failure is 1.
const CRASHED: u8 = 101;
/// Most return addresses that a report lists.
const RETURNS_MAX: usize = 12;
/// Hexadecimal digits of an address.
pub const DIGITS: u32 = usize::BITS / 4;

/// Sends a `fault` record, to which `details` adds what the core knows, and ends. `stack_pointer` is that of the code that faulted.
pub fn fault(is_overflow: bool, stack_pointer: usize, details: impl FnOnce(&mut Record<'_>)) -> ! {
    let mut console = Console::open();
    let mut record = Record::new(&mut console, "fault");
    record.text(if is_overflow { " the stack overflowed" } else { " the processor faulted" });
    details(&mut record);
    record.text(", stack pointer").hex(stack_pointer as u64, DIGITS).send();
    end(&mut console, stack_pointer)
}

/// Says that the program panicked, and from where.
///
/// The message goes unread: as soon as anything looks at it, all of `core::fmt` is linked, a sixth of the firmware.
#[cfg(not(feature = "panic-free"))]
#[panic_handler]
fn panic(_info: &PanicInfo<'_>) -> ! {
    let here: usize = 0;
    let mut console = Console::open();
    Record::new(&mut console, "fault").text(" the program panicked").send();
    end(&mut console, (&raw const here).addr())
}

/// Stands in for the handler where no panic can be reached: a link that needs it fails.
#[cfg(feature = "panic-free")]
#[panic_handler]
fn panic(_info: &PanicInfo<'_>) -> ! {
    unsafe extern "C" {
        fn a_panic_can_be_reached() -> !;
    }
    // SAFETY: it is nowhere defined, so that no image with this call exists.
    unsafe { a_panic_can_be_reached() }
}

/// Sends the words of the stack from `stack_pointer` up that look like return addresses, innermost first, for addr2line, and ends.
fn end(console: &mut Console, stack_pointer: usize) -> ! {
    let code = (&raw const __stext).addr()..(&raw const __etext).addr();
    let stack = stack::addresses();
    let mut record = Record::new(console, "returns");
    let mut n_sent = 0;
    let mut address = stack_pointer.max(stack.start).next_multiple_of(size_of::<usize>());
    while address < stack.end && n_sent < RETURNS_MAX {
        // SAFETY: `address` is a word of the stack.
        let word = unsafe { (address as *const usize).read_volatile() };
        // Bit 0 marks Thumb code, which is all that there is on Cortex-M.
        if code.contains(&word) && (word & 1 == 1 || cfg!(not(target_arch = "arm"))) {
            record.hex(word as u64, DIGITS);
            n_sent += 1;
        }
        address += size_of::<usize>();
    }
    record.send();
    host::exit(CRASHED)
}
