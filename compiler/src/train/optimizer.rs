//! The update rule of a run: settings of each parameter, and what the optimiser remembers between steps.

use super::adamw::AdamW;
use super::groups::{self, Member};
use super::muon::{Muon, Stack};
use crate::model::names::{MatrixUse, matrix_use};
use crate::peft::NameError;
use crate::recipe::{OptimizerKind, OptimizerSection};
use crate::tensor::bf16::Numbers;
use crate::tensor::{ParamLayout, Params, WeightMut};

/// The update rule of a model's parameters and its state. Its results are the same for any number of threads.
#[derive(Clone, Debug)]
pub struct Optimizer {
    rule: OptimizerSection,
    n_numbers: usize,
    adamw: AdamW,
    /// Where the recipe wants it: the rule of the matrices inside the model, which then are not AdamW's.
    muon: Option<Muon>,
}

impl Optimizer {
    /// The state before the first step.
    ///
    /// # Errors
    /// [`NameError`] if a group has no parameter.
    pub fn new(rule: &OptimizerSection, layout: &ParamLayout) -> Result<Self, NameError> {
        let members = groups::members(rule, layout)?;
        let (rule, n_numbers, dtype) = (rule.clone(), layout.n_trained(), rule.state_dtype);
        if rule.kind == OptimizerKind::AdamW {
            return Ok(Self { rule, n_numbers, adamw: AdamW::new(members, dtype), muon: None });
        }
        let (mut rest, mut stacks): (Vec<Member>, Vec<Stack>) = Default::default();
        for member in members {
            let spec = &layout.specs()[member.param_idx];
            match matrix_use(&spec.name) {
                MatrixUse::Hidden { n_stacked } if !spec.is_vector => {
                    stacks.push(Stack { member, rows: spec.rows / n_stacked, cols: spec.cols });
                }
                _ => rest.push(member),
            }
        }
        Ok(Self { rule, n_numbers, adamw: AdamW::new(rest, dtype), muon: Some(Muon::new(stacks, dtype)) })
    }

    /// One update with the gradient times `factor`; `n_before` updates were made before it.
    ///
    /// Muon's own learning rate is scaled as `learning_rate` is, to that of the recipe.
    ///
    /// # Panics
    /// If the parameters or the gradient are another model's.
    pub fn update(&mut self, params: &mut Params, gradient: &[f32], factor: f64, learning_rate: f64, n_before: u64) {
        assert_eq!(params.layout.n_trained(), self.n_numbers, "parameters of another model");
        assert_eq!(gradient.len(), self.n_numbers, "gradient of another model");
        let rule = &self.rule;
        let mut weights: Vec<Option<WeightMut<'_>>> = params.weights_mut().into_iter().map(Some).collect();
        self.adamw.update(&mut weights, gradient, factor, rule, (learning_rate, n_before));
        if let Some(muon) = &mut self.muon {
            let rate = rule.muon_learning_rate * (learning_rate / rule.learning_rate);
            muon.update(&mut weights, gradient, factor, rule, (rate, n_before));
        }
    }

    /// Numbers that it remembers: two a parameter of AdamW's, one a parameter of Muon's.
    pub fn n_state_numbers(&self) -> usize {
        self.state().iter().map(|(_, values)| values.len()).sum()
    }

    /// Bytes of what it remembers.
    pub fn n_state_bytes(&self) -> usize {
        self.state().iter().map(|(_, values)| values.n_bytes()).sum()
    }

    /// Its state by name, in the order of the names.
    pub(super) fn state(&self) -> Vec<(&'static str, &Numbers)> {
        let mut state: Vec<(&str, &Numbers)> = vec![("first_moment", &self.adamw.first_moments)];
        state.extend(self.muon.iter().map(|muon| ("momentum", &muon.momentum)));
        state.push(("second_moment", &self.adamw.second_moments));
        state
    }

    /// Its state by name, for reading a saved one.
    pub(super) fn state_mut(&mut self) -> Vec<(&'static str, &mut Numbers)> {
        let mut state: Vec<(&str, &mut Numbers)> = vec![("first_moment", &mut self.adamw.first_moments)];
        state.extend(self.muon.iter_mut().map(|muon| ("momentum", &mut muon.momentum)));
        state.push(("second_moment", &mut self.adamw.second_moments));
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{self, Family, Head, Kind};
    use crate::recipe::ModelSection;

    fn rule(more: &str) -> OptimizerSection {
        let text = "learning_rate = 0.1\nweight_decay = 0.5\nbeta1 = 0.9\nbeta2 = 0.99\neps = 1e-8\n";
        toml::from_str(&format!("{text}{more}")).unwrap()
    }

    /// The published update, step by step, in `f64`.
    fn by_definition(gradients: &[f64], start: f64, rate: f64, decay: f64) -> f64 {
        let (mut x, mut m, mut v) = (start, 0.0, 0.0);
        for (i, g) in gradients.iter().enumerate() {
            x -= rate * decay * x;
            m = 0.9 * m + 0.1 * g;
            v = 0.99 * v + 0.01 * g * g;
            let n = i as i32 + 1;
            let (m_hat, v_hat) = (m / (1.0 - 0.9_f64.powi(n)), v / (1.0 - 0.99_f64.powi(n)));
            x -= rate * m_hat / (v_hat.sqrt() + 1e-8);
        }
        x
    }

    #[test]
    fn each_group_follows_the_definition_and_norms_are_spared() {
        let mut layout = ParamLayout::default();
        let ids = [layout.matrix("w", 300, 100), layout.vector("g", 3), layout.matrix("slow.w", 2, 1)];
        let mut params = Params::zeros(layout.clone());
        params.values.fill(1.5);
        let group = "group = [{ params = ['slow.*'], learning_rate_scale = 0.5, weight_decay = 0.25 }]";
        let mut optimizer = Optimizer::new(&rule(group), &layout).unwrap();
        let gradients = [0.3, -1.0, 0.02, 4.0];
        for (step, g) in gradients.iter().enumerate() {
            let gradient = vec![*g as f32 * 2.0; layout.len()];
            optimizer.update(&mut params, &gradient, 0.5, 0.1, step as u64);
        }
        for (id, rate, decay) in [(ids[0], 0.1, 0.5), (ids[1], 0.1, 0.0), (ids[2], 0.05, 0.25)] {
            let want = by_definition(&gradients, 1.5, rate, decay);
            for got in params.get(id) {
                assert!((f64::from(*got) - want).abs() < 1e-5, "{got} against {want}");
            }
        }
    }

    #[test]
    fn muon_has_the_matrices_inside_every_family() {
        let tables = |family: Family| -> &[&str] {
            match family {
                Family::Llama => &["model.embed_tokens.weight", "lm_head.weight"],
                Family::Gpt2 => &["transformer.wte.weight", "transformer.wpe.weight", "lm_head.weight"],
                Family::Bert => &[
                    "bert.embeddings.word_embeddings.weight",
                    "bert.embeddings.position_embeddings.weight",
                    "bert.embeddings.token_type_embeddings.weight",
                    "cls.predictions.decoder.weight",
                ],
                Family::Albert => &[
                    "albert.embeddings.word_embeddings.weight",
                    "albert.embeddings.position_embeddings.weight",
                    "albert.embeddings.token_type_embeddings.weight",
                    "predictions.decoder.weight",
                ],
                Family::T5 => &[
                    "shared.weight",
                    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                    "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                    "lm_head.weight",
                ],
                Family::Transformer => &["model.shared.weight", "lm_head.weight"],
                Family::Gru | Family::GruSeq2seq => &["embedding.weight", "head.weight"],
            }
        };
        for family in Family::ALL {
            let name = family.name();
            let section: ModelSection = toml::from_str(&format!(
                "architecture = '{name}'\ndim = 8\nhidden_dim = 12\nn_layers = 2\nn_heads = 2\ncontext_len = 8\ntied_head = false"
            ))
            .unwrap();
            let head = if family.kind() == Kind::EncoderOnly { Head::MaskedLanguage } else { Head::Language };
            let model = model::build(&section.architecture(20, head)).unwrap();
            let matrices = model.layout().specs().iter().filter(|spec| !spec.is_vector);
            let found: Vec<&str> = matrices
                .filter(|spec| matrix_use(&spec.name) == MatrixUse::Table)
                .map(|spec| spec.name.as_str())
                .collect();
            assert_eq!(found, tables(family), "{name}");
        }
    }

    #[test]
    fn muon_remembers_one_number_where_adamw_remembers_two() {
        let mut layout = ParamLayout::default();
        layout.matrix("embedding.weight", 10, 4);
        layout.matrix("decoder.weight_hh_l0", 12, 4);
        layout.vector("decoder.bias_hh_l0", 12);
        let n_numbers =
            |kind: &str| Optimizer::new(&rule(&format!("kind = '{kind}'")), &layout).unwrap().n_state_numbers();
        assert_eq!(n_numbers("adamw"), 2 * (40 + 48 + 12));
        assert_eq!(n_numbers("muon"), 2 * (40 + 12) + 48);
        for kind in ["adamw", "muon"] {
            let n_bytes = |dtype: &str| {
                let rule = rule(&format!("kind = '{kind}'\nstate_dtype = '{dtype}'"));
                Optimizer::new(&rule, &layout).unwrap().n_state_bytes()
            };
            assert_eq!((n_bytes("f32"), n_bytes("bf16")), (4 * n_numbers(kind), 2 * n_numbers(kind)));
        }
    }
}
