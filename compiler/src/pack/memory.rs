//! Packed files in the host's memory: owned, or mapped from disk and used in place.

use std::fs::File;
use std::ops::{Deref, DerefMut};
use std::path::Path;

use bytemuck::{Pod, Zeroable};
use memmap2::Mmap;
use siskin_runtime::{FormatError, PackedModel};

/// Bytes that start at a multiple of 16, as packed models and arenas must.
#[derive(Clone, Debug)]
pub struct AlignedBytes {
    blocks: Box<[Block]>,
    len: usize,
}

/// The unit of that memory: no number is aligned so on 32-bit machines.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(16))]
struct Block([u8; 16]);

impl AlignedBytes {
    /// `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        Self { blocks: bytemuck::zeroed_slice_box(len.div_ceil(size_of::<Block>())), len }
    }

    /// A copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut aligned = Self::zeroed(bytes.len());
        aligned.copy_from_slice(bytes);
        aligned
    }
}

impl Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.blocks)[..self.len]
    }
}

impl DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.blocks)[..self.len]
    }
}

/// Why a packed file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum PackedFileError {
    /// The file cannot be read.
    #[error("cannot read `{path}`: {error}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// The file is not a packed model that this version runs.
    #[error("`{path}`: {error}")]
    Format {
        /// The file.
        path: String,
        /// What is wrong with it.
        error: FormatError,
    },
}

/// A packed model, mapped from its file or held in memory.
#[derive(Debug)]
pub struct PackedFile {
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    Owned(AlignedBytes),
}

impl PackedFile {
    /// Maps a file and checks it.
    ///
    /// The file must not change while it is mapped: its checksums were verified when it was opened.
    ///
    /// # Errors
    /// [`PackedFileError`], with the path.
    pub fn open(path: &Path) -> Result<Self, PackedFileError> {
        let io = |error| PackedFileError::Io { path: path.display().to_string(), error };
        let file = File::open(path).map_err(io)?;
        if file.metadata().map_err(io)?.is_dir() {
            return Err(io(std::io::Error::other("it is a folder; a packed model is a single .siskin file")));
        }
        // SAFETY: the map is read-only and private to this process; that nobody rewrites the file meanwhile is asked of the
        // caller, as for every mapped model. Our own writer never rewrites in place: it renames a new file over the old.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        PackedModel::parse(&map)
            .map_err(|error| PackedFileError::Format { path: path.display().to_string(), error })?;
        Ok(Self { bytes: Bytes::Mapped(map) })
    }

    /// Checks bytes that are in memory already.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_bytes(bytes: AlignedBytes) -> Result<Self, FormatError> {
        PackedModel::parse(&bytes)?;
        Ok(Self { bytes: Bytes::Owned(bytes) })
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Owned(bytes) => bytes,
        }
    }

    /// The model.
    pub fn model(&self) -> PackedModel<'_> {
        PackedModel::parse(self.bytes()).expect("the bytes were checked when the file was opened")
    }
}
