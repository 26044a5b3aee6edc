//! The f32 kernels between matrix products: whatever a backend makes lanes of, each element has the bits of the generic loops.

use siskin_runtime::Kernels;
use siskin_runtime::kernels::generic;

use crate::random::Random;
use crate::{Memory, Mismatch};

const LEN_MAX: usize = 68;

/// Ordinary numbers, ones beyond the range of the activation's polynomial, and zeros of both signs.
fn element(random: &mut Random) -> f32 {
    let sign = random.bits() & 0x8000_0000;
    let exponent = match random.below(8) {
        0 => return f32::from_bits(sign),
        1 => 131 + random.below(4),
        _ => 118 + random.below(12),
    };
    f32::from_bits(sign | exponent << 23 | random.below(1 << 23))
}

fn numbers(random: &mut Random) -> [f32; LEN_MAX] {
    core::array::from_fn(|_| element(random))
}

/// One kernel's result and the definition's, of `len` elements; what follows must stay untouched.
fn compare(kernel: &'static str, len: usize, got: &[f32; LEN_MAX], want: &[f32; LEN_MAX]) -> Result<(), Mismatch> {
    match got.iter().zip(want).position(|(got, want)| got.to_bits() != want.to_bits()) {
        None => Ok(()),
        Some(at) => Err(Mismatch { kernel, case: [("len", len), ("at", at), ("", 0), ("", 0)] }),
    }
}

pub(crate) fn check(kernels: Kernels, _: &mut Memory) -> Result<usize, Mismatch> {
    let mut n_cases = 0;
    let mut random = Random::new(5);
    for len in 1..=LEN_MAX {
        // Seven kernels.
        n_cases += 7;
        let (x, y) = (numbers(&mut random), numbers(&mut random));
        let (mut got, mut want) = ([0.0; LEN_MAX], [0.0; LEN_MAX]);
        kernels.rmsnorm(&mut got[..len], &x[..len], &y[..len], 1e-5);
        generic::rmsnorm(&mut want[..len], &x[..len], &y[..len], 1e-5);
        compare("rmsnorm", len, &got, &want)?;
        kernels.swiglu(&mut got[..len], &x[..len], &y[..len]);
        generic::swiglu(&mut want[..len], &x[..len], &y[..len]);
        compare("swiglu", len, &got, &want)?;
        kernels.add(&mut got[..len], &y[..len]);
        generic::add(&mut want[..len], &y[..len]);
        compare("add", len, &got, &want)?;
        let turned = len / 2 * 2;
        kernels.rotate(&mut got[..turned], &y[..turned]);
        generic::rotate(&mut want[..turned], &y[..turned]);
        compare("rotate", turned, &got, &want)?;
        let (mut got, mut want) = ([7i8; LEN_MAX], [7i8; LEN_MAX]);
        let scale = kernels.quantize_to_int8(&x[..len], &mut got[..len]);
        let same = scale.to_bits() == generic::quantize_to_int8(&x[..len], &mut want[..len]).to_bits();
        if !same || got != want {
            return Err(Mismatch { kernel: "quantize_to_int8", case: [("len", len), ("", 0), ("", 0), ("", 0)] });
        }
        let (got_scale, want_scale) =
            (kernels.store(&x[..len], &mut got[..len]), generic::store(&x[..len], &mut want[..len]));
        if got_scale != want_scale || got != want {
            return Err(Mismatch { kernel: "store", case: [("len", len), ("", 0), ("", 0), ("", 0)] });
        }
        // Sums of every size, and none.
        let sums: [i32; LEN_MAX] = core::array::from_fn(|_| random.bits() as i32 >> random.below(32));
        let factor = if len == 1 { 0.0 } else { random.scale() };
        let (mut got, mut want) = ([0.0; LEN_MAX], [0.0; LEN_MAX]);
        kernels.scale_integers(&mut got[..len], &sums[..len], factor);
        generic::scale_integers(&mut want[..len], &sums[..len], factor);
        compare("scale_integers", len, &got, &want)?;
    }
    Ok(n_cases)
}
