//! An adapter's updates put into the weights that they belong to, in `f32`: each new weight is computed in `f64` and rounded once.

use super::files::module_of;
use super::{Ia3Config, LoraConfig, PeftConfig};
use crate::artifact::{NamedWeights, Problem, Weight};
use crate::quant::quantize_matrix;
use siskin_runtime::WeightFormat;
use std::collections::BTreeSet;

/// Puts an adapter, by the names of PEFT's files, into the weights of its model; returns the names of those that it changed.
///
/// `is_tied` says whether the output head is the embedding: an update of one alone cannot be merged then.
///
/// # Errors
/// [`Problem`]: a kind that is not in weights; a weight that the model does not have, or of another shape.
pub fn merge(
    config: &PeftConfig,
    adapter: &NamedWeights,
    tensors: &mut NamedWeights,
    is_tied: bool,
) -> Result<Vec<String>, Problem> {
    let modules: BTreeSet<&str> = adapter.keys().filter_map(|name| module_of(name)).collect();
    let mut changed = Vec::new();
    for module in modules {
        match config {
            PeftConfig::Lora(lora) => merge_pair(lora, module, adapter, tensors, is_tied)?,
            PeftConfig::Ia3(ia3) => merge_gains(ia3, module, adapter, tensors)?,
            _ => {}
        }
        changed.push(format!("{module}.weight"));
    }
    if changed.is_empty() {
        let name = config.name();
        return Err(Problem::unsupported(format!("merging {name}: nothing of it is an update of a weight")));
    }
    Ok(changed)
}

/// A tensor of the adapter.
fn part<'a>(adapter: &'a NamedWeights, module: &str, part: &str) -> Result<&'a Weight, Problem> {
    let name = format!("base_model.model.{module}.{part}");
    let weight = adapter.get(&name).ok_or_else(|| Problem::MissingTensor { name: name.clone() })?;
    match weight.data.iter().position(|value| !value.is_finite()) {
        Some(element_idx) => Err(Problem::NotFinite { name, element_idx }),
        None => Ok(weight),
    }
}

/// The weight of a module and its extents, `(rows, cols)`.
fn weight_of<'a>(tensors: &'a mut NamedWeights, module: &str) -> Result<(&'a mut Vec<f32>, usize, usize), Problem> {
    let name = format!("{module}.weight");
    match tensors.get_mut(&name) {
        Some(Weight { shape, data }) if shape.len() == 2 => Ok((data, shape[0], shape[1])),
        _ => Err(Problem::MissingTensor { name }),
    }
}

fn check(weight: &Weight, expected: [usize; 2], module: &str, part: &str) -> Result<(), Problem> {
    if weight.shape == expected {
        return Ok(());
    }
    let name = format!("base_model.model.{module}.{part}");
    Err(Problem::WrongShape { name, expected: expected.to_vec(), found: weight.shape.clone() })
}

fn merge_pair(
    lora: &LoraConfig,
    module: &str,
    adapter: &NamedWeights,
    tensors: &mut NamedWeights,
    is_tied: bool,
) -> Result<(), Problem> {
    let is_table = adapter.contains_key(&format!("base_model.model.{module}.lora_embedding_A"));
    if is_table && is_tied {
        return Err(Problem::unsupported(format!(
            "merging {module}: the output head is the same matrix, and would change with it"
        )));
    }
    let (weight, rows, cols) = weight_of(tensors, module)?;
    let names = if is_table { ["lora_embedding_A", "lora_embedding_B"] } else { ["lora_A.weight", "lora_B.weight"] };
    let (a, b) = (part(adapter, module, names[0])?, part(adapter, module, names[1])?);
    let rank = a.shape.first().copied().unwrap_or(0).max(1);
    let (a_cols, b_rows) = if is_table { (rows, cols) } else { (cols, rows) };
    check(a, [rank, a_cols], module, names[0])?;
    check(b, [b_rows, rank], module, names[1])?;
    let scale = f64::from(lora.scale_of(module, rank));
    // Of a table the update is the other way round: `aᵀ bᵀ`.
    let update = |row: usize, col: usize| {
        let (of_a, of_b) = if is_table { (row, col) } else { (col, row) };
        (0..rank).map(|k| f64::from(b.data[of_b * rank + k]) * f64::from(a.data[k * a_cols + of_a])).sum::<f64>()
    };
    let magnitudes = match lora.use_dora {
        true => Some(part(adapter, module, "lora_magnitude_vector")?),
        false => None,
    };
    if let Some(magnitudes) = magnitudes.filter(|magnitudes| magnitudes.data.len() != rows) {
        let name = format!("base_model.model.{module}.lora_magnitude_vector");
        return Err(Problem::WrongShape { name, expected: vec![rows], found: magnitudes.shape.clone() });
    }
    for (row, weights) in weight.chunks_exact_mut(cols).enumerate() {
        let sums: Vec<f64> =
            weights.iter().enumerate().map(|(col, w)| f64::from(*w) + scale * update(row, col)).collect();
        let gain = magnitudes.map_or(1.0, |magnitudes| {
            f64::from(magnitudes.data[row]) / sums.iter().map(|sum| sum * sum).sum::<f64>().sqrt()
        });
        weights.iter_mut().zip(sums).for_each(|(w, sum)| *w = (gain * sum) as f32);
    }
    Ok(())
}

fn merge_gains(
    ia3: &Ia3Config,
    module: &str,
    adapter: &NamedWeights,
    tensors: &mut NamedWeights,
) -> Result<(), Problem> {
    let gains = part(adapter, module, "ia3_l")?;
    let scales_input = ia3.scales_input(module);
    let (weight, rows, cols) = weight_of(tensors, module)?;
    check(gains, if scales_input { [1, cols] } else { [rows, 1] }, module, "ia3_l")?;
    let gains = &gains.data;
    for (row, weights) in weight.chunks_exact_mut(cols).enumerate() {
        for (col, w) in weights.iter_mut().enumerate() {
            *w *= gains[if scales_input { col } else { row }];
        }
    }
    if let Some(bias) = tensors.get_mut(&format!("{module}.bias")).filter(|_| !scales_input) {
        bias.data.iter_mut().zip(gains).for_each(|(bias, gain)| *bias *= gain);
    }
    Ok(())
}

/// What rounding a weight to a device's format costs, before and after a merge; all relative to the norm of the weight.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct RoundingError {
    /// The weight.
    pub name: String,
    /// The norm of what the adapter changed.
    pub update: f64,
    /// The norm of the rounding of the weight without the adapter.
    pub before: f64,
    /// The same with it.
    pub after: f64,
}

impl RoundingError {
    /// Compares a weight of two sets that both have it.
    ///
    /// # Panics
    /// If one does not.
    pub fn of(name: String, before: &NamedWeights, after: &NamedWeights, format: WeightFormat) -> Self {
        let (old, new) = (&before[&name], &after[&name]);
        let rounded = |weight: &Weight| {
            let (rows, cols) = (weight.shape[0], weight.shape[1]);
            quantize_matrix(&weight.data, rows, cols, format).dequantize()
        };
        let (error_before, error_after) = (rounded(old), rounded(new));
        Self {
            update: relative_distance(&new.data, &old.data),
            before: relative_distance(&error_before, &old.data),
            after: relative_distance(&error_after, &new.data),
            name,
        }
    }

    /// How many times the error before is the error after.
    pub fn growth(&self) -> f64 {
        if self.after == 0.0 { 0.0 } else { self.after / self.before }
    }
}

/// The norm of a difference over that of `of`.
fn relative_distance(from: &[f32], of: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let distance: f64 = from.iter().zip(of).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let norm: f64 = of.iter().map(|x| square(f64::from(*x))).sum();
    if norm == 0.0 { 0.0 } else { (distance / norm).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outlier_makes_rounding_cost_more() {
        let weight = |outlier: f32| {
            let data: Vec<f32> = (0..64).map(|i| if i == 9 { outlier } else { (i as f32 * 0.7).sin() }).collect();
            NamedWeights::from([("w".to_owned(), Weight { shape: vec![1, 64], data })])
        };
        let error = |outlier: f32| RoundingError::of("w".into(), &weight(0.5), &weight(outlier), WeightFormat::Int8);
        let same = error(0.5);
        assert_eq!((same.update, same.before), (0.0, same.after));
        assert!(same.before > 0.001 && same.before < 0.01 && same.growth() == 1.0, "{same:?}");
        let far = error(50.0);
        assert!(far.update > 5.0 && far.after * 50.0 > same.after * 2.0, "{far:?}");
    }
}
