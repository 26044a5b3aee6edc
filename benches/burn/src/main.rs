//! burn's side of `cargo xtask bench train`: the same Llama, its loss, its gradients and AdamW, in `f32` on the Flex backend.
//!
//! `bench-burn llama DIM HIDDEN LAYERS HEADS KV_HEADS VOCAB BATCH CONTEXT`, then the protocol of benches/README.md.

use std::io::Write as _;
use std::time::Instant;

use burn::module::Module;
use burn::nn::loss::{CrossEntropyLoss, CrossEntropyLossConfig};
use burn::nn::{
    Embedding, EmbeddingConfig, Initializer, Linear, LinearConfig, RmsNorm, RmsNormConfig, RotaryEncoding,
    RotaryEncodingConfig,
};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::prelude::*;
use burn::tensor::activation::{silu, softmax};

/// Added inside the root of every norm.
const NORM_EPS: f64 = 1e-5;
/// Steps before the clock starts.
const WARM_UP: usize = 2;

#[derive(Clone, Copy)]
struct Shape {
    dim: usize,
    hidden_dim: usize,
    n_layers: usize,
    n_heads: usize,
    n_kv_heads: usize,
    vocab_size: usize,
    batch_size: usize,
    context_len: usize,
}

impl Shape {
    fn from_args() -> Option<Self> {
        let mut args = std::env::args().skip(1);
        args.next().filter(|family| family == "llama")?;
        let numbers: Vec<usize> = args.map(|number| number.parse()).collect::<Result<_, _>>().ok()?;
        let [dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, batch_size, context_len] = numbers[..] else {
            return None;
        };
        Some(Self { dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, batch_size, context_len })
    }

    fn head_dim(self) -> usize {
        self.dim / self.n_heads
    }
}

#[derive(Module, Debug)]
struct Layer {
    attention_norm: RmsNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    feed_forward_norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Layer {
    fn new(shape: Shape, device: &Device) -> Self {
        let Shape { dim, hidden_dim, .. } = shape;
        let kv_dim = shape.head_dim() * shape.n_kv_heads;
        let linear = |from, to| LinearConfig::new(from, to).with_bias(false).init(device);
        let norm = || RmsNormConfig::new(dim).with_epsilon(NORM_EPS).init(device);
        Self {
            attention_norm: norm(),
            query: linear(dim, dim),
            key: linear(dim, kv_dim),
            value: linear(dim, kv_dim),
            output: linear(dim, dim),
            feed_forward_norm: norm(),
            gate: linear(dim, hidden_dim),
            up: linear(dim, hidden_dim),
            down: linear(hidden_dim, dim),
        }
    }

    fn forward(&self, constants: &Constants, stream: Tensor<3>) -> Tensor<3> {
        let x = self.attention_norm.forward(stream.clone());
        let stream = stream + self.attention(constants, x);
        let x = self.feed_forward_norm.forward(stream.clone());
        stream + self.down.forward(silu(self.gate.forward(x.clone())) * self.up.forward(x))
    }

    fn attention(&self, constants: &Constants, x: Tensor<3>) -> Tensor<3> {
        let shape = constants.shape;
        let Shape { dim, n_heads, n_kv_heads, batch_size, context_len, .. } = shape;
        let heads = |x: Tensor<3>, n_heads: usize| {
            x.reshape([batch_size, context_len, n_heads, shape.head_dim()]).swap_dims(1, 2)
        };
        let query = constants.rotation.forward(heads(self.query.forward(x.clone()), n_heads));
        let key = shared(shape, constants.rotation.forward(heads(self.key.forward(x.clone()), n_kv_heads)));
        let value = shared(shape, heads(self.value.forward(x), n_kv_heads));
        let scores = query.matmul(key.swap_dims(2, 3)) * (shape.head_dim() as f32).powf(-0.5);
        let shares = softmax(scores + constants.mask.clone(), 3);
        self.output.forward(shares.matmul(value).swap_dims(1, 2).reshape([batch_size, context_len, dim]))
    }
}

/// Repeats each head for the queries that share it.
fn shared(shape: Shape, x: Tensor<4>) -> Tensor<4> {
    let Shape { n_heads, n_kv_heads, batch_size, context_len, .. } = shape;
    if n_heads == n_kv_heads {
        return x;
    }
    let numbers = context_len * shape.head_dim();
    let repeated = x.reshape([batch_size, n_kv_heads, 1, numbers]);
    let repeated = repeated.expand([batch_size, n_kv_heads, n_heads / n_kv_heads, numbers]);
    repeated.reshape([batch_size, n_heads, context_len, shape.head_dim()])
}

struct Constants {
    shape: Shape,
    mask: Tensor<4>,
    rotation: RotaryEncoding,
    loss: CrossEntropyLoss,
}

#[derive(Module, Debug)]
struct Llama {
    embedding: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
}

impl Llama {
    fn new(shape: Shape, device: &Device) -> Self {
        let embedding = EmbeddingConfig::new(shape.vocab_size, shape.dim);
        Self {
            embedding: embedding.with_initializer(Initializer::Normal { mean: 0.0, std: 0.02 }).init(device),
            layers: (0..shape.n_layers).map(|_| Layer::new(shape, device)).collect(),
            norm: RmsNormConfig::new(shape.dim).with_epsilon(NORM_EPS).init(device),
        }
    }

    fn loss(&self, constants: &Constants, inputs: Tensor<2, Int>, targets: Tensor<1, Int>) -> Tensor<1> {
        let Shape { dim, batch_size, context_len, .. } = constants.shape;
        let stream = self.embedding.forward(inputs);
        let stream = self.layers.iter().fold(stream, |stream, layer| layer.forward(constants, stream));
        let states = self.norm.forward(stream).reshape([batch_size * context_len, dim]);
        constants.loss.forward(states.matmul(self.embedding.weight.val().swap_dims(0, 1)), targets)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let shape = Shape::from_args().ok_or("expected `llama` and eight numbers")?;
    let device = Device::flex().autodiff();
    let mut llama = Llama::new(shape, &device);
    let n = shape.context_len;
    let mask: Vec<f32> = (0..n * n).map(|i| if i % n > i / n { -1e9 } else { 0.0 }).collect();
    let constants = Constants {
        shape,
        mask: Tensor::<1>::from_floats(mask.as_slice(), &device).reshape([1, 1, n, n]),
        rotation: RotaryEncodingConfig::new(n, shape.head_dim()).init(&device),
        loss: CrossEntropyLossConfig::new().init(&device),
    };
    let mut optimizer = AdamWConfig::new().with_beta_1(0.9).with_beta_2(0.95).with_weight_decay(0.1).init();
    let tokens = |shift: usize| {
        let token =
            |i: usize| (((i + shift) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) % shape.vocab_size as u64;
        let tokens: Vec<i32> = (0..shape.batch_size * n).map(|i| token(i) as i32).collect();
        Tensor::<1, Int>::from_ints(tokens.as_slice(), &device)
    };
    let (inputs, targets) = (tokens(1).reshape([shape.batch_size, n]), tokens(2));
    let n_params = llama.num_params();
    let mut step = || {
        let loss = llama.loss(&constants, inputs.clone(), targets.clone());
        let value = loss.clone().into_scalar::<f32>();
        let gradients = GradientsParams::from_grads(loss.backward(), &llama);
        llama = optimizer.step(1e-3, llama.clone(), gradients);
        value
    };
    (0..WARM_UP).for_each(|_| drop(step()));
    println!("ready {n_params}");
    for line in std::io::stdin().lines() {
        let (mut loss, mut seconds) = (0.0, String::new());
        for _ in 0..line?.trim().parse::<usize>()? {
            let start = Instant::now();
            loss = step();
            seconds += &format!(" {}", start.elapsed().as_secs_f64());
        }
        println!("{loss}{seconds}");
        std::io::stdout().flush()?;
    }
    Ok(())
}
