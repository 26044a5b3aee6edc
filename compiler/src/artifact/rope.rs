//! Rotary position tables: computed here in `f64`, so that no target ever evaluates a sine.

use siskin_runtime::ModelConfig;

/// How a model stretches its rotary frequencies beyond the plain `theta^(-2i/head_dim)`.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// The plain frequencies.
    #[default]
    None,
    /// Every position is divided by `factor`.
    Linear {
        /// At least 1.
        factor: f32,
    },
    /// Llama 3.1's rule: long wavelengths are divided by `factor`, short ones kept, those between blended.
    Llama3 {
        /// Divides the lowest frequencies.
        factor: f32,
        /// Wavelengths above `original_context_len / low_freq_factor` count as long.
        low_freq_factor: f32,
        /// Wavelengths below `original_context_len / high_freq_factor` count as short.
        high_freq_factor: f32,
        /// Context that the model was first trained with.
        original_context_len: usize,
    },
    /// One divisor a frequency, `(head_dim / 2,)`: what a GGUF's `rope_freqs` tensor holds.
    Divisors(Vec<f32>),
}

/// Cosine and sine of every position and frequency, each `(context_len, head_dim / 2)` row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeTables {
    /// Cosines.
    pub cos: Vec<f32>,
    /// Sines.
    pub sin: Vec<f32>,
}

impl RopeScaling {
    /// Angle a position step adds, in radians, `(head_dim / 2,)`.
    ///
    /// # Panics
    /// If `Divisors` has another length than `head_dim / 2`; [`super::Checkpoint::validate`] rules that out.
    pub fn frequencies(&self, config: &ModelConfig) -> Vec<f64> {
        let head_dim = config.head_dim as f64;
        let plain = (0..config.head_dim / 2)
            .map(|pair_idx| libm::pow(f64::from(config.rope_theta), -2.0 * pair_idx as f64 / head_dim));
        match self {
            Self::None => plain.collect(),
            Self::Linear { factor } => plain.map(|frequency| frequency / f64::from(*factor)).collect(),
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_context_len } => {
                let (factor, context) = (f64::from(*factor), *original_context_len as f64);
                let (low, high) = (f64::from(*low_freq_factor), f64::from(*high_freq_factor));
                // Turns that the frequency makes within the original context decide: `low` or fewer are stretched whole.
                let stretch = |frequency: f64| {
                    let turns = context * frequency / (2.0 * core::f64::consts::PI);
                    let keep = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    frequency * (keep + (1.0 - keep) / factor)
                };
                plain.map(stretch).collect()
            }
            Self::Divisors(divisors) => {
                assert_eq!(divisors.len(), config.head_dim / 2, "one divisor a frequency");
                plain.zip(divisors).map(|(frequency, &divisor)| frequency / f64::from(divisor)).collect()
            }
        }
    }

    /// Tables for every position of the context, computed in `f64` and rounded once.
    pub fn tables(&self, config: &ModelConfig) -> RopeTables {
        let frequencies = self.frequencies(config);
        let angles = || (0..config.context_len).flat_map(|pos| frequencies.iter().map(move |f| pos as f64 * f));
        RopeTables {
            cos: angles().map(|angle| libm::cos(angle) as f32).collect(),
            sin: angles().map(|angle| libm::sin(angle) as f32).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ModelConfig {
        ModelConfig {
            dim: 16,
            hidden_dim: 32,
            n_layers: 1,
            n_heads: 2,
            n_kv_heads: 1,
            head_dim: 8,
            vocab_size: 10,
            context_len: 64,
            norm_eps: 1e-5,
            rope_theta: 10000.0,
            tied_head: true,
            parts: siskin_runtime::Parts::LLAMA,
        }
    }

    #[test]
    fn plain_tables_hold_known_angles() {
        let tables = RopeScaling::None.tables(&config());
        assert_eq!(tables.cos.len(), 64 * 4);
        assert_eq!(&tables.cos[..4], &[1.0; 4]);
        // position 3, frequencies 1, 0.1, 0.01, 0.001
        let expected = [3f64.sin(), 0.3f64.sin(), 0.03f64.sin(), 0.003f64.sin()];
        for (got, want) in tables.sin[12..16].iter().zip(expected) {
            assert!((f64::from(*got) - want).abs() < 1e-7);
        }
    }

    /// 128 positions of original context hold 20.4, 2.04, 0.2 and 0.02 turns of the four frequencies.
    #[test]
    fn llama3_keeps_the_high_and_divides_the_low_frequencies() {
        let scaling =
            RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context_len: 128 };
        let frequencies = scaling.frequencies(&config());
        assert_eq!(frequencies[0], 1.0);
        assert_eq!(frequencies[3], 0.001f64 / 8.0);
        let turns = 128.0 * 0.1 / core::f64::consts::TAU;
        let keep = (turns - 1.0) / 3.0;
        assert!((frequencies[1] - (0.1 * keep + 0.1 / 8.0 * (1.0 - keep))).abs() < 1e-12);
        assert!((frequencies[2] - 0.01 / 8.0).abs() < 1e-12);
    }
}
