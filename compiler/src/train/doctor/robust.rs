//! Middle and spread of figures, unmoved by a few outliers.

/// The median; of an even number, the upper of the two in the middle. 0 of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The standard deviation of normally distributed values around a slow trend, told from the median change from one to the next.
pub fn scatter(values: &[f64]) -> f64 {
    let changes: Vec<f64> = values.windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect();
    1.4826 * median(&changes) / std::f64::consts::SQRT_2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outliers_move_neither_middle_nor_spread() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[1.0, 2.0, 3.0, 4.0, 1e9]), 3.0);
        let falling: Vec<f64> = (0..20).map(|i| -f64::from(i) + if i == 9 { 50.0 } else { 0.0 }).collect();
        assert_eq!(scatter(&falling), 1.4826 / 2.0_f64.sqrt());
    }
}
