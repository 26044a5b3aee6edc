//! What a recipe's data looks like to a model: counts, and examples token by token.

use super::TrainError;
use super::batches::batches_of;
use super::corpus::Corpus;
use super::texts::DataSummary;
use crate::data::{Example, ExampleSource, IGNORED};
use crate::model::{Head, Kind};
use crate::objective::sft::TaskShare;
use crate::recipe::{ObjectiveSection, Recipe};
use crate::tokenizer::TokenizerDef;
use serde::Serialize;
use siskin_runtime::TokenId;
use std::collections::BTreeMap;

/// Rows that shares are measured on: the first of the run.
const MEASURED_ROWS: u64 = 1000;

/// What a run would train on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DataReport {
    /// The objective.
    pub objective: &'static str,
    /// What became of the documents or records.
    #[serde(flatten)]
    pub summary: DataSummary,
    /// Tokens of the training part.
    pub n_train_tokens: usize,
    /// Bytes of the training part's texts for each of its tokens; absent for records, which have more than a text.
    pub bytes_per_token: Option<f64>,
    /// Documents, or examples made of records, of the training part by their tokens.
    pub lengths: Vec<LengthCount>,
    /// How documents were packed, if they were.
    pub packing: Option<PackingCounts>,
    /// How tasks are mixed, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskShare>,
    /// Targets of the validation part.
    pub n_validation_targets: usize,
    /// What the run's steps make of it.
    #[serde(flatten)]
    pub run: RunShares,
    /// The run's first rows.
    pub rows: Vec<Vec<ShownExample>>,
}

/// How documents were packed into rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PackingCounts {
    /// Rows of a pass over the training part.
    pub n_rows: usize,
    /// Documents that are longer than a row, and therefore in several.
    pub n_cut_documents: usize,
    /// Documents that are too short for the objective, and therefore in none.
    pub n_short_documents: usize,
    /// Share of the rows' positions that are used.
    pub utilisation: f64,
}

/// How many documents are about as long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LengthCount {
    /// Most tokens that one has; the fewest are one more than the most of the line before.
    pub n_tokens_max: usize,
    /// Documents.
    pub n_documents: usize,
}

/// What the steps of a run read and tell, by its first rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RunShares {
    /// Rows of all steps: examples, or several short ones that are run together.
    pub n_rows: u64,
    /// How often that goes through the training part.
    pub passes: f64,
    /// Positions of a row.
    pub row_positions: usize,
    /// Share of the rows' positions that nothing fills. They cost no time here; where rows have to be of one length, they would.
    pub padding_share: f64,
    /// Share of the tokens that are read and hidden: by a mask, another token, a sentinel in their place.
    pub masked_share: f64,
    /// Targets for each token that is read.
    pub trained_share: f64,
}

/// An example as people read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownExample {
    /// What the model reads; for a model that continues its input, with what it tells.
    pub reads: Vec<ShownToken>,
    /// What a decoder tells, or a label; empty for the others.
    pub tells: Vec<ShownToken>,
}

/// A token, and what it is there for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownToken {
    /// Its text.
    pub text: String,
    /// What it is there for.
    pub role: TokenRole,
    /// What is to be said of it, if that is not the token itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// What a token is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenRole {
    /// It is read and no more.
    Read,
    /// It is a target.
    Trained,
    /// It is hidden, or stands for what is.
    Masked,
}

/// Prepares the data as a run of `recipe` would, and tells what it is; the first `n_rows` rows are shown.
///
/// # Errors
/// [`TrainError`], the one that the run would end with.
pub fn inspect(recipe: &Recipe, n_rows: u64) -> Result<DataReport, TrainError> {
    let corpus = Corpus::prepare(&recipe.for_examples())?;
    let source = &*corpus.source;
    let (seed, n_run_rows) = (recipe.train.seed, run_rows(recipe));
    let lens = source.document_lens();
    let n_train_tokens = source.n_train_tokens();
    let bytes_per_token = (!recipe.objective.takes_records() && n_train_tokens > 0)
        .then(|| corpus.summary.n_train_bytes as f64 / n_train_tokens as f64);
    let view = View { recipe, tokenizer: &corpus.tokenizer, labels: &corpus.labels };
    let rows = (0..n_rows.min(n_run_rows)).map(|idx| source.examples(seed, idx));
    Ok(DataReport {
        objective: recipe.objective.name(),
        summary: corpus.summary,
        n_train_tokens,
        bytes_per_token,
        lengths: histogram(&lens),
        packing: source.packing().map(|packing| PackingCounts {
            n_rows: packing.rows().len(),
            n_cut_documents: packing.n_cut(),
            n_short_documents: packing.n_short(),
            utilisation: packing.utilisation(),
        }),
        tasks: corpus.tasks.clone(),
        n_validation_targets: source.validation().iter().map(Example::n_targets).sum(),
        run: view.shares(source, n_run_rows),
        rows: rows.map(|row| row.iter().map(|example| view.example(example)).collect()).collect(),
    })
}

/// Rows of all steps.
fn run_rows(recipe: &Recipe) -> u64 {
    batches_of(&recipe.train, recipe.train.steps).start * recipe.train.batch_size as u64
}

/// Counts by length up to 1, 2, 4, 8 and so on.
fn histogram(lens: &[usize]) -> Vec<LengthCount> {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    lens.iter().for_each(|len| *counts.entry(len.next_power_of_two()).or_default() += 1);
    let (Some(first), Some(last)) = (counts.keys().next().copied(), counts.keys().next_back().copied()) else {
        return Vec::new();
    };
    let bounds = std::iter::successors(Some(first), |bound| bound.checked_mul(2)).take_while(|bound| *bound <= last);
    bounds
        .map(|n_tokens_max| LengthCount { n_tokens_max, n_documents: counts.get(&n_tokens_max).copied().unwrap_or(0) })
        .collect()
}

/// What is needed to read an example.
struct View<'a> {
    recipe: &'a Recipe,
    tokenizer: &'a TokenizerDef,
    labels: &'a [String],
}

impl View<'_> {
    fn shares(&self, source: &dyn ExampleSource, n_rows: u64) -> RunShares {
        let (mut n_filled, mut n_read, mut n_masked, mut n_targets) = (0, 0, 0, 0);
        let n_measured = n_rows.min(MEASURED_ROWS);
        for idx in 0..n_measured {
            for example in source.examples(self.recipe.train.seed, idx) {
                n_filled += example.n_positions();
                n_read += example.n_tokens();
                n_targets += example.n_targets();
                let shown = self.example(&example).reads;
                n_masked += shown.iter().filter(|token| token.role == TokenRole::Masked).count();
            }
        }
        let share = |n: usize, of: usize| n as f64 / of.max(1) as f64;
        RunShares {
            n_rows,
            passes: source.passes(n_rows),
            row_positions: source.capacity(),
            padding_share: 1.0 - share(n_filled, source.capacity() * n_measured as usize),
            masked_share: share(n_masked, n_read),
            trained_share: share(n_targets, n_read),
        }
    }

    fn example(&self, example: &Example) -> ShownExample {
        let family = self.recipe.model.architecture;
        match (self.recipe.objective.head(self.labels.len()), family.kind()) {
            (Head::MaskedLanguage, _) => ShownExample { reads: self.hidden(example), tells: Vec::new() },
            (Head::Classifier { .. }, _) => {
                let tells = example.targets.iter().map(|label| trained(self.label(*label))).collect();
                ShownExample { reads: self.read(&example.inputs), tells }
            }
            (Head::TokenClassifier { .. }, _) => ShownExample { reads: self.tagged(example), tells: Vec::new() },
            (_, Kind::EncoderDecoder) => {
                let tells = example.targets.iter().filter(|target| **target != IGNORED);
                let tells = tells.map(|target| trained(self.piece(*target))).collect();
                ShownExample { reads: self.read(&example.inputs), tells }
            }
            _ => ShownExample { reads: self.continued(example), tells: Vec::new() },
        }
    }

    /// Tokens that are only read, but for sentinels, which stand for what was cut out.
    fn read(&self, tokens: &[TokenId]) -> Vec<ShownToken> {
        let is_cut = matches!(self.recipe.objective, ObjectiveSection::SpanCorruption(_));
        let shown = |token: &TokenId| {
            let text = self.piece(*token);
            let role = if is_cut && text.starts_with("<extra_id_") { TokenRole::Masked } else { TokenRole::Read };
            ShownToken { text, role, target: None }
        };
        tokens.iter().map(shown).collect()
    }

    /// Inputs, of which each is told by the position before it, and the last target.
    fn continued(&self, example: &Example) -> Vec<ShownToken> {
        let mut shown = self.read(&example.inputs);
        for (i, target) in example.targets.iter().enumerate().filter(|(_, target)| **target != IGNORED) {
            match shown.get_mut(i + 1) {
                Some(token) => token.role = TokenRole::Trained,
                None => shown.push(trained(self.piece(*target))),
            }
        }
        shown
    }

    /// Inputs, some of which hide their targets. A target that stands in its place is trained, but not hidden.
    fn hidden(&self, example: &Example) -> Vec<ShownToken> {
        let mut shown = self.read(&example.inputs);
        for ((token, input), target) in shown.iter_mut().zip(&example.inputs).zip(&example.targets) {
            if *target != IGNORED {
                token.role = if input == target { TokenRole::Trained } else { TokenRole::Masked };
                token.target = (input != target).then(|| self.piece(*target));
            }
        }
        shown
    }

    fn tagged(&self, example: &Example) -> Vec<ShownToken> {
        let mut shown = self.read(&example.inputs);
        for (token, target) in shown.iter_mut().zip(&example.targets).filter(|(_, target)| **target != IGNORED) {
            (token.role, token.target) = (TokenRole::Trained, Some(self.label(*target)));
        }
        shown
    }

    fn piece(&self, token: TokenId) -> String {
        self.tokenizer
            .pieces
            .get(token as usize)
            .map_or_else(String::new, |piece| String::from_utf8_lossy(piece).into_owned())
    }

    fn label(&self, label: TokenId) -> String {
        self.labels.get(label as usize).cloned().unwrap_or_default()
    }
}

fn trained(text: String) -> ShownToken {
    ShownToken { text, role: TokenRole::Trained, target: None }
}
