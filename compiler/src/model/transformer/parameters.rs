//! Which parameters a transformer has, and their first values.

use crate::model::architecture::{Architecture, Family, Head, NormKind, NormPlace, Positions};
use crate::model::names::{self, Global, Part, Stack};
use crate::model::random::normal;
use crate::tensor::{ParamId, ParamLayout, Params};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// A norm's gain and, in a LayerNorm, its bias.
#[derive(Clone, Copy, Debug)]
pub(super) struct NormParams {
    pub gain: ParamId,
    pub bias: Option<ParamId>,
}

/// A matrix, `(outputs, inputs)`, and its bias.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinearParams {
    pub weight: ParamId,
    pub bias: Option<ParamId>,
}

/// One attention block.
#[derive(Clone, Copy, Debug)]
pub(super) struct AttentionParams {
    pub norm: NormParams,
    pub q: LinearParams,
    pub k: LinearParams,
    pub v: LinearParams,
    pub o: LinearParams,
}

/// One feed-forward block.
#[derive(Clone, Copy, Debug)]
pub(super) struct FeedForwardParams {
    pub norm: NormParams,
    pub gate: Option<LinearParams>,
    pub up: LinearParams,
    pub down: LinearParams,
}

/// One layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct LayerParams {
    pub attention: AttentionParams,
    pub cross: Option<AttentionParams>,
    pub feed_forward: FeedForwardParams,
}

/// The encoder or the decoder.
#[derive(Clone, Debug)]
pub(super) struct StackParams {
    pub layers: Vec<LayerParams>,
    pub relative_bias: Option<ParamId>,
    pub final_norm: Option<NormParams>,
}

/// What turns tokens into the first residual stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct EmbeddingParams {
    pub tokens: ParamId,
    pub positions: Option<ParamId>,
    pub token_types: Option<ParamId>,
    pub norm: Option<NormParams>,
    pub projection: Option<LinearParams>,
}

/// What stands on top.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadParams {
    /// A dense layer with the feed-forward function and a norm, before a masked-language head.
    pub transform: Option<(LinearParams, NormParams)>,
    /// A dense layer with tanh on the first position, before an encoder's classifier.
    pub pooler: Option<LinearParams>,
    /// The output matrix; none where hidden states are what is wanted.
    pub output: Option<LinearParams>,
}

/// All of a model.
#[derive(Clone, Debug)]
pub(super) struct TransformerParams {
    pub layout: ParamLayout,
    pub embedding: EmbeddingParams,
    pub encoder: Option<StackParams>,
    pub decoder: Option<StackParams>,
    pub head: HeadParams,
}

/// Adds parameters under the family's names.
struct Builder<'a> {
    architecture: &'a Architecture,
    layout: ParamLayout,
}

impl Builder<'_> {
    fn norm(&mut self, name: &str, len: usize) -> NormParams {
        let gain = self.layout.vector(format!("{name}.weight"), len);
        let has_bias = self.architecture.norm == NormKind::Layer;
        NormParams { gain, bias: has_bias.then(|| self.layout.vector(format!("{name}.bias"), len)) }
    }

    fn linear(&mut self, name: &str, outputs: usize, inputs: usize) -> LinearParams {
        let weight = self.layout.matrix(format!("{name}.weight"), outputs, inputs);
        let has_bias = self.architecture.biases;
        LinearParams { weight, bias: has_bias.then(|| self.layout.vector(format!("{name}.bias"), outputs)) }
    }

    fn global(&self, part: Global) -> String {
        names::global(self.architecture, part)
    }

    fn embedding(&mut self) -> EmbeddingParams {
        let a = self.architecture;
        let (width, is_encoder) = (a.embedding_dim, a.n_token_types > 0);
        let mut table = |part, rows| {
            let name = format!("{}.weight", self.global(part));
            self.layout.matrix(name, rows, width)
        };
        let tokens = table(Global::Embedding, a.vocab_size);
        let positions = (a.positions == Positions::Learned).then(|| table(Global::Positions, a.context_len));
        let token_types = is_encoder.then(|| table(Global::TokenTypes, a.n_token_types));
        let norm = is_encoder.then(|| self.norm(&self.global(Global::EmbeddingNorm), width));
        let projection =
            (a.family == Family::Albert).then(|| self.linear(&self.global(Global::EmbeddingProjection), a.dim, width));
        EmbeddingParams { tokens, positions, token_types, norm, projection }
    }

    fn stack(&mut self, stack: Stack, n_layers: usize, has_cross: bool) -> StackParams {
        let a = self.architecture;
        let mut layers: Vec<LayerParams> = Vec::with_capacity(n_layers);
        let mut relative_bias = None;
        for layer_idx in 0..n_layers {
            let layer = match layers.first() {
                Some(first) if a.shared_layers => *first,
                _ => self.layer(stack, layer_idx, has_cross),
            };
            layers.push(layer);
            if let (0, Positions::RelativeBias { n_buckets, .. }) = (layer_idx, a.positions) {
                let name = format!("{}.weight", self.global(Global::RelativeBias(stack)));
                relative_bias = Some(self.layout.small_table(name, n_buckets, a.n_heads));
            }
        }
        let final_norm =
            (a.norm_place == NormPlace::Pre).then(|| self.norm(&self.global(Global::FinalNorm(stack)), a.dim));
        StackParams { layers, relative_bias, final_norm }
    }

    fn layer(&mut self, stack: Stack, layer_idx: usize, has_cross: bool) -> LayerParams {
        let a = self.architecture;
        let name = |part| names::layer(a, stack, layer_idx, part);
        let mut attention = |parts: [Part; 5]| AttentionParams {
            norm: self.norm(&name(parts[0]), a.dim),
            q: self.linear(&name(parts[1]), a.q_dim(), a.dim),
            k: self.linear(&name(parts[2]), a.kv_dim(), a.dim),
            v: self.linear(&name(parts[3]), a.kv_dim(), a.dim),
            o: self.linear(&name(parts[4]), a.dim, a.q_dim()),
        };
        let own = attention([Part::AttentionNorm, Part::Q, Part::K, Part::V, Part::O]);
        let cross =
            has_cross.then(|| attention([Part::CrossNorm, Part::CrossQ, Part::CrossK, Part::CrossV, Part::CrossO]));
        let feed_forward = FeedForwardParams {
            norm: self.norm(&name(Part::FeedForwardNorm), a.dim),
            gate: a.feed_forward.is_gated().then(|| self.linear(&name(Part::Gate), a.hidden_dim, a.dim)),
            up: self.linear(&name(Part::Up), a.hidden_dim, a.dim),
            down: self.linear(&name(Part::Down), a.dim, a.hidden_dim),
        };
        LayerParams { attention: own, cross, feed_forward }
    }

    fn head(&mut self, tokens: ParamId) -> HeadParams {
        let a = self.architecture;
        let plain = |weight| LinearParams { weight, bias: None };
        let mut head = HeadParams { transform: None, pooler: None, output: None };
        match a.head {
            Head::None => {}
            Head::Language if a.tied_head => head.output = Some(plain(tokens)),
            Head::Language => {
                let name = format!("{}.weight", self.global(Global::Head));
                head.output = Some(plain(self.layout.matrix(name, a.vocab_size, a.dim)));
            }
            Head::MaskedLanguage => {
                let width = a.embedding_dim;
                let dense = self.linear(&self.global(Global::HeadTransform), width, a.dim);
                head.transform = Some((dense, self.norm(&self.global(Global::HeadNorm), width)));
                let decoder = self.global(Global::Head);
                let weight = match a.tied_head {
                    true => tokens,
                    false => self.layout.matrix(format!("{decoder}.weight"), a.vocab_size, width),
                };
                let bias = decoder.replace(".decoder", ".bias");
                head.output = Some(LinearParams { weight, bias: Some(self.layout.vector(bias, a.vocab_size)) });
            }
            Head::Classifier { n_labels } | Head::TokenClassifier { n_labels } => {
                let is_encoder = a.n_encoder_layers > 0;
                if is_encoder && matches!(a.head, Head::Classifier { .. }) {
                    head.pooler = Some(self.linear(&self.global(Global::Pooler), a.dim, a.dim));
                }
                let name = self.global(Global::Classifier);
                let weight = self.layout.matrix(format!("{name}.weight"), n_labels, a.dim);
                // Decoders' sequence scores have no bias; every `classifier` has one.
                let bias = (name != "score" || matches!(a.head, Head::TokenClassifier { .. }))
                    .then(|| self.layout.vector(format!("{name}.bias"), n_labels));
                head.output = Some(LinearParams { weight, bias });
            }
        }
        head
    }
}

impl TransformerParams {
    /// Lays out the parameters of a valid architecture: embedding, encoder, decoder, head.
    pub(super) fn new(architecture: &Architecture) -> Self {
        let mut builder = Builder { architecture, layout: ParamLayout::default() };
        let embedding = builder.embedding();
        let (n_encoder, n_decoder) = (architecture.n_encoder_layers, architecture.n_decoder_layers);
        let encoder = (n_encoder > 0).then(|| builder.stack(Stack::Encoder, n_encoder, false));
        let decoder = (n_decoder > 0).then(|| builder.stack(Stack::Decoder, n_decoder, n_encoder > 0));
        let head = builder.head(embedding.tokens);
        Self { layout: builder.layout, embedding, encoder, decoder, head }
    }

    /// First values of the first `n_params`: gains one, biases zero; embeddings and heads normal with deviation 0.02; every other matrix normal with
    /// deviation `1 / sqrt(inputs)`, and those that write to a residual stream with norms inside its branches smaller by
    /// `sqrt(2 n_layers)`. Scores that are not scaled (T5) start from smaller queries, and embeddings that are
    /// scaled up (the first Transformer) from `1 / sqrt(dim)`.
    pub(super) fn init(&self, architecture: &Architecture, n_params: usize, seed: u64) -> Params {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut params = Params::zeros(self.layout.clone());
        let deviations = self.deviations(architecture);
        for (spec, deviation) in self.layout.specs()[..n_params].iter().zip(deviations) {
            let values = &mut params.values[spec.range.clone()];
            match deviation {
                None if spec.name.ends_with("bias") => values.fill(0.0),
                None => values.fill(1.0),
                Some(deviation) => values.iter_mut().for_each(|value| *value = (normal(&mut rng) * deviation) as f32),
            }
        }
        params
    }

    /// The deviation of each parameter's first values; none for vectors.
    fn deviations(&self, architecture: &Architecture) -> Vec<Option<f64>> {
        let specs = self.layout.specs();
        let mut deviations: Vec<Option<f64>> =
            specs.iter().map(|spec| (!spec.is_vector).then(|| 1.0 / (spec.cols as f64).sqrt())).collect();
        let mut set = |id: ParamId, deviation: f64| deviations[id.index()] = Some(deviation);
        let stacks = [&self.encoder, &self.decoder].into_iter().flatten();
        for stack in stacks {
            let n_branches = (2.0 * stack.layers.len() as f64).sqrt();
            for layer in &stack.layers {
                let blocks = [Some(layer.attention), layer.cross].into_iter().flatten();
                for block in blocks {
                    if architecture.norm_place == NormPlace::Pre {
                        set(block.o.weight, 1.0 / (architecture.q_dim() as f64).sqrt() / n_branches);
                    }
                    if architecture.family == Family::T5 {
                        set(block.q.weight, 1.0 / ((architecture.dim * architecture.head_dim) as f64).sqrt());
                    }
                }
                if architecture.norm_place == NormPlace::Pre {
                    let hidden_dim = architecture.hidden_dim as f64;
                    set(layer.feed_forward.down.weight, 1.0 / hidden_dim.sqrt() / n_branches);
                }
            }
        }
        let EmbeddingParams { tokens, positions, token_types, .. } = self.embedding;
        let tables = [positions, token_types, self.head.output.map(|output| output.weight), Some(tokens)];
        // BERT's 0.02 belongs to a width of 768. Narrower encoders start with logits of the same size: with smaller ones they stay
        // many times longer at telling the most frequent token.
        let is_encoder = matches!(architecture.family, Family::Bert | Family::Albert);
        let deviation = if is_encoder { 0.02 * (768.0 / architecture.embedding_dim as f64).sqrt() } else { 0.02 };
        for table in tables.into_iter().flatten() {
            set(table, deviation);
        }
        if architecture.positions == Positions::Sinusoidal {
            set(tokens, 1.0 / (architecture.dim as f64).sqrt());
        }
        if architecture.family == Family::T5 {
            // The stream's own size: the first norm brings it to one anyway, and a tied head is scaled down.
            set(tokens, 1.0);
        }
        deviations
    }
}
