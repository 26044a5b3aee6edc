//! The one model of a firmware, as its compiler knows it.
//!
//! With the feature `linked-model`, the packed file named by `SISKIN_MODEL` is compiled in. What follows from it alone (the model's shape
//! and parts, the weights' format, where each section lies, how text becomes tokens) are constants, so the compiler leaves out
//! whatever that model has no use for: other weight formats, norms, activations, ways to cut text, and the checks of a file's structure.
//! Those were made when the firmware was built: its build script parses the file with the whole runtime. On the device
//! [`PackedModel::parse`](crate::PackedModel::parse) compares checksums, which tell whether the flash still holds those bytes.
//!
//! New parts of a model stay out of firmware that does not use them in the same way: they ask `config()`, `parts()`, a tensor's format, the
//! tokenizer's tables or `section(kind)`, all of which are constants here.

use crate::arena::Aligned;
use crate::format::{Contents, SectionKind, checksum_by_halves};
use crate::kv_cache::KvFormat;
use crate::layout::WeightLayout;
use crate::tensor::WeightFormat;
use crate::tokenizer::Tables;

const FILE: &[u8; include_bytes!(env!("SISKIN_MODEL")).len()] = include_bytes!(env!("SISKIN_MODEL"));

/// The packed model, in flash.
pub static MODEL: Aligned<[u8; FILE.len()]> = Aligned(*FILE);

/// What it says of itself.
pub(crate) static CONTENTS: Contents<'static> = match Contents::of_checked(&MODEL.0) {
    Some(contents) => contents,
    None => panic!("SISKIN_MODEL is no packed model that this runtime runs"),
};

/// The checksum of its header and its section table.
pub(crate) const HEAD_CHECKSUM: u32 = checksum_by_halves(CONTENTS.head());

/// The order of its weights' bytes.
pub(crate) const LAYOUT: WeightLayout = CONTENTS.header().layout;

/// The format of matrices that have none of their own.
pub(crate) const FORMAT: WeightFormat = CONTENTS.header().format;

/// Whether it has matrices of this format.
#[inline(always)]
pub(crate) const fn has_format(format: WeightFormat) -> bool {
    const HAS: [bool; WeightFormat::ALL.len()] = CONTENTS.formats();
    HAS[format as usize]
}

/// Whether it has matrices with a scale a group.
#[inline(always)]
pub(crate) const fn has_groups() -> bool {
    has_format(WeightFormat::Int8G32) || has_format(WeightFormat::Int4G32)
}

/// Whether it has matrices whose zero blocks are not stored.
pub(crate) const HAS_SPARSE: bool = CONTENTS.has_sparse();

/// Whether its KV cache has this format.
#[inline(always)]
pub(crate) const fn has_kv(kv: KvFormat) -> bool {
    const KV: KvFormat = CONTENTS.header().kv;
    KV as u8 == kv as u8
}

/// Hypotheses of a beam search that its arena has room for.
pub(crate) const N_BEAMS: u32 = CONTENTS.header().n_beams;

/// The tables of its tokenizer; those of no token where it has none.
pub(crate) static TABLES: Tables<'static> = match CONTENTS.section(SectionKind::Tokenizer) {
    Some(section) => match Tables::read(section) {
        Ok(tables) => tables,
        Err(_) => panic!("SISKIN_MODEL has a damaged tokenizer"),
    },
    None => Tables::NONE,
};
