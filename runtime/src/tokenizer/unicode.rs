//! Character classes, as regular expressions see them.

use crate::cut::Cut;

use super::unicode_table::{CHANGES, CLASSES, PLANE_STARTS};

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
    /// The class of `c`.
    ///
    /// The table holds, plane by plane, the characters at which the class changes, so a class is the one of the last change
    /// at or before the character.
    pub fn of(c: char) -> Self {
        let plane = (c as u32 >> 16) as usize;
        let low = c as u32 as u16;
        let (Some(&start), Some(&end)) = (PLANE_STARTS.get(plane), PLANE_STARTS.get(plane + 1)) else {
            return Self::Other;
        };
        let (start, end) = (usize::from(start), usize::from(end));
        let n_before = CHANGES.cut(start..end).partition_point(|&change| change <= low);
        if n_before == 0 {
            return Self::Other;
        }
        let idx = start + n_before - 1;
        match CLASSES.get(idx / 4).map_or(0, |classes| classes >> (idx % 4 * 2) & 3) {
            1 => Self::Letter,
            2 => Self::Number,
            3 => Self::Space,
            _ => Self::Other,
        }
    }
}
