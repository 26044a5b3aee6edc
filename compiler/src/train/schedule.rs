//! The learning rate of each step.

use crate::recipe::{OptimizerSection, Schedule};

/// The learning rate of step `step` (from 0) of `steps`.
pub fn learning_rate(optimizer: &OptimizerSection, step: u64, steps: u64) -> f64 {
    let (top, end) = (optimizer.learning_rate, optimizer.final_share);
    if step < optimizer.warmup_steps {
        return top * (step + 1) as f64 / (optimizer.warmup_steps + 1) as f64;
    }
    // Progress after the warm-up: 0 at its end, 1 after the last step.
    let progress = (step - optimizer.warmup_steps) as f64 / (steps - optimizer.warmup_steps).max(1) as f64;
    let fall = match optimizer.schedule {
        Schedule::Constant => 0.0,
        Schedule::Linear => progress,
        Schedule::Cosine => 0.5 * (1.0 - (core::f64::consts::PI * progress).cos()),
        Schedule::Wsd if optimizer.decay_share == 0.0 => 0.0,
        Schedule::Wsd => ((progress - (1.0 - optimizer.decay_share)) / optimizer.decay_share).max(0.0),
    };
    top * (1.0 - fall * (1.0 - end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;

    fn rates(schedule: &str) -> Vec<f64> {
        let text = format!(
            "model = {{ dim = 8, hidden_dim = 8, n_layers = 1, n_heads = 1, n_kv_heads = 1, head_dim = 8, context_len = 8 }}
             tokenizer = {{ vocab_size = 260 }}
             data = {{ text = 'x' }}
             train = {{ steps = 110, batch_size = 1 }}
             optimizer = {{ learning_rate = 2.0, warmup_steps = 10, final_share = 0.1, schedule = '{schedule}' }}"
        );
        let recipe = Recipe::parse(&text, &[], "test".as_ref()).unwrap();
        (0..110).map(|step| learning_rate(&recipe.optimizer, step, 110)).collect()
    }

    #[test]
    fn every_schedule_warms_up_to_the_highest_rate() {
        for schedule in ["cosine", "linear", "constant", "wsd"] {
            let rates = rates(schedule);
            assert!((rates[0] - 2.0 / 11.0).abs() < 1e-12);
            assert!(rates[..11].is_sorted() && rates[10] == 2.0, "{schedule}");
            assert!(rates[10..].iter().rev().is_sorted(), "{schedule} falls");
        }
    }

    #[test]
    fn each_falls_in_its_own_way() {
        let at = |schedule: &str, step: usize| rates(schedule)[step];
        assert!((at("linear", 60) - 1.1).abs() < 1e-12);
        assert!((at("cosine", 60) - 1.1).abs() < 1e-12);
        assert!((at("cosine", 35) - (2.0 - 1.8 * 0.5 * (1.0 - 0.5_f64.sqrt()))).abs() < 1e-12);
        assert_eq!(at("constant", 109), 2.0);
        assert_eq!(at("wsd", 90), 2.0);
        assert!((at("wsd", 100) - 1.1).abs() < 1e-9);
    }

    /// Each schedule as its formula, `t` going from 0 at the end of the warm-up to 1 at the end of the run.
    #[test]
    fn every_step_has_the_rate_of_the_formula() {
        let (top, end, warmup, steps) = (2.0, 0.2, 10, 110);
        type Share = fn(f64) -> f64;
        let formulas: [(&str, Share); 4] = [
            ("constant", |_| 1.0),
            ("linear", |t| 1.0 - t),
            ("cosine", |t| (1.0 + (core::f64::consts::PI * t).cos()) / 2.0),
            ("wsd", |t| if t < 0.8 { 1.0 } else { (1.0 - t) / 0.2 }),
        ];
        for (schedule, share) in formulas {
            for (step, rate) in rates(schedule).into_iter().enumerate() {
                let want = match step.checked_sub(warmup) {
                    None => top * (step + 1) as f64 / (warmup + 1) as f64,
                    Some(since) => end + (top - end) * share(since as f64 / (steps - warmup) as f64),
                };
                assert!((rate - want).abs() < 1e-12, "{schedule} at step {step}: {rate}, not {want}");
            }
        }
    }
}
