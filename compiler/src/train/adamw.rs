//! AdamW: Adam with weight decay kept out of the moments.

use super::groups::Member;
use crate::recipe::OptimizerSection;
use crate::tensor::bf16::{Dithers, Numbers, Stored};
use crate::tensor::simd::{Kernel, Sixteen, dispatch};
use crate::tensor::{Dtype, WeightMut};
use rayon::prelude::*;

/// Numbers that a thread updates at a time. Each is updated on its own, so how they are cut leaves no trace.
const CHUNK: usize = 1 << 14;

/// The rule for some of a model's parameters, and its running averages of their gradients.
#[derive(Clone, Debug)]
pub(super) struct AdamW {
    /// Whose parameters, in the order of their places.
    members: Vec<Member>,
    /// Running averages of the gradient, of one member after the other.
    pub first_moments: Numbers,
    /// Running averages of the squared gradient, laid out alike.
    pub second_moments: Numbers,
}

impl AdamW {
    /// The state before the first step, stored as `dtype`.
    pub fn new(members: Vec<Member>, dtype: Dtype) -> Self {
        let len = members.iter().map(|member| member.range.len()).sum();
        Self { members, first_moments: Numbers::zeros(dtype, len), second_moments: Numbers::zeros(dtype, len) }
    }

    /// One update with the gradient times `factor`; `n_before` updates were made before it. Takes its members of all parameters.
    pub fn update(
        &mut self,
        weights: &mut [Option<WeightMut<'_>>],
        gradient: &[f32],
        factor: f64,
        rule: &OptimizerSection,
        (learning_rate, n_before): (f64, u64),
    ) {
        let Self { members, first_moments, second_moments } = self;
        let dithers = Dithers::new(n_before);
        let scales = |member: &Member| {
            Scales::new(rule, factor, (learning_rate * member.rate_scale, member.weight_decay), n_before)
        };
        match (first_moments, second_moments) {
            (Numbers::F32(first), Numbers::F32(second)) => {
                update_all(members, weights, (first, second), gradient, dithers, scales);
            }
            (Numbers::Bf16(first), Numbers::Bf16(second)) => {
                update_all(members, weights, (first, second), gradient, dithers, scales);
            }
            _ => unreachable!("both moments are stored alike"),
        }
    }
}

/// Updates the parameters of all members, some numbers of one at a time.
fn update_all<S: Stored>(
    members: &[Member],
    weights: &mut [Option<WeightMut<'_>>],
    (mut first, mut second): (&mut [S], &mut [S]),
    gradient: &[f32],
    dithers: Dithers,
    scales: impl Fn(&Member) -> Scales,
) {
    let mut chunks = Vec::new();
    for member in members {
        let (range, scales) = (member.range.clone(), scales(member));
        let Some(mut weights) = weights[member.param_idx].take() else { unreachable!("each parameter once") };
        for start in range.clone().step_by(CHUNK) {
            let len = CHUNK.min(range.end - start);
            let moments = (first.split_off_mut(..len), second.split_off_mut(..len));
            let (Some(first), Some(second)) = moments else { unreachable!("moments of each member") };
            let gradient = &gradient[start..start + len];
            let moments = Moments { first, second, gradient, scales, dithers, start };
            chunks.push((weights.split_off(len), moments));
        }
    }
    chunks.into_par_iter().for_each(|(weights, moments)| match weights {
        WeightMut::F32(values) => dispatch(Chunk { values, moments }),
        WeightMut::Bf16(values) => dispatch(Chunk { values, moments }),
    });
}

/// What an update multiplies and adds, the same for all numbers of a parameter.
#[derive(Clone, Copy)]
struct Scales {
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

impl Scales {
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
struct Chunk<'a, W, S> {
    values: &'a mut [W],
    moments: Moments<'a, S>,
}

/// What belongs to neighbouring numbers of one parameter.
struct Moments<'a, S> {
    first: &'a mut [S],
    second: &'a mut [S],
    gradient: &'a [f32],
    scales: Scales,
    dithers: Dithers,
    /// The place of the first among all parameters.
    start: usize,
}

impl<W: Stored, S: Stored> Kernel for Chunk<'_, W, S> {
    type Output = ();

    /// Plain arithmetic, which the compiler turns into vectors as wide as the CPU's and never fuses: the same bits everywhere.
    #[inline(always)]
    fn run<V: Sixteen>(self) {
        let Moments { first, second, gradient, scales, dithers, start } = self.moments;
        let Scales { beta1, beta2, factor, rate, root, eps, keep } = scales;
        let mut place = start as u32;
        for ((value, (first, second)), gradient) in
            self.values.iter_mut().zip(first.iter_mut().zip(second)).zip(gradient)
        {
            let g = gradient * factor;
            let m = beta1 * first.widen() + (1.0 - beta1) * g;
            let v = beta2 * second.widen() + (1.0 - beta2) * g * g;
            let x = value.widen() * keep - rate * m / (v.sqrt() * root + eps);
            let bits = dithers.state.bits(place);
            (*first, *second) = (S::round(m, bits), S::round(v, bits >> 16));
            *value = W::round(x, dithers.weights.bits(place));
            place = place.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::bf16::bf16;
    use crate::tensor::{ParamLayout, Params};
    use crate::train::optimizer::Optimizer;

    fn check<W: Stored, S: Stored>(weights: Dtype, dtype: &str) {
        let text = format!("learning_rate = 0.1\nweight_decay = 0.3\nstate_dtype = '{dtype}'");
        let rule: OptimizerSection = toml::from_str(&text).unwrap();
        let mut layout = ParamLayout::default();
        layout.matrix("w", 3, CHUNK / 2 + 5);
        layout.matrix("v", 7, 1);
        let numbers = |scale: f32| (0..layout.len()).map(|i| (i as f32 * scale).sin()).collect::<Vec<f32>>();
        let mut params = Params::new(layout.clone(), numbers(0.7).as_slice().into()).stored_as(weights);
        let mut optimizer = Optimizer::new(&rule, &layout).unwrap();
        let start = S::round(0.0, 0);
        let first = params.clone().stored_as(Dtype::F32);
        let mut want: Vec<(W, S, S)> = first.values.iter().map(|x| (W::round(*x, 0), start, start)).collect();
        for step in 0..3 {
            let gradient = numbers(0.3 + step as f32);
            optimizer.update(&mut params, &gradient, 0.7, 0.1, step);
            let Scales { beta1, beta2, factor, rate, root, eps, keep } = Scales::new(&rule, 0.7, (0.1, 0.3), step);
            for (place, ((x, first, second), g)) in want.iter_mut().zip(&gradient).enumerate() {
                let g = std::hint::black_box(g * factor);
                let m = beta1 * first.widen() + (1.0 - beta1) * g;
                let v = beta2 * second.widen() + (1.0 - beta2) * g * g;
                let new = x.widen() * keep - rate * m / (v.sqrt() * root + eps);
                let (Dithers { state, weights }, place) = (Dithers::new(step), place as u32);
                *x = W::round(new, weights.bits(place));
                (*first, *second) = (S::round(m, state.bits(place)), S::round(v, state.bits(place) >> 16));
            }
        }
        let got = params.stored_as(Dtype::F32);
        let is_same = |(got, (want, ..)): (&f32, &(W, S, S))| got.to_bits() == want.widen().to_bits();
        assert!(got.values.iter().zip(&want).all(is_same), "{weights:?}, {dtype}");
    }

    #[test]
    fn vectors_and_threads_leave_the_bits_of_the_plain_expression() {
        check::<f32, f32>(Dtype::F32, "f32");
        check::<f32, bf16>(Dtype::F32, "bf16");
        check::<bf16, f32>(Dtype::Bf16, "f32");
        check::<bf16, bf16>(Dtype::Bf16, "bf16");
    }

    /// To the nearest, an average that loses a thousandth a step would never leave a number of eight bits.
    #[test]
    fn averages_of_16_bits_follow_the_gradient() {
        let rule: OptimizerSection =
            toml::from_str("learning_rate = 0.1\nbeta2 = 0.999\nstate_dtype = 'bf16'").unwrap();
        let mut layout = ParamLayout::default();
        layout.matrix("w", 64, 64);
        let mut params = Params::zeros(layout.clone());
        let mut optimizer = Optimizer::new(&rule, &layout).unwrap();
        let mut want = 0.0;
        for (step, g) in [[1.0; 500], [0.25; 500]].concat().into_iter().enumerate() {
            optimizer.update(&mut params, &vec![g; layout.len()], 1.0, 0.0, step as u64);
            want = 0.999 * want + 0.001 * f64::from(g * g);
            if step % 250 == 249 {
                let state = optimizer.state();
                let Some((_, Numbers::Bf16(moments))) = state.last() else { panic!("second moments in 16 bits") };
                let mean = moments.iter().map(|v| f64::from(v.widen())).sum::<f64>() / moments.len() as f64;
                assert!((mean - want).abs() < 0.004 * want, "after {step} steps {mean}, not {want}");
            }
        }
    }
}
