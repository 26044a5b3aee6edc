//! What is trained on: texts and records read from files, examples, and where they come from.

mod bad_records;
mod documents;
mod duplicates;
mod error;
mod example;
mod mixed;
mod pack;
mod records;
mod shards;
mod shuffle;
mod source;
mod split;
mod text;
mod tokens;

pub use bad_records::BadRecords;
pub use documents::{
    Document, DocumentFields, DocumentReading, DocumentStream, Origin, Separation, data_files, has_records,
    read_documents,
};
pub use duplicates::{Deduplication, Duplicate, DuplicateCounts, Duplicates, NEAR_DUPLICATE_SHARE, SeenDocuments};
pub use error::DataError;
pub use example::{Example, IGNORED};
pub use mixed::ReplayedSource;
pub use pack::{Cutting, Packing, Piece};
pub use records::{Record, read_good_records, read_records};
pub use shards::{ShardOptions, TokenShards, write_shards};
pub use shuffle::Shuffle;
pub use source::ExampleSource;
pub(crate) use source::example_rng;
pub use split::DocumentSplit;
pub use text::{evaluation_windows, read_text, split_text};
pub use tokens::TokenStore;
