//! Writes the tokenizer section.

use siskin_runtime::TokenId;
use siskin_runtime::tokenizer::{SpacePrefix, Tokenizer, layout};

use super::word_piece::{WordRules, WordTables};
use super::{MergeRule, Scheme, TokenizerDef, TokenizerDefError};

/// A tokenizer section that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledTokenizer {
    section: Vec<u8>,
}

impl CompiledTokenizer {
    /// Bytes of the section, for a packed model.
    pub fn section(&self) -> &[u8] {
        &self.section
    }

    /// The section's bytes, given away.
    pub fn into_section(self) -> Vec<u8> {
        self.section
    }

    /// The runtime's view. It reads and checks the whole section, so take it once and keep it.
    pub fn view(&self) -> Tokenizer<'_> {
        Tokenizer::parse(&self.section).expect("the section was checked when it was made")
    }
}

impl TokenizerDef {
    /// Compiles to the section that the runtime reads. Equal definitions give equal bytes.
    pub fn compile(&self) -> Result<CompiledTokenizer, TokenizerDefError> {
        let section = self.write_section()?;
        Tokenizer::parse(&section).map_err(|error| TokenizerDefError::Compile(error.to_string()))?;
        Ok(CompiledTokenizer { section })
    }

    fn write_section(&self) -> Result<Vec<u8>, TokenizerDefError> {
        let vocab_size = self.vocab_size();
        let wide = vocab_size > layout::NARROW_IDS_MAX;
        let piece_bytes: usize = self.pieces.iter().map(Vec::len).sum();
        self.check_ids()?;
        let mut merges = self.merges.clone();
        merges.sort_unstable_by_key(|merge| (merge.left, merge.right));
        let wide_merges = merges.len() > 0xffff;
        let explicit_ranks = !ranks_follow_results(&merges);
        let (kind, pre_tokenizer, mut chars) = match &self.scheme {
            Scheme::ByteLevel { pre_tokenizer } => (0, pre_tokenizer.code(), Vec::new()),
            Scheme::SentencePiece { chars, .. } => (1, 0, chars.clone()),
            Scheme::WordPiece { .. } => (2, 0, Vec::new()),
        };
        chars.sort_unstable();
        let mut specials = self.specials.clone();
        specials.sort_unstable_by_key(|special| special.id);

        let mut out = Writer::default();
        out.bytes(&layout::MAGIC);
        out.bytes(&[layout::VERSION, kind, pre_tokenizer, if wide { 4 } else { 2 }]);
        out.narrow(self.flags(explicit_ranks));
        out.narrow(0);
        let optional = |id: Option<TokenId>| id.unwrap_or(layout::NO_TOKEN);
        for size in [vocab_size, merges.len(), chars.len(), specials.len()] {
            out.size(size)?;
        }
        out.numbers([self.bos, self.eos, self.unk].map(optional), true);
        out.size(piece_bytes)?;
        let merges_words = !matches!(self.scheme, Scheme::WordPiece { .. });
        if merges_words {
            out.numbers(self.byte_tokens.iter().map(|&id| optional(id)), wide);
        }
        out.numbers(running_sums(self.pieces.iter().map(Vec::len)), piece_bytes > 0xffff);
        let n_before = (0..=vocab_size as u32).map(|left| merges.partition_point(|merge| merge.left < left) as u32);
        out.numbers(n_before.filter(|_| merges_words), wide_merges);
        out.numbers(merges.iter().map(|merge| merge.right), wide);
        out.numbers(merges.iter().map(|merge| merge.result), wide);
        if explicit_ranks {
            out.numbers(dense_ranks(&merges), wide_merges);
        }
        out.numbers(chars.iter().map(|&(c, _)| u32::from(c)), true);
        out.numbers(chars.iter().map(|&(_, id)| id), wide);
        out.numbers(specials.iter().map(|s| s.id | if s.control { layout::CONTROL } else { 0 }), true);
        self.pieces.iter().for_each(|piece| out.bytes(piece));
        if let Scheme::WordPiece { rules } = self.scheme {
            self.write_word_tables(rules, wide, &mut out)?;
        }
        Ok(out.bytes)
    }

    /// What follows the pieces of a WordPiece.
    fn write_word_tables(&self, rules: WordRules, wide: bool, out: &mut Writer) -> Result<(), TokenizerDefError> {
        let WordTables { words, classes, mapped } = self.word_tables(rules)?;
        let mapped_bytes: usize = mapped.iter().map(|(_, text)| text.len()).sum();
        for size in [words.len(), classes.len(), mapped.len(), mapped_bytes] {
            out.size(size)?;
        }
        out.numbers([rules.word_chars_max], true);
        out.numbers(words, wide);
        out.numbers(classes, true);
        out.numbers(mapped.iter().map(|&(c, _)| u32::from(c)), true);
        out.numbers(running_sums(mapped.iter().map(|(_, text)| text.len())), mapped_bytes > 0xffff);
        mapped.iter().for_each(|(_, text)| out.bytes(text.as_bytes()));
        Ok(())
    }

    /// Ids must be checked before they are narrowed; the runtime's reader checks everything else.
    fn check_ids(&self) -> Result<(), TokenizerDefError> {
        let ids = self.merges.iter().flat_map(|merge| [merge.left, merge.right, merge.result]);
        let mut ids = ids.chain(self.byte_tokens.iter().flatten().copied());
        if let Some(id) = ids.find(|&id| id as usize >= self.vocab_size()) {
            let problem = format!("token {id} is used but the vocabulary has {} tokens", self.vocab_size());
            return Err(TokenizerDefError::Compile(problem));
        }
        if self.byte_tokens.len() != 256 {
            let problem = format!("there must be 256 byte tokens, not {}", self.byte_tokens.len());
            return Err(TokenizerDefError::Compile(problem));
        }
        Ok(())
    }

    fn flags(&self, explicit_ranks: bool) -> u16 {
        let mut flags = 0;
        let mut set = |flag, on| flags |= if on { flag } else { 0 };
        set(layout::ADD_BOS, self.add_bos);
        set(layout::EXPLICIT_RANKS, explicit_ranks);
        if let Scheme::WordPiece { .. } = self.scheme {
            // Decoding drops the space of a text's first word.
            set(layout::SPACE_AT_START, true);
        }
        if let Scheme::SentencePiece { space_prefix: SpacePrefix { at_start, after_special, once }, .. } = self.scheme {
            set(layout::SPLIT_WORDS, !self.merges.iter().any(|merge| self.crosses_words(merge)));
            set(layout::SPACE_AT_START, at_start);
            set(layout::SPACE_AFTER_SPECIAL, after_special);
            set(layout::SPACE_ONCE, once);
        }
        flags
    }

    /// Whether a merge makes a piece with a space after something else.
    fn crosses_words(&self, merge: &MergeRule) -> bool {
        self.pieces[merge.result as usize].windows(2).any(|pair| pair[0] != b' ' && pair[1] == b' ')
    }
}

/// Whether merges go in the order of the ids that they make, so that ranks need not be stored.
fn ranks_follow_results(merges: &[MergeRule]) -> bool {
    let mut by_rank: Vec<(u32, TokenId)> = merges.iter().map(|merge| (merge.rank, merge.result)).collect();
    by_rank.sort_unstable();
    by_rank.windows(2).all(|pair| (pair[0].0 == pair[1].0) == (pair[0].1 == pair[1].1) && pair[0].1 <= pair[1].1)
}

/// Ranks in the order of `merges`, renumbered from 0 without gaps.
fn dense_ranks(merges: &[MergeRule]) -> impl Iterator<Item = u32> {
    let mut ranks: Vec<u32> = merges.iter().map(|merge| merge.rank).collect();
    ranks.sort_unstable();
    ranks.dedup();
    merges.iter().map(move |merge| ranks.partition_point(|&rank| rank < merge.rank) as u32)
}

fn running_sums(sizes: impl Iterator<Item = usize>) -> impl Iterator<Item = u32> {
    sizes.scan(0, |sum, size| {
        *sum += size as u32;
        Some(*sum)
    })
}

/// Little-endian bytes.
#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn narrow(&mut self, number: u16) {
        self.bytes(&number.to_le_bytes());
    }

    fn numbers(&mut self, numbers: impl IntoIterator<Item = u32>, wide: bool) {
        for number in numbers {
            if wide { self.bytes(&number.to_le_bytes()) } else { self.narrow(number as u16) }
        }
    }

    fn size(&mut self, size: usize) -> Result<(), TokenizerDefError> {
        let size = u32::try_from(size).map_err(|_| TokenizerDefError::Compile(format!("a table of {size} entries")))?;
        self.numbers([size], true);
        Ok(())
    }
}
