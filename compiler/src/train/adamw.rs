//! AdamW: Adam with weight decay kept out of the moments.

use super::groups::Member;
use crate::recipe::OptimizerSection;
use crate::tensor::simd::{Kernel, Lanes, dispatch};
use rayon::prelude::*;

/// Numbers that a thread updates at a time. Each is updated on its own, so how they are cut leaves no trace.
const CHUNK: usize = 1 << 14;

/// The rule for some of a model's parameters, and its running averages of their gradients.
#[derive(Clone, Debug)]
pub(super) struct AdamW {
    /// Whose parameters, in the order of their places.
    members: Vec<Member>,
    /// Running averages of the gradient, of one member after the other.
    pub first_moments: Vec<f32>,
    /// Running averages of the squared gradient, laid out alike.
    pub second_moments: Vec<f32>,
}

impl AdamW {
    /// The state before the first step.
    pub fn new(members: Vec<Member>) -> Self {
        let len = members.iter().map(|member| member.range.len()).sum();
        Self { members, first_moments: vec![0.0; len], second_moments: vec![0.0; len] }
    }

    /// One update with the gradient times `factor`; `n_before` updates were made before it.
    pub fn update(
        &mut self,
        mut values: &mut [f32],
        gradient: &[f32],
        factor: f64,
        rule: &OptimizerSection,
        (learning_rate, n_before): (f64, u64),
    ) {
        let (mut first, mut second) = (self.first_moments.as_mut_slice(), self.second_moments.as_mut_slice());
        let mut chunks = Vec::new();
        let mut at = 0;
        for Member { range, rate_scale, weight_decay, .. } in &self.members {
            let numbers = Numbers::new(rule, factor, (learning_rate * rate_scale, *weight_decay), n_before);
            values = values.split_at_mut(range.start - at).1;
            for start in range.clone().step_by(CHUNK) {
                let len = CHUNK.min(range.end - start);
                let parts = (values.split_off_mut(..len), first.split_off_mut(..len), second.split_off_mut(..len));
                let (Some(values), Some(first), Some(second)) = parts else { unreachable!("moments of each member") };
                chunks.push(Chunk { values, first, second, gradient: &gradient[start..start + len], numbers });
            }
            at = range.end;
        }
        chunks.into_par_iter().for_each(dispatch);
    }
}

/// What an update multiplies and adds, the same for all numbers of a parameter.
#[derive(Clone, Copy)]
struct Numbers {
    beta1: f32,
    beta2: f32,
    factor: f32,
    /// Learning rate over the first average's bias.
    rate: f32,
    /// One over the root of the second average's bias.
    root: f32,
    eps: f32,
    /// What decay leaves of a number.
    keep: f32,
}

impl Numbers {
    fn new(rule: &OptimizerSection, factor: f64, (rate, weight_decay): (f64, f64), n_before: u64) -> Self {
        let exponent = (n_before + 1) as f64;
        let (bias1, bias2) = (1.0 - rule.beta1.powf(exponent), 1.0 - rule.beta2.powf(exponent));
        Self {
            beta1: rule.beta1 as f32,
            beta2: rule.beta2 as f32,
            factor: factor as f32,
            rate: (rate / bias1) as f32,
            root: (1.0 / bias2.sqrt()) as f32,
            eps: rule.eps as f32,
            keep: (1.0 - rate * weight_decay) as f32,
        }
    }
}

/// Neighbouring numbers of one parameter.
struct Chunk<'a> {
    values: &'a mut [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
    gradient: &'a [f32],
    numbers: Numbers,
}

impl Kernel for Chunk<'_> {
    type Output = ();

    /// Plain arithmetic, which the compiler turns into vectors as wide as the CPU's and never fuses: the same bits everywhere.
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Numbers { beta1, beta2, factor, rate, root, eps, keep } = self.numbers;
        let averages = self.first.iter_mut().zip(self.second);
        for ((value, (m, v)), gradient) in self.values.iter_mut().zip(averages).zip(self.gradient) {
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
    use crate::tensor::{ParamLayout, Params};
    use crate::train::optimizer::Optimizer;

    #[test]
    fn vectors_and_threads_leave_the_bits_of_the_plain_expression() {
        let rule: OptimizerSection = toml::from_str("learning_rate = 0.1\nweight_decay = 0.3").unwrap();
        let mut layout = ParamLayout::default();
        layout.matrix("w", 3, CHUNK / 2 + 5);
        layout.matrix("v", 7, 1);
        let numbers = |scale: f32| (0..layout.len()).map(|i| (i as f32 * scale).sin()).collect::<Vec<f32>>();
        let mut params = Params { values: numbers(0.7).as_slice().into(), layout: layout.clone() };
        let mut optimizer = Optimizer::new(&rule, &layout).unwrap();
        let mut want: Vec<[f32; 3]> = params.values.iter().map(|x| [*x, 0.0, 0.0]).collect();
        for step in 0..3 {
            let gradient = numbers(0.3 + step as f32);
            optimizer.update(&mut params, &gradient, 0.7, 0.1, step);
            let Numbers { beta1, beta2, factor, rate, root, eps, keep } = Numbers::new(&rule, 0.7, (0.1, 0.3), step);
            for ([x, m, v], g) in want.iter_mut().zip(&gradient) {
                let g = std::hint::black_box(g * factor);
                *m = beta1 * *m + (1.0 - beta1) * g;
                *v = beta2 * *v + (1.0 - beta2) * g * g;
                *x = *x * keep - rate * *m / (v.sqrt() * root + eps);
            }
        }
        assert!(params.values.iter().zip(&want).all(|(got, [want, ..])| got.to_bits() == want.to_bits()));
    }
}
