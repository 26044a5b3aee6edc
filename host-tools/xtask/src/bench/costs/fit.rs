//! Costs of kinds of work from counts: least squares of relative errors, none below zero.

use std::collections::BTreeMap;

use serde::Serialize;

/// Amounts of work by kind, as `siskin plan` gives them.
pub type Work = BTreeMap<String, f64>;

/// What was counted, and the work that it was.
#[derive(Clone, Debug, Serialize)]
pub struct Observation {
    /// What it is of.
    pub name: String,
    /// Instructions.
    pub counted: f64,
    /// What they were for.
    pub work: Work,
}

impl Observation {
    /// What `costs` make of its work; work of no known cost is free.
    pub fn predicted(&self, costs: &Work) -> f64 {
        self.work.iter().map(|(kind, amount)| amount * costs.get(kind).copied().unwrap_or(0.0)).sum()
    }

    /// How far the prediction is from the count, in parts of the count.
    pub fn error(&self, costs: &Work) -> f64 {
        self.predicted(costs) / self.counted - 1.0
    }
}

/// Weight of the smaller of two sums of squares: kinds that only ever come together share their cost evenly.
const RIDGE: f64 = 1e-7;
/// Rounds over all kinds; each is cheap.
const ROUNDS: usize = 40_000;

/// The cost of each kind that occurs in `observations`.
pub fn fit(observations: &[Observation]) -> Work {
    let mut kinds: Vec<&String> = observations.iter().flat_map(|observation| observation.work.keys()).collect();
    kinds.sort();
    kinds.dedup();
    // A row's sum is to be 1. Columns are scaled to the same size, so that the ridge has no favourites.
    let row = |observation: &Observation| -> Vec<f64> {
        kinds.iter().map(|kind| observation.work.get(*kind).copied().unwrap_or(0.0) / observation.counted).collect()
    };
    let mut rows: Vec<Vec<f64>> = observations.iter().map(row).collect();
    let norm = |column: usize| rows.iter().map(|row| row[column] * row[column]).sum::<f64>().sqrt();
    let scales: Vec<f64> = (0..kinds.len()).map(|column| 1.0 / norm(column).max(f64::MIN_POSITIVE)).collect();
    rows.iter_mut().for_each(|row| row.iter_mut().zip(&scales).for_each(|(x, scale)| *x *= scale));
    let solution = non_negative(&rows);
    kinds.into_iter().cloned().zip(solution.iter().zip(&scales).map(|(x, scale)| x * scale)).collect()
}

/// The `x >= 0` with the least squares of `rows . x - 1`, by coordinate descent on the normal equations.
fn non_negative(rows: &[Vec<f64>]) -> Vec<f64> {
    let n = rows.first().map_or(0, Vec::len);
    let mut products = vec![vec![0.0; n]; n];
    let mut targets = vec![0.0; n];
    for row in rows {
        for (i, &x) in row.iter().enumerate() {
            targets[i] += x;
            row.iter().zip(&mut products[i]).for_each(|(y, product)| *product += x * y);
        }
    }
    let mut x = vec![0.0f64; n];
    for _ in 0..ROUNDS {
        for (i, row) in products.iter().enumerate() {
            let others: f64 = row.iter().zip(&x).map(|(product, x)| product * x).sum();
            let diagonal = row[i] + RIDGE;
            x[i] = (x[i] + (targets[i] - others - RIDGE * x[i]) / diagonal).max(0.0);
        }
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_that_made_the_counts_are_found() {
        let costs: Work = [("mac", 1.5), ("row", 12.0), ("layer", 900.0)].map(|(k, c)| (k.to_owned(), c)).into();
        let observation = |mac: f64, row: f64, layer: f64| {
            let work: Work = [("mac", mac), ("row", row), ("layer", layer)].map(|(k, a)| (k.to_owned(), a)).into();
            let unscaled = Observation { name: String::new(), counted: 1.0, work };
            Observation { counted: unscaled.predicted(&costs), ..unscaled }
        };
        let observations = [
            observation(64.0 * 64.0, 64.0, 1.0),
            observation(172.0 * 64.0, 172.0, 2.0),
            observation(288.0 * 288.0, 288.0, 1.0),
            observation(2048.0, 16.0, 5.0),
        ];
        let found = fit(&observations);
        for (kind, cost) in &costs {
            assert!((found[kind] / cost - 1.0).abs() < 1e-3, "{kind}: {found:?}");
        }
        // Nothing gives instructions back, however it would fit.
        let odd = Observation { counted: 1.0, ..observation(4096.0, 64.0, 0.0) };
        assert!(fit(&[odd, observations[0].clone()]).values().all(|&cost| cost >= 0.0));
    }
}
