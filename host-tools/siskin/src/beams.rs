//! Beam search: its flags, shared by `run` and `board run`, and the search on the host.

use std::time::Instant;

use anyhow::anyhow;
use clap::ValueEnum;
use serde::Serialize;
use siskin_compiler::pack::AlignedBytes;
use siskin_runtime::beam::{BEAMS_MAX, BeamOptions, BeamSearch, EarlyStopping, LENGTH_PENALTY_MAX};
use siskin_runtime::format::SectionKind;
use siskin_runtime::parts::Kind;
use siskin_runtime::tokenizer::{TextStream, Tokenizer};
use siskin_runtime::{Join, Kernels, LogitsHash, PackedModel, Session, TokenId};

use crate::adapter::AdapterArgs;
use crate::console::Console;
use crate::failure::{Failure, OrFail as _};
use crate::generation::{Beginning, GenerationArgs};
use crate::input;

/// The flags of [`GenerationArgs`] that say how a token is drawn, or that a search has no use for.
const OF_SAMPLING: [&str; 14] = [
    "temperature",
    "top_k",
    "typical_p",
    "top_p",
    "min_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "mirostat_tau",
    "mirostat_eta",
    "logit_biases",
    "bans",
    "stops",
    "seed",
];

/// How the best of several texts is searched for.
#[derive(clap::Args)]
pub(crate) struct BeamArgs {
    /// Search for the most probable text with N beams, rather than draw token after token.
    #[arg(long, value_name = "N", conflicts_with_all = OF_SAMPLING)]
    pub(crate) beams: Option<usize>,
    /// A text scores the sum of its tokens' log-probabilities, divided by its length to the power of P: above 0 favours long texts.
    #[arg(long, value_name = "P", default_value_t = 1.0, requires = "beams", allow_negative_numbers = true)]
    length_penalty: f32,
    /// When the search stops before the last token.
    #[arg(long, value_enum, default_value_t = Stopping::Likely, requires = "beams")]
    early_stopping: Stopping,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Stopping {
    /// Once no running text, at its present length, scores more than the worst of N that have ended.
    Likely,
    /// As soon as N texts have ended.
    Full,
    /// Once no running text can come to score more.
    Never,
}

impl BeamArgs {
    /// The checked options, where a search was asked for.
    pub(crate) fn options(
        &self,
        generation: &GenerationArgs,
        end_token: Option<TokenId>,
    ) -> Result<Option<BeamOptions>, Failure> {
        let Some(n_beams) = self.beams else { return Ok(None) };
        if n_beams == 0 || n_beams > BEAMS_MAX {
            return Err(Failure::command_line(anyhow!("--beams takes 1 to {BEAMS_MAX} beams, not {n_beams}")));
        }
        let length_penalty = self.length_penalty;
        if !(-LENGTH_PENALTY_MAX..=LENGTH_PENALTY_MAX).contains(&length_penalty) {
            let most = LENGTH_PENALTY_MAX;
            let cause = anyhow!("--length-penalty takes a number between -{most} and {most}, not {length_penalty}");
            return Err(Failure::command_line(cause));
        }
        let early_stopping = match self.early_stopping {
            Stopping::Likely => EarlyStopping::Likely,
            Stopping::Full => EarlyStopping::Full,
            Stopping::Never => EarlyStopping::Never,
        };
        let max_new_tokens = generation.max_new_tokens;
        Ok(Some(BeamOptions { n_beams, length_penalty, early_stopping, end_token, max_new_tokens }))
    }

    /// Refuses a search with what cannot be searched.
    pub(crate) fn check(&self, model: &PackedModel<'_>) -> Result<(), Failure> {
        if self.beams.is_none() {
            return Ok(());
        }
        let cause = match model.config().parts.kind {
            Kind::Encoder => "the model is an encoder, which writes no text: leave --beams out",
            _ if model.section(SectionKind::Grammar).is_some() => {
                "the model's text keeps to its grammar, which a beam search does not: compile it without one"
            }
            _ => return Ok(()),
        };
        Err(Failure::invalid_input("search with beams", anyhow!(cause)))
    }
}

/// The best text.
#[derive(Serialize)]
pub(crate) struct Reply {
    text: String,
    tokens: Vec<TokenId>,
    n_prompt_tokens: usize,
    logits_hash: String,
    /// The sum of the tokens' log-probabilities, divided by their number to the power of the length penalty.
    score: f32,
    /// `max_new_tokens`, `end_token`, `context_full` or `stuck`.
    end: &'static str,
}

/// What a prompt is searched with.
pub(crate) struct Job<'r> {
    pub(crate) generation: &'r GenerationArgs,
    pub(crate) adapter: &'r AdapterArgs,
    /// The adapter in a file of its own, packed for the model.
    pub(crate) received: Option<&'r [u8]>,
    pub(crate) kernels: Kernels,
    pub(crate) options: BeamOptions,
}

impl Job<'_> {
    /// Searches for the best continuation with `model`, which has room for the beams.
    pub(crate) fn run(
        &self,
        model: &PackedModel<'_>,
        join: impl Join + Sync,
        console: &Console,
    ) -> Result<Reply, Failure> {
        let tokenizer = input::packed_tokenizer(model)?;
        let mut arena = AlignedBytes::zeroed(model.memory_plan().arena_bytes_for(join.n_threads()));
        let session = Session::with_join(model, &mut arena, self.kernels, join);
        let mut session = session.or_failed(|| "lay out the arena".to_owned())?;
        self.adapter.start(&mut session, self.received)?;
        let Beginning { prompt, after_prefix } = self.generation.beginning(model, &tokenizer)?;
        let start = model.config().parts.start_token;
        let reading = || "read the prompt".to_owned();
        if start.is_some() {
            session.read_source(&prompt).or_invalid_input(reading)?;
        }
        if let (true, Some(prefix)) = (after_prefix, model.section(SectionKind::Prefix)) {
            session.restore(prefix).or_invalid_input(|| "begin after the prefix".to_owned())?;
        }
        let first = start.as_ref().map_or(&prompt[..], std::slice::from_ref);
        let started = Instant::now();
        let mut search = BeamSearch::start(&mut session, first, self.options).or_invalid_input(reading)?;
        let mut hash = LogitsHash::EMPTY;
        while search.compute(|logits| hash.add(logits)) {
            search.choose();
        }
        let n_steps = search.n_tokens();
        let best = search.finish();
        let text = text_of(&tokenizer, best.tokens, self.options.end_token);
        console.stream(&text)?;
        console.stream("\n")?;
        let steps_per_s = n_steps as f64 / started.elapsed().as_secs_f64().max(1e-9);
        console.note(format_args!(
            "{} prompt tokens, {} new, score {:.4}; {n_steps} steps of {} beams, {steps_per_s:.1} a second; logits {hash}",
            prompt.len(),
            best.tokens.len(),
            best.score,
            self.options.n_beams
        ));
        Ok(Reply {
            text,
            tokens: best.tokens.to_vec(),
            n_prompt_tokens: prompt.len(),
            logits_hash: hash.to_string(),
            score: best.score,
            end: crate::generation::end_name(Some(best.end)),
        })
    }
}

/// The text of `tokens`, without one that ends it.
fn text_of(tokenizer: &Tokenizer<'_>, tokens: &[TokenId], end_token: Option<TokenId>) -> String {
    let (mut stream, mut text) = (TextStream::new(), String::new());
    for &token in tokens.iter().filter(|&&token| Some(token) != end_token && !tokenizer.is_control(token)) {
        stream.push(tokenizer.piece(token), |piece| text.push_str(piece));
    }
    stream.finish(|piece| text.push_str(piece));
    text
}
