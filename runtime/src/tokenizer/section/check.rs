//! What must hold of a tokenizer section's entries: their order, and that ids and texts are there. A linked model's were checked by the build
//! script.

use super::{Tables, TokenizerKind, layout};
use crate::TokenId;
use crate::tokenizer::TokenizerError;

impl Tables<'_> {
    /// Checks every order and id, so that nothing can fail afterwards.
    pub(super) fn check(&self) -> Result<(), TokenizerError> {
        self.check_pieces()?;
        self.check_merges()?;
        self.check_chars()?;
        self.check_specials()?;
        self.word_pieces.check(self)
    }

    fn check_pieces(&self) -> Result<(), TokenizerError> {
        let mut start = 0;
        for id in 0..self.vocab_size {
            let end = self.piece_ends.get(id);
            if end < start || end as usize > self.pieces.len() {
                return Err(TokenizerError::Piece { id: id as TokenId });
            }
            start = end;
        }
        if start as usize != self.pieces.len() {
            return Err(TokenizerError::Piece { id: self.vocab_size as TokenId - 1 });
        }
        for byte in 0..=255u8 {
            if let Some(id) = self.byte_token(byte)
                && (id as usize >= self.vocab_size || self.piece(id) != [byte])
            {
                return Err(TokenizerError::ByteToken { byte });
            }
        }
        Ok(())
    }

    fn check_merges(&self) -> Result<(), TokenizerError> {
        if self.kind == TokenizerKind::WordPiece {
            let has_none = self.merge_rights.len() == 0;
            return if has_none { Ok(()) } else { Err(TokenizerError::Header { field: "n_merges" }) };
        }
        let mut start = 0;
        for left in 0..self.vocab_size {
            let (lo, hi) = (self.merge_starts.get(left), self.merge_starts.get(left + 1));
            if lo != start || hi < lo || hi as usize > self.merge_rights.len() {
                return Err(TokenizerError::MergeStart { left: left as TokenId });
            }
            start = hi;
            let mut previous = None;
            for idx in lo as usize..hi as usize {
                let (right, result) = (self.merge_rights.get(idx), self.merge_results.get(idx));
                let ordered = previous.is_none_or(|p| p < right);
                let known = (right as usize) < self.vocab_size && (result as usize) < self.vocab_size;
                if !ordered || !known || !self.is_concatenation(left as TokenId, right, result) {
                    return Err(TokenizerError::Merge { idx });
                }
                previous = Some(right);
            }
        }
        if start as usize != self.merge_rights.len() {
            return Err(TokenizerError::MergeStart { left: self.vocab_size as TokenId });
        }
        Ok(())
    }

    /// Whether `result` spells `left` and then `right`, neither of them empty.
    fn is_concatenation(&self, left: TokenId, right: TokenId, result: TokenId) -> bool {
        let (left, right, result) = (self.piece(left), self.piece(right), self.piece(result));
        !left.is_empty()
            && !right.is_empty()
            && result.len() == left.len() + right.len()
            && result.starts_with(left)
            && result.ends_with(right)
    }

    fn check_chars(&self) -> Result<(), TokenizerError> {
        let mut previous = None;
        for idx in 0..self.chars.len() {
            let (code, id) = (self.chars.get(idx), self.char_tokens.get(idx));
            let spelled = char::from_u32(code).is_some_and(|c| self.piece(id) == c.encode_utf8(&mut [0; 4]).as_bytes());
            if !spelled || id as usize >= self.vocab_size || previous.is_some_and(|p| p >= code) {
                return Err(TokenizerError::Char { idx });
            }
            previous = Some(code);
        }
        Ok(())
    }

    fn check_specials(&self) -> Result<(), TokenizerError> {
        let mut previous = None;
        for idx in 0..self.specials.len() {
            let id = self.specials.get(idx) & !layout::CONTROL;
            let ordered = previous.is_none_or(|p| p < id);
            let piece = self.piece(id);
            if piece.is_empty() || !ordered || core::str::from_utf8(piece).is_err() {
                return Err(TokenizerError::Special { idx });
            }
            previous = Some(id);
        }
        Ok(())
    }
}
