//! A packed file with one section more, with another format of the KV cache, or with room for a beam search; all else as it was.

use siskin_runtime::beam::BEAMS_MAX;
use siskin_runtime::format::{
    ENTRY_BYTES, HEADER_BYTES, Header, SECTION_ALIGN, SECTIONS_MAX, SectionEntry, SectionKind, checksum,
};
use siskin_runtime::parts::Kind;
use siskin_runtime::{KvFormat, PackedModel};

use super::{AlignedBytes, PackError, PackedFile};

/// The file of `model` with `section` as its last, in place of any of the same kind.
///
/// # Errors
/// [`PackError::Sections`] where the file has as many sections as the format holds.
pub fn with_section(model: &PackedModel<'_>, kind: SectionKind, section: &[u8]) -> Result<AlignedBytes, PackError> {
    with_sections(model, kind, &[section])
}

/// The same with any number of sections of this kind.
pub(super) fn with_sections(
    model: &PackedModel<'_>,
    kind: SectionKind,
    added: &[&[u8]],
) -> Result<AlignedBytes, PackError> {
    let kept = model.raw_sections().filter(|(entry, _)| entry.kind != kind as u32);
    let mut sections: Vec<(u32, &[u8])> = kept.map(|(entry, bytes)| (entry.kind, bytes)).collect();
    sections.extend(added.iter().map(|&bytes| (kind as u32, bytes)));
    if sections.len() > SECTIONS_MAX {
        return Err(PackError::Sections { most: SECTIONS_MAX });
    }
    let mut file = vec![0; HEADER_BYTES + sections.len() * ENTRY_BYTES];
    for (idx, &(kind, bytes)) in sections.iter().enumerate() {
        file.resize(file.len().next_multiple_of(SECTION_ALIGN), 0);
        let (offset, bytes_len) = (file.len() as u64, bytes.len() as u64);
        let entry = SectionEntry { kind, crc: checksum(bytes), offset, bytes: bytes_len };
        file.extend_from_slice(bytes);
        file[HEADER_BYTES + idx * ENTRY_BYTES..][..ENTRY_BYTES].copy_from_slice(&entry.encode());
    }
    let mut header = *model.header();
    header.file_bytes = file.len() as u64;
    header.n_sections = sections.len() as u32;
    file[..HEADER_BYTES].copy_from_slice(&header.encode());
    Ok(AlignedBytes::copy_of(&file))
}

/// The file with keys and values kept in another format.
///
/// # Errors
/// [`PackError::ArenaTooLarge`] where the arena would not fit the address space.
pub fn with_kv(file: &PackedFile, kv: KvFormat) -> Result<AlignedBytes, PackError> {
    with_header(file, Header { kv, ..*file.model().header() })
}

/// The file with room for a beam search of `n_beams`; 0 for none.
///
/// # Errors
/// [`PackError`]: of a model that writes nothing, of too many beams, or where the arena would not fit the address space.
pub fn with_beams(file: &PackedFile, n_beams: usize) -> Result<AlignedBytes, PackError> {
    let header = *file.model().header();
    if n_beams > BEAMS_MAX {
        return Err(PackError::Beams { asked: n_beams, most: BEAMS_MAX });
    }
    if n_beams > 0 && header.config.parts.kind == Kind::Encoder {
        return Err(PackError::Unsupported { what: "a beam search with an encoder alone, which writes nothing" });
    }
    with_header(file, Header { n_beams: n_beams as u32, ..header })
}

/// The file with another header, of which the arena's size is made right.
fn with_header(file: &PackedFile, mut header: Header) -> Result<AlignedBytes, PackError> {
    header.arena_bytes = header.memory_plan().ok_or(PackError::ArenaTooLarge)?.arena_bytes as u64;
    let mut bytes = AlignedBytes::copy_of(file.bytes());
    bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
    Ok(bytes)
}
