//! How often each instruction was executed inside the marked regions: where the time goes.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::ptr;

/// What has been counted of one instruction.
struct Cell {
    /// QEMU adds to it from generated code, for as long as the program runs.
    executed: *mut u64,
    /// How much of it was there when the current region began.
    before: u64,
    /// How much of it belongs to regions that are over.
    in_regions: u64,
}

// SAFETY: the plugin's callbacks, and the code that adds, run on the thread of the one virtual core.
unsafe impl Send for Cell {}

impl Cell {
    fn executed(&self) -> u64 {
        // SAFETY: the number lives for as long as the program.
        unsafe { ptr::read_volatile(self.executed) }
    }
}

/// The counts, by address.
pub(crate) struct Profile {
    cells: BTreeMap<u64, Cell>,
    out: File,
}

impl Profile {
    /// An empty profile that will be written to `path`.
    pub(crate) fn create(path: &str) -> io::Result<Self> {
        Ok(Self { cells: BTreeMap::new(), out: File::create(path)? })
    }

    /// Where executions of the instruction at `address` are to be added up. An instruction may be translated more than once.
    pub(crate) fn counter(&mut self, address: u64) -> *mut c_void {
        let new = || Cell { executed: Box::leak(Box::new(0)), before: 0, in_regions: 0 };
        self.cells.entry(address).or_insert_with(new).executed.cast()
    }

    /// A region begins.
    pub(crate) fn start(&mut self) {
        self.cells.values_mut().for_each(|cell| cell.before = cell.executed());
    }

    /// It ends.
    pub(crate) fn stop(&mut self) {
        for cell in self.cells.values_mut() {
            cell.in_regions += cell.executed() - cell.before;
            // An instruction that is translated only after the next start has nothing before it.
            cell.before = 0;
        }
    }

    /// Writes a line for each instruction that a region executed: its address in hexadecimal digits and how often.
    pub(crate) fn write(&mut self) -> io::Result<()> {
        let mut out = BufWriter::new(&self.out);
        for (address, cell) in self.cells.iter().filter(|(_, cell)| cell.in_regions > 0) {
            writeln!(out, "{address:x} {}", cell.in_regions)?;
        }
        out.flush()
    }
}
