//! Drafts: small models that guess ahead of another, in a file of their own or in the other's.

use std::path::Path;

use anyhow::anyhow;
use siskin_compiler::pack::{AlignedBytes, PackedFile};
use siskin_runtime::PackedModel;
use siskin_runtime::format::SectionKind;

use crate::failure::{Failure, OrFail as _};
use crate::input;

/// Opens a draft, whose tokens must be those of `model`.
pub(crate) fn open(path: &Path, model: &PackedModel<'_>) -> Result<PackedFile, Failure> {
    let file = input::open_packed(path)?;
    if file.model().section(SectionKind::Tokenizer) != model.section(SectionKind::Tokenizer) {
        let cause = anyhow!("it has another tokenizer than the model; a draft must be trained with the model's");
        return Err(Failure::invalid_input(format!("let {} guess", path.display()), cause));
    }
    Ok(file)
}

/// The draft that was packed with `model`, if one was.
pub(crate) fn packed_with(model: &PackedModel<'_>) -> Result<Option<PackedFile>, Failure> {
    let Some(section) = model.section(SectionKind::Draft) else { return Ok(None) };
    let file = PackedFile::from_bytes(AlignedBytes::copy_of(section));
    file.map(Some).or_invalid_input(|| "read the draft that was packed with the model".to_owned())
}
