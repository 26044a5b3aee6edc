//! Parse once, then never fail: [`PackedModel::parse`] checks everything that the accessors rely on.

use super::*;
use crate::config::ModelConfig;
use crate::plan::MemoryPlan;
use crate::tensor::{MatrixQ8, Scales};
use crate::tokenizer::{ChatPrompt, Tokenizer, TokenizerError};

/// A packed model in place. Copying it copies references.
#[derive(Clone, Copy, Debug)]
pub struct PackedModel<'m> {
    header: Header,
    sections: &'m [u8],
    file: &'m [u8],
    tensors: &'m [u8],
    weights: &'m [u8],
    rope: &'m [f32],
    tokenizer: Option<Tokenizer<'m>>,
    chat: Option<ChatPrompt<'m>>,
}

/// One layer's weights; shapes as in [`Role`].
#[derive(Clone, Copy, Debug)]
pub struct LayerWeights<'m> {
    /// `(dim,)`.
    pub attention_norm: &'m [f32],
    /// `(q_dim + 2 * kv_dim, dim)`.
    pub qkv: MatrixQ8<'m>,
    /// `(dim, q_dim)`.
    pub attention_output: MatrixQ8<'m>,
    /// `(dim,)`.
    pub feed_forward_norm: &'m [f32],
    /// `(2 * hidden_dim, dim)`.
    pub gate_up: MatrixQ8<'m>,
    /// `(dim, hidden_dim)`.
    pub down: MatrixQ8<'m>,
}

impl<'m> PackedModel<'m> {
    /// Checks the bytes of a file and gives access to the model.
    ///
    /// `file` must start at a multiple of 16 bytes in memory; bytes beyond the file's own length are ignored.
    ///
    /// # Errors
    /// A [`FormatError`] that names the first thing that is wrong. No input panics.
    pub fn parse(file: &'m [u8]) -> Result<Self, FormatError> {
        let mut model = Self::parse_weights(file)?;
        model.tokenizer = model.parse_tokenizer()?;
        model.chat =
            model.section(SectionKind::Chat).map(ChatPrompt::parse).transpose().map_err(FormatError::BadChat)?;
        Ok(model)
    }

    /// Like [`PackedModel::parse`], for who takes and gives tokens: what the file has of a tokenizer and a chat is left alone.
    ///
    /// # Errors
    /// As [`PackedModel::parse`].
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
        let mut model =
            Self { header, sections, file, tensors: &[], weights: &[], rope: &[], tokenizer: None, chat: None };
        for entry in model.sections() {
            check_section(file, &entry)?;
        }
        let rope = model.required(SectionKind::Rope)?;
        model.tensors = model.required(SectionKind::Tensors)?;
        model.weights = model.required(SectionKind::Weights)?;
        let bad_rope = FormatError::BadSection { kind: SectionKind::Rope as u32 };
        model.rope = bytemuck::try_cast_slice(rope).map_err(|_| bad_rope)?;
        if model.rope.len() != model.config().context_len * model.config().head_dim {
            return Err(bad_rope);
        }
        model.check_tensors()?;
        model.check_arena()?;
        Ok(model)
    }

    fn parse_tokenizer(&self) -> Result<Option<Tokenizer<'m>>, FormatError> {
        let Some(section) = self.section(SectionKind::Tokenizer) else { return Ok(None) };
        let tokenizer = Tokenizer::parse(section).map_err(FormatError::BadTokenizer)?;
        if tokenizer.vocab_size() > self.config().vocab_size {
            return Err(FormatError::BadTokenizer(TokenizerError::Header { field: "vocab_size" }));
        }
        Ok(Some(tokenizer))
    }

    /// The tokenizer, if the file has one; its ids are below the config's `vocab_size`.
    pub fn tokenizer(&self) -> Option<Tokenizer<'m>> {
        self.tokenizer
    }

    /// The turns around a user's message, if the file has them.
    pub fn chat(&self) -> Option<ChatPrompt<'m>> {
        self.chat
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.header.config
    }

    /// The header, as it was read.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The section table.
    pub fn sections(&self) -> impl Iterator<Item = SectionEntry> + use<'m> {
        self.sections.as_chunks::<ENTRY_BYTES>().0.iter().map(SectionEntry::decode)
    }

    /// Every section with its bytes, in the file's order, those of unknown kinds too.
    pub fn raw_sections(&self) -> impl Iterator<Item = (SectionEntry, &'m [u8])> + use<'m> {
        let file = self.file;
        self.sections().map(move |entry| (entry, section_bytes(file, &entry).unwrap_or(&[])))
    }

    /// The bytes of the first section of this kind.
    pub fn section(&self, kind: SectionKind) -> Option<&'m [u8]> {
        let entry = self.sections().find(|entry| entry.kind == kind as u32)?;
        section_bytes(self.file, &entry)
    }

    /// Where a session's arena keeps what; its size is the header's `arena_bytes`.
    pub fn memory_plan(&self) -> MemoryPlan {
        let plan = MemoryPlan::new(self.config(), self.header.format, self.header.prefill_batch as usize);
        plan.expect("`parse` made this plan")
    }

    /// The embedding, `(vocab_size, dim)`.
    pub fn embedding(&self) -> MatrixQ8<'m> {
        self.matrix(0)
    }

    /// The output head, `(vocab_size, dim)`: the embedding where it is tied.
    pub fn head(&self) -> MatrixQ8<'m> {
        if self.config().tied_head { self.embedding() } else { self.matrix(self.final_norm_idx() + 1) }
    }

    /// The gains of the last norm, `(dim,)`.
    pub fn final_norm(&self) -> &'m [f32] {
        self.gains(self.final_norm_idx())
    }

    /// The weights of a layer.
    ///
    /// # Panics
    /// If `layer_idx` is not below the config's `n_layers`: a caller's bug.
    pub fn layer(&self, layer_idx: usize) -> LayerWeights<'m> {
        assert!(layer_idx < self.config().n_layers);
        let first = 1 + layer_idx * Role::PER_LAYER;
        LayerWeights {
            attention_norm: self.gains(first),
            qkv: self.matrix(first + 1),
            attention_output: self.matrix(first + 2),
            feed_forward_norm: self.gains(first + 3),
            gate_up: self.matrix(first + 4),
            down: self.matrix(first + 5),
        }
    }

    /// Cosines, then sines, of a position's angles: `(head_dim,)`.
    pub fn rope(&self, position: usize) -> &'m [f32] {
        let head_dim = self.config().head_dim;
        self.rope.get(position * head_dim..(position + 1) * head_dim).unwrap_or(&[])
    }

    /// The tensor table.
    pub fn tensors(&self) -> impl Iterator<Item = TensorEntry> + use<'m> {
        self.tensors.as_chunks::<ENTRY_BYTES>().0.iter().map(TensorEntry::decode)
    }

    fn required(&self, kind: SectionKind) -> Result<&'m [u8], FormatError> {
        self.section(kind).ok_or(FormatError::MissingSection(kind))
    }

    fn final_norm_idx(&self) -> usize {
        1 + self.config().n_layers * Role::PER_LAYER
    }

    fn tensor(&self, tensor_idx: usize) -> Option<TensorEntry> {
        self.tensors.as_chunks::<ENTRY_BYTES>().0.get(tensor_idx).map(TensorEntry::decode)
    }

    fn gains(&self, tensor_idx: usize) -> &'m [f32] {
        self.tensor(tensor_idx).and_then(|entry| self.try_gains(&entry)).unwrap_or(&[])
    }

    fn matrix(&self, tensor_idx: usize) -> MatrixQ8<'m> {
        let matrix = self.tensor(tensor_idx).and_then(|entry| self.try_matrix(&entry));
        matrix.expect("`parse` saw this matrix")
    }

    fn try_gains(&self, entry: &TensorEntry) -> Option<&'m [f32]> {
        let start = entry.data_offset as usize;
        bytemuck::try_cast_slice(self.weights.get(start..start.checked_add(entry.cols as usize * 4)?)?).ok()
    }

    fn try_matrix(&self, entry: &TensorEntry) -> Option<MatrixQ8<'m>> {
        let (layout, format) = (self.header.layout, self.header.format);
        let (rows, cols) = (entry.rows as usize, entry.cols as usize);
        // Before any product of the two, which a 32-bit address space might not hold.
        if u64::from(entry.rows) * u64::from(entry.cols) > self.weights.len() as u64 {
            return None;
        }
        let start = entry.data_offset as usize;
        if !(entry.data_offset | entry.scales_offset).is_multiple_of(SECTION_ALIGN as u32) {
            return None;
        }
        let data = self.weights.get(start..start.checked_add(layout.data_bytes(rows, cols))?)?;
        let start = entry.scales_offset as usize;
        let scales = self.weights.get(start..start.checked_add(format.scales_bytes(layout, rows, cols))?)?;
        let scales = match format {
            WeightFormat::Int8 => Scales::PerRow(bytemuck::try_cast_slice(scales).ok()?),
            WeightFormat::Int8G32 => Scales::PerGroup(bytemuck::try_cast_slice(scales).ok()?),
        };
        MatrixQ8::new(rows, cols, layout, data, scales)
    }

    /// Every tensor of the canonical order is there, with its shape, inside the weights.
    fn check_tensors(&self) -> Result<(), FormatError> {
        let config = self.config();
        for (tensor_idx, (role, layer_idx)) in tensor_order(config).enumerate() {
            let bad = FormatError::BadTensor { tensor_idx };
            let entry = self.tensor(tensor_idx).ok_or(bad)?;
            let named = (entry.role, entry.layer_idx as usize) == (role as u16, layer_idx);
            let shaped = (entry.rows as usize, entry.cols as usize) == role.shape(config);
            if !named || !shaped {
                return Err(bad);
            }
            let there = match role.is_norm() {
                true => self.try_gains(&entry).is_some(),
                false => self.try_matrix(&entry).is_some(),
            };
            if !there {
                return Err(bad);
            }
        }
        Ok(())
    }

    fn check_arena(&self) -> Result<(), FormatError> {
        let plan = MemoryPlan::new(self.config(), self.header.format, self.header.prefill_batch as usize);
        match plan {
            Some(plan) if plan.arena_bytes as u64 == self.header.arena_bytes => Ok(()),
            _ => Err(FormatError::BadField { field: "arena_bytes", value: self.header.arena_bytes }),
        }
    }
}

fn parse_header(file: &[u8]) -> Result<Header, FormatError> {
    if !file.starts_with(&MAGIC) {
        return Err(FormatError::NotAPackedModel);
    }
    let given_bytes = file.len() as u64;
    let bytes: &[u8; HEADER_BYTES] =
        file.first_chunk().ok_or(FormatError::Truncated { needed_bytes: HEADER_BYTES as u64, given_bytes })?;
    let found = u32_at(bytes, 8);
    if found != VERSION {
        return Err(FormatError::UnsupportedVersion { found });
    }
    if checksum(&bytes[..HEADER_BYTES - 4]) != u32_at(bytes, HEADER_BYTES - 4) {
        return Err(FormatError::HeaderChecksum);
    }
    let field = |field, at| FormatError::BadField { field, value: u32_at(bytes, at).into() };
    let count = |at| u32_at(bytes, at) as usize;
    let n_sections = u32_at(bytes, 12);
    if n_sections as usize > SECTIONS_MAX {
        return Err(field("n_sections", 12));
    }
    let prefill_batch = u32_at(bytes, 76);
    if prefill_batch == 0 || prefill_batch as usize > PREFILL_BATCH_MAX {
        return Err(field("prefill_batch", 76));
    }
    let config = ModelConfig {
        dim: count(32),
        hidden_dim: count(36),
        n_layers: count(40),
        n_heads: count(44),
        n_kv_heads: count(48),
        head_dim: count(52),
        vocab_size: count(56),
        context_len: count(60),
        norm_eps: f32::from_bits(u32_at(bytes, 64)),
        rope_theta: f32::from_bits(u32_at(bytes, 68)),
        tied_head: match u32_at(bytes, 72) {
            0 => false,
            1 => true,
            _ => return Err(field("tied_head", 72)),
        },
    };
    config.validate().map_err(FormatError::BadConfig)?;
    Ok(Header {
        file_bytes: u64_at(bytes, 16),
        n_sections,
        layout: WeightLayout::from_code(u32_at(bytes, 24)).ok_or(field("layout", 24))?,
        format: WeightFormat::from_code(u32_at(bytes, 28)).ok_or(field("format", 28))?,
        config,
        prefill_batch,
        arena_bytes: u64_at(bytes, 80),
    })
}

fn section_bytes<'m>(file: &'m [u8], entry: &SectionEntry) -> Option<&'m [u8]> {
    let start = usize::try_from(entry.offset).ok()?;
    let bytes = usize::try_from(entry.bytes).ok()?;
    file.get(start..start.checked_add(bytes)?)
}

fn check_section(file: &[u8], entry: &SectionEntry) -> Result<(), FormatError> {
    let bad = FormatError::BadSection { kind: entry.kind };
    if !entry.offset.is_multiple_of(SECTION_ALIGN as u64) {
        return Err(bad);
    }
    let bytes = section_bytes(file, entry).ok_or(bad)?;
    if checksum(bytes) != entry.crc {
        return Err(FormatError::SectionChecksum { kind: entry.kind });
    }
    Ok(())
}
