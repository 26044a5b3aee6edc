//! What a model learns to say: examples made of text or of records, by objective.
//!
//! Text becomes a stream of tokens, from which [`Windows`] are drawn: causal, prefix, masked, span corruption. [`Records`] are
//! the lines of a JSONL or CSV file: a source and a target, or a text and its label. Both are an
//! [`ExampleSource`](crate::data::ExampleSource).

pub mod baseline;
mod masked;
mod records;
mod span_corruption;
mod windows;

pub use masked::{MaskedSection, Masking, WordPieces};
pub use records::{ClassificationFields, RecordEncoder, Records, Seq2seqFields, TokenClassificationFields};
pub use span_corruption::{SpanCorruption, SpanLengths, SpanSection};
pub use windows::{Noise, Windows};
