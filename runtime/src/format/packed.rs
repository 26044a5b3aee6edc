//! Parse once, then never fail: [`PackedModel::parse`] checks everything that the accessors rely on.

#[cfg(not(feature = "linked-model"))]
use super::header::parse_header;
use super::order::Places;
use super::*;
use crate::config::ModelConfig;
#[cfg(not(feature = "linked-model"))]
use crate::parts::Positions;
use crate::plan::MemoryPlan;
use crate::tensor::{self, MatrixQ8, Scales, WeightFormat};
#[cfg(not(feature = "linked-model"))]
use crate::tokenizer::TokenizerError;
use crate::tokenizer::{ChatPrompt, Tokenizer};

/// A packed model in place. Copying it copies references; a linked model (`crate::linked`) is a constant and takes no memory.
#[derive(Clone, Copy, Debug)]
pub struct PackedModel<'m> {
    #[cfg(not(feature = "linked-model"))]
    contents: Contents<'m>,
    #[cfg(feature = "linked-model")]
    lifetime: core::marker::PhantomData<&'m ()>,
}

/// One tensor's numbers where they lie.
#[derive(Clone, Copy, Debug)]
pub enum TensorData<'m> {
    /// A quantised matrix.
    Matrix(MatrixQ8<'m>),
    /// f32 numbers.
    Floats(&'m [f32]),
    /// i32 numbers.
    Integers(&'m [i32]),
}

impl<'m> PackedModel<'m> {
    /// Checks the bytes of a file and gives access to the model.
    ///
    /// `file` must start at a multiple of 16 bytes in memory; bytes beyond the file's own length are ignored. A linked model's is
    /// `linked::MODEL`.
    ///
    /// # Errors
    /// A [`FormatError`] that names the first thing that is wrong. No input panics.
    #[cfg(not(feature = "linked-model"))]
    pub fn parse(file: &'m [u8]) -> Result<Self, FormatError> {
        let mut model = Self::parse_weights(file)?;
        model.contents.tokenizer = model.parse_tokenizer()?;
        model.section(SectionKind::Chat).map(ChatPrompt::parse).transpose().map_err(FormatError::BadChat)?;
        #[cfg(feature = "adapters")]
        model.adapters().check().map_err(FormatError::BadAdapter)?;
        Ok(model)
    }

    /// Like [`PackedModel::parse`], for who takes and gives tokens: what the file has of a tokenizer and a chat is left alone.
    ///
    /// # Errors
    /// As [`PackedModel::parse`].
    #[cfg(not(feature = "linked-model"))]
    #[inline(never)]
    pub fn parse_weights(file: &'m [u8]) -> Result<Self, FormatError> {
        let header = parse_header(file)?;
        if !file.as_ptr().addr().is_multiple_of(SECTION_ALIGN) {
            return Err(FormatError::Misaligned);
        }
        let given_bytes = file.len() as u64;
        let truncated = FormatError::Truncated { needed_bytes: header.file_bytes, given_bytes };
        let file_bytes = usize::try_from(header.file_bytes).map_err(|_| truncated)?;
        let file = file.get(..file_bytes).ok_or(truncated)?;
        let table_end = HEADER_BYTES + header.n_sections as usize * ENTRY_BYTES;
        let sections = file
            .get(HEADER_BYTES..table_end)
            .ok_or(FormatError::BadField { field: "n_sections", value: header.n_sections.into() })?;
        let mut model = Self { contents: Contents::new(header, sections, file) };
        for entry in model.sections() {
            check_section(file, &entry)?;
        }
        model.contents.rope = model.parse_rope()?;
        model.contents.tensors = model.required(SectionKind::Tensors)?;
        model.contents.weights = model.required(SectionKind::Weights)?;
        model.check_tensors()?;
        model.check_arena()?;
        model.check_labels()?;
        Ok(model)
    }

    /// Tells whether the flash still holds the linked model, by its checksums: all else was seen when it was linked.
    ///
    /// # Errors
    /// [`FormatError::HeaderChecksum`], also where the section table differs; [`FormatError::SectionChecksum`]; [`FormatError::NotAPackedModel`] for any other bytes than
    /// `linked::MODEL`.
    #[cfg(feature = "linked-model")]
    #[inline(never)]
    pub fn parse(file: &'m [u8]) -> Result<Self, FormatError> {
        let contents = &crate::linked::CONTENTS;
        if !core::ptr::eq(file, contents.file) {
            return Err(FormatError::NotAPackedModel);
        }
        let head = file.get(..HEADER_BYTES + contents.sections.len()).unwrap_or_default();
        if checksum(head) != crate::linked::HEAD_CHECKSUM {
            return Err(FormatError::HeaderChecksum);
        }
        let model = Self { lifetime: core::marker::PhantomData };
        model.sections().try_for_each(|entry| check_section(file, &entry))?;
        Ok(model)
    }

    /// The same as [`PackedModel::parse`].
    ///
    /// # Errors
    /// As [`PackedModel::parse`].
    #[cfg(feature = "linked-model")]
    #[inline(always)]
    pub fn parse_weights(file: &'m [u8]) -> Result<Self, FormatError> {
        Self::parse(file)
    }

    #[cfg(not(feature = "linked-model"))]
    #[inline(always)]
    fn contents(&self) -> &Contents<'m> {
        &self.contents
    }

    #[cfg(feature = "linked-model")]
    #[inline(always)]
    fn contents(&self) -> &Contents<'m> {
        &crate::linked::CONTENTS
    }

    /// The name of a classifier's label, if the file has it.
    pub fn label(&self, label_idx: usize) -> Option<&'m str> {
        core::str::from_utf8(self.section(SectionKind::Labels)?).ok()?.lines().nth(label_idx)
    }

    /// The tokenizer, if the file has one; its ids are below the config's `vocab_size`.
    pub fn tokenizer(&self) -> Option<Tokenizer<'m>> {
        self.contents().tokenizer
    }

    /// The turns around a user's message, if the file has them.
    pub fn chat(&self) -> Option<ChatPrompt<'m>> {
        ChatPrompt::parse(self.section(SectionKind::Chat)?).ok()
    }

    /// The model's shape.
    #[inline(always)]
    pub fn config(&self) -> &ModelConfig {
        &self.contents().header.config
    }

    /// The header, as it was read.
    #[inline(always)]
    pub fn header(&self) -> &Header {
        &self.contents().header
    }

    /// The section table.
    pub fn sections(&self) -> impl Iterator<Item = SectionEntry> + use<'m> {
        self.contents().sections.as_chunks::<ENTRY_BYTES>().0.iter().map(SectionEntry::decode)
    }

    /// Every section with its bytes, in the file's order, those of unknown kinds too.
    pub fn raw_sections(&self) -> impl Iterator<Item = (SectionEntry, &'m [u8])> + use<'m> {
        self.section_table().iter()
    }

    /// The section table with what it is of.
    pub(crate) fn section_table(&self) -> SectionTable<'m> {
        SectionTable { entries: self.contents().sections, file: self.contents().file }
    }

    /// The bytes of the first section of this kind.
    #[inline(always)]
    pub fn section(&self, kind: SectionKind) -> Option<&'m [u8]> {
        self.contents().section(kind)
    }

    /// Where a session's arena keeps what; its size is the header's `arena_bytes`.
    pub fn memory_plan(&self) -> MemoryPlan {
        // `parse` made it too.
        self.header().memory_plan().unwrap_or_default()
    }

    /// Cosines, then sines, of a position's angles: `(head_dim,)`.
    pub fn rope(&self, position: usize) -> &'m [f32] {
        let bytes = size_of::<f32>() * self.config().head_dim;
        let angles = self.contents().rope.get(position * bytes..(position + 1) * bytes).unwrap_or(&[]);
        bytemuck::try_cast_slice(angles).unwrap_or(&[])
    }

    /// Every tensor in the canonical order, with its numbers.
    pub fn raw_tensors(&self) -> impl Iterator<Item = (TensorId, TensorData<'m>)> {
        tensor_order(self.config()).enumerate().map(|(tensor_idx, tensor)| {
            let data = match tensor.storage() {
                Storage::Matrix => TensorData::Matrix(self.matrix(tensor_idx)),
                Storage::Floats => TensorData::Floats(self.floats(tensor_idx)),
                Storage::Integers => TensorData::Integers(self.integers(tensor_idx)),
            };
            (tensor, data)
        })
    }

    /// The tensor table.
    pub fn tensors(&self) -> impl Iterator<Item = TensorEntry> + use<'m> {
        self.contents().tensors.as_chunks::<ENTRY_BYTES>().0.iter().map(TensorEntry::decode)
    }

    #[inline(always)]
    pub(super) fn places(&self) -> Places {
        self.contents().places()
    }

    fn tensor(&self, tensor_idx: usize) -> Option<TensorEntry> {
        self.contents().tensors.as_chunks::<ENTRY_BYTES>().0.get(tensor_idx).map(TensorEntry::decode)
    }

    pub(super) fn floats(&self, tensor_idx: usize) -> &'m [f32] {
        self.tensor(tensor_idx).and_then(|entry| self.try_numbers(&entry)).unwrap_or(&[])
    }

    pub(super) fn integers(&self, tensor_idx: usize) -> &'m [i32] {
        self.tensor(tensor_idx).and_then(|entry| self.try_numbers(&entry)).unwrap_or(&[])
    }

    pub(super) fn matrix(&self, tensor_idx: usize) -> MatrixQ8<'m> {
        // `parse` saw it, so there is one.
        self.tensor(tensor_idx).and_then(|entry| self.try_matrix(&entry)).unwrap_or(MatrixQ8::EMPTY)
    }

    /// Numbers of four bytes each.
    fn try_numbers<T: bytemuck::AnyBitPattern>(&self, entry: &TensorEntry) -> Option<&'m [T]> {
        let bytes = usize::try_from(u64::from(entry.rows) * u64::from(entry.cols) * 4).ok()?;
        let start = entry.data_offset as usize;
        bytemuck::try_cast_slice(self.contents().weights.get(start..start.checked_add(bytes)?)?).ok()
    }

    /// The matrix at this place of the tensor table, where adapters may change its product.
    #[cfg(feature = "adapters")]
    pub fn adaptable(&self, tensor_idx: usize) -> Option<MatrixQ8<'m>> {
        let entry = self.tensor(tensor_idx)?;
        let is_adaptable = crate::adapter::ADAPTABLE.iter().any(|&role| role as u16 == entry.role);
        is_adaptable.then(|| self.try_matrix(&entry)).flatten()
    }

    fn try_matrix(&self, entry: &TensorEntry) -> Option<MatrixQ8<'m>> {
        #[cfg(feature = "linked-model")]
        let is_sparse = crate::linked::HAS_SPARSE && entry.is_sparse();
        #[cfg(not(feature = "linked-model"))]
        let is_sparse = entry.is_sparse();
        if is_sparse {
            return self.try_sparse(entry);
        }
        let format = entry.format(self.header().format)?;
        let layout = self.header().layout;
        let (rows, cols) = (entry.rows as usize, entry.cols as usize);
        // Before any product of the two, which a 32-bit address space might not hold.
        let values_a_byte = if format.is_int4() { 2 } else { 1 };
        if u64::from(entry.rows) * u64::from(entry.cols) / values_a_byte > self.contents().weights.len() as u64 {
            return None;
        }
        let data = self.weight_bytes(entry.data_offset, format.data_bytes(layout, rows, cols))?;
        let scales = self.weight_bytes(entry.scales_offset, format.scales_bytes(layout, rows, cols))?;
        MatrixQ8::new(rows, cols, layout, format, data, scales_of(format, scales)?)
    }

    /// A matrix whose zero blocks are not stored; its index is one of the shape, if not of sound numbers.
    fn try_sparse(&self, entry: &TensorEntry) -> Option<MatrixQ8<'m>> {
        let format = entry.format(self.header().format)?;
        let layout = self.header().layout;
        let (rows, cols) = (entry.rows as usize, entry.cols as usize);
        // As above. A row has at least one word in the index, and a scale or a share of one.
        let weights = self.contents().weights.len() as u64;
        let blocks_bytes = u64::from(entry.n_blocks) * tensor::block_bytes(format) as u64;
        if u64::from(entry.rows) / tensor::BAND_ROWS as u64 > weights || blocks_bytes > weights {
            return None;
        }
        let data = self.weight_bytes(entry.data_offset, blocks_bytes as usize)?;
        let scales_bytes = tensor::sparse_scales_bytes(format, layout, rows, entry.n_blocks as usize);
        let scales = self.weight_bytes(entry.scales_offset, scales_bytes)?;
        let index_bytes = tensor::index_words(rows, cols).checked_mul(size_of::<u32>())?;
        let index = bytemuck::try_cast_slice(self.weight_bytes(entry.index_offset, index_bytes)?).ok()?;
        MatrixQ8::sparse_of_checked((rows, cols), layout, format, data, scales_of(format, scales)?, index)
    }

    /// Some bytes of the weights; `None` where they do not lie there, or do not start at a multiple of 16.
    fn weight_bytes(&self, offset: u32, n_bytes: usize) -> Option<&'m [u8]> {
        let start = offset as usize;
        let is_aligned = offset.is_multiple_of(SECTION_ALIGN as u32);
        self.contents().weights.get(start..start.checked_add(n_bytes)?).filter(|_| is_aligned)
    }
}

/// The scales of a format.
fn scales_of(format: WeightFormat, bytes: &[u8]) -> Option<Scales<'_>> {
    Some(match format {
        WeightFormat::Int8 => Scales::PerRow(bytemuck::try_cast_slice(bytes).ok()?),
        WeightFormat::Int8G32 | WeightFormat::Int4G32 => Scales::PerGroup(bytemuck::try_cast_slice(bytes).ok()?),
    })
}

#[cfg(not(feature = "linked-model"))]
impl<'m> PackedModel<'m> {
    fn parse_rope(&self) -> Result<&'m [u8], FormatError> {
        if self.config().parts().positions != Positions::Rope {
            return Ok(&[]);
        }
        let bad = FormatError::BadSection { kind: SectionKind::Rope as u32 };
        let rope = self.required(SectionKind::Rope)?;
        let n_angles = self.config().context_len * self.config().head_dim;
        if rope.len() as u64 == n_angles as u64 * size_of::<f32>() as u64 { Ok(rope) } else { Err(bad) }
    }

    fn required(&self, kind: SectionKind) -> Result<&'m [u8], FormatError> {
        self.section(kind).ok_or(FormatError::MissingSection(kind))
    }

    /// As many labels as the head has, or none at all. Other heads let such a section be.
    fn check_labels(&self) -> Result<(), FormatError> {
        if self.config().parts().n_labels == 0 {
            return Ok(());
        }
        let Some(bytes) = self.section(SectionKind::Labels) else { return Ok(()) };
        let n_labels = core::str::from_utf8(bytes).map(|text| text.lines().count());
        match n_labels == Ok(self.config().parts().n_labels) {
            true => Ok(()),
            false => Err(FormatError::BadSection { kind: SectionKind::Labels as u32 }),
        }
    }

    #[inline(never)]
    fn parse_tokenizer(&self) -> Result<Option<Tokenizer<'m>>, FormatError> {
        let Some(section) = self.section(SectionKind::Tokenizer) else { return Ok(None) };
        let tokenizer = Tokenizer::parse(section).map_err(FormatError::BadTokenizer)?;
        if tokenizer.vocab_size() > self.config().vocab_size {
            return Err(FormatError::BadTokenizer(TokenizerError::Header { field: "vocab_size" }));
        }
        Ok(Some(tokenizer))
    }

    /// Every tensor of the canonical order is there, with its shape, inside the weights.
    #[inline(never)]
    fn check_tensors(&self) -> Result<(), FormatError> {
        let config = self.config();
        for (tensor_idx, tensor) in tensor_order(config).enumerate() {
            let bad = FormatError::BadTensor { tensor_idx };
            let entry = self.tensor(tensor_idx).ok_or(bad)?;
            let named = (entry.role, entry.layer_idx as usize) == (tensor.code(), tensor.layer_idx);
            let shaped = (entry.rows as usize, entry.cols as usize) == tensor.shape(config);
            if !named || !shaped {
                return Err(bad);
            }
            let there = match tensor.storage() {
                Storage::Matrix => self.try_matrix(&entry).is_some_and(|matrix| matrix.is_index_sound()),
                Storage::Floats => self.try_numbers(&entry).is_some_and(|x: &[f32]| x.iter().all(|x| x.is_finite())),
                Storage::Integers => self.try_numbers::<i32>(&entry).is_some(),
            };
            if !there {
                return Err(bad);
            }
        }
        Ok(())
    }

    #[inline(never)]
    fn check_arena(&self) -> Result<(), FormatError> {
        match self.header().memory_plan() {
            Some(plan) if plan.arena_bytes as u64 == self.header().arena_bytes => Ok(()),
            _ => Err(FormatError::BadField { field: "arena_bytes", value: self.header().arena_bytes }),
        }
    }
}

/// A file's sections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SectionTable<'m> {
    entries: &'m [u8],
    file: &'m [u8],
}

impl<'m> SectionTable<'m> {
    /// Every section with its bytes.
    pub fn iter(self) -> impl Iterator<Item = (SectionEntry, &'m [u8])> {
        let entries = self.entries.as_chunks::<ENTRY_BYTES>().0.iter().map(SectionEntry::decode);
        entries.map(move |entry| (entry, contents::bytes_of(self.file, &entry).unwrap_or(&[])))
    }

    /// The bytes of those of one kind.
    #[cfg(feature = "adapters")]
    pub fn of_kind(self, kind: SectionKind) -> impl Iterator<Item = &'m [u8]> {
        self.iter().filter(move |(entry, _)| entry.kind == kind as u32).map(|(_, bytes)| bytes)
    }
}

fn check_section(file: &[u8], entry: &SectionEntry) -> Result<(), FormatError> {
    let bad = FormatError::BadSection { kind: entry.kind };
    if !entry.offset.is_multiple_of(SECTION_ALIGN as u64) {
        return Err(bad);
    }
    let bytes = contents::bytes_of(file, entry).ok_or(bad)?;
    if checksum(bytes) != entry.crc {
        return Err(FormatError::SectionChecksum { kind: entry.kind });
    }
    Ok(())
}
