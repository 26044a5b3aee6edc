//! What a model is known to say, recorded where it was packed (runtime/FORMAT.md, "Golden section").

use core::fmt;

use siskin_runtime::encoder::Finding;
use siskin_runtime::format::SectionKind;
use siskin_runtime::parts::Kind;
use siskin_runtime::{ArenaError, Encoder, Kernels, LogitsHash, PackedModel, Session, StepError, TokenId};

/// First four bytes of the section.
pub const MAGIC: [u8; 4] = *b"SGLD";
/// Layout version that this crate reads.
pub const VERSION: u32 = 1;
/// Answers that `siskin compile` records, at most.
pub const ANSWERS_MAX: usize = 16;

/// A prompt, what the model answers, and the hash of the logits that say so.
///
/// Answers are the most probable tokens after the prompt, one after the other. Those of an encoder alone are what it finds in the prompt: the
/// label, the tokens' labels, or what fills the masks; a vector is in the hash only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Golden<'m> {
    prompt: &'m [TokenId],
    answers: &'m [u32],
    hash: LogitsHash,
}

/// How a device's answers differ from the golden ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GoldenError {
    /// The file has no golden section.
    Missing,
    /// Its golden section is damaged, or of another version.
    Unreadable,
    /// The arena is not what the model needs.
    Arena(ArenaError),
    /// The model refuses the prompt.
    Step(StepError),
    /// Another answer than the golden one.
    Answer {
        /// Its place among the answers: of a text, the number of tokens generated before it.
        place: usize,
        /// The golden answer.
        expected: u32,
        /// The device's.
        found: u32,
    },
    /// The answers are those, but the logits have other bits.
    Logits,
}

impl GoldenError {
    /// In words, without figures.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "the file has no golden answers: compile the model with --self-test TEXT",
            Self::Unreadable => "the golden section is damaged, or of another version",
            Self::Arena(_) => "the arena is not what the model needs",
            Self::Step(_) => "the golden prompt is refused",
            Self::Answer { .. } => "the model gives another answer than the golden one",
            Self::Logits => "the logits have other bits than the golden ones",
        }
    }
}

impl fmt::Display for GoldenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())?;
        match self {
            Self::Arena(error) => write!(f, ": {error}"),
            Self::Step(error) => write!(f, ": {error}"),
            Self::Answer { place, expected, found } => write!(f, ": at place {place} {found}, not {expected}"),
            Self::Missing | Self::Unreadable | Self::Logits => Ok(()),
        }
    }
}

impl core::error::Error for GoldenError {}

impl From<ArenaError> for GoldenError {
    fn from(error: ArenaError) -> Self {
        Self::Arena(error)
    }
}

impl From<StepError> for GoldenError {
    fn from(error: StepError) -> Self {
        Self::Step(error)
    }
}

impl<'m> Golden<'m> {
    /// The golden section of a model's file.
    ///
    /// # Errors
    /// [`GoldenError::Missing`]; [`GoldenError::Unreadable`].
    pub fn of(model: &PackedModel<'m>) -> Result<Self, GoldenError> {
        Self::parse(model.section(SectionKind::Golden).ok_or(GoldenError::Missing)?)
    }

    /// Reads a golden section, which lies at a multiple of 4 as in every file.
    ///
    /// # Errors
    /// [`GoldenError::Unreadable`].
    pub fn parse(section: &'m [u8]) -> Result<Self, GoldenError> {
        let words = section.get(MAGIC.len()..).and_then(|words| bytemuck::try_cast_slice(words).ok());
        let (true, Some(&[version, n_prompt, n_answers, low, high, ref words @ ..])) =
            (section.starts_with(&MAGIC), words)
        else {
            return Err(GoldenError::Unreadable);
        };
        match words.split_at_checked(n_prompt as usize) {
            Some((prompt, answers)) if version == VERSION && answers.len() == n_answers as usize => {
                Ok(Self { prompt, answers, hash: LogitsHash(u64::from(high) << 32 | u64::from(low)) })
            }
            _ => Err(GoldenError::Unreadable),
        }
    }

    /// The tokens of the prompt.
    pub fn prompt(&self) -> &'m [TokenId] {
        self.prompt
    }

    /// The answers.
    pub fn answers(&self) -> &'m [u32] {
        self.answers
    }

    /// Lets the model answer the prompt in `arena`, and compares.
    ///
    /// # Errors
    /// The first [`GoldenError`].
    pub fn check(&self, model: &PackedModel<'_>, kernels: Kernels, arena: &mut [u8]) -> Result<(), GoldenError> {
        let mut expected = self.answers.iter().copied().enumerate();
        let hash =
            answer(model, kernels, arena, self.prompt, self.answers.len(), &mut |found| match expected.next() {
                Some((place, expected)) if expected != found => Err(GoldenError::Answer { place, expected, found }),
                _ => Ok(()),
            })?;
        if hash == self.hash && expected.next().is_none() { Ok(()) } else { Err(GoldenError::Logits) }
    }
}

/// Writes a golden section: what the model answers to `prompt`, as many answers as `room` holds and the context has positions for.
///
/// # Errors
/// [`GoldenError::Arena`] and [`GoldenError::Step`]; nothing was written.
pub fn record(
    model: &PackedModel<'_>,
    kernels: Kernels,
    arena: &mut [u8],
    prompt: &[TokenId],
    room: &mut [u32],
    mut write: impl FnMut(&[u8]),
) -> Result<(), GoldenError> {
    let config = model.config();
    let n_read = if config.parts().has_source() { 1 } else { prompt.len() };
    // The last token that is drawn need not be read again.
    let most = room.len().min((config.context_len + 1).saturating_sub(n_read));
    let mut n_answers = 0;
    let hash = answer(model, kernels, arena, prompt, most, &mut |found| {
        if let Some(place) = room.get_mut(n_answers) {
            *place = found;
            n_answers += 1;
        }
        Ok(())
    })?;
    write(&MAGIC);
    [VERSION, prompt.len() as u32, n_answers as u32].iter().for_each(|word| write(&word.to_le_bytes()));
    write(&hash.0.to_le_bytes());
    prompt.iter().chain(room.iter().take(n_answers)).for_each(|word| write(&word.to_le_bytes()));
    Ok(())
}

/// What takes answers, one after the other; an error ends them.
type Take<'t> = &'t mut dyn FnMut(u32) -> Result<(), GoldenError>;

/// Gives `take` what the model answers, of a text the first `most` tokens; gives the hash of all logits.
fn answer(
    model: &PackedModel<'_>,
    kernels: Kernels,
    arena: &mut [u8],
    prompt: &[TokenId],
    most: usize,
    take: Take<'_>,
) -> Result<LogitsHash, GoldenError> {
    match model.config().parts().kind {
        Kind::Encoder => find(model, kernels, arena, prompt, take),
        Kind::Decoder | Kind::EncoderDecoder => write(model, kernels, arena, prompt, most, take),
    }
}

#[inline(never)]
fn write(
    model: &PackedModel<'_>,
    kernels: Kernels,
    arena: &mut [u8],
    prompt: &[TokenId],
    most: usize,
    take: Take<'_>,
) -> Result<LogitsHash, GoldenError> {
    let mut session = Session::new(model, arena, kernels)?;
    let start = model.config().parts().start_token;
    let first = match &start {
        None => prompt,
        // The model writes from the prompt.
        Some(start) => {
            session.read_source(prompt)?;
            core::slice::from_ref(start)
        }
    };
    let mut hash = LogitsHash::EMPTY;
    let mut logits = session.prefill(first)?;
    for n_left in (0..most).rev() {
        hash.add(logits);
        let token = most_probable(logits);
        take(token)?;
        if n_left > 0 {
            logits = session.decode_step(token)?;
        }
    }
    Ok(hash)
}

/// The token with the greatest logit, the first of equals.
fn most_probable(logits: &[f32]) -> TokenId {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, &logit) in (0..).zip(logits) {
        if logit > best.1 {
            best = (token, logit);
        }
    }
    best.0
}

#[inline(never)]
fn find(
    model: &PackedModel<'_>,
    kernels: Kernels,
    arena: &mut [u8],
    prompt: &[TokenId],
    take: Take<'_>,
) -> Result<LogitsHash, GoldenError> {
    let mut encoder = Encoder::new(model, arena, kernels)?;
    encoder.read(prompt)?;
    let mut outcome = Ok(());
    let hash = encoder.findings(prompt, |finding| {
        let found = match finding {
            Finding::Vector(_) => return,
            Finding::Label { label, .. } | Finding::Tag { label, .. } => label as u32,
            Finding::Fill { token, .. } => token,
        };
        if outcome.is_ok() {
            outcome = take(found);
        }
    });
    outcome.map(|()| hash)
}
