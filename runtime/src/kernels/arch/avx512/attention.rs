//! The integer kernels of attention, on 16 lanes.

use core::arch::x86_64::*;

use crate::kernels::generic;

/// See [`crate::kernels::Kernels::score_dots`]: heads of eight, and of whole vectors of 16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub fn score_dots(q: &[i16], k: &[i8], dots: &mut [i32]) {
    let n = dots.len().min(k.len() / q.len().max(1));
    let n_fours = n / 4 * 4;
    let (fours, rest) = dots.split_at_mut(n_fours);
    let (k_fours, k_rest) = k.split_at(n_fours * q.len());
    match q.len() {
        8 => {
            let q: &[i16; 8] = q.first_chunk().expect("eight elements");
            for (dots, k) in fours.as_chunks_mut().0.iter_mut().zip(k_fours.as_chunks().0) {
                score_four_eights(q, k, dots);
            }
        }
        len if len.is_multiple_of(16) && len > 0 => {
            for (dots, k) in fours.as_chunks_mut().0.iter_mut().zip(k_fours.chunks_exact(4 * len)) {
                score_four(q.as_chunks().0, k, dots);
            }
        }
        _ => return generic::score_dots(q, k, dots),
    }
    generic::score_dots(q, k_rest, rest);
}

/// Four keys of eight elements.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
fn score_four_eights(q: &[i16; 8], k: &[i8; 32], dots: &mut [i32; 4]) {
    // SAFETY: 16 and 32 readable bytes, 16 writable.
    unsafe {
        let q = _mm512_broadcast_i32x4(_mm_loadu_si128(q.as_ptr().cast()));
        let products = _mm512_madd_epi16(_mm512_cvtepi8_epi16(_mm256_loadu_si256(k.as_ptr().cast())), q);
        // Four sums of pairs for each key, which lie in a quarter each.
        let halves = _mm512_add_epi32(products, _mm512_shuffle_epi32::<0b10_11_00_01>(products));
        let whole = _mm512_add_epi32(halves, _mm512_shuffle_epi32::<0b01_00_11_10>(halves));
        let firsts = _mm512_maskz_compress_epi32(0b0001_0001_0001_0001, whole);
        _mm_storeu_si128(dots.as_mut_ptr().cast(), _mm512_castsi512_si128(firsts));
    }
}

/// Four keys of whole vectors.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
fn score_four(q: &[[i16; 16]], k: &[i8], dots: &mut [i32; 4]) {
    let mut sums = [_mm256_setzero_si256(); 4];
    for (sum, k) in sums.iter_mut().zip(k.chunks_exact(16 * q.len())) {
        for (q, k) in q.iter().zip(k.as_chunks::<16>().0) {
            // SAFETY: 32 and 16 readable bytes.
            let (q, k) = unsafe { (_mm256_loadu_si256(q.as_ptr().cast()), _mm_loadu_si128(k.as_ptr().cast())) };
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(_mm256_cvtepi8_epi16(k), q));
        }
    }
    let [a, b, c, d] = sums;
    let quarters = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    let whole = _mm_add_epi32(_mm256_castsi256_si128(quarters), _mm256_extracti128_si256::<1>(quarters));
    // SAFETY: 16 writable bytes.
    unsafe { _mm_storeu_si128(dots.as_mut_ptr().cast(), whole) };
}

/// 16 bfloat16 scales as their mantissas and exponents.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
fn split(scales: &[u16; 16]) -> (__m512i, __m512i) {
    // SAFETY: 32 readable bytes.
    let bits = _mm512_cvtepu16_epi32(unsafe { _mm256_loadu_si256(scales.as_ptr().cast()) });
    let mantissa = _mm512_or_si512(_mm512_and_si512(bits, _mm512_set1_epi32(0x7f)), _mm512_set1_epi32(0x80));
    (mantissa, _mm512_srli_epi32::<7>(bits))
}

/// See [`crate::kernels::Kernels::score_exponents`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub fn score_exponents(scores: &mut [i32], key_scales: &[u16], per_unit: f32) -> i32 {
    let (mantissa, right_of_zero) = generic::fixed_point(per_unit);
    let n_whole = scores.len().min(key_scales.len()) / 16 * 16;
    let (scores, rest) = scores.split_at_mut(n_whole);
    let (scales, rest_scales) = key_scales.split_at(n_whole);
    let mut greatest = _mm512_set1_epi32(i32::MIN);
    for (scores, scales) in scores.as_chunks_mut::<16>().0.iter_mut().zip(scales.as_chunks::<16>().0) {
        let (m, e) = split(scales);
        let factor = _mm512_mullo_epi32(m, _mm512_set1_epi32(mantissa));
        // SAFETY: 64 readable bytes.
        let dots = unsafe { _mm512_loadu_si512(scores.as_ptr().cast()) };
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
        greatest = _mm512_max_epi32(greatest, exponents);
        // SAFETY: 64 writable bytes.
        unsafe { _mm512_storeu_si512(scores.as_mut_ptr().cast(), exponents) };
    }
    _mm512_reduce_max_epi32(greatest).max(generic::score_exponents(rest, rest_scales, per_unit))
}

/// See [`crate::kernels::Kernels::softmax_weights`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub fn softmax_weights(scores: &mut [i32], greatest: i32, value_scales: &[u16], greatest_exponent: u32) -> u32 {
    let n_whole = scores.len().min(value_scales.len()) / 16 * 16;
    let (scores, rest) = scores.split_at_mut(n_whole);
    let (scales, rest_scales) = value_scales.split_at(n_whole);
    let (one, top) = (_mm512_set1_epi32(1), _mm512_set1_epi32((8 + greatest_exponent) as i32));
    let mut total = _mm512_setzero_si512();
    for (scores, scales) in scores.as_chunks_mut::<16>().0.iter_mut().zip(scales.as_chunks::<16>().0) {
        // SAFETY: 64 readable bytes.
        let t = _mm512_sub_epi32(_mm512_set1_epi32(greatest), unsafe { _mm512_loadu_si512(scores.as_ptr().cast()) });
        let f = _mm512_and_si512(t, _mm512_set1_epi32(0xffff));
        // All are below 2^16: the upper half of a product of 16 bits is what the fixed point wants.
        let mut p = _mm512_mulhi_epu16(_mm512_set1_epi32(453), f);
        for coefficient in [3498, 15_699, 45_422] {
            p = _mm512_mulhi_epu16(_mm512_sub_epi32(_mm512_set1_epi32(coefficient), p), f);
        }
        let fraction = _mm512_sub_epi32(_mm512_set1_epi32(65_535), p);
        let probability = _mm512_srlv_epi32(fraction, _mm512_srli_epi32::<16>(t));
        total = _mm512_add_epi32(total, probability);
        let (m, e) = split(scales);
        let shift = _mm512_min_epu32(_mm512_sub_epi32(top, e), _mm512_set1_epi32(31));
        let shifted = _mm512_srlv_epi32(_mm512_mullo_epi32(probability, m), shift);
        let weights = _mm512_srli_epi32::<1>(_mm512_add_epi32(shifted, one));
        // SAFETY: 64 writable bytes.
        unsafe { _mm512_storeu_si512(scores.as_mut_ptr().cast(), weights) };
    }
    let rest = generic::softmax_weights(rest, greatest, rest_scales, greatest_exponent);
    (_mm512_reduce_add_epi32(total) as u32).wrapping_add(rest)
}

/// See [`crate::kernels::Kernels::weighted_values`]: heads of eight, and of whole vectors of 16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub fn weighted_values(weights: &[i32], v: &[i8], sums: &mut [i32]) {
    match sums.len() {
        8 => values_of_eights(weights, v, sums.first_chunk_mut().expect("eight sums")),
        len if len.is_multiple_of(16) => {
            for (at, sums) in sums.as_chunks_mut().0.iter_mut().enumerate() {
                values_of_sixteens(weights, &v[(16 * at).min(v.len())..], len, sums);
            }
        }
        _ => generic::weighted_values(weights, v, sums),
    }
}

/// Two weights of 15 bits as the halves of a lane.
#[inline(always)]
fn pair(weights: [i32; 2]) -> i32 {
    weights[0] | weights[1] << 16
}

/// Heads of eight: four positions a vector, in two pairs.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn values_of_eights(weights: &[i32], v: &[i8], sums: &mut [i32; 8]) {
    // Element by element, one of each of two positions.
    let zip = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15));
    let ((fours, rest), (v_fours, v_rest)) = (weights.as_chunks::<4>(), v.as_chunks::<32>());
    let mut both = _mm512_setzero_si512();
    for (&[a, b, c, d], v) in fours.iter().zip(v_fours) {
        // SAFETY: 32 readable bytes.
        let zipped = _mm256_shuffle_epi8(unsafe { _mm256_loadu_si256(v.as_ptr().cast()) }, zip);
        let weights = _mm512_mask_mov_epi32(_mm512_set1_epi32(pair([a, b])), 0xff00, _mm512_set1_epi32(pair([c, d])));
        both = _mm512_add_epi32(both, _mm512_madd_epi16(_mm512_cvtepi8_epi16(zipped), weights));
    }
    generic::weighted_values(rest, v_rest, sums);
    let halves = _mm256_add_epi32(_mm512_castsi512_si256(both), _mm512_extracti64x4_epi64::<1>(both));
    // SAFETY: 32 readable and writable bytes.
    unsafe {
        let all = _mm256_add_epi32(halves, _mm256_loadu_si256(sums.as_ptr().cast()));
        _mm256_storeu_si256(sums.as_mut_ptr().cast(), all);
    }
}

/// 16 elements of each value, which are `stride` apart: two positions a vector.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn values_of_sixteens(weights: &[i32], v: &[i8], stride: usize, sums: &mut [i32; 16]) {
    let row = |i: usize| -> &[i8; 16] { v[i * stride..].first_chunk().expect("a value for each weight") };
    let (pairs, last) = weights.as_chunks::<2>();
    let mut all = _mm512_setzero_si512();
    for (i, &weights) in pairs.iter().enumerate() {
        // SAFETY: 16 readable bytes each.
        let (first, second) =
            unsafe { (_mm_loadu_si128(row(2 * i).as_ptr().cast()), _mm_loadu_si128(row(2 * i + 1).as_ptr().cast())) };
        let low = _mm256_castsi128_si256(_mm_unpacklo_epi8(first, second));
        let zipped = _mm256_inserti128_si256::<1>(low, _mm_unpackhi_epi8(first, second));
        let weights = _mm512_set1_epi32(pair(weights));
        all = _mm512_add_epi32(all, _mm512_madd_epi16(_mm512_cvtepi8_epi16(zipped), weights));
    }
    // SAFETY: 64 writable bytes.
    unsafe { _mm512_storeu_si512(sums.as_mut_ptr().cast(), all) };
    if let [weight] = *last {
        for (sum, &v) in sums.iter_mut().zip(row(2 * pairs.len())) {
            *sum = sum.wrapping_add(weight.wrapping_mul(i32::from(v)));
        }
    }
}
