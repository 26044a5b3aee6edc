//! Recipes that go on from a model: what the model is made of is read from its folder.

use super::{ModelSection, RecipeError, TokenizerSection};
use crate::artifact::{TokenizerSource, hf, load_tokenizer};
use crate::tokenizer::TokenizerDef;
use siskin_runtime::TokenId;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// A recipe that names a model to go on from, with what that model is made of in `[model]` and `[tokenizer]`; its path, relative to
/// `base`, is a whole one. `None` for one that names none.
pub(super) fn filled(recipe: &Table, base: &Path) -> Result<Option<Table>, RecipeError> {
    let init_from = recipe.get("model").and_then(|model| model.get("init_from")).and_then(Value::as_str);
    let Some(folder) = init_from.map(|init_from| base.join(init_from)) else { return Ok(None) };
    let mut table = recipe.clone();
    let problem = |problem: String| RecipeError::Checkpoint { path: folder.clone(), problem };
    let (architecture, specials, _) = hf::load_architecture(&folder).map_err(|error| problem(error.to_string()))?;
    let model = ModelSection::of(&architecture)
        .ok_or_else(|| problem("it has parts that a recipe has no words for: it cannot be gone on from".into()))?;
    let tokenizer = load_tokenizer(&folder.join("tokenizer.json")).map_err(|error| problem(error.to_string()))?;
    let TokenizerSource::HuggingFace(json) = tokenizer else {
        return Err(problem("its tokenizer.json is none".into()));
    };
    let tokenizer = TokenizerDef::from_hugging_face_bytes(&json).map_err(|error| problem(error.to_string()))?;
    let name = |id: Option<TokenId>, what: &str| {
        let piece = id.and_then(|id| tokenizer.pieces.get(id as usize));
        let name = piece.map(|piece| String::from_utf8_lossy(piece).into_owned());
        name.ok_or_else(|| problem(format!("its config.json names no token for the {what} of a text")))
    };
    let tokenizer = TokenizerSection {
        vocab_size: architecture.vocab_size,
        bos: name(specials.bos.or(specials.decoder_start), "beginning")?,
        eos: name(specials.eos, "end")?,
    };
    let written = |error: toml::ser::Error| problem(error.to_string());
    merge(&mut table, "model", Table::try_from(model).map_err(written)?, &folder)?;
    merge(&mut table, "tokenizer", Table::try_from(tokenizer).map_err(written)?, &folder)?;
    if let Some(Value::Table(model)) = table.get_mut("model") {
        model.insert("init_from".into(), Value::String(folder.display().to_string()));
    }
    Ok(Some(table))
}

/// Adds the keys of a section that a recipe leaves out; those that it has must be the same.
fn merge(table: &mut Table, section: &str, of_model: Table, folder: &Path) -> Result<(), RecipeError> {
    let section_value = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
    // What is no table is told when the section is read.
    let Value::Table(given) = section_value else { return Ok(()) };
    for (key, value) in of_model {
        match given.get(&key) {
            None => drop(given.insert(key, value)),
            Some(own) if is_same(own, &value) => {}
            Some(own) => {
                let problem = format!("{section}.{key} is {own}, but this model's is {value}: leave it out");
                return Err(RecipeError::Checkpoint { path: PathBuf::from(folder), problem });
            }
        }
    }
    Ok(())
}

/// Whether two values are the same in single precision, which is what a model has.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => (*a as f32) == (*b as f32),
        _ => a == b,
    }
}
