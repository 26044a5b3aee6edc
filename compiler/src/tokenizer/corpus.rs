//! Encoding large texts: the runtime's ids, faster.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use siskin_runtime::TokenId;
use siskin_runtime::tokenizer::{EncodeOptions, PreTokens, Specials, Tokenizer, TokenizerKind};

/// Longer words are neither kept nor merged in place.
const SHORT_WORD_BYTES: usize = 64;
/// Words kept before the cache starts afresh: bounds its memory to tens of megabytes.
const CACHED_WORDS_MAX: usize = 1 << 17;

/// Encodes texts of any size to the ids that [`Tokenizer::encode_with`] gives.
///
/// It remembers the encoding of words and merges long ones with a queue, which a device has no memory for.
#[derive(Clone, Debug)]
pub struct CorpusEncoder<'m> {
    tokenizer: Tokenizer<'m>,
    words: HashMap<Box<str>, Box<[TokenId]>>,
}

impl<'m> CorpusEncoder<'m> {
    /// An encoder with nothing remembered yet.
    pub fn new(tokenizer: Tokenizer<'m>) -> Self {
        Self { tokenizer, words: HashMap::new() }
    }

    /// The tokenizer it encodes with.
    pub fn tokenizer(&self) -> &Tokenizer<'m> {
        &self.tokenizer
    }

    /// Encodes as [`Tokenizer::encode`] does: special tokens recognised, begin of text added where the model wants it.
    pub fn encode(&mut self, text: &str) -> Vec<TokenId> {
        let options = EncodeOptions { add_bos: self.tokenizer.add_bos(), specials: Specials::Everywhere };
        self.encode_with(text, options)
    }

    /// [`CorpusEncoder::encode`] with a choice of what is added and recognised.
    pub fn encode_with(&mut self, text: &str, options: EncodeOptions) -> Vec<TokenId> {
        let mut tokens = Vec::with_capacity(text.len() / 3 + 2);
        tokens.extend(self.tokenizer.bos().filter(|_| options.add_bos));
        self.encode_stretches(text, options.specials, self.tokenizer.space_prefix().at_start, &mut tokens);
        tokens
    }

    /// Encodes what goes on with a text whose tokens are known: nothing is added at its start, special tokens are recognised.
    pub fn encode_continuing(&mut self, text: &str) -> Vec<TokenId> {
        let mut tokens = Vec::new();
        self.encode_stretches(text, Specials::Everywhere, false, &mut tokens);
        tokens
    }

    fn encode_stretches(&mut self, text: &str, specials: Specials, at_start: bool, tokens: &mut Vec<TokenId>) {
        let mut space_prefix = at_start;
        for (plain, special) in self.tokenizer.stretches(text, specials) {
            if !plain.is_empty() {
                self.encode_plain(plain, space_prefix, tokens);
            }
            if let Some(id) = special {
                tokens.push(id);
                space_prefix = self.tokenizer.space_prefix().after_special;
            }
        }
    }

    fn encode_plain(&mut self, text: &str, space_prefix: bool, tokens: &mut Vec<TokenId>) {
        match self.tokenizer.kind() {
            TokenizerKind::ByteLevel => {
                for word in PreTokens::new(self.tokenizer.pre_tokenizer(), text) {
                    self.encode_word(word, tokens);
                }
                return;
            }
            // Spaces always end a word, so words between them can be remembered.
            TokenizerKind::WordPiece => return text.split(' ').for_each(|words| self.encode_word(words, tokens)),
            TokenizerKind::SentencePiece => {}
        }
        let sentence: String = self.tokenizer.sentence_chars(text, space_prefix).collect();
        let mut start = 0;
        if self.tokenizer.splits_words() {
            let bytes = sentence.as_bytes();
            for at in 1..bytes.len() {
                if bytes[at] == b' ' && bytes[at - 1] != b' ' {
                    self.encode_word(&sentence[start..at], tokens);
                    start = at;
                }
            }
        }
        self.encode_word(&sentence[start..], tokens);
    }

    fn encode_word(&mut self, word: &str, tokens: &mut Vec<TokenId>) {
        if word.len() > SHORT_WORD_BYTES {
            let mut spelled = vec![0; self.tokenizer.max_tokens(word.len())];
            let n_spelled = self.spell(word, &mut spelled);
            return tokens.extend(merge_with_queue(&self.tokenizer, &spelled[..n_spelled]));
        }
        if let Some(known) = self.words.get(word) {
            return tokens.extend_from_slice(known);
        }
        let mut buffer = [0; SHORT_WORD_BYTES];
        let n_spelled = self.spell(word, &mut buffer);
        let n_merged = self.tokenizer.merge_all(&mut buffer[..n_spelled]);
        tokens.extend_from_slice(&buffer[..n_merged]);
        if self.words.len() == CACHED_WORDS_MAX {
            self.words.clear();
        }
        self.words.insert(word.into(), buffer[..n_merged].into());
    }

    fn spell(&self, word: &str, out: &mut [TokenId]) -> usize {
        self.tokenizer.spell(word, out).expect("a word has no more tokens than bytes")
    }
}

/// Merges by a queue over (rank, position), `O(n log n)`; the same result as [`Tokenizer::merge_all`].
fn merge_with_queue(tokenizer: &Tokenizer<'_>, spelled: &[TokenId]) -> Vec<TokenId> {
    let end = spelled.len();
    let mut tokens: Vec<Option<TokenId>> = spelled.iter().copied().map(Some).collect();
    let mut next: Vec<usize> = (1..=end).collect();
    let mut previous: Vec<Option<usize>> = (0..end).map(|at| at.checked_sub(1)).collect();
    let mut queue = BinaryHeap::new();
    let push = |queue: &mut BinaryHeap<_>, at: usize, right_at: usize, tokens: &[Option<TokenId>]| {
        if let (Some(left), Some(right)) = (tokens[at], tokens.get(right_at).copied().flatten())
            && let Some(merge) = tokenizer.merge(left, right)
        {
            queue.push(Reverse((merge.rank, at, left, right, merge.result)));
        }
    };
    for (at, &right_at) in next.iter().enumerate() {
        push(&mut queue, at, right_at, &tokens);
    }
    while let Some(Reverse((_, at, left, right, result))) = queue.pop() {
        let right_at = next[at];
        // An entry is stale when either token has since become part of another.
        if tokens[at] != Some(left) || tokens.get(right_at).copied().flatten() != Some(right) {
            continue;
        }
        tokens[at] = Some(result);
        tokens[right_at] = None;
        next[at] = next[right_at];
        if let Some(back) = previous.get_mut(next[at]) {
            *back = Some(at);
        }
        if let Some(before) = previous[at] {
            push(&mut queue, before, at, &tokens);
        }
        push(&mut queue, at, next[at], &tokens);
    }
    tokens.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::{ByteLevelTraining, TokenizerDef};

    #[test]
    fn the_queue_merges_as_the_runtime_does() {
        let text = "the cat sat on the mat that the rat ate at a tattered tat ".repeat(3);
        let training = ByteLevelTraining::new(275);
        let compiled = TokenizerDef::train_byte_level(&[&text], &training).unwrap().compile().unwrap();
        let tokenizer = compiled.view();
        for n_bytes in 0..text.len() {
            let word = &text[text.len() - n_bytes..];
            let mut buffer = vec![0; word.len()];
            let n = tokenizer.spell(word, &mut buffer).unwrap();
            let queued = merge_with_queue(&tokenizer, &buffer[..n]);
            let n = tokenizer.merge_all(&mut buffer[..n]);
            assert_eq!(queued, buffer[..n], "{word:?}");
        }
    }
}
