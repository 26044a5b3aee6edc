//! Rows of the KV cache that are unpacked before attention: four bits an element, and halves.

use siskin_runtime::Kernels;
use siskin_runtime::kv_cache::{f16, int4};

use crate::random::{Fill, Random};
use crate::{Memory, Mismatch};

const HEAD_DIM_MAX: usize = 64;
const POSITIONS: usize = 3;

pub(crate) fn check(_: Kernels, _: &mut Memory) -> Result<usize, Mismatch> {
    let mut n_cases = 0;
    for head_dim in (1..=33).chain([48, HEAD_DIM_MAX]) {
        for fill in Fill::ALL {
            n_cases += 1;
            let mut random = Random::new((head_dim * 541) as u32);
            let cases = [
                ("int4::unpack", unpacks_int4(&mut random, head_dim)),
                ("int4::pack", packs_int4(&mut random, head_dim, fill)),
                ("f16::unpack", unpacks_f16(&mut random, head_dim)),
                ("f16::pack", packs_f16(&mut random, head_dim)),
            ];
            for (kernel, differs) in cases {
                if let Some(at) = differs {
                    let case = [("head_dim", head_dim), ("positions", POSITIONS), ("fill", fill as usize), ("at", at)];
                    return Err(Mismatch { kernel, case });
                }
            }
        }
    }
    Ok(n_cases)
}

/// Where four bits of any rows are unpacked to something else than steps down from the extreme.
fn unpacks_int4(random: &mut Random, head_dim: usize) -> Option<usize> {
    let row_bytes = int4::row_bytes(head_dim);
    let mut rows = [0u8; POSITIONS * HEAD_DIM_MAX / 2];
    let rows = &mut rows[..POSITIONS * row_bytes];
    rows.iter_mut().for_each(|byte| *byte = random.bits() as u8);
    let words = [(); POSITIONS].map(|()| random.bits() as u16);
    let (mut elements, mut scales) = ([99; POSITIONS * HEAD_DIM_MAX], [0; POSITIONS]);
    let elements = &mut elements[..POSITIONS * head_dim];
    int4::unpack(rows, &words, head_dim, elements, &mut scales);
    let want = |at: usize| {
        let (position, i) = (at / head_dim, at % head_dim);
        let byte = rows[position * row_bytes + i % row_bytes];
        let steps = if i < row_bytes { byte & 15 } else { byte >> 4 };
        let down = i32::from(steps) * (i32::from(words[position] & 7) + 9);
        if words[position] < 0x8000 { 120 - down } else { down - 120 }
    };
    let differs = (0..elements.len()).find(|&at| i32::from(elements[at]) != want(at));
    differs.or_else(|| (0..POSITIONS).find(|&position| scales[position] != words[position] & 0x7ff8))
}

/// Where a row in eight bits is packed to another step, or to steps that are not the nearest.
fn packs_int4(random: &mut Random, head_dim: usize, fill: Fill) -> Option<usize> {
    let (mut elements, mut row) = ([0i8; HEAD_DIM_MAX], [0u8; HEAD_DIM_MAX / 2]);
    let elements = &mut elements[..head_dim];
    elements.iter_mut().for_each(|element| *element = random.value(fill));
    let row = &mut row[..int4::row_bytes(head_dim)];
    let word = int4::pack(elements, row);
    let (mut least, mut greatest) = (0, 0);
    for &element in &*elements {
        (least, greatest) = (i32::from(element).min(least), i32::from(element).max(greatest));
    }
    let (sign, end) = if -least > greatest { (-1, -greatest) } else { (1, least) };
    let step = if least == greatest { 10 } else { (9..16).find(|step| 31 * step >= 2 * (120 - end)).unwrap_or(16) };
    if i32::from(word) != step - 9 + if sign < 0 { 0x8000 } else { 0 } {
        return Some(head_dim);
    }
    let steps = |i: usize| {
        let down = 2 * (120 - sign * i32::from(elements[i])) + step;
        if down < 0 { 0 } else { (down / (2 * step)).min(15) }
    };
    (0..head_dim).find(|&i| {
        let byte = row[i % row.len()];
        i32::from(if i < row.len() { byte & 15 } else { byte >> 4 }) != steps(i)
    })
}

/// Where halves, whatever their bits, are unpacked to something else than the nearest integers in units of their row.
fn unpacks_f16(random: &mut Random, head_dim: usize) -> Option<usize> {
    let mut rows = [0u8; 2 * POSITIONS * HEAD_DIM_MAX];
    let rows = &mut rows[..2 * POSITIONS * head_dim];
    // Exponents far from each other and near, and subnormal numbers.
    let (exponents, first) = (1 + random.below(32), random.below(32));
    for half in rows.as_chunks_mut().0 {
        let exponent = (first + random.below(exponents)).min(31);
        *half = (random.bits() as u16 & 0x83ff | (exponent << 10) as u16).to_le_bytes();
    }
    let (mut bytes, mut scales) = ([99; 2 * POSITIONS * HEAD_DIM_MAX], [0; POSITIONS]);
    let (high, low) = bytes[..2 * POSITIONS * head_dim].split_at_mut(POSITIONS * head_dim);
    f16::unpack(rows, head_dim, high, low, &mut scales);
    let half = |at: usize| u32::from(u16::from_le_bytes(rows.as_chunks().0[at]));
    let exponent = |at: usize| (half(at) >> 10 & 31).max(1);
    (0..high.len()).find(|&at| {
        let row = at / head_dim * head_dim;
        let greatest = (row..row + head_dim).map(exponent).fold(1, u32::max);
        let mantissa = half(at) & 0x3ff | if half(at) >> 10 & 31 == 0 { 0 } else { 0x400 };
        let (numerator, shift) = (u64::from(mantissa) << 3, greatest - exponent(at));
        // The nearest multiple, the greater of two.
        let nearest = ((numerator << 1) + (1 << shift)) >> (shift + 1);
        let integer = i64::from(high[at]) * 128 + i64::from(low[at]);
        let is_negative = half(at) & 0x8000 != 0;
        u32::from(scales[at / head_dim]) != (greatest + 106) << 7
            || integer != if is_negative { -(nearest as i64) } else { nearest as i64 }
            || high[at] == i8::MIN
    })
}

/// Where a number is packed to something else than the nearest half: a half itself, what lies in the middle, and what lies beside that.
fn packs_f16(random: &mut Random, head_dim: usize) -> Option<usize> {
    let (mut numbers, mut wanted) = ([[0.0f32; HEAD_DIM_MAX]; 2], [[0u16; HEAD_DIM_MAX]; 2]);
    let (mut row, mut differs) = ([0u8; 2 * HEAD_DIM_MAX], None);
    for i in 0..head_dim {
        let (half, sign) = (0x400 + random.below(0x7bff - 0x400) as u16, random.bits() & 0x8000);
        let bits = ((u32::from(half) << 13) + (112 << 23)) | (sign << 16);
        let (middle, sign) = (random.bits() & 1, sign as u16);
        numbers[0][i] = f32::from_bits(bits + 0xfff * middle);
        wanted[0][i] = half | sign;
        numbers[1][i] = f32::from_bits(bits + 0x1000 + middle);
        wanted[1][i] = (half + if middle == 1 { 1 } else { half & 1 }) | sign;
    }
    // Not finite, too large, and too small for all bits of a half.
    numbers[0][0] = [f32::NAN, f32::NEG_INFINITY, 70_000.0, -3.0 / 16_777_216.0, 1e-30][random.below(5) as usize];
    let special = numbers[0][0];
    wanted[0][0] = match special {
        _ if special.is_nan() || special == 1e-30 => 0,
        _ if special < -1.0 => 0xfbff,
        _ if special > 1.0 => 0x7bff,
        _ => 0x8003,
    };
    for (numbers, wanted) in numbers.iter().zip(&wanted) {
        f16::pack(&numbers[..head_dim], &mut row[..2 * head_dim]);
        let halves = row.as_chunks().0;
        differs = differs.or((0..head_dim).find(|&i| u16::from_le_bytes(halves[i]) != wanted[i]));
    }
    differs
}
