//! AdamW: Adam with weight decay kept out of the moments, and the limit on the gradient's norm.

use crate::recipe::OptimizerSection;
use crate::tensor::{ParamLayout, Params};

/// Numbers whose squares are summed together before the sums are: an order that threads could share without changing it.
const NORM_CHUNK: usize = 1 << 12;

/// Running averages of the gradient and of its square, laid out as the parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Average of the gradient.
    pub first: Vec<f32>,
    /// Average of the squared gradient.
    pub second: Vec<f32>,
}

impl Moments {
    /// Moments before the first step of a model with `len` numbers.
    pub fn zeros(len: usize) -> Self {
        Self { first: vec![0.0; len], second: vec![0.0; len] }
    }
}

/// The Euclidean norm of a whole gradient.
pub fn norm(gradient: &[f32]) -> f64 {
    let square = |x: &f32| f64::from(*x) * f64::from(*x);
    gradient.chunks(NORM_CHUNK).map(|chunk| chunk.iter().map(square).sum::<f64>()).sum::<f64>().sqrt()
}

/// What to multiply a gradient of this norm by so that it is at most `clip_norm`; 1 where there is no limit.
pub fn clip_factor(norm: f64, clip_norm: f64) -> f64 {
    if clip_norm > 0.0 && norm > clip_norm { clip_norm / norm } else { 1.0 }
}

/// One update with the gradient times `factor`; `step` counts from 0.
///
/// # Panics
/// If the buffers differ in length.
pub fn update(
    params: &mut Params,
    moments: &mut Moments,
    gradient: &[f32],
    factor: f64,
    rule: &OptimizerSection,
    learning_rate: f64,
    step: u64,
) {
    assert_eq!(params.values.len(), gradient.len(), "gradient of another model");
    let exponent = (step + 1) as f64;
    let (bias1, bias2) = (1.0 - rule.beta1.powf(exponent), 1.0 - rule.beta2.powf(exponent));
    let (beta1, beta2, factor) = (rule.beta1 as f32, rule.beta2 as f32, factor as f32);
    let (rate, root, eps) = ((learning_rate / bias1) as f32, (1.0 / bias2.sqrt()) as f32, rule.eps as f32);
    let layout: &ParamLayout = &params.layout;
    for spec in layout.specs() {
        let decays = !spec.is_vector || rule.decay_norms;
        let keep = if decays { (1.0 - learning_rate * rule.weight_decay) as f32 } else { 1.0 };
        let at = spec.range.clone();
        let averages = moments.first[at.clone()].iter_mut().zip(&mut moments.second[at.clone()]);
        for ((value, (m, v)), gradient) in params.values[at.clone()].iter_mut().zip(averages).zip(&gradient[at]) {
            let g = gradient * factor;
            *m = beta1 * *m + (1.0 - beta1) * g;
            *v = beta2 * *v + (1.0 - beta2) * g * g;
            *value = *value * keep - rate * *m / (v.sqrt() * root + eps);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> OptimizerSection {
        toml::from_str("learning_rate = 0.1\nweight_decay = 0.5\nbeta1 = 0.9\nbeta2 = 0.99\neps = 1e-8").unwrap()
    }

    /// The published update, step by step, in `f64`.
    fn by_definition(gradients: &[f64], start: f64, decay: f64) -> f64 {
        let (mut x, mut m, mut v) = (start, 0.0, 0.0);
        for (i, g) in gradients.iter().enumerate() {
            x -= 0.1 * decay * x;
            m = 0.9 * m + 0.1 * g;
            v = 0.99 * v + 0.01 * g * g;
            let n = i as i32 + 1;
            let (m_hat, v_hat) = (m / (1.0 - 0.9_f64.powi(n)), v / (1.0 - 0.99_f64.powi(n)));
            x -= 0.1 * m_hat / (v_hat.sqrt() + 1e-8);
        }
        x
    }

    #[test]
    fn follows_the_definition_and_spares_norms() {
        let mut layout = ParamLayout::default();
        let (matrix, vector) = (layout.matrix("w", 1, 1), layout.vector("g", 1));
        let mut params = Params::zeros(layout);
        params.values.fill(1.5);
        let mut moments = Moments::zeros(2);
        let gradients = [0.3, -1.0, 0.02, 4.0];
        for (step, g) in gradients.iter().enumerate() {
            update(&mut params, &mut moments, &[*g as f32 * 2.0; 2], 0.5, &rule(), 0.1, step as u64);
        }
        for (id, decay) in [(matrix, 0.5), (vector, 0.0)] {
            let want = by_definition(&gradients, 1.5, decay);
            assert!((f64::from(params.get(id)[0]) - want).abs() < 1e-5, "{} against {want}", params.get(id)[0]);
        }
    }

    #[test]
    fn clipping_bounds_the_norm_and_nothing_else() {
        let gradient = vec![3.0, 4.0];
        assert_eq!(norm(&gradient), 5.0);
        assert_eq!(clip_factor(5.0, 1.0), 0.2);
        assert_eq!(clip_factor(5.0, 6.0), 1.0);
        assert_eq!(clip_factor(5.0, 0.0), 1.0);
    }
}
