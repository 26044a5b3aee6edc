//! What a device may try before it trusts its model: the checksums of what the flash holds, the core's kernels, and what the model is known to
//! say.
//!
//! A `passed` record for each, or a `failed` one that names what, followed by an error that says how.

use siskin_device::self_test::{self, GoldenError};
use siskin_runtime::format::SectionKind;
use siskin_runtime::{FormatError, Kernels, PackedModel};

use crate::failure::{Failure, report};
use crate::host::Console;
use crate::record::Record;
use crate::{Memory, linked};

/// Tries everything that can be tried; gives whether all of it passed.
pub fn serve(console: &mut Console, _: &str, memory: Memory) -> bool {
    #[cfg(rounds_to_zero)]
    crate::arch::round_to_zero();
    let mut slot = None;
    let model = match checked_model(&mut slot) {
        Ok(model) => passed(console, "checksums", model),
        // Without a model there is nothing else to try.
        Err((part, failure)) => return failed(console, "checksums", (part, None), failure),
    };
    let kernels = Kernels::detect();
    let is_well = match self_test::check_kernels(model, kernels) {
        Ok(()) => passed(console, "kernels", true),
        Err(name) => {
            const WRONG: Failure = Failure::new("a kernel computes something else than its known answer");
            failed(console, "kernels", (name, None), WRONG)
        }
    };
    match self_test::check_golden(model, kernels, memory.arena) {
        Ok(()) => passed(console, "golden", is_well),
        Err(error) => {
            let (what, failure) = what_differs(error);
            failed(console, "golden", what, failure)
        }
    }
}

/// The model in flash; or which part of the file is not what was built, and how.
#[inline(never)]
fn checked_model<'s>(
    slot: &'s mut Option<PackedModel<'static>>,
) -> Result<&'s PackedModel<'static>, (&'static str, Failure)> {
    let model = PackedModel::parse(linked::model()).map_err(|error| (part_of(error), error.into()))?;
    linked::check_layout(&model, Kernels::detect()).map_err(|failure| ("layout", failure))?;
    Ok(slot.insert(model))
}

/// The part of a file that is damaged.
fn part_of(error: FormatError) -> &'static str {
    match error {
        FormatError::HeaderChecksum => "header",
        FormatError::SectionChecksum { kind } => SectionKind::from_code(kind).map_or("section", SectionKind::name),
        _ => "file",
    }
}

/// What a golden answer's error is about, with its place where it has one, and the error in words.
fn what_differs(error: GoldenError) -> ((&'static str, Option<usize>), Failure) {
    let text = Failure::new(error.as_str());
    match error {
        GoldenError::Answer { place, expected, found } => {
            (("answer", Some(place)), text.with("expected", expected.into()).with("found", found.into()))
        }
        GoldenError::Logits => (("logits", None), text),
        GoldenError::Arena(error) => (("arena", None), error.into()),
        GoldenError::Step(error) => (("prompt", None), error.into()),
        _ => (("section", None), text),
    }
}

/// Says that a part passed; gives back `outcome`.
fn passed<T>(console: &mut Console, part: &str, outcome: T) -> T {
    Record::new(console, "passed ").text(part).send();
    outcome
}

/// Says that a part failed, what of it, at which place where there is one, and how. Gives false.
fn failed(console: &mut Console, part: &str, (what, place): (&str, Option<usize>), failure: Failure) -> bool {
    let mut record = Record::new(console, "failed ");
    record.text(part).text(" ").text(what);
    if let Some(place) = place {
        record.number(place as u64);
    }
    record.send();
    report(console, Err(failure))
}
