//! Training a language model as a recipe says.
//!
//! [`run`] is the whole of it: data, tokenizer, first values, steps, evaluations, checkpoints. The result depends on the recipe
//! and the data alone, not on threads or interruptions: examples are drawn by number, sums have a fixed order, and the
//! state that a resumed run reads is all that a step needs.

mod adamw;
pub mod adaptation;
mod batches;
mod best;
mod corpus;
pub mod doctor;
pub mod evaluate;
mod exact;
mod groups;
pub mod history;
pub mod inspect;
pub mod lr_range;
pub mod memory;
mod monitor;
mod muon;
pub mod norm;
pub mod optimizer;
mod outliers;
pub mod progress;
mod record_corpus;
pub mod report;
mod run;
mod run_folder;
pub mod samples;
pub mod schedule;
mod sft_corpus;
mod state;
pub mod step;
pub mod tensorboard;
mod texts;
mod token_folder;
mod tokenize;
pub mod trained_part;

pub use best::BestModel;
pub use monitor::REPORT_FILE;
pub use run::{Options, Outcome, TrainError, run};
pub use texts::DataSummary;
