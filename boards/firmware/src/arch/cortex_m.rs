//! What is particular to Cortex-M: fault and panic reports, the painted stack, the marks for instruction counts.

use core::arch::{asm, naked_asm};
use core::panic::PanicInfo;

use cortex_m_rt::STACK_PAINT_VALUE;

use crate::host::{self, Console};
use crate::record::Record;

unsafe extern "C" {
    static _stack_start: u32;
    static _stack_end: u32;
    static __stext: u32;
    static __etext: u32;
}

/// Exit code of a panic or a fault; a plain failure is 1.
const CRASHED: u8 = 101;
/// Most return addresses that a report lists.
const RETURNS_MAX: usize = 12;

/// Starts a region of counted instructions: a no-op that the emulator's plugin looks for.
#[inline(always)]
pub fn count_start() {
    // SAFETY: moves a register to itself.
    unsafe { asm!("mov r10, r10", options(nostack, preserves_flags)) }
}

/// Ends the region.
#[inline(always)]
pub fn count_stop() {
    // SAFETY: moves a register to itself.
    unsafe { asm!("mov r11, r11", options(nostack, preserves_flags)) }
}

/// Bytes of stack used so far at the deepest: those that the start-up code painted and something has overwritten since.
pub fn stack_used_bytes() -> usize {
    let (top, end) = (&raw const _stack_start, &raw const _stack_end);
    let mut word = end;
    // SAFETY: `word` stays between the linker's bounds of the stack; a volatile read of a live frame is just a number.
    while word < top && unsafe { word.read_volatile() } == STACK_PAINT_VALUE {
        word = word.wrapping_add(1);
    }
    top.addr() - word.addr()
}

/// Takes a fault. The stack may be what is broken, so a fresh one begins at its top before anything else.
#[unsafe(naked)]
#[unsafe(export_name = "HardFault")]
#[unsafe(link_section = ".HardFault.user")]
unsafe extern "C" fn hard_fault() -> ! {
    naked_asm!(
        "mrs r0, msp",
        "ldr r1, ={stack_start}",
        "msr msp, r1",
        // It does not come back; ARMv6-M has no plain branch that reaches far.
        "bl {report}",
        stack_start = sym _stack_start,
        report = sym report_fault,
    )
}

/// Keeps the symbol that cortex-m-rt wants of whoever defines `HardFault`.
#[unsafe(export_name = "HardFaultTrampoline")]
extern "C" fn hard_fault_trampoline() {}

/// Says what kind of fault it was. `frame` is the stack pointer at the handler's entry.
extern "C" fn report_fault(frame: usize) -> ! {
    let is_overflow = frame < (&raw const _stack_end).addr();
    let what = if is_overflow { " the stack overflowed" } else { " the processor faulted" };
    let mut console = Console::open();
    let mut record = Record::new(&mut console, "fault");
    record.text(what);
    add_fault_status(&mut record);
    record.text(", stack pointer").hex(frame as u64, 8).send();
    send_return_addresses(&mut console, frame);
    host::exit(CRASHED)
}

/// Adds what the core knows of the fault.
#[cfg(not(armv6m))]
fn add_fault_status(record: &mut Record<'_>) {
    /// The configurable fault status and the bus fault address, in the system control block.
    const CFSR: *const u32 = 0xe000_ed28 as *const u32;
    const BFAR: *const u32 = 0xe000_ed38 as *const u32;
    // SAFETY: both registers exist on every ARMv7-M and ARMv8-M core with the main extension, and reading them changes nothing.
    let (status, address) = unsafe { (CFSR.read_volatile(), BFAR.read_volatile()) };
    record.text(", status").hex(status.into(), 8).text(", address").hex(address.into(), 8);
}

/// ARMv6-M knows nothing of a fault but that it happened.
#[cfg(armv6m)]
fn add_fault_status(_: &mut Record<'_>) {}

/// Says that the program panicked, and from where.
///
/// The message goes unread: as soon as anything looks at it, all of `core::fmt` is linked, a sixth of the firmware.
#[panic_handler]
fn report_panic(_info: &PanicInfo<'_>) -> ! {
    let here: u32 = 0;
    let mut console = Console::open();
    Record::new(&mut console, "fault").text(" the program panicked").send();
    send_return_addresses(&mut console, (&raw const here).addr());
    host::exit(CRASHED)
}

/// Sends the words of the stack from `stack_pointer` up that look like return addresses, innermost first, for addr2line.
fn send_return_addresses(console: &mut Console, stack_pointer: usize) {
    let code = (&raw const __stext).addr()..(&raw const __etext).addr();
    let stack = (&raw const _stack_end).addr()..(&raw const _stack_start).addr();
    let mut record = Record::new(console, "returns");
    let mut n_sent = 0;
    let mut address = stack_pointer.max(stack.start) & !3;
    while address < stack.end && n_sent < RETURNS_MAX {
        // SAFETY: `address` is a word of the stack.
        let word = unsafe { (address as *const u32).read_volatile() };
        if word & 1 == 1 && code.contains(&(word as usize)) {
            record.hex(word.into(), 8);
            n_sent += 1;
        }
        address += 4;
    }
    record.send();
}
