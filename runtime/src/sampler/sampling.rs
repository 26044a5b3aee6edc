//! The parameters of sampling, each checked when it is set.

use core::fmt;

/// How the next token is chosen: every value was checked when it was set.
///
/// ```
/// use siskin_runtime::sampler::Sampling;
///
/// let sampling = Sampling::random(0.8)?.with_top_k(40)?.with_top_p(0.95)?;
/// # Ok::<(), siskin_runtime::sampler::SamplingError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    temperature: f32,
    /// 0 keeps every token.
    top_k: u32,
    /// 1 keeps every token.
    typical_p: f32,
    /// 1 keeps every token.
    top_p: f32,
    /// 0 keeps every token.
    min_p: f32,
    /// 1 penalises nothing.
    repetition_penalty: f32,
    /// 0 penalises nothing.
    frequency_penalty: f32,
    /// 0 penalises nothing.
    presence_penalty: f32,
    mirostat: Option<Mirostat>,
}

/// Mirostat 2 (Basu et al. 2021): drops what is too surprising, by a limit that steers towards a mean surprise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mirostat {
    /// The mean surprise to steer for, in bits a token.
    pub tau: f32,
    /// How fast the limit follows.
    pub eta: f32,
}

/// Above this, nothing is too surprising: what is less probable than `2^-40` of the best weighs nothing anyway.
const TAU_MAX: f32 = 100.0;

impl Sampling {
    /// Takes the largest logit, always.
    pub const fn greedy() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            typical_p: 1.0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            mirostat: None,
        }
    }

    /// Draws with logits divided by `temperature`: 1 is the model's own distribution, 0 is greedy.
    pub fn random(temperature: f32) -> Result<Self, SamplingError> {
        if !(temperature.is_finite() && temperature >= 0.0) {
            return Err(SamplingError::Temperature);
        }
        Ok(Self { temperature, ..Self::greedy() })
    }

    /// Keeps the `top_k` largest logits; more than the vocabulary holds keeps all.
    pub fn with_top_k(self, top_k: u32) -> Result<Self, SamplingError> {
        if top_k == 0 {
            return Err(SamplingError::TopK);
        }
        Ok(Self { top_k, ..self })
    }

    /// Keeps the fewest most typical tokens that together reach `typical_p`, in (0, 1]; 1 keeps all.
    pub fn with_typical_p(self, typical_p: f32) -> Result<Self, SamplingError> {
        if !(typical_p > 0.0 && typical_p <= 1.0) {
            return Err(SamplingError::TypicalP);
        }
        Ok(Self { typical_p, ..self })
    }

    /// Keeps the fewest most probable tokens that together reach `top_p`, in (0, 1]; 1 keeps all.
    pub fn with_top_p(self, top_p: f32) -> Result<Self, SamplingError> {
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(SamplingError::TopP);
        }
        Ok(Self { top_p, ..self })
    }

    /// Keeps tokens at least `min_p`, in [0, 1], times as probable as the most probable; 0 keeps all.
    pub fn with_min_p(self, min_p: f32) -> Result<Self, SamplingError> {
        if !(0.0..=1.0).contains(&min_p) {
            return Err(SamplingError::MinP);
        }
        Ok(Self { min_p, ..self })
    }

    /// Makes recent tokens less likely by `penalty`, above 0; 1 changes nothing, below 1 favours them.
    pub fn with_repetition_penalty(self, penalty: f32) -> Result<Self, SamplingError> {
        if !(penalty.is_finite() && penalty > 0.0) {
            return Err(SamplingError::RepetitionPenalty);
        }
        Ok(Self { repetition_penalty: penalty, ..self })
    }

    /// Takes `penalty` off the logit of a recent token for each time that it occurred; below 0 favours it.
    pub fn with_frequency_penalty(self, penalty: f32) -> Result<Self, SamplingError> {
        if !penalty.is_finite() {
            return Err(SamplingError::FrequencyPenalty);
        }
        Ok(Self { frequency_penalty: penalty, ..self })
    }

    /// Takes `penalty` off the logit of every recent token, once; below 0 favours it.
    pub fn with_presence_penalty(self, penalty: f32) -> Result<Self, SamplingError> {
        if !penalty.is_finite() {
            return Err(SamplingError::PresencePenalty);
        }
        Ok(Self { presence_penalty: penalty, ..self })
    }

    /// Steers for a mean surprise of `tau` bits, above 0 and at most 100, at the rate `eta`, above 0 and at most 1.
    pub fn with_mirostat(self, tau: f32, eta: f32) -> Result<Self, SamplingError> {
        if !(tau > 0.0 && tau <= TAU_MAX) {
            return Err(SamplingError::MirostatTau);
        }
        if !(eta > 0.0 && eta <= 1.0) {
            return Err(SamplingError::MirostatEta);
        }
        Ok(Self { mirostat: Some(Mirostat { tau, eta }), ..self })
    }

    /// Whether nothing is left to chance.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// What logits are divided by; 0 is greedy.
    pub fn temperature(&self) -> f32 {
        self.temperature
    }

    /// How many of the largest logits stay; `None` keeps all.
    pub fn top_k(&self) -> Option<u32> {
        (self.top_k != 0).then_some(self.top_k)
    }

    /// The probability that the kept most typical tokens reach together; 1 keeps all.
    pub fn typical_p(&self) -> f32 {
        self.typical_p
    }

    /// The probability that the kept tokens reach together; 1 keeps all.
    pub fn top_p(&self) -> f32 {
        self.top_p
    }

    /// The least probability kept, relative to the largest; 0 keeps all.
    pub fn min_p(&self) -> f32 {
        self.min_p
    }

    /// By how much recent tokens are made less likely; 1 is not at all.
    pub fn repetition_penalty(&self) -> f32 {
        self.repetition_penalty
    }

    /// What each occurrence among the recent tokens costs a logit; 0 is nothing.
    pub fn frequency_penalty(&self) -> f32 {
        self.frequency_penalty
    }

    /// What having occurred among the recent tokens costs a logit; 0 is nothing.
    pub fn presence_penalty(&self) -> f32 {
        self.presence_penalty
    }

    /// The surprise to steer for, if any.
    pub fn mirostat(&self) -> Option<Mirostat> {
        self.mirostat
    }
}

/// A sampling parameter outside its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SamplingError {
    /// The temperature is negative, infinite or not a number.
    Temperature,
    /// Top-k would keep no token.
    TopK,
    /// Typical-p is outside (0, 1].
    TypicalP,
    /// Top-p is outside (0, 1].
    TopP,
    /// Min-p is outside [0, 1].
    MinP,
    /// The repetition penalty is not a positive finite number.
    RepetitionPenalty,
    /// The frequency penalty is not a finite number.
    FrequencyPenalty,
    /// The presence penalty is not a finite number.
    PresencePenalty,
    /// Mirostat's tau is outside (0, 100].
    MirostatTau,
    /// Mirostat's eta is outside (0, 1].
    MirostatEta,
}

impl SamplingError {
    /// What is wrong, and what leaves the parameter out.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Temperature => "temperature must be a finite number of at least 0 (0 is greedy)",
            Self::TopK => "top-k must be at least 1 (leave it out to keep every token)",
            Self::TypicalP => "typical-p must be above 0 and at most 1 (1 keeps every token)",
            Self::TopP => "top-p must be above 0 and at most 1 (1 keeps every token)",
            Self::MinP => "min-p must be between 0 and 1 (0 keeps every token)",
            Self::RepetitionPenalty => "repetition penalty must be a finite number above 0 (1 penalises nothing)",
            Self::FrequencyPenalty => "frequency penalty must be a finite number (0 penalises nothing)",
            Self::PresencePenalty => "presence penalty must be a finite number (0 penalises nothing)",
            Self::MirostatTau => "mirostat's tau must be above 0 and at most 100 bits",
            Self::MirostatEta => "mirostat's eta must be above 0 and at most 1",
        }
    }
}

impl fmt::Display for SamplingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::error::Error for SamplingError {}
