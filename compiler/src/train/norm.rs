//! The norm of a gradient, and the limit on it.

use rayon::prelude::*;

/// Numbers whose squares are summed one after the other; the sums are then added in order.
const CHUNK: usize = 1 << 12;
/// Chunks that are summed side by side: each sum waits for its last addition, so several keep a core busy.
const ABREAST: usize = 8;

/// The Euclidean norm of a whole gradient: the same bits for any number of threads.
pub fn norm(gradient: &[f32]) -> f64 {
    let sums: Vec<[f64; ABREAST]> = gradient.par_chunks(CHUNK * ABREAST).map(sums_of_squares).collect();
    sums.iter().flatten().sum::<f64>().sqrt()
}

/// The sum of squares of each chunk; 0 where there is none.
fn sums_of_squares(numbers: &[f32]) -> [f64; ABREAST] {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let mut sums = [0.0; ABREAST];
    if numbers.len() < CHUNK * ABREAST {
        for (sum, chunk) in sums.iter_mut().zip(numbers.chunks(CHUNK)) {
            *sum = chunk.iter().map(|x| square(*x)).sum();
        }
        return sums;
    }
    let chunks: [&[f32]; ABREAST] = core::array::from_fn(|i| &numbers[i * CHUNK..(i + 1) * CHUNK]);
    for at in 0..CHUNK {
        for (sum, chunk) in sums.iter_mut().zip(chunks) {
            *sum += square(chunk[at]);
        }
    }
    sums
}

/// What to multiply a gradient of this norm by so that it is at most `clip_norm`; 1 where there is no limit.
pub fn clip_factor(norm: f64, clip_norm: f64) -> f64 {
    if clip_norm > 0.0 && norm > clip_norm { clip_norm / norm } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_a_sum_is_fixed() {
        let numbers: Vec<f32> = (0..3 * CHUNK * ABREAST + 5 * CHUNK + 77).map(|i| (i as f32 * 0.37).sin()).collect();
        for len in [0, 1, CHUNK, CHUNK * ABREAST, numbers.len()] {
            let in_order = numbers[..len]
                .chunks(CHUNK)
                .map(|chunk| chunk.iter().fold(0.0, |sum, x| sum + f64::from(*x) * f64::from(*x)));
            assert_eq!(norm(&numbers[..len]), in_order.sum::<f64>().sqrt(), "{len} numbers");
        }
    }

    #[test]
    fn clipping_bounds_the_norm_and_nothing_else() {
        assert_eq!(norm(&[3.0, 4.0]), 5.0);
        assert_eq!(clip_factor(5.0, 1.0), 0.2);
        assert_eq!(clip_factor(5.0, 6.0), 1.0);
        assert_eq!(clip_factor(5.0, 0.0), 1.0);
    }
}
