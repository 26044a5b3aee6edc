//! The log of a run as figures: what the doctor examines and the report draws.
//!
//! Every line that is written is also read back from here on, and a resumed run reads what its log still holds. So the report and
//! the findings of a run do not depend on how often it was interrupted.

use super::doctor::Finding;
use super::evaluate::LengthGroup;
use super::memory::Memory;
use super::samples::Sample;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// All that the log of a run says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Lines about training, by step.
    pub steps: Vec<StepPoint>,
    /// Lines about the validation part, by step.
    pub evaluations: Vec<EvaluationPoint>,
    /// Looks at each matrix's gradient, by step.
    pub looks: Vec<Look>,
    /// What the model said at evaluations, by step.
    pub shows: Vec<Show>,
    /// What the first step needed.
    pub memory: Option<Memory>,
    /// What was found to look wrong, in the order of finding.
    pub findings: Vec<Finding>,
}

/// A line about training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
pub struct StepPoint {
    /// Steps done.
    pub step: u64,
    /// Tokens trained on since step 0.
    #[serde(default)]
    pub n_tokens: u64,
    /// Mean loss over the step's targets, in nats.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    #[serde(default)]
    pub gradient_norm: f64,
    /// Learning rate of the step.
    #[serde(default)]
    pub learning_rate: f64,
    /// Tokens per second since the last line.
    #[serde(default)]
    pub tokens_per_second: f64,
    /// Estimate of the seconds to the end of the run.
    #[serde(default)]
    pub seconds_left: f64,
}

/// A line about the validation part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
pub struct EvaluationPoint {
    /// Steps done.
    pub step: u64,
    /// Mean negative log-likelihood of a target, in nats.
    pub validation_loss: f64,
    /// Share of the targets that got the highest logit.
    #[serde(default)]
    pub validation_accuracy: f64,
    /// Share of the examples all of whose targets did.
    #[serde(default)]
    pub validation_exact_match: f64,
    /// Bits per UTF-8 byte of the validation text, for a causal model.
    #[serde(default)]
    pub validation_bits_per_byte: Option<f64>,
}

/// How large the gradient of each matrix was at a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Look {
    /// Steps done.
    pub step: u64,
    /// Root mean square of the gradient before clipping, by the matrix's name.
    pub gradient_rms: BTreeMap<String, f64>,
}

/// What the model said at an evaluation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Show {
    /// Steps done.
    pub step: u64,
    /// A few texts.
    pub samples: Vec<Sample>,
    /// The evaluation by the length of what was read, where lengths differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_length: Vec<LengthGroup>,
}

impl History {
    /// Reads a whole log; a line that is damaged or of no known kind is passed over.
    pub fn of_log(log: &str) -> Self {
        let mut history = Self::default();
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).for_each(|line| history.push(line));
        history
    }

    /// Takes in a line. A number that is not finite has no form in JSON, and its line is passed over.
    pub fn push(&mut self, line: Value) {
        /// Adds what `line` says to `to` if it says it in full.
        fn read<T: for<'a> Deserialize<'a>>(to: &mut Vec<T>, line: Value) {
            to.extend(serde_json::from_value::<T>(line).ok());
        }
        let has = |key: &str| line.get(key).is_some();
        if has("loss") {
            read(&mut self.steps, line);
        } else if has("validation_loss") {
            read(&mut self.evaluations, line);
        } else if has("gradient_rms") {
            read(&mut self.looks, line);
        } else if has("samples") {
            read(&mut self.shows, line);
        } else if let Some(memory) = line.get("memory") {
            self.memory = serde_json::from_value(memory.clone()).ok();
        } else if has("finding") {
            read(&mut self.findings, line);
        }
    }

    /// Steps done by the last line.
    pub fn last_step(&self) -> u64 {
        let ends = [self.steps.last().map(|point| point.step), self.evaluations.last().map(|point| point.step)];
        ends.into_iter().flatten().max().unwrap_or(0)
    }

    /// The evaluation with the lowest loss; the first of equal ones.
    pub fn best_evaluation(&self) -> Option<&EvaluationPoint> {
        self.evaluations.iter().min_by(|a, b| a.validation_loss.total_cmp(&b.validation_loss))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_each_kind_are_read_and_others_passed_over() {
        let log = r#"{"step":1,"loss":2.5,"gradient_norm":0.5,"learning_rate":0.1,"n_tokens":9}
{"step":1,"gradient_rms":{"a":0.25}}
{"step":1,"memory":{"weights":{"bytes":4,"saved_bytes":0},"optimizer_state":{"bytes":4,"saved_bytes":4},"gradients":{"bytes":4,"saved_bytes":0},"activations":{"bytes":9,"saved_bytes":0}}}
{"step":2,"loss":null}
{"step":2,"validation_loss":2.25,"validation_bits_per_byte":null,"validation_accuracy":0.5}
{"step":2,"samples":[{"read":"a","said":"b","expected":null,"is_right":null}]}
{"step":2,"finding":"loss_spike","severity":"warning","evidence":"e","advice":"a"}
{"step":3,"something":"else"}
{"step":3,"lo"#;
        let history = History::of_log(log);
        let counts = (history.steps.len(), history.evaluations.len(), history.looks.len(), history.shows.len());
        assert_eq!(counts, (1, 1, 1, 1));
        assert_eq!((history.steps[0].loss, history.steps[0].n_tokens), (2.5, 9));
        assert_eq!(history.looks[0].gradient_rms["a"], 0.25);
        assert_eq!(history.findings[0].evidence, "e");
        assert_eq!(history.memory.map(|memory| memory.total().bytes), Some(21));
        assert_eq!((history.last_step(), history.best_evaluation().unwrap().step), (2, 2));
    }
}
