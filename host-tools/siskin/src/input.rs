//! Opening what the user names. Whatever is wrong with it is exit code 3, and is told with the path.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use anyhow::anyhow;
use siskin_compiler::artifact::{Checkpoint, LoadOptions, TrainedModel, hf, load_model, load_tokenizer};
use siskin_compiler::model::Family;
use siskin_compiler::pack::PackedFile;
use siskin_compiler::tokenizer::{CompiledTokenizer, CorpusEncoder, TokenizerDef};
use siskin_runtime::format::MAGIC;
use siskin_runtime::tokenizer::{EncodeOptions, Specials, Tokenizer};
use siskin_runtime::{PackedModel, TokenId};

use crate::failure::{Failure, OrFail as _};

/// A packed `.siskin`.
pub(crate) fn open_packed(path: &Path) -> Result<PackedFile, Failure> {
    check_exists(path)?;
    PackedFile::open(path).or_invalid_input(|| "open the packed model".to_owned())
}

/// A model that is not packed yet; `tokenizer` is a file that replaces its own.
pub(crate) fn load_checkpoint(path: &Path, tokenizer: Option<&Path>) -> Result<Checkpoint, Failure> {
    check_exists(path)?;
    tokenizer.map(check_exists).transpose()?;
    let options = LoadOptions { tokenizer: tokenizer.map(Path::to_owned) };
    load_model(path, &options).or_invalid_input(|| "load the model".to_owned())
}

/// A model that is not packed yet.
pub(crate) enum Unpacked {
    /// A decoder of the Llama family, from any file that we read.
    Llama(Box<Checkpoint>),
    /// A model of another family, or with another head.
    Trained(Box<TrainedModel>),
}

/// As [`load_checkpoint`], of every family.
pub(crate) fn load_unpacked(path: &Path, tokenizer: Option<&Path>) -> Result<Unpacked, Failure> {
    check_exists(path)?;
    let is_other = path.join("config.json").is_file()
        && hf::load_architecture(path).is_ok_and(|(architecture, ..)| architecture.family != Family::Llama);
    if !is_other {
        return load_checkpoint(path, tokenizer).map(|checkpoint| Unpacked::Llama(Box::new(checkpoint)));
    }
    let doing = || "load the model".to_owned();
    let mut model = hf::load_trained(path).or_invalid_input(doing)?;
    if let Some(tokenizer) = tokenizer {
        check_exists(tokenizer)?;
        model.tokenizer = load_tokenizer(tokenizer).or_invalid_input(doing)?;
    }
    Ok(Unpacked::Trained(Box::new(model)))
}

/// Whether the path is a file that starts as a packed model does.
pub(crate) fn is_packed(path: &Path) -> bool {
    let mut start = [0; MAGIC.len()];
    path.is_file() && File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == MAGIC
}

/// The text of a file, which must be UTF-8.
pub(crate) fn read_text(path: &Path) -> Result<String, Failure> {
    check_exists(path)?;
    let doing = || format!("read the text {}", path.display());
    if path.is_dir() {
        return Err(Failure::invalid_input(doing(), anyhow!("it is a folder, and a file is wanted")));
    }
    String::from_utf8(fs::read(path).or_invalid_input(doing)?).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let cause = anyhow!("it is not UTF-8 text from byte {at} on; convert it first, for example with iconv");
        Failure::invalid_input(doing(), cause)
    })
}

/// The model's tokenizer, which compile puts into every packed file of a model that has one.
pub(crate) fn packed_tokenizer<'m>(model: &PackedModel<'m>) -> Result<Tokenizer<'m>, Failure> {
    model.tokenizer().ok_or_else(|| {
        let cause = anyhow!("the file has none; compile the model again with --tokenizer FILE");
        Failure::invalid_input("read the model's tokenizer", cause)
    })
}

/// The tokenizer that came with a model, compiled.
pub(crate) fn compiled_tokenizer(checkpoint: &Checkpoint) -> anyhow::Result<CompiledTokenizer> {
    let tokenizer = TokenizerDef::of_checkpoint(checkpoint)?;
    Ok(tokenizer.ok_or_else(no_tokenizer)?.compile()?)
}

/// What is said of a model without a tokenizer.
pub(crate) fn no_tokenizer() -> anyhow::Error {
    anyhow!("it brings no tokenizer; give one with --tokenizer FILE")
}

/// The tokens of a text from outside: what looks like a special token is spelled out.
pub(crate) fn encode_text(tokenizer: Tokenizer<'_>, text: &str) -> Vec<TokenId> {
    let options = EncodeOptions { add_bos: tokenizer.add_bos(), specials: Specials::Nowhere };
    CorpusEncoder::new(tokenizer).encode_with(text, options)
}

/// Says that nothing is there before a library calls it something that it cannot read.
fn check_exists(path: &Path) -> Result<(), Failure> {
    fs::metadata(path).map(drop).or_invalid_input(|| format!("find {}", path.display()))
}
