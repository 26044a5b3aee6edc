//! Norms, activations and gates: against the plain loops on every length, and against bits that were recorded once.

use siskin_runtime::kernels::{Activation, generic};
use siskin_runtime::{Kernels, LogitsHash};

use crate::random::Random;
use crate::{Memory, Mismatch};

const LEN_MAX: usize = 72;
/// Of all results on any machine, in their order.
const RECORDED: LogitsHash = LogitsHash(0xa1d9_c432_4c77_ee99);

/// A number up to 8 in magnitude, small ones as often as large ones.
fn element(random: &mut Random) -> f32 {
    f32::from_bits(random.bits() & 0x8000_0000 | (115 + random.below(15)) << 23 | random.below(1 << 23))
}

fn numbers(random: &mut Random) -> [f32; LEN_MAX] {
    core::array::from_fn(|_| element(random))
}

pub(crate) fn check(kernels: Kernels, _: &mut Memory) -> Result<usize, Mismatch> {
    let mut random = Random::new(8);
    let (mut n_cases, mut hash) = (0, LogitsHash::EMPTY);
    for len in (1..=40).chain([63, 64, 71, 72]) {
        let (x, gain, bias) = (numbers(&mut random), numbers(&mut random), numbers(&mut random));
        let (x, gain, bias) = (&x[..len], &gain[..len], &bias[..len]);
        for function in 0..4 + Activation::ALL.len() {
            n_cases += 1;
            let (mut got, mut want) = ([1.5; LEN_MAX], [1.5; LEN_MAX]);
            match function {
                0 => {
                    kernels.rmsnorm(&mut got[..len], x, gain, 1e-5);
                    generic::rmsnorm(&mut want[..len], x, gain, 1e-5);
                }
                1 => {
                    kernels.layernorm(&mut got[..len], x, gain, bias, 1e-12);
                    generic::layernorm(&mut want[..len], x, gain, bias, 1e-12);
                }
                2 => {
                    kernels.multiply(&mut got[..len], x);
                    generic::multiply(&mut want[..len], x);
                }
                3 => {
                    let dim = len / 3;
                    kernels.recur(&mut got[..dim], x, gain);
                    generic::recur(&mut want[..dim], x, gain);
                }
                other => {
                    let activation = Activation::ALL[other - 4];
                    got[..len].copy_from_slice(x);
                    want[..len].copy_from_slice(x);
                    kernels.activate(activation, &mut got[..len]);
                    generic::activate(activation, &mut want[..len]);
                }
            }
            if let Some(at) = got.iter().zip(&want).position(|(got, want)| got.to_bits() != want.to_bits()) {
                let case = [("len", len), ("function", function), ("at", at), ("backend", 0)];
                return Err(Mismatch { kernel: "functions", case });
            }
            hash.add(&got);
        }
    }
    if hash != RECORDED {
        let halves = [("high", (hash.0 >> 32) as usize), ("low", hash.0 as u32 as usize)];
        let case = [("recorded", 0), halves[0], halves[1], ("cases", n_cases)];
        return Err(Mismatch { kernel: "functions", case });
    }
    Ok(n_cases)
}
