//! What is particular to AArch64: the start, taking an exception, and what the core knows of it.

use core::arch::{global_asm, naked_asm};

use super::{crash, stack};

/// Where the cores begin. All but the first sleep for good; the first comes down to exception level 1 from wherever it was started,
/// switches NEON on, paints the stack, fills `.data` and `.bss`, maps the memory, and calls `main`.
///
/// Nothing here is unaligned: until memory is mapped, the core takes it for a device's.
#[unsafe(naked)]
#[unsafe(export_name = "Reset")]
#[unsafe(link_section = ".init")]
unsafe extern "C" fn reset() -> ! {
    naked_asm!(
        "mrs x0, mpidr_el1",
        "tst x0, #0xff",
        "b.eq 2f",
        "1: wfi",
        "b 1b",
        // Level 1 is the goal: with a stack of its own, interrupts masked (0x3c5), and everything off that is optional.
        "2: ldr x1, =0x30d00800",
        "msr sctlr_el1, x1",
        "mov x2, #0x3c5",
        "adr x3, 5f",
        "mrs x0, CurrentEL",
        "cmp x0, #8",
        "b.lo 5f",
        "b.eq 4f",
        // From level 3: what is below is not secure and has 64 bits (0x401); floats are for everybody.
        "mov x0, #0x401",
        "msr scr_el3, x0",
        "msr cptr_el3, xzr",
        "mov x0, #0x80000000",
        "msr hcr_el2, x0",
        "mov x0, #0x33ff",
        "msr cptr_el2, x0",
        "msr spsr_el3, x2",
        "msr elr_el3, x3",
        "eret",
        // From level 2.
        "4: mov x0, #0x80000000",
        "msr hcr_el2, x0",
        "mov x0, #0x33ff",
        "msr cptr_el2, x0",
        "msr spsr_el2, x2",
        "msr elr_el2, x3",
        "eret",
        "5: adrp x0, __vectors",
        "msr vbar_el1, x0",
        "mov x0, #0x300000",
        "msr cpacr_el1, x0",
        "isb",
        "ldr x0, =_stack_start",
        "mov sp, x0",
        "ldr x1, =_stack_end",
        "ldr w2, ={paint}",
        "6: str w2, [x1], #4",
        "cmp x1, x0",
        "b.lo 6b",
        "ldr x0, =__sdata",
        "ldr x1, =__edata",
        "ldr x2, =__sidata",
        "b 8f",
        "7: ldr x3, [x2], #8",
        "str x3, [x0], #8",
        "8: cmp x0, x1",
        "b.lo 7b",
        "ldr x0, =__sbss",
        "ldr x1, =__ebss",
        "b 10f",
        "9: str xzr, [x0], #8",
        "10: cmp x0, x1",
        "b.lo 9b",
        "bl {map}",
        "bl main",
        "b 1b",
        paint = const stack::PAINT,
        map = sym map_memory,
    )
}

/// Maps the flash for reading and executing, and the RAM for reading and writing, at their own addresses, in blocks of 2 MB of one
/// gigabyte; everything else faults. Then the caches are on, and unaligned accesses allowed.
#[unsafe(naked)]
unsafe extern "C" fn map_memory() {
    naked_asm!(
        "mov x6, lr",
        // The table of the gigabytes: the one that holds the program points to the table of its blocks.
        "ldr x0, =__page_tables",
        "add x1, x0, #4096",
        "ldr x2, =__flash_start",
        "lsr x3, x2, #30",
        "orr x4, x1, #3",
        "str x4, [x0, x3, lsl #3]",
        // Blocks of ordinary memory (attribute 0), shared, accessed before, read-only.
        "mov x5, #0x781",
        "ldr x3, =__flash_end",
        "bl 2f",
        // Writable, never executed.
        "ldr x2, =__ram_start",
        "ldr x3, =__ram_end",
        "ldr x5, =0x0060000000000701",
        "bl 2f",
        "mov x2, #0xff",
        "msr mair_el1, x2",
        // 32 bits of addresses from the low end, walked through the caches; none from the high end.
        "ldr x2, =0x803520",
        "msr tcr_el1, x2",
        "msr ttbr0_el1, x0",
        "dsb sy",
        "isb",
        "tlbi vmalle1",
        "ic iallu",
        "dsb sy",
        "isb",
        // Mapping, data cache, instruction cache, and a stack pointer that is a multiple of 16.
        "ldr x2, =0x30d0180d",
        "msr sctlr_el1, x2",
        "isb",
        "ret x6",
        // Enters the blocks from x2 to x3 with the attributes x5 into the table x1.
        "2: lsr x2, x2, #21",
        "3: orr x4, x5, x2, lsl #21",
        "and x7, x2, #511",
        "str x4, [x1, x7, lsl #3]",
        "add x2, x2, #1",
        "cmp x3, x2, lsl #21",
        "b.hi 3b",
        "ret",
    )
}

// The table of exceptions: sixteen entries of 128 bytes, all of which end the program.
global_asm!(
    ".section .vectors, \"ax\"",
    ".balign 2048",
    "__vectors:",
    ".rept 16",
    ".balign 128",
    "b {trap}",
    ".endr",
    ".balign 128",
    ".previous",
    trap = sym trap,
);

/// Takes an exception. The stack may be what is broken, so a fresh one begins at its top before anything else.
#[unsafe(naked)]
#[unsafe(export_name = "Trap")]
unsafe extern "C" fn trap() -> ! {
    naked_asm!(
        "mrs x0, esr_el1",
        "mrs x1, elr_el1",
        "mrs x2, far_el1",
        "mov x3, sp",
        "ldr x4, =_stack_start",
        "mov sp, x4",
        "b {report}",
        report = sym report_trap,
    )
}

/// Says what kind of exception it was, by what the core's registers held.
extern "C" fn report_trap(syndrome: usize, pc: usize, address: usize, frame: usize) -> ! {
    /// The class of a load or store, made here, that may not be.
    const DATA_ABORT: usize = 0x25;
    let below = stack::addresses().start;
    // A frame may be begun by moving the stack pointer, or by a store below it that is refused.
    let is_overflow = frame < below || (syndrome >> 26 == DATA_ABORT && address < below && frame - below < 512);
    crash::fault(is_overflow, frame, |record| {
        record.text(", syndrome").hex(syndrome as u64, 8);
        for (name, number) in [(", at", pc), (", address", address)] {
            record.text(name).hex(number as u64, crash::DIGITS);
        }
    })
}
