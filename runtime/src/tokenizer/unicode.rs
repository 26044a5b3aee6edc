//! Character classes, as regular expressions see them.

use crate::cut::Cut;

use super::unicode_table::{CHANGES, CLASSES, PLANE_STARTS};

/// Changes between two places from which the table is read.
const STRIDE: usize = 64;
const N_PLACES: usize = CHANGES.len().div_ceil(STRIDE);
const N_BYTES: usize = pack::<0>().1;

/// The table as firmware holds it, in half the flash: how far each change lies behind the one before, in groups of 7 bits, the lowest
/// first; the top bit says that another follows.
static STEPS: [u8; N_BYTES] = pack::<N_BYTES>().0;

/// Where every [`STRIDE`]th change's step begins, and what it is counted from.
static PLACES: [(u16, u32); N_PLACES] = places();

/// The character of a change.
const fn change(idx: usize) -> u32 {
    let mut plane = 0;
    while plane + 1 < PLANE_STARTS.len() && PLANE_STARTS[plane + 1] as usize <= idx {
        plane += 1;
    }
    (plane as u32) << 16 | CHANGES[idx] as u32
}

const fn change_before(idx: usize) -> u32 {
    if idx == 0 { 0 } else { change(idx - 1) }
}

/// The steps, as many as there is room for, and how many bytes they all take.
const fn pack<const ROOM: usize>() -> ([u8; ROOM], usize) {
    let (mut bytes, mut len, mut idx) = ([0; ROOM], 0, 0);
    while idx < CHANGES.len() {
        let mut step = change(idx) - change_before(idx);
        loop {
            let more = if step > 0x7f { 0x80 } else { 0 };
            if len < ROOM {
                bytes[len] = step as u8 & 0x7f | more;
            }
            len += 1;
            step >>= 7;
            if more == 0 {
                break;
            }
        }
        idx += 1;
    }
    (bytes, len)
}

const fn places() -> [(u16, u32); N_PLACES] {
    let bytes = pack::<N_BYTES>().0;
    let (mut places, mut at, mut idx) = ([(0, 0); N_PLACES], 0, 0);
    while idx < CHANGES.len() {
        if idx.is_multiple_of(STRIDE) {
            places[idx / STRIDE] = (at as u16, change_before(idx));
        }
        while bytes[at] >= 0x80 {
            at += 1;
        }
        at += 1;
        idx += 1;
    }
    places
}

/// What a pre-tokenizer can tell about a character. Every character has exactly one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CharClass {
    /// None of the others: punctuation, symbols, marks, controls, unassigned.
    Other,
    /// `\p{L}`.
    Letter,
    /// `\p{N}`.
    Number,
    /// `\s`: the property White_Space.
    Space,
}

impl CharClass {
    /// The class of `c`: that of the last change at or before it.
    pub fn of(c: char) -> Self {
        let code = c as u32;
        // The first place is before every character.
        let place_idx = PLACES.partition_point(|&(_, before)| before <= code).saturating_sub(1);
        let Some(&(at, mut last)) = PLACES.get(place_idx) else { return Self::Other };
        let mut n_changes = place_idx * STRIDE;
        let (mut step, mut shift) = (0, 0);
        for &byte in STEPS.cut(usize::from(at)..) {
            step |= u32::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                last += step;
                if last > code {
                    break;
                }
                n_changes += 1;
                (step, shift) = (0, 0);
            }
        }
        let Some(idx) = n_changes.checked_sub(1) else { return Self::Other };
        match CLASSES.get(idx / 4).map_or(0, |classes| classes >> (idx % 4 * 2) & 3) {
            1 => Self::Letter,
            2 => Self::Number,
            3 => Self::Space,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The class by the table as it was generated.
    fn by_table(c: char) -> CharClass {
        let plane = c as usize >> 16;
        let changes = usize::from(PLANE_STARTS[plane])..usize::from(PLANE_STARTS[plane + 1]);
        let first = changes.start;
        let n_before = CHANGES[changes].partition_point(|&change| change <= c as u32 as u16);
        let Some(idx) = (first + n_before).checked_sub(1) else { return CharClass::Other };
        if n_before == 0 {
            return CharClass::Other;
        }
        [CharClass::Other, CharClass::Letter, CharClass::Number, CharClass::Space]
            [usize::from(CLASSES[idx / 4] >> (idx % 4 * 2) & 3)]
    }

    #[test]
    fn every_character_has_the_class_of_the_table() {
        for c in '\0'..=char::MAX {
            assert_eq!(CharClass::of(c), by_table(c), "{c:?}");
        }
    }
}
