//! Hugging Face folders: `config.json`, `model.safetensors`, `tokenizer.json` and their company.
//!
//! A checkpoint folder of this project is such a folder, so there is one reader and one writer.

mod config;
mod families;
mod peft;
mod read;
mod weights;
mod write;

pub use families::{load_architecture, load_trained, write_trained, write_trained_as};
pub use peft::{SavedAdapter, load_adapter, load_peft, write_peft};
pub use read::{HfFiles, from_files, load_chat_template, load_folder};
pub use write::{save_folder, write_files, write_files_as};
