//! Rows of the cache in four bits an element: sixteen even steps down from the row's extreme.
//!
//! A row is what int8 makes of it, in coarser steps: all of this is integers, and a row is unpacked to int8 again before its attention, so
//! that every core's kernels serve. Keys and values are seldom as far below zero as above. Steps that begin at the far end
//! and reach as far as the row does are four fifths as wide as steps on both sides of zero, for three bits and a sign more, which the
//! scale has room for.

use crate::cut::Cut;

/// The extreme of every row as an int8: the scale has brought that between 119 and 127.
const TOP: i32 = 120;
/// The narrowest step. The widest reaches from one extreme to the other, `2 * TOP`.
const STEP_LEAST: i32 = 9;
/// The bits of a step above the narrowest, in the word beside a row.
const STEP_BITS: u16 = 7;
/// Set where the extreme is a negative number.
const NEGATIVE: u16 = 1 << 15;

/// Bytes of a row.
pub const fn row_bytes(head_dim: usize) -> usize {
    head_dim / 2 + head_dim % 2
}

/// Packs `elements`, `(head_dim,)`, which have a scale of [`super::ScaleFormat::Ue8m4`], to four bits each: the first half into the low bits of
/// the row's bytes, the second above. Gives the word beside the row, to which that scale is added.
pub fn pack(elements: &[i8], row: &mut [u8]) -> u16 {
    let least = elements.iter().fold(0, |least, &x| i32::from(x).min(least));
    let greatest = elements.iter().fold(0, |greatest, &x| i32::from(x).max(greatest));
    let is_negative = -least > greatest;
    let (sign, far_end) = if is_negative { (-1, -greatest) } else { (1, least) };
    // Fifteen steps and half a one on the way to the far end; ten to zero where there is nothing else.
    let step = if least == greatest { 10 } else { ((2 * (TOP - far_end) + 30) / 31).clamp(STEP_LEAST, 16) };
    // Exact for numerators of nine bits.
    let half_inverse = 0x8000 / step + 1;
    let nibble = |x: i8| ((((2 * (TOP - sign * i32::from(x)) + step) * half_inverse) >> 16).clamp(0, 15)) as u8;
    let (first, second) = elements.parts(row.len());
    for (i, (byte, &x)) in row.iter_mut().zip(first).enumerate() {
        *byte = nibble(x) | second.get(i).map_or(0, |&x| nibble(x)) << 4;
    }
    (step - STEP_LEAST) as u16 | if is_negative { NEGATIVE } else { 0 }
}

/// How a row's steps become int8.
#[derive(Clone, Copy)]
struct Steps {
    width: u32,
    /// What is subtracted from so many steps, in each byte.
    offset: u32,
    /// Flips the bytes of a word, which makes `x` of `-x - 1`.
    flip: u32,
}

impl Steps {
    #[inline(always)]
    fn of(word: u16) -> Self {
        let width = u32::from(word & STEP_BITS) + STEP_LEAST as u32;
        let top = TOP as u32 * EACH;
        match word & NEGATIVE {
            0 => Self { width, offset: top + EACH, flip: u32::MAX },
            _ => Self { width, offset: top, flip: 0 },
        }
    }

    /// Four elements, of a word whose bytes have four bits.
    #[inline(always)]
    fn elements(self, nibbles: u32) -> u32 {
        const HIGH: u32 = 0x80 * EACH;
        // At most 240 in each byte, so that none reaches the next, and then no byte borrows of another.
        let down = nibbles * self.width;
        ((down | HIGH) - self.offset) ^ (!down & HIGH) ^ self.flip
    }

    /// Unpacks the four bits from `shift` on of each byte, as far as there are `elements`.
    #[inline(always)]
    fn unpack(self, row: &[u8], shift: u32, elements: &mut [i8]) {
        let (words, rest) = elements.as_chunks_mut::<4>();
        let (fours, last) = row.as_chunks::<4>();
        // The last of an odd number of elements has a byte that is not whole.
        let last = fours.get(words.len()).map_or(last, <[u8; 4]>::as_slice);
        for (bytes, word) in fours.iter().zip(words) {
            let nibbles = u32::from_le_bytes(*bytes) >> shift & (15 * EACH);
            *word = self.elements(nibbles).to_le_bytes().map(|byte| byte as i8);
        }
        for (byte, element) in last.iter().zip(rest) {
            *element = self.elements(u32::from(*byte >> shift & 15)) as i8;
        }
    }
}

/// One in each byte of a word.
const EACH: u32 = 0x0101_0101;

/// Unpacks rows to `elements`, `(n_positions, head_dim)`, and the words beside them to their scales, bfloat16.
pub fn unpack(rows: &[u8], words: &[u16], head_dim: usize, elements: &mut [i8], scales: &mut [u16]) {
    let row_bytes = row_bytes(head_dim).max(1);
    let rows = rows.chunks_exact(row_bytes).zip(elements.chunks_exact_mut(head_dim.max(1)));
    for ((row, elements), (&word, scale)) in rows.zip(words.iter().zip(scales)) {
        *scale = word & !(NEGATIVE | STEP_BITS);
        let steps = Steps::of(word);
        let (first, second) = elements.parts_mut(row_bytes);
        steps.unpack(row, 0, first);
        steps.unpack(row, 4, second);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;
    use std::vec::Vec;

    use super::*;

    /// A row after packing and unpacking, and its step.
    fn unpacked(elements: &[i8]) -> (Vec<i8>, i32) {
        let (width, scale) = (elements.len(), 0x3f88);
        let mut row = vec![0xff; row_bytes(width)];
        let word = pack(elements, &mut row) | scale;
        let (mut out, mut scales) = (vec![99; width], [0]);
        unpack(&row, &[word], width, &mut out, &mut scales);
        assert_eq!(scales, [scale]);
        (out, i32::from(word & STEP_BITS) + STEP_LEAST)
    }

    #[test]
    fn every_width_comes_back_to_within_half_a_step() {
        for width in 1..70 {
            for (low, high) in [(-127, 127), (-127, 20), (-30, 127), (0, 127), (-127, 0), (100, 124), (-119, 119)] {
                let mut elements: Vec<i8> =
                    (0..width).map(|i| (low + (i * 37 + 11) % (high - low + 1)) as i8).collect();
                elements[0] = if high > -low { high as i8 } else { low as i8 };
                let (out, step) = unpacked(&elements);
                for (&x, &y) in elements.iter().zip(&out) {
                    let off = (i32::from(x) - i32::from(y)).abs();
                    // The extreme itself may lie up to seven beyond the top.
                    assert!(
                        off <= (step + 1) / 2 || x.unsigned_abs() > 120 && off <= 7,
                        "{width} {low} {high}: {x} as {y}"
                    );
                    assert!((-120..=120).contains(&y));
                }
            }
        }
    }

    #[test]
    fn zeros_stay_zeros() {
        assert_eq!(unpacked(&[0; 9]).0, [0; 9]);
    }

    #[test]
    fn any_bytes_are_elements_of_int8_without_the_least() {
        for word in [0u16, 7, 0x8000, 0x8007, 0x7f80, 0xffff] {
            let rows: Vec<u8> = (0..=u8::MAX).collect();
            let (mut out, mut scales) = (vec![0; 512], [0]);
            unpack(&rows, &[word], 512, &mut out, &mut scales);
            let (width, sign) = (i32::from(word & 7) + 9, if word < 0x8000 { 1 } else { -1 });
            for (i, &x) in out.iter().enumerate() {
                let nibble = if i < 256 { i % 16 } else { i % 256 / 16 };
                assert_eq!(i32::from(x), sign * (120 - nibble as i32 * width));
            }
        }
    }
}
