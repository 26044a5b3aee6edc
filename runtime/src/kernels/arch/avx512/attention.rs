//! The integer kernels of attention: scores and values in products of bytes, four to a lane, what comes between in 16 lanes.
//!
//! A query's element, of 15 bits, is `256 * high + low`, and so is a weight; each byte has a chain of `vpdpbusd` of its own. The last
//! positions go through the same instructions under a mask.

#![allow(clippy::needless_range_loop, reason = "an index goes through several arrays of registers")]

use core::arch::x86_64::*;

use crate::kernels::generic;

/// Bytes of a vector.
const BYTES: usize = 64;
/// Positions that weights come in.
const STEP: usize = 16;

/// A bit for each of the first 64 bytes.
#[inline(always)]
fn mask_of_bytes(n_bytes: usize) -> __mmask64 {
    if n_bytes < BYTES { (1 << n_bytes) - 1 } else { u64::MAX }
}

/// `n_bytes`, at most 64, from `at`, zeros beyond. Where not `IS_WHOLE`, the end may come before.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn load<const IS_WHOLE: bool>(bytes: &[i8], at: usize, n_bytes: usize) -> __m512i {
    let there = match IS_WHOLE {
        true => &bytes[at..at + n_bytes],
        false => bytes.get(at..bytes.len().min(at + n_bytes)).unwrap_or_default(),
    };
    // A mask that depends on no slice is made once, outside of the caller's loop.
    let mask = mask_of_bytes(if IS_WHOLE { n_bytes } else { there.len() });
    // SAFETY: the mask has a bit for each byte that is there.
    unsafe { _mm512_maskz_loadu_epi8(mask, there.as_ptr()) }
}

/// A bit for each of the first 16 elements.
#[inline(always)]
fn mask_of<T>(elements: &[T]) -> __mmask16 {
    if elements.len() < 16 { (1 << elements.len()) - 1 } else { u16::MAX }
}

/// The first 16 numbers, zeros beyond the end.
#[target_feature(enable = "avx512f")]
#[inline]
fn load_numbers(numbers: &[i32]) -> __m512i {
    // SAFETY: the mask has a bit for each number that is there.
    unsafe { _mm512_maskz_loadu_epi32(mask_of(numbers), numbers.as_ptr()) }
}

/// Stores as many of 16 numbers as there is room for.
#[target_feature(enable = "avx512f")]
#[inline]
fn store_numbers(out: &mut [i32], numbers: __m512i) {
    // SAFETY: the mask has a bit for each number that there is room for.
    unsafe { _mm512_mask_storeu_epi32(out.as_mut_ptr(), mask_of(out), numbers) };
}

/// 64 elements of a query, or fewer in several copies, as bytes; and minus 128 times what they add to each lane, which keys that are
/// unsigned, 128 above their values, bring in.
#[derive(Clone, Copy)]
struct Query {
    high: __m512i,
    low: __m512i,
    high_start: __m512i,
    low_start: __m512i,
}

impl Query {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    #[inline]
    fn new(high: __m512i, low: __m512i) -> Self {
        let (zero, offset) = (_mm512_setzero_si512(), _mm512_set1_epi8(-128));
        let start = |bytes| _mm512_sub_epi32(zero, _mm512_dpbusd_epi32(zero, offset, bytes));
        Self { high, low, high_start: start(high), low_start: start(low) }
    }

    /// Up to 64 elements, in as many copies as a vector holds.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    #[inline]
    fn of(q: &[i16]) -> Self {
        let (first, second) = q.split_at(q.len().min(32));
        let (high, low) = split_query(first);
        match q.len() {
            8 => Self::new(
                _mm512_broadcastq_epi64(_mm256_castsi256_si128(high)),
                _mm512_broadcastq_epi64(_mm256_castsi256_si128(low)),
            ),
            16 => Self::new(
                _mm512_broadcast_i32x4(_mm256_castsi256_si128(high)),
                _mm512_broadcast_i32x4(_mm256_castsi256_si128(low)),
            ),
            32 => Self::new(_mm512_broadcast_i64x4(high), _mm512_broadcast_i64x4(low)),
            _ => {
                let (second_high, second_low) = split_query(second);
                Self::new(
                    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(high), second_high),
                    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), second_low),
                )
            }
        }
    }

    /// What keys give in each lane.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    #[inline]
    fn dots(&self, keys: __m512i) -> __m512i {
        let unsigned = _mm512_xor_si512(keys, _mm512_set1_epi8(-128));
        let high = _mm512_dpbusd_epi32(self.high_start, unsigned, self.high);
        let low = _mm512_dpbusd_epi32(self.low_start, unsigned, self.low);
        _mm512_add_epi32(_mm512_slli_epi32::<8>(high), low)
    }
}

/// The bytes of up to 32 elements, zeros beyond the end: `256 * high + low`, both signed.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
fn split_query(q: &[i16]) -> (__m256i, __m256i) {
    let mask = if q.len() < 32 { (1u32 << q.len()) - 1 } else { u32::MAX };
    // SAFETY: the mask has a bit for each element that is there.
    let q = unsafe { _mm512_maskz_loadu_epi16(mask, q.as_ptr()) };
    let high = _mm512_srai_epi16::<8>(_mm512_add_epi16(q, _mm512_set1_epi16(128)));
    let low = _mm512_sub_epi16(q, _mm512_slli_epi16::<8>(high));
    (_mm512_cvtepi16_epi8(high), _mm512_cvtepi16_epi8(low))
}

/// See [`crate::kernels::Kernels::score_dots`]: heads of eight, and of multiples of 16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub fn score_dots(q: &[i16], k: &[i8], dots: &mut [i32]) {
    match q.len() {
        8 => dots_of_eights(&Query::of(q), k, dots),
        16 => dots_of_sixteens::<4, 1>(q, k, dots),
        32 => dots_of_sixteens::<2, 1>(q, k, dots),
        48 | 64 => dots_of_sixteens::<1, 1>(q, k, dots),
        80 | 96 | 112 | 128 => dots_of_sixteens::<1, 2>(q, k, dots),
        _ => generic::score_dots(q, k, dots),
    }
}

/// Keys of eight elements: 16 in two vectors, two lanes each.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn dots_of_eights(q: &Query, k: &[i8], dots: &mut [i32]) {
    let n_whole = dots.len() / STEP * STEP;
    let ((dots, last_dots), (k, last_k)) = (dots.split_at_mut(n_whole), k.split_at((8 * n_whole).min(k.len())));
    sixteen_eights::<true>(q, k, dots);
    sixteen_eights::<false>(q, last_k, last_dots);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn sixteen_eights<const IS_WHOLE: bool>(q: &Query, k: &[i8], dots: &mut [i32]) {
    let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    for (dots, k) in dots.chunks_mut(STEP).zip(k.chunks(2 * BYTES)) {
        let first = q.dots(load::<IS_WHOLE>(k, 0, BYTES));
        let second = q.dots(load::<IS_WHOLE>(k, BYTES, BYTES));
        let evens = _mm512_permutex2var_epi32(first, even, second);
        let odds = _mm512_permutex2var_epi32(first, odd, second);
        store_numbers(dots, _mm512_add_epi32(evens, odds));
    }
}

/// Keys of multiples of 16 elements: four times `KEYS` of them at once, which are in four vectors where `CHUNKS`, a key's vectors, is 1.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn dots_of_sixteens<const KEYS: usize, const CHUNKS: usize>(q: &[i16], k: &[i8], dots: &mut [i32]) {
    let len = q.len();
    let mut queries = [Query::of(&q[..len.min(BYTES)]); CHUNKS];
    for chunk in 1..CHUNKS {
        queries[chunk] = Query::of(&q[(chunk * BYTES).min(len)..]);
    }
    let n_whole = dots.len() / (4 * KEYS) * 4 * KEYS;
    let ((dots, last_dots), (k, last_k)) = (dots.split_at_mut(n_whole), k.split_at((len * n_whole).min(k.len())));
    four_vectors::<KEYS, CHUNKS, true>(len, &queries, k, dots);
    four_vectors::<KEYS, CHUNKS, false>(len, &queries, last_k, last_dots);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn four_vectors<const KEYS: usize, const CHUNKS: usize, const IS_WHOLE: bool>(
    len: usize,
    queries: &[Query; CHUNKS],
    k: &[i8],
    dots: &mut [i32],
) {
    // Quarter `i` of a sum has key `i * KEYS / 4` of each of the four vectors.
    let order = match KEYS {
        4 => _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),
        2 => _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 0, 8, 1, 9, 2, 10, 3, 11),
        _ => _mm512_setr_epi32(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3),
    };
    for (dots, k) in dots.chunks_mut(4 * KEYS).zip(k.chunks(4 * KEYS * len)) {
        let mut sums = [_mm512_setzero_si512(); 4];
        for (i, sum) in sums.iter_mut().enumerate() {
            for (chunk, query) in queries.iter().enumerate() {
                let (at, n_bytes) = (i * KEYS * len + chunk * BYTES, (KEYS * len - chunk * BYTES).min(BYTES));
                *sum = _mm512_add_epi32(*sum, query.dots(load::<IS_WHOLE>(k, at, n_bytes)));
            }
        }
        let [a, b, c, d] = sums;
        let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        let mut all = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
        if KEYS < 4 {
            all = _mm512_add_epi32(all, _mm512_shuffle_i32x4::<0b10_11_00_01>(all, all));
        }
        if KEYS < 2 {
            all = _mm512_add_epi32(all, _mm512_shuffle_i32x4::<0b01_00_11_10>(all, all));
        }
        store_numbers(dots, _mm512_permutexvar_epi32(order, all));
    }
}

/// Up to 16 bfloat16 scales as their mantissas and exponents; those of zeros beyond the end.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
fn split(scales: &[u16]) -> (__m512i, __m512i) {
    // SAFETY: the mask has a bit for each scale that is there.
    let bits = unsafe { _mm256_maskz_loadu_epi16(mask_of(scales), scales.as_ptr().cast()) };
    let bits = _mm512_cvtepu16_epi32(bits);
    let mantissa = _mm512_or_si512(_mm512_and_si512(bits, _mm512_set1_epi32(0x7f)), _mm512_set1_epi32(0x80));
    (mantissa, _mm512_srli_epi32::<7>(bits))
}

/// See [`crate::kernels::Kernels::score_exponents`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub fn score_exponents(scores: &mut [i32], key_scales: &[u16], per_unit: f32) -> i32 {
    let (mantissa, right_of_zero) = generic::fixed_point(per_unit);
    let mut greatest = _mm512_set1_epi32(i32::MIN);
    for (scores, scales) in scores.chunks_mut(STEP).zip(key_scales.chunks(STEP)) {
        let (m, e) = split(scales);
        let factor = _mm512_mullo_epi32(m, _mm512_set1_epi32(mantissa));
        let dots = load_numbers(scores);
        let even = _mm512_srli_epi64::<32>(_mm512_mul_epi32(dots, factor));
        let odd = _mm512_mul_epi32(_mm512_srli_epi64::<32>(dots), _mm512_srli_epi64::<32>(factor));
        let upper = _mm512_mask_mov_epi32(even, 0xaaaa, odd);
        let by = _mm512_sub_epi32(_mm512_set1_epi32(right_of_zero), e);
        let is_left = _mm512_cmplt_epi32_mask(by, _mm512_setzero_si512());
        // A shift by 32 or more leaves the sign.
        let mut exponents = _mm512_srav_epi32(upper, by);
        if is_left != 0 {
            let left = _mm512_min_epi32(_mm512_sub_epi32(_mm512_setzero_si512(), by), _mm512_set1_epi32(30));
            let limit = _mm512_srlv_epi32(_mm512_set1_epi32(generic::SCORE_LIMIT), left);
            let lowest = _mm512_sub_epi32(_mm512_setzero_si512(), limit);
            let clamped = _mm512_max_epi32(_mm512_min_epi32(upper, limit), lowest);
            exponents = _mm512_mask_sllv_epi32(exponents, is_left, clamped, left);
        }
        greatest = _mm512_mask_max_epi32(greatest, mask_of(scores), greatest, exponents);
        store_numbers(scores, exponents);
    }
    _mm512_reduce_max_epi32(greatest)
}

/// See [`crate::kernels::Kernels::softmax_weights`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub fn softmax_weights(scores: &mut [i32], greatest: i32, value_scales: &[u16], greatest_exponent: u32) -> u32 {
    let (one, top) = (_mm512_set1_epi32(1), _mm512_set1_epi32((8 + greatest_exponent) as i32));
    let mut total = _mm512_setzero_si512();
    for (scores, scales) in scores.chunks_mut(STEP).zip(value_scales.chunks(STEP)) {
        let t = _mm512_sub_epi32(_mm512_set1_epi32(greatest), load_numbers(scores));
        let f = _mm512_and_si512(t, _mm512_set1_epi32(0xffff));
        // All are below 2^16: the upper half of a product of 16 bits is what the fixed point wants.
        let mut p = _mm512_mulhi_epu16(_mm512_set1_epi32(453), f);
        for coefficient in [3498, 15_699, 45_422] {
            p = _mm512_mulhi_epu16(_mm512_sub_epi32(_mm512_set1_epi32(coefficient), p), f);
        }
        let fraction = _mm512_sub_epi32(_mm512_set1_epi32(65_535), p);
        let probability = _mm512_maskz_srlv_epi32(mask_of(scores), fraction, _mm512_srli_epi32::<16>(t));
        total = _mm512_add_epi32(total, probability);
        let (m, e) = split(scales);
        let shift = _mm512_min_epu32(_mm512_sub_epi32(top, e), _mm512_set1_epi32(31));
        let shifted = _mm512_srlv_epi32(_mm512_mullo_epi32(probability, m), shift);
        store_numbers(scores, _mm512_srli_epi32::<1>(_mm512_add_epi32(shifted, one)));
    }
    _mm512_reduce_add_epi32(total) as u32
}

/// See [`crate::kernels::Kernels::greatest_scale`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub fn greatest_scale(scales: &[u16]) -> u16 {
    let mut greatest = _mm512_setzero_si512();
    for scales in scales.chunks(STEP) {
        // SAFETY: the mask has a bit for each scale that is there.
        let scales = unsafe { _mm256_maskz_loadu_epi16(mask_of(scales), scales.as_ptr().cast()) };
        greatest = _mm512_max_epu32(greatest, _mm512_cvtepu16_epi32(scales));
    }
    _mm512_reduce_max_epu32(greatest) as u16
}

/// Sums of up to 64 elements by the upper and the lower bytes of weights, four elements of each quarter of a vector in each.
#[derive(Clone, Copy)]
struct Sums {
    high: [__m512i; 4],
    low: [__m512i; 4],
}

/// 16 weights as bytes, in each quarter of a vector.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
fn split_weights(weights: &[i32]) -> (__m512i, __m512i) {
    let weights = load_numbers(weights);
    let high = _mm512_cvtepi32_epi8(_mm512_srli_epi32::<8>(weights));
    (_mm512_broadcast_i32x4(high), _mm512_broadcast_i32x4(_mm512_cvtepi32_epi8(weights)))
}

/// See [`crate::kernels::Kernels::weighted_values`]: heads of eight, and of multiples of 16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub fn weighted_values(weights: &[i32], v: &[i8], sums: &mut [i32]) {
    match sums.len() {
        8 => values_of_eights(weights, v, sums.first_chunk_mut().expect("eight sums")),
        16 => values_of_sixteens::<4>(weights, v, 16, sums),
        32 => values_of_sixteens::<2>(weights, v, 32, sums),
        len if len.is_multiple_of(16) => {
            for (at, sums) in sums.chunks_mut(BYTES).enumerate() {
                values_of_sixteens::<1>(weights, &v[(BYTES * at).min(v.len())..], len, sums);
            }
        }
        _ => generic::weighted_values(weights, v, sums),
    }
}

/// Heads of eight: 16 positions in two vectors. Quarter `i` has elements of positions `2i`, `2i + 1`, and those eight further.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn values_of_eights(weights: &[i32], v: &[i8], sums: &mut [i32; 8]) {
    const fn order() -> [u8; BYTES] {
        let mut order = [0; BYTES];
        let mut at = 0;
        while at < BYTES {
            let first = 2 * (at / 16) + at % 4 / 2;
            order[at] = (first + at % 2 * 8) as u8;
            at += 1;
        }
        order
    }
    const ORDER: [u8; BYTES] = order();
    // SAFETY: 64 readable bytes.
    let order = unsafe { _mm512_loadu_si512(ORDER.as_ptr().cast()) };
    let mut both = [[_mm512_setzero_si512(); 2]; 2];
    for (weights, v) in weights.chunks(STEP).zip(v.chunks(2 * BYTES)) {
        let (first, second) = match v.len() == 2 * BYTES {
            true => (load::<true>(v, 0, BYTES), load::<true>(v, BYTES, BYTES)),
            false => (load::<false>(v, 0, BYTES), load::<false>(v, BYTES, BYTES)),
        };
        let (even, odd) = (_mm512_unpacklo_epi8(first, second), _mm512_unpackhi_epi8(first, second));
        let halves = [_mm512_unpacklo_epi16(even, odd), _mm512_unpackhi_epi16(even, odd)];
        let (high, low) = split_weights(weights);
        let (high, low) = (_mm512_shuffle_epi8(high, order), _mm512_shuffle_epi8(low, order));
        for (sums, half) in both.iter_mut().zip(halves) {
            *sums = [_mm512_dpbusd_epi32(sums[0], high, half), _mm512_dpbusd_epi32(sums[1], low, half)];
        }
    }
    for (out, [high, low]) in sums.as_chunks_mut::<4>().0.iter_mut().zip(both) {
        let quarters = _mm512_add_epi32(_mm512_slli_epi32::<8>(high), low);
        // SAFETY: 16 writable bytes.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), sum_of_quarters(quarters)) };
    }
}

#[target_feature(enable = "avx512f,avx512vl")]
#[inline]
fn sum_of_quarters(x: __m512i) -> __m128i {
    let halves = _mm256_add_epi32(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64::<1>(x));
    _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves))
}

/// Which of 16 positions' weights meet the bytes of each lane in each of `4 / PER_VECTOR` turns.
const fn turns<const PER_VECTOR: usize>() -> [[u8; BYTES]; 4] {
    let mut turns = [[0; BYTES]; 4];
    let mut at = 0;
    while at < 4 * BYTES {
        let (turn, quarter, byte) = (at / BYTES, at % BYTES / 16, at % 4);
        turns[turn][at % BYTES] = (turn * 4 * PER_VECTOR % STEP + byte * PER_VECTOR + quarter * PER_VECTOR / 4) as u8;
        at += 1;
    }
    turns
}

/// Up to 64 elements of each value, which are `stride` apart, `PER_VECTOR` positions a vector: four vectors a turn.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn values_of_sixteens<const PER_VECTOR: usize>(weights: &[i32], v: &[i8], stride: usize, sums: &mut [i32]) {
    let n_bytes = if PER_VECTOR == 1 { sums.len() } else { BYTES };
    let orders = const { turns::<PER_VECTOR>() };
    let mut all = Sums { high: [_mm512_setzero_si512(); 4], low: [_mm512_setzero_si512(); 4] };
    for (weights, v) in weights.chunks(STEP).zip(v.chunks(STEP * stride)) {
        let (high, low) = split_weights(weights);
        for (turn, order) in orders.iter().take(4 / PER_VECTOR).enumerate() {
            let first = turn * 4 * PER_VECTOR;
            if first >= weights.len() {
                break;
            }
            // SAFETY: 64 readable bytes.
            let order = unsafe { _mm512_loadu_si512(order.as_ptr().cast()) };
            let (high, low) = (_mm512_shuffle_epi8(high, order), _mm512_shuffle_epi8(low, order));
            let at = |i: usize| (first + i * PER_VECTOR) * stride;
            let (a, b, c, d) = match at(3) + n_bytes <= v.len() {
                true => (
                    load::<true>(v, at(0), n_bytes),
                    load::<true>(v, at(1), n_bytes),
                    load::<true>(v, at(2), n_bytes),
                    load::<true>(v, at(3), n_bytes),
                ),
                false => (
                    load::<false>(v, at(0), n_bytes),
                    load::<false>(v, at(1), n_bytes),
                    load::<false>(v, at(2), n_bytes),
                    load::<false>(v, at(3), n_bytes),
                ),
            };
            let (ab, cd) = (_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d));
            let (ab_high, cd_high) = (_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d));
            let fours = [
                _mm512_unpacklo_epi16(ab, cd),
                _mm512_unpackhi_epi16(ab, cd),
                _mm512_unpacklo_epi16(ab_high, cd_high),
                _mm512_unpackhi_epi16(ab_high, cd_high),
            ];
            for j in 0..4 {
                all.high[j] = _mm512_dpbusd_epi32(all.high[j], high, fours[j]);
                all.low[j] = _mm512_dpbusd_epi32(all.low[j], low, fours[j]);
            }
        }
    }
    write_sums::<PER_VECTOR>(&all, sums);
}

/// Element `16 i + 4 j + n` is number `n` of quarter `i` in vector `j`; with several positions a vector, of the sum of their quarters.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
fn write_sums<const PER_VECTOR: usize>(all: &Sums, sums: &mut [i32]) {
    for j in 0..4 {
        let mut four = _mm512_add_epi32(_mm512_slli_epi32::<8>(all.high[j]), all.low[j]);
        if PER_VECTOR > 1 {
            four = _mm512_add_epi32(four, _mm512_shuffle_i32x4::<0b01_00_11_10>(four, four));
        }
        if PER_VECTOR > 2 {
            four = _mm512_add_epi32(four, _mm512_shuffle_i32x4::<0b10_11_00_01>(four, four));
        }
        let mut numbers = [0; 16];
        store_numbers(&mut numbers, four);
        for (out, numbers) in sums.as_chunks_mut::<16>().0.iter_mut().zip(numbers.as_chunks::<4>().0) {
            out[4 * j..4 * j + 4].copy_from_slice(numbers);
        }
    }
}
