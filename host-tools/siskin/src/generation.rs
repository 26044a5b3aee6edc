//! The flags that say how text is generated, shared by `run` and `board run`.

use anyhow::anyhow;
use siskin_runtime::format::SectionKind;
use siskin_runtime::sampler::{EncodedBias, LogitBias, Sampling, SamplingError, StopMatcher};
use siskin_runtime::tokenizer::{EncodeOptions, Specials, Tokenizer};
use siskin_runtime::{End, PackedModel, Snapshot, TokenId};

use crate::encoding::input_tokens;
use crate::failure::{Failure, OrFail as _};
use crate::input;

/// The temperature where none is given and `--greedy` is not.
const DEFAULT_TEMPERATURE: f32 = 0.8;

/// Mirostat's rate where none is given.
const DEFAULT_MIROSTAT_ETA: f32 = 0.1;

/// How a prompt is continued.
#[derive(clap::Args)]
pub(crate) struct GenerationArgs {
    /// The text to continue, or with --chat the message to answer; for an encoder-decoder the text to write from, for an encoder the
    /// text to read.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) prompt: String,
    /// Put the prompt into the model's chat template.
    #[arg(long)]
    pub(crate) chat: bool,
    /// Begin at the start, and not after the prefix that the model was compiled with.
    #[arg(long)]
    no_prefix: bool,
    /// Stop after N tokens.
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub(crate) max_new_tokens: usize,
    /// Always take the most probable token.
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "typical_p", "top_p", "min_p", "mirostat_tau"])]
    greedy: bool,
    /// Divide the logits by T before the draw: 1 is the model's own distribution, 0 is greedy [default: 0.8].
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Draw from the K most probable tokens.
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,
    /// Draw from the fewest most typical tokens whose probabilities reach P, above 0 and at most 1.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    typical_p: Option<f32>,
    /// Draw from the fewest tokens whose probabilities reach P, above 0 and at most 1.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Draw from tokens at least M times as probable as the best, between 0 and 1.
    #[arg(long, value_name = "M", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Make the last 64 tokens less likely: 1 changes nothing, 1.1 is usual.
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    repetition_penalty: Option<f32>,
    /// Take F off the logit of each of the last 64 tokens for each time that it occurred.
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// Take P off the logit of each of the last 64 tokens, once.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
    /// Mirostat 2: keep the mean surprise of the tokens at T bits.
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    mirostat_tau: Option<f32>,
    /// How fast mirostat follows [default: 0.1].
    #[arg(long, value_name = "E", allow_negative_numbers = true, requires = "mirostat_tau")]
    mirostat_eta: Option<f32>,
    /// Add B to the logit of a token, an id or its text; may be given several times.
    #[arg(long = "logit-bias", value_name = "TOKEN=B", allow_hyphen_values = true)]
    logit_biases: Vec<String>,
    /// Never draw a token, an id or its text; may be given several times.
    #[arg(long = "ban", value_name = "TOKEN", allow_hyphen_values = true)]
    bans: Vec<String>,
    /// End the text before TEXT; may be given several times.
    #[arg(long = "stop", value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) stops: Vec<String>,
    /// Where the random numbers start; the same seed gives the same text.
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(crate) seed: u64,
}

impl GenerationArgs {
    /// The checked sampling parameters.
    pub(crate) fn sampling(&self) -> Result<Sampling, Failure> {
        self.checked_sampling().map_err(Failure::command_line)
    }

    fn checked_sampling(&self) -> Result<Sampling, SamplingError> {
        let mut sampling = match self.greedy {
            true => Sampling::greedy(),
            false => Sampling::random(self.temperature.unwrap_or(DEFAULT_TEMPERATURE))?,
        };
        if let Some(top_k) = self.top_k {
            sampling = sampling.with_top_k(top_k)?;
        }
        if let Some(tau) = self.mirostat_tau {
            sampling = sampling.with_mirostat(tau, self.mirostat_eta.unwrap_or(DEFAULT_MIROSTAT_ETA))?;
        }
        let neutral = sampling;
        sampling
            .with_typical_p(self.typical_p.unwrap_or(neutral.typical_p()))?
            .with_top_p(self.top_p.unwrap_or(neutral.top_p()))?
            .with_min_p(self.min_p.unwrap_or(neutral.min_p()))?
            .with_repetition_penalty(self.repetition_penalty.unwrap_or(neutral.repetition_penalty()))?
            .with_frequency_penalty(self.frequency_penalty.unwrap_or(neutral.frequency_penalty()))?
            .with_presence_penalty(self.presence_penalty.unwrap_or(neutral.presence_penalty()))
    }

    /// Whether there are biases or bans, which name tokens.
    pub(crate) fn has_biases(&self) -> bool {
        !self.logit_biases.is_empty() || !self.bans.is_empty()
    }

    /// The biases and bans, for the tokens of `model`.
    pub(crate) fn biases(&self, model: &PackedModel<'_>) -> Result<Vec<EncodedBias>, Failure> {
        let mut biases = Vec::new();
        for text in &self.logit_biases {
            let parted = text.rsplit_once('=').and_then(|(token, bias)| Some((token, bias.parse::<f32>().ok()?)));
            let Some((token, bias)) = parted.filter(|(_, bias)| bias.is_finite()) else {
                return Err(Failure::command_line(anyhow!("--logit-bias takes a token, = and a number, not {text:?}")));
            };
            biases.extend(tokens_named(token, model)?.into_iter().map(|token| LogitBias { token, bias }.encode()));
        }
        for text in &self.bans {
            biases.extend(tokens_named(text, model)?.into_iter().map(|token| LogitBias::ban(token).encode()));
        }
        Ok(biases)
    }

    /// The stop sequences, checked to be ones that a [`StopMatcher`] takes.
    pub(crate) fn stops(&self) -> Result<Vec<&str>, Failure> {
        let stops: Vec<&str> = self.stops.iter().map(String::as_str).collect();
        StopMatcher::new(&stops).map_err(Failure::command_line)?;
        Ok(stops)
    }

    /// Where the text begins: after the model's prefix, where it has one. A chat does where its first tokens are those of the prefix, which
    /// are then left out.
    pub(crate) fn beginning(&self, model: &PackedModel<'_>, tokenizer: &Tokenizer<'_>) -> Result<Beginning, Failure> {
        let section = model.section(SectionKind::Prefix).filter(|_| !self.no_prefix);
        let prefix = section.map(|section| Snapshot::parse(section, model)).transpose();
        let prefix = prefix.map_err(|error| Failure::invalid_input("use the model's prefix", error))?;
        match prefix {
            Some(_) if !self.chat => {
                let options = EncodeOptions { add_bos: false, specials: Specials::Everywhere };
                Ok(Beginning { prompt: encode(tokenizer, &self.prompt, options)?, after_prefix: true })
            }
            Some(prefix) => {
                let mut prompt = self.prompt_tokens(model, tokenizer)?;
                let after_prefix = prompt.len() > prefix.n_tokens()
                    && prefix.tokens().eq(prompt.iter().copied().take(prefix.n_tokens()));
                if after_prefix {
                    prompt.drain(..prefix.n_tokens());
                }
                Ok(Beginning { prompt, after_prefix })
            }
            None => Ok(Beginning { prompt: self.prompt_tokens(model, tokenizer)?, after_prefix: false }),
        }
    }

    /// The tokens of the prompt, in the model's chat template where that was asked for.
    ///
    /// In a chat the message cannot forge turns: what looks like a special token in it is spelled out.
    fn prompt_tokens(&self, model: &PackedModel<'_>, tokenizer: &Tokenizer<'_>) -> Result<Vec<TokenId>, Failure> {
        if !self.chat {
            return input_tokens(model, tokenizer, &self.prompt);
        }
        let chat = model.chat().ok_or_else(|| {
            let cause = anyhow!("it has none, so it is no chat model; leave --chat out");
            Failure::invalid_input("read the model's chat template", cause)
        })?;
        let mut buffer = vec![0; chat.max_bytes(self.prompt.len())];
        let turns = chat.first(&self.prompt, &mut buffer).or_failed(|| "put the prompt into its turns".to_owned())?;
        encode(tokenizer, turns.text, turns.options)
    }
}

/// What is read before the first token is drawn.
pub(crate) struct Beginning {
    /// The tokens that are yet to be read.
    pub(crate) prompt: Vec<TokenId>,
    /// Whether the model's prefix goes before them.
    pub(crate) after_prefix: bool,
}

/// The token with this id, or every token with exactly this text.
fn tokens_named(name: &str, model: &PackedModel<'_>) -> Result<Vec<TokenId>, Failure> {
    let vocab_size = model.config().vocab_size;
    if let Ok(id) = name.parse::<TokenId>() {
        if id as usize >= vocab_size {
            return Err(Failure::command_line(anyhow!("there is no token {id} in a vocabulary of {vocab_size}")));
        }
        return Ok(vec![id]);
    }
    let tokenizer = input::packed_tokenizer(model)?;
    let is_named = |&id: &TokenId| !name.is_empty() && tokenizer.piece(id) == name.as_bytes();
    let tokens: Vec<TokenId> = (0..tokenizer.vocab_size() as TokenId).filter(is_named).collect();
    if tokens.is_empty() {
        let cause = anyhow!("no token's text is {name:?}; `siskin tokenize` shows the tokens of a text and their ids");
        return Err(Failure::command_line(cause));
    }
    Ok(tokens)
}

fn encode(tokenizer: &Tokenizer<'_>, text: &str, options: EncodeOptions) -> Result<Vec<TokenId>, Failure> {
    let mut tokens = vec![0; tokenizer.max_tokens(text.len())];
    let n_tokens = tokenizer.encode_with(text, &mut tokens, options);
    tokens.truncate(n_tokens.or_invalid_input(|| "encode the prompt".to_owned())?);
    Ok(tokens)
}

/// The name of an end in replies.
pub(crate) fn end_name(end: Option<End>) -> &'static str {
    match end {
        Some(End::MaxNewTokens) | None => "max_new_tokens",
        Some(End::EndToken(_)) => "end_token",
        Some(End::Stop(_)) => "stop",
        Some(End::ContextFull) => "context_full",
        Some(End::Complete) => "complete",
        Some(End::Stuck) => "stuck",
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        generation: GenerationArgs,
    }

    fn sampling(flags: &str) -> Result<Sampling, Failure> {
        let line = ["siskin", "--prompt", "x"].into_iter().chain(flags.split_whitespace());
        Line::parse_from(line).generation.sampling()
    }

    #[test]
    fn flags_become_sampling() {
        assert_eq!(sampling("--greedy").unwrap(), Sampling::greedy());
        assert_eq!(sampling("").unwrap(), Sampling::random(DEFAULT_TEMPERATURE).unwrap());
        let all = Sampling::random(0.5).unwrap().with_top_k(3).unwrap().with_top_p(0.9).unwrap();
        let all = all.with_min_p(0.1).unwrap().with_repetition_penalty(1.2).unwrap().with_typical_p(0.8).unwrap();
        let all = all.with_frequency_penalty(0.3).unwrap().with_presence_penalty(-0.4).unwrap();
        let flags = "--temperature 0.5 --top-k 3 --top-p 0.9 --min-p 0.1 --repetition-penalty 1.2 --typical-p 0.8 \
                     --frequency-penalty 0.3 --presence-penalty -0.4";
        assert_eq!(sampling(flags).unwrap(), all);
        let mirostat = all.with_mirostat(5.0, 0.1).unwrap();
        assert_eq!(sampling(&format!("{flags} --mirostat-tau 5")).unwrap(), mirostat);
        let mirostat = all.with_mirostat(5.0, 0.5).unwrap();
        assert_eq!(sampling(&format!("{flags} --mirostat-tau 5 --mirostat-eta 0.5")).unwrap(), mirostat);
        let bad_flags = [
            "--temperature nan",
            "--top-k 0",
            "--top-p 0",
            "--min-p 2",
            "--repetition-penalty 0",
            "--typical-p 0",
            "--frequency-penalty inf",
            "--presence-penalty nan",
            "--mirostat-tau -1",
            "--mirostat-tau 5 --mirostat-eta 0",
        ];
        for bad in bad_flags {
            let failure = sampling(bad).unwrap_err();
            assert_eq!(failure.exit_code(), crate::failure::Status::CommandLine, "{bad}");
        }
    }

    #[test]
    fn greedy_excludes_the_flags_of_random() {
        for flag in
            ["--temperature=1", "--top-k=2", "--typical-p=0.5", "--top-p=0.5", "--min-p=0.5", "--mirostat-tau=5"]
        {
            assert!(Line::try_parse_from(["siskin", "--prompt", "x", "--greedy", flag]).is_err(), "{flag}");
        }
    }
}
