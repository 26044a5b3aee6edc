//! What an encoder finds in a text, from the host's runtime or a board's records to the reply: shared by `run` and `board run`.

use std::fmt;

use anyhow::anyhow;
use serde::Serialize;
use siskin_compiler::tokenizer::decode;
use siskin_runtime::encoder::Finding;
use siskin_runtime::parts::{Head, Kind};
use siskin_runtime::tokenizer::Tokenizer;
use siskin_runtime::{PackedModel, TokenId};

use crate::failure::{Failure, OrFail as _};

/// A [`Finding`] that owns its numbers; a label's logits come by themselves.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Found {
    Vector(Vec<f32>),
    Label(usize),
    Scores(Vec<f32>),
    Tag(usize, usize),
    Fill(usize, TokenId),
}

impl Found {
    /// Keeps a finding.
    pub(crate) fn keep(finding: Finding<'_>, all: &mut Vec<Self>) {
        match finding {
            Finding::Vector(vector) => all.push(Self::Vector(vector.to_vec())),
            Finding::Label { label, scores } => all.extend([Self::Label(label), Self::Scores(scores.to_vec())]),
            Finding::Tag { token_idx, label } => all.push(Self::Tag(token_idx, label)),
            Finding::Fill { token_idx, token } => all.push(Self::Fill(token_idx, token)),
        }
    }

    /// What a board's record says; `None` for other records.
    pub(crate) fn from_record(keyword: &str, value: &str) -> Option<Self> {
        let pair = || value.split_once(' ').and_then(|(a, b)| Some((a.parse().ok()?, b.parse::<u32>().ok()?)));
        let numbers = || value.split(' ').map(|bits| u32::from_str_radix(bits, 16).map(f32::from_bits)).collect();
        match keyword {
            "vector" => Result::<_, std::num::ParseIntError>::ok(numbers()).map(Self::Vector),
            "scores" => Result::<_, std::num::ParseIntError>::ok(numbers()).map(Self::Scores),
            "label" => value.parse().ok().map(Self::Label),
            "tag" => pair().map(|(token_idx, label)| Self::Tag(token_idx, label as usize)),
            "fill" => pair().map(|(token_idx, token)| Self::Fill(token_idx, token)),
            _ => None,
        }
    }
}

/// What an encoder found, as scripts see it: the keys of the model's head alone.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(crate) struct Findings {
    #[serde(skip_serializing_if = "Option::is_none")]
    vector: Option<Vec<f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scores: Option<Vec<Score>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Vec<Tag>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filled: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fills: Option<Vec<Fill>>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Score {
    label: String,
    probability: f64,
}

#[derive(Debug, PartialEq, Serialize)]
struct Tag {
    text: String,
    label: String,
}

#[derive(Debug, PartialEq, Serialize)]
struct Fill {
    token_idx: usize,
    token: TokenId,
    text: String,
}

impl Findings {
    /// Names what was found in the text of `tokens`.
    pub(crate) fn new(model: &PackedModel<'_>, tokenizer: &Tokenizer<'_>, tokens: &[TokenId], found: &[Found]) -> Self {
        let label_name = |label: usize| model.label(label).map_or_else(|| format!("LABEL_{label}"), str::to_owned);
        let text_of = |token: TokenId| String::from_utf8_lossy(tokenizer.piece(token)).into_owned();
        let head = model.config().parts.head;
        let mut findings = Self::default();
        let (mut tags, mut fills, mut filled) = (Vec::new(), Vec::new(), tokens.to_vec());
        for found in found {
            match found {
                Found::Vector(vector) => findings.vector = Some(vector.clone()),
                Found::Label(label) => findings.label = Some(label_name(*label)),
                Found::Scores(logits) => {
                    let named = probabilities(logits).into_iter().enumerate();
                    let score = |(label, probability)| Score { label: label_name(label), probability };
                    findings.scores = Some(named.map(score).collect());
                }
                Found::Tag(token_idx, label) => {
                    let text = tokens.get(*token_idx).map_or_else(String::new, |&token| text_of(token));
                    tags.push(Tag { text, label: label_name(*label) });
                }
                &Found::Fill(token_idx, token) => {
                    filled.get_mut(token_idx).into_iter().for_each(|slot| *slot = token);
                    fills.push(Fill { token_idx, token, text: text_of(token) });
                }
            }
        }
        match head {
            Head::TokenClassifier => findings.tags = Some(tags),
            Head::MaskedLanguage => {
                findings.filled = Some(decode(tokenizer, &filled));
                findings.fills = Some(fills);
            }
            _ => {}
        }
        findings
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(vector) = &self.vector {
            let numbers: Vec<String> = vector.iter().map(f32::to_string).collect();
            write!(f, "{}", numbers.join(" "))?;
        }
        if let (Some(label), Some(scores)) = (&self.label, &self.scores) {
            write!(f, "{label}")?;
            scores.iter().try_for_each(|Score { label, probability }| write!(f, "\n  {probability:.4} {label}"))?;
        }
        for (i, Tag { text, label }) in self.tags.iter().flatten().enumerate() {
            write!(f, "{}{label}\t{text}", if i > 0 { "\n" } else { "" })?;
        }
        self.filled.iter().try_for_each(|text| f.write_str(text))
    }
}

/// The softmax of some logits.
fn probabilities(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|&logit| f64::from(logit - most).exp()).collect();
    let total: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / total).collect()
}

/// The tokens that an encoder reads for a text: those that the device makes of it as well.
///
/// # Errors
/// A masked-language model whose text holds no mask; the encoder's own limits are checked when it reads.
pub(crate) fn input_tokens(
    model: &PackedModel<'_>,
    tokenizer: &Tokenizer<'_>,
    text: &str,
) -> Result<Vec<TokenId>, Failure> {
    let mut tokens = vec![0; tokenizer.max_tokens(text.len())];
    let n_tokens = model.encode_input(tokenizer, text, &mut tokens);
    tokens.truncate(n_tokens.or_invalid_input(|| "encode the prompt".to_owned())?);
    let parts = model.config().parts;
    let is_filled_in = parts.kind == Kind::Encoder && parts.head == Head::MaskedLanguage;
    let has_mask = parts.mask_token.is_some_and(|mask| tokens.contains(&mask));
    if is_filled_in && !has_mask {
        let mask = parts.mask_token.map_or("<mask>".into(), |mask| String::from_utf8_lossy(tokenizer.piece(mask)));
        let cause = anyhow!("it holds no {mask}, which this model fills in; write it where a token is wanted");
        return Err(Failure::invalid_input("read the prompt", cause));
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_findings() {
        let found =
            |record: &str| record.split_once(' ').and_then(|(keyword, value)| Found::from_record(keyword, value));
        assert_eq!(found("label 2"), Some(Found::Label(2)));
        assert_eq!(found("scores 3f800000 c0000000"), Some(Found::Scores(vec![1.0, -2.0])));
        assert_eq!(found("vector 00000000"), Some(Found::Vector(vec![0.0])));
        assert_eq!((found("tag 3 1"), found("fill 4 77")), (Some(Found::Tag(3, 1)), Some(Found::Fill(4, 77))));
        for other in ["token 5", "label x", "vector 3f80000g", "tag 3"] {
            assert_eq!(found(other), None, "{other}");
        }
    }

    #[test]
    fn probabilities_sum_to_one_and_keep_the_order() {
        let p = probabilities(&[1.0, 3.0, 2.0]);
        assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12 && p[1] > p[2] && p[2] > p[0]);
    }
}
