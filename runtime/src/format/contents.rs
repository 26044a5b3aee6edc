//! What a file says of itself, once it is checked: all that the accessors of [`super::PackedModel`] read.

#[cfg(feature = "linked-model")]
use super::HEADER_BYTES;
#[cfg(feature = "linked-model")]
use super::TensorEntry;
use super::order::Places;
use super::{ENTRY_BYTES, Header, SectionEntry, SectionKind};
#[cfg(feature = "linked-model")]
use crate::tensor::WeightFormat;
use crate::tokenizer::Tokenizer;

/// The parts of a file, where they lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contents<'m> {
    pub(super) header: Header,
    /// The section table.
    pub(super) sections: &'m [u8],
    pub(super) file: &'m [u8],
    /// The tensor table.
    pub(super) tensors: &'m [u8],
    pub(super) weights: &'m [u8],
    /// f32 `(context_len, head_dim)`, or empty.
    pub(super) rope: &'m [u8],
    #[cfg(any(feature = "families", feature = "linked-model"))]
    places: Places,
    pub(super) tokenizer: Option<Tokenizer<'m>>,
}

impl<'m> Contents<'m> {
    /// Those of a file of which header and section table were read.
    pub(super) const fn new(header: Header, sections: &'m [u8], file: &'m [u8]) -> Self {
        Self {
            header,
            sections,
            file,
            tensors: &[],
            weights: &[],
            rope: &[],
            #[cfg(any(feature = "families", feature = "linked-model"))]
            places: Places::new(&header.config),
            tokenizer: None,
        }
    }

    /// Those of a file that was checked elsewhere: `None` where they are not there at all.
    #[cfg(feature = "linked-model")]
    pub(crate) const fn of_checked(file: &'m [u8]) -> Option<Self> {
        let Some((first, rest)) = file.split_first_chunk::<HEADER_BYTES>() else { return None };
        let Ok(header) = super::header::fields(first) else { return None };
        let Some((sections, _)) = rest.split_at_checked(header.n_sections as usize * ENTRY_BYTES) else { return None };
        let mut contents = Self::new(header, sections, file);
        let (Some(tensors), Some(weights)) =
            (contents.section(SectionKind::Tensors), contents.section(SectionKind::Weights))
        else {
            return None;
        };
        contents.tensors = tensors;
        contents.weights = weights;
        if let (Some(rope), crate::parts::Positions::Rope) =
            (contents.section(SectionKind::Rope), header.config.parts().positions)
        {
            contents.rope = rope;
        }
        if contents.section(SectionKind::Tokenizer).is_some() {
            contents.tokenizer = Some(Tokenizer::LINKED);
        }
        Some(contents)
    }

    #[cfg(any(feature = "families", feature = "linked-model"))]
    pub(super) fn places(&self) -> Places {
        self.places
    }

    /// A Llama's follow from its layers alone.
    #[cfg(not(any(feature = "families", feature = "linked-model")))]
    pub(super) fn places(&self) -> Places {
        Places::new(&self.header.config)
    }

    /// The header and the section table.
    #[cfg(feature = "linked-model")]
    pub(crate) const fn head(&self) -> &'m [u8] {
        self.file.split_at(HEADER_BYTES + self.sections.len()).0
    }

    /// Whether there are matrices of the format, for each of [`WeightFormat::ALL`]; the header's counts always.
    #[cfg(feature = "linked-model")]
    pub(crate) const fn formats(&self) -> [bool; WeightFormat::ALL.len()] {
        let mut has = [false; WeightFormat::ALL.len()];
        has[self.header.format as usize] = true;
        let mut entries = self.tensors.as_chunks::<ENTRY_BYTES>().0;
        while let [bytes, others @ ..] = entries {
            if let Some(format) = TensorEntry::decode(bytes).format(self.header.format) {
                has[format as usize] = true;
            }
            entries = others;
        }
        has
    }

    /// Whether there are matrices whose zero blocks are not stored.
    #[cfg(feature = "linked-model")]
    pub(crate) const fn has_sparse(&self) -> bool {
        let mut entries = self.tensors.as_chunks::<ENTRY_BYTES>().0;
        while let [bytes, others @ ..] = entries {
            if TensorEntry::decode(bytes).is_sparse() {
                return true;
            }
            entries = others;
        }
        false
    }

    #[cfg(feature = "linked-model")]
    pub(crate) const fn header(&self) -> &Header {
        &self.header
    }

    /// The bytes of the first section of this kind.
    pub(crate) const fn section(&self, kind: SectionKind) -> Option<&'m [u8]> {
        let mut entries = self.sections.as_chunks::<ENTRY_BYTES>().0;
        while let [bytes, others @ ..] = entries {
            let entry = SectionEntry::decode(bytes);
            if entry.kind == kind as u32 {
                return bytes_of(self.file, &entry);
            }
            entries = others;
        }
        None
    }
}

/// The bytes of a section; `None` where they do not lie in the file.
pub(super) const fn bytes_of<'m>(file: &'m [u8], entry: &SectionEntry) -> Option<&'m [u8]> {
    if entry.offset > file.len() as u64 || entry.bytes > file.len() as u64 {
        return None;
    }
    let Some((_, rest)) = file.split_at_checked(entry.offset as usize) else { return None };
    match rest.split_at_checked(entry.bytes as usize) {
        Some((bytes, _)) => Some(bytes),
        None => None,
    }
}
