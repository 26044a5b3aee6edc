//! The way in and out where there is a serial line in place of a debugger: events in frames (`siskin_device::serial`).

use siskin_device::serial::{Event, send};

use crate::uart;

/// Bytes of the longest event, as it lies in memory: text comes in pieces of 120 bytes at most.
const EVENT_BYTES: usize = 192;

/// Sends an event.
pub fn say(event: &Event<'_>) {
    // One that is too long is left out: there is nobody to tell.
    let _ = send(event, &mut [0; EVENT_BYTES], uart::write);
}

/// Where records go: log events, a line each.
pub struct Console {
    gathered: [u8; 120],
    n_gathered: usize,
}

impl Console {
    /// Opens the line.
    pub fn open() -> Self {
        uart::open();
        Self { gathered: [0; 120], n_gathered: 0 }
    }

    // Nothing here may panic: the panic handler reports through it.

    /// Writes one byte, at the latest when [`Console::flush`] is called.
    pub fn push(&mut self, byte: u8) {
        if self.n_gathered >= self.gathered.len() {
            self.flush();
        }
        if let Some(slot) = self.gathered.get_mut(self.n_gathered) {
            *slot = byte;
            self.n_gathered += 1;
        }
    }

    /// Hands over what was gathered.
    pub fn flush(&mut self) {
        let bytes = self.gathered.get(..self.n_gathered).unwrap_or_default();
        if let Ok(text) = core::str::from_utf8(bytes) {
            say(&Event::Log(text.strip_suffix('\n').unwrap_or(text)));
        }
        self.n_gathered = 0;
    }
}

/// Stays where it is: nobody is there to give a code to.
pub fn exit(_: u8) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
