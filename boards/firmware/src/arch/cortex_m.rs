//! What is particular to Cortex-M: taking a fault, and what the core knows of it.

use core::arch::naked_asm;

use super::{crash, stack};
use crate::record::Record;

unsafe extern "C" {
    static _stack_start: u32;
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
    crash::fault(frame < stack::addresses().start, frame, add_fault_status)
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

/// Has the FPU round to zero, as no kernel expects: what a self-test must find.
#[cfg(rounds_to_zero)]
pub fn round_to_zero() {
    // SAFETY: it changes the mode of rounding alone, of a core that has an FPU: others have no such register to assemble.
    unsafe { core::arch::asm!("vmrs {word}, fpscr", "orr {word}, #0xc00000", "vmsr fpscr, {word}", word = out(reg) _) };
}
