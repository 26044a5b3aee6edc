//! Grammars that generated text keeps to: read from a file, or packed with a model.

use std::path::Path;

use siskin_compiler::grammar::Rules;
use siskin_compiler::pack::AlignedBytes;
use siskin_runtime::format::SectionKind;
use siskin_runtime::grammar::{Grammar, GrammarState};
use siskin_runtime::tokenizer::Tokenizer;
use siskin_runtime::{PackedModel, TokenId};

use crate::failure::{Failure, OrFail as _};
use crate::input;

/// Compiles a grammar for the vocabulary of `model`: a `.json` is a JSON schema, anything else GBNF.
pub(crate) fn compile(path: &Path, model: &PackedModel<'_>) -> Result<AlignedBytes, Failure> {
    let doing = || format!("use the grammar {}", path.display());
    let text = std::fs::read_to_string(path).or_invalid_input(doing)?;
    let rules = match path.extension().is_some_and(|extension| extension == "json") {
        true => Rules::from_json_schema(&text),
        false => Rules::from_gbnf(&text),
    };
    let tokenizer = input::packed_tokenizer(model)?;
    let section = rules.and_then(|rules| rules.compile(&tokenizer)).or_invalid_input(doing)?;
    Ok(AlignedBytes::copy_of(&section))
}

/// The start of a text within the grammar `section`, or else the model's own, if it has one.
pub(crate) fn start<'m>(
    section: Option<&'m [u8]>,
    model: &PackedModel<'m>,
    tokenizer: Tokenizer<'m>,
    end_tokens: &'m [TokenId],
) -> Result<Option<GrammarState<'m>>, Failure> {
    let Some(section) = section.or_else(|| model.section(SectionKind::Grammar)) else { return Ok(None) };
    let grammar = Grammar::parse(section, &tokenizer).or_invalid_input(|| "use the model's grammar".to_owned())?;
    Ok(Some(GrammarState::new(grammar, tokenizer, end_tokens)))
}
