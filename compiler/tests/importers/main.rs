//! Every importer against files of a writer of our own: read right, refused by name when wrong, never a panic.

mod errors;
mod files;
mod llama2c_oracle;
mod mutations;
mod round_trip;
