//! What a model in training says: text of its own for a causal model, its answers beside the right ones for the others.

use super::tokenize::EOS;
use crate::data::{Example, IGNORED};
use crate::model::{Head, Model};
use crate::recipe::{ObjectiveSection, Recipe};
use crate::tensor::{Params, Tape};
use crate::tokenizer::TokenizerDef;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use siskin_runtime::TokenId;

/// Texts that a causal model writes at an evaluation.
const N_TEXTS: usize = 2;
/// Validation examples whose answers are shown.
const N_ANSWERS: usize = 4;
/// Tokens of the validation text that a causal model goes on from, at most.
const PROMPT_TOKENS: usize = 12;
/// Tokens that it writes, at most.
const NEW_TOKENS_MAX: usize = 72;
/// Divides the logits before one is drawn: greedy choice would show the same phrase again and again.
const TEMPERATURE: f32 = 0.8;
/// Characters of a shown text.
const CHARS_MAX: usize = 400;
/// The validation tokens for each position that generating may compute: showing costs a small share of evaluating.
const VALIDATION_TOKENS_PER_POSITION: usize = 8;

/// A text that the model wrote or an answer that it gave.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// What the model read.
    pub read: String,
    /// What it said.
    pub said: String,
    /// What it should have said; a causal model that goes on from a prompt may say anything.
    pub expected: Option<String>,
    /// Whether all of the answer is right.
    pub is_right: Option<bool>,
}

/// Shows a model in training at work, on the validation examples of its run.
pub(super) struct Shower {
    pieces: Vec<Vec<u8>>,
    labels: Vec<String>,
    is_causal: bool,
    seed: u64,
}

impl Shower {
    /// For the run of a recipe; a tokenizer that cannot be read shows its tokens by number.
    pub fn new(recipe: &Recipe, tokenizer_json: &[u8], labels: &[String]) -> Self {
        let pieces = TokenizerDef::from_hugging_face_bytes(tokenizer_json).map(|definition| definition.pieces);
        Self {
            pieces: pieces.unwrap_or_default(),
            labels: labels.to_vec(),
            is_causal: matches!(recipe.objective, ObjectiveSection::Causal(_)),
            seed: recipe.train.seed,
        }
    }

    /// A few samples; the same for the same parameters and step.
    pub fn samples(&self, model: &dyn Model, params: &Params, examples: &[Example], step: u64) -> Vec<Sample> {
        if !self.is_causal {
            let told = examples.iter().filter(|example| example.n_targets() > 0).take(N_ANSWERS);
            return told.map(|example| self.answer(model, params, example)).collect();
        }
        let n_positions = examples.iter().map(Example::n_tokens).sum::<usize>() / VALIDATION_TOKENS_PER_POSITION;
        let starts = (0..N_TEXTS.min(examples.len())).map(|i| &examples[i * examples.len() / N_TEXTS]);
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(step);
        starts.map(|example| self.go_on(model, params, &example.inputs, n_positions / N_TEXTS, &mut rng)).collect()
    }

    /// Text after the first tokens of `text`, as long as `n_positions` computed positions allow.
    fn go_on(
        &self,
        model: &dyn Model,
        params: &Params,
        text: &[TokenId],
        n_positions: usize,
        rng: &mut ChaCha8Rng,
    ) -> Sample {
        let prompt = &text[..text.len().min(PROMPT_TOKENS)];
        let room = model.architecture().context_len - model.n_virtual_tokens();
        let len_max = (prompt.len() + NEW_TOKENS_MAX).min(room);
        let (mut tokens, mut tape, mut n_computed) = (prompt.to_vec(), Tape::default(), 0);
        while tokens.len() < len_max && n_computed + tokens.len() <= n_positions.max(len_max) {
            n_computed += tokens.len();
            let mut graph = tape.evaluate(params);
            let logits = model.logits(&mut graph, &[Example::causal(&tokens, &[])]);
            let (rows, cols) = graph.shape(logits);
            let token = draw(&graph.value(logits)[(rows - 1) * cols..], rng.random());
            if token == EOS {
                break;
            }
            tokens.push(token);
        }
        let said = self.text(&tokens[prompt.len()..]);
        Sample { read: self.text(prompt), said, expected: None, is_right: None }
    }

    /// The likeliest choice at each target, each given the right ones before it.
    fn answer(&self, model: &dyn Model, params: &Params, example: &Example) -> Sample {
        let mut tape = Tape::default();
        let mut graph = tape.evaluate(params);
        let logits = model.logits(&mut graph, std::slice::from_ref(example));
        let (_, cols) = graph.shape(logits);
        let rows = graph.value(logits).chunks(cols);
        let told = example.targets.iter().zip(rows).filter(|(target, _)| **target != IGNORED);
        let (targets, answers): (Vec<TokenId>, Vec<TokenId>) =
            told.map(|(target, row)| (*target, likeliest(row))).unzip();
        let head = model.architecture().head;
        let words = |ids: &[TokenId]| match head {
            Head::Classifier { .. } | Head::TokenClassifier { .. } => self.label_names(ids),
            // Masked tokens are not neighbours, and do not read as one text.
            Head::MaskedLanguage => shortened(ids.iter().map(|id| self.text(&[*id])).collect::<Vec<_>>().join(" · ")),
            _ => self.text(ids),
        };
        let is_right = Some(targets == answers);
        // A decoder reads its answer behind the question.
        let first_told = example.targets.iter().position(|target| *target != IGNORED).unwrap_or(0);
        let read = match head {
            Head::Language if example.decoder_inputs.is_empty() => &example.inputs[..=first_told],
            _ => &example.inputs,
        };
        Sample { read: self.text(read), said: words(&answers), expected: Some(words(&targets)), is_right }
    }

    fn label_names(&self, ids: &[TokenId]) -> String {
        let name = |id: &TokenId| self.labels.get(*id as usize).map_or("?", String::as_str);
        shortened(ids.iter().map(name).collect::<Vec<_>>().join(" "))
    }

    /// Tokens as text, special ones spelled out.
    fn text(&self, tokens: &[TokenId]) -> String {
        let piece = |token: &TokenId| match self.pieces.get(*token as usize) {
            Some(piece) => piece.clone(),
            None => format!("[{token}]").into_bytes(),
        };
        let bytes: Vec<u8> = tokens.iter().flat_map(piece).collect();
        shortened(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn shortened(text: String) -> String {
    match text.char_indices().nth(CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// The index of the highest logit; the first of equal ones.
fn likeliest(logits: &[f32]) -> TokenId {
    let best = logits.iter().enumerate().reduce(|best, next| if next.1 > best.1 { next } else { best });
    best.map_or(0, |(id, _)| id as TokenId)
}

/// The token at `share`, 0..1, of the distribution at [`TEMPERATURE`].
fn draw(logits: &[f32], share: f32) -> TokenId {
    let top = logits[likeliest(logits) as usize];
    let weight = |logit: &f32| ((logit - top) / TEMPERATURE).exp();
    let mut left = share * logits.iter().map(weight).sum::<f32>();
    for (id, logit) in logits.iter().enumerate() {
        left -= weight(logit);
        if left < 0.0 {
            return id as TokenId;
        }
    }
    likeliest(logits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_weights() {
        let logits = [0.0, 0.8 * 3.0_f32.ln(), -1000.0];
        assert_eq!([0.0, 0.2, 0.3, 0.99].map(|share| draw(&logits, share)), [0, 0, 1, 1]);
        assert_eq!(draw(&logits, 1.0), 1);
        assert_eq!(likeliest(&[1.0, 3.0, 3.0]), 1);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let text = shortened("é".repeat(CHARS_MAX + 5));
        assert_eq!(text.chars().count(), CHARS_MAX + 1);
        assert!(text.ends_with('…'));
        assert_eq!(shortened("short".into()), "short");
    }
}
