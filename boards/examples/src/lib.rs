//! The examples' board, as a peripheral access crate would describe it where there is one: its interrupts, for RTIC and the vector table.
#![no_std]

use cortex_m::interrupt::InterruptNumber;
use cortex_m_rt as _;

/// Bits of an interrupt's priority.
pub const NVIC_PRIO_BITS: u8 = 3;

/// The interrupts by number.
#[derive(Clone, Copy)]
pub enum Interrupt {
    /// Of the first serial port. No example is bound to it, so RTIC may raise it for its own.
    UART0 = 0,
}

pub use Interrupt as interrupt;

// SAFETY: number 0 is the first external interrupt.
unsafe impl InterruptNumber for Interrupt {
    fn number(self) -> u16 {
        self as u16
    }
}

unsafe extern "C" {
    fn UART0();
}

/// The vectors behind those of the core; device.x has what stands for a handler that nobody defines.
#[unsafe(link_section = ".vector_table.interrupts")]
#[unsafe(no_mangle)]
pub static __INTERRUPTS: [unsafe extern "C" fn(); 1] = [UART0];
