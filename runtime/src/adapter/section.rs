//! Reads an adapter's bytes, the same in a packed model and in a file of their own (FORMAT.md), and checks all of them.

use core::fmt;

use super::Pair;
use crate::format::{PackedModel, Role, SECTION_ALIGN, SectionKind, checksum, u32_at};
use crate::layout::WeightLayout;
use crate::parts::Positions;
use crate::tensor::{MatrixQ8, Scales, WeightFormat, activation_stride};

/// What an adapter's bytes start with.
pub const MAGIC: [u8; 4] = *b"SADP";
/// The version this crate reads and writes.
pub const VERSION: u32 = 1;
/// Bytes before the table of pairs.
pub const HEAD_BYTES: usize = 80;
/// Bytes of an entry of that table.
pub const PAIR_BYTES: usize = 32;
/// Longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 32;

/// Where the checksum's bytes begin: behind the checksum.
const CHECKED_FROM: usize = 16;

/// The highest rank of a pair whose matrices meet activations of `cols` elements in `format`: one token's inner vector, as it is and
/// quantised, must fit the memory of its input.
pub fn rank_max(format: WeightFormat, cols: usize) -> usize {
    let fits = |rank: &usize| activation_stride(*rank) / 2 + format.groups(*rank) + rank <= cols;
    // Two elements and a half, a scale at most, and what fills up.
    let first = (2 * cols).div_ceil(3);
    (1..=first).rev().find(fits).unwrap_or(0)
}

/// What adapters may change the products of.
pub const ADAPTABLE: [Role; 8] = {
    use Role::*;
    [Qkv, AttentionOutput, GateUp, Down, Query, KeyValue, CrossQuery, CrossOutput]
};

/// Why bytes are not an adapter of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdapterError {
    /// The bytes do not start with the magic.
    NotAnAdapter,
    /// Another version of the format.
    UnsupportedVersion {
        /// The adapter's version.
        found: u32,
    },
    /// The bytes end early.
    Truncated {
        /// Bytes that the adapter says it has.
        needed_bytes: usize,
        /// Bytes that are there.
        given_bytes: usize,
    },
    /// The checksum does not match the bytes.
    Checksum,
    /// The first byte is not at a multiple of 16 in memory.
    Misaligned,
    /// The weights lie in another order than the model's.
    OtherLayout {
        /// The adapter's, if it is one that this version knows.
        found: Option<WeightLayout>,
        /// The model's.
        wanted: WeightLayout,
    },
    /// It was made for other weights than the model's.
    OtherModel {
        /// Checksum of the weights that it was made for.
        found: u32,
        /// Checksum of the model's weights.
        wanted: u32,
    },
    /// The name is empty, no UTF-8, or not filled up with zeros.
    BadName,
    /// A pair of matrices is for a tensor that cannot have one, out of order, or outside the bytes.
    BadPair {
        /// Its place in the table.
        pair_idx: usize,
    },
    /// The soft prompt lies outside the bytes, fills the context, or is for a model whose positions are not rotary.
    BadPrompt,
}

impl AdapterError {
    /// What is wrong, without figures.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAnAdapter => "this is not an adapter: it does not start with the magic bytes",
            Self::UnsupportedVersion { .. } => "the adapter has another format version: make it again",
            Self::Truncated { .. } => "the adapter is cut short: copy it again",
            Self::Checksum => "the adapter's checksum is wrong: it was damaged; copy it again",
            Self::Misaligned => "the adapter must lie at a multiple of 16 bytes in memory",
            Self::OtherLayout { .. } => {
                "the adapter's weights lie in another order than the model's: make it for this board"
            }
            Self::OtherModel { .. } => "the adapter was made for other weights than this model's",
            Self::BadName => "the adapter's name is empty or no UTF-8",
            Self::BadPair { .. } => "a pair of the adapter's matrices does not suit the model",
            Self::BadPrompt => "the adapter's soft prompt does not suit the model or fills its context",
        }
    }
}

impl fmt::Display for AdapterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())?;
        match *self {
            Self::UnsupportedVersion { found } => write!(f, " (it has {found}, this runtime reads {VERSION})"),
            Self::Truncated { needed_bytes, given_bytes } => {
                write!(f, " (it has {given_bytes} bytes of {needed_bytes})")
            }
            Self::OtherLayout { found, wanted } => {
                write!(f, " ({} instead of {})", found.map_or("an unknown one", WeightLayout::name), wanted.name())
            }
            Self::OtherModel { found, wanted } => write!(f, " (checksum {found:08x}, the model's is {wanted:08x})"),
            Self::BadPair { pair_idx } => write!(f, " (pair {pair_idx})"),
            _ => Ok(()),
        }
    }
}

impl core::error::Error for AdapterError {}

/// Low-rank pairs for some of a model's products, or rows that go before every prompt, or both; under a name.
///
/// A value is for the model that it was checked against. Copying it copies references.
#[derive(Clone, Copy, Debug)]
pub struct Adapter<'m> {
    bytes: &'m [u8],
    layout: WeightLayout,
    name: &'m str,
    pairs: &'m [[u8; PAIR_BYTES]],
    prompt: Option<MatrixQ8<'m>>,
}

/// An entry of the table of pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairEntry {
    /// Place of the tensor in the model's tensor table.
    pub tensor_idx: u32,
    /// First output row that the pair adds to.
    pub first_row: u32,
    /// Rows that it adds to.
    pub rows: u32,
    /// The width between its two matrices.
    pub rank: u32,
    /// First byte of the values of A, `(rank, cols)`, in the adapter; its scales follow at the next multiple of 16.
    pub a_offset: u32,
    /// The same of B, `(rows, rank)`.
    pub b_offset: u32,
}

impl PairEntry {
    /// The bytes of the entry.
    pub fn encode(&self) -> [u8; PAIR_BYTES] {
        let words = [self.tensor_idx, self.first_row, self.rows, self.rank, self.a_offset, self.b_offset];
        let mut bytes = [0; PAIR_BYTES];
        for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8; PAIR_BYTES]) -> Self {
        Self {
            tensor_idx: u32_at(bytes, 0),
            first_row: u32_at(bytes, 4),
            rows: u32_at(bytes, 8),
            rank: u32_at(bytes, 12),
            a_offset: u32_at(bytes, 16),
            b_offset: u32_at(bytes, 20),
        }
    }
}

impl<'m> Adapter<'m> {
    /// Checks an adapter that came by itself, for `model`. `bytes` must start at a multiple of 16 in memory; what follows the adapter is
    /// ignored.
    ///
    /// # Errors
    /// An [`AdapterError`] that names the first thing that is wrong. No input panics.
    pub fn parse(bytes: &'m [u8], model: &PackedModel<'_>) -> Result<Self, AdapterError> {
        let bytes = Self::cut(bytes)?;
        let is_whole = bytes.get(CHECKED_FROM..).is_some_and(|checked| checksum(checked) == u32_at(bytes, 12));
        if !is_whole {
            return Err(AdapterError::Checksum);
        }
        Self::of_section(bytes, model)
    }

    /// The bytes that the adapter says it has.
    fn cut(bytes: &'m [u8]) -> Result<&'m [u8], AdapterError> {
        if !bytes.starts_with(&MAGIC) {
            return Err(AdapterError::NotAnAdapter);
        }
        let found = u32_at(bytes, 4);
        if found != VERSION {
            return Err(AdapterError::UnsupportedVersion { found });
        }
        let needed_bytes = (u32_at(bytes, 8) as usize).max(HEAD_BYTES);
        bytes.get(..needed_bytes).ok_or(AdapterError::Truncated { needed_bytes, given_bytes: bytes.len() })
    }

    /// The same for bytes whose checksum is the section's.
    pub(crate) fn of_section(bytes: &'m [u8], model: &PackedModel<'_>) -> Result<Self, AdapterError> {
        let bytes = Self::cut(bytes)?;
        if !bytes.as_ptr().addr().is_multiple_of(SECTION_ALIGN) {
            return Err(AdapterError::Misaligned);
        }
        let (layout, wanted) = (WeightLayout::from_code(u32_at(bytes, 20)), model.header().layout);
        let Some(layout) = layout.filter(|&found| found == wanted) else {
            return Err(AdapterError::OtherLayout { found: layout, wanted });
        };
        let (found, wanted) = (u32_at(bytes, 16), weights_crc(model));
        if found != wanted {
            return Err(AdapterError::OtherModel { found, wanted });
        }
        let name = parse_name(bytes).ok_or(AdapterError::BadName)?;
        let mut adapter = Self { bytes, layout, name, pairs: &[], prompt: None };
        adapter.pairs = adapter.parse_pairs(model)?;
        adapter.prompt = adapter.parse_prompt(model)?;
        Ok(adapter)
    }

    fn parse_pairs(&self, model: &PackedModel<'_>) -> Result<&'m [[u8; PAIR_BYTES]], AdapterError> {
        let n_pairs = u32_at(self.bytes, 24) as usize;
        let missing = AdapterError::BadPair { pair_idx: n_pairs };
        let table = self.bytes.get(HEAD_BYTES..).ok_or(missing)?.as_chunks().0.get(..n_pairs).ok_or(missing)?;
        // The tensor and the row behind the pair before.
        let mut free = (0, 0);
        for (pair_idx, entry) in table.iter().map(PairEntry::decode).enumerate() {
            let bad = AdapterError::BadPair { pair_idx };
            let base = model.adaptable(entry.tensor_idx as usize).ok_or(bad)?;
            let end = u64::from(entry.first_row) + u64::from(entry.rows);
            let is_within = (1..=base.rows() as u64).contains(&end) && entry.rows > 0;
            let rank_max = rank_max(base.format(), base.cols()) as u32;
            let is_in_order = (entry.tensor_idx, u64::from(entry.first_row)) >= free;
            let is_suited = is_within && is_in_order && (1..=rank_max).contains(&entry.rank);
            if !is_suited || self.pair(&entry, &base).is_none() {
                return Err(bad);
            }
            free = (entry.tensor_idx, end);
        }
        Ok(table)
    }

    fn parse_prompt(&self, model: &PackedModel<'_>) -> Result<Option<MatrixQ8<'m>>, AdapterError> {
        let (config, n_virtual) = (model.config(), u32_at(self.bytes, 28) as usize);
        if n_virtual == 0 {
            return Ok(None);
        }
        let is_suited = config.parts().positions == Positions::Rope && n_virtual < config.context_len;
        let format = model.embedding().format();
        let rows = is_suited.then(|| self.matrix(u32_at(self.bytes, 64), n_virtual, config.dim, format)).flatten();
        rows.map(Some).ok_or(AdapterError::BadPrompt)
    }

    /// The matrix whose values start at `offset`; `None` where it lies outside.
    fn matrix(&self, offset: u32, rows: usize, cols: usize, format: WeightFormat) -> Option<MatrixQ8<'m>> {
        // Before any product of the two, which a 32-bit address space might not hold; two values of 4 bits share a byte.
        if rows as u64 * cols as u64 > 2 * self.bytes.len() as u64 || !offset.is_multiple_of(SECTION_ALIGN as u32) {
            return None;
        }
        let (start, data_bytes) = (offset as usize, format.data_bytes(self.layout, rows, cols));
        let data = self.bytes.get(start..start.checked_add(data_bytes)?)?;
        let start = start.checked_add(data_bytes)?.checked_next_multiple_of(SECTION_ALIGN)?;
        let scales = self.bytes.get(start..start.checked_add(format.scales_bytes(self.layout, rows, cols))?)?;
        let scales = match format {
            WeightFormat::Int8 => Scales::PerRow(bytemuck::try_cast_slice(scales).ok()?),
            WeightFormat::Int8G32 | WeightFormat::Int4G32 => Scales::PerGroup(bytemuck::try_cast_slice(scales).ok()?),
        };
        MatrixQ8::new(rows, cols, self.layout, format, data, scales)
    }

    fn pair(&self, entry: &PairEntry, base: &MatrixQ8<'_>) -> Option<Pair<'m>> {
        let (rank, format) = (entry.rank as usize, base.format());
        let a = self.matrix(entry.a_offset, rank, base.cols(), format)?;
        let b = self.matrix(entry.b_offset, entry.rows as usize, rank, format)?;
        Some(Pair { first_row: entry.first_row as usize, a, b })
    }

    /// The pairs of the matrix `base`, which is the model's tensor `tensor_idx`, in the order of the rows that they add to.
    pub fn pairs_of(&self, tensor_idx: usize, base: &MatrixQ8<'_>) -> impl Iterator<Item = Pair<'m>> {
        let first = self.pairs.partition_point(|entry| (PairEntry::decode(entry).tensor_idx as usize) < tensor_idx);
        let entries = self.pairs.get(first..).unwrap_or_default().iter().map(PairEntry::decode);
        let own = entries.take_while(move |entry| entry.tensor_idx as usize == tensor_idx);
        own.filter_map(|entry| self.pair(&entry, base))
    }

    /// The name that it is chosen by.
    pub fn name(&self) -> &'m str {
        self.name
    }

    /// Its bytes, as they are in a file of their own.
    pub fn bytes(&self) -> &'m [u8] {
        self.bytes
    }

    /// What tells it from other adapters: its checksum, which is hardly ever that of another.
    pub fn checksum(&self) -> u32 {
        u32_at(self.bytes, 12)
    }

    /// The table of pairs.
    pub fn entries(&self) -> impl Iterator<Item = PairEntry> + use<'m> {
        self.pairs.iter().map(PairEntry::decode)
    }

    /// What goes through the model before every prompt, `(n_virtual, dim)`.
    pub fn prompt(&self) -> Option<MatrixQ8<'m>> {
        self.prompt
    }
}

/// The name in an adapter's first bytes: UTF-8, filled up with zeros.
pub(super) fn parse_name(bytes: &[u8]) -> Option<&str> {
    let field = bytes.get(32..32 + NAME_BYTES_MAX)?;
    let len = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    let (name, filling) = field.split_at_checked(len)?;
    let name = core::str::from_utf8(name).ok()?;
    (!name.is_empty() && filling.iter().all(|&byte| byte == 0)).then_some(name)
}

/// The checksum of a model's weights, by which its adapters know it.
pub fn weights_crc(model: &PackedModel<'_>) -> u32 {
    model.sections().find(|entry| entry.kind == SectionKind::Weights as u32).map_or(0, |entry| entry.crc)
}

/// The adapters in a packed model, in the file's order.
#[derive(Clone, Copy, Debug)]
pub struct Adapters<'m> {
    model: PackedModel<'m>,
}

impl<'m> Adapters<'m> {
    pub(crate) fn of(model: &PackedModel<'m>) -> Self {
        Self { model: *model }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Adapter<'m>> {
        self.sections().filter_map(|bytes| Adapter::of_section(bytes, &self.model).ok())
    }

    /// The one of this name.
    pub fn named(&self, name: &str) -> Option<Adapter<'m>> {
        self.iter().find(|adapter| adapter.name() == name)
    }

    /// That all adapter sections are whole; those of a linked model were looked at when it was built.
    #[cfg(not(feature = "linked-model"))]
    pub(crate) fn check(&self) -> Result<(), AdapterError> {
        self.sections().try_for_each(|bytes| Adapter::of_section(bytes, &self.model).map(drop))
    }

    fn sections(&self) -> impl Iterator<Item = &'m [u8]> + use<'m> {
        self.model.section_table().of_kind(SectionKind::Adapter)
    }
}
