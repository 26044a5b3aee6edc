//! From a prompt to text.

use siskin_runtime::format::SectionKind;
use siskin_runtime::grammar::{Grammar, GrammarState};
use siskin_runtime::sampler::{Constraint, Unconstrained};
use siskin_runtime::{Generation, Limits, Sampler, Sampling, Serial, Session, StopMatcher, TokenId, Tokenizer, Window};

use crate::error::Error;

/// A text in the making: each step is a token, given out as the characters that are certain by then.
pub type Text<'w> = Generation<'w, 'static>;
/// A text in the making that keeps to the model's grammar.
pub type ConstrainedText<'w> = Generation<'w, 'static, Serial, GrammarState<'w>>;

/// How a text is written.
#[derive(Clone, Copy, Debug)]
pub struct Options<'w> {
    /// Most tokens to write.
    pub max_new_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Where the random numbers start: the same seed, the same text.
    pub seed: u64,
    /// Texts before which the text ends.
    pub stops: &'w [&'w str],
    /// In a full context, forget all but so many tokens and go on; `None` ends there.
    pub slide_to: Option<Window>,
}

impl Options<'_> {
    /// Always the most probable token, at most `max_new_tokens` of them.
    pub const fn greedy(max_new_tokens: usize) -> Self {
        Self { max_new_tokens, sampling: Sampling::greedy(), seed: 0, stops: &[], slide_to: None }
    }

    /// Tokens drawn as `sampling` says, at most `max_new_tokens` of them.
    pub const fn random(max_new_tokens: usize, sampling: Sampling, seed: u64) -> Self {
        Self { max_new_tokens, sampling, seed, stops: &[], slide_to: None }
    }
}

/// Writes one text after another.
pub struct Writer {
    session: Session<'static>,
    tokenizer: Tokenizer<'static>,
    prompt: &'static mut [TokenId],
    end_token: Option<TokenId>,
}

impl Writer {
    /// A writer in a session of the caller's, whose model has this tokenizer. `prompt` holds the prompts' tokens.
    pub fn new(session: Session<'static>, tokenizer: Tokenizer<'static>, prompt: &'static mut [TokenId]) -> Self {
        Self { session, tokenizer, prompt, end_token: tokenizer.eos() }
    }

    /// Reads `prompt` as the start of a new text.
    ///
    /// # Errors
    /// [`Error::PromptTooLong`], [`Error::Stop`] or [`Error::Step`].
    pub fn begin<'w>(&'w mut self, prompt: &str, options: &Options<'w>) -> Result<Text<'w>, Error> {
        self.session.reset();
        self.go_on(prompt, options)
    }

    /// Reads `prompt` behind all that was read and written before, but for the last token of a text that was cut off.
    ///
    /// # Errors
    /// As [`Writer::begin`].
    pub fn go_on<'w>(&'w mut self, prompt: &str, options: &Options<'w>) -> Result<Text<'w>, Error> {
        self.start(prompt, options, |_| Unconstrained)
    }

    /// Reads `prompt` as the start of a new text, which keeps to the grammar that was packed with the model.
    ///
    /// # Errors
    /// As [`Writer::begin`], [`Error::NoGrammar`] and [`Error::Grammar`].
    pub fn begin_in_grammar<'w>(
        &'w mut self,
        prompt: &str,
        options: &Options<'w>,
    ) -> Result<ConstrainedText<'w>, Error> {
        self.session.reset();
        let section = self.session.model().section(SectionKind::Grammar).ok_or(Error::NoGrammar)?;
        let grammar = Grammar::parse(section, &self.tokenizer)?;
        let tokenizer = self.tokenizer;
        self.start(prompt, options, |end_tokens| GrammarState::new(grammar, tokenizer, end_tokens))
    }

    /// Tokens of `text`, as a prompt.
    ///
    /// # Errors
    /// [`Error::PromptTooLong`].
    pub fn n_tokens(&mut self, text: &str) -> Result<usize, Error> {
        let tokens_max = self.prompt.len();
        let n_tokens = self.session.model().encode_input(&self.tokenizer, text, self.prompt);
        n_tokens.map_err(|_| Error::PromptTooLong { tokens_max })
    }

    /// The session, for who works with tokens.
    pub fn session(&mut self) -> &mut Session<'static> {
        &mut self.session
    }

    fn start<'w, C: Constraint>(
        &'w mut self,
        prompt: &str,
        options: &Options<'w>,
        constraint: impl FnOnce(&'w [TokenId]) -> C,
    ) -> Result<Generation<'w, 'static, Serial, C>, Error> {
        let n_tokens = self.n_tokens(prompt)?;
        let prompt = &self.prompt[..n_tokens];
        let start_token = self.session.model().config().parts().start_token;
        let end_tokens = self.end_token.as_slice();
        let limits = Limits { max_new_tokens: options.max_new_tokens, end_tokens, slide_to: options.slide_to };
        let sampler = Sampler::new(options.sampling, options.seed);
        let stops = StopMatcher::new(options.stops)?;
        let text = Generation::new(&mut self.session, Some(self.tokenizer), sampler, stops, limits);
        let mut text = text.within(constraint(end_tokens));
        match start_token {
            None => text.read(prompt)?,
            // An encoder-decoder writes from the prompt.
            Some(start_token) => {
                text.read_source(prompt)?;
                text.read(&[start_token])?;
            }
        }
        Ok(text)
    }
}
