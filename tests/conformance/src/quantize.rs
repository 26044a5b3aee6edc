//! Quantisation of activations and queries.

use siskin_runtime::Kernels;

use crate::random::Random;
use crate::{Memory, Mismatch};

const LEN_MAX: usize = 128;

/// Numbers that a scale may not come from, ones that round half-way, and ordinary ones.
fn element(random: &mut Random, kind: usize) -> f32 {
    let ordinary = f32::from_bits(random.bits() & 0x8000_0000 | (100 + random.below(30)) << 23 | random.below(1 << 23));
    match (kind, random.below(8)) {
        (1, _) => random.int8() as f32 * 0.5,
        (2, 0) => f32::NAN,
        (3, 0) => f32::NEG_INFINITY,
        (4, _) => ordinary * 1e-38,
        (5, _) => 0.0,
        (6, _) => ordinary * 1e30,
        _ => ordinary,
    }
}

pub(crate) fn check(kernels: Kernels, _: &mut Memory) -> Result<usize, Mismatch> {
    let mut n_cases = 0;
    let mut random = Random::new(3);
    for len in (1..=40).chain([64, 127, 128]) {
        for kind in 0..7 {
            for limit in [127.0f32, 16383.0] {
                n_cases += 1;
                let mut x = [0.0; LEN_MAX];
                let x = &mut x[..len];
                x.iter_mut().for_each(|x| *x = element(&mut random, kind));
                let mut values = [7i16; LEN_MAX];
                let scale = kernels.quantize_to(limit, x, &mut values[..len]);
                let largest = x.iter().fold(0, |most, x| most.max(x.abs().to_bits()));
                let is_usable = (27 << 23..0x7f80_0000).contains(&largest);
                let largest = f32::from_bits(largest);
                let (want_scale, inverse) =
                    if is_usable { (largest * (1.0 / limit), limit / largest) } else { (0.0, 0.0) };
                let wrong = x.iter().zip(&values).position(|(&x, &value)| {
                    // With no scale, what is not finite rounds to anything.
                    let is_defined = (x * inverse).is_finite();
                    is_defined && f32::from(value) != x * inverse + 12_582_912.0 - 12_582_912.0
                });
                let is_untouched = values[len..].iter().all(|&value| value == 7);
                if scale.to_bits() != want_scale.to_bits() || wrong.is_some() || !is_untouched {
                    let at = wrong.unwrap_or(len);
                    let case = [("len", len), ("kind", kind), ("limit", limit as usize), ("at", at)];
                    return Err(Mismatch { kernel: "quantize_to", case });
                }
            }
        }
    }
    Ok(n_cases)
}
