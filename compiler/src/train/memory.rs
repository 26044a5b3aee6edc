//! How much memory a step needs, and what storing numbers in 16 bits spares of it.

use super::state::State;
use super::step::Stepper;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Bytes that a run holds from step to step; the data and the matrix products' own memory are not among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The parameters.
    pub weights: Share,
    /// The running average of the parameters, where the recipe wants one.
    #[serde(default, skip_serializing_if = "Share::is_none")]
    pub average: Share,
    /// What the optimiser remembers.
    pub optimizer_state: Share,
    /// The gradients of the parameters, of all parts of a batch.
    pub gradients: Share,
    /// Activations and their gradients, of all threads, and what operations widen for themselves.
    pub activations: Share,
}

/// One part of the memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Bytes.
    pub bytes: u64,
    /// Bytes more that it would be in `f32`; 0 if none, as of the activations of a model with one or two layers.
    pub saved_bytes: u64,
}

/// A line of the log about memory, after the first step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryRecord {
    /// Steps done.
    pub step: u64,
    /// What they need.
    pub memory: Memory,
}

impl Share {
    fn new(n_bytes: usize, n_bytes_in_f32: usize) -> Self {
        Self { bytes: n_bytes as u64, saved_bytes: n_bytes_in_f32.saturating_sub(n_bytes) as u64 }
    }

    fn is_none(&self) -> bool {
        self.bytes == 0
    }
}

impl Memory {
    /// What a run needs whose steps `stepper` has done.
    pub(super) fn of(stepper: &Stepper<'_>, state: &State) -> Self {
        let (activations, gradients) = stepper.n_bytes();
        let n_average = state.average.as_ref().map_or(0, |average| average.n_bytes());
        let optimizer = &state.optimizer;
        Self {
            weights: Share::new(state.params.n_bytes(), state.params.layout.len() * size_of::<f32>()),
            average: Share::new(n_average, n_average),
            optimizer_state: Share::new(optimizer.n_state_bytes(), optimizer.n_state_numbers() * size_of::<f32>()),
            gradients: Share::new(gradients, gradients),
            activations: Share::new(activations, stepper.n_bytes_unnarrowed()),
        }
    }

    /// All parts together.
    pub fn total(&self) -> Share {
        let sum = |total: Share, (_, part): (&str, Share)| Share {
            bytes: total.bytes + part.bytes,
            saved_bytes: total.saved_bytes + part.saved_bytes,
        };
        self.parts().into_iter().fold(Share::default(), sum)
    }

    fn parts(&self) -> [(&'static str, Share); 5] {
        [
            ("weights", self.weights),
            ("average", self.average),
            ("optimiser state", self.optimizer_state),
            ("gradients", self.gradients),
            ("activations", self.activations),
        ]
    }
}

/// `12.3 MB`, and what is saved if anything.
impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        write!(f, "{:.1} MB", megabytes(self.bytes))?;
        match self.saved_bytes {
            0 => Ok(()),
            saved => write!(f, " (bf16 saves {:.1} MB)", megabytes(saved)),
        }
    }
}

/// The total, and then each part.
impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.total())?;
        let parts = self.parts().into_iter().filter(|(_, part)| !part.is_none());
        for (idx, (name, part)) in parts.enumerate() {
            write!(f, "{} {name} {part}", if idx == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_told_in_a_line() {
        let memory = Memory {
            weights: Share::new(1_000_000, 2_000_000),
            gradients: Share::new(2_100_000, 2_100_000),
            activations: Share::new(50_000_000, 80_000_000),
            ..Memory::default()
        };
        let want = "53.1 MB (bf16 saves 31.0 MB): weights 1.0 MB (bf16 saves 1.0 MB), gradients 2.1 MB, \
                    activations 50.0 MB (bf16 saves 30.0 MB)";
        assert_eq!(memory.to_string(), want);
    }
}
