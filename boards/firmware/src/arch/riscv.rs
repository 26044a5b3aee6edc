//! What is particular to RISC-V: the start, fault and panic reports, the painted stack, the marks for instruction counts.

use core::arch::{asm, naked_asm};
use core::panic::PanicInfo;

use crate::host::{self, Console};
use crate::record::Record;

unsafe extern "C" {
    static _stack_start: usize;
    static _stack_end: usize;
    static __stext: u8;
    static __etext: u8;
}

/// Exit code of a panic or a fault; a plain failure is 1.
const CRASHED: u8 = 101;
/// Most return addresses that a report lists.
const RETURNS_MAX: usize = 12;
/// What the start-up code fills the stack with.
const STACK_PAINT: u32 = 0xcccc_cccc;
/// Digits of an address.
const DIGITS: u32 = usize::BITS / 4;

/// Defines `main`, which lends the application the board's memory.
#[macro_export]
macro_rules! riscv_main {
    (request_bytes: $request_bytes:expr, prompt_tokens: $prompt_tokens:expr) => {
        /// Called once, by the start-up code.
        #[unsafe(no_mangle)]
        extern "C" fn main() -> ! {
            use siskin_firmware::{Memory, linked};
            use siskin_runtime::{Aligned, TokenId};

            static mut ARENA: Aligned<[u8; linked::ARENA_BYTES]> = Aligned([0; linked::ARENA_BYTES]);
            static mut REQUEST: [u8; $request_bytes] = [0; $request_bytes];
            static mut PROMPT: [TokenId; $prompt_tokens] = [0; $prompt_tokens];
            // SAFETY: the statics are named here only, and this runs once on the only core.
            let (arena, request, prompt) =
                unsafe { (&mut *(&raw mut ARENA), &mut *(&raw mut REQUEST), &mut *(&raw mut PROMPT)) };
            siskin_firmware::run(env!("CARGO_PKG_NAME"), Memory { arena: &mut arena.0, request, prompt })
        }
    };
}

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
        paint = const STACK_PAINT as i32,
    )
}

/// Starts a region of counted instructions: a no-op that no compiler emits and the emulator's plugin looks for.
#[inline(always)]
pub fn count_start() {
    // SAFETY: writes the register that is always 0.
    unsafe { asm!("slti x0, x0, 1", options(nostack, preserves_flags)) }
}

/// Ends the region.
#[inline(always)]
pub fn count_stop() {
    // SAFETY: writes the register that is always 0.
    unsafe { asm!("slti x0, x0, 2", options(nostack, preserves_flags)) }
}

/// Bytes of stack used so far at the deepest: those that the start-up code painted and something has overwritten since.
pub fn stack_used_bytes() -> usize {
    let (top, end) = ((&raw const _stack_start).cast::<u32>(), (&raw const _stack_end).cast::<u32>());
    let mut word = end;
    // SAFETY: `word` stays between the linker's bounds of the stack; a volatile read of a live frame is just a number.
    while word < top && unsafe { word.read_volatile() } == STACK_PAINT {
        word = word.wrapping_add(1);
    }
    top.addr() - word.addr()
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
    let below = (&raw const _stack_end).addr();
    // A frame may be begun by moving the stack pointer, or by a store below it that is refused.
    let is_overflow = frame < below || (cause == STORE_ACCESS_FAULT && value < below && frame - below < 64);
    let what = if is_overflow { " the stack overflowed" } else { " the processor faulted" };
    let mut console = Console::open();
    Record::new(&mut console, "fault")
        .text(what)
        .text(", cause")
        .hex(cause as u64, DIGITS)
        .text(", at")
        .hex(pc as u64, DIGITS)
        .text(", address")
        .hex(value as u64, DIGITS)
        .text(", stack pointer")
        .hex(frame as u64, DIGITS)
        .send();
    send_return_addresses(&mut console, frame);
    host::exit(CRASHED)
}

/// Says that the program panicked, and from where.
///
/// The message goes unread: as soon as anything looks at it, all of `core::fmt` is linked, a sixth of the firmware.
#[panic_handler]
fn report_panic(_info: &PanicInfo<'_>) -> ! {
    let here: usize = 0;
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
    let mut address = stack_pointer.max(stack.start).next_multiple_of(size_of::<usize>());
    while address < stack.end && n_sent < RETURNS_MAX {
        // SAFETY: `address` is a word of the stack.
        let word = unsafe { (address as *const usize).read_volatile() };
        if code.contains(&word) {
            record.hex(word as u64, DIGITS);
            n_sent += 1;
        }
        address += size_of::<usize>();
    }
    record.send();
}
