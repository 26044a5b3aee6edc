//! Tries every kernel that the board has: a `family` record with each family's number of cases, or an error at the first difference.

use siskin_conformance::FAMILIES;
use siskin_runtime::Kernels;

use crate::Memory;
use crate::failure::{Failure, report};
use crate::host::Console;
use crate::once::Once;
use crate::record::Record;

/// Runs the cases.
pub fn serve(console: &mut Console, _: Memory) -> bool {
    let outcome = respond(console);
    report(console, outcome)
}

fn respond(console: &mut Console) -> Result<(), Failure> {
    static MEMORY: Once<siskin_conformance::Memory> = Once::new(siskin_conformance::Memory::new());
    let memory = MEMORY.take().ok_or(Failure::new("the conformance cases run once"))?;
    for kernels in Kernels::available() {
        Record::new(console, "kernels ").text(kernels.name()).send();
        for (name, family) in FAMILIES {
            let n_cases = family(kernels, memory).map_err(|mismatch| {
                let failure = Failure::new(mismatch.kernel);
                mismatch.case.into_iter().fold(failure, |failure, (what, value)| failure.with(what, value as u64))
            })?;
            Record::new(console, "family ").text(name).number(n_cases as u64).send();
        }
    }
    Ok(())
}
