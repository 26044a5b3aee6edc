//! What a model learns to say: examples made of text or of records, by objective.
//!
//! Text becomes a stream of tokens, from which [`Windows`] are drawn, or documents, of which [`PackedRows`] are made: causal, prefix,
//! masked, span corruption. [`Records`] are the lines of a JSONL or CSV file: a source and a target, a text and its label, or a
//! conversation ([`sft`]). All are an
//! [`ExampleSource`](crate::data::ExampleSource).

pub mod baseline;
mod masked;
mod packed;
mod records;
pub mod sft;
mod span_corruption;
mod windows;

pub use masked::{MaskedSection, Masking, WordPieces};
pub use packed::PackedRows;
pub use records::{ClassificationFields, RecordEncoder, Records, Seq2seqFields, TokenClassificationFields};
pub use span_corruption::{SpanCorruption, SpanLengths, SpanSection};
pub use windows::{Frame, Noise, Windows};
