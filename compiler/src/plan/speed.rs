//! Seconds and energy of a token on a real part: estimates, since emulators count instructions, not cycles.

use serde::{Deserialize, Serialize};

/// What a board's `[speed]` says of its part; each figure with where it is from.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Speed {
    /// The clock that its flash and its current are spoken of at, in hertz.
    pub clock_hz: u64,
    /// Mean cycles of an instruction at that clock, waiting for flash included.
    pub cycles_per_instruction: f64,
    /// Why so many.
    pub cycles_source: String,
    /// What the part draws while its core computes.
    pub power: Option<Power>,
}

/// A part's supply while its core computes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Power {
    /// At the clock of [`Speed`].
    pub milliamperes: f64,
    /// The supply's voltage.
    pub volts: f64,
    /// Where the figures are from.
    pub source: String,
}

/// What a token takes at a clock.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SpeedEstimate {
    /// Always true: nothing here was measured.
    pub estimate: bool,
    /// The clock in hertz.
    pub clock_hz: u64,
    /// Cycles of an instruction that were assumed.
    pub cycles_per_instruction: f64,
    /// Why so many.
    pub cycles_source: String,
    /// Tokens a second, over the whole context.
    pub tokens_per_second: f64,
    /// Seconds until the prompt is read.
    pub prompt_seconds: f64,
    /// Energy of a token, in microjoules; `None` where the part's current is not known.
    pub microjoules_per_token: Option<f64>,
    /// The current that was assumed.
    pub milliamperes: Option<f64>,
    /// Where that is from.
    pub power_source: Option<String>,
}

impl Speed {
    /// What tokens of `mean_token` instructions and a prompt of `prompt` take at `clock_hz`, the part's own where none is named. The current is
    /// taken to grow with the clock.
    pub fn estimate(&self, mean_token: u64, prompt: u64, clock_hz: Option<u64>) -> SpeedEstimate {
        let clock_hz = clock_hz.unwrap_or(self.clock_hz);
        let seconds = |instructions: u64| instructions as f64 * self.cycles_per_instruction / clock_hz as f64;
        let milliamperes = self.power.as_ref().map(|power| power.milliamperes * clock_hz as f64 / self.clock_hz as f64);
        let microjoules = self.power.as_ref().zip(milliamperes).map(|(power, ma)| ma * 1e3 * power.volts);
        SpeedEstimate {
            estimate: true,
            clock_hz,
            cycles_per_instruction: self.cycles_per_instruction,
            cycles_source: self.cycles_source.clone(),
            tokens_per_second: 1.0 / seconds(mean_token.max(1)),
            prompt_seconds: seconds(prompt),
            microjoules_per_token: microjoules.map(|each_second| each_second * seconds(mean_token)),
            milliamperes,
            power_source: self.power.as_ref().map(|power| power.source.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_of_a_million_instructions_takes_its_share_of_a_second() {
        let power = Power { milliamperes: 40.0, volts: 3.0, source: "a data sheet".into() };
        let speed = Speed {
            clock_hz: 100_000_000,
            cycles_per_instruction: 1.25,
            cycles_source: "a manual".into(),
            power: Some(power),
        };
        let at_full = speed.estimate(1_000_000, 4_000_000, None);
        assert!((at_full.tokens_per_second - 80.0).abs() < 1e-9 && (at_full.prompt_seconds - 0.05).abs() < 1e-9);
        // 40 mA at 3 V for 12.5 ms.
        assert!((at_full.microjoules_per_token.unwrap() - 1500.0).abs() < 1e-6);
        let at_half = speed.estimate(1_000_000, 0, Some(50_000_000));
        assert!((at_half.tokens_per_second - 40.0).abs() < 1e-9);
        assert!((at_half.microjoules_per_token.unwrap() - 1500.0).abs() < 1e-6, "half the current, twice the time");
    }
}
