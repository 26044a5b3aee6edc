//! The f32 kernels between matrix products: norm, activation, rotation, residual, and quantisation to int8.
//!
//! Against the plain loops that are their definition. What a vector unit that flushes subnormal numbers would get wrong is among the
//! numbers: ones whose squares, products, sums and differences are subnormal, and zeros, which look like it.

use siskin_runtime::Kernels;
use siskin_runtime::kernels::generic;
use siskin_runtime::kv_cache::ScaleFormat;

use crate::random::Random;
use crate::{Memory, Mismatch};

const LEN_MAX: usize = 72;

/// Which numbers a case has.
const KINDS: usize = 10;

/// A number with an exponent in `from..from + n`, either sign.
fn number(random: &mut Random, from: u32, n: u32) -> f32 {
    f32::from_bits(random.bits() & 0x8000_0000 | (from + random.below(n)) << 23 | random.below(1 << 23))
}

fn element(random: &mut Random, kind: usize) -> f32 {
    let ordinary = number(random, 118, 17);
    match (kind, random.below(8)) {
        (0, _) => ordinary,
        (1, 0) => 0.0,
        (1, 1) => -0.0,
        // Squares and products of these are subnormal, or zero.
        (2, 0..3) => number(random, 40, 40),
        (3, _) => number(random, 1, 60),
        (4, 0..4) => number(random, 0, 3),
        (5, _) => number(random, 0, 26),
        (6, 0) => f32::NAN,
        (7, 0) => f32::NEG_INFINITY,
        (8, _) => number(random, 180, 74),
        // Any at all.
        (9, _) => number(random, 0, 255),
        _ => ordinary,
    }
}

fn fill(random: &mut Random, kind: usize, out: &mut [f32]) {
    out.iter_mut().for_each(|out| *out = element(random, kind));
}

/// Where two results differ; one that is not a number is like another.
fn difference(got: &[f32], want: &[f32]) -> Option<usize> {
    got.iter().zip(want).position(|(got, want)| got.to_bits() != want.to_bits() && !(got.is_nan() && want.is_nan()))
}

pub(crate) fn check(kernels: Kernels, _: &mut Memory) -> Result<usize, Mismatch> {
    let mut n_cases = 0;
    let mut random = Random::new(5);
    for len in (1..=40).chain([64, 67, 72]) {
        for kind in 0..KINDS {
            for other_kind in [0, 1, kind] {
                n_cases += 1;
                let mut buffers = [[0.0; LEN_MAX]; 2];
                let [a, b] = buffers.each_mut().map(|buffer| &mut buffer[..len]);
                fill(&mut random, kind, a);
                fill(&mut random, other_kind, b);
                // Sums that cancel but for the last places.
                if len.is_multiple_of(3) {
                    b[0] = -f32::from_bits(a[0].to_bits() ^ 1);
                }
                check_all(kernels, a, b).map_err(|(kernel, at)| Mismatch {
                    kernel,
                    case: [("len", len), ("kind", kind), ("other_kind", other_kind), ("at", at)],
                })?;
            }
        }
    }
    Ok(n_cases)
}

/// Every kernel on the same numbers; `Err` holds one that differs, and where.
fn check_all(kernels: Kernels, a: &[f32], b: &[f32]) -> Result<(), (&'static str, usize)> {
    let len = a.len();
    let mut results = [[7.0; LEN_MAX]; 2];
    // What lies behind an output must stay untouched.
    let [got, want] = &mut results;
    let mut compare = |name, run: &dyn Fn(Kernels, &mut [f32]), define: &dyn Fn(&mut [f32])| {
        run(kernels, &mut got[..len]);
        define(&mut want[..len]);
        difference(got, want).map_or(Ok(()), |at| Err((name, at)))
    };
    for eps in [0.0, 1e-5] {
        compare("rmsnorm", &|kernels, out| kernels.rmsnorm(out, a, b, eps), &|out| generic::rmsnorm(out, a, b, eps))?;
    }
    compare("swiglu", &|kernels, out| kernels.swiglu(out, a, b), &|out| generic::swiglu(out, a, b))?;
    let add = |out: &mut [f32], add: &dyn Fn(&mut [f32], &[f32])| {
        out.copy_from_slice(a);
        add(out, b);
    };
    compare("add", &|kernels, out| add(out, &|x, y| kernels.add(x, y)), &|out| add(out, &generic::add))?;
    if len.is_multiple_of(2) {
        let rotate = |kernels: Kernels, out: &mut [f32]| add(out, &|x, cos_sin| kernels.rotate(x, cos_sin));
        compare("rotate", &rotate, &|out| add(out, &generic::rotate))?;
    }
    let factor = b[len - 1];
    let mut sums = [0; LEN_MAX];
    sums.iter_mut().zip(a).for_each(|(sum, a)| *sum = a.to_bits() as i32);
    let sums = &sums[..len];
    compare("scale_integers", &|kernels, out| kernels.scale_integers(out, sums, factor), &|out| {
        generic::scale_integers(out, sums, factor);
    })?;
    if kernels.greatest_bits(a) != generic::greatest_bits(a) {
        return Err(("greatest_bits", 0));
    }
    for head_dim in [2, 8] {
        if len.is_multiple_of(head_dim) {
            let (want, head) = (&mut want[..len], &b[..head_dim]);
            let turn =
                |out: &mut [f32]| add(out, &|x, _| x.chunks_mut(head_dim).for_each(|x| generic::rotate(x, head)));
            add(&mut got[..len], &|x, _| kernels.rotate_heads(x, head));
            turn(want);
            if let Some(at) = difference(&got[..len], want) {
                return Err(("rotate_heads", at));
            }
        }
    }
    quantizes(a, &|x, values| kernels.quantize_to_int8(x, values).to_bits(), &|x, values| {
        generic::quantize_to_int8(x, values).to_bits()
    })
    .map_err(|at| ("quantize_to_int8", at))?;
    for scales in ScaleFormat::ALL {
        quantizes(a, &|x, values| kernels.store(x, values, scales).into(), &|x, values| {
            generic::store(x, values, scales).into()
        })
        .map_err(|at| ("store", at))?;
    }
    let (mut bytes, mut unpacked) = ([0; LEN_MAX], [7; LEN_MAX + 1]);
    bytes.iter_mut().zip(a).for_each(|(byte, a)| *byte = (a.to_bits() >> 11) as u8);
    kernels.unpack_ue5m3(&bytes[..len], &mut unpacked[..len]);
    let wanted = |at: usize| if at < len { 0x3380 + 16 * u16::from(bytes[at]) } else { 7 };
    (0..=LEN_MAX).find(|&at| unpacked[at] != wanted(at)).map_or(Ok(()), |at| Err(("unpack_ue5m3", at)))
}

/// A quantisation to int8; gives the bits of the scale.
type Quantize<'a> = &'a dyn Fn(&[f32], &mut [i8]) -> u32;

/// Whether a quantisation does what it should; else where not. With a scale of 0, what is not finite rounds to anything.
fn quantizes(x: &[f32], run: Quantize<'_>, define: Quantize<'_>) -> Result<(), usize> {
    let (mut got, mut want) = ([7i8; LEN_MAX], [7i8; LEN_MAX]);
    let is_same_scale = run(x, &mut got[..x.len()]) == define(x, &mut want[..x.len()]);
    let differs = |at: &usize| got[*at] != want[*at] && x.get(*at).is_none_or(|x| x.is_finite());
    match (0..LEN_MAX).find(differs) {
        None if is_same_scale => Ok(()),
        at => Err(at.unwrap_or(x.len())),
    }
}
