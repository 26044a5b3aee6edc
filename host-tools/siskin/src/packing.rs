//! The flags that say how a model is packed, shared by `compile` and `plan`.

use std::path::PathBuf;

use clap::ValueEnum;

/// How a model is quantised and cut to size.
#[derive(clap::Args)]
pub(crate) struct PackingArgs {
    /// How weights are stored.
    #[arg(long, value_enum, default_value_t = WeightFormat::Int8G32)]
    pub(crate) weights: WeightFormat,
    /// The longest context, which fixes the size of the KV cache [default: the model's own].
    #[arg(long, value_name = "N")]
    pub(crate) context: Option<usize>,
    /// The tokenizer, where the model brings none: a tokenizer.json or a llama2.c tokenizer.bin.
    #[arg(long, value_name = "FILE")]
    pub(crate) tokenizer: Option<PathBuf>,
}

/// The names of the weight formats.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum WeightFormat {
    /// 8 bits, and a scale for each output row.
    Int8,
    /// 8 bits, and a scale for each 32 weights of a row.
    Int8G32,
}
