//! The order of a weight matrix's bytes: one for each kind of kernel, all holding the same numbers.

use crate::cut::{Cut, copy};

/// How the bytes of a weight matrix are ordered, so that one core's kernel reads them front to back.
///
/// Every layout holds the same numbers, and every backend gives the same results from any of them; a backend is fast on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum WeightLayout {
    /// Rows one after the other.
    RowMajor = 0,
    /// Cortex-M with DSP instructions: blocks of 4 rows; rows 0 and 1 (2 and 3) share 16-bit lanes `256 * odd + even`.
    ///
    /// Four columns of a block are four words: rows 0-1 columns 0-1, rows 0-1 columns 2-3, rows 2-3 columns 0-1,
    /// rows 2-3 columns 2-3, the lower column in the lower half.
    RowPairs = 1,
    /// Tiles of 8 rows by 2 columns: AVX2, Cortex-M0 and M3.
    Rows8 = 2,
    /// Tiles of 16 rows by 4 columns: instructions that add four products of bytes to each 32-bit lane (SDOT, `vpdpbusd`), NEON, and RISC-V.
    Rows16 = 3,
    /// Tiles of 4 rows by 16 columns: Cortex-M with MVE.
    Rows4 = 4,
}

impl WeightLayout {
    /// Every layout, in the order of their codes.
    pub const ALL: [Self; 5] = [Self::RowMajor, Self::RowPairs, Self::Rows8, Self::Rows16, Self::Rows4];

    /// The layout with this code in a packed file.
    pub const fn from_code(code: u32) -> Option<Self> {
        let mut rest = Self::ALL.as_slice();
        while let [layout, others @ ..] = rest {
            if *layout as u32 == code {
                return Some(*layout);
            }
            rest = others;
        }
        None
    }

    /// The same, of which the compiler sees that it is the linked model's.
    #[inline(always)]
    pub(crate) fn known(self) -> Self {
        #[cfg(feature = "linked-model")]
        if self as u8 != crate::linked::LAYOUT as u8 {
            return crate::linked::LAYOUT;
        }
        self
    }

    /// The layout with this [`WeightLayout::name`].
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|layout| layout.name() == name)
    }

    /// The name in reports and in `board.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Self::RowMajor => "row-major",
            Self::RowPairs => "row-pairs",
            Self::Rows8 => "rows8",
            Self::Rows16 => "rows16",
            Self::Rows4 => "rows4",
        }
    }

    /// Rows and columns that are stored together, as a tile; tiles of the same rows follow each other. In a tile rows follow each other,
    /// but for [`WeightLayout::RowPairs`].
    const fn tile(self) -> (usize, usize) {
        match self {
            Self::RowMajor => (1, 1),
            Self::RowPairs => (4, 4),
            Self::Rows8 => (8, 2),
            Self::Rows16 => (16, 4),
            Self::Rows4 => (4, 16),
        }
    }

    /// Rows that are stored together; the last block is filled up with zero rows.
    pub const fn row_block(self) -> usize {
        self.tile().0
    }

    /// Columns are filled up with zeros to a multiple of this.
    pub const fn column_block(self) -> usize {
        self.tile().1
    }

    /// Bytes of the values of a `(rows, cols)` matrix, padding included.
    pub const fn data_bytes(self, rows: usize, cols: usize) -> usize {
        rows.next_multiple_of(self.row_block()) * cols.next_multiple_of(self.column_block())
    }

    /// Where the value at `(row, col)` lies: its byte, or for [`WeightLayout::RowPairs`] the first byte of the lane that holds it.
    const fn offset(self, cols: usize, row: usize, col: usize) -> usize {
        let (rows, columns) = self.tile();
        let tile = row / rows * rows * cols.next_multiple_of(columns) + col / columns * rows * columns;
        tile + match self {
            Self::RowPairs => row % 4 / 2 * 8 + col % 4 * 2,
            _ => row % rows * columns + col % columns,
        }
    }

    /// Bytes of the 4-bit values of a `(rows, cols)` matrix, padding included: two tiles share bytes, the first in the lower halves.
    pub const fn nibbles_bytes(self, rows: usize, cols: usize) -> usize {
        rows.next_multiple_of(self.row_block()) * (cols.next_multiple_of(self.nibble_columns()) / 2)
    }

    /// Columns of 4-bit values are filled up with zeros to a multiple of this.
    const fn nibble_columns(self) -> usize {
        match self {
            Self::RowPairs => 4,
            _ => 2 * self.column_block(),
        }
    }

    /// Where the 4-bit value at `(row, col)` lies: its byte, how far up in it, and what is added to it modulo 16.
    ///
    /// With 8 added values are not negative. In [`WeightLayout::RowPairs`] two columns of a block are a word of 8 values. Rows 0 and 2 have
    /// the lower three bits' places of each half, from which a mask takes them; rows 1 and 3 the top of each half, which has a sign: row 1
    /// where it lies, row 3 when the word is turned by 8 bits.
    const fn nibble_place(self, cols: usize, row: usize, col: usize) -> (usize, u32, u8) {
        let (rows, columns) = self.tile();
        let block = row / rows * self.nibbles_bytes(rows, cols);
        if let Self::RowPairs = self {
            let (place, added) = match row % 4 {
                0 => (0, 8),
                1 => (3, 0),
                2 => (2, 8),
                _ => (5, 0),
            };
            let place = (place + col % 2 * 4) % 8;
            return (block + col / 2 * 4 + place / 2, place as u32 % 2 * 4, added);
        }
        let pair = block + col / (2 * columns) * rows * columns;
        (pair + row % rows * columns + col % columns, (col / columns % 2 * 4) as u32, 8)
    }

    /// What a byte is where all its values are zero.
    pub const fn zero_nibbles(self) -> u8 {
        if let Self::RowPairs = self { 0x08 } else { 0x88 }
    }

    /// Writes the 4-bit value at `(row, col)` of a `(_, cols)` matrix, -8 to 7, into its place in `data`.
    ///
    /// # Panics
    /// If the place lies outside `data` and debug assertions are on.
    pub fn set_nibble(self, data: &mut [u8], cols: usize, row: usize, col: usize, value: i8) {
        let (at, shift, added) = self.nibble_place(cols, row, col);
        let stored = (value as u8).wrapping_add(added) & 15;
        data.cut_mut(at..at + 1).iter_mut().for_each(|byte| *byte = *byte & !(15 << shift) | stored << shift);
    }

    /// Reads the 4-bit value at `(row, col)` of a `(_, cols)` matrix; 0 outside `data`.
    #[inline]
    pub fn get_nibble(self, data: &[u8], cols: usize, row: usize, col: usize) -> i8 {
        let (at, shift, added) = self.nibble_place(cols, row, col);
        let stored = data.get(at).map_or(added, |byte| byte >> shift & 15).wrapping_sub(added);
        (stored << 4) as i8 >> 4
    }

    /// Columns of a row that lie side by side.
    pub(crate) const fn run(self) -> usize {
        if matches!(self, Self::RowMajor) { usize::MAX } else { self.column_block() }
    }

    /// The bytes of `n` values of a row from `col` on, at most the [`WeightLayout::run`] that starts there; `None` outside `data`, and where
    /// a value is no byte.
    pub(crate) fn row_bytes(self, data: &[u8], cols: usize, row: usize, col: usize, n: usize) -> Option<&[u8]> {
        if self == Self::RowPairs {
            return None;
        }
        let at = self.offset(cols, row, col);
        data.get(at..)?.get(..n)
    }

    /// Writes the value at `(row, col)` of a `(_, cols)` matrix into its place in `data`.
    ///
    /// # Panics
    /// If the place lies outside `data` and debug assertions are on.
    pub fn set(self, data: &mut [u8], cols: usize, row: usize, col: usize, value: i8) {
        let at = self.offset(cols, row, col);
        if self != Self::RowPairs {
            return data.cut_mut(at..at + 1).fill(value as u8);
        }
        let (even, odd) = split_lane(lane(data, at));
        let (even, odd) = if row.is_multiple_of(2) { (value, odd) } else { (even, value) };
        let lane = 256 * i16::from(odd) + i16::from(even);
        copy(data.cut_mut(at..at + 2), &lane.to_le_bytes());
    }

    /// Reads the value at `(row, col)` of a `(_, cols)` matrix; 0 outside `data`.
    #[inline]
    pub fn get(self, data: &[u8], cols: usize, row: usize, col: usize) -> i8 {
        let at = self.offset(cols, row, col);
        if self != Self::RowPairs {
            return data.get(at).map_or(0, |&byte| byte as i8);
        }
        let (even, odd) = split_lane(lane(data, at));
        if row.is_multiple_of(2) { even } else { odd }
    }
}

/// The 16-bit lane that starts at byte `at`; 0 outside `data`.
#[inline(always)]
fn lane(data: &[u8], at: usize) -> i16 {
    match data.get(at..at + 2) {
        Some(&[low, high]) => i16::from_le_bytes([low, high]),
        _ => 0,
    }
}

/// Undoes `256 * odd + even`: the low byte is `even`, and what is left of it is a multiple of 256.
#[inline(always)]
fn split_lane(lane: i16) -> (i8, i8) {
    let even = lane as i8;
    (even, (lane.wrapping_sub(i16::from(even)) >> 8) as i8)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec;

    #[test]
    fn every_layout_returns_what_was_set() {
        for layout in WeightLayout::ALL {
            for (rows, cols) in [(1, 1), (3, 5), (4, 4), (8, 2), (9, 33), (17, 40)] {
                let mut data = vec![0; layout.data_bytes(rows, cols)];
                let value = |r: usize, c: usize| ((r * 31 + c * 17) % 255) as i32 as u8 as i8;
                let value = |r, c| value(r, c).max(-127);
                for r in 0..rows {
                    for c in 0..cols {
                        layout.set(&mut data, cols, r, c, value(r, c));
                    }
                }
                for r in 0..rows {
                    for c in 0..cols {
                        assert_eq!(layout.get(&data, cols, r, c), value(r, c), "{layout:?} {rows}x{cols} at {r},{c}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_layout_returns_the_nibbles_that_were_set() {
        for layout in WeightLayout::ALL {
            for (rows, cols) in [(1, 1), (3, 5), (4, 4), (8, 2), (9, 33), (17, 40)] {
                let mut data = vec![layout.zero_nibbles(); layout.nibbles_bytes(rows, cols)];
                let value = |r: usize, c: usize| ((r * 31 + c * 17) % 16) as i8 - 8;
                assert_eq!(layout.get_nibble(&data, cols, rows - 1, cols - 1), 0);
                for r in 0..rows {
                    for c in 0..cols {
                        layout.set_nibble(&mut data, cols, r, c, value(r, c));
                    }
                }
                for r in 0..rows {
                    for c in 0..cols {
                        let got = layout.get_nibble(&data, cols, r, c);
                        assert_eq!(got, value(r, c), "{layout:?} {rows}x{cols} at {r},{c}");
                    }
                }
            }
        }
    }
}
