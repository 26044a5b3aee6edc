//! Files read through a memory map: a weight file is touched once, page by page.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use super::ArtifactError;

/// A whole file's bytes.
pub(crate) struct MappedFile(Option<Mmap>);

impl MappedFile {
    /// Maps the file at `path`.
    pub fn open(path: &Path) -> Result<Self, ArtifactError> {
        let attempt = || {
            let file = File::open(path)?;
            let metadata = file.metadata()?;
            if !metadata.is_file() {
                return Err(std::io::Error::other("it is not a regular file"));
            }
            if metadata.len() == 0 {
                return Ok(Self(None));
            }
            // SAFETY: the map is private and read-only. A file cut or rewritten by others while it is read could change
            // the bytes, which parsers copy out in one pass, or raise SIGBUS; our own writers replace files by rename.
            let map = unsafe { Mmap::map(&file)? };
            Ok(Self(Some(map)))
        };
        attempt().map_err(ArtifactError::io("read", path))
    }

    /// The content; empty for an empty file, which cannot be mapped.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}
