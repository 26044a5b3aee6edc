//! What is trained on: texts and records read from files, examples, and where they come from.

mod documents;
mod error;
mod example;
mod records;
mod shuffle;
mod source;
mod text;

pub use documents::{
    Document, DocumentFields, DocumentReading, Origin, Separation, data_files, has_records, read_documents,
};
pub use error::DataError;
pub use example::{Example, IGNORED};
pub use records::{Record, read_records};
pub use shuffle::Shuffle;
pub use source::ExampleSource;
pub(crate) use source::example_rng;
pub use text::{evaluation_windows, read_text, split_text};
