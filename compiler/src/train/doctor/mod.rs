//! What looks wrong with a run, with the evidence and what to do about it: pure functions over the figures of its log.
//!
//! A finding is worth reading or it is not made: each rule asks for a margin that healthy runs of the kind keep clear of, and says
//! what it saw in figures.

mod robust;

use super::history::{EvaluationPoint, History, Look, StepPoint};
use robust::{median, scatter};
use serde::{Deserialize, Serialize};

/// Lines of the log that are examined, counted from the last: what was wrong long ago is in the log already.
const STEPS_EXAMINED: usize = 4096;

/// Something that looks wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is.
    #[serde(rename = "finding")]
    pub kind: FindingKind,
    /// How much it matters.
    pub severity: Severity,
    /// Steps done when it was found.
    pub step: u64,
    /// What was seen, in figures.
    pub evidence: String,
    /// What to do.
    pub advice: String,
}

/// What may look wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// The loss of a step stands far above those before it.
    LossSpike,
    /// The loss rises or swings while the gradient grows.
    LearningRateTooHigh,
    /// A matrix gets no gradient.
    DeadLayers,
    /// The training part was read several times, and the validation loss rises.
    DataRepeated,
    /// The validation loss rises while that of training falls, though little was read twice.
    ValidationDiverges,
    /// The loss is what the frequencies of the targets alone give.
    NothingLearned,
    /// No target is the end of a text.
    EndNeverTrained,
}

impl FindingKind {
    /// In words, for a heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::LossSpike => "loss spike",
            Self::LearningRateTooHigh => "learning rate too high",
            Self::DeadLayers => "dead layers",
            Self::DataRepeated => "data repeated",
            Self::ValidationDiverges => "validation diverges from training",
            Self::NothingLearned => "nothing learned but frequencies",
            Self::EndNeverTrained => "end of text never trained",
        }
    }
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing; it may be as it should.
    Note,
    /// The run suffers from it.
    Warning,
}

/// What the rules need to know of a run beside its log.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Circumstances {
    /// Largest norm of the gradient; 0 for no limit.
    pub clip_norm: f64,
    /// Tokens of the training part.
    pub n_train_tokens: u64,
    /// Steps in all.
    pub steps: u64,
    /// Entropy of the training targets, each for itself, in nats: the loss of a model that only knows how frequent each is.
    pub target_entropy: f64,
    /// For an objective whose texts end in a token of their own: the targets looked at, and whether one of them was that token.
    pub ends: Option<EndsSeen>,
}

/// Whether training examples say that a text ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndsSeen {
    /// Targets looked at.
    pub n_targets: u64,
    /// Whether the end of a text was among them.
    pub has_end: bool,
}

/// All that looks wrong, the gravest first.
pub fn examine(history: &History, circumstances: &Circumstances) -> Vec<Finding> {
    let steps = &history.steps[history.steps.len().saturating_sub(STEPS_EXAMINED)..];
    let made = [
        learning_rate_too_high(steps, circumstances.clip_norm),
        nothing_learned(history, circumstances),
        dead_layers(&history.looks),
        overfitting(steps, &history.evaluations, circumstances.n_train_tokens),
        loss_spike(steps),
        end_never_trained(circumstances.ends),
    ];
    let finding = |(kind, severity, evidence, advice): Made| Finding {
        kind,
        severity,
        step: history.last_step(),
        evidence,
        advice,
    };
    made.into_iter().flatten().map(finding).collect()
}

/// A finding before its step is known.
type Made = (FindingKind, Severity, String, String);

/// Lines before one that say how much the loss scatters.
const SPIKE_WINDOW: usize = 32;
/// Lines before one that say what its loss should be, and the fewest that a spike needs.
const SPIKE_WINDOW_MIN: usize = 8;
/// How many standard deviations a spike stands above.
const SPIKE_SIGMAS: f64 = 8.0;
/// The share of the median that it stands above at the least.
const SPIKE_RISE: f64 = 0.15;
/// The nats that it stands above at the least.
const SPIKE_NATS: f64 = 0.1;
/// Lines after a spike by which the loss should be back.
const SPIKE_RECOVERY: usize = 8;

/// A loss far above the median of the lines before it, measured by the median step from line to line: a few outliers move neither, and
/// a loss that falls steadily does not count as scatter.
fn loss_spike(steps: &[StepPoint]) -> Option<Made> {
    let losses: Vec<f64> = steps.iter().map(|point| point.loss).collect();
    let mut spikes: Vec<(usize, f64)> = Vec::new();
    for i in SPIKE_WINDOW_MIN..losses.len() {
        let before = median(&losses[i - SPIKE_WINDOW_MIN..i]);
        let sigma = scatter(&losses[i.saturating_sub(SPIKE_WINDOW)..i]);
        let margin = (SPIKE_SIGMAS * sigma).max(SPIKE_RISE * before).max(SPIKE_NATS);
        // A spike that lasts over several lines is one.
        let is_new = spikes.last().is_none_or(|(last, _)| i > last + SPIKE_RECOVERY);
        if losses[i] > before + margin && is_new {
            spikes.push((i, before));
        }
    }
    let (at, before) = *spikes.iter().max_by(|(a, _), (b, _)| losses[*a].total_cmp(&losses[*b]))?;
    let after = &losses[at + 1..losses.len().min(at + 1 + SPIKE_RECOVERY)];
    let lowest = after.iter().copied().fold(f64::INFINITY, f64::min);
    let recovery = match lowest {
        _ if after.is_empty() => "it is the last line".to_owned(),
        _ if lowest < before * (1.0 + SPIKE_RISE / 2.0) => "the loss came back".to_owned(),
        _ => format!("{} lines later the loss is still {lowest:.3}", after.len()),
    };
    let evidence = format!(
        "at step {} the loss is {:.3} nats, about {before:.3} in the lines before; {recovery}; {}",
        steps[at].step,
        losses[at],
        match spikes.len() {
            1 => "it is the only one".to_owned(),
            n => format!("{n} spikes in all"),
        }
    );
    let advice = "look at the data near that step; if spikes return, set optimizer.clip_norm, lengthen \
        optimizer.warmup_steps or lower optimizer.learning_rate";
    Some((FindingKind::LossSpike, Severity::Warning, evidence, advice.to_owned()))
}

/// Most lines that are compared as one window.
const RATE_WINDOW_MAX: usize = 64;
/// Fewest.
const RATE_WINDOW_MIN: usize = 8;
/// How much larger the gradient is than where the loss was lowest.
const RATE_NORM_GROWTH: f64 = 1.5;
/// How much wider the loss swings than where it was lowest.
const RATE_SWING_GROWTH: f64 = 4.0;
/// Share of the lowest loss that one is above if it no longer falls.
const RATE_STUCK: f64 = 0.9;
/// Share of the lines whose gradient was clipped.
const RATE_CLIPPED: f64 = 0.5;

/// Some lines in a row, as one.
struct Window {
    /// The median loss.
    loss: f64,
    /// How much the loss scatters from line to line.
    scatter: f64,
    /// The median of the gradient's norm.
    norm: f64,
    first_step: u64,
    last_step: u64,
}

impl Window {
    fn of(steps: &[StepPoint]) -> Self {
        let of = |value: fn(&StepPoint) -> f64| steps.iter().map(value).collect::<Vec<f64>>();
        let losses = of(|point| point.loss);
        let (first, last) = (steps.first().copied().unwrap_or_default(), steps.last().copied().unwrap_or_default());
        Self {
            loss: median(&losses),
            scatter: scatter(&losses),
            norm: median(&of(|point| point.gradient_norm)),
            first_step: first.step,
            last_step: last.step,
        }
    }
}

/// The last window of lines against earlier ones: a higher loss than in the best, or one that swings more than in the calmest, with a
/// larger gradient that is mostly clipped. A loss above that of the first lines needs no gradient to tell.
fn learning_rate_too_high(steps: &[StepPoint], clip_norm: f64) -> Option<Made> {
    let n = (steps.len() / 8).clamp(RATE_WINDOW_MIN, RATE_WINDOW_MAX);
    let windows: Vec<Window> = steps.rchunks_exact(n).map(Window::of).collect();
    let (now, earlier) = windows.split_first()?;
    let best = earlier.iter().min_by(|a, b| a.loss.total_cmp(&b.loss))?;
    let calmest = earlier.iter().min_by(|a, b| a.scatter.total_cmp(&b.scatter))?;
    let logged = &steps[steps.len() - n..];
    let n_clipped = logged.iter().filter(|point| point.gradient_norm > clip_norm).count();
    let mostly_clipped = clip_norm <= 0.0 || n_clipped as f64 > RATE_CLIPPED * n as f64;
    let grows_since = |then: &Window| now.norm > RATE_NORM_GROWTH * then.norm && mostly_clipped;
    // Medians of a window scatter less than its lines do.
    let chance = 4.0 * now.scatter.max(best.scatter) / (n as f64).sqrt();
    let is_above = |level: f64| now.loss > level + chance.max(0.03 * level).max(0.02);
    // While the loss falls fast, it scatters more too.
    let is_stuck = now.loss > RATE_STUCK * best.loss;
    let swings = is_stuck && now.scatter > RATE_SWING_GROWTH * calmest.scatter && now.scatter > 0.05 * now.loss;
    let then = match (is_above(best.loss) && grows_since(best), swings && grows_since(calmest)) {
        (true, _) => best,
        (_, true) => calmest,
        _ if is_above(Window::of(&steps[..n]).loss) => best,
        _ => return None,
    };
    let clipped = match clip_norm > 0.0 {
        true => format!(", and {n_clipped} of the last {n} logged steps were clipped"),
        false => ", and no optimizer.clip_norm limits it".to_owned(),
    };
    let evidence = format!(
        "from steps {} to {} until the last {n} lines, the loss went from {:.3} to {:.3} nats, its scatter from {:.3} to {:.3}, and the \
         norm of the gradient from {:.3} to {:.3}{clipped}",
        then.first_step, then.last_step, then.loss, now.loss, then.scatter, now.scatter, then.norm, now.norm
    );
    let rate = logged.last()?.learning_rate;
    let clip = if clip_norm > 0.0 { "" } else { ", and set optimizer.clip_norm = 1.0" };
    let advice = format!(
        "lower optimizer.learning_rate, which stands at {rate:.2e} now, by 3 to 10 times, or lengthen \
         optimizer.warmup_steps{clip}"
    );
    Some((FindingKind::LearningRateTooHigh, Severity::Warning, evidence, advice))
}

/// Share of the targets' entropy that a model must be below to have learned something.
const LEARNED_SHARE: f64 = 0.97;
/// Share of the steps by which it should be.
const LEARNED_BY: f64 = 0.5;

/// A loss that has not come below the entropy of the targets by the middle of the run.
fn nothing_learned(history: &History, circumstances: &Circumstances) -> Option<Made> {
    let Circumstances { steps, target_entropy, .. } = *circumstances;
    let last = history.steps.last()?;
    let lines = &history.steps[history.steps.len().saturating_sub(RATE_WINDOW_MIN)..];
    // Training may count smoothed labels and dropout, which the validation part does not.
    let validated = history.evaluations.last().map_or(f64::INFINITY, |point| point.validation_loss);
    let loss = Window::of(lines).loss.min(validated);
    if (last.step as f64) < LEARNED_BY * steps as f64 || loss <= LEARNED_SHARE * target_entropy {
        return None;
    }
    let evidence = format!(
        "after {} of {steps} steps the loss is {loss:.3} nats, and a model that only knows how frequent each target is has \
         {target_entropy:.3}",
        last.step
    );
    let advice = format!(
        "change optimizer.learning_rate, whose highest so far was {:.2e}: lower it 10 times if the loss jumped at the start, else raise \
         it 3 times; or train for more steps",
        history.steps.iter().map(|point| point.learning_rate).fold(0.0, f64::max)
    );
    Some((FindingKind::NothingLearned, Severity::Warning, evidence, advice))
}

/// Looks in a row that must agree.
const DEAD_LOOKS: usize = 3;
/// A dead matrix's gradient against the median over all matrices. Healthy ones stay within a thousandth.
const DEAD_SHARE: f64 = 1e-6;

/// Matrices whose gradient is next to nothing beside the others', look after look.
fn dead_layers(looks: &[Look]) -> Option<Made> {
    let last = &looks[looks.len().checked_sub(DEAD_LOOKS)?..];
    let is_dead = |look: &Look, name: &str| {
        let all: Vec<f64> = look.gradient_rms.values().copied().collect();
        look.gradient_rms.get(name).is_some_and(|rms| *rms <= DEAD_SHARE * median(&all))
    };
    let names = last[0].gradient_rms.keys();
    let dead: Vec<&String> = names.filter(|name| last.iter().all(|look| is_dead(look, name))).collect();
    let (first, n_matrices) = (dead.first()?, last[0].gradient_rms.len());
    let others = match dead.len() {
        1 => String::new(),
        n => format!(" and {} more", n - 1),
    };
    let newest = last.last()?;
    let evidence = format!(
        "{first}{others}, of {n_matrices} matrices, got a gradient below a millionth of the median at steps {}: {:.1e} last",
        last.iter().map(|look| look.step.to_string()).collect::<Vec<_>>().join(", "),
        newest.gradient_rms.get(*first)?
    );
    let advice = "these numbers do not learn: lower optimizer.learning_rate and start anew if they died in training \
        (saturated activations), or see that the model's inputs reach them";
    Some((FindingKind::DeadLayers, Severity::Warning, evidence, advice.to_owned()))
}

/// Rise of the validation loss over its lowest value that is no accident.
const VALIDATION_RISE: f64 = 0.01;
/// The same in nats: a task that is solved has losses near nothing, which double by chance.
const VALIDATION_NATS: f64 = 0.02;
/// Share of the training loss that it falls below meanwhile: else both stand still.
const TRAINING_FALL: f64 = 0.99;
/// Times that the training part is read before repetition is what to blame.
const PASSES_MIN: f64 = 2.0;
/// Lines of training that are averaged at a moment.
const MOMENT_LINES: usize = 16;

/// The validation loss has risen over its lowest value in two evaluations at least, while that of training has fallen.
fn overfitting(steps: &[StepPoint], evaluations: &[EvaluationPoint], n_train_tokens: u64) -> Option<Made> {
    let lowest = evaluations.iter().map(|point| point.validation_loss).fold(f64::INFINITY, f64::min);
    let best_idx = evaluations.iter().position(|point| point.validation_loss == lowest)?;
    let (best, later) = (evaluations[best_idx], &evaluations[best_idx + 1..]);
    let [.., before_last, last] = later else { return None };
    let is_above =
        |point: &EvaluationPoint, rise: f64| point.validation_loss > lowest + (rise * lowest).max(VALIDATION_NATS);
    if !(is_above(last, VALIDATION_RISE) && is_above(before_last, VALIDATION_RISE / 2.0)) {
        return None;
    }
    let training_at = |step: u64| {
        let n = steps.partition_point(|point| point.step <= step);
        let losses: Vec<f64> = steps[n.saturating_sub(MOMENT_LINES)..n].iter().map(|point| point.loss).collect();
        (!losses.is_empty()).then(|| median(&losses))
    };
    let (then, now) = (training_at(best.step)?, training_at(last.step)?);
    if now > TRAINING_FALL * then {
        return None;
    }
    let n_tokens = steps.last()?.n_tokens as f64;
    let passes = n_tokens / n_train_tokens.max(1) as f64;
    let rise = format!(
        "the validation loss rose from {lowest:.3} nats at step {} to {:.3} at step {}, while that of training went from {then:.3} \
         to {now:.3}",
        best.step, last.validation_loss, last.step
    );
    if passes >= PASSES_MIN {
        let evidence = format!("the training part was read {passes:.1} times over; {rise}");
        let advice = format!(
            "the model learns the training part by heart: train on more data, stop near step {}, or raise train.dropout, \
             optimizer.weight_decay or take a smaller model",
            best.step
        );
        return Some((FindingKind::DataRepeated, Severity::Warning, evidence, advice));
    }
    let evidence = format!("{rise}; the training part was read {passes:.2} times over");
    let advice = "the validation part is of another kind than the training part: see how the data is ordered and split, and mix it";
    Some((FindingKind::ValidationDiverges, Severity::Warning, evidence, advice.to_owned()))
}

/// Texts that end in a token of their own, in data that never shows it.
fn end_never_trained(ends: Option<EndsSeen>) -> Option<Made> {
    let EndsSeen { n_targets, has_end } = ends?;
    if has_end || n_targets == 0 {
        return None;
    }
    let evidence = format!(
        "none of the first {n_targets} targets is the end of a text: the training part is read as one long text without documents"
    );
    let advice = "the model will not stop by itself; if it should, give the data as documents, such as the records of a \
        .jsonl file, each of which ends";
    Some((FindingKind::EndNeverTrained, Severity::Note, evidence, advice.to_owned()))
}

#[cfg(test)]
mod tests;
