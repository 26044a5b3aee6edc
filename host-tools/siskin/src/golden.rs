//! What a packed model is known to say, recorded by the host's runtime for a self-test on the device.

use siskin_compiler::pack::{AlignedBytes, PackedFile, with_section};
use siskin_device::self_test::{ANSWERS_MAX, record};
use siskin_runtime::format::SectionKind;
use siskin_runtime::{Kernels, TokenId};

use crate::encoding::input_tokens;
use crate::failure::{Failure, OrFail as _};
use crate::input;

/// The file with what its model answers to a text.
pub(crate) fn with_golden_text(file: &PackedFile, text: &str) -> Result<PackedFile, Failure> {
    let model = file.model();
    with_golden(file, &input_tokens(&model, &input::packed_tokenizer(&model)?, text)?)
}

/// The file with what its model answers to a prompt, in place of what it had.
pub(crate) fn with_golden(file: &PackedFile, prompt: &[TokenId]) -> Result<PackedFile, Failure> {
    let doing = || "record what the model answers".to_owned();
    let model = file.model();
    let mut arena = AlignedBytes::zeroed(model.memory_plan().arena_bytes);
    let (mut room, mut section) = ([0; ANSWERS_MAX], Vec::new());
    record(&model, Kernels::detect(), &mut arena, prompt, &mut room, |bytes| section.extend_from_slice(bytes))
        .or_invalid_input(doing)?;
    PackedFile::from_bytes(with_section(&model, SectionKind::Golden, &section).or_failed(doing)?).or_failed(doing)
}
