//! Each rule on curves made for it, and all rules on healthy ones.

use super::*;
use std::collections::BTreeMap;

/// A linear congruential generator (Knuth's MMIX constants): noise of mean 0 and standard deviation 1, nearly normal.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        let mut uniform = || {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (self.0 >> 11) as f64 / (1_u64 << 53) as f64
        };
        (0..12).map(|_| uniform()).sum::<f64>() - 6.0
    }
}

const CLIP: f64 = 1.0;
const TOKENS_A_STEP: u64 = 4096;

/// A run that goes well: the loss falls from 6 towards 1.5 with 2% noise, the gradient is large at first and small then.
fn healthy(seed: u64, n_lines: usize) -> History {
    let mut noise = Noise(seed);
    let mut history = History::default();
    for i in 0..n_lines {
        let (step, progress) = (20 * (i as u64 + 1), i as f64 / n_lines as f64);
        let loss = (1.5 + 4.5 * (-8.0 * progress).exp()) * (1.0 + 0.02 * noise.next());
        let gradient_norm = (0.6 + 3.0 * (-20.0 * progress).exp()) * (1.0 + 0.2 * noise.next()).abs();
        let n_tokens = step * TOKENS_A_STEP;
        history.steps.push(StepPoint {
            step,
            n_tokens,
            loss,
            gradient_norm,
            learning_rate: 1e-3,
            ..Default::default()
        });
        if i % 10 == 9 {
            let validation_loss = (1.6 + 4.5 * (-8.0 * progress).exp()) * (1.0 + 0.001 * noise.next());
            history.evaluations.push(EvaluationPoint { step, validation_loss, ..Default::default() });
            history.looks.push(look(step, &[("a", 1e-3), ("b", 2e-4), ("c", 5e-6)]));
        }
    }
    history
}

fn look(step: u64, rms: &[(&str, f64)]) -> Look {
    Look { step, gradient_rms: rms.iter().map(|(name, rms)| ((*name).to_owned(), *rms)).collect::<BTreeMap<_, _>>() }
}

fn circumstances(passes: f64, history: &History) -> Circumstances {
    let n_tokens = history.steps.last().map_or(0, |point| point.n_tokens);
    let (steps, n_train_tokens) = (history.last_step(), (n_tokens as f64 / passes) as u64);
    Circumstances { clip_norm: CLIP, n_train_tokens, steps, target_entropy: 10.0, ends: None }
}

fn kinds(history: &History, circumstances: &Circumstances) -> Vec<FindingKind> {
    examine(history, circumstances).into_iter().map(|finding| finding.kind).collect()
}

#[test]
fn healthy_curves_of_any_length_are_left_alone() {
    for seed in 0..40 {
        for n_lines in [1, 9, 30, 100, 700, 5000] {
            let history = healthy(seed, n_lines);
            for passes in [0.3, 3.0, 30.0] {
                let found = examine(&history, &circumstances(passes, &history));
                assert_eq!(found, [], "seed {seed}, {n_lines} lines, {passes} passes");
            }
        }
    }
}

#[test]
fn noise_of_small_losses_is_left_alone() {
    // A task that is solved: the loss of a batch is a thousandth, or ten times as much where one example fails.
    for seed in 0..40 {
        let (mut noise, mut history) = (Noise(seed), healthy(seed, 300));
        history.steps.iter_mut().for_each(|point| point.loss = 0.001 * noise.next().exp());
        history.evaluations.iter_mut().for_each(|point| point.validation_loss = 0.001 * noise.next().exp());
        assert_eq!(kinds(&history, &circumstances(1.0, &history)), []);
    }
}

#[test]
fn a_spike_is_told_with_its_step_and_whether_it_passed() {
    for seed in 0..20 {
        let mut history = healthy(seed, 100);
        history.steps[60].loss += 1.0;
        let found = examine(&history, &circumstances(1.0, &history));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].kind, found[0].step), (FindingKind::LossSpike, 2000));
        for words in ["step 1220", "came back", "only one"] {
            assert!(found[0].evidence.contains(words), "{}", found[0].evidence);
        }
        history.steps[80..].iter_mut().for_each(|point| point.loss += 2.0);
        let evidence = loss_spike(&history.steps).unwrap().2;
        assert!(
            evidence.contains("step 1620") && evidence.contains("still") && evidence.contains("2 spikes"),
            "{evidence}"
        );
    }
}

#[test]
fn a_rising_loss_with_a_growing_clipped_gradient_blames_the_rate() {
    for seed in 0..20 {
        let mut history = healthy(seed, 160);
        for (i, point) in history.steps.iter_mut().enumerate().skip(80) {
            point.loss *= 1.0 + (i - 80) as f64 / 200.0;
            point.gradient_norm *= 1.0 + (i - 80) as f64 / 10.0;
        }
        let found = examine(&history, &circumstances(1.0, &history));
        assert!(found.iter().any(|finding| finding.kind == FindingKind::LearningRateTooHigh), "{found:?}");
        assert!(found[0].evidence.contains("clipped") && found[0].advice.contains("1.00e-3"), "{found:?}");
        // The same gradient is no proof where the loss goes on falling.
        let falling = healthy(seed, 160).steps.into_iter().zip(&history.steps);
        history.steps = falling.map(|(point, grown)| StepPoint { loss: point.loss, ..*grown }).collect();
        assert_eq!(kinds(&history, &circumstances(1.0, &history)), []);
    }
}

#[test]
fn a_loss_that_swings_or_ends_above_its_start_blames_the_rate() {
    for seed in 0..20 {
        let mut swinging = healthy(seed, 160);
        for (i, point) in swinging.steps.iter_mut().enumerate().skip(80) {
            point.loss *= if i % 2 == 0 { 1.1 } else { 0.9 };
            point.gradient_norm *= 4.0;
        }
        assert!(kinds(&swinging, &circumstances(1.0, &swinging)).contains(&FindingKind::LearningRateTooHigh));
        let mut blown_up = healthy(seed, 160);
        blown_up.steps[30..].iter_mut().for_each(|point| (point.loss, point.gradient_norm) = (7.5, 0.1));
        assert!(kinds(&blown_up, &circumstances(1.0, &blown_up)).contains(&FindingKind::LearningRateTooHigh));
    }
}

#[test]
fn a_loss_that_falls_fast_may_scatter() {
    for seed in 0..20 {
        let mut noise = Noise(seed);
        let mut history = healthy(seed, 160);
        for (i, point) in history.steps.iter_mut().enumerate() {
            let (fall, sigma) = if i < 80 { (0.0, 0.02) } else { (0.035 * (i - 80) as f64, 0.2) };
            point.loss = 5.0 - fall + sigma * noise.next();
            point.gradient_norm = if i < 80 { 0.5 } else { 3.0 };
        }
        assert_eq!(kinds(&history, &circumstances(1.0, &history)), [], "seed {seed}");
    }
}

#[test]
fn a_matrix_without_gradient_is_dead_after_three_looks() {
    let mut history = healthy(1, 100);
    for (i, look) in history.looks.iter_mut().rev().enumerate() {
        look.gradient_rms.insert("layers.3.up".into(), if i < 3 { 0.0 } else { 1e-3 });
    }
    let found = examine(&history, &circumstances(1.0, &history));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].kind, FindingKind::DeadLayers);
    for words in ["layers.3.up", "of 4 matrices", "1600, 1800, 2000"] {
        assert!(found[0].evidence.contains(words), "{}", found[0].evidence);
    }
    history.looks[8].gradient_rms.insert("layers.3.up".into(), 1e-5);
    assert_eq!(kinds(&history, &circumstances(1.0, &history)), []);
}

/// The validation loss turns after its middle and rises by a tenth.
fn overfitted(seed: u64) -> History {
    let mut history = healthy(seed, 200);
    let middle = history.evaluations.len() / 2;
    let lowest = history.evaluations[middle].validation_loss;
    for (i, point) in history.evaluations[middle..].iter_mut().enumerate() {
        point.validation_loss = lowest * (1.0 + 0.01 * i as f64);
    }
    history
}

#[test]
fn a_rising_validation_loss_is_repetition_or_another_kind_of_text() {
    for seed in 0..20 {
        let mut history = overfitted(seed);
        let found = examine(&history, &circumstances(12.0, &history));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].kind, FindingKind::DataRepeated);
        for words in ["12.0 times", "at step 2200", "at step 4000"] {
            assert!(found[0].evidence.contains(words), "{}", found[0].evidence);
        }
        assert_eq!(kinds(&history, &circumstances(0.5, &history)), [FindingKind::ValidationDiverges]);
        // One bad evaluation at the end is no trend.
        history.evaluations.truncate(history.evaluations.len() / 2 + 1);
        let last = *history.evaluations.last().unwrap();
        history.evaluations.push(EvaluationPoint { validation_loss: last.validation_loss * 1.1, ..last });
        assert_eq!(kinds(&history, &circumstances(12.0, &history)), []);
    }
}

#[test]
fn a_loss_that_rises_in_training_too_is_no_overfitting() {
    let mut history = overfitted(1);
    assert!(overfitting(&history.steps, &history.evaluations, 1000).is_some());
    // It stands still, and rises.
    for factor in [1.05, 1.1] {
        history.steps[120..].iter_mut().for_each(|point| point.loss *= factor);
        assert_eq!(overfitting(&history.steps, &history.evaluations, 1000), None);
    }
}

#[test]
fn a_loss_at_the_entropy_of_the_targets_has_learned_nothing() {
    let mut history = healthy(1, 100);
    let circumstances = Circumstances { target_entropy: 5.25, ..circumstances(1.0, &history) };
    assert_eq!(kinds(&history, &circumstances), []);
    history.steps.iter_mut().for_each(|point| point.loss = point.loss.max(5.2));
    history.evaluations.iter_mut().for_each(|point| point.validation_loss = 5.22);
    let found = examine(&history, &circumstances);
    assert_eq!(found.iter().map(|finding| finding.kind).collect::<Vec<_>>(), [FindingKind::NothingLearned]);
    assert!(found[0].evidence.contains("5.250") && found[0].advice.contains("1.00e-3"), "{found:?}");
    // Labels are smoothed in training, and the validation part tells.
    history.evaluations.iter_mut().for_each(|point| point.validation_loss = 4.0);
    assert_eq!(kinds(&history, &circumstances), []);
    // It is early yet.
    history.evaluations.clear();
    assert_eq!(kinds(&history, &Circumstances { steps: 4001, ..circumstances }), []);
}

#[test]
fn texts_that_never_end_are_noted() {
    let seen = |n_targets, has_end| Circumstances { ends: Some(EndsSeen { n_targets, has_end }), ..Default::default() };
    let history = History::default();
    let found = examine(&history, &seen(900, false));
    assert_eq!((found[0].kind, found[0].severity), (FindingKind::EndNeverTrained, Severity::Note));
    assert!(found[0].evidence.contains("900 targets"));
    assert_eq!(examine(&history, &seen(900, true)), []);
    assert_eq!(examine(&history, &seen(0, false)), []);
    assert_eq!(examine(&history, &Circumstances::default()), []);
}
