//! Freezes a transformer, and lays out what is trained of it or beside it.
//!
//! What lies beside it has the names of PEFT's files; bottleneck adapters those of the adapters library.

use super::Transformer;
use super::hooks::{Bottleneck, Hook, LowRank, VirtualTokens};
use super::parameters::{LayerParams, LinearParams};
use crate::model::architecture::{Family, Kind};
use crate::model::names::{MatrixUse, matrix_use};
use crate::model::random::normal;
use crate::peft::names::{matching_modules, matching_params};
use crate::peft::{
    BottleneckConfig, BottleneckPlace, Ia3Config, LoraConfig, PeftConfig, PeftError, PrefixTuningConfig, PromptInit,
    PromptTuningConfig, names::ALL_LINEAR, names::Patterns,
};
use crate::tensor::ops::{Activation, FirstRows};
use crate::tensor::{ParamId, ParamSpec, Params};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use siskin_runtime::TokenId;

/// What PEFT puts before the name of a module.
const PREFIX: &str = "base_model.model.";
/// PEFT's name of what stands before every text.
const PROMPT_NAME: &str = "prompt_embeddings";
/// The name that adapters have in files of the adapters library.
const BOTTLENECK_NAME: &str = "siskin";
/// The random numbers of what is beside a model: others than those of the model itself.
const STREAM: u64 = 1;

/// First values of what is trained beside a model.
#[derive(Clone, Copy, Debug)]
pub(super) enum FirstValues {
    Zeros,
    Ones,
    Normal {
        deviation: f64,
    },
    Uniform {
        bound: f64,
    },
    /// The norms of a weight's rows.
    RowNorms(ParamId),
    /// As large as those of a table, or its rows.
    Prompt {
        table: ParamId,
        init: PromptInit,
    },
}

impl Transformer {
    /// Freezes what `peft` does not train, and adds what it trains beside the model.
    ///
    /// # Errors
    /// [`PeftError`]: what is to be trained is not there, or not possible in this model.
    pub fn adapt(&mut self, peft: &PeftConfig) -> Result<(), PeftError> {
        if let PeftConfig::Selective(config) = peft {
            let is_trained = matching_params(&config.params, &self.params.layout)?;
            self.params.layout.freeze_listed(&is_trained);
            return Ok(());
        }
        let frozen = vec![false; self.params.layout.specs().len()];
        self.params.layout.freeze_listed(&frozen);
        match peft {
            PeftConfig::Selective(_) => Ok(()),
            PeftConfig::Lora(config) => self.add_lora(config),
            PeftConfig::Ia3(config) => self.add_ia3(config),
            PeftConfig::PromptTuning(config) => self.add_prompt(config),
            PeftConfig::PrefixTuning(config) => self.add_prefix(config),
            PeftConfig::Bottleneck(config) => self.add_bottlenecks(config),
        }
    }

    /// Fills what is trained beside the model, whose own values are there already; `text` is what a soft prompt may begin as.
    pub(super) fn fill_beside(&self, params: &mut Params, seed: u64, text: &[TokenId]) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(STREAM);
        for (id, first) in &self.first_values {
            let values = self.first_numbers(params, *id, *first, text, &mut rng);
            params.get_mut(*id).copy_from_slice(&values);
        }
    }

    fn first_numbers(
        &self,
        params: &Params,
        id: ParamId,
        first: FirstValues,
        text: &[TokenId],
        rng: &mut ChaCha8Rng,
    ) -> Vec<f32> {
        let ParamSpec { rows, cols, .. } = *params.layout.spec(id);
        let whole = |id: ParamId| {
            let mut whole = vec![0.0; params.layout.spec(id).range.len()];
            params.weight(id).widen_into(&mut whole);
            whole
        };
        let n = rows * cols;
        match first {
            FirstValues::Zeros => vec![0.0; n],
            FirstValues::Ones => vec![1.0; n],
            FirstValues::Normal { deviation } => (0..n).map(|_| (normal(rng) * deviation) as f32).collect(),
            FirstValues::Uniform { bound } => (0..n).map(|_| rng.random_range(-bound..bound) as f32).collect(),
            FirstValues::RowNorms(weight) => whole(weight)
                .chunks_exact(params.layout.spec(weight).cols)
                .map(|row| root_of_squares(row) as f32)
                .collect(),
            FirstValues::Prompt { table, init } => {
                let whole = whole(table);
                let n_tokens = whole.len() / cols;
                let row = |token: usize| whole[token * cols..(token + 1) * cols].to_vec();
                match init {
                    PromptInit::Random => {
                        let deviation = root_of_squares(&whole) / (whole.len() as f64).sqrt();
                        (0..n).map(|_| (normal(rng) * deviation) as f32).collect()
                    }
                    PromptInit::Text if !text.is_empty() => text
                        .iter()
                        .cycle()
                        .take(rows)
                        .flat_map(|token| row((*token as usize).min(n_tokens - 1)))
                        .collect(),
                    _ => (0..rows).flat_map(|_| row(rng.random_range(0..n_tokens))).collect(),
                }
            }
        }
    }

    /// Adds a matrix that is trained; it stays in `f32`.
    fn matrix_beside(&mut self, name: String, (rows, cols): (usize, usize), first: FirstValues) -> ParamId {
        let id = self.params.layout.small_table(name, rows, cols);
        self.first_values.push((id, first));
        id
    }

    /// Adds a vector that is trained.
    fn vector_beside(&mut self, name: String, len: usize, first: FirstValues) -> ParamId {
        let id = self.params.layout.vector(name, len);
        self.first_values.push((id, first));
        id
    }

    /// The weights of modules that may be named as targets, and whether each is that of a product.
    fn modules(&self) -> Vec<(ParamId, String, bool)> {
        let embedding = self.params.embedding;
        let tables: Vec<ParamId> =
            [Some(embedding.tokens), embedding.positions, embedding.token_types].into_iter().flatten().collect();
        let specs = self.params.layout.specs().iter().filter(|spec| !spec.is_vector);
        let of_spec = |spec: &ParamSpec| {
            let id = self.params.layout.find(&spec.name)?;
            let is_product = !tables.contains(&id) && matches!(matrix_use(&spec.name), MatrixUse::Hidden { .. });
            let module = spec.name.strip_suffix(".weight")?.to_owned();
            (is_product || tables.contains(&id)).then_some((id, module, is_product))
        };
        specs.filter_map(of_spec).collect()
    }

    /// The modules that `patterns` mean.
    fn targets(&self, patterns: &Patterns) -> Result<Vec<(ParamId, String, bool)>, PeftError> {
        let modules = self.modules();
        let names: Vec<&str> = modules.iter().map(|(_, name, _)| name.as_str()).collect();
        let is_meant: Vec<bool> = match patterns {
            Patterns::Regex(text) if text == ALL_LINEAR => modules.iter().map(|(.., is_product)| *is_product).collect(),
            patterns => matching_modules(patterns, &names)?,
        };
        let targets: Vec<_> =
            modules.into_iter().zip(is_meant).filter_map(|(module, is)| is.then_some(module)).collect();
        match targets.iter().find(|(_, name, _)| name.contains(".c_attn.")) {
            Some(_) => Err(PeftError::Unsuited(
                "queries, keys and values of GPT-2 are one matrix in PEFT's files: name other modules than c_attn"
                    .into(),
            )),
            None => Ok(targets),
        }
    }

    fn add_lora(&mut self, config: &LoraConfig) -> Result<(), PeftError> {
        for (weight, module, is_product) in self.targets(&config.target_modules)? {
            let ParamSpec { rows, cols, .. } = *self.params.layout.spec(weight);
            let rank = config.rank_of(&module);
            let scale = config.scale_of(&module, rank);
            let name = |part: &str| format!("{PREFIX}{module}.{part}");
            if !is_product && config.use_dora {
                return Err(PeftError::Unsuited(format!("use_dora is for products, and {module} is a table")));
            }
            let (a, b) = match is_product {
                true => {
                    // Kaiming's uniform numbers with a slope of the root of 5.
                    let uniform = FirstValues::Uniform { bound: 1.0 / (cols as f64).sqrt() };
                    let a = self.matrix_beside(name("lora_A.weight"), (rank, cols), uniform);
                    (a, self.matrix_beside(name("lora_B.weight"), (rows, rank), FirstValues::Zeros))
                }
                false => {
                    let a = self.matrix_beside(name("lora_embedding_A"), (rows, rank), FirstValues::Zeros);
                    let normal = FirstValues::Normal { deviation: 1.0 };
                    (a, self.matrix_beside(name("lora_embedding_B"), (cols, rank), normal))
                }
            };
            let magnitude = config
                .use_dora
                .then(|| self.vector_beside(name("lora_magnitude_vector"), rows, FirstValues::RowNorms(weight)));
            self.hooks.set(weight, Hook::LowRank(LowRank { a, b, scale, dropout: config.lora_dropout, magnitude }));
        }
        Ok(())
    }

    fn add_ia3(&mut self, config: &Ia3Config) -> Result<(), PeftError> {
        let targets = self.targets(&config.target_modules)?;
        if let Some((_, table, _)) = targets.iter().find(|(.., is_product)| !is_product) {
            return Err(PeftError::Unsuited(format!("IA3 scales products, and {table} is a table")));
        }
        for (weight, module, _) in targets {
            let scales_input = config.scales_input(&module);
            let ParamSpec { rows, cols, .. } = *self.params.layout.spec(weight);
            let name = format!("{PREFIX}{module}.ia3_l");
            let gain = self.vector_beside(name, if scales_input { cols } else { rows }, FirstValues::Ones);
            self.hooks.set(weight, if scales_input { Hook::InputGain(gain) } else { Hook::OutputGain(gain) });
        }
        Ok(())
    }

    /// Checks that rows can stand before every text, and how many at most.
    fn check_virtual(&self, n: usize) -> Result<(), PeftError> {
        let (family, context_len) = (self.architecture.family, self.architecture.context_len);
        if family.kind() != Kind::DecoderOnly {
            let name = family.name();
            return Err(PeftError::Unsuited(format!("virtual tokens are for decoders, and this model is a {name}")));
        }
        match n < context_len {
            true => Ok(()),
            false => Err(PeftError::Unsuited(format!("{n} virtual tokens fill the context of {context_len} tokens"))),
        }
    }

    fn add_prompt(&mut self, config: &PromptTuningConfig) -> Result<(), PeftError> {
        let n = config.num_virtual_tokens;
        self.check_virtual(n)?;
        let table = self.params.embedding.tokens;
        let first = FirstValues::Prompt { table, init: config.prompt_tuning_init };
        let dim = self.architecture.dim;
        let embeddings = self.matrix_beside(PROMPT_NAME.to_owned(), (n, dim), first);
        self.hooks.virtual_tokens = Some(VirtualTokens { n, embeddings: Some(embeddings) });
        Ok(())
    }

    fn add_prefix(&mut self, config: &PrefixTuningConfig) -> Result<(), PeftError> {
        let n = config.num_virtual_tokens;
        self.check_virtual(n)?;
        let kv_dim = self.architecture.kv_dim();
        let layers = self.last_stack().layers.clone();
        let normal = FirstValues::Normal { deviation: 1.0 };
        let table = self.matrix_beside(PROMPT_NAME.to_owned(), (n, 2 * layers.len() * kv_dim), normal);
        for (layer_idx, LayerParams { attention, .. }) in layers.iter().enumerate() {
            for (half, weight) in [attention.k.weight, attention.v.weight].into_iter().enumerate() {
                let first_col = (2 * layer_idx + half) * kv_dim;
                self.hooks.set(weight, Hook::FirstRows(FirstRows { table, first_col }));
            }
        }
        self.hooks.virtual_tokens = Some(VirtualTokens { n, embeddings: None });
        Ok(())
    }

    fn add_bottlenecks(&mut self, config: &BottleneckConfig) -> Result<(), PeftError> {
        if self.architecture.family != Family::Llama {
            let name = self.architecture.family.name();
            return Err(PeftError::Unsuited(format!("bottleneck adapters are for Llamas, and this model is a {name}")));
        }
        let dim = self.architecture.dim;
        let width = dim / config.reduction_factor;
        if width == 0 {
            let factor = config.reduction_factor;
            return Err(PeftError::Unsuited(format!(
                "a reduction_factor of {factor} leaves nothing of a width of {dim}"
            )));
        }
        let layers = self.last_stack().layers.clone();
        for (layer_idx, layer) in layers.iter().enumerate() {
            let (o, down) = (layer.attention.o.weight, layer.feed_forward.down.weight);
            let (places, activation) = match config.place {
                BottleneckPlace::Houlsby => {
                    (vec![("attention_adapters", o), ("output_adapters", down)], Activation::Silu)
                }
                BottleneckPlace::Pfeiffer => (vec![("output_adapters", down)], Activation::Relu),
            };
            for (place, weight) in places {
                let name = |part: &str| format!("model.layers.{layer_idx}.{place}.adapters.{BOTTLENECK_NAME}.{part}");
                let mut linear = |part: &str, (rows, cols): (usize, usize)| {
                    let normal = FirstValues::Normal { deviation: 0.02 };
                    let weight = self.matrix_beside(name(&format!("{part}.weight")), (rows, cols), normal);
                    let bias = self.vector_beside(name(&format!("{part}.bias")), rows, FirstValues::Zeros);
                    LinearParams { weight, bias: Some(bias) }
                };
                let (down, up) = (linear("adapter_down.0", (width, dim)), linear("adapter_up", (dim, width)));
                self.hooks.set(weight, Hook::Bottleneck(Bottleneck { down, up, activation }));
            }
        }
        Ok(())
    }
}

fn root_of_squares(numbers: &[f32]) -> f64 {
    numbers.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt()
}
