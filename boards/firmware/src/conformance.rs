//! Tries every kernel that the board has: a `family` record with each family's number of cases, or an error at the first difference.

use siskin_conformance::FAMILIES;
use siskin_device::Once;
use siskin_runtime::Kernels;

use crate::Memory;
use crate::failure::{Failure, report};
use crate::host::Console;
use crate::record::Record;

/// Runs the cases.
pub fn serve(console: &mut Console, _: &str, _: Memory) -> bool {
    let outcome = respond(console);
    report(console, outcome)
}

fn respond(console: &mut Console) -> Result<(), Failure> {
    static MEMORY: Once<siskin_conformance::Memory> = Once::new(siskin_conformance::Memory::new());
    let memory = MEMORY.take().ok_or(Failure::new("the conformance cases run once"))?;
    for kernels in Kernels::available() {
        Record::new(console, "kernels ").text(kernels.name()).send();
        for (name, family) in FAMILIES {
            let n_cases = match family(kernels, memory) {
                Ok(n_cases) => n_cases,
                Err(mismatch) => {
                    let mut record = Record::new(console, "case ");
                    record.text(mismatch.kernel);
                    for (what, value) in mismatch.case {
                        record.text(" ").text(what).number(value as u64);
                    }
                    record.send();
                    return Err(Failure::new("a kernel computes something else than its definition"));
                }
            };
            Record::new(console, "family ").text(name).number(n_cases as u64).send();
        }
    }
    Ok(())
}
