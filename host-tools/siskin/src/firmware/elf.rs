//! What a firmware image takes of its board, read from the linked ELF.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use object::elf::{SHF_ALLOC, SHF_WRITE};
use object::{Object as _, ObjectSection as _, SectionFlags, SectionKind};
use serde::Serialize;
use siskin_runtime::PackedModel;

use super::stack;

/// The alignment of the linked model and of its arena.
const ALIGN: u64 = 16;

/// Bytes of flash and RAM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Sizes {
    /// All of flash: vectors, code, constants, the model.
    pub(crate) flash_bytes: u64,
    /// All statics in RAM, the arena included, without the stack.
    pub(crate) ram_bytes: u64,
    /// The deepest stack that any path through the code can take.
    pub(crate) stack_bytes: u64,
    /// Flash without the model.
    pub(crate) code_bytes: u64,
    /// Statics without the arena.
    pub(crate) static_ram_bytes: u64,
}

impl Sizes {
    /// Measures the firmware at `path`, which was built around `model`.
    pub(crate) fn measure(path: &Path, model: &PackedModel<'_>) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
        let file = object::File::parse(&*bytes).with_context(|| format!("{} is not an ELF", path.display()))?;
        let (mut flash_bytes, mut ram_bytes) = (0, 0);
        for section in file.sections() {
            let SectionFlags::Elf { sh_flags, .. } = section.flags() else { continue };
            let is_filled = section.kind() != SectionKind::UninitializedData;
            if sh_flags.0 & SHF_ALLOC.0 == 0 || section.size() == 0 {
                continue;
            }
            if sh_flags.0 & SHF_WRITE.0 != 0 {
                ram_bytes += section.size();
                // What starts with a value has that value in flash.
                flash_bytes += if is_filled { section.size() } else { 0 };
            } else {
                flash_bytes = flash_bytes.next_multiple_of(section.align().max(1)) + section.size();
            }
        }
        let model_header = model.header().encode();
        ensure!(
            bytes.windows(model_header.len()).any(|window| window == model_header),
            "{} was built around another model",
            path.display()
        );
        let model_bytes = model.header().file_bytes;
        let arena_bytes = model.header().arena_bytes.next_multiple_of(ALIGN);
        ensure!(
            model_bytes <= flash_bytes && arena_bytes <= ram_bytes,
            "{} does not hold the model and its arena",
            path.display()
        );
        Ok(Self {
            flash_bytes,
            ram_bytes,
            stack_bytes: stack::worst_case(&file)?,
            code_bytes: flash_bytes - model_bytes,
            static_ram_bytes: ram_bytes - arena_bytes,
        })
    }
}
