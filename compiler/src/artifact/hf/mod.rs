//! Hugging Face folders of Llama models: `config.json`, `model.safetensors`, `tokenizer.json` and their company.
//!
//! A checkpoint folder of this project is such a folder, so there is one reader and one writer.

mod config;
mod read;
mod weights;
mod write;

pub use read::{HfFiles, from_files, load_folder};
pub use write::{save_folder, write_files};
