//! The marks of a region of counted instructions: no-ops that no compiler emits and that the emulator's plugin (host-tools/icount) looks for.

use core::arch::asm;

/// Starts a region of counted instructions.
#[inline(always)]
pub fn count_start() {
    #[cfg(target_arch = "arm")]
    // SAFETY: moves a register to itself.
    unsafe {
        asm!("mov r10, r10", options(nostack, preserves_flags));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: moves a register to itself.
    unsafe {
        asm!("mov x10, x10", options(nostack, preserves_flags));
    }
    #[cfg(any(target_arch = "riscv32", target_arch = "riscv64"))]
    // SAFETY: writes the register that is always 0.
    unsafe {
        asm!("slti x0, x0, 1", options(nostack, preserves_flags));
    }
}

/// Ends the region.
#[inline(always)]
pub fn count_stop() {
    #[cfg(target_arch = "arm")]
    // SAFETY: moves a register to itself.
    unsafe {
        asm!("mov r11, r11", options(nostack, preserves_flags));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: moves a register to itself.
    unsafe {
        asm!("mov x11, x11", options(nostack, preserves_flags));
    }
    #[cfg(any(target_arch = "riscv32", target_arch = "riscv64"))]
    // SAFETY: writes the register that is always 0.
    unsafe {
        asm!("slti x0, x0, 2", options(nostack, preserves_flags));
    }
}
