//! The grammar section: reading and checking it.

use core::fmt;

use crate::TokenId;
use crate::tokenizer::Tokenizer;

use super::STACK_MAX;

/// Byte layout of a grammar section, shared with the compiler, which writes it. All numbers are little-endian.
pub mod layout {
    /// First four bytes.
    pub const MAGIC: [u8; 4] = *b"SGRM";
    /// Layout version that this runtime reads.
    pub const VERSION: u32 = 1;
    /// Bytes before the first table.
    pub const HEADER_BYTES: usize = 32;
    /// Set in an edge's target where that is the index of a call.
    pub const CALL: u16 = 1 << 15;
    /// Stands for "nowhere" where a call goes back to nothing: the caller's rule ends with it.
    pub const NOWHERE: u16 = u16::MAX;
    /// Most states and most calls.
    pub const STATES_MAX: usize = 0x7fff;
    /// Most edges.
    pub const EDGES_MAX: usize = 0xffff;
}

/// What a byte does in a state.
#[derive(Clone, Copy, Debug)]
pub(super) enum Edge {
    /// It is taken.
    Byte { target: u16 },
    /// It begins a rule, after which the walk goes on at `back_to`.
    Call { start: u16, back_to: Option<u16> },
}

/// A checked grammar section: a view, nothing is copied.
#[derive(Clone, Copy, Debug)]
pub struct Grammar<'m> {
    stack_max: usize,
    /// Where each state's edges begin; one more than there are states.
    edge_starts: &'m [u16],
    /// Bytes of the shortest way to the end of the rule; 0 where it may end.
    distances: &'m [u16],
    /// Stack that this way takes.
    heights: &'m [u8],
    /// Lowest and highest byte, then the target.
    edges: &'m [[u8; 4]],
    /// Where the rule starts, and where to go on after it.
    calls: &'m [[u16; 2]],
    tokens: Tokens<'m>,
    /// Of each text, how many bytes it shares with the one before.
    shared: &'m [u8],
}

/// Every token once: those that are text, in the order of their bytes, then the others.
#[derive(Clone, Copy, Debug)]
enum Tokens<'m> {
    Narrow(&'m [u16]),
    Wide(&'m [u32]),
}

impl Tokens<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Narrow(ids) => ids.len(),
            Self::Wide(ids) => ids.len(),
        }
    }

    fn get(&self, idx: usize) -> TokenId {
        match self {
            Self::Narrow(ids) => ids.get(idx).map_or(TokenId::MAX, |&id| id.into()),
            Self::Wide(ids) => ids.get(idx).copied().unwrap_or(TokenId::MAX),
        }
    }
}

/// Takes tables off the front of a section.
struct Reader<'m>(&'m [u8]);

impl<'m> Reader<'m> {
    fn table<T: bytemuck::Pod>(&mut self, len: usize) -> Result<&'m [T], GrammarError> {
        let bytes = len.checked_mul(size_of::<T>()).ok_or(GrammarError::Truncated)?;
        let (table, rest) = self.0.split_at_checked(bytes).ok_or(GrammarError::Truncated)?;
        self.0 = rest;
        bytemuck::try_cast_slice(table).map_err(|_| GrammarError::Misaligned)
    }
}

impl<'m> Grammar<'m> {
    /// Reads a grammar section, which must lie at a multiple of 4, for the vocabulary of `tokenizer`, and checks every index in it, and
    /// that the shortest ways lead to the end.
    ///
    /// # Errors
    /// A [`GrammarError`] that names the first thing that is wrong. No input panics.
    pub fn parse(section: &'m [u8], tokenizer: &Tokenizer<'_>) -> Result<Self, GrammarError> {
        let mut reader = Reader(section);
        let header: &[u8] = reader.table(layout::HEADER_BYTES)?;
        if !header.starts_with(&layout::MAGIC) {
            return Err(GrammarError::NotAGrammar);
        }
        let mut words = [0; layout::HEADER_BYTES / 4];
        for (word, bytes) in words.iter_mut().zip(header.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        let [_, version, stack_max, n_states, n_edges, n_calls, n_tokens, n_texts] = words;
        if version != layout::VERSION {
            return Err(GrammarError::Version { found: version });
        }
        let counts = [stack_max, n_states, n_edges, n_calls, n_tokens, n_texts].map(|count| count as usize);
        let [stack_max, n_states, n_edges, n_calls, n_tokens, n_texts] = counts;
        let limits = [STACK_MAX, layout::STATES_MAX, layout::EDGES_MAX, layout::STATES_MAX, usize::MAX, n_tokens];
        if n_states == 0 || counts.iter().zip(limits).any(|(&count, most)| count > most) {
            return Err(GrammarError::Header);
        }
        if n_tokens != tokenizer.vocab_size() {
            return Err(GrammarError::OtherVocabulary { n_tokens, vocab_size: tokenizer.vocab_size() });
        }
        let tokens = match n_tokens <= 1 << 16 {
            true => Tokens::Narrow(reader.table(n_tokens.next_multiple_of(2))?.get(..n_tokens).unwrap_or_default()),
            false => Tokens::Wide(reader.table(n_tokens)?),
        };
        let grammar = Self {
            stack_max,
            tokens,
            edges: reader.table(n_edges)?,
            calls: reader.table(n_calls)?,
            distances: reader.table(n_states)?,
            edge_starts: reader.table(n_states + 1)?,
            heights: reader.table(n_states)?,
            shared: reader.table(n_texts)?,
        };
        if !reader.0.is_empty() {
            return Err(GrammarError::TrailingBytes);
        }
        grammar.check_tokens()?;
        grammar.check_calls()?;
        (0..n_states as u16).try_for_each(|state| grammar.check_state(state))?;
        if grammar.is_room(0, 0) { Ok(grammar) } else { Err(GrammarError::State { state: 0 }) }
    }

    fn check_tokens(&self) -> Result<(), GrammarError> {
        let is_known = |&idx: &usize| (self.tokens.get(idx) as usize) < self.tokens.len();
        if (0..self.tokens.len()).all(|idx| is_known(&idx)) { Ok(()) } else { Err(GrammarError::Token) }
    }

    fn check_calls(&self) -> Result<(), GrammarError> {
        let n_states = self.distances.len();
        let is_state = |state: u16| usize::from(state) < n_states;
        let is_good =
            |&[start, back_to]: &[u16; 2]| is_state(start) && (is_state(back_to) || back_to == layout::NOWHERE);
        if self.calls.iter().all(is_good) { Ok(()) } else { Err(GrammarError::Call) }
    }

    /// Edges that ascend and lead somewhere, one of them on a way of the promised length and height.
    fn check_state(&self, state: u16) -> Result<(), GrammarError> {
        let bad = GrammarError::State { state };
        let idx = usize::from(state);
        let (Some(&from), Some(&to)) = (self.edge_starts.get(idx), self.edge_starts.get(idx + 1)) else {
            return Err(bad);
        };
        let edges = self.edges.get(usize::from(from)..usize::from(to)).ok_or(bad)?;
        let is_first_or_last =
            (idx > 0 || from == 0) && (idx + 1 < self.distances.len() || usize::from(to) == self.edges.len());
        let (promised, height) = (u32::from(self.distance(state)), self.height(state));
        let (mut is_kept, mut least) = (promised == 0, 0);
        for &[low, high, ..] in edges {
            let edge = self.edge(state, low).ok_or(bad)?;
            if u16::from(low) < least || high < low {
                return Err(bad);
            }
            least = u16::from(high) + 1;
            let (distance, needed) = match edge {
                Edge::Byte { target } if usize::from(target) >= self.distances.len() => return Err(bad),
                Edge::Byte { target } => (1 + u32::from(self.distance(target)), self.height(target)),
                Edge::Call { start, back_to: None } => (u32::from(self.distance(start)), self.height(start)),
                Edge::Call { start, back_to: Some(back) } => {
                    let needed = (1 + self.height(start)).max(self.height(back));
                    (u32::from(self.distance(start)) + u32::from(self.distance(back)), needed)
                }
            };
            is_kept |= distance == promised && needed <= height;
        }
        if is_first_or_last && is_kept { Ok(()) } else { Err(bad) }
    }

    /// What `byte` does in `state`.
    pub(super) fn edge(&self, state: u16, byte: u8) -> Option<Edge> {
        let idx = usize::from(state);
        let (&from, &to) = (self.edge_starts.get(idx)?, self.edge_starts.get(idx + 1)?);
        let edges = self.edges.get(usize::from(from)..usize::from(to))?;
        let &[low, _, target @ ..] = edges.iter().find(|&&[_, high, ..]| byte <= high)?;
        let target = u16::from_le_bytes(target);
        if byte < low {
            return None;
        }
        if target & layout::CALL == 0 {
            return Some(Edge::Byte { target });
        }
        let &[start, back_to] = self.calls.get(usize::from(target & !layout::CALL))?;
        Some(Edge::Call { start, back_to: (back_to != layout::NOWHERE).then_some(back_to) })
    }

    /// Bytes from `state` to the end of its rule, at least.
    pub(super) fn distance(&self, state: u16) -> u16 {
        self.distances.get(usize::from(state)).copied().unwrap_or(u16::MAX)
    }

    fn height(&self, state: u16) -> usize {
        self.heights.get(usize::from(state)).map_or(usize::MAX / 2, |&height| height.into())
    }

    /// Whether the shortest way from `state` fits above `depth` calls.
    pub(super) fn is_room(&self, state: u16, depth: usize) -> bool {
        depth + self.height(state) <= self.stack_max
    }

    /// Whether nothing follows in `state`.
    pub(super) fn is_leaf(&self, state: u16) -> bool {
        let idx = usize::from(state);
        self.edge_starts.get(idx) == self.edge_starts.get(idx + 1)
    }

    /// The ranges of bytes that lead on from `state`, lowest and highest, ascending.
    pub(super) fn bytes_from(&self, state: u16) -> impl Iterator<Item = [u8; 2]> {
        let idx = usize::from(state);
        let ends = self.edge_starts.get(idx).zip(self.edge_starts.get(idx + 1));
        let edges = ends.and_then(|(&from, &to)| self.edges.get(usize::from(from)..usize::from(to)));
        edges.unwrap_or_default().iter().map(|&[low, high, ..]| [low, high])
    }

    /// The tokens that are text, in the order of their bytes, each with the number of bytes that it shares with the one before.
    pub(super) fn texts(&self) -> impl Iterator<Item = (TokenId, usize)> {
        (0..self.n_texts()).map(|idx| self.text(idx))
    }

    /// How many tokens are text.
    pub(super) fn n_texts(&self) -> usize {
        self.shared.len()
    }

    /// One of [`Grammar::texts`].
    pub(super) fn text(&self, idx: usize) -> (TokenId, usize) {
        (self.tokens.get(idx), self.shared.get(idx).map_or(0, |&shared| shared.into()))
    }

    /// Which of [`Grammar::texts`] is the first whose first byte is not below `byte`.
    pub(super) fn first_text_from(&self, tokenizer: &Tokenizer<'_>, byte: u16) -> usize {
        let (mut low, mut high) = (0, self.n_texts());
        while low < high {
            let middle = low + (high - low) / 2;
            let first = tokenizer.piece(self.tokens.get(middle)).first();
            if first.is_some_and(|&first| u16::from(first) < byte) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The tokens that no grammar allows: control tokens, the end of text, tokens without bytes.
    pub(super) fn others(&self) -> impl Iterator<Item = TokenId> {
        (self.shared.len()..self.tokens.len()).map(|idx| self.tokens.get(idx))
    }

    /// Whether `token` stands for text.
    pub(super) fn is_text(&self, tokenizer: &Tokenizer<'_>, token: TokenId) -> bool {
        !tokenizer.piece(token).is_empty() && self.others().all(|other| other != token)
    }

    /// Bytes of the shortest text; each may take a token of its own.
    pub fn shortest_text_bytes(&self) -> usize {
        self.distance(0).into()
    }

    /// How many states the automaton has.
    pub fn n_states(&self) -> usize {
        self.distances.len()
    }
}

/// Why bytes are not a grammar for a vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GrammarError {
    /// The bytes do not start with the magic.
    NotAGrammar,
    /// Another version of the layout.
    Version {
        /// The section's version.
        found: u32,
    },
    /// A count is out of range.
    Header,
    /// The section ends early.
    Truncated,
    /// The section does not lie at a multiple of 4 in memory.
    Misaligned,
    /// The section goes on after its last table.
    TrailingBytes,
    /// It was made for another vocabulary.
    OtherVocabulary {
        /// Tokens that it was made for.
        n_tokens: usize,
        /// Tokens that there are.
        vocab_size: usize,
    },
    /// A token that the vocabulary does not have.
    Token,
    /// A call leads nowhere.
    Call,
    /// A state's edges lead nowhere, are out of order, or do not keep what its distance promises.
    State {
        /// The state.
        state: u16,
    },
}

impl GrammarError {
    /// What is wrong, without figures.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAGrammar => "it does not start with its magic bytes",
            Self::Version { .. } => "it has another version: compile the model and its grammar again",
            Self::Header => "a count in its header is out of range",
            Self::Truncated => "it ends early",
            Self::Misaligned => "it does not lie at a multiple of 4 in memory",
            Self::TrailingBytes => "bytes follow its last table",
            Self::OtherVocabulary { .. } => "it was made for another vocabulary: compile it with this model",
            Self::Token => "it names a token that the vocabulary does not have",
            Self::Call => "a call leads nowhere",
            Self::State { .. } => "the edges of a state are damaged",
        }
    }
}

impl fmt::Display for GrammarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())?;
        match *self {
            Self::Version { found } => write!(f, " ({found}, not {})", layout::VERSION),
            Self::OtherVocabulary { n_tokens, vocab_size } => write!(f, " ({n_tokens} tokens, not {vocab_size})"),
            Self::State { state } => write!(f, " (state {state})"),
            _ => Ok(()),
        }
    }
}

impl core::error::Error for GrammarError {}
