//! Numbers that start on a cache line.

use super::bf16::bf16;
use bytemuck::{Pod, Zeroable};
use memmap2::MmapMut;
use std::fmt;
use std::ops::{Deref, DerefMut};

/// Numbers in a cache line.
const LINE: usize = 16;

/// One cache line, as wide as the widest vector.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

// SAFETY: sixteen numbers, 64 bytes, no padding; all bits zero are sixteen zeros.
unsafe impl Zeroable for Line {}
// SAFETY: as above, and any bits are numbers.
unsafe impl Pod for Line {}

/// Bytes from which a buffer has pages of its own, as large as the system has them: weights and their gradients are walked through in strides
/// that small pages cost a twentieth of the time of a step.
const OWN_PAGES: usize = 4 << 20;

/// Whole cache lines.
enum Lines {
    Heap(Vec<Line>),
    Pages(MmapMut),
}

impl Lines {
    /// `n` lines of zeros.
    fn zeros(n: usize) -> Self {
        let n_bytes = n * size_of::<Line>();
        if n_bytes >= OWN_PAGES
            && let Ok(pages) = MmapMut::map_anon(n_bytes)
        {
            // A wish: small pages serve, too.
            #[cfg(target_os = "linux")]
            let _ = pages.advise(memmap2::Advice::HugePage);
            return Self::Pages(pages);
        }
        Self::Heap(vec![Line::zeroed(); n])
    }
}

impl Default for Lines {
    fn default() -> Self {
        Self::Heap(Vec::new())
    }
}

impl Deref for Lines {
    type Target = [Line];

    #[inline]
    fn deref(&self) -> &[Line] {
        match self {
            Self::Heap(lines) => lines,
            Self::Pages(pages) => bytemuck::cast_slice(pages),
        }
    }
}

impl DerefMut for Lines {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Line] {
        match self {
            Self::Heap(lines) => lines,
            Self::Pages(pages) => bytemuck::cast_slice_mut(pages),
        }
    }
}

impl Clone for Lines {
    fn clone(&self) -> Self {
        let mut lines = Self::zeros(self.len());
        lines.copy_from_slice(self);
        lines
    }
}

/// A fixed number of `f32` whose first lies at the start of a cache line.
///
/// The allocator aligns to 16 bytes: then every wide vector of a matrix would straddle two lines, which costs matrix products a tenth of
/// their speed.
#[derive(Clone, Default)]
pub struct Buffer {
    lines: Lines,
    len: usize,
}

impl Buffer {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        Self { lines: Lines::zeros(len.div_ceil(LINE)), len }
    }

    /// `len` zeros in the memory of its [`Buffer::class`].
    pub(super) fn of_class(len: usize) -> Self {
        Self { lines: Lines::zeros(Self::class(len)), len }
    }

    /// Cache lines of a buffer that serves for `len` numbers and for other lengths that are nearly as large: at most a quarter more than
    /// needed.
    pub(super) fn class(len: usize) -> usize {
        let n_lines = len.div_ceil(LINE);
        n_lines.next_multiple_of((n_lines.checked_ilog2().map_or(1, |log| 1 << log) / 4).max(1))
    }

    /// Cache lines that it takes up.
    pub(super) fn n_lines(&self) -> usize {
        self.lines.len()
    }

    /// Bytes that it takes up.
    pub(super) fn n_bytes(&self) -> usize {
        Self::bytes_of_lines(self.lines.len())
    }

    /// Bytes of so many cache lines.
    pub(super) fn bytes_of_lines(n_lines: usize) -> usize {
        n_lines * size_of::<Line>()
    }

    /// The memory of its numbers as that of twice as many.
    pub(super) fn as_bf16(&self) -> &[bf16] {
        bytemuck::cast_slice(self)
    }

    /// As [`Buffer::as_bf16`], for writing.
    pub(super) fn as_bf16_mut(&mut self) -> &mut [bf16] {
        bytemuck::cast_slice_mut(self)
    }

    /// Whether it is as large as a class.
    pub(super) fn is_of_class(&self) -> bool {
        Self::class(self.lines.len() * LINE) == self.lines.len()
    }

    /// Makes it a buffer of `len` numbers, which are not specified.
    ///
    /// # Panics
    /// If they don't fit.
    pub(super) fn set_len(&mut self, len: usize) {
        assert!(len <= self.lines.len() * LINE, "a buffer of another class");
        self.len = len;
    }
}

impl Deref for Buffer {
    type Target = [f32];

    #[inline]
    fn deref(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl DerefMut for Buffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

impl From<&[f32]> for Buffer {
    fn from(numbers: &[f32]) -> Self {
        let mut buffer = Self::zeros(numbers.len());
        buffer.copy_from_slice(numbers);
        buffer
    }
}

impl PartialEq for Buffer {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<'a> IntoIterator for &'a Buffer {
    type Item = &'a f32;
    type IntoIter = std::slice::Iter<'a, f32>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_their_lengths_with_little_waste() {
        for len in 0..20_000_usize {
            let (needed, class) = (len.div_ceil(LINE), Buffer::class(len));
            assert!(class >= needed && class * 4 <= needed * 5, "{len} numbers in {class} lines");
            assert_eq!(Buffer::class(class * LINE), class, "a class is its own");
        }
    }

    #[test]
    fn starts_on_a_cache_line_and_has_its_length() {
        for len in [0, 1, 15, 16, 17, 1000, OWN_PAGES / 4 + 5] {
            let mut buffer = Buffer::zeros(len);
            assert_eq!(buffer.len(), len);
            assert!(buffer.as_ptr().addr().is_multiple_of(64));
            buffer.fill(2.0);
            assert!(Buffer::from(&*buffer) == buffer && buffer.clone() == buffer, "{len} numbers");
        }
    }
}
