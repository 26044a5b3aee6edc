//! `siskin eval --text`: bits per byte and perplexity of a text, float and packed side by side.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use serde::Serialize;
use siskin_compiler::artifact::Checkpoint;
use siskin_compiler::eval::{EncodedText, EvalError, Evaluation, LogitsSource, PackedLogits, compare, evaluate};
use siskin_compiler::pack::{AlignedBytes, PackedFile};
use siskin_compiler::reference::ReferenceModel;
use siskin_compiler::threads::{TeamJoin, with_threads};
use siskin_runtime::{ArenaError, Join as _, Kernels, TokenId};

use crate::console::Console;
use crate::failure::{Failure, OrFail as _};
use crate::{input, packing};

/// How a text is measured.
#[derive(clap::Args)]
pub(super) struct TextArgs {
    /// A second model on the same text, such as the one that a packed file was made from.
    #[arg(long, value_name = "MODEL", requires = "text")]
    against: Option<PathBuf>,
    /// Tokens of a window; windows do not overlap [default: the context of the model, or the shorter of two].
    #[arg(long, value_name = "N", requires = "text")]
    window: Option<usize>,
    /// The tokenizer of a model that brings none.
    #[arg(long, value_name = "FILE", requires = "text")]
    tokenizer: Option<PathBuf>,
    /// Threads; any number gives the same figures [default: as many as the machine has].
    #[arg(long, value_name = "N", requires = "text")]
    threads: Option<NonZeroUsize>,
}

#[derive(Serialize)]
struct Reply {
    #[serde(flatten)]
    score: Score,
    window_len: usize,
    /// The second model's.
    #[serde(skip_serializing_if = "Option::is_none")]
    against: Option<Score>,
    #[serde(flatten)]
    difference: Option<Difference>,
}

/// One model's figures.
#[derive(Serialize)]
struct Score {
    model: String,
    /// `float` or `packed`.
    arithmetic: &'static str,
    bits_per_byte: f64,
    perplexity: f64,
    n_tokens: usize,
    n_bytes: usize,
}

/// How far the first model is from the second; both have the same tokens.
#[derive(Serialize)]
struct Difference {
    perplexity_increase: f64,
    mean_kl_nats: f64,
    same_top_share: f64,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<6} {:>13} {:>12} {:>9}  model", "", "bits per byte", "perplexity", "tokens")?;
        for score in std::iter::once(&self.score).chain(&self.against) {
            let Score { model, arithmetic, bits_per_byte, perplexity, n_tokens, .. } = score;
            write!(f, "\n{arithmetic:<6} {bits_per_byte:>13.4} {perplexity:>12.4} {n_tokens:>9}  {model}")?;
        }
        let Some(Difference { perplexity_increase, mean_kl_nats, same_top_share }) = &self.difference else {
            return Ok(());
        };
        write!(f, "\nperplexity {:+.3}%, ", 100.0 * perplexity_increase)?;
        write!(f, "KL divergence {mean_kl_nats:.5} nats, same top token {:.2}%", 100.0 * same_top_share)
    }
}

/// A model to measure.
struct Subject {
    path: PathBuf,
    model: Model,
}

enum Model {
    Float(Box<Checkpoint>),
    Packed(PackedFile),
}

impl Subject {
    fn open(path: &Path, tokenizer: Option<&Path>) -> Result<Self, Failure> {
        let model = match input::is_packed(path) {
            true => Model::Packed(packing::laid_out_for(Kernels::detect(), input::open_packed(path)?)?),
            false => Model::Float(Box::new(input::load_checkpoint(path, tokenizer)?)),
        };
        Ok(Self { path: path.to_owned(), model })
    }

    fn context_len(&self) -> usize {
        match &self.model {
            Model::Float(checkpoint) => checkpoint.config.context_len,
            Model::Packed(file) => file.model().config().context_len,
        }
    }

    fn encode(&self, text: &str) -> Result<Vec<TokenId>, Failure> {
        match &self.model {
            Model::Float(checkpoint) => {
                let tokenizer = input::compiled_tokenizer(checkpoint);
                let tokenizer =
                    tokenizer.or_invalid_input(|| format!("read the tokenizer of {}", self.path.display()))?;
                Ok(input::encode_text(tokenizer.view(), text))
            }
            Model::Packed(file) => Ok(input::encode_text(input::packed_tokenizer(&file.model())?, text)),
        }
    }

    /// What gives the model's predictions; a packed model works in `arena`.
    fn source<'s>(
        &'s self,
        arena: &'s mut AlignedBytes,
        join: TeamJoin,
    ) -> Result<Box<dyn LogitsSource + 's>, ArenaError> {
        match &self.model {
            Model::Float(checkpoint) => Ok(Box::new(ReferenceModel::new(checkpoint))),
            Model::Packed(file) => {
                let model = file.model();
                *arena = AlignedBytes::zeroed(model.memory_plan().arena_bytes_for(join.n_threads()));
                Ok(Box::new(PackedLogits::new(&model, arena, Kernels::detect(), join)?))
            }
        }
    }

    fn score(&self, evaluation: &Evaluation) -> Score {
        Score {
            model: self.path.display().to_string(),
            arithmetic: match self.model {
                Model::Float(_) => "float",
                Model::Packed(_) => "packed",
            },
            bits_per_byte: evaluation.bits_per_byte(),
            perplexity: evaluation.perplexity(),
            n_tokens: evaluation.n_tokens,
            n_bytes: evaluation.n_bytes,
        }
    }
}

pub(super) fn run(model: &Path, text: &Path, args: &TextArgs, console: &Console) -> Result<(), Failure> {
    let text = input::read_text(text)?;
    let open = |path: &Path| Subject::open(path, args.tokenizer.as_deref());
    let (subject, against) = (open(model)?, args.against.as_deref().map(open).transpose()?);
    let contexts = std::iter::once(&subject).chain(&against).map(Subject::context_len);
    let window_len = args.window.or(contexts.min()).unwrap_or_default();
    let n_threads = args.threads.or(available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);
    let measured = with_threads(n_threads, |join| match &against {
        None => {
            let tokens = subject.encode(&text)?;
            let evaluation = measure(&subject, &tokens, text.len(), window_len, join, console)?;
            Ok(Reply { score: subject.score(&evaluation), window_len, against: None, difference: None })
        }
        Some(against) => measure_both(&subject, against, &text, window_len, join, console),
    });
    console.reply(&measured.or_failed(|| "start the threads".to_owned())??)
}

fn measure(
    subject: &Subject,
    tokens: &[TokenId],
    n_bytes: usize,
    window_len: usize,
    join: TeamJoin,
    console: &Console,
) -> Result<Evaluation, Failure> {
    let doing = || format!("evaluate {}", subject.path.display());
    let mut arena = AlignedBytes::zeroed(0);
    let mut source = subject.source(&mut arena, join).or_failed(doing)?;
    let bar = console.progress_bar(tokens.len().saturating_sub(1), "tokens");
    let mut progress = |n_done: usize| bar.set_position(n_done as u64);
    let evaluation = evaluate(source.as_mut(), EncodedText { tokens, n_bytes }, window_len, &mut progress);
    bar.finish_and_clear();
    evaluation.or_invalid_input(doing)
}

/// Position by position where both models have the same tokens, else one after the other.
fn measure_both(
    subject: &Subject,
    against: &Subject,
    text: &str,
    window_len: usize,
    join: TeamJoin,
    console: &Console,
) -> Result<Reply, Failure> {
    let (tokens, tokens_against) = (subject.encode(text)?, against.encode(text)?);
    let measure = |subject, tokens: &[TokenId]| measure(subject, tokens, text.len(), window_len, join.clone(), console);
    if tokens != tokens_against {
        let (first, second) = (measure(subject, &tokens)?, measure(against, &tokens_against)?);
        let (score, against) = (subject.score(&first), Some(against.score(&second)));
        return Ok(Reply { score, window_len, against, difference: None });
    }
    let doing = || format!("evaluate {} against {}", subject.path.display(), against.path.display());
    let (mut arena, mut arena_against) = (AlignedBytes::zeroed(0), AlignedBytes::zeroed(0));
    let mut source = subject.source(&mut arena, join.clone()).or_failed(doing)?;
    let mut reference = against.source(&mut arena_against, join).or_failed(doing)?;
    let bar = console.progress_bar(tokens.len().saturating_sub(1), "tokens");
    let mut progress = |n_done: usize| bar.set_position(n_done as u64);
    let encoded = EncodedText { tokens: &tokens, n_bytes: text.len() };
    let comparison = compare(reference.as_mut(), source.as_mut(), encoded, window_len, &mut progress);
    bar.finish_and_clear();
    let comparison = comparison.map_err(|error: EvalError| Failure::invalid_input(doing(), error))?;
    Ok(Reply {
        score: subject.score(&comparison.other),
        window_len,
        against: Some(against.score(&comparison.reference)),
        difference: Some(Difference {
            perplexity_increase: comparison.perplexity_increase(),
            mean_kl_nats: comparison.mean_kl_nats,
            same_top_share: comparison.same_top_share,
        }),
    })
}
