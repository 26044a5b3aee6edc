//! Text to token ids and back, without a heap.
//!
//! [`Tokenizer::parse`] checks a tokenizer section (FORMAT.md, "Tokenizer") once; nothing after it can fail for the bytes'
//! sake. Encoding goes in four steps, each a file:
//!
//! 1. special tokens are cut out of the text (`encode`);
//! 2. what lies between is cut into pre-tokens, which merges never cross (`pretoken`, on the classes of `unicode`);
//! 3. a pre-token becomes one token per byte, or per character for SentencePiece (`encode`);
//! 4. neighbours merge in order of rank, in place in the caller's buffer (`merge`).
//!
//! WordPiece goes its own way from step 2 on (`word_piece`).
//!
//! [`TextStream`] turns token bytes back into text as they arrive, holding back an incomplete character.
//! [`ChatPrompt`] wraps a user's message into the turns that a chat model was trained on.
//!
//! Not here: Unicode normalisation but for WordPiece's, Unigram models, training. The compiler refuses tokenizers that need them.

mod chat;
mod encode;
mod error;
mod merge;
mod pretoken;
mod section;
mod stream;
mod unicode;
mod unicode_table;
mod word_piece;

pub use chat::{ChatBufferTooSmall, ChatError, ChatPrompt, ChatText};
pub use encode::{EncodeError, EncodeOptions, Specials, Stretches};
pub use error::TokenizerError;
pub use merge::Merge;
pub use pretoken::{PreTokenizer, PreTokens};
#[cfg(feature = "linked-model")]
pub(crate) use section::Tables;
pub use section::layout;
pub use section::{SpacePrefix, Tokenizer, TokenizerKind};
pub use stream::TextStream;
pub use unicode::CharClass;
