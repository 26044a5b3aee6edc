//! A packed file with one section more, the others as they were.

use siskin_runtime::PackedModel;
use siskin_runtime::format::{
    ENTRY_BYTES, HEADER_BYTES, SECTION_ALIGN, SECTIONS_MAX, SectionEntry, SectionKind, checksum,
};

use super::{AlignedBytes, PackError};

/// The file of `model` with `section` as its last, in place of any of the same kind.
///
/// # Errors
/// [`PackError::Sections`] where the file has as many sections as the format holds.
pub fn with_section(model: &PackedModel<'_>, kind: SectionKind, section: &[u8]) -> Result<AlignedBytes, PackError> {
    let kept = model.raw_sections().filter(|(entry, _)| entry.kind != kind as u32);
    let mut sections: Vec<(u32, &[u8])> = kept.map(|(entry, bytes)| (entry.kind, bytes)).collect();
    sections.push((kind as u32, section));
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
