//! A packed file in memory, aligned as the runtime wants it.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use siskin_runtime::PackedModel;
use siskin_runtime::format::MAGIC;

use crate::failure::{Failure, OrFail as _};
use crate::input;

/// Bytes at a multiple of 16, as a packed model and an arena must be.
pub(crate) struct AlignedBytes {
    blocks: Vec<u128>,
    bytes: usize,
}

impl AlignedBytes {
    /// `bytes` zero bytes.
    pub(crate) fn zeroed(bytes: usize) -> Self {
        Self { blocks: vec![0; bytes.div_ceil(size_of::<u128>())], bytes }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.blocks)[..self.bytes]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.blocks)[..self.bytes]
    }
}

/// The bytes of a `.siskin` and where they came from.
pub(crate) struct PackedFile {
    path: PathBuf,
    bytes: AlignedBytes,
}

impl PackedFile {
    /// Reads the whole file. Whether it is a packed model, [`PackedFile::model`] says.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let contents = input::read_file(path)?;
        let mut bytes = AlignedBytes::zeroed(contents.len());
        bytes.as_mut_slice().copy_from_slice(&contents);
        Ok(Self { path: path.to_owned(), bytes })
    }

    /// The checked model.
    pub(crate) fn model(&self) -> Result<PackedModel<'_>, Failure> {
        PackedModel::parse(self.bytes.as_slice()).or_invalid_input(|| format!("read {}", self.path.display()))
    }
}

/// Whether the path is a file that starts as a packed model does.
pub(crate) fn is_packed(path: &Path) -> bool {
    let mut start = [0; MAGIC.len()];
    path.is_file() && File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == MAGIC
}
