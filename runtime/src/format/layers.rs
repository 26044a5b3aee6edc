//! The weights of a model, part by part, where they lie.

use super::PackedModel;
use super::order::StackPlaces;
use crate::config::ModelConfig;
use crate::parts::NormKind;
use crate::tensor::MatrixQ8;

/// A norm's numbers.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'m> {
    /// Multiplies each element.
    pub gain: &'m [f32],
    /// Added then; empty in an RMSNorm.
    pub bias: &'m [f32],
}

/// A matrix, `(outputs, inputs)`, and what is added to its product.
#[derive(Clone, Copy, Debug)]
pub struct Linear<'m> {
    /// The matrix.
    pub weight: MatrixQ8<'m>,
    /// `(outputs,)`, or empty.
    pub bias: &'m [f32],
    /// The matrix's place in the tensor table.
    #[cfg(feature = "adapters")]
    pub tensor_idx: usize,
}

/// How queries, keys and values are projected.
#[derive(Clone, Copy, Debug)]
pub enum Projections<'m> {
    /// From the same input at the same time: `(q_dim + 2 * kv_dim, dim)`.
    Stacked(Linear<'m>),
    /// At different times, since all keys come before the first query.
    Separate {
        /// `(q_dim, dim)`.
        query: Linear<'m>,
        /// `(2 * kv_dim, dim)`.
        key_value: Linear<'m>,
    },
}

/// One attention block.
#[derive(Clone, Copy, Debug)]
pub struct AttentionWeights<'m> {
    /// `(dim,)`.
    pub norm: Norm<'m>,
    /// Of queries, keys and values.
    pub projections: Projections<'m>,
    /// `(dim, q_dim)`.
    pub output: Linear<'m>,
}

/// One layer of a transformer; shapes as in [`super::Role`].
#[derive(Clone, Copy, Debug)]
pub struct LayerWeights<'m> {
    /// Attention to the sequence itself.
    pub attention: AttentionWeights<'m>,
    /// Attention to an encoder's output.
    pub cross: Option<AttentionWeights<'m>>,
    /// `(dim,)`.
    pub feed_forward_norm: Norm<'m>,
    /// `(up_dim, dim)`.
    pub gate_up: Linear<'m>,
    /// `(dim, hidden_dim)`.
    pub down: Linear<'m>,
}

/// One recurrent layer.
#[derive(Clone, Copy, Debug)]
pub struct GateWeights<'m> {
    /// `(3 * dim, inputs)`.
    pub input: Linear<'m>,
    /// `(3 * dim, dim)`.
    pub state: Linear<'m>,
}

/// Takes tensors in their canonical order.
struct Cursor<'c, 'm> {
    model: &'c PackedModel<'m>,
    at: usize,
}

impl<'m> Cursor<'_, 'm> {
    fn vector(&mut self) -> &'m [f32] {
        self.at += 1;
        self.model.floats(self.at - 1)
    }

    fn vector_if(&mut self, is_there: bool) -> &'m [f32] {
        if is_there { self.vector() } else { &[] }
    }

    fn norm(&mut self) -> Norm<'m> {
        let gain = self.vector();
        Norm { gain, bias: self.vector_if(self.model.config().parts().norm == NormKind::Layer) }
    }

    fn matrix(&mut self) -> MatrixQ8<'m> {
        self.at += 1;
        self.model.matrix(self.at - 1)
    }

    fn linear_with(&mut self, has_bias: bool) -> Linear<'m> {
        #[cfg(feature = "adapters")]
        let tensor_idx = self.at;
        let weight = self.matrix();
        Linear {
            weight,
            bias: self.vector_if(has_bias),
            #[cfg(feature = "adapters")]
            tensor_idx,
        }
    }

    fn linear(&mut self) -> Linear<'m> {
        self.linear_with(self.model.config().parts().biases)
    }

    fn separate(&mut self) -> Projections<'m> {
        let query = self.linear();
        Projections::Separate { query, key_value: self.linear() }
    }

    fn layer(&mut self, is_encoder: bool) -> LayerWeights<'m> {
        let norm = self.norm();
        let projections = if is_encoder { self.separate() } else { Projections::Stacked(self.linear()) };
        let attention = AttentionWeights { norm, projections, output: self.linear() };
        let has_cross = !is_encoder && self.model.config().parts().has_cross_attention();
        let cross = has_cross.then(|| {
            let norm = self.norm();
            let projections = self.separate();
            AttentionWeights { norm, projections, output: self.linear() }
        });
        let feed_forward_norm = self.norm();
        let gate_up = self.linear();
        LayerWeights { attention, cross, feed_forward_norm, gate_up, down: self.linear() }
    }
}

impl<'m> PackedModel<'m> {
    fn stack(&self, is_encoder: bool) -> StackPlaces {
        self.places().stacks[usize::from(!is_encoder)]
    }

    fn at_layer(&self, is_encoder: bool, layer_idx: usize) -> Cursor<'_, 'm> {
        let stack = self.stack(is_encoder);
        let at = usize::from(stack.first) + layer_idx * usize::from(stack.step);
        // On a device nothing is read of a layer that is not there.
        #[cfg(not(target_os = "none"))]
        assert!(at < usize::from(stack.end));
        Cursor { model: self, at }
    }

    /// The weights of a layer of the decoder.
    ///
    /// # Panics
    /// If the model has no such layer: a caller's bug.
    pub fn layer(&self, layer_idx: usize) -> LayerWeights<'m> {
        self.at_layer(false, layer_idx).layer(false)
    }

    /// The weights of a layer of the encoder.
    ///
    /// # Panics
    /// If the model has no such layer: a caller's bug.
    pub fn encoder_layer(&self, layer_idx: usize) -> LayerWeights<'m> {
        self.at_layer(true, layer_idx).layer(true)
    }

    /// The weights of a recurrent layer of the encoder or the decoder.
    ///
    /// # Panics
    /// If the model has no such layer: a caller's bug.
    pub fn gates(&self, is_encoder: bool, layer_idx: usize) -> GateWeights<'m> {
        let mut cursor = self.at_layer(is_encoder, layer_idx);
        let input = cursor.linear_with(true);
        GateWeights { input, state: cursor.linear_with(true) }
    }

    /// The embedding, `(vocab_size, embedding_dim)`.
    pub fn embedding(&self) -> MatrixQ8<'m> {
        self.matrix(0)
    }

    /// What becomes of embeddings: a vector a position, `(context_len, embedding_dim)`, a norm, a projection to the model's width.
    pub fn after_embedding(&self) -> (Option<MatrixQ8<'m>>, Option<Norm<'m>>, Option<Linear<'m>>) {
        let config = self.config();
        let mut cursor = Cursor { model: self, at: 1 };
        let positions = (config.parts().positions == crate::parts::Positions::Table).then(|| cursor.matrix());
        let norm = config.parts().embedding_norm.then(|| cursor.norm());
        let projection = config.parts().embedding_projection.then(|| cursor.linear());
        (positions, norm, projection)
    }

    /// What a stack's scores are biased by, `(n_heads, n_distances)`; empty without relative positions.
    pub fn relative_bias(&self, is_encoder: bool) -> &'m [i32] {
        match self.config().parts().positions {
            crate::parts::Positions::RelativeBias => self.integers(self.stack(is_encoder).end.into()),
            _ => &[],
        }
    }

    /// The norm at the end of a stack.
    pub fn final_norm(&self, is_encoder: bool) -> Option<Norm<'m>> {
        let parts = self.config().parts();
        let has_bias_table = parts.positions == crate::parts::Positions::RelativeBias;
        let at = usize::from(self.stack(is_encoder).end) + usize::from(has_bias_table);
        parts.has_final_norm().then(|| Cursor { model: self, at }.norm())
    }

    /// What stands on top of the last layer.
    pub fn head(&self) -> HeadWeights<'m> {
        use crate::parts::Head;
        let config: &ModelConfig = self.config();
        let mut cursor = Cursor { model: self, at: self.places().last.into() };
        let transform = (config.parts().head == Head::MaskedLanguage).then(|| {
            let linear = cursor.linear();
            (linear, cursor.norm())
        });
        let pooler = (config.parts().head == Head::Classifier).then(|| cursor.linear());
        let output = match config.parts().head {
            Head::None => None,
            Head::Language | Head::MaskedLanguage if config.tied_head => {
                let bias = cursor.vector_if(config.parts().head != Head::Language);
                Some(Linear {
                    weight: self.embedding(),
                    bias,
                    #[cfg(feature = "adapters")]
                    tensor_idx: 0,
                })
            }
            head => Some(cursor.linear_with(head != Head::Language)),
        };
        HeadWeights { transform, pooler, output }
    }
}

/// What stands on top of the last layer.
#[derive(Clone, Copy, Debug)]
pub struct HeadWeights<'m> {
    /// Before a masked-language head: `(embedding_dim, dim)` with the feed-forward function, then a norm.
    pub transform: Option<(Linear<'m>, Norm<'m>)>,
    /// Before a classifier: `(dim, dim)` with `tanh`.
    pub pooler: Option<Linear<'m>>,
    /// The output matrix.
    pub output: Option<Linear<'m>>,
}
