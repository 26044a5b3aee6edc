//! What is trained beside a model, as the tensors of PEFT's files: the same names, and in some cases other shapes.
//!
//! ```text
//! here                                     in a file
//! lora_embedding_A, (rows, rank)           (rank, rows)
//! ia3_l, a vector                          (outputs, 1) or, where the input is scaled, (1, inputs)
//! prompt_embeddings of prefix tuning       keys as the cache has them: turned by their positions
//! ```

use super::PeftConfig;
use crate::artifact::{NamedWeights, Problem, Weight, shape_of};
use crate::model::{Architecture, Model, Positions};
use crate::tensor::{ParamSpec, Params};

/// The parameters beside a model as a file has them.
pub fn to_file(model: &dyn Model, config: &PeftConfig, params: &Params) -> NamedWeights {
    let specs = &model.layout().specs()[model.n_own_params()..];
    let weight = |spec: &ParamSpec| {
        let mut data = vec![0.0; spec.range.len()];
        params.weight_of(spec).widen_into(&mut data);
        let shape = file_shape(spec, config);
        if spec.name.ends_with(".lora_embedding_A") {
            data = transposed(&data, spec.cols);
        }
        if let PeftConfig::PrefixTuning(_) = config {
            turn_keys(model.architecture(), &mut data, 1.0);
        }
        (spec.name.clone(), Weight { shape, data })
    };
    specs.iter().map(weight).collect()
}

/// Puts a file's tensors in the places of the parameters beside a model.
///
/// # Errors
/// [`Problem`]: a tensor that is missing, has another shape or is for another model.
pub fn from_file(
    model: &dyn Model,
    config: &PeftConfig,
    mut tensors: NamedWeights,
    params: &mut Params,
) -> Result<(), Problem> {
    for spec in &model.layout().specs()[model.n_own_params()..] {
        let name = || spec.name.clone();
        let Weight { shape, mut data } =
            tensors.remove(&spec.name).ok_or_else(|| Problem::MissingTensor { name: name() })?;
        let expected = file_shape(spec, config);
        if shape != expected {
            return Err(Problem::WrongShape { name: name(), expected, found: shape });
        }
        if let Some(element_idx) = data.iter().position(|value| !value.is_finite()) {
            return Err(Problem::NotFinite { name: name(), element_idx });
        }
        if spec.name.ends_with(".lora_embedding_A") {
            data = transposed(&data, spec.rows);
        }
        if let PeftConfig::PrefixTuning(_) = config {
            turn_keys(model.architecture(), &mut data, -1.0);
        }
        let id = model.layout().find(&spec.name).ok_or_else(|| Problem::MissingTensor { name: name() })?;
        params.get_mut(id).copy_from_slice(&data);
    }
    // Of tables PEFT saves the base, too.
    match tensors.into_keys().find(|name| !name.ends_with(".base_layer.weight")) {
        Some(name) => Err(Problem::UnexpectedTensor { name }),
        None => Ok(()),
    }
}

/// The modules that have something beside them, each once, by their names.
pub fn adapted_modules(model: &dyn Model) -> Vec<String> {
    let specs = &model.layout().specs()[model.n_own_params()..];
    let module = |spec: &ParamSpec| module_of(&spec.name).map(str::to_owned);
    let mut modules: Vec<String> = specs.iter().filter_map(module).collect();
    modules.dedup();
    modules
}

/// The module that a tensor of a file belongs to.
pub(super) fn module_of(name: &str) -> Option<&str> {
    let name = name.strip_prefix("base_model.model.")?;
    let end = name.rfind(".lora_").or_else(|| name.rfind(".ia3_l"))?;
    Some(&name[..end])
}

fn file_shape(spec: &ParamSpec, config: &PeftConfig) -> Vec<usize> {
    match config {
        PeftConfig::Ia3(ia3) => match module_of(&spec.name).is_some_and(|module| ia3.scales_input(module)) {
            true => vec![1, spec.cols],
            false => vec![spec.cols, 1],
        },
        _ if spec.name.ends_with(".lora_embedding_A") => vec![spec.cols, spec.rows],
        _ => shape_of(spec),
    }
}

fn transposed(data: &[f32], cols: usize) -> Vec<f32> {
    (0..cols).flat_map(|col| data.iter().skip(col).step_by(cols).copied()).collect()
}

/// Turns the keys of a prefix, `(virtual tokens, layers * 2 * kv_dim)` with a layer's keys before its values, by their positions; with a
/// `sign` of -1 back.
fn turn_keys(architecture: &Architecture, data: &mut [f32], sign: f64) {
    let Positions::Rope { theta } = architecture.positions else { return };
    let (kv_dim, head_dim) = (architecture.kv_dim(), architecture.head_dim);
    let half = head_dim / 2;
    let width = 2 * kv_dim * architecture.n_decoder_layers;
    for (position, row) in data.chunks_exact_mut(width).enumerate() {
        let keys = row.chunks_exact_mut(kv_dim).step_by(2);
        for head in keys.flat_map(|keys| keys.chunks_exact_mut(head_dim)) {
            let (left, right) = head.split_at_mut(half);
            for (i, (x, y)) in left.iter_mut().zip(right).enumerate() {
                let turn = f64::from(theta).powf(-2.0 * i as f64 / head_dim as f64);
                let (sin, cos) = (sign * position as f64 * turn).sin_cos();
                let (a, b) = (f64::from(*x), f64::from(*y));
                (*x, *y) = ((a * cos - b * sin) as f32, (b * cos + a * sin) as f32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_turned_twice_is_itself() {
        let data: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let turned = transposed(&data, 4);
        assert_eq!(turned[..4], [0.0, 4.0, 8.0, 1.0]);
        assert_eq!(transposed(&turned, 3), data);
    }

    #[test]
    fn modules_are_read_out_of_names() {
        assert_eq!(module_of("base_model.model.a.q_proj.lora_A.weight"), Some("a.q_proj"));
        assert_eq!(module_of("base_model.model.a.lora_embedding_A"), Some("a"));
        assert_eq!(module_of("base_model.model.a.b.ia3_l"), Some("a.b"));
        assert_eq!(module_of("prompt_embeddings"), None);
    }
}
