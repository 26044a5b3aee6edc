//! What is particular to RISC-V: the start, taking an exception, and what the core knows of it.

use core::arch::naked_asm;

use super::{crash, stack};

/// Where the core begins: protects the flash, paints the stack, fills `.data` and `.bss`, calls `main`.
///
/// Entry 0 of the physical memory protection (0x9d: locked, a naturally aligned power of two, execute and read) holds for machine
/// mode as well. FPU and vectors, where there are any, are switched on in `mstatus` (0x6600).
#[unsafe(naked)]
#[unsafe(export_name = "Reset")]
#[unsafe(link_section = ".init")]
unsafe extern "C" fn reset() -> ! {
    naked_asm!(
        "la t0, {trap}",
        "csrw mtvec, t0",
        "la t0, _flash_napot",
        "csrw pmpaddr0, t0",
        "li t0, 0x9d",
        "csrw pmpcfg0, t0",
        "li t0, 0x6600",
        "csrs mstatus, t0",
        "la sp, _stack_start",
        "la t0, _stack_end",
        "li t1, {paint}",
        "2: sw t1, 0(t0)",
        "addi t0, t0, 4",
        "bltu t0, sp, 2b",
        "la t0, __sdata",
        "la t1, __edata",
        "la t2, __sidata",
        "j 4f",
        "3: lw t3, 0(t2)",
        "sw t3, 0(t0)",
        "addi t0, t0, 4",
        "addi t2, t2, 4",
        "4: bltu t0, t1, 3b",
        "la t0, __sbss",
        "la t1, __ebss",
        "j 6f",
        "5: sw zero, 0(t0)",
        "addi t0, t0, 4",
        "6: bltu t0, t1, 5b",
        "call main",
        "7: j 7b",
        trap = sym trap,
        paint = const stack::PAINT as i32,
    )
}

/// Takes an exception. The stack may be what is broken, so a fresh one begins at its top before anything else.
#[unsafe(naked)]
#[unsafe(export_name = "Trap")]
unsafe extern "C" fn trap() -> ! {
    naked_asm!(
        // `mtvec` ignores the two lowest bits.
        ".balign 4",
        "csrr a0, mcause",
        "csrr a1, mepc",
        "csrr a2, mtval",
        "mv a3, sp",
        "la sp, _stack_start",
        "j {report}",
        report = sym report_trap,
    )
}

/// Says what kind of exception it was, by what the core's registers held.
extern "C" fn report_trap(cause: usize, pc: usize, value: usize, frame: usize) -> ! {
    /// A store to an address that may not be written to.
    const STORE_ACCESS_FAULT: usize = 7;
    let below = stack::addresses().start;
    // A frame may be begun by moving the stack pointer, or by a store below it that is refused.
    let is_overflow = frame < below || (cause == STORE_ACCESS_FAULT && value < below && frame - below < 64);
    crash::fault(is_overflow, frame, |record| {
        for (name, number) in [(", cause", cause), (", at", pc), (", address", value)] {
            record.text(name).hex(number as u64, crash::DIGITS);
        }
    })
}
