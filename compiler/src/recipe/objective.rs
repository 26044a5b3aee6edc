//! `[objective]`: what the model learns to say.

use crate::model::{Family, Head, Kind};
use crate::objective::sft::SftSection;
use crate::objective::{ClassificationFields, MaskedSection, Seq2seqFields, SpanSection, TokenClassificationFields};
use serde::{Deserialize, Serialize};

/// `[objective]`: its kind, and the settings of that kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ObjectiveSection {
    /// Each token from those before it.
    Causal(NoSettings),
    /// As causal, after a prefix of random length that is read in both directions.
    Prefix(NoSettings),
    /// Hidden tokens from those on both sides.
    Masked(MaskedSection),
    /// Pieces that were cut out, by a decoder.
    SpanCorruption(SpanSection),
    /// A record's target from its source.
    Seq2seq(Seq2seqFields),
    /// A record's label.
    Classification(ClassificationFields),
    /// A tag for each word of a record.
    TokenClassification(TokenClassificationFields),
    /// A prompt's completion, what the assistant says in a conversation, or a text.
    Sft(SftSection),
}

/// The settings of a kind that has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

impl Default for ObjectiveSection {
    fn default() -> Self {
        Self::Causal(NoSettings {})
    }
}

impl ObjectiveSection {
    /// Whether it is the default, which older recipes do not name.
    pub fn is_causal(&self) -> bool {
        matches!(self, Self::Causal(_))
    }

    /// Its name in recipes and messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Causal(_) => "causal",
            Self::Prefix(_) => "prefix",
            Self::Masked(_) => "masked",
            Self::SpanCorruption(_) => "span_corruption",
            Self::Seq2seq(_) => "seq2seq",
            Self::Classification(_) => "classification",
            Self::TokenClassification(_) => "token_classification",
            Self::Sft(_) => "sft",
        }
    }

    /// Whether it is made of records rather than of a text.
    pub fn takes_records(&self) -> bool {
        matches!(self, Self::Seq2seq(_) | Self::Classification(_) | Self::TokenClassification(_) | Self::Sft(_))
    }

    /// What stands on top of the model.
    pub fn head(&self, n_labels: usize) -> Head {
        match self {
            Self::Masked(_) => Head::MaskedLanguage,
            Self::Classification(_) => Head::Classifier { n_labels },
            Self::TokenClassification(_) => Head::TokenClassifier { n_labels },
            _ => Head::Language,
        }
    }

    /// What families it is for, if not for this one.
    pub(super) fn unsuited(&self, family: Family) -> Option<&'static str> {
        let suits = match self {
            Self::Causal(_) => family.kind() == Kind::DecoderOnly,
            Self::Prefix(_) => family.kind() == Kind::DecoderOnly && !family.is_recurrent(),
            Self::Masked(_) => family.kind() == Kind::EncoderOnly,
            Self::SpanCorruption(_) => family.kind() == Kind::EncoderDecoder,
            Self::Seq2seq(_) | Self::Sft(_) => family.kind() != Kind::EncoderOnly,
            Self::Classification(_) | Self::TokenClassification(_) => {
                family.kind() != Kind::EncoderDecoder && !family.is_recurrent()
            }
        };
        (!suits).then_some(match self {
            Self::Causal(_) => "llama, gpt2 or gru",
            Self::Prefix(_) => "llama or gpt2",
            Self::Masked(_) => "bert or albert",
            Self::SpanCorruption(_) => "t5, transformer or gru_seq2seq",
            Self::Seq2seq(_) | Self::Sft(_) => "an encoder-decoder or a decoder",
            Self::Classification(_) | Self::TokenClassification(_) => "bert, albert, llama or gpt2",
        })
    }

    /// The first setting that is outside its limits: its key, value and limits.
    pub(super) fn out_of_range(&self) -> Option<(&'static str, f64, &'static str)> {
        let open = |value: f64| value > 0.0 && value < 1.0;
        let closed = |value: f64| (0.0..=1.0).contains(&value);
        let between = "between 0 and 1";
        let checks = match self {
            Self::Masked(masked) => vec![
                ("objective.share", masked.share, open(masked.share), "above 0 and below 1"),
                ("objective.mask_share", masked.mask_share, closed(masked.mask_share), between),
                ("objective.random_share", masked.random_share, closed(masked.random_share), between),
                (
                    "objective.mask_share plus objective.random_share",
                    masked.mask_share + masked.random_share,
                    masked.mask_share + masked.random_share <= 1.0 + 1e-9,
                    "at most 1",
                ),
            ],
            Self::SpanCorruption(span) => vec![
                (
                    "objective.noise_density",
                    span.noise_density,
                    open(span.noise_density) && span.noise_density <= 0.5,
                    "above 0 and at most 0.5",
                ),
                (
                    "objective.mean_span_length",
                    span.mean_span_length,
                    span.mean_span_length >= 1.0 && span.mean_span_length.is_finite(),
                    "at least 1",
                ),
            ],
            Self::Sft(sft) => {
                let mixing = sft.mixing().unwrap_or_default();
                let (share, weight) = (mixing.few_shot_share, sft.task.iter().map(|task| task.weight));
                let weights = weight.map(|w| ("objective.task.weight", w, w > 0.0 && w.is_finite(), "above 0"));
                let count = |key, n: usize| (key, n as f64, n > 0, "at least 1");
                let mut checks: Vec<_> = weights.collect();
                checks.push(count("objective.mixing.max_examples", mixing.max_examples));
                checks.push(count("objective.mixing.max_rate", mixing.max_rate));
                checks.push(("objective.mixing.few_shot_share", share, closed(share), between));
                checks
            }
            _ => Vec::new(),
        };
        checks.into_iter().find(|(.., holds, _)| !holds).map(|(key, value, _, limits)| (key, value, limits))
    }
}
