//! The board's serial port, byte by byte, as it is after a reset but for what is set here. Nothing is buffered: a byte that comes while
//! another waits to be read is the sender's to hold back, as emulators do.

#[cfg(feature = "uart-cmsdk")]
pub use cmsdk::{open, read, write};
#[cfg(feature = "uart-16550")]
pub use ns16550::{open, read, write};

#[cfg(not(any(feature = "uart-cmsdk", feature = "uart-16550")))]
compile_error!("the application `serial` needs a serial port, and there is no driver for this board's");

/// The port of Arm's CMSDK, the first of the MPS2 boards.
#[cfg(feature = "uart-cmsdk")]
mod cmsdk {
    const BASE: usize = 0x4000_4000;
    const DATA: *mut u32 = BASE as *mut u32;
    const STATE: *const u32 = (BASE + 0x4) as *const u32;
    const CTRL: *mut u32 = (BASE + 0x8) as *mut u32;
    const BAUD_DIVISOR: *mut u32 = (BASE + 0x10) as *mut u32;
    /// In `STATE`: no room to write; a byte to read.
    const TX_FULL: u32 = 1;
    const RX_FULL: u32 = 2;
    /// 25 MHz by 115200 baud.
    const DIVISOR: u32 = 217;
    /// Transmitter and receiver on, no interrupts.
    const ENABLE: u32 = 3;

    /// Switches it on.
    pub fn open() {
        // SAFETY: registers of this board's first serial port, which nothing else uses.
        unsafe {
            BAUD_DIVISOR.write_volatile(DIVISOR);
            CTRL.write_volatile(ENABLE);
        }
    }

    /// The byte that has come, if one has.
    pub fn read() -> Option<u8> {
        // SAFETY: as in `open`; reading the data takes the byte out.
        unsafe { (STATE.read_volatile() & RX_FULL != 0).then(|| DATA.read_volatile() as u8) }
    }

    /// Sends a byte, as soon as there is room.
    pub fn write(byte: u8) {
        // SAFETY: as in `open`.
        unsafe {
            while STATE.read_volatile() & TX_FULL != 0 {}
            DATA.write_volatile(byte.into());
        }
    }
}

/// A 16550, as the RISC-V virt machine has it.
#[cfg(feature = "uart-16550")]
mod ns16550 {
    const DATA: *mut u8 = 0x1000_0000 as *mut u8;
    const LINE_STATUS: *const u8 = 0x1000_0005 as *const u8;
    /// In `LINE_STATUS`: a byte to read; room to write.
    const DATA_READY: u8 = 1;
    const TX_EMPTY: u8 = 1 << 5;

    /// Nothing: the emulated port knows no baud rate and is on.
    pub fn open() {}

    /// The byte that has come, if one has.
    pub fn read() -> Option<u8> {
        // SAFETY: registers of the machine's serial port, which nothing else uses; reading the data takes the byte out.
        unsafe { (LINE_STATUS.read_volatile() & DATA_READY != 0).then(|| DATA.read_volatile()) }
    }

    /// Sends a byte, as soon as there is room.
    pub fn write(byte: u8) {
        // SAFETY: as in `read`.
        unsafe {
            while LINE_STATUS.read_volatile() & TX_EMPTY == 0 {}
            DATA.write_volatile(byte);
        }
    }
}
