//! The update rule of a run: settings of each parameter, and what the optimiser remembers between steps.

use super::adamw::AdamW;
use super::groups::{self, GroupError};
use crate::recipe::OptimizerSection;
use crate::tensor::{ParamLayout, Params};

/// The update rule of a model's parameters and its state. Its results are the same for any number of threads.
#[derive(Clone, Debug)]
pub struct Optimizer {
    rule: OptimizerSection,
    n_numbers: usize,
    adamw: AdamW,
}

impl Optimizer {
    /// The state before the first step.
    ///
    /// # Errors
    /// [`GroupError`] if a group has no parameter.
    pub fn new(rule: &OptimizerSection, layout: &ParamLayout) -> Result<Self, GroupError> {
        let members = groups::members(rule, layout)?;
        Ok(Self { rule: rule.clone(), n_numbers: layout.len(), adamw: AdamW::new(members) })
    }

    /// One update with the gradient times `factor`; `n_before` updates were made before it.
    ///
    /// # Panics
    /// If the parameters or the gradient are another model's.
    pub fn update(&mut self, params: &mut Params, gradient: &[f32], factor: f64, learning_rate: f64, n_before: u64) {
        assert_eq!(params.values.len(), self.n_numbers, "parameters of another model");
        assert_eq!(gradient.len(), self.n_numbers, "gradient of another model");
        self.adamw.update(&mut params.values, gradient, factor, &self.rule, (learning_rate, n_before));
    }

    /// Its state by name, in the order of the names.
    pub(super) fn state(&self) -> Vec<(&'static str, &[f32])> {
        vec![("first_moment", &self.adamw.first_moments), ("second_moment", &self.adamw.second_moments)]
    }

    /// Its state by name, for reading a saved one.
    pub(super) fn state_mut(&mut self) -> Vec<(&'static str, &mut [f32])> {
        vec![("first_moment", &mut self.adamw.first_moments), ("second_moment", &mut self.adamw.second_moments)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(more: &str) -> OptimizerSection {
        let text = "learning_rate = 0.1\nweight_decay = 0.5\nbeta1 = 0.9\nbeta2 = 0.99\neps = 1e-8\n";
        toml::from_str(&format!("{text}{more}")).unwrap()
    }

    /// The published update, step by step, in `f64`.
    fn by_definition(gradients: &[f64], start: f64, rate: f64, decay: f64) -> f64 {
        let (mut x, mut m, mut v) = (start, 0.0, 0.0);
        for (i, g) in gradients.iter().enumerate() {
            x -= rate * decay * x;
            m = 0.9 * m + 0.1 * g;
            v = 0.99 * v + 0.01 * g * g;
            let n = i as i32 + 1;
            let (m_hat, v_hat) = (m / (1.0 - 0.9_f64.powi(n)), v / (1.0 - 0.99_f64.powi(n)));
            x -= rate * m_hat / (v_hat.sqrt() + 1e-8);
        }
        x
    }

    #[test]
    fn each_group_follows_the_definition_and_norms_are_spared() {
        let mut layout = ParamLayout::default();
        let ids = [layout.matrix("w", 300, 100), layout.vector("g", 3), layout.matrix("slow.w", 2, 1)];
        let mut params = Params::zeros(layout.clone());
        params.values.fill(1.5);
        let group = "group = [{ params = ['slow.*'], learning_rate_scale = 0.5, weight_decay = 0.25 }]";
        let mut optimizer = Optimizer::new(&rule(group), &layout).unwrap();
        let gradients = [0.3, -1.0, 0.02, 4.0];
        for (step, g) in gradients.iter().enumerate() {
            let gradient = vec![*g as f32 * 2.0; layout.len()];
            optimizer.update(&mut params, &gradient, 0.5, 0.1, step as u64);
        }
        for (id, rate, decay) in [(ids[0], 0.1, 0.5), (ids[1], 0.1, 0.0), (ids[2], 0.05, 0.25)] {
            let want = by_definition(&gradients, 1.5, rate, decay);
            for got in params.get(id) {
                assert!((f64::from(*got) - want).abs() < 1e-5, "{got} against {want}");
            }
        }
    }
}
