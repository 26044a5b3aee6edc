//! Token bytes to text, as they come.

use crate::cut::{Cut, copy};

/// Assembles text from tokens whose bytes may end inside a character.
///
/// A character is given out once it is whole. Bytes that cannot be part of one become U+FFFD, one for each longest prefix of a
/// character, as `String::from_utf8_lossy` and Python's `errors="replace"` have it.
#[derive(Clone, Debug, Default)]
pub struct TextStream {
    /// The start of a character: at most three bytes wait for the next token.
    pending: [u8; 4],
    n_pending: usize,
    strip_space: bool,
}

impl TextStream {
    /// A stream that continues a text.
    pub const fn new() -> Self {
        Self { pending: [0; 4], n_pending: 0, strip_space: false }
    }

    /// A stream from the start of a text, which drops the space that encoding put there.
    pub fn at_start(tokenizer: &super::Tokenizer<'_>) -> Self {
        Self { strip_space: tokenizer.space_prefix().at_start, ..Self::new() }
    }

    /// Adds the bytes of a token and gives `emit` what can be said for certain, in pieces.
    pub fn push(&mut self, mut bytes: &[u8], mut emit: impl FnMut(&str)) {
        if let (true, Some(first)) = (self.strip_space, bytes.first()) {
            self.strip_space = false;
            bytes = bytes.cut(usize::from(*first == b' ')..);
        }
        while self.n_pending > 0
            && let [first, others @ ..] = bytes
        {
            let Some(slot) = self.pending.get_mut(self.n_pending) else { break };
            *slot = *first;
            match core::str::from_utf8(self.pending.cut(..=self.n_pending)) {
                Ok(character) => {
                    emit(character);
                    self.n_pending = 0;
                    bytes = others;
                }
                // Still the start of a character.
                Err(error) if error.error_len().is_none() => {
                    self.n_pending += 1;
                    bytes = others;
                }
                // The new byte does not continue it: what waited is lost, the byte is looked at afresh.
                Err(_) => {
                    emit("\u{fffd}");
                    self.n_pending = 0;
                }
            }
        }
        for chunk in bytes.utf8_chunks() {
            if !chunk.valid().is_empty() {
                emit(chunk.valid());
            }
            let invalid = chunk.invalid();
            let incomplete = core::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
            let is_last = invalid.as_ptr_range().end == bytes.as_ptr_range().end;
            if incomplete && is_last {
                copy(self.pending.cut_mut(..invalid.len()), invalid);
                self.n_pending = invalid.len();
            } else if !invalid.is_empty() {
                emit("\u{fffd}");
            }
        }
    }

    /// Ends the text: a character that never became whole is given out as U+FFFD.
    pub fn finish(&mut self, mut emit: impl FnMut(&str)) {
        if self.n_pending > 0 {
            self.n_pending = 0;
            emit("\u{fffd}");
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::String;
    use std::vec::Vec;

    use rand::{RngExt, SeedableRng};

    use super::*;

    fn decode(pieces: &[&[u8]]) -> String {
        let mut text = String::new();
        let mut stream = TextStream::new();
        for piece in pieces {
            stream.push(piece, |s| text.push_str(s));
        }
        stream.finish(|s| text.push_str(s));
        text
    }

    #[test]
    fn a_character_waits_for_its_last_byte() {
        let mut stream = TextStream::new();
        let mut seen = Vec::new();
        for byte in "aé\u{1f600}".bytes() {
            let mut count = 0;
            stream.push(&[byte], |s| count += s.chars().count());
            seen.push(count);
        }
        assert_eq!(seen, [1, 0, 1, 0, 0, 0, 1]);
    }

    #[test]
    fn any_bytes_in_any_pieces_decode_as_the_standard_library_does() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let alphabet =
            [0x41, 0x7f, 0x80, 0xbf, 0xc2, 0xc0, 0xe2, 0x82, 0xac, 0xed, 0xa0, 0xf0, 0x9f, 0x98, 0x80, 0xf4, 0xff];
        for _ in 0..20_000 {
            let bytes: Vec<u8> =
                (0..rng.random_range(0..12)).map(|_| alphabet[rng.random_range(0..alphabet.len())]).collect();
            let pieces: Vec<&[u8]> = bytes.chunks(rng.random_range(1..5)).collect();
            assert_eq!(decode(&pieces), String::from_utf8_lossy(&bytes), "{pieces:x?}");
        }
    }
}
