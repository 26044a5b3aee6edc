//! Kernels on a few generated numbers, and the answers: hashes of what the definition gives, on every core and from every layout.
//!
//! Shapes are small, with several groups, tiles and vectors where there are such, and rests behind them. That a kernel is right at every length
//! is for the conformance cases; here a part is tried whose kernels passed them: its memory, its compiler's code, its modes of rounding.

use core::array;

use siskin_runtime::kernels::{Activation, matmul_f32_q8_q8};
use siskin_runtime::kv_cache::{KvFormat, ScaleFormat, f16, int4};
use siskin_runtime::parts::{FeedForward, NormKind, Positions};
use siskin_runtime::tensor::{ActivationsQ8, MatrixQ8, Scales, quantize};
use siskin_runtime::{Aligned, Kernels, PackedModel, Serial, WeightFormat, WeightLayout};

/// Rows of a product.
const ROWS: usize = 13;
/// Its columns.
const COLS: usize = 40;
/// Bytes of its weights in any layout, padding included.
const DATA_BYTES: usize = 16 * 48;
/// Its scales in any layout, padding included.
const N_SCALES: usize = 16 * 2;
/// Positions that a query attends to.
const POSITIONS: usize = 8;
/// Width of a head, where the model's are not [`NARROW`].
const WIDE: usize = 24;
/// A width of which a core may know more, and less of others where the model's heads have it.
const NARROW: usize = 8;
/// Elements of a vector.
const LEN: usize = 24;

/// Tries the kernels that `model` runs; `Err` holds the name of the first that computes something else than its answer.
pub fn check(model: &PackedModel<'_>, kernels: Kernels) -> Result<(), &'static str> {
    let (header, parts) = (model.header(), model.config().parts());
    for format in WeightFormat::ALL {
        if model.tensors().any(|tensor| tensor.format(header.format) == Some(format)) {
            check_product(kernels, header.layout, format)?;
        }
    }
    check_add(kernels)?;
    if parts.is_recurrent {
        return check_recur(kernels);
    }
    check_attention(kernels, model.config().head_dim == NARROW)?;
    if let Some(scales) = header.kv.scale_format() {
        check_store(kernels, scales)?;
    }
    match header.kv {
        KvFormat::Int4 => check_int4()?,
        KvFormat::F16 => check_f16()?,
        KvFormat::Int8 | KvFormat::Int8Ue5m3 => {}
    }
    if parts.positions == Positions::Rope {
        check_rotate(kernels)?;
    }
    check_norm(kernels, parts.norm)?;
    check_feed_forward(kernels, parts.feed_forward)
}

/// Quantisation, and a product with weights of this format.
#[inline(never)]
fn check_product(kernels: Kernels, layout: WeightLayout, format: WeightFormat) -> Result<(), &'static str> {
    let (name, answers) = match format {
        WeightFormat::Int8 => ("matmul int8", [0x2caf_613d, 0x3069_0318]),
        WeightFormat::Int8G32 => ("matmul int8-g32", [0x699f_1ec5, 0x7efb_872d]),
        WeightFormat::Int4G32 => ("matmul int4-g32", [0x4270_0545, 0x2d1a_7586]),
    };
    let mut random = Random(1);
    let (least, greatest) = format.weight_limits();
    let mut data = Aligned([format.zero_byte(layout); DATA_BYTES]);
    let data = data.0.get_mut(..format.data_bytes(layout, ROWS, COLS)).unwrap_or_default();
    let (block, groups) = (layout.row_block(), format.groups(COLS));
    let (mut row_scales, mut group_scales) = ([0.0; N_SCALES], Aligned([0; N_SCALES]));
    for row in 0..ROWS {
        for col in 0..COLS {
            let value = random.integer(-i32::from(least)).min(greatest.into());
            format.set(layout, data, COLS, row, col, value as i8);
        }
        if let Some(scale) = row_scales.get_mut(row) {
            *scale = 0.01 + random.number() * (1.0 / 256.0);
        }
        for group in 0..groups {
            if let Some(scale) = group_scales.0.get_mut((row / block * groups + group) * block + row % block) {
                // A bfloat16 below 2^-6.
                *scale = 0x3c00 | (random.bits() & 0x7f) as u16;
            }
        }
    }
    let n_scales = ROWS.next_multiple_of(block) * groups;
    let scales = match format.is_grouped() {
        false => Scales::PerRow(row_scales.get(..n_scales).unwrap_or_default()),
        true => Scales::PerGroup(group_scales.0.get(..n_scales).unwrap_or_default()),
    };
    let (mut values, mut value_scales) = (Aligned([0; COLS]), [0.0; 2]);
    let value_scales = value_scales.get_mut(..groups).unwrap_or_default();
    quantize(kernels, format, &random.numbers::<COLS>(), &mut values.0, value_scales);
    let w = MatrixQ8::new(ROWS, COLS, layout, format, data, scales).ok_or(name)?;
    let x = ActivationsQ8::new(1, COLS, format, kernels.lanes(format), &values.0, value_scales).ok_or(name)?;
    let mut quantized = hash_of(value_scales);
    (0..COLS).for_each(|col| add_word(&mut quantized, x.value(0, col) as u32));
    expect("quantize", quantized, answers[0])?;
    let mut out = [0.0; ROWS];
    matmul_f32_q8_q8(kernels, &Serial, &mut out, &w, &x);
    expect(name, hash_of(&out), answers[1])
}

/// The steps of attention for two query heads, then the ways in which a core takes several steps at once.
#[inline(never)]
fn check_attention(kernels: Kernels, is_narrow: bool) -> Result<(), &'static str> {
    const TEMPERATURE: f32 = 0.5;
    let (width, answers) = match is_narrow {
        true => (NARROW, [0xac0f_0da7, 0xe445_1f72, 0x6958_a963, 0x26d2_efea]),
        false => (WIDE, [0xf814_f095, 0x2e51_e6de, 0x90d2_805c, 0xf6e4_4710]),
    };
    let mut random = Random(2);
    let queries = random.numbers::<{ 2 * WIDE }>();
    let queries = queries.get(..2 * width).unwrap_or_default();
    let mut cached = || Aligned(array::from_fn::<i8, { POSITIONS * WIDE }, _>(|_| random.integer(127) as i8));
    let (keys, values) = (cached(), cached());
    let [keys, values] = [&keys, &values].map(|cached| cached.0.get(..POSITIONS * width).unwrap_or_default());
    let mut scales = || array::from_fn::<u16, POSITIONS, _>(|_| 0x3c00 | (random.bits() & 0xff) as u16);
    let (key_scales, value_scales) = (scales(), scales());
    let exponent = u32::from(kernels.greatest_scale(&value_scales) >> 7);

    let (mut query, mut sums, mut out) = ([0; WIDE], [[0; WIDE]; 2], [[0.0; 2 * WIDE]; 2]);
    let query = query.get_mut(..width).unwrap_or_default();
    let [sums, fused_sums] = sums.each_mut().map(|sums| sums.get_mut(..width).unwrap_or_default());
    let [out, fused_out] = out.each_mut().map(|out| out.get_mut(..2 * width).unwrap_or_default());
    let mut hashes = [EMPTY; 5];
    let [of_scores, of_weights, of_sums, of_out, of_fused] = &mut hashes;
    for (q, out) in queries.chunks(width).zip(out.chunks_mut(width)) {
        let mut scores = [0; POSITIONS];
        let scale = kernels.quantize_to(16383.0, q, query);
        kernels.score_dots(query, keys, &mut scores);
        let greatest = kernels.score_exponents(&mut scores, &key_scales, scale * TEMPERATURE);
        add_integers(of_scores, &scores);
        let mut fused = scores;
        let total = kernels.softmax_weights(&mut scores, greatest, &value_scales, exponent);
        add_integers(of_weights, &scores);
        kernels.weighted_values(&scores, values, sums);
        add_integers(of_sums, sums);
        kernels.scale_integers(out, sums, f32::from_bits((exponent + 2) << 23) / total as f32);
        add_numbers(of_out, out);
        kernels.softmax_values(&mut fused, greatest, &value_scales, exponent, values, fused_sums);
        add_integers(of_fused, fused_sums);
    }
    let [scores, weights, sums, scaled, fused] = hashes;
    expect("scores", scores, answers[0])?;
    expect("softmax", weights, answers[1])?;
    expect("values", sums, answers[2])?;
    expect("scale_integers", scaled, answers[3])?;
    expect("softmax and values", fused, answers[2])?;
    // A core may read scores in whole vectors.
    let (keys, values, mut scores) = ((keys, &key_scales[..]), (values, &value_scales[..]), [0; 2 * POSITIONS]);
    match kernels.attend_heads(fused_out, queries, TEMPERATURE, keys, values, &mut scores) {
        true => expect("attention", hash_of(fused_out), answers[3]),
        false => Ok(()),
    }
}

/// Quantisation of a key or a value for the cache.
#[inline(never)]
fn check_store(kernels: Kernels, scales: ScaleFormat) -> Result<(), &'static str> {
    let mut values = [0; LEN];
    let scale = kernels.store(&Random(3).numbers::<LEN>(), &mut values, scales);
    let mut hash = EMPTY;
    values.iter().for_each(|&value| add_word(&mut hash, value as u32));
    add_word(&mut hash, scale.into());
    let answer = match scales {
        ScaleFormat::Bf16 => 0xefd6_2816,
        ScaleFormat::Ue5m3 => 0x2bb2_d59d,
        ScaleFormat::Ue8m4 => 0x483a_8799,
    };
    expect("store", hash, answer)
}

/// Four bits an element in the cache, there and back.
#[inline(never)]
fn check_int4() -> Result<(), &'static str> {
    let (mut random, mut hash) = (Random(9), EMPTY);
    let (mut row, mut elements, mut scales) = ([0; int4::row_bytes(LEN)], [0; LEN], [0]);
    for limit in [127, 60, 20] {
        let coarse: [i8; LEN] = array::from_fn(|_| (random.integer(limit) + (limit - 127) / 2) as i8);
        let word = int4::pack(&coarse, &mut row) | 0x3f80;
        int4::unpack(&row, &[word], LEN, &mut elements, &mut scales);
        elements.iter().for_each(|&element| add_word(&mut hash, element as u32));
        scales.iter().for_each(|&scale| add_word(&mut hash, u32::from(scale) << 16 | u32::from(word)));
    }
    expect("int4 of the cache", hash, 0xaf56_9cbd)
}

/// Halves in the cache, there and back.
#[inline(never)]
fn check_f16() -> Result<(), &'static str> {
    let (mut row, mut high, mut low, mut scales) = ([0; 2 * LEN], [0; LEN], [0; LEN], [0]);
    f16::pack(&Random(10).numbers::<LEN>(), &mut row);
    f16::unpack(&row, LEN, &mut high, &mut low, &mut scales);
    let mut hash = EMPTY;
    row.iter().for_each(|&byte| add_word(&mut hash, byte.into()));
    high.iter().zip(&low).for_each(|(&high, &low)| add_word(&mut hash, (high as u32) << 8 | low as u32));
    add_word(&mut hash, scales.iter().map(|&scale| u32::from(scale)).sum());
    expect("f16 of the cache", hash, 0x1db1_e562)
}

#[inline(never)]
fn check_norm(kernels: Kernels, norm: NormKind) -> Result<(), &'static str> {
    let (mut random, mut out) = (Random(4), [0.0; LEN]);
    let [x, gain, bias] = array::from_fn(|_| random.numbers::<LEN>());
    match norm {
        NormKind::Rms => {
            kernels.rmsnorm(&mut out, &x, &gain, 1e-5);
            expect("rmsnorm", hash_of(&out), 0xe249_cc7c)
        }
        NormKind::Layer => {
            kernels.layernorm(&mut out, &x, &gain, &bias, 1e-5);
            expect("layernorm", hash_of(&out), 0x8727_ff4c)
        }
    }
}

/// The function between two products, and the gate.
#[inline(never)]
fn check_feed_forward(kernels: Kernels, feed_forward: FeedForward) -> Result<(), &'static str> {
    let mut random = Random(5);
    let [mut gate, up] = array::from_fn(|_| random.numbers::<LEN>());
    let (name, activation, answer) = match feed_forward {
        FeedForward::SwiGlu => {
            let mut out = [0.0; LEN];
            kernels.swiglu(&mut out, &gate, &up);
            return expect("swiglu", hash_of(&out), 0xc545_8e7f);
        }
        FeedForward::GeGlu | FeedForward::GeluTanh => ("gelu by tanh", Activation::GeluTanh, 0xf8d4_c0b1),
        FeedForward::Gelu => ("gelu", Activation::Gelu, 0xeb2d_387e),
        FeedForward::Relu => ("relu", Activation::Relu, 0xdb1b_e2db),
        FeedForward::Silu => ("silu", Activation::Silu, 0x5ec2_b4a4),
    };
    kernels.activate(activation, &mut gate);
    expect(name, hash_of(&gate), answer)?;
    if feed_forward == FeedForward::GeGlu {
        kernels.multiply(&mut gate, &up);
        expect("multiply", hash_of(&gate), 0xedd6_a082)?;
    }
    Ok(())
}

/// Rotary positions of heads, one behind the other.
#[inline(never)]
fn check_rotate(kernels: Kernels) -> Result<(), &'static str> {
    let mut random = Random(6);
    let (mut heads, cos_sin) = (random.numbers::<LEN>(), random.numbers::<NARROW>());
    kernels.rotate_heads(&mut heads, &cos_sin);
    expect("rotate", hash_of(&heads), 0x0136_d0cf)
}

/// A sum, also of subnormal numbers, which a core in another mode makes zeros.
#[inline(never)]
fn check_add(kernels: Kernels) -> Result<(), &'static str> {
    let mut random = Random(7);
    let [mut x, mut y] = array::from_fn(|_| random.numbers::<LEN>());
    for [first, ..] in [&mut x, &mut y] {
        *first = f32::from_bits(first.to_bits() & 0x807f_ffff);
    }
    kernels.add(&mut x, &y);
    expect("add", hash_of(&x), 0x62cf_2be7)
}

/// A step of a gated recurrent unit.
#[inline(never)]
fn check_recur(kernels: Kernels) -> Result<(), &'static str> {
    let mut random = Random(8);
    let [input, recurrent] = array::from_fn(|_| random.numbers::<LEN>());
    let mut state = random.numbers::<{ LEN / 3 }>();
    kernels.recur(&mut state, &input, &recurrent);
    expect("recur", hash_of(&state), 0x176e_7359)
}

fn expect(name: &'static str, found: u32, answer: u32) -> Result<(), &'static str> {
    if found == answer { Ok(()) } else { Err(name) }
}

/// The hash of nothing: FNV-1a, a word at a time.
const EMPTY: u32 = 0x811c_9dc5;

fn add_word(hash: &mut u32, word: u32) {
    *hash = (*hash ^ word).wrapping_mul(0x0100_0193);
}

fn add_integers(hash: &mut u32, integers: &[i32]) {
    integers.iter().for_each(|&integer| add_word(hash, integer as u32));
}

fn add_numbers(hash: &mut u32, numbers: &[f32]) {
    numbers.iter().for_each(|number| add_word(hash, number.to_bits()));
}

/// The hash of the numbers' bits.
fn hash_of(numbers: &[f32]) -> u32 {
    let mut hash = EMPTY;
    add_numbers(&mut hash, numbers);
    hash
}

/// The xorshift generator of Marsaglia, 32 bits, from any state but 0.
struct Random(u32);

impl Random {
    fn bits(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    /// From `-limit` to `limit`, which is below 2^14.
    fn integer(&mut self, limit: i32) -> i32 {
        (((self.bits() >> 16) as i32 * (2 * limit + 1)) >> 16) - limit
    }

    /// From -2 to 2.
    fn number(&mut self) -> f32 {
        ((self.bits() >> 8) as i32 - (1 << 23)) as f32 * (1.0 / (1 << 22) as f32)
    }

    fn numbers<const N: usize>(&mut self) -> [f32; N] {
        array::from_fn(|_| self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every backend gives the answers, from weights in any layout.
    #[test]
    fn every_answer_is_what_the_kernels_compute() {
        for kernels in Kernels::available() {
            let name = kernels.name();
            for layout in WeightLayout::ALL {
                for format in WeightFormat::ALL {
                    assert_eq!(check_product(kernels, layout, format), Ok(()), "{name} {layout:?} {format:?}");
                }
            }
            for is_narrow in [true, false] {
                assert_eq!(check_attention(kernels, is_narrow), Ok(()), "{name} {is_narrow}");
            }
            for scales in ScaleFormat::ALL {
                assert_eq!(check_store(kernels, scales), Ok(()), "{name} {scales:?}");
            }
            assert_eq!([check_int4(), check_f16()], [Ok(()); 2]);
            for norm in [NormKind::Rms, NormKind::Layer] {
                assert_eq!(check_norm(kernels, norm), Ok(()), "{name} {norm:?}");
            }
            for feed_forward in FeedForward::ALL {
                assert_eq!(check_feed_forward(kernels, *feed_forward), Ok(()), "{name} {feed_forward:?}");
            }
            assert_eq!([check_rotate(kernels), check_add(kernels), check_recur(kernels)], [Ok(()); 3], "{name}");
        }
    }
}
